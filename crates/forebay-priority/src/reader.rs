//! The time for which a reader may still be behind.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::policy::Tick;

/// The time that a reader has left. A reader is behind from when it was handed a frame until it asks for the next one; while it
/// waits for the backend it is not.
#[derive(Debug)]
pub(crate) struct Reader {
    /// Since when it is behind; never: it is not.
    behind: AtomicU64,
    /// Nanoseconds for which it may still be behind.
    left: AtomicU64,
    stall: u64,
    /// Nanoseconds that it gets back for each byte that it takes; all of them with any frame, if none.
    per_byte: Option<u64>,
}

impl Reader {
    /// Behind from now on: it has not asked for anything yet. `rate` in bytes a second; 0: any frame will do.
    pub(crate) fn new(now: Tick, stall: u64, rate: u32) -> Self {
        let per_byte = 1_000_000_000_u64.checked_div(rate.into());
        Self { behind: AtomicU64::new(now.0), left: AtomicU64::new(stall), stall, per_byte }
    }

    /// Notes that the reader asks for the next frame.
    pub(crate) fn asks(&self, now: Tick) {
        let since = self.behind.swap(Tick::NEVER.0, Relaxed);
        if since != Tick::NEVER.0 {
            let left = self.left.load(Relaxed);
            self.left.store(left.saturating_sub(now.since(Tick(since))), Relaxed);
        }
    }

    /// Notes that the reader was handed so many bytes.
    pub(crate) fn takes(&self, bytes: usize, now: Tick) {
        let back = self.per_byte.map_or(u64::MAX, |nanos| nanos.saturating_mul(bytes as u64));
        self.left.store(self.left.load(Relaxed).saturating_add(back).min(self.stall), Relaxed);
        self.behind.store(now.0, Relaxed);
    }

    /// Returns the end of the time for which the reader may be behind; never, if it is not behind.
    pub(crate) fn until(&self) -> Tick {
        match Tick(self.behind.load(Relaxed)) {
            Tick::NEVER => Tick::NEVER,
            since => since.plus(self.left.load(Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_reader_is_behind_until_it_asks_and_the_backend_takes_its_time() {
        let reader = Reader::new(Tick(0), 15 * SECOND, 0);
        assert_eq!(reader.until(), Tick(15 * SECOND), "it has not asked at all");
        reader.asks(Tick(14 * SECOND));
        assert_eq!(reader.until(), Tick::NEVER);
        reader.takes(1, Tick(1000 * SECOND));
        assert_eq!(reader.until(), Tick(1015 * SECOND), "any frame will do");
    }

    #[test]
    fn one_that_trickles_uses_up_its_time() {
        let reader = Reader::new(Tick(0), 15 * SECOND, 256);
        let mut now = 0;
        // 20 bytes every second.
        let ended = (0..100).find(|_| {
            reader.asks(Tick(now));
            reader.takes(20, Tick(now));
            now += SECOND;
            reader.until() <= Tick(now)
        });
        assert_eq!(ended, Some(16), "it gets back 78 ms for each second");
        let reader = Reader::new(Tick(0), 15 * SECOND, 256);
        for second in 0..100 {
            reader.asks(Tick(second * SECOND));
            reader.takes(256, Tick(second * SECOND));
        }
        assert!(reader.until() > Tick(110 * SECOND), "at 256 bytes a second it goes on for ever");
    }
}
