//! Seats of classes with a `max_hold`: a list a class, by the end of their time.

use super::scheduler::{Scheduler, Taken};
use super::slab::{Slab, State, Ticket};
use super::tick::Tick;

impl<T, P> Scheduler<T, P> {
    /// Notes a seat, if its class has a `max_hold`.
    pub(super) fn hold_seat(&mut self, granted: Tick, class: usize, cost: u32, tenant: u64) -> Option<Ticket> {
        let until = granted.plus(self.classes[class].max_hold()?);
        let ticket = self.held.insert(class as u8, cost, granted, until, ());
        let entry = self.held.at_mut(ticket.index);
        (entry.state, entry.tenant) = (State::Held, tenant);
        // Grants are not always collected in their order.
        self.classes[class].held.insert_by_deadline(&mut self.held, ticket.index);
        Some(ticket)
    }

    /// Forgets a seat; false if it had been taken away already.
    pub(super) fn let_go(&mut self, taken: &Taken) -> bool {
        let Some(ticket) = taken.held else { return true };
        let Some(entry) = self.held.get_mut(ticket) else { return false };
        let mine = entry.state == State::Held;
        if mine {
            self.classes[usize::from(taken.class)].held.unlink(&mut self.held, ticket.index);
        } else {
            self.revoked -= 1;
        }
        self.held.remove(ticket.index);
        mine
    }

    pub(super) fn resize_held(&mut self, taken: &Taken, cost: u32) {
        if let Some(ticket) = taken.held
            && let Some(entry) = self.held.get_mut(ticket)
        {
            entry.cost = cost;
        }
    }

    /// Whether this seat was taken away. O(1).
    pub(crate) fn is_revoked(&mut self, taken: &Taken) -> bool {
        taken.held.is_some_and(|ticket| self.held.get_mut(ticket).is_some_and(|entry| entry.state == State::Revoked))
    }

    /// Takes away the seats that have been held for too long: `settle` next. O(those seats).
    pub(crate) fn reap(&mut self, now: Tick) {
        for class in 0..self.classes.len() {
            while let Some(oldest) = self.classes[class].held.first() {
                let entry = self.held.at_mut(oldest);
                if entry.deadline > now {
                    break;
                }
                entry.state = State::Revoked;
                let (cost, tenant) = (entry.cost, entry.tenant);
                self.classes[class].held.unlink(&mut self.held, oldest);
                self.unseat(class, cost, tenant);
                self.revoked += 1;
                self.classes[class].counts.overdue += 1;
            }
        }
    }

    /// When the next seat may be taken away: whoever waits then calls `reap`.
    pub(crate) fn next_reap(&self) -> Tick {
        let oldest = self.classes.iter().filter_map(|class| class.held.first());
        oldest.map(|index| self.held.at(index).deadline).min().unwrap_or(Tick::NEVER)
    }

    /// Exchanges that go on although their seat was taken away.
    pub(crate) const fn revoked(&self) -> usize {
        self.revoked
    }
}

/// The seats of one scheduler.
pub(super) type Held = Slab<(), ()>;
