use forebay_core::Reason;

/// What the scheduler knows of a class.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClassRule {
    pub(crate) max_in_flight: usize,
    pub(crate) queue: usize,
}

/// Names a waiter: a place in the slab and the generation that makes an old ticket harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket {
    index: u32,
    generation: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    Admitted,
    Queued(Ticket),
    Refused(Reason),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Polled {
    /// Still in the queue.
    Waiting,
    /// It has a seat from now on; the ticket is spent.
    Granted,
    /// The ticket is spent, or never was.
    Gone,
}

/// Gauges and counters of a class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ClassCounts {
    pub(crate) queued: usize,
    pub(crate) in_flight: usize,
    pub(crate) offered: u64,
    pub(crate) admitted: u64,
    pub(crate) refused: u64,
    pub(crate) cancelled: u64,
}

const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Waiting,
    Granted,
}

#[derive(Debug)]
struct Entry<T> {
    state: State,
    generation: u32,
    class: u8,
    previous: u32,
    /// The next waiter of the class, or the next free place.
    next: u32,
    waiter: Option<T>,
}

#[derive(Debug)]
struct Class {
    rule: ClassRule,
    head: u32,
    tail: u32,
    counts: ClassCounts,
}

/// Bounded first-in-first-out queues, one a class, strict priority between them, and one shared limit.
///
/// `T` is what the caller gets back when a waiter is granted a seat (a waker). Every operation is O(1), a grant
/// O(classes). The slab never grows past the sum of the queues and the grants not yet collected.
#[derive(Debug)]
pub(crate) struct Scheduler<T> {
    limit: usize,
    in_flight: usize,
    classes: Vec<Class>,
    slab: Vec<Entry<T>>,
    free: u32,
    draining: bool,
}

impl<T> Scheduler<T> {
    pub(crate) fn new(limit: usize, rules: impl IntoIterator<Item = ClassRule>) -> Self {
        let class = |rule| Class { rule, head: NONE, tail: NONE, counts: ClassCounts::default() };
        let classes = rules.into_iter().map(class).collect();
        Self { limit, in_flight: 0, classes, slab: Vec::new(), free: NONE, draining: false }
    }

    /// A newcomer of `class`. It overtakes no waiter of its own or a more urgent class that could go now: whenever one
    /// could, `dispatch` has already let it.
    pub(crate) fn offer(&mut self, class: usize, waiter: impl FnOnce() -> T) -> Offer {
        self.classes[class].counts.offered += 1;
        if self.draining {
            return Offer::Refused(self.turn_away(class, Reason::ShuttingDown));
        }
        if self.limit == 0 && self.classes[class].rule.queue == 0 {
            return Offer::Refused(self.turn_away(class, Reason::NoCapacity));
        }
        let state = &self.classes[class];
        if state.head == NONE && self.in_flight < self.limit && state.counts.in_flight < state.rule.max_in_flight {
            self.take_seat(class);
            return Offer::Admitted;
        }
        if state.counts.queued >= state.rule.queue {
            return Offer::Refused(self.turn_away(class, Reason::QueueFull));
        }
        Offer::Queued(self.enqueue(class, waiter()))
    }

    /// A newcomer that the caller refuses for a reason of its own.
    pub(crate) fn refuse(&mut self, class: usize, reason: Reason) -> Reason {
        self.classes[class].counts.offered += 1;
        self.turn_away(class, reason)
    }

    fn turn_away(&mut self, class: usize, reason: Reason) -> Reason {
        self.classes[class].counts.refused += 1;
        reason
    }

    fn take_seat(&mut self, class: usize) {
        let counts = &mut self.classes[class].counts;
        counts.in_flight += 1;
        counts.admitted += 1;
        self.in_flight += 1;
    }

    fn enqueue(&mut self, class: usize, waiter: T) -> Ticket {
        let index = if self.free == NONE {
            let index = self.slab.len() as u32; // bounded by the queues, whose sum the configuration keeps below u32
            self.slab.push(Entry {
                state: State::Free,
                generation: 0,
                class: 0,
                previous: NONE,
                next: NONE,
                waiter: None,
            });
            index
        } else {
            let index = self.free;
            self.free = self.slab[index as usize].next;
            index
        };
        let state = &mut self.classes[class];
        let tail = std::mem::replace(&mut state.tail, index);
        if tail == NONE {
            state.head = index;
        } else {
            self.slab[tail as usize].next = index;
        }
        state.counts.queued += 1;
        let entry = &mut self.slab[index as usize];
        *entry = Entry {
            state: State::Waiting,
            generation: entry.generation,
            class: class as u8,
            previous: tail,
            next: NONE,
            waiter: Some(waiter),
        };
        Ticket { index, generation: entry.generation }
    }

