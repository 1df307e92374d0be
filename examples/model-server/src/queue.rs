//! Who runs and who waits: slots, KV cache, and a line, first come first served. No clock, no I/O, no lock.

use std::collections::BTreeMap;

/// `T` is how a waiting request is told that it may go on.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    slots: usize,
    kv_tokens: u64,
    max_waiting: usize,
    running: usize,
    used: u64,
    next_ticket: u64,
    waiting: BTreeMap<u64, (u64, T)>, // by ticket, oldest first
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It runs.
    Runs,
    /// It waits with this ticket.
    Waits(u64),
    /// The line is full.
    Full,
}

impl<T> Queue<T> {
    pub(crate) const fn new(slots: usize, kv_tokens: u64, max_waiting: usize) -> Self {
        Self { slots, kv_tokens, max_waiting, running: 0, used: 0, next_ticket: 0, waiting: BTreeMap::new() }
    }

    /// Lets a request of `tokens` run, or has it wait behind all others. O(log n).
    pub(crate) fn enter(&mut self, tokens: u64, waiter: impl FnOnce() -> T) -> Entry {
        if self.waiting.is_empty() && self.fits(tokens) {
            self.start(tokens);
            return Entry::Runs;
        }
        if self.waiting.len() >= self.max_waiting {
            return Entry::Full;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.insert(ticket, (tokens, waiter()));
        Entry::Waits(ticket)
    }

    /// Takes back what a running request held.
    pub(crate) const fn leave(&mut self, tokens: u64) {
        self.running -= 1;
        self.used -= tokens;
    }

    /// Takes a request out of the line; `None` if it is not (any longer) in it. O(log n).
    pub(crate) fn cancel(&mut self, ticket: u64) -> Option<T> {
        self.waiting.remove(&ticket).map(|(_, waiter)| waiter)
    }

    /// Starts the first in line if it fits: to be called until `None` after `leave` and `cancel`. O(log n).
    pub(crate) fn grant(&mut self) -> Option<(u64, T)> {
        let (_, &(tokens, _)) = self.waiting.first_key_value()?;
        if !self.fits(tokens) {
            return None; // the first in line holds up the rest, or a large request would starve
        }
        self.start(tokens);
        self.waiting.pop_first().map(|(_, granted)| granted)
    }

    const fn fits(&self, tokens: u64) -> bool {
        self.running < self.slots && tokens <= self.kv_tokens - self.used
    }

    const fn start(&mut self, tokens: u64) {
        self.running += 1;
        self.used += tokens;
    }

    pub(crate) const fn running(&self) -> usize {
        self.running
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) const fn used(&self) -> u64 {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_come_first_served_within_slots() {
        let mut queue = Queue::new(1, 100, 2);
        assert_eq!(queue.enter(10, || 'a'), Entry::Runs);
        assert_eq!(queue.enter(10, || 'b'), Entry::Waits(0));
        assert_eq!(queue.enter(10, || 'c'), Entry::Waits(1));
        assert_eq!(queue.enter(10, || 'd'), Entry::Full);
        assert_eq!(queue.grant(), None);
        queue.leave(10);
        assert_eq!(queue.grant(), Some((10, 'b')));
        assert_eq!(queue.grant(), None);
        assert_eq!((queue.running(), queue.waiting(), queue.used()), (1, 1, 10));
    }

    #[test]
    fn the_kv_cache_is_never_overdrawn_and_the_large_are_not_overtaken() {
        let mut queue = Queue::new(9, 100, 9);
        assert_eq!(queue.enter(60, || 'a'), Entry::Runs);
        assert_eq!(queue.enter(50, || 'b'), Entry::Waits(0));
        assert_eq!(queue.enter(10, || 'c'), Entry::Waits(1));
        assert_eq!(queue.grant(), None);
        assert_eq!(queue.cancel(0), Some('b')); // its place in line goes on to the next
        assert_eq!(queue.grant(), Some((10, 'c')));
        assert_eq!(queue.cancel(1), None);
        assert_eq!(queue.used(), 70);
    }
}
