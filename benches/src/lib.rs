//! What the benchmarks share: CPU time of processes, an allocation counter, a latency histogram, servers to measure, a
//! load, and the closing line `RESULT {json}`.
//!
//! CPU time comes before wall time: it travels between machines, and the load generator shares this one.

// Real time is what is measured here; no test pauses it.
#![allow(clippy::disallowed_methods)]

pub mod balance;
mod cpu;
mod haproxy;
mod llm_routers;
mod load;
mod nginx;
pub mod priority;
mod report;
mod rounds;
mod server;
pub mod virtual_time;

pub use cpu::{cpu_time, thread_cpu_time};
pub use haproxy::haproxy;
pub use llm_routers::{sglang_router, vllm_router};
pub use load::{Load, Measured, OpenLoad, Target, offer, run};
pub use nginx::{nginx, nginx_with};
pub use report::{Goal, Report};
pub use rounds::{median, rounds};
pub use server::{Server, build};

/// How many heap allocations `work` makes on this thread.
pub fn allocations(work: impl FnOnce()) -> u64 {
    allocation_counter::measure(work).count_total
}
