//! Free seats that are taken and given back by atomic operations alone, while nobody waits.
//!
//! Whoever holds the lock of the scheduler has shut the gate before, and opens it again at the end with what is then free
//! (`Shared::lock`). In between, an exchange of the one word admits or releases; as it fails once the gate is shut, each
//! exchange either is seen by the next who locks, or goes to the lock itself. So no seat is given twice, and whoever
//! begins to wait, which is done under the lock, misses none that comes free.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::policy::{CLASSES, Room};
use crate::sync::AtomicU64;

#[derive(Debug)]
pub(crate) struct Gate {
    room: AtomicU64,
    rows: [Row; CLASSES],
}

/// Requests of a class since the start: that came through, and that ended well.
#[derive(Debug)]
struct Row {
    passed: AtomicU64,
    done: AtomicU64,
}

impl Gate {
    /// A gate that is shut.
    pub(crate) fn new() -> Self {
        let row = |_| Row { passed: AtomicU64::new(0), done: AtomicU64::new(0) };
        Self { room: AtomicU64::new(Room::SHUT.bits()), rows: std::array::from_fn(row) }
    }

    /// Takes a seat, and says how many of its class have done so before; `None`: ask the scheduler.
    #[inline]
    pub(crate) fn admit(&self, class: usize) -> Option<u64> {
        let row = self.rows.get(class)?;
        let take = |room| Room::from_bits(room).take(class).map(Room::bits);
        self.room.fetch_update(AcqRel, Acquire, take).ok()?;
        Some(row.passed.fetch_add(1, Relaxed))
    }

    /// Gives a seat back; false: give it to the scheduler.
    pub(crate) fn release(&self, class: usize, done: bool) -> bool {
        let Some(row) = self.rows.get(class) else { return false };
        let give = |room| Room::from_bits(room).give(class).map(Room::bits);
        let given = self.room.fetch_update(AcqRel, Acquire, give).is_ok();
        if given && done {
            row.done.fetch_add(1, Relaxed);
        }
        given
    }

    /// Whether somebody waited when the lock was last let go: a hint, to go to the queue at once.
    pub(crate) fn is_crowded(&self) -> bool {
        self.room.load(Relaxed) == Room::CROWDED.bits()
    }

    /// Shuts it, and says what is left; `None` if it was shut. Call under the lock.
    pub(crate) fn shut(&self) -> Option<Room> {
        // Only under the lock it is opened: if it is shut, it stays so.
        let open = Room::from_bits(self.room.load(Relaxed)).is_open();
        open.then(|| Room::from_bits(self.room.swap(Room::SHUT.bits(), AcqRel)))
    }

    /// Opens it with what is free, or leaves it shut. Call under the lock, after [`shut`](Self::shut).
    pub(crate) fn open(&self, room: Room) {
        self.room.store(room.bits(), Release);
    }

    /// How many of each class have come through and how many of them ended well, since the start.
    pub(crate) fn counts(&self) -> [(u64, u64); CLASSES] {
        self.rows.each_ref().map(|row| (row.passed.load(Relaxed), row.done.load(Relaxed)))
    }
}
