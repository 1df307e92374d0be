/// How many waiters one operation settles at most, so that a lock is never held for long.
const BATCH: usize = 32;

/// What an operation did to others: the waiters to be woken, outside the lock. While [`more`](Self::more) says so there
/// is more to do: wake these, then `settle` again.
#[derive(Debug)]
pub(crate) struct Effects<T> {
    /// Almost always there is one at most: a seat comes free, and one is granted.
    first: Option<T>,
    others: Vec<T>,
    len: usize,
    more: bool,
}

impl<T> Effects<T> {
    pub(crate) const fn new() -> Self {
        Self { first: None, others: Vec::new(), len: 0, more: false }
    }

    /// Notes a waiter; call only while there is [`room`](Self::room).
    pub(super) fn push(&mut self, waiter: Option<T>) {
        self.len += 1;
        match waiter {
            Some(waiter) if self.first.is_none() => self.first = Some(waiter),
            waiter => self.others.extend(waiter),
        }
    }

    pub(super) const fn room(&self) -> bool {
        self.len < BATCH
    }

    pub(super) const fn set_more(&mut self) {
        self.more = true;
    }

    /// Whether `settle` must be called again.
    pub(crate) const fn more(&self) -> bool {
        self.more
    }

    /// Whether nobody is to be woken.
    pub(crate) const fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The waiters that were granted a seat or refused, in that order.
    pub(crate) fn into_waiters(self) -> impl Iterator<Item = T> {
        self.first.into_iter().chain(self.others)
    }
}
