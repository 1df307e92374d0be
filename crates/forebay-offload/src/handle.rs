use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use forebay_core::{Demand, DemandSource};

use crate::{overflow::JobOverflow, policy::Stats, queue::JobQueue, shared::Shared};

/// Shows and steers a layer while it runs. Clones are the same handle.
#[derive(Debug, Clone)]
pub struct OffloadHandle {
    shared: Arc<Shared>,
}

/// What a layer has done since its making, and what its queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OffloadSnapshot {
    /// Requests that passed untouched.
    pub passed: u64,
    /// Requests answered by a job: with a 202, or the stored answer of their key.
    pub answered: u64,
    /// Requests refused.
    pub refused: u64,
    /// Requests that should have been jobs but were served inline: too large, store down, draining.
    pub inline: u64,
    /// The counts of the queue.
    pub queue: Stats,
}

impl OffloadHandle {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Returns the counts.
    #[must_use]
    pub fn snapshot(&self) -> OffloadSnapshot {
        let counts = &self.shared.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        OffloadSnapshot {
            passed: read(&counts.passed),
            answered: read(&counts.answered),
            refused: read(&counts.refused),
            inline: read(&counts.inline),
            queue: self.shared.queue.stats(),
        }
    }

    /// Makes no more jobs from now on: every request is served inline, every overflow refused.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Relaxed);
    }

    /// Returns the queue.
    #[must_use]
    pub fn queue(&self) -> &JobQueue {
        &self.shared.queue
    }

    /// Makes a hook for a layer inside that refuses requests: they become jobs instead.
    #[must_use]
    pub fn overflow(&self) -> JobOverflow {
        JobOverflow::new(Arc::clone(&self.shared))
    }
}

impl DemandSource for OffloadHandle {
    fn demand(&self) -> Demand {
        self.shared.queue.demand()
    }
}