    /// Where the ticket stands; a grant is collected by this, once.
    pub(crate) fn poll(&mut self, ticket: Ticket) -> Polled {
        match self.entry(ticket) {
            Some(entry) if entry.state == State::Granted => {
                self.recycle(ticket.index);
                Polled::Granted
            }
            Some(_) => Polled::Waiting,
            None => Polled::Gone,
        }
    }

    /// Replaces what is returned when this waiter is granted; the old value comes back, to be dropped outside a lock.
    pub(crate) fn set_waiter(&mut self, ticket: Ticket, waiter: T) -> Option<T> {
        self.entry_mut(ticket)?.waiter.replace(waiter)
    }

    /// Takes a waiter out of the queue as refused (its time is up). `None` if it no longer waits: it was granted.
    pub(crate) fn refuse_waiter(&mut self, ticket: Ticket) -> Option<T> {
        if self.entry(ticket)?.state != State::Waiting {
            return None;
        }
        let class = self.unlink(ticket.index);
        self.classes[class].counts.refused += 1;
        self.recycle(ticket.index)
    }

    /// The caller has gone. A waiter leaves its queue; a grant that it did not collect is a seat again (call `dispatch`).
    pub(crate) fn cancel(&mut self, ticket: Ticket) -> Option<T> {
        match self.entry(ticket)?.state {
            State::Waiting => {
                let class = self.unlink(ticket.index);
                self.classes[class].counts.cancelled += 1;
            }
            State::Granted => {
                let class = usize::from(self.slab[ticket.index as usize].class);
                // It was never served, so it counts as cancelled, not as admitted.
                self.classes[class].counts.admitted -= 1;
                self.classes[class].counts.cancelled += 1;
                self.release(class);
            }
            State::Free => return None,
        }
        self.recycle(ticket.index)
    }

    /// A seat is free again. Call `dispatch` next.
    pub(crate) fn release(&mut self, class: usize) {
        let counts = &mut self.classes[class].counts;
        debug_assert!(counts.in_flight > 0 && self.in_flight > 0);
        counts.in_flight = counts.in_flight.saturating_sub(1);
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Grants one seat to the most urgent waiter that may have one; call until `None`. A class at its own cap does not
    /// block those below it.
    pub(crate) fn dispatch(&mut self) -> Option<T> {
        if self.in_flight >= self.limit {
            return None;
        }
        let may_go = |class: &Class| class.head != NONE && class.counts.in_flight < class.rule.max_in_flight;
        let class = self.classes.iter().position(may_go)?;
        let index = self.classes[class].head;
        self.unlink(index);
        self.take_seat(class);
        let entry = &mut self.slab[index as usize];
        entry.state = State::Granted;
        entry.waiter.take()
    }

    /// A new shared limit; 0 pauses. Seats above it stay until they are released. Call `dispatch` next.
    pub(crate) const fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Refuses newcomers from now on; those who wait are served.
    pub(crate) const fn drain(&mut self) {
        self.draining = true;
    }

    pub(crate) const fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.classes.iter().all(|class| class.head == NONE)
    }

    pub(crate) fn counts(&self) -> impl Iterator<Item = ClassCounts> + '_ {
        self.classes.iter().map(|class| class.counts)
    }

    /// How many wait in this class and the more urgent ones.
    pub(crate) fn ahead(&self, class: usize) -> usize {
        self.classes[..=class].iter().map(|class| class.counts.queued).sum()
    }

    #[cfg(test)]
    pub(crate) const fn len_slab(&self) -> usize {
        self.slab.len()
    }

    fn entry(&self, ticket: Ticket) -> Option<&Entry<T>> {
        self.slab
            .get(ticket.index as usize)
            .filter(|entry| entry.generation == ticket.generation && entry.state != State::Free)
    }

    fn entry_mut(&mut self, ticket: Ticket) -> Option<&mut Entry<T>> {
        self.slab
            .get_mut(ticket.index as usize)
            .filter(|entry| entry.generation == ticket.generation && entry.state != State::Free)
    }

    /// Takes a waiting entry out of its queue and returns its class.
    fn unlink(&mut self, index: u32) -> usize {
        let Entry { class, previous, next, .. } = self.slab[index as usize];
        let class = usize::from(class);
        if previous == NONE {
            self.classes[class].head = next;
        } else {
            self.slab[previous as usize].next = next;
        }
        if next == NONE {
            self.classes[class].tail = previous;
        } else {
            self.slab[next as usize].previous = previous;
        }
        self.classes[class].counts.queued -= 1;
        class
    }

    fn recycle(&mut self, index: u32) -> Option<T> {
        let entry = &mut self.slab[index as usize];
        entry.state = State::Free;
        entry.generation = entry.generation.wrapping_add(1);
        entry.next = std::mem::replace(&mut self.free, index);
        entry.waiter.take()
    }
}
