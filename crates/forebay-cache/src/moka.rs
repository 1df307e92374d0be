//! The memory tier on [moka](https://docs.rs/moka): TinyLFU admission, LRU eviction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;

use crate::{Entry, Key, Memory};

/// A memory bounded in bytes, with an expiry for each entry. O(1) a hit; eviction by TinyLFU (Einziger et al., ACM TOS
/// 2017), so a new entry that nobody asked for twice may lose to the old ones.
#[derive(Debug, Clone)]
pub struct MokaStore {
    cache: Cache<Key, (Arc<Entry>, Duration)>,
    max_bytes: u64,
}

#[derive(Debug)]
struct Keep;

impl Expiry<Key, (Arc<Entry>, Duration)> for Keep {
    fn expire_after_create(&self, _: &Key, value: &(Arc<Entry>, Duration), _: Instant) -> Option<Duration> {
        Some(value.1)
    }

    fn expire_after_update(
        &self,
        _: &Key,
        value: &(Arc<Entry>, Duration),
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(value.1)
    }
}

impl MokaStore {
    /// A memory of at most `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        let weigh = |_: &Key, value: &(Arc<Entry>, Duration)| u32::try_from(value.0.weight()).unwrap_or(u32::MAX);
        Self { cache: Cache::builder().max_capacity(max_bytes).weigher(weigh).expire_after(Keep).build(), max_bytes }
    }
}

impl Default for MokaStore {
    /// 256 MiB.
    fn default() -> Self {
        Self::new(256 << 20)
    }
}

impl Memory for MokaStore {
    fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.cache.get(key).map(|(entry, _)| entry)
    }

    fn put(&self, key: Key, entry: Arc<Entry>, keep: Duration) {
        const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600); // moka adds it to an instant
        self.cache.insert(key, (entry, keep.min(CENTURY)));
    }

    fn remove(&self, key: &Key) {
        self.cache.invalidate(key);
    }

    fn clear(&self) {
        self.cache.invalidate_all();
    }

    fn entries(&self) -> u64 {
        self.cache.run_pending_tasks();
        self.cache.entry_count()
    }

    fn bytes(&self) -> u64 {
        self.cache.weighted_size()
    }

    fn max_bytes(&self) -> u64 {
        self.max_bytes
    }
}
