//! Runs jobs: claims them, sends their requests through a service, settles what came of it.

mod attempt;
mod builder;
mod context;
mod job;
mod leases;
mod run;
mod slots;
mod verdict;

pub use self::{
    builder::{Worker, WorkerBuilder},
    context::JobContext,
    run::WorkerSummary,
    verdict::{Decision, Exchange},
};
