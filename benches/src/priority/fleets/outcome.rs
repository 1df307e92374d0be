use super::fleet::Fleet;
use super::load::{Ended, Fate};

/// The figures of one proxy.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    /// Requests of each class whose fate is known.
    pub(super) offered: [u64; 4],
    /// Those that were refused, or whose stream broke.
    pub(super) refused: [u64; 4],
    /// The seconds to the first token of those that were served, by class, in ascending order.
    pub(super) first: [Vec<f64>; 4],
    /// Slot-seconds of streams that did not break, over those that there were.
    pub(super) goodput: f64,
    /// Seconds by which the client itself sent too late, at most.
    pub(super) late: f64,
    /// CPU time of the client over the time that it took.
    pub(super) client: f64,
}

impl Outcome {
    pub(super) fn new(fleet: &Fleet, ended: &[Ended], client: f64) -> Self {
        let mut outcome = Self { client, ..Self::default() };
        let (from, to) = (fleet.warm, fleet.warm + fleet.measured);
        for one in ended {
            let class = one.arrival.class;
            let since = match one.fate {
                // Its slot was held for its tokens, at an even pace, however late the first of them was passed on.
                Fate::Served => Some(one.last - fleet.seconds(one.arrival.tokens)),
                Fate::Running => one.first,
                Fate::Waiting | Fate::Refused => None,
            };
            outcome.goodput += since.map_or(0.0, |since| (one.last.min(to) - since.max(from)).max(0.0));
            outcome.late = outcome.late.max(one.sent - one.arrival.at);
            if !fleet.counts(one.arrival.at) || one.fate == Fate::Waiting {
                continue;
            }
            outcome.offered[class] += 1;
            match one.first {
                Some(first) if one.fate != Fate::Refused => outcome.first[class].push(first - one.arrival.at),
                _ => outcome.refused[class] += 1,
            }
        }
        outcome.goodput /= fleet.all_slots() * fleet.measured;
        outcome.first.iter_mut().for_each(|first| first.sort_by(f64::total_cmp));
        outcome
    }

    /// Returns the share of a class that was refused.
    pub(super) fn refused(&self, class: usize) -> f64 {
        self.refused[class] as f64 / self.offered[class].max(1) as f64
    }

    /// Returns the seconds within which this share of the served requests of a class had their first token.
    pub(super) fn first(&self, class: usize, share: f64) -> Option<f64> {
        let first = &self.first[class];
        first.get(((first.len() as f64 * share).ceil() as usize).saturating_sub(1)).copied()
    }
}
