use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_core::{BodyGuard, Class, Outcome};
use http::{HeaderMap, StatusCode, header};

use crate::capacity::Place;
use crate::ledger::{Core, now};
use crate::metrics::Meter;
use crate::policy::{self, Ended, PickError, PickReason};

/// How long an endpoint that answers 429 without `Retry-After` and has nothing to do is left alone.
const QUOTA_PAUSE: Duration = Duration::from_secs(1);

/// A place at an endpoint, from the pick to the end of the response body. Dropped unfinished it counts as cancelled.
#[derive(Debug)]
pub struct Permit {
    core: Arc<Core>,
    picked: policy::Picked,
    started: Instant,
    /// What is known so far; the worst of head and body stands.
    outcome: Outcome,
    failed: bool,
    pause: Option<Duration>,
    /// The class that it is counted as, unless it was counted further out.
    counted: Option<Class>,
    class: Class,
    key: Option<u64>,
    /// Of its endpoint, once that is bound.
    meter: Option<Meter>,
}

/// For whom a place is taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who {
    pub(crate) class: Class,
    pub(crate) key: Option<u64>,
    /// Whether it is counted here.
    pub(crate) counted: bool,
    /// Whether it asks for the first time.
    pub(crate) new: bool,
}

impl Permit {
    /// Takes a place: by right of one that was reserved, or one that nobody has reserved.
    pub(crate) fn pick(core: &Arc<Core>, reserved: Option<Place>, who: Who) -> Result<Self, PickError> {
        let started = now();
        let ask = policy::Ask { class: who.class, claim: reserved.as_ref().map(Place::claim), key: who.key };
        let pick = |ledger: &mut crate::ledger::Ledger| {
            let picked = ledger.picker.pick(ask, &[], started);
            if who.counted {
                let demand = &mut ledger.demand[who.class];
                demand.offered += u64::from(who.new);
                demand.in_flight += u64::from(picked.is_ok());
            }
            picked
        };
        let picked = match reserved {
            // Nobody is to be woken: such a pick opens no place, unless time did.
            None => {
                let mut ledger = core.ledger();
                let picked = pick(&mut ledger);
                let opened = ledger.picker.has_opened();
                drop(ledger);
                if opened {
                    core.change(|_| ());
                }
                picked
            }
            Some(place) => {
                place.use_up();
                core.change(pick)
            }
        }?;
        let core = Arc::clone(core);
        let counted = who.counted.then_some(who.class);
        let (outcome, class) = (Outcome::Cancelled, who.class);
        Ok(Self {
            core,
            picked,
            started,
            outcome,
            failed: false,
            pause: None,
            counted,
            class,
            key: who.key,
            meter: None,
        })
    }

    /// Moves to another endpoint than those tried, as one exchange that goes on: it was sent to this one in vain.
    pub(crate) fn elsewhere(mut self, tried: &[usize]) -> Result<Self, PickError> {
        let now = now();
        self.picked = self.core.change(|ledger| {
            let picked = ledger.picker.shift(&self.picked, (self.class, self.key), tried, now)?;
            ledger.picker.learn(&self.picked, &self.ended(), now);
            Ok(picked)
        })?;
        if let Some(meter) = self.meter.take() {
            meter.ended(self.outcome);
        }
        (self.started, self.outcome) = (now, Outcome::Cancelled);
        Ok(self)
    }

    /// Has it counted among the numbers of its endpoint.
    pub(crate) fn bind(&mut self, meter: Meter) {
        meter.picked(self.picked.reason);
        self.meter = Some(meter);
    }

    pub(crate) const fn index(&self) -> usize {
        self.picked.index
    }

    pub(crate) const fn reason(&self) -> PickReason {
        self.picked.reason
    }

    pub(crate) fn pool(&self) -> &Arc<str> {
        &self.core.pools[self.picked.claim.pool]
    }

    const fn ended(&self) -> Ended {
        Ended { outcome: self.outcome, started: self.started, pause: self.pause }
    }

    /// The head is here; if it is a failure, that stands.
    pub(crate) fn head(&mut self, status: StatusCode, headers: &HeaderMap, outcome: Outcome) {
        if let Some(meter) = &self.meter {
            meter.head(now().saturating_duration_since(self.started));
        }
        match outcome {
            Outcome::Success if self.picked.trial => {
                self.core.change(|ledger| ledger.picker.head_of_trial(&self.picked, now()));
            }
            Outcome::Success => {}
            _ => (self.outcome, self.failed) = (outcome, true),
        }
        if outcome == Outcome::Overload {
            let asked = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
            let quota = (status == StatusCode::TOO_MANY_REQUESTS).then_some(QUOTA_PAUSE);
            self.pause = asked.map(Duration::from_secs).or(quota);
        }
    }

    /// It failed.
    pub(crate) const fn fail(&mut self) {
        self.outcome = Outcome::Error;
    }
}

impl BodyGuard for Permit {
    fn finish(mut self, outcome: Outcome) {
        if !self.failed {
            self.outcome = outcome;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // Of most exchanges nobody asks how long they took, so their end needs no clock.
        let silent = !self.picked.timed && matches!(self.outcome, Outcome::Cancelled | Outcome::Success);
        let now = if silent { self.started } else { now() };
        let ended = self.ended();
        if let Some(meter) = self.meter.take() {
            meter.ended(ended.outcome);
        }
        self.core.change(|ledger| {
            if let Some(class) = self.counted {
                let demand = &mut ledger.demand[class];
                demand.in_flight -= 1;
                demand.done += u64::from(ended.outcome != Outcome::Cancelled);
            }
            if ended.outcome != Outcome::Cancelled {
                ledger.releases.event(now);
            }
            ledger.picker.release(&self.picked, &ended, now);
        });
    }
}
