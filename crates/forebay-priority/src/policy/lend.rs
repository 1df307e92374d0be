//! While nobody waits, the free seats are lent: whoever comes may take one without asking here.

use super::room::{CLASSES, MOST, Room};
use super::scheduler::{Scheduler, Taken};
use super::tenants::NOBODY;
use super::tick::Tick;

impl<T, P> Scheduler<T, P> {
    /// The seats that [`offer`](Self::offer) would give to requests for one seat without a deadline, in whatever order
    /// they come; until they are [taken back](Self::take_back), nothing may be asked of the scheduler that has to do with
    /// seats. O(classes).
    pub(crate) fn lend(&self) -> Room {
        if self.waiting > 0 {
            return Room::CROWDED;
        }
        self.free().unwrap_or(Room::SHUT)
    }

    fn free(&self) -> Option<Room> {
        let counted = self.draining || self.pace.cold() || self.tenants.bounded();
        if counted || self.limit > MOST || self.classes.len() > CLASSES {
            return None;
        }
        let mut room = Room::open(self.limit.checked_sub(self.in_flight)?);
        for (index, class) in self.classes.iter().enumerate() {
            // A time to hold has to be noted, and a headroom depends on what others hold.
            if class.rule.max_hold.is_some() || class.ceiling < self.limit {
                return None;
            }
            room = room.with(index, class.cap.min(self.limit).checked_sub(class.counts.in_flight)?);
        }
        Some(room)
    }

    /// Ends a loan: what is not left of it is in flight. For each class, how many seats more than when it was lent
    /// (fewer: modulo 2^64). O(classes).
    pub(crate) fn take_back(&mut self, left: Room) -> [u64; CLASSES] {
        let mut more = [0; CLASSES];
        self.in_flight = self.limit - left.all();
        for (index, class) in self.classes.iter_mut().enumerate() {
            let before = std::mem::replace(&mut class.counts.in_flight, class.cap.min(self.limit) - left.of(index));
            more[index] = (class.counts.in_flight as u64).wrapping_sub(before as u64); // at most CLASSES, or none was lent
        }
        more
    }

    /// Counts requests of a class that took lent seats, and those that gave them back and had ended well. O(1).
    pub(crate) fn count_lent(&mut self, class: usize, taken: u64, done: u64) {
        let class = &mut self.classes[class];
        class.counts.offered += taken;
        class.counts.admitted += taken;
        class.admitted(taken);
        class.counts.done += done;
        class.arrivals.count(u32::try_from(taken).unwrap_or(u32::MAX));
    }
}

impl Taken {
    /// Seats that nobody waited for, and that may be held for as long as they are needed.
    pub(crate) const fn bare(class: u8, cost: u32, granted: Tick) -> Self {
        Self { class, account: None, tenant: NOBODY, cost, charged: 0, granted, held: None }
    }

    /// Whether it is no more than [`bare`](Self::bare) makes.
    pub(crate) const fn is_bare(&self) -> bool {
        self.account.is_none() && self.held.is_none() && self.tenant == NOBODY
    }

    /// Whether it may be given back to a loan: one seat, and nothing to be learned from how long it was held.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.is_bare() && self.cost == 1 && self.granted == Tick::NEVER
    }
}
