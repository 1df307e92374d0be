//! What the benchmarks of forebay-balance share: a fleet in virtual time, and who sends requests where.

mod fleet;
mod routers;

pub use fleet::{Arrivals, Router, Tally, simulate};
pub use routers::{Bounds, Central, Forebay, Random, RoundRobin, UniformP2c};
