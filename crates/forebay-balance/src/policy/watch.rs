//! What health checks and probes say.

use std::time::{Duration, Instant};

use super::foreign::Foreign;
use super::picker::Picker;
use super::slot::{Check, Slot};
#[cfg(any(test, feature = "client"))]
use super::weight::Starting;
use super::weight::{self, UNIT};
use crate::probe::{CloseCause, Verdict};

/// What a probe brought.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard {
    pub(crate) load: Load,
    /// What the rules say.
    pub(crate) verdict: Verdict,
    /// How long it holds.
    pub(crate) valid: Duration,
}

/// What it says about requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// Nothing: what was said before holds as long as it would have.
    #[cfg_attr(not(any(test, feature = "client")), expect(dead_code, reason = "only probes have nothing to say"))]
    Unsaid,
    /// That it does not know.
    Unknown,
    /// So many run and wait; `own_sent` were our own when it was asked.
    Requests { requests: u32, own_sent: u32 },
}

impl Picker {
    /// A health check has ended; `up` successes or `down` failures running change the endpoint's state.
    #[cfg(any(test, feature = "client"))]
    pub(crate) fn checked(&mut self, index: usize, good: bool, up: u8, down: u8, now: Instant) {
        let slow_start = self.settings.slow_start;
        let next = match (self.slots[index].check, good) {
            (Check::Unchecked, _) => Check::Unchecked, // it is not checked any more
            (Check::New | Check::Up { .. }, true) => Check::Up { failed: 0 }, // New => Up: the first is enough
            (Check::New, false) => Check::New,
            (Check::Up { failed }, false) if failed + 1 >= down => Check::Down { passed: 0 },
            (Check::Up { failed }, false) => Check::Up { failed: failed + 1 },
            (Check::Down { passed }, true) if passed + 1 >= up => Check::Up { failed: 0 },
            (Check::Down { passed }, true) => Check::Down { passed: passed + 1 },
            (Check::Down { .. }, false) => Check::Down { passed: 0 },
        };
        let comes = matches!(next, Check::Up { .. }) && !matches!(self.slots[index].check, Check::Up { .. });
        if next != self.slots[index].check {
            if matches!(next, Check::Down { .. }) {
                self.prefixes.remove(index); // it is likely restarted before it is back
            }
            self.change(index, now, |slot| {
                slot.check = next;
                if comes {
                    slot.starting = slow_start.map(|config| Starting::new(config, now));
                }
            });
        }
    }

    /// Somebody else knows whether it is well.
    pub(crate) fn set_health(&mut self, index: usize, healthy: bool, now: Instant) {
        let check = if healthy { Check::Up { failed: 0 } } else { Check::Down { passed: 0 } };
        if !healthy {
            self.prefixes.remove(index);
        }
        self.change(index, now, |slot| slot.check = check);
    }

    /// A probe was answered.
    pub(crate) fn heard(&mut self, index: usize, heard: &Heard, now: Instant) {
        let before = self.slots[index].heard;
        self.change(index, now, |slot| {
            let until = now + heard.valid;
            slot.foreign = match (heard.load, slot.foreign) {
                (Load::Requests { requests, own_sent }, _) => Foreign::of(requests, own_sent, slot.own, until),
                (Load::Unknown, Foreign::Reported { .. }) => Foreign::Unknown,
                (Load::Unknown | Load::Unsaid, foreign) => foreign,
            };
            if matches!(heard.load, Load::Requests { .. }) {
                slot.heard = Some(now);
            }
            slot.judged_until = Some(until);
            match heard.verdict {
                Verdict::Factor(factor) => {
                    slot.factor = weight::step(slot.factor, factor);
                    slot.closed = None;
                }
                Verdict::Close(cause) => slot.closed = Some(cause),
            }
        });
        let slot = &self.slots[index];
        if let (Some(reported), Load::Requests { .. }) = (slot.foreign.reported(), heard.load) {
            let pool = &self.pools[slot.pool];
            let every = before.map_or(Duration::ZERO, |before| now.saturating_duration_since(before));
            let surplus = f64::from(reported) * f64::from(UNIT) - pool.foreign_share(slot.base) as f64;
            let (lasting, passing) = pool.trust(every);
            let mean = slot.lasting_surplus + lasting * (surplus - slot.lasting_surplus);
            self.change(index, now, |slot| {
                slot.lasting_surplus = mean;
                slot.surplus = (mean + passing * (surplus - mean)) as i64;
            });
        }
        self.spread_foreign(self.slots[index].pool, now);
    }

    /// Gives those whose load is unknown as much foreign load for their weight as the others of the pool have. O(1)
    /// where all is known, or else O(endpoints).
    pub(super) fn spread_foreign(&mut self, pool: usize, now: Instant) {
        if self.pools[pool].unknown == 0 {
            return;
        }
        let members: Vec<usize> = self.pools[pool].members.iter().flatten().map(|index| *index as usize).collect();
        for index in members {
            let slot = &self.slots[index];
            if slot.foreign == Foreign::Unknown {
                let units = self.pools[pool].foreign_share(slot.base);
                if units != slot.foreign_units {
                    self.change(index, now, |slot| slot.foreign_units = units);
                }
            }
        }
    }
}

impl Slot {
    /// What rules said is long past: no reason to slow an endpoint, or to close it, unless a GPU is broken.
    pub(super) fn forget_verdict(&mut self) {
        self.factor = 1.0;
        self.closed = self.closed.filter(|cause| matches!(cause, CloseCause::GpuFault(_)));
    }
}
