//! A waiter for whose answer somebody more urgent waits too.

use super::scheduler::Scheduler;
use super::slab::{State, Ticket};
use super::tick::Tick;

impl<T, P> Scheduler<T, P> {
    /// Moves a waiter to the queue of a more urgent class, as if it came there now: `settle` next. False: it is not in a
    /// queue, is as urgent already, or that class has no room for it. O(1).
    pub(crate) fn raise(&mut self, now: Tick, ticket: Ticket, class: usize) -> bool {
        let Some(entry) = self.slab.get_mut(ticket) else { return false };
        let (from, cost, flow, account) = (usize::from(entry.class), entry.cost, entry.flow, entry.account);
        if entry.state != State::Waiting || class >= from {
            return false;
        }
        let length = self.classes[class].length;
        if self.classes[class].counts.waiting >= length || cost > self.most(class) {
            return false;
        }
        self.unlink(ticket.index);
        self.classes[from].counts.cancelled += 1; // it has left this queue, as whoever gives up does
        let entry = self.slab.at_mut(ticket.index);
        (entry.class, entry.since) = (class as u8, now);
        self.classes[class].counts.offered += 1;
        self.classes[class].arrivals.count(cost);
        self.join(now, class, flow, account, ticket.index);
        true
    }
}
