use std::ops::{Deref, DerefMut};
use std::task::Waker;

use crate::gate::Gate;
use crate::policy::CLASSES;
use crate::shared::Core;
use crate::sync::MutexGuard;

/// The scheduler, and who waits for the end of a drain.
pub(crate) struct State {
    pub(crate) scheduler: Core,
    pub(crate) drained: Vec<Waker>,
    pub(crate) uncontended: u64,
    /// What the scheduler knows of the counts of the gate.
    counted: [(u64, u64); CLASSES],
}

impl State {
    pub(crate) const fn new(scheduler: Core) -> Self {
        Self { scheduler, drained: Vec::new(), uncontended: 0, counted: [(0, 0); CLASSES] }
    }

    pub(crate) fn take_drained(&mut self) -> Vec<Waker> {
        if !self.drained.is_empty() && self.scheduler.is_idle() {
            std::mem::take(&mut self.drained)
        } else {
            Vec::new()
        }
    }

    /// Takes over what has come through the gate.
    fn count(&mut self, gate: &Gate) {
        for (class, (passed, done)) in gate.counts().into_iter().enumerate() {
            let (passed_before, done_before) = std::mem::replace(&mut self.counted[class], (passed, done));
            if (passed, done) != (passed_before, done_before) {
                self.scheduler.count_lent(class, passed - passed_before, done - done_before);
            }
        }
    }
}

/// The state under its lock. Meanwhile the gate is shut; dropped, it opens again, if it may.
pub(crate) struct Locked<'a> {
    // Unlocked last.
    state: MutexGuard<'a, State>,
    gate: &'a Gate,
    lends: bool,
}

impl<'a> Locked<'a> {
    /// Shuts the gate; `lends`: it may be opened again.
    pub(crate) fn new(mut state: MutexGuard<'a, State>, gate: &'a Gate, lends: bool) -> Self {
        if let Some(left) = gate.shut() {
            state.scheduler.take_back(left);
            state.count(gate);
        }
        Self { state, gate, lends }
    }

    /// The same with counts that are whole: while it was shut, some may have been on their way from the gate.
    pub(crate) fn counted(mut self) -> Self {
        self.state.count(self.gate);
        self
    }
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if self.lends {
            self.gate.open(self.state.scheduler.lend());
        }
    }
}
