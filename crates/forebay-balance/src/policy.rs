//! The pure core: which endpoint has the least work for its power, and who may have its places. No I/O, no clock.

use forebay_core::Places;

mod tree;

use tree::Tree;

/// One endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) weight: u16,
    pub(crate) max_concurrency: Option<u32>,
    pub(crate) in_flight: u32,
    pub(crate) picks: u64,
    last_pick: u64,
    /// Left out of the pick that is under way.
    excluded: bool,
}

impl Slot {
    /// How many more requests it may get; `None`: any number.
    fn room(&self) -> Option<u32> {
        if self.weight == 0 { Some(0) } else { self.max_concurrency.map(|max| max.saturating_sub(self.in_flight)) }
    }

    fn is_open(&self) -> bool {
        !self.excluded && self.room() != Some(0)
    }
}

/// Why nothing was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PickError {
    /// Every endpoint has the weight 0, or was excluded.
    NoEndpoint,
    /// Those that may be picked are full, or what they have free is reserved.
    AtCapacity,
}

/// By what right a place is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// By none: only a place that nobody has reserved.
    Open,
    /// By a reservation, which is used up whatever comes of the pick.
    Reserved,
}

/// Picks by weighted least connections, and keeps places for those who reserved one.
///
/// A reservation is of no endpoint: it counts against all places together. What is reserved never exceeds what is free,
/// unless a bound was lowered or a weight set to 0 since: so a pick by reservation finds room.
#[derive(Debug, Default)]
pub(crate) struct Picker {
    slots: Vec<Slot>,
    tree: Tree,
    ticket: u64,
    /// The sum of [`Slot::room`] where there is a bound.
    free: u64,
    /// Endpoints with room for any number.
    unbounded: usize,
    reserved: u64,
}

impl Picker {
    pub(crate) fn new(endpoints: impl IntoIterator<Item = (u16, Option<u32>)>) -> Self {
        let slot = |(weight, max_concurrency)| Slot {
            weight,
            max_concurrency,
            in_flight: 0,
            picks: 0,
            last_pick: 0,
            excluded: false,
        };
        let slots: Vec<_> = endpoints.into_iter().map(slot).collect();
        let mut picker = Self { tree: Tree::new(&slots), slots, ..Self::default() };
        for slot in &picker.slots {
            match slot.room() {
                Some(room) => picker.free += u64::from(room),
                None => picker.unbounded += 1,
            }
        }
        picker
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Places that are free and not reserved; `u64::MAX`: any number. O(1).
    pub(crate) const fn open(&self) -> u64 {
        if self.unbounded > 0 { u64::MAX } else { self.free.saturating_sub(self.reserved) }
    }

    /// O(endpoints).
    pub(crate) fn places(&self) -> Places {
        let mut places = Places { open: u32::try_from(self.open()).unwrap_or(u32::MAX), ..Places::default() };
        for slot in self.slots.iter().filter(|slot| slot.weight > 0) {
            places.endpoints += 1;
            places.weight += u64::from(slot.weight);
            places.total = places.total.saturating_add(slot.max_concurrency.unwrap_or(u32::MAX));
        }
        places
    }

    /// Reserves a place, if one is open. O(1).
    pub(crate) fn reserve(&mut self) -> bool {
        let open = self.open() > 0;
        self.reserved += u64::from(open);
        open
    }

    /// Gives a reservation up. O(1).
    pub(crate) fn unreserve(&mut self) {
        debug_assert!(self.reserved > 0);
        self.reserved = self.reserved.saturating_sub(1);
    }

    /// Takes a place at the endpoint with the least `(2 in_flight + 1) / weight`, compared exactly; the least recently
    /// picked of equals. Weighted least connections as in nginx and LVS, but with half a request added: so that shares
    /// follow the weights also when little is in flight (it makes the counts a Webster apportionment).
    ///
    /// O(log endpoints) for each that is excluded, and once more; O(endpoints) where nothing can be picked.
    pub(crate) fn pick(&mut self, claim: Claim, excluded: &[usize]) -> Result<usize, PickError> {
        let entitled = match claim {
            Claim::Open => self.open() > 0,
            Claim::Reserved => {
                self.unreserve();
                true
            }
        };
        self.exclude(excluded, true);
        let best = if entitled { self.tree.best(&self.slots) } else { None };
        let usable = || self.slots.iter().any(|slot| slot.weight > 0 && !slot.excluded);
        let picked = best.ok_or_else(|| if usable() { PickError::AtCapacity } else { PickError::NoEndpoint });
        self.exclude(excluded, false);
        let index = picked?;
        self.ticket += 1;
        let ticket = self.ticket;
        self.change(index, |slot| {
            slot.last_pick = ticket;
            slot.in_flight += 1;
            slot.picks += 1;
        });
        Ok(index)
    }

    fn exclude(&mut self, indices: &[usize], excluded: bool) {
        for &index in indices {
            self.slots[index].excluded = excluded;
            self.tree.update(&self.slots, index);
        }
    }

    /// Gives the place at `from` back and takes one elsewhere, in one step, so that nobody gets in between; on an error
    /// all is as it was. It needs no reservation: what it gives back is open, unless that endpoint was drained or its
    /// bound lowered, and then those who have reserved go first. As [`pick`](Self::pick).
    pub(crate) fn shift(&mut self, from: usize, excluded: &[usize]) -> Result<usize, PickError> {
        self.release(from);
        let picked = self.pick(Claim::Open, excluded);
        if picked.is_err() {
            self.change(from, |slot| slot.in_flight += 1);
        }
        picked
    }

    /// Gives a place back. O(log endpoints).
    pub(crate) fn release(&mut self, index: usize) {
        debug_assert!(self.slots[index].in_flight > 0);
        self.change(index, |slot| slot.in_flight = slot.in_flight.saturating_sub(1));
    }

    /// Changes an endpoint, and with it the sums and the tree. O(log endpoints).
    pub(crate) fn change(&mut self, index: usize, change: impl FnOnce(&mut Slot)) {
        let slot = &mut self.slots[index];
        match slot.room() {
            Some(room) => self.free -= u64::from(room),
            None => self.unbounded -= 1,
        }
        change(slot);
        match slot.room() {
            Some(room) => self.free += u64::from(room),
            None => self.unbounded += 1,
        }
        self.tree.update(&self.slots, index);
    }
}

#[cfg(test)]
mod tests;
