//! What the benchmarks of forebay-balance share: a fleet in virtual time and who sends requests where, and
//! backends and proxies on real sockets.

mod alone;
mod fleet;
mod mock;
mod proxies;
mod routers;

pub use alone::{balancer, serve_if_told};
pub use fleet::{Arrivals, Router, Tally, simulate};
pub use mock::Mock;
pub use proxies::{Proxy, in_turns};
pub use routers::{Bounds, Central, Forebay, Random, RoundRobin, UniformP2c};
