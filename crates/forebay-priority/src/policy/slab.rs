use forebay_core::Reason;

use super::flows::Account;
use super::tenants::NOBODY;
use super::tick::Tick;

/// No entry: the end of a list.
pub(super) const NONE: u32 = u32::MAX;

/// Names a waiter: a place in the slab, and the generation that makes an old ticket harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket {
    pub(super) index: u32,
    pub(super) generation: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Free,
    Waiting,
    /// Has a seat that it has not yet collected.
    Granted,
    /// Was turned away, and has not yet heard of it.
    Refused(Reason),
    /// Holds a seat of a class with a `max_hold`.
    Held,
    /// Has held it for too long: the seat was taken away.
    Revoked,
}

/// A waiter; `T` is what wakes it, `P` the place at a backend that a grant may come with.
#[derive(Debug)]
pub(super) struct Entry<T, P> {
    /// Until the grant, when it came; from then on, when it was granted.
    pub(super) since: Tick,
    /// When its answer is worthless; of a held seat, when it is taken away.
    pub(super) deadline: Tick,
    /// What the grant added to its tenant's virtual start.
    pub(super) charged: u64,
    pub(super) previous: u32,
    /// The next waiter of its flow, or the next free entry.
    pub(super) next: u32,
    pub(super) cost: u32,
    generation: u32,
    pub(super) class: u8,
    pub(super) flow: u8,
    /// Its tenant, if the seats of each are bounded.
    pub(super) tenant: u64,
    /// Its tenant's virtual start is kept there.
    pub(super) account: Account,
    pub(super) state: State,
    pub(super) waiter: Option<T>,
    pub(super) place: Option<P>,
}

/// A list of entries of a slab, in the order in which they came.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    pub(super) head: u32,
    pub(super) tail: u32,
    pub(super) len: u32,
}

impl List {
    pub(super) const EMPTY: Self = Self { head: NONE, tail: NONE, len: 0 };

    /// Appends an entry that is in no list. O(1).
    pub(super) fn push<T, P>(&mut self, slab: &mut Slab<T, P>, index: u32) {
        let entry = slab.at_mut(index);
        (entry.previous, entry.next) = (self.tail, NONE);
        match std::mem::replace(&mut self.tail, index) {
            NONE => self.head = index,
            tail => slab.at_mut(tail).next = index,
        }
        self.len += 1;
    }

    /// Puts in an entry that is in no list, before those whose deadline is later. O(those).
    pub(super) fn insert_by_deadline<T, P>(&mut self, slab: &mut Slab<T, P>, index: u32) {
        let (mut before, mut after) = (self.tail, NONE);
        while before != NONE && slab.at(before).deadline > slab.at(index).deadline {
            (before, after) = (slab.at(before).previous, before);
        }
        let entry = slab.at_mut(index);
        (entry.previous, entry.next) = (before, after);
        match before {
            NONE => self.head = index,
            _ => slab.at_mut(before).next = index,
        }
        match after {
            NONE => self.tail = index,
            _ => slab.at_mut(after).previous = index,
        }
        self.len += 1;
    }

    /// Takes an entry out, wherever it stands. O(1).
    pub(super) fn unlink<T, P>(&mut self, slab: &mut Slab<T, P>, index: u32) {
        let (previous, next) = (slab.at(index).previous, slab.at(index).next);
        match previous {
            NONE => self.head = next,
            _ => slab.at_mut(previous).next = next,
        }
        match next {
            NONE => self.tail = previous,
            _ => slab.at_mut(next).previous = previous,
        }
        self.len -= 1;
    }

    pub(super) const fn first(&self) -> Option<u32> {
        if self.len == 0 { None } else { Some(self.head) }
    }
}

/// Waiters in one piece of memory, linked by index. It grows with the queues, which are bounded, and is reused.
#[derive(Debug)]
pub(super) struct Slab<T, P> {
    entries: Vec<Entry<T, P>>,
    free: u32,
}

impl<T, P> Slab<T, P> {
    pub(super) fn with_capacity(entries: usize) -> Self {
        Self { entries: Vec::with_capacity(entries), free: NONE }
    }

    /// A waiter that is in no list yet.
    pub(super) fn insert(&mut self, class: u8, cost: u32, since: Tick, deadline: Tick, waiter: T) -> Ticket {
        let index = self.free;
        let mut entry = Entry {
            since,
            deadline,
            charged: 0,
            previous: NONE,
            next: NONE,
            cost,
            generation: 0,
            class,
            flow: 0,
            tenant: NOBODY,
            account: [0; 2],
            state: State::Waiting,
            waiter: Some(waiter),
            place: None,
        };
        if index == NONE {
            let index = self.entries.len() as u32; // the queues together are kept below u32
            self.entries.push(entry);
            return Ticket { index, generation: 0 };
        }
        let old = &mut self.entries[index as usize];
        self.free = old.next;
        entry.generation = old.generation;
        let generation = entry.generation;
        *old = entry;
        Ticket { index, generation }
    }

    /// The entry of a ticket that is not spent.
    pub(super) fn get_mut(&mut self, ticket: Ticket) -> Option<&mut Entry<T, P>> {
        let entry = self.entries.get_mut(ticket.index as usize)?;
        (entry.generation == ticket.generation && entry.state != State::Free).then_some(entry)
    }

    pub(super) fn at(&self, index: u32) -> &Entry<T, P> {
        &self.entries[index as usize]
    }

    pub(super) fn at_mut(&mut self, index: u32) -> &mut Entry<T, P> {
        &mut self.entries[index as usize]
    }

    /// Ends a ticket. What it held comes back, to be dropped outside any lock.
    pub(super) fn remove(&mut self, index: u32) -> (Option<T>, Option<P>) {
        let free = self.free;
        let entry = self.at_mut(index);
        entry.state = State::Free;
        entry.generation = entry.generation.wrapping_add(1);
        entry.next = free;
        let held = (entry.waiter.take(), entry.place.take());
        self.free = index;
        held
    }

    #[cfg(test)]
    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }
}
