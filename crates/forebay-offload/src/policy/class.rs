use std::time::Duration;

use forebay_core::Class;

/// What a priority class means for a job; each job copies it when enqueued, so a change reaches new jobs only.
///
/// [`JobClass::of`] has the defaults:
///
/// | class | target | expires after | attempt timeout | result kept | max backlog | share |
/// |---|---|---|---|---|---|---|
/// | P0 | 1 s | 10 min | 10 min | 1 h | 1,000 | 0 |
/// | P1 | 10 s | 1 h | 10 min | 1 h | 10,000 | 5 % |
/// | P2 | 1 min | 6 h | 10 min | 1 h | 100,000 | 5 % |
/// | P3 and below | 10 min | 24 h | 30 min | 24 h | 1,000,000 | 5 % |
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobClass {
    /// When a job should start, after its enqueue: the earlier this instant, the sooner its turn inside the class.
    pub target: Duration,
    /// When a job is not started any more, after its enqueue.
    pub expires_after: Duration,
    /// The time that an attempt may take: a hung one keeps its worker's slot until then.
    pub attempt_timeout: Duration,
    /// Attempts a job may have, at least 1.
    pub attempts: u32,
    /// How long an ended job and its result are kept.
    pub result_kept: Duration,
    /// Waiting jobs of the class, at most; a quarter of it for one principal.
    pub max_backlog: u64,
    /// The part of all claimed places that goes to this class even while more urgent ones wait, in thousandths.
    pub share_thousandths: u32,
}

impl JobClass {
    /// Returns the defaults of a class.
    #[must_use]
    pub fn of(class: Class) -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        let (target, expires, timeout, kept, max_backlog, share_thousandths) = match class.index() {
            0 => (1, 10 * MINUTE, 10 * MINUTE, HOUR, 1_000, 0),
            1 => (10, HOUR, 10 * MINUTE, HOUR, 10_000, 50),
            2 => (MINUTE, 6 * HOUR, 10 * MINUTE, HOUR, 100_000, 50),
            _ => (10 * MINUTE, 24 * HOUR, 30 * MINUTE, 24 * HOUR, 1_000_000, 50),
        };
        Self {
            target: Duration::from_secs(target),
            expires_after: Duration::from_secs(expires),
            attempt_timeout: Duration::from_secs(timeout),
            attempts: 5,
            result_kept: Duration::from_secs(kept),
            max_backlog,
            share_thousandths,
        }
    }
}
