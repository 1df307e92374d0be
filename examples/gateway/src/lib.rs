//! The gateway of the forebay family, as a library: what the binary, the tests and the benchmarks share.

mod auth;
mod config;

pub use auth::{AuthError, Keys, tiers};
pub use config::{Autoscale, Cache, Config, Jobs, Key, Priority, Upstream};
