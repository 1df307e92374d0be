//! A limit that finds itself: how many exchanges a backend can serve at once, learned from how it answers.
//!
//! A fixed limit is right until a replica is lost, a prompt gets longer or a neighbour wakes up. An adaptive one
//! watches two things, the time to the first byte and the answers per second, and moves the limit so that the backend
//! is busy and has no queue of its own: the waiting happens here, where the most urgent goes first.
//!
//! # When to use which
//!
//! - A fixed limit, where you know it: a model server with so many sequences, a pool with so many connections.
//! - [`Algorithm::Gradient2`], the default, where you do not. It compares the latency with its own long-term mean.
//! - [`Algorithm::Aimd`], where a latency has been promised: it keeps the mean below a target, if any limit can. Choose
//!   the target well above the latency of an idle backend, 1.5 times or more.
//! - Your own [`LimitAlgorithm`], where the backend reports its load itself.
//!
//! Neither learns much from a trickle: below some ten answers a second each step takes seconds. The service times may
//! scatter, but the more they do, the wider the limit wanders about the best one.
//!
//! ```
//! use forebay_priority::adaptive::{AdaptiveConfig, Algorithm};
//! use std::time::Duration;
//!
//! let mut config = AdaptiveConfig::default(); // starts at 16, stays within 2 and 1024
//! config.algorithm = Algorithm::Aimd { target: Duration::from_millis(400) };
//! let mut problems = Vec::new();
//! config.validate(&mut problems);
//! assert!(problems.is_empty());
//! ```
//!
//! An algorithm of one's own sees a [`Window`] at a time, and is never asked for less than `min` or more than `max`:
//!
//! ```
//! use forebay_priority::adaptive::{LimitAlgorithm, Window};
//!
//! struct HalveWhenRefused;
//!
//! impl LimitAlgorithm for HalveWhenRefused {
//!     fn update(&mut self, window: &Window) -> usize {
//!         if window.overloads > 0 { window.limit / 2 } else { window.limit + 1 }
//!     }
//! }
//!
//! let mut window = Window::default();
//! window.limit = 40;
//! window.overloads = 3;
//! assert_eq!(HalveWhenRefused.update(&window), 20);
//! ```
//!
//! # What is measured
//!
//! A sample is the time from dispatch to the first byte, never to the end of a generation: that depends on the length
//! of the answer, not on the load. Streams send their head before the first token, so that once one answer in 8 is a
//! stream only streams are samples. A status of 429, 503 or 529 and a failed connection are signs of overload; other
//! client errors and cancelled exchanges are neither. Samples make windows of 100 ms to 1 s.
//!
//! # Where it comes from
//!
//! The two rules are known ones: Gradient2 of Netflix's concurrency-limits, and additive increase with multiplicative
//! decrease (Chiu and Jain, Computer Networks and ISDN Systems 17, 1989). Alone, both let the limit drift: where the
//! latency does not tell, they grow for ever, and where the backend itself has become slower, they cut for ever. So
//! both only propose here. What stays is decided by experiment: a larger limit has to bring more answers, or it is
//! undone; a smaller one that costs none is kept, down to the knee (Kleinrock, Power and deterministic rules of thumb
//! for probabilistic problems in computer communications, ICC 1979); a cut that does not make the answers faster is
//! given up. The limit never drops to a floor in order to measure an empty backend.
//!
//! # How well it does
//!
//! `cargo bench -p forebay-benches --bench priority_adaptive`, in virtual time: 50 slots behind twice the load they can
//! bear, service times within a quarter of their mean; when 30 of the slots are lost, the mean limit of the second ten
//! seconds is within 10 % of the best fixed one, with at least 95 % of its good answers. The experiments cost the rest. The
//! more service times scatter, the less sure each of them is, and the wider the limit wanders.

mod aimd;
mod config;
mod controller;
mod cuts;
mod gradient2;
mod search;
#[cfg(test)]
mod tests;
mod trial;
mod window;

pub use aimd::Aimd;
pub use config::{AdaptiveConfig, Algorithm};
pub(crate) use controller::Controller;
pub use gradient2::Gradient2;
pub use window::Window;

/// Says how many exchanges may run at once, from how the backend answered in the last window.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say how many exchanges may run at once",
    note = "implement `LimitAlgorithm`, or use `Gradient2` or `Aimd`"
)]
pub trait LimitAlgorithm: Send + 'static {
    /// The limit from now on. What is outside the configured bounds is moved to the nearer one.
    ///
    /// It is called when a window closes, up to ten times a second, and should be quick: an answer waits for it.
    fn update(&mut self, window: &Window) -> usize;
}
