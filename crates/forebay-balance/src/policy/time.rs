use std::time::Instant;

/// The time, read when it is first asked for: most picks and most ends of exchanges do without, and reading a clock
/// costs as much as all the rest of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time {
    at: Option<Instant>,
    clock: fn() -> Instant,
}

impl Time {
    /// What this clock says, once it is asked.
    pub(crate) const fn by(clock: fn() -> Instant) -> Self {
        Self { at: None, clock }
    }

    pub(super) fn now(&mut self) -> Instant {
        *self.at.get_or_insert_with(self.clock)
    }

    /// What was read, if anybody has asked.
    pub(crate) const fn known(&self) -> Option<Instant> {
        self.at
    }
}

impl From<Instant> for Time {
    fn from(now: Instant) -> Self {
        Self { at: Some(now), clock: || unreachable!("it is known") }
    }
}
