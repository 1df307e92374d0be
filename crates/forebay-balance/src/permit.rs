use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_core::{BodyGuard, Class, Demand, Outcome};
use http::StatusCode;

use crate::capacity::Place;
use crate::policy::{Claim, PickError, Picker};
use crate::wakers::Wakers;

/// What is counted: the picker's places, outcomes by endpoint, demand by class. Nothing in it depends on the service.
#[derive(Debug)]
pub(crate) struct Counts {
    ledger: Mutex<Ledger>,
    pub(crate) wakers: Wakers,
}

/// What is behind the one lock, as it changes together.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) picker: Picker,
    /// By endpoint and [`Outcome`].
    pub(crate) outcomes: Vec<[u64; 4]>,
    pub(crate) demand: Demand,
}

impl Counts {
    pub(crate) fn new(picker: Picker) -> Self {
        let outcomes = vec![[0; 4]; picker.slots().len()];
        let ledger = Ledger { picker, outcomes, demand: Demand::default() };
        Self { ledger: Mutex::new(ledger), wakers: Wakers::default() }
    }

    /// Only our own code runs under this lock, so a poisoned one is whole all the same.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the places, and then, outside the lock, wakes the subscribers if more are open than before.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut ledger = self.ledger();
        let before = ledger.picker.open();
        let result = change(&mut ledger);
        let more = ledger.picker.open() > before;
        drop(ledger);
        if more {
            self.wakers.wake();
        }
        result
    }
}

/// A place at an endpoint, from the pick to the end of the response body. Dropped unfinished it counts as cancelled.
#[derive(Debug)]
pub struct Permit {
    counts: Arc<Counts>,
    index: usize,
    /// What is known so far; the worst of head and body stands.
    outcome: Outcome,
    failed: bool,
    /// The class, unless it was counted further out.
    class: Option<Class>,
}

impl Permit {
    /// Takes a place: by right of one that was reserved, or one that nobody has reserved.
    pub(crate) fn pick(counts: &Arc<Counts>, reserved: Option<Place>, class: Option<Class>) -> Result<Self, PickError> {
        let claim = if reserved.is_some() { Claim::Reserved } else { Claim::Open };
        // Nobody is to be woken: a pick opens no place, and one by reservation fails only if there is none at all.
        let mut ledger = counts.ledger();
        let picked = ledger.picker.pick(claim, &[]);
        if let Some(class) = class.filter(|_| picked.is_ok()) {
            ledger.demand[class].in_flight += 1;
        }
        drop(ledger);
        if let Some(place) = reserved {
            place.use_up();
        }
        let index = picked?;
        Ok(Self { counts: Arc::clone(counts), index, outcome: Outcome::Cancelled, failed: false, class })
    }

    /// Moves to another endpoint than those tried, as one exchange that goes on: it was sent to this one in vain.
    pub(crate) fn elsewhere(mut self, tried: &[usize]) -> Result<Self, PickError> {
        self.index = self.counts.change(|ledger| {
            let index = ledger.picker.shift(self.index, tried)?;
            ledger.outcomes[self.index][self.outcome as usize] += 1;
            Ok(index)
        })?;
        self.outcome = Outcome::Cancelled;
        Ok(self)
    }

    pub(crate) const fn index(&self) -> usize {
        self.index
    }

    /// The head is here; if it is a failure, that stands.
    pub(crate) fn head(&mut self, status: StatusCode) {
        let outcome = Outcome::of_status(status);
        if outcome != Outcome::Success {
            self.outcome = outcome;
            self.failed = true;
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
        self.counts.change(|ledger| {
            ledger.outcomes[self.index][self.outcome as usize] += 1;
            if let Some(class) = self.class {
                ledger.demand[class].in_flight -= 1;
                ledger.demand[class].done += u64::from(self.outcome != Outcome::Cancelled);
            }
            ledger.picker.release(self.index);
        });
    }
}
