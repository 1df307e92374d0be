//! What a server did and does, in numbers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

/// A snapshot; also `GET /stats`.
///
/// At rest `received = completed + cancelled + failed + refused`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Requests in a slot now.
    pub running: u64,
    /// Requests waiting for one now.
    pub waiting: u64,
    /// Well-formed requests so far.
    pub received: u64,
    /// Requests that got a slot.
    pub started: u64,
    /// Requests answered to the last token.
    pub completed: u64,
    /// Requests whose client left, while they waited or ran.
    pub cancelled: u64,
    /// Requests that a fault broke.
    pub failed: u64,
    /// Requests refused because too many waited.
    pub refused: u64,
    /// Output tokens made.
    pub tokens_generated: u64,
    /// Tokens in the KV cache now.
    pub kv_tokens_used: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) instant_running: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) started: AtomicU64,
    pub(crate) stopped: AtomicU64,
    pub(crate) cut_at_length: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) tokens_generated: AtomicU64,
    pub(crate) prompt_tokens: AtomicU64,
    pub(crate) prefix_queries: AtomicU64,
    pub(crate) prefix_hits: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}
