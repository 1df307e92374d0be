//! The choice of an endpoint, by a key or by the policy.

use forebay_core::AffinityKey;

use super::ask::Ask;
use super::picker::Picker;
use super::slot::Slot;
use super::time::Time;
use super::weight::UNIT;
use crate::affinity::{bound, rendezvous::score};

/// All gateways have the same, so that a key means the same endpoint to them.
const AFFINITY_SEED: u64 = 0;

impl Picker {
    /// The endpoint that its key is pinned to, or that has seen most of its prompt, or that of its key, or else that of the
    /// policy; and whether it is not the policy's.
    pub(super) fn choose(&mut self, pool: usize, ask: &Ask<'_>, excluded: &[usize]) -> Option<(usize, bool)> {
        if (ask.key.is_some() || !ask.prefix.is_empty())
            && let Some(index) = self.choose_by_affinity(pool, ask, excluded)
        {
            return Some((index, true));
        }
        Some((self.choose_by_policy(pool)?, false))
    }

    #[inline]
    pub(super) fn choose_by_policy(&mut self, pool: usize) -> Option<usize> {
        self.pools[pool].choose(self.settings.policy, &mut self.random, &self.slots).map(|index| index as usize)
    }

    fn choose_by_affinity(&self, pool: usize, ask: &Ask<'_>, excluded: &[usize]) -> Option<usize> {
        let pinned = || self.choose_at_home(pool, self.pins.home(ask.key?)?, excluded);
        pinned().or_else(|| match ask.prefix {
            [] => self.choose_by_key(pool, ask.key?, excluded),
            prefix => self.choose_by_prefix(pool, prefix, ask.key, excluded),
        })
    }

    /// The one that was sent most of the prompt's beginning; of equals the key's. `None`: none has more than most others.
    /// O(endpoints + depth).
    fn choose_by_prefix(&self, pool: usize, prefix: &[u64], key: Option<u64>, excluded: &[usize]) -> Option<usize> {
        let all = self.pools[pool].members.iter().flatten().map(|index| *index as usize);
        let fits = self.fits(pool, excluded);
        self.prefixes.matches(prefix).best(all, fits, |index| key.map_or(0.0, |key| self.score(key, index)))
    }

    /// The first of the key's own order that has room and no more than its bounded share. O(endpoints).
    fn choose_by_key(&self, pool: usize, key: u64, excluded: &[usize]) -> Option<usize> {
        let all = self.pools[pool].members.iter().flatten().map(|index| *index as usize);
        let fits = self.fits(pool, excluded);
        let scored = all.filter(|index| fits(*index)).map(|index| (self.score(key, index), index));
        scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, index)| index)
    }

    fn score(&self, key: u64, index: usize) -> f64 {
        let slot = &self.slots[index];
        score(AFFINITY_SEED, AffinityKey(key), slot.id_hash, slot.base)
    }

    /// Which endpoints take a request more and have no more than their bounded share. O(endpoints) once.
    fn fits<'a>(&'a self, pool: usize, excluded: &'a [usize]) -> impl Fn(usize) -> bool + 'a {
        let pool = &self.pools[pool];
        let load = |slot: &Slot| slot.load_units() / u64::from(UNIT);
        let slots = pool.members.iter().flatten().map(|index| &self.slots[*index as usize]);
        let total = slots.filter(|slot| slot.open).map(load).sum();
        move |index| {
            let slot = &self.slots[index];
            let fits = slot.open && slot.takes_more() && !excluded.contains(&index);
            fits && bound::within(load(slot), slot.weight, pool.weight, total)
        }
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
