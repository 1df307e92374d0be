//! When the latency may be judged, and whether cutting the limit helped.

use super::Window;

/// Fewer samples than this say too little about the latency to cut a limit by it.
const FEW: u64 = 30;
/// Cuts to this share of where they began must have helped.
const DEEP: f64 = 0.7;
/// They helped if the latency is at most this share of what it was. A queue at the backend would have shrunk it with
/// the limit, to [`DEEP`]; a slower service leaves it at 1: this is the middle.
const HELPED: f64 = 0.85;

/// Joins windows until every exchange that the limit allows has been answered once since the last judgement.
///
/// A cut shows its effect only after that: judged more often, a backend that takes seconds would be cut to the bottom
/// before the first exchange under the new limit has come back. TCP cuts once per round trip for the same reason.
#[derive(Debug, Default)]
pub(super) struct Turn {
    seconds: f64,
    samples: u64,
}

impl Turn {
    /// The mean latency of a whole turn in seconds, above 0, if this window completes one.
    pub(super) fn add(&mut self, window: &Window) -> Option<f64> {
        self.seconds += window.mean.as_secs_f64() * window.samples as f64;
        self.samples = self.samples.saturating_add(window.samples);
        if self.samples < FEW.max(window.limit as u64) {
            return None;
        }
        let turn = std::mem::take(self);
        Some((turn.seconds / turn.samples as f64).max(1e-9))
    }
}

/// Whether the cuts of one spell of bad latency help.
///
/// Without this a backend that has become slower, though not fuller, is cut down to the minimum: each cut costs answers
/// and the latency, which the limit has nothing to do with, stays bad.
#[derive(Debug, Default)]
pub(super) enum Cuts {
    /// The latency is good.
    #[default]
    Calm,
    /// The latency has just become bad; that turn began before it did, and is no measure.
    Began,
    /// What the limit and the latency were at the first full turn of the spell.
    From { limit: f64, seconds: f64 },
}

impl Cuts {
    /// The latency of the last turn was good.
    pub(super) fn calm(&mut self) {
        *self = Self::Calm; // Began, From => Calm
    }

    /// The latency of the last turn was bad. Whether cutting has been tried and did not help.
    pub(super) fn futile(&mut self, limit: f64, seconds: f64) -> bool {
        match *self {
            Self::Calm => *self = Self::Began,
            Self::Began => *self = Self::From { limit, seconds },
            Self::From { limit: first, seconds: before } if limit <= DEEP * first => {
                if seconds > HELPED * before {
                    *self = Self::Calm; // From => Calm: the caller takes this latency for normal from now on.
                    return true;
                }
                *self = Self::From { limit, seconds }; // It helped, but not enough: the next cuts are judged afresh.
            }
            Self::From { .. } => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_turn_takes_as_many_samples_as_the_limit_allows() {
        let window = |limit, ms| Window { samples: 20, mean: Duration::from_millis(ms), limit, ..Window::default() };
        let mut turn = Turn::default();
        assert_eq!(turn.add(&window(50, 10)), None);
        assert_eq!(turn.add(&window(50, 20)), None);
        let mean = turn.add(&window(50, 30)).expect("60 samples");
        assert!((mean - 0.020).abs() < 1e-9, "{mean}");
        assert_eq!(turn.add(&window(2, 10)), None, "a turn of 2 would be noise");
        assert!(turn.add(&window(2, 10)).is_some());
    }

    #[test]
    fn cuts_that_leave_the_latency_as_it_is_are_futile() {
        let mut cuts = Cuts::default();
        assert!(!cuts.futile(50.0, 0.09));
        assert!(!cuts.futile(46.0, 0.125));
        assert!(!cuts.futile(40.0, 0.125), "not deep enough to know");
        assert!(cuts.futile(32.0, 0.125));
    }

    #[test]
    fn cuts_that_empty_the_queue_of_the_backend_help() {
        let mut cuts = Cuts::default();
        for limit in [50.0, 46.0, 40.0, 32.0, 26.0, 22.0] {
            assert!(!cuts.futile(limit, limit * 0.0025), "at {limit}");
        }
    }
}
