use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// The wall clock at its making, carried on by the monotonic clock: a step of the system's time does not reach it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    anchor_ms: u64,
    started: Instant,
}

impl Clock {
    pub(crate) fn now_ms(&self) -> u64 {
        let passed = self.started.elapsed().as_millis();
        self.anchor_ms.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }
}

impl Default for Clock {
    fn default() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { anchor_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX), started: Instant::now() }
    }
}
