//! The pure core: which endpoint has the least work for its power. No I/O, no clock.

/// One endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) weight: u16,
    pub(crate) max_concurrency: Option<u32>,
    pub(crate) in_flight: u32,
    pub(crate) picks: u64,
    last_pick: u64,
}

/// Why nothing was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PickError {
    /// Every endpoint has the weight 0, or was excluded.
    NoEndpoint,
    /// Those that may be picked are full.
    AtCapacity,
}

/// Picks by weighted least connections.
#[derive(Debug, Default)]
pub(crate) struct Picker {
    pub(crate) slots: Vec<Slot>,
    ticket: u64,
}

impl Picker {
    pub(crate) fn new(endpoints: impl IntoIterator<Item = (u16, Option<u32>)>) -> Self {
        let slot = |(weight, max_concurrency)| Slot { weight, max_concurrency, in_flight: 0, picks: 0, last_pick: 0 };
        Self { slots: endpoints.into_iter().map(slot).collect(), ticket: 0 }
    }

    /// Takes a place at the endpoint with the least `(2 in_flight + 1) / weight`, compared exactly; the least recently
    /// picked of equals. Weighted least connections as in nginx and LVS, but with half a request added: so that shares
    /// follow the weights also when little is in flight (it makes the counts a Webster apportionment). O(endpoints).
    pub(crate) fn pick(&mut self, excluded: &[usize]) -> Result<usize, PickError> {
        let mut best: Option<(usize, u128, u128)> = None;
        let mut reason = PickError::NoEndpoint;
        for (index, slot) in self.slots.iter().enumerate() {
            if slot.weight == 0 || excluded.contains(&index) {
                continue;
            }
            if slot.max_concurrency.is_some_and(|max| slot.in_flight >= max) {
                reason = PickError::AtCapacity;
                continue;
            }
            let (work, weight) = (2 * u128::from(slot.in_flight) + 1, u128::from(slot.weight));
            let better = match best {
                None => true,
                Some((other, other_work, other_weight)) => {
                    let (a, b) = (work * other_weight, other_work * weight);
                    a < b || (a == b && slot.last_pick < self.slots[other].last_pick)
                }
            };
            if better {
                best = Some((index, work, weight));
            }
        }
        let (index, ..) = best.ok_or(reason)?;
        self.ticket += 1;
        let slot = &mut self.slots[index];
        slot.last_pick = self.ticket;
        slot.in_flight += 1;
        slot.picks += 1;
        Ok(index)
    }

    /// Gives a place back.
    pub(crate) fn release(&mut self, index: usize) {
        debug_assert!(self.slots[index].in_flight > 0);
        self.slots[index].in_flight = self.slots[index].in_flight.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests;
