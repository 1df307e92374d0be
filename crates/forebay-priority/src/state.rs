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
    counted: [Counted; CLASSES],
}

/// What the scheduler knows of the gate's requests of a class.
#[derive(Clone, Copy)]
struct Counted {
    /// Seats taken less seats given back, since the start, modulo 2^64.
    held: u64,
    passed: u64,
    done: u64,
}

impl State {
    pub(crate) const fn new(scheduler: Core) -> Self {
        Self {
            scheduler,
            drained: Vec::new(),
            uncontended: 0,
            counted: [Counted { held: 0, passed: 0, done: 0 }; CLASSES],
        }
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
        for (class, (done, failed)) in gate.counts().into_iter().enumerate() {
            let known = &mut self.counted[class];
            // Who has given back a seat but not yet counted it is missing from both sums, until the next time.
            let passed = known.held.wrapping_add(done).wrapping_add(failed).cast_signed();
            let more = u64::try_from(passed.wrapping_sub(known.passed.cast_signed())).unwrap_or(0);
            if more > 0 || done != known.done {
                let ended = done - known.done;
                (known.passed, known.done) = (known.passed + more, done);
                self.scheduler.count_lent(class, more, ended);
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
            let more = state.scheduler.take_back(left);
            for (known, more) in state.counted.iter_mut().zip(more) {
                known.held = known.held.wrapping_add(more);
            }
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
