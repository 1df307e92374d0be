use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_core::{BodyGuard, Class, Outcome};
use http::StatusCode;

use crate::policy::Picker;

/// What is counted: the picker's places, outcomes by endpoint, demand by class. Nothing in it depends on the service.
#[derive(Debug)]
pub(crate) struct Counts {
    picker: Mutex<Picker>,
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
        let outcomes = picker.slots.iter().map(|_| Default::default()).collect();
        Self { picker: Mutex::new(picker), outcomes, classes: Default::default() }
    }

    /// Only our own code runs under this lock, so a poisoned one is whole all the same.
    pub(crate) fn picker(&self) -> MutexGuard<'_, Picker> {
        self.picker.lock().unwrap_or_else(PoisonError::into_inner)
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
    pub(crate) fn new(counts: Arc<Counts>, index: usize, class: Option<Class>) -> Self {
        if let Some(class) = class {
            counts.classes[class.index()].in_flight.fetch_add(1, Relaxed);
        }
        Self { counts, index, outcome: Outcome::Cancelled, failed: false, class }
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
    pub(crate) fn fail(mut self) {
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
        self.counts.picker().release(self.index);
        self.counts.outcomes[self.index][self.outcome as usize].fetch_add(1, Relaxed);
        if let Some(class) = self.class {
            let class = &self.counts.classes[class.index()];
            class.in_flight.fetch_sub(1, Relaxed);
            if self.outcome != Outcome::Cancelled {
                class.done.fetch_add(1, Relaxed);
            }
        }
    }
}
