use super::estimate::{Ages, Average};
use super::tick::Tick;

/// Nanoseconds: an exchange that is older may hang, and says no more of how long the others take.
pub(super) const HANGS: f64 = 60e9;

/// The pace at which seats come free: how long one is held, over how many there are.
#[derive(Debug)]
pub(super) struct Pace {
    hold: Average,
    expected: f64,
    ages: Ages,
    /// Few exchanges have ended: each one is timed, and its seat is not lent.
    cold: bool,
    /// The places at the backends, where that is known.
    places: usize,
    /// The hold as it was looked at last, in nanoseconds.
    looked: f64,
}

impl Pace {
    pub(super) const fn expecting(hold: u64) -> Self {
        Self {
            hold: Average::expecting(hold),
            expected: hold as f64,
            ages: Ages::NONE,
            cold: true,
            places: usize::MAX,
            looked: hold as f64,
        }
    }

    /// Nanoseconds for which a seat is held: the measured mean, or before there are 32 samples the most that is known of
    /// it: the expectation, the mean of those few, the mean age of the seats that are held. As of the last [look](Self::look).
    pub(super) const fn hold(&self) -> f64 {
        self.looked
    }

    /// Returns true once enough exchanges have ended to predict by them.
    pub(super) const fn warm(&self) -> bool {
        self.hold.warm()
    }

    pub(super) const fn cold(&self) -> bool {
        self.cold
    }

    /// Looks at the hold. Returns true if it has changed since the last look.
    pub(super) fn look(&mut self, now: Tick) -> bool {
        let before = self.looked;
        self.looked = if self.hold.warm() {
            self.hold.or(self.expected)
        } else {
            self.expected.max(self.hold.so_far()).max(self.ages.mean(now).min(HANGS))
        };
        self.looked.to_bits() != before.to_bits()
    }

    /// Returns the seats of a limit that the backends have a place for.
    pub(super) const fn seats(&self, limit: usize) -> usize {
        if self.places < limit { self.places } else { limit }
    }

    pub(super) const fn places(&self) -> usize {
        self.places
    }

    pub(super) const fn set_places(&mut self, places: usize) {
        self.places = places;
    }

    /// A seat is held from now on.
    pub(super) fn begin(&mut self, granted: Tick) {
        if self.cold && granted != Tick::NEVER {
            self.ages.add(granted);
        }
    }

    /// A seat is held no longer; `after`: nanoseconds, if the exchange has come to its end.
    pub(super) fn end(&mut self, granted: Tick, after: Option<u64>) {
        if self.cold && granted != Tick::NEVER {
            self.ages.remove(granted);
        }
        if let Some(nanos) = after {
            self.hold.add(nanos);
            self.cold &= !self.hold.warm();
        }
    }

    /// Takes `hold` for measured in a test, and lends seats at once if `lends`.
    #[cfg(test)]
    pub(crate) fn pin(&mut self, hold: u64, lends: bool) {
        (self.hold, self.expected, self.cold) = (Average::expecting(hold), hold as f64, !lends);
    }
}
