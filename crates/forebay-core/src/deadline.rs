use std::time::{Duration, Instant};

/// The instant after which an answer is worthless. A request extension.
///
/// There may be many sources (a class timeout, a header, the caller); they combine by [`Ord::min`].
///
/// ```
/// use std::time::{Duration, Instant};
/// use forebay_core::Deadline;
///
/// let now = Instant::now();
/// let sla = Deadline::after(now, Duration::from_secs(2));
/// let caller = Deadline::after(now, Duration::MAX); // saturates: in effect none
/// assert_eq!(sla.min(caller), sla);
/// assert_eq!(sla.remaining(now), Duration::from_secs(2));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Instant);

/// What "never" means where an `Instant` cannot hold a time that far off: 30 years.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

impl Deadline {
    /// A deadline at this instant.
    #[must_use]
    pub const fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// A deadline this long after `now`; longer than 30 years counts as 30 years, so it cannot overflow.
    #[must_use]
    pub fn after(now: Instant, timeout: Duration) -> Self {
        Self(now.checked_add(timeout.min(FAR)).unwrap_or(now))
    }

    /// The instant of the deadline.
    #[must_use]
    pub const fn instant(self) -> Instant {
        self.0
    }

    /// The time left at `now`; zero once it has passed.
    #[must_use]
    pub fn remaining(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // plain arithmetic: any starting instant does
mod tests {
    use super::*;

    #[test]
    fn it_saturates_in_both_directions() {
        let now = Instant::now();
        assert_eq!(Deadline::after(now, Duration::MAX).remaining(now), FAR);
        assert_eq!(Deadline::at(now).remaining(now + Duration::from_secs(9)), Duration::ZERO);
        assert_eq!(Deadline::after(now, Duration::ZERO).instant(), now);
    }
}
