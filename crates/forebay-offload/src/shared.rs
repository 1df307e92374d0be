use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use forebay_core::{Class, RequestHead};

use crate::{
    decide::{self, Plan, Policy},
    queue::JobQueue,
};

pub(crate) type PolicyFn = dyn Fn(&RequestHead<'_>) -> Policy + Send + Sync;
pub(crate) type ClassifyFn = dyn Fn(&RequestHead<'_>) -> Option<Class> + Send + Sync;

/// What all services of one layer share.
pub(crate) struct Shared {
    pub(crate) queue: JobQueue,
    pub(crate) policy: Box<PolicyFn>,
    pub(crate) classify: Box<ClassifyFn>,
    pub(crate) draining: AtomicBool,
    pub(crate) counts: Counts,
}

/// What became of the requests.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) passed: AtomicU64,
    pub(crate) answered: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) inline: AtomicU64,
}

impl Shared {
    pub(crate) fn plan(&self, head: &RequestHead<'_>) -> Plan {
        let plan = decide::plan(head, &self.policy);
        if plan != Plan::Pass && self.draining.load(Ordering::Relaxed) {
            add(&self.counts.inline);
            return Plan::Pass;
        }
        if plan == Plan::Pass {
            add(&self.counts.passed);
        }
        plan
    }
}

pub(crate) fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("queue", &self.queue).field("counts", &self.counts).finish_non_exhaustive()
    }
}
