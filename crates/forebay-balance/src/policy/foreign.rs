use std::time::Instant;

/// Requests at an endpoint that are not ours: other gateways' and its own.
///
/// `running + waiting - own`, where `own` is the larger of our own in flight when the probe was sent and when its answer
/// came: what we sent in between may or may not be in what it says, and load that was counted twice would herd.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) enum Foreign {
    /// Nobody asks it.
    #[default]
    Unasked,
    /// It is asked but has not said, or not lately, or nothing that can be true: as much as at the others, by weight.
    Unknown,
    /// What it said, in requests, and until when that holds.
    Reported { requests: u32, until: Instant },
}

impl Foreign {
    pub(super) fn of(requests: u32, own_sent: u32, own_now: u32, until: Instant) -> Self {
        Self::Reported { requests: requests.saturating_sub(own_sent.max(own_now)), until }
    }

    pub(super) const fn reported(&self) -> Option<u32> {
        match self {
            Self::Reported { requests, .. } => Some(*requests),
            _ => None,
        }
    }

    pub(super) fn tick(&mut self, now: Instant) {
        if matches!(self, Self::Reported { until, .. } if *until <= now) {
            *self = Self::Unknown; // Reported => Unknown: it is stale
        }
    }

    pub(super) const fn due(&self) -> Option<Instant> {
        match self {
            Self::Reported { until, .. } => Some(*until),
            _ => None,
        }
    }
}
