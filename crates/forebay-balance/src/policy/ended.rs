//! What the end of an exchange says about its endpoint.

use std::time::{Duration, Instant};

use forebay_core::Outcome;

use super::ask::Picked;
use super::outlier::{EjectCause, Phase};
use super::picker::Picker;
use super::slot::Slot;
use super::time::Time;
use super::weight::{SlowStart, Starting};

/// How slowly an endpoint that was ejected comes back, unless configured otherwise.
const AFTER_EJECTION: Duration = Duration::from_secs(30);

/// How an exchange ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    /// Of an overload answer: how long it asks to be left alone.
    pub(crate) pause: Option<Duration>,
}

impl Picked {
    /// When this is not known nothing has failed for long, and one error more is not called fast.
    fn faster_than_half(&self, mean: Duration, now: Instant) -> bool {
        self.started.is_some_and(|started| now.saturating_duration_since(started) * 2 < mean)
    }
}

impl Picker {
    /// The end of most exchanges: gives a place back, and counts a success of which nothing else is to be learned.
    /// `false`: there is more to do, so [`release`](Self::release) has to do it all. O(log endpoints).
    #[inline(always)]
    pub(crate) fn release_plainly(&mut self, picked: &Picked) -> bool {
        let slot = &mut self.slots[picked.index];
        if !slot.plain || picked.timed || picked.claim.guest.is_some() || picked.pinned().is_some() {
            return false;
        }
        let pool = &mut self.pools[slot.pool];
        self.opened |= pool.occupy(slot, picked.index, false);
        slot.succeed();
        true
    }

    /// Gives a place back, and learns from how the exchange ended; the time, if it was asked for. O(log endpoints);
    /// O(endpoints) where an endpoint is ejected.
    pub(crate) fn release(&mut self, picked: &Picked, ended: &Ended, time: impl Into<Time>) -> Option<Instant> {
        let time = &mut time.into();
        self.vacate(picked, time);
        self.learn(picked, ended, time);
        self.retire(picked.index);
        time.known()
    }

    /// Learns from an exchange that is over, or goes on elsewhere.
    pub(crate) fn learn(&mut self, picked: &Picked, ended: &Ended, time: &mut Time) {
        let index = picked.index;
        let slot = &mut self.slots[index];
        slot.count_end(ended.outcome);
        let trial = matches!(slot.record.phase, Phase::Probation { trial: Some(ticket) } if ticket == picked.ticket);
        match ended.outcome {
            Outcome::Cancelled if trial => self.change(index, time.now(), Slot::retry_trial),
            Outcome::Cancelled => {}
            Outcome::Success => self.succeeded(picked, trial, time),
            Outcome::Overload => self.overloaded(picked, ended.pause, trial, time.now()),
            Outcome::Error => self.failed(picked, trial, time.now()),
        }
    }

    fn succeeded(&mut self, picked: &Picked, trial: bool, time: &mut Time) {
        let index = picked.index;
        let slot = &mut self.slots[index];
        let pool = &mut self.pools[slot.pool];
        if picked.timed {
            let now = time.now();
            if let Some(started) = picked.started {
                pool.took(now.saturating_duration_since(started));
            }
            if let Some(config) = &self.settings.outlier {
                slot.record.step(config, now.saturating_duration_since(self.epoch));
            }
        }
        slot.record.successes(1);
        pool.succeeded();
        if trial {
            self.passed(index, time.now());
        } else if slot.busy.cap().is_some() || slot.starting.is_some() {
            self.change(index, time.now(), |slot| {
                slot.busy.success();
                if let Some(starting) = &mut slot.starting {
                    starting.success();
                }
            });
        }
    }

    fn overloaded(&mut self, picked: &Picked, pause: Option<Duration>, trial: bool, now: Instant) {
        let index = picked.index;
        let slot = &self.slots[index];
        let pool = &mut self.pools[slot.pool];
        pool.alarm();
        // Its fair share of what is in flight is by weight; this exchange counts for the fleet, not for it.
        let idle = u128::from(slot.own) * 4 * u128::from(pool.weight.max(1));
        let fair = u128::from(slot.weight) * u128::from(pool.own + 1);
        let broken = picked.faster_than_half(pool.mean(), now) && idle < fair;
        let alone = slot.own == 0 && slot.foreign_units == 0;
        let (had, last) = (slot.own.saturating_add(1), !self.others(index));
        self.change(index, now, |slot| {
            slot.busy.overloaded(had, now);
            if let Some(pause) = pause.filter(|_| alone && !last) {
                slot.busy.pause(pause, now);
            }
        });
        if broken {
            self.failed(picked, trial, now);
        } else if trial {
            self.change(index, now, Slot::retry_trial);
        }
    }

