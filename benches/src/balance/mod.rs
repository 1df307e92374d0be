//! What the benchmarks of forebay-balance share: a fleet in virtual time and who sends requests where, and
//! backends on real sockets.

mod fleet;
mod mock;
mod routers;

pub use fleet::{Arrivals, Router, Tally, simulate};
pub use mock::Mock;
pub use routers::{Bounds, Central, Forebay, Random, RoundRobin, UniformP2c};
