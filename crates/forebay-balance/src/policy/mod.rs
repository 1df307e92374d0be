//! The pure core: which endpoint has the least work for its power, who may have its places, and which endpoints take
//! part. No I/O, no clock: `now` is an argument.

mod ask;
mod busy;
mod by_key;
mod ended;
mod foreign;
mod outlier;
mod picker;
mod pins;
mod places;
mod pool;
mod routes;
mod sampler;
mod slot;
#[cfg(test)]
mod tests;
mod time;
mod timing;
mod tree;
mod watch;
mod weight;

pub use ask::PickReason;
pub(crate) use ask::{Ask, Claim, New, Picked, Settings};
pub(crate) use ended::Ended;
pub(crate) use outlier::EjectCause;
pub use outlier::Outlier;
pub(crate) use picker::Picker;
pub use pins::Pin;
pub(crate) use pool::Pool;
pub use pool::{Offset, Policy};
pub(crate) use routes::{Guest, Route, Routes};
pub use slot::EndpointState;
pub(crate) use slot::{Check, Slot};
pub(crate) use time::Time;
pub(crate) use watch::{Heard, Load};
pub use weight::SlowStart;

/// Why nothing was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PickError {
    /// Every endpoint drains, is down, or was excluded.
    NoEndpoint,
    /// Those that may be picked are full, or what they have free is reserved.
    AtCapacity,
}
