//! Free seats that are taken and given back by atomic operations alone, while nobody waits.
//!
//! Whoever holds the lock of the scheduler has shut the gate before, and opens it again at the end with what is then free
//! (`Shared::lock`). In between, an exchange of the one word admits or releases; as it fails once the gate is shut, each
//! exchange either is seen by the next who locks, or goes to the lock itself. So no seat is given twice, and whoever
//! begins to wait, which is done under the lock, misses none that comes free.

use std::sync::atomic::AtomicU64 as Turn;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::policy::{CLASSES, Room};
use crate::sync::AtomicU64;

#[derive(Debug)]
pub(crate) struct Gate {
    room: AtomicU64,
    rows: [Row; CLASSES],
}

/// Seats of a class that were given back here since the start: after exchanges that ended well, and after others. How
/// many were taken follows from that and from what is held (`State::count`), so that taking one counts nothing.
#[derive(Debug)]
struct Row {
    done: AtomicU64,
    failed: AtomicU64,
    /// Whose turn it is to be timed: about one in [`SAMPLE`], as it is no exchange and may miss some. Nothing depends on
    /// it, so it is not for the model checkers.
    turn: Turn,
}

/// Of so many uncontended requests one is timed.
pub(crate) const SAMPLE: u64 = 16;

impl Gate {
    /// A gate that is shut.
    pub(crate) fn new() -> Self {
        let row = |_| Row { done: AtomicU64::new(0), failed: AtomicU64::new(0), turn: Turn::new(0) };
        Self { room: AtomicU64::new(Room::SHUT.bits()), rows: std::array::from_fn(row) }
    }

    /// Takes a seat, and says whether it is one of those to be timed; `None`: ask the scheduler.
    #[inline]
    pub(crate) fn admit(&self, class: usize) -> Option<bool> {
        let row = self.rows.get(class)?;
        let take = |room| Room::from_bits(room).take(class).map(Room::bits);
        self.room.fetch_update(AcqRel, Acquire, take).ok()?;
        let turn = row.turn.load(Relaxed).wrapping_add(1);
        row.turn.store(turn, Relaxed);
        Some(turn % SAMPLE == 0)
    }

    /// Gives a seat back; false: give it to the scheduler.
    #[inline]
    pub(crate) fn release(&self, class: usize, done: bool) -> bool {
        let Some(row) = self.rows.get(class) else { return false };
        let give = |room| Room::from_bits(room).give(class).map(Room::bits);
        let given = self.room.fetch_update(AcqRel, Acquire, give).is_ok();
        if given {
            let count = if done { &row.done } else { &row.failed };
            count.fetch_add(1, Relaxed);
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

    /// How many of each class were given back here since the start: after exchanges that ended well, and after others.
    pub(crate) fn counts(&self) -> [(u64, u64); CLASSES] {
        self.rows.each_ref().map(|row| (row.done.load(Relaxed), row.failed.load(Relaxed)))
    }
}
