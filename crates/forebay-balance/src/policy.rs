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
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn held_requests_are_shared_exactly_by_weight() {
        let mut picker = Picker::new([(3, None), (2, None), (1, None)]);
        for _ in 0..600 {
            picker.pick(&[]).expect("open");
        }
        assert_eq!(picker.slots.iter().map(|slot| slot.in_flight).collect::<Vec<_>>(), [300, 200, 100]);
    }

    #[test]
    fn an_equal_fleet_is_round_robin_also_when_idle() {
        let mut picker = Picker::new([(1, None); 3]);
        let order: Vec<_> = (0..6)
            .map(|_| {
                let index = picker.pick(&[]).expect("open");
                picker.release(index);
                index
            })
            .collect();
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn drained_full_and_excluded_are_told_apart() {
        let mut picker = Picker::new([(0, None), (1, Some(1)), (1, None)]);
        assert_eq!(picker.pick(&[2]), Ok(1));
        assert_eq!(picker.pick(&[2]), Err(PickError::AtCapacity));
        assert_eq!(picker.pick(&[1, 2]), Err(PickError::NoEndpoint));
        assert_eq!(Picker::default().pick(&[]), Err(PickError::NoEndpoint));
        let mut huge = Picker::new([(u16::MAX, None)]);
        huge.slots[0].in_flight = u32::MAX - 1;
        assert_eq!(huge.pick(&[]), Ok(0), "no overflow");
    }

    proptest! {
        #[test]
        fn every_pick_is_the_naive_one(
            weights in prop::collection::vec(0..=20_u16, 1..8),
            steps in prop::collection::vec((any::<bool>(), 0..8_usize), 0..200),
        ) {
            let mut picker = Picker::new(weights.iter().map(|weight| (*weight, Some(9))));
            let mut model: Vec<(u32, usize)> = vec![(0, 0); weights.len()]; // in flight, step of the last pick
            for (step, (release, index)) in steps.into_iter().enumerate() {
                if release {
                    if let Some(slot) = model.get_mut(index).filter(|slot| slot.0 > 0) {
                        slot.0 -= 1;
                        picker.release(index);
                    }
                    continue;
                }
                let expected = (0..weights.len())
                    .filter(|i| weights[*i] > 0 && model[*i].0 < 9)
                    .min_by(|a, b| {
                        let key = |i: usize| f64::from(2 * model[i].0 + 1) / f64::from(weights[i]);
                        key(*a).total_cmp(&key(*b)).then(model[*a].1.cmp(&model[*b].1))
                    });
                let got = picker.pick(&[]);
                prop_assert_eq!(got.ok(), expected);
                if let Ok(index) = got {
                    model[index] = (model[index].0 + 1, step + 1);
                }
            }
        }
    }
}
