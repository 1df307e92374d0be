//! Answers whose readers are watched: each is looked at when it may have stalled at the earliest.

use super::slab::{List, Slab, Ticket};
use super::tick::Tick;

/// The answers, by when they are to be looked at next.
#[derive(Debug)]
pub(crate) struct Readers<T> {
    answers: Slab<T, ()>,
    order: List,
    /// Nanoseconds that lie between two looks at one answer, at least.
    pause: u64,
}

impl<T> Readers<T> {
    /// No answers yet. A reader that takes nothing has stalled after `stall` nanoseconds: looks are a sixteenth of that
    /// apart.
    pub(crate) fn new(stall: u64) -> Self {
        Self { answers: Slab::with_capacity(0), order: List::EMPTY, pause: (stall / 16).max(1) }
    }

    /// Watches an answer, to be looked at then. O(answers that are to be looked at later), of which there are none where
    /// all have the same time from now on.
    pub(crate) fn watch(&mut self, look: Tick, answer: T) -> Ticket {
        let ticket = self.answers.insert(0, 0, Tick::ZERO, look, answer);
        self.order.insert_by_deadline(&mut self.answers, ticket.index);
        ticket
    }

    /// Forgets an answer, and gives it back. O(1).
    pub(crate) fn forget(&mut self, ticket: Ticket) -> Option<T> {
        self.answers.get_mut(ticket)?;
        self.order.unlink(&mut self.answers, ticket.index);
        self.answers.remove(ticket.index).0
    }

    /// When to look next: not before a pause is over, so that many waiters do not look all the time. `None`: nothing is
    /// watched.
    pub(crate) fn next_look(&self, now: Tick) -> Option<Tick> {
        let first = self.order.first()?;
        Some(self.answers.at(first).deadline.max(now.plus(self.pause)))
    }

    /// Looks at the answers whose time has come: `until` says until when one may be held, as far as is known now. Returns
    /// those for which that is over; they are looked at again, until they are forgotten. O(answers looked at).
    pub(crate) fn stalled(&mut self, now: Tick, until: impl Fn(&T) -> Tick) -> Vec<T>
    where
        T: Clone,
    {
        let mut stalled = Vec::new();
        while let Some(first) = self.order.first()
            && self.answers.at(first).deadline <= now
        {
            self.order.unlink(&mut self.answers, first);
            let answer = self.answers.at_mut(first);
            let until = answer.waiter.as_ref().map_or(Tick::NEVER, &until);
            if until <= now {
                stalled.extend(answer.waiter.clone());
            }
            // One that is not behind now may be soon, and may have little time left.
            let next = if until == Tick::NEVER { now.plus(4 * self.pause) } else { until };
            answer.deadline = next.max(now.plus(self.pause));
            self.order.insert_by_deadline(&mut self.answers, first);
        }
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Op {
        Watch(u64),
        Forget(usize),
        Look(u64),
    }

    proptest! {
        /// Beside a list that is searched from end to end: nothing that has stalled is missed by more than a pause, nothing
        /// else is returned.
        #[test]
        fn each_is_returned_once_its_time_is_over(ops in prop::collection::vec(
            prop_oneof![
                (0..200_u64).prop_map(Op::Watch),
                (0..20_usize).prop_map(Op::Forget),
                (0..60_u64).prop_map(Op::Look),
            ],
            0..80,
        )) {
            let (mut readers, mut now) = (Readers::new(160), Tick(1));
            let mut all: Vec<Option<(Ticket, u64)>> = Vec::new();
            for op in ops {
                match op {
                    Op::Watch(until) => {
                        let until = now.0 + until;
                        all.push(Some((readers.watch(Tick(until), (all.len(), until)), until)));
                    }
                    Op::Forget(id) => {
                        if let Some((ticket, until)) = all.get_mut(id).and_then(Option::take) {
                            prop_assert_eq!(readers.forget(ticket), Some((id, until)));
                            prop_assert_eq!(readers.forget(ticket), None);
                        }
                    }
                    Op::Look(passed) => {
                        now = now.plus(passed);
                        let next = readers.next_look(now);
                        prop_assert_eq!(next.is_some(), all.iter().any(Option::is_some));
                        let stalled = readers.stalled(now, |&(_, until)| Tick(until));
                        for &(id, until) in &stalled {
                            prop_assert!(all[id].is_some() && until <= now.0);
                        }
                        let missed = all.iter().enumerate().filter_map(|(id, one)| Some((id, (*one)?.1)));
                        for (id, until) in missed.filter(|&(_, until)| until + 10 <= now.0) {
                            // Looked at within a pause, or returned less than a pause ago.
                            let recent = readers.next_look(now).is_some_and(|next| next <= now.plus(10));
                            prop_assert!(stalled.contains(&(id, until)) || recent);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn it_looks_again_after_a_pause_and_not_before() {
        let mut readers = Readers::new(160);
        let ticket = readers.watch(Tick(160), 'a');
        assert_eq!(readers.next_look(Tick(0)), Some(Tick(160)));
        assert_eq!(readers.next_look(Tick(155)), Some(Tick(165)));
        assert_eq!(readers.stalled(Tick(159), |_| Tick(0)), [], "its time has not come");
        assert_eq!(readers.stalled(Tick(160), |_| Tick::NEVER), [], "the backend has nothing to send");
        assert_eq!(readers.next_look(Tick(160)), Some(Tick(200)), "it may stop at any time");
        assert_eq!(readers.stalled(Tick(1000), |_| Tick(5)), ['a']);
        assert_eq!(readers.forget(ticket), Some('a'));
        assert_eq!(readers.next_look(Tick(0)), None);
    }
}
