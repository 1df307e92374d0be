/// How many waiters one operation settles at most, so that a lock is never held for long.
const BATCH: usize = 32;

/// What an operation did to others: the waiters to be woken, outside the lock. While [`more`](Self::more) says so there
/// is more to do: wake these, then `settle` again.
#[derive(Debug)]
pub(crate) struct Effects<T> {
    wake: [Option<T>; BATCH],
    len: usize,
    more: bool,
}

impl<T> Effects<T> {
    pub(crate) const fn new() -> Self {
        Self { wake: [const { None }; BATCH], len: 0, more: false }
    }

    /// Notes a waiter; call only while there is [`room`](Self::room).
    pub(super) fn push(&mut self, waiter: Option<T>) {
        if let Some(place) = self.wake.get_mut(self.len) {
            *place = waiter;
            self.len += 1;
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

    /// The waiters that were granted a seat or refused.
    pub(crate) fn into_waiters(self) -> impl Iterator<Item = T> {
        self.wake.into_iter().take(self.len).flatten()
    }
}
