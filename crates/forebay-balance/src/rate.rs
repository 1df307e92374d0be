use std::time::{Duration, Instant};

/// How many events a second there are, over the last second or more.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    since: Option<Instant>,
    count: u64,
    per_second: f64,
}

impl Rate {
    /// An event, and when it was if that is known: of some it must be.
    #[inline]
    pub(crate) fn event(&mut self, now: Option<Instant>) {
        self.count += 1;
        let Some(now) = now else { return };
        let since = *self.since.get_or_insert(now);
        let took = now.saturating_duration_since(since);
        if took >= Duration::from_secs(1) {
            self.per_second = self.count as f64 / took.as_secs_f64();
            (self.since, self.count) = (Some(now), 0);
        }
    }

    /// When somebody who comes behind `waiting` others may come again: when these are served, 1 to 32 s.
    pub(crate) fn retry_after(&self, waiting: usize) -> Duration {
        let seconds = if self.per_second > 0.0 { waiting as f64 / self.per_second } else { 1.0 };
        Duration::from_secs_f64(seconds.ceil().clamp(1.0, 32.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r7_who_is_refused_comes_back_when_the_queue_is_served() {
        let start = crate::ledger::now();
        let mut rate = Rate::default();
        assert_eq!(rate.retry_after(1000), Duration::from_secs(1), "nothing is known yet");
        for tenth in 0..=20 {
            rate.event(Some(start + Duration::from_millis(100 * tenth)));
        }
        assert_eq!(rate.retry_after(0), Duration::from_secs(1));
        assert_eq!(rate.retry_after(100), Duration::from_secs(10));
        assert_eq!(rate.retry_after(1_000_000), Duration::from_secs(32));
    }
}