    fn failed(&mut self, picked: &Picked, trial: bool, now: Instant) {
        let index = picked.index;
        let Some(config) = self.settings.outlier else { return };
        let since = now.saturating_duration_since(self.epoch);
        let slot = &mut self.slots[index];
        let pool = &mut self.pools[slot.pool];
        pool.alarm();
        let mean = pool.mean();
        let ghost = picked.started.filter(|_| picked.faster_than_half(mean, now)).map(|started| started + mean);
        let up = slot.record.phase == Phase::Up;
        let cause = slot.record.error(&config, since).filter(|_| up);
        let cause = if trial { Some(EjectCause::Trial) } else { cause }.filter(|_| self.may_eject(index));
        let stretch = self.random();
        if let Some(cause) = cause {
            self.ejected[cause as usize] += 1;
            self.news = true;
            self.prefixes.remove(index); // what broke down has an empty cache when it is back
        }
        self.change(index, now, |slot| {
            if let Some(until) = ghost {
                slot.ghosts.hold(until, mean);
            }
            if cause.is_some() {
                slot.record.eject(&config, now, stretch);
                slot.starting = None;
            } else if trial {
                slot.retry_trial();
            }
        });
    }

    /// Probation => Up, slowly.
    fn passed(&mut self, index: usize, now: Instant) {
        let start = self.settings.slow_start.unwrap_or_else(|| SlowStart::new(AFTER_EJECTION));
        self.change(index, now, |slot| {
            slot.record.passed(now);
            slot.starting = Some(Starting::new(start, now));
        });
    }

    /// The head of a good answer is here. With that of a trial the endpoint is back, also if the body streams for minutes.
    pub(crate) fn headed(&mut self, picked: &Picked, now: Instant) {
        if let Some(started) = picked.started {
            let pool = self.slots[picked.index].pool;
            self.pools[pool].headed(now.saturating_duration_since(started));
        }
        let phase = self.slots[picked.index].record.phase;
        if phase == (Phase::Probation { trial: Some(picked.ticket) }) {
            self.passed(picked.index, now);
        }
    }

    /// Whether an exchange that was given up without a head says something of its endpoint: others' heads came far sooner.
    pub(crate) fn is_late(&self, picked: &Picked, now: Instant) -> bool {
        let pool = &self.pools[self.slots[picked.index].pool];
        picked.started.is_some_and(|started| pool.is_late(now.saturating_duration_since(started)))
    }

    /// Ejects by hand, for `time` or until it is cleared.
    pub(crate) fn eject(&mut self, index: usize, time: Option<Duration>, now: Instant) {
        let until = time.and_then(|time| now.checked_add(time));
        self.change(index, now, |slot| slot.record.phase = Phase::Ejected { until });
    }

    #[cfg(test)]
    pub(super) fn clear_record(&mut self, index: usize) {
        self.slots[index].record.clear();
    }

    /// Up again, as if nothing had been: ejection, overload, ghosts and the rules that closed it.
    pub(crate) fn clear(&mut self, index: usize, now: Instant) {
        self.change(index, now, |slot| slot.clear());
    }

    /// Whether another endpoint of its pool takes requests.
    fn others(&self, index: usize) -> bool {
        let slot = &self.slots[index];
        let mut members = self.pools[slot.pool].members.iter().flatten().map(|other| *other as usize);
        members.any(|other| other != index && self.slots[other].open)
    }

    /// At most half of a pool, and never the last.
    fn may_eject(&self, index: usize) -> bool {
        let slot = &self.slots[index];
        let members = self.pools[slot.pool].members.iter().flatten().map(|other| &self.slots[*other as usize]);
        let (mut all, mut out) = (0, 0);
        for member in members.filter(|member| member.stays()) {
            all += 1;
            out += usize::from(matches!(member.record.phase, Phase::Ejected { .. } | Phase::Probation { .. }));
        }
        let already = usize::from(matches!(slot.record.phase, Phase::Probation { .. }));
        (out + 1 - already) * 2 <= all && self.others(index)
    }
}
