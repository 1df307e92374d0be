//! A limit that finds itself: how many exchanges a backend can serve at once, learned from how it answers.

#![allow(missing_docs)]
mod aimd;
mod config;
mod controller;
mod futile;
mod gradient2;
mod search;
#[cfg(test)]
mod tests;
mod window;

pub use aimd::Aimd;
pub(crate) use controller::Controller;
pub use config::{AdaptiveConfig, Algorithm};
pub use gradient2::Gradient2;
pub use window::Window;

/// Says how many exchanges may run at once, from what the last window of answers looked like.
pub trait LimitAlgorithm: Send + 'static {
    /// The limit from now on.
    fn update(&mut self, window: &Window) -> usize;
}
