use std::time::Duration;

/// A point in time, in nanoseconds since the scheduler was made. Arithmetic saturates: `Duration::MAX` is a legal
/// timeout, and means never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(pub(crate) u64);

impl Tick {
    pub(crate) const ZERO: Self = Self(0);
    pub(crate) const NEVER: Self = Self(u64::MAX);

    /// The tick this much later.
    pub(crate) fn after(self, time: Duration) -> Self {
        self.plus(nanos(time))
    }

    pub(crate) const fn plus(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// The tick so many nanoseconds earlier; never stays never.
    pub(crate) const fn minus(self, nanos: u64) -> Self {
        if self.0 == u64::MAX { self } else { Self(self.0.saturating_sub(nanos)) }
    }

    /// Nanoseconds since `earlier`; zero if that is later.
    pub(crate) const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Nanoseconds of a time; more than 584 years are 584 years.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_saturates_and_never_stays_never() {
        assert_eq!(Tick(5).after(Duration::MAX), Tick::NEVER);
        assert_eq!(Tick::NEVER.minus(7), Tick::NEVER);
        assert_eq!(Tick(5).minus(7), Tick::ZERO);
        assert_eq!(Tick(5).since(Tick(7)), 0);
    }
}
