use std::collections::VecDeque;
use std::time::{Duration, Instant};

use forebay_core::ReplicaState;

use super::Decision;

/// The longest window or period of a policy.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);
/// Records closer than this become one: bounds the memory, whatever the rate.
const GRAIN: Duration = Duration::from_secs(1);

/// What [`ScalePolicy::decide`](super::ScalePolicy::decide) remembers: the last hour, at most a record a second.
#[derive(Debug, Clone, Default)]
pub struct PolicyState {
    records: VecDeque<Record>,
    last_target: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    at: Instant,
    target: u32,
    /// Least and most `ready + starting`.
    have: Option<(u32, u32)>,
}

impl PolicyState {
    /// Remembers a decision and the replicas that it was made with. O(1) amortised; a clock that goes back stands still.
    pub fn record(&mut self, now: Instant, decision: &Decision, replicas: Option<ReplicaState>) {
        self.last_target = Some(decision.target);
        while self.records.front().is_some_and(|old| now.saturating_duration_since(old.at) > LONGEST) {
            self.records.pop_front();
        }
        let have = replicas.map(|replicas| replicas.ready.saturating_add(replicas.starting));
        match self.records.back_mut() {
            Some(last) if now.saturating_duration_since(last.at) < GRAIN => {
                last.target = last.target.max(decision.target);
                last.have = match (last.have, have) {
                    (Some((least, most)), Some(have)) => Some((least.min(have), most.max(have))),
                    (known, None) => known,
                    (None, Some(have)) => Some((have, have)),
                };
            }
            _ => {
                let have = have.map(|have| (have, have));
                self.records.push_back(Record { at: now, target: decision.target, have });
            }
        }
    }

    pub(super) fn last_target(&self) -> Option<u32> {
        self.last_target
    }

    pub(super) fn most_target(&self, now: Instant, window: Duration) -> Option<u32> {
        self.within(now, window).map(|record| record.target).max()
    }

    pub(super) fn least_have(&self, now: Instant, period: Duration) -> Option<u32> {
        self.within(now, period).filter_map(|record| record.have).map(|(least, _)| least).min()
    }

    pub(super) fn most_have(&self, now: Instant, period: Duration) -> Option<u32> {
        self.within(now, period).filter_map(|record| record.have).map(|(_, most)| most).max()
    }

    fn within(&self, now: Instant, window: Duration) -> impl Iterator<Item = &Record> {
        self.records.iter().rev().take_while(move |record| now.saturating_duration_since(record.at) < window)
    }
}
