//! When each token of an answer is due.

use std::time::Duration;

use tokio::time::Instant;

/// The first token after the prefill, the others at an even pace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) first: Instant,
    pub(crate) seconds_per_token: f64,
}

/// A century: more than any wait, and never an overflow.
const LONGEST_SECONDS: f64 = 3.2e9;

pub(crate) fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.clamp(0.0, LONGEST_SECONDS)).unwrap_or_default()
}

impl Pace {
    /// When the token with this index, from 0, is due.
    pub(crate) fn at(&self, index: u64) -> Instant {
        self.first + seconds(index as f64 * self.seconds_per_token)
    }

    /// How many tokens are due by `now`.
    pub(crate) fn due(&self, now: Instant) -> u64 {
        let Some(since) = now.checked_duration_since(self.first) else { return 0 };
        (since.as_secs_f64() / self.seconds_per_token) as u64 + 1 // saturates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_due_when_its_time_has_come() {
        let now = Instant::now();
        let pace = Pace { first: now + Duration::from_secs(1), seconds_per_token: 0.1 };
        assert_eq!(pace.due(now), 0);
        assert_eq!(pace.due(pace.first), 1);
        assert_eq!(pace.due(pace.first + Duration::from_millis(250)), 3);
        assert_eq!(pace.at(5) - pace.first, Duration::from_millis(500));
        assert!(pace.at(u64::MAX) > pace.first);
    }
}
