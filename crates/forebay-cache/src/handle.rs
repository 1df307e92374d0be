use std::sync::Arc;

use crate::shared::Control;

/// Shows and steers a cache while it serves.
#[derive(Debug, Clone)]
pub struct CacheHandle {
    pub(crate) control: Arc<dyn Control>,
}

/// What a cache has done and holds. Counters are in requests, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CacheSnapshot {
    /// Answered from memory.
    pub hits: u64,
    /// Passed on, since no stored answer would do.
    pub misses: u64,
    /// Passed on without a look.
    pub bypassed: u64,
    /// Answers stored.
    pub stored: u64,
    /// Entries now: answers, and an index for each resource that has answers to GET.
    pub entries: u64,
    /// What they weigh, in bytes.
    pub bytes: u64,
}

impl CacheHandle {
    /// What the cache has done and holds now.
    #[must_use]
    pub fn snapshot(&self) -> CacheSnapshot {
        self.control.snapshot()
    }

    /// Drops all entries, and whatever is being recorded: an answer begun before the purge is not stored after it.
    pub fn purge_all(&self) {
        self.control.purge_all();
    }

    /// Off, all requests pass, and nothing is stored; what is stored stays until it expires.
    pub fn set_enabled(&self, enabled: bool) {
        self.control.set_enabled(enabled);
    }
}
