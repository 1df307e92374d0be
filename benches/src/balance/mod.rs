//! What the benchmarks of forebay-balance share: a fleet in virtual time and who sends requests where, and
//! backends and proxies on real sockets.

mod alone;
mod black_hole;
mod fleet;
mod gateways;
mod mock;
mod pingora;
mod proxies;
mod routers;

pub use alone::{balancer, serve_if_told};
pub use black_hole::drawn_by_a_black_hole;
pub use fleet::{Arrivals, Router, Tally, simulate};
pub use gateways::Gateways;
pub use mock::Mock;
pub use pingora::pingora_choice;
pub use proxies::{Proxy, in_turns};
pub use routers::{Bounds, Central, Forebay, Random, RoundRobin, Scan, UniformP2c};
