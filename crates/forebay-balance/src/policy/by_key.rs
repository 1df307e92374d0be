//! The choice of an endpoint, by a key or by the policy.

use forebay_core::AffinityKey;

use super::picker::{Picker, next};
use super::time::Time;
use super::weight::UNIT;
use crate::affinity::{bound, rendezvous::score};

/// All gateways have the same, so that a key means the same endpoint to them.
const AFFINITY_SEED: u64 = 0;

impl Picker {
    /// The endpoint of its key, or else that of the policy; and whether it is the key's.
    #[inline]
    pub(super) fn choose(&mut self, pool: usize, key: Option<u64>, excluded: &[usize]) -> Option<(usize, bool)> {
        if let Some(key) = key {
            let pinned = self.pins.home(key).and_then(|home| self.choose_at_home(pool, home, excluded));
            if let Some(index) = pinned.or_else(|| self.choose_by_key(pool, key, excluded)) {
                return Some((index, true));
            }
        }
        let random = &mut self.random;
        let chosen = self.pools[pool].choose(self.settings.policy, || next(random))?;
        Some((chosen as usize, false))
    }

    /// The first of the key's own order that has room and no more than its bounded share. O(endpoints).
    fn choose_by_key(&self, pool: usize, key: u64, excluded: &[usize]) -> Option<usize> {
        let pool = &self.pools[pool];
        let open =
            || pool.members.iter().flatten().map(|index| *index as usize).filter(|index| self.slots[*index].open);
        let load = |index: usize| self.slots[index].load_units() / u64::from(UNIT);
        let total = open().map(load).sum();
        let score = |index: usize| {
            let slot = &self.slots[index];
            score(AFFINITY_SEED, AffinityKey(key), slot.id_hash, slot.base)
        };
        let fits = |index: &usize| {
            let slot = &self.slots[*index];
            slot.takes_more()
                && bound::within(load(*index), slot.weight, pool.weight, total)
                && !excluded.contains(index)
        };
        let scored = open().filter(fits).map(|index| (score(index), index));
        scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, index)| index)
    }

    /// The one with the least load where the key is pinned. O(endpoints).
    fn choose_at_home(&self, pool: usize, home: u64, excluded: &[usize]) -> Option<usize> {
        let here = self.pools[pool].members.iter().flatten().map(|index| *index as usize);
        let open = here.filter(|index| {
            let slot = &self.slots[*index];
            self.home_of(*index) == home && slot.open && slot.takes_more() && !excluded.contains(index)
        });
        open.min_by(|a, b| {
            let (a, b) = (&self.slots[*a], &self.slots[*b]);
            let work = |of: u64, weight: u32| u128::from(of) * u128::from(weight.max(1));
            work(a.load_units(), b.weight).cmp(&work(b.load_units(), a.weight)).then(a.last_pick.cmp(&b.last_pick))
        })
    }

    pub(super) fn home_of(&self, index: usize) -> u64 {
        let slot = &self.slots[index];
        if self.settings.pin.is_some_and(|pin| pin.to_group) { slot.group_hash } else { slot.id_hash }
    }

    /// Pins a key to where its request goes, unless it is pinned where there are endpoints that take requests; whether
    /// the request counts for a pin.
    pub(super) fn pin(&mut self, key: u64, index: usize, time: &mut Time) -> bool {
        if self.settings.pin.is_none() {
            return false;
        }
        let home = self.home_of(index);
        let lives = |home| (0..self.slots.len()).any(|slot| self.slots[slot].open && self.home_of(slot) == home);
        let anew = self.pins.home(key).is_none_or(|known| known != home && !lives(known));
        self.pins.take(key, home, anew, time.now())
    }
}
