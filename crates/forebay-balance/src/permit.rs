use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_core::{BodyGuard, Class, Outcome};
use http::StatusCode;

use crate::capacity::Place;
use crate::policy::{Claim, PickError, Picker};
use crate::wakers::Wakers;

/// What is counted: the picker's places, outcomes by endpoint, demand by class. Nothing in it depends on the service.
#[derive(Debug)]
pub(crate) struct Counts {
    picker: Mutex<Picker>,
    pub(crate) wakers: Wakers,
    pub(crate) outcomes: Vec<[AtomicU64; 4]>,
    pub(crate) classes: [ClassCount; Class::COUNT],
}

#[derive(Debug, Default)]
pub(crate) struct ClassCount {
    pub(crate) in_flight: AtomicU64,
    pub(crate) offered: AtomicU64,
    pub(crate) done: AtomicU64,
    pub(crate) shed: AtomicU64,
}

impl Counts {
    pub(crate) fn new(picker: Picker) -> Self {
        let outcomes = picker.slots().iter().map(|_| Default::default()).collect();
        Self { picker: Mutex::new(picker), wakers: Wakers::default(), outcomes, classes: Default::default() }
    }

    /// Only our own code runs under this lock, so a poisoned one is whole all the same.
    pub(crate) fn picker(&self) -> MutexGuard<'_, Picker> {
        self.picker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the places, and then, outside the lock, wakes the subscribers if more are open than before.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Picker) -> T) -> T {
        let mut picker = self.picker();
        let before = picker.open();
        let result = change(&mut picker);
        let more = picker.open() > before;
        drop(picker);
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
        let picked = counts.picker().pick(claim, &[]);
        if let Some(place) = reserved {
            place.use_up();
        }
        let index = picked?;
        if let Some(class) = class {
            counts.classes[class.index()].in_flight.fetch_add(1, Relaxed);
        }
        Ok(Self { counts: Arc::clone(counts), index, outcome: Outcome::Cancelled, failed: false, class })
    }

    /// Moves to another endpoint than those tried, as one exchange that goes on: it was sent to this one in vain.
    pub(crate) fn elsewhere(mut self, tried: &[usize]) -> Result<Self, PickError> {
        let index = self.counts.change(|picker| picker.shift(self.index, tried))?;
        self.count_outcome();
        self.index = index;
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

    fn count_outcome(&self) {
        self.counts.outcomes[self.index][self.outcome as usize].fetch_add(1, Relaxed);
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
        self.count_outcome();
        if let Some(class) = self.class {
            let class = &self.counts.classes[class.index()];
            class.in_flight.fetch_sub(1, Relaxed);
            if self.outcome != Outcome::Cancelled {
                class.done.fetch_add(1, Relaxed);
            }
        }
        self.counts.change(|picker| picker.release(self.index)); // last: it wakes, and who is woken reads the counts
    }
}
