//! What the scheduler measures: moving averages of times, and rates of arrival.

use super::tick::Tick;

/// Samples before an average is believed.
const WARM: u32 = 32;

/// An exponentially weighted moving average with weight 1/32, in nanoseconds, and the mean deviation from it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Average {
    value: f64,
    deviation: f64,
    samples: u32,
}

impl Average {
    /// An average that is `expected` until it has seen enough.
    pub(crate) const fn expecting(expected: u64) -> Self {
        Self { value: expected as f64, deviation: 0.0, samples: 0 }
    }

    /// O(1).
    pub(crate) fn add(&mut self, nanos: u64) {
        // The first samples weigh more, so that a wrong expectation is gone by the time the average is believed.
        let weight = 1.0 / f64::from((self.samples + 1).min(WARM));
        let error = nanos as f64 - self.value;
        self.value += error * weight;
        self.deviation += (error.abs() - self.deviation) * weight;
        self.samples = self.samples.saturating_add(1).min(WARM);
    }

    /// Nanoseconds: the expectation, until there are 32 samples to replace it.
    pub(crate) const fn or(&self, expected: f64) -> f64 {
        if self.warm() { self.value } else { expected }
    }

    /// Nanoseconds that most stay below: the mean and twice the mean deviation (as Jacobson, SIGCOMM 1988, bounds round
    /// trips), but at most half as much again as the mean: where times scatter widely, the most would refuse those who
    /// need the least. Nothing before there are 32 samples.
    pub(crate) fn most(&self) -> f64 {
        if self.warm() { self.value + (2.0 * self.deviation).min(self.value / 2.0) } else { 0.0 }
    }

    /// Nanoseconds: the mean so far, which may be of a few samples only; at first the expectation.
    pub(crate) const fn so_far(&self) -> f64 {
        self.value
    }

    pub(crate) const fn warm(&self) -> bool {
        self.samples >= WARM
    }
}

/// The grants of all seats that are held, for their mean age: exchanges that have not ended yet say most while few have,
/// as the first to end are the shortest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ages {
    held: u64,
    granted: u128,
}

impl Ages {
    pub(super) const NONE: Self = Self { held: 0, granted: 0 };

    pub(super) fn add(&mut self, granted: Tick) {
        self.held += 1;
        self.granted += u128::from(granted.0);
    }

    pub(super) fn remove(&mut self, granted: Tick) {
        self.held = self.held.saturating_sub(1);
        self.granted = self.granted.saturating_sub(u128::from(granted.0));
    }

    /// Nanoseconds; 0 where no seat is held.
    pub(super) fn mean(&self, now: Tick) -> f64 {
        if self.held == 0 { 0.0 } else { (now.0 as f64 - self.granted as f64 / self.held as f64).max(0.0) }
    }
}

/// Arrivals in seats a second, over about the last second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    per_second: f64,
    seats: u64,
    since: Tick,
}

/// Shorter windows are not measured: one arrival in a microsecond is not a million a second.
const WINDOW: u64 = 100_000_000;

impl Rate {
    pub(crate) const ZERO: Self = Self { per_second: 0.0, seats: 0, since: Tick::ZERO };

    pub(crate) const fn count(&mut self, seats: u32) {
        self.seats = self.seats.saturating_add(seats as u64);
    }

    /// Takes the arrivals of the last window into account, if it is over. O(1).
    pub(crate) fn advance(&mut self, now: Tick) {
        let window = now.since(self.since);
        if window < WINDOW {
            return;
        }
        let seconds = window as f64 / 1e9;
        self.per_second += (self.seats as f64 / seconds - self.per_second) * seconds.min(1.0);
        (self.seats, self.since) = (0, now);
    }

    pub(crate) const fn per_second(&self) -> f64 {
        self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_is_believed_after_32_samples() {
        let mut average = Average::expecting(7);
        for _ in 0..31 {
            average.add(100);
        }
        assert!((average.or(9.0) - 9.0).abs() < 1e-9 && !average.warm());
        average.add(100);
        assert!((average.or(9.0) - 100.0).abs() < 1e-6 && average.warm());
        average.add(132);
        assert!((average.or(9.0) - 101.0).abs() < 1e-6);
    }

    #[test]
    fn a_rate_follows_within_a_few_seconds_and_falls_to_nothing() {
        let mut rate = Rate::ZERO;
        for tick in 1..=5_000 {
            rate.count(1);
            rate.advance(Tick(tick * 1_000_000));
        }
        assert!((rate.per_second() - 1000.0).abs() < 10.0, "{}", rate.per_second());
        rate.advance(Tick(9_000_000_000));
        assert!(rate.per_second().abs() < 1.0);
    }
}
