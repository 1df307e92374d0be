//! Places of pools: reserving them, and counting them.

use forebay_core::{Class, Places};

use super::ask::Claim;
use super::picker::Picker;

impl Picker {
    /// Reserves a place in the first pool of the class's route that has one open for it. O(pools of the route).
    pub(crate) fn reserve(&mut self, class: Class) -> Option<Claim> {
        let mut station = 0;
        loop {
            let (pool, guest) = self.routes.of(class, station)?;
            if self.admits(pool, guest, class) {
                self.pools[pool].reserved += 1;
                if guest.is_some() {
                    self.pools[pool].borrowed[class.index()] += 1;
                }
                return Some(Claim::new(pool, guest.map(|_| class)));
            }
            station += 1;
        }
    }

    /// Gives a reservation up. O(1).
    pub(crate) fn unreserve(&mut self, claim: Claim) {
        let pool = &mut self.pools[claim.pool()];
        debug_assert!(pool.reserved > 0);
        let open = pool.open();
        pool.reserved = pool.reserved.saturating_sub(1);
        if let Some(class) = claim.guest {
            let borrowed = &mut pool.borrowed[class.index()];
            *borrowed = borrowed.saturating_sub(1);
        }
        self.opened |= pool.open() > open || claim.guest.is_some();
    }

    /// The pools of a class, or all. Places of pools that it only borrows in are left out. O(endpoints).
    pub(crate) fn places(&self, class: Option<Class>) -> Places {
        let mut places = Places::default();
        let mut open = 0_u64;
        let all: Vec<usize> = (0..self.pools.len()).collect();
        for &index in class.map_or(&all, |class| &self.routes.0[class.index()].pools) {
            let pool = &self.pools[index];
            for slot in pool.members.iter().flatten().map(|index| &self.slots[*index as usize]) {
                if slot.open {
                    places.endpoints += 1;
                    places.weight += u64::from(slot.base);
                    places.total = places.total.saturating_add(slot.max_concurrency.unwrap_or(u32::MAX));
                }
            }
            open = open.saturating_add(pool.open());
        }
        places.open = u32::try_from(open).unwrap_or(u32::MAX);
        places
    }
}
