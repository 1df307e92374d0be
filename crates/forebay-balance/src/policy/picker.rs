use std::collections::BTreeSet;
use std::time::Instant;

use forebay_core::Class;

use super::PickError;
use super::ask::{Ask, Claim, New, PickReason, Picked, Settings};
use super::foreign::Foreign;
use super::outlier::EjectCause;
use super::pins::Pins;
use super::pool::{Policy, Pool};
use super::routes::{Guest, Routes};
use super::slot::{Check, Slot};
use super::time::Time;
use super::weight::Starting;
use crate::affinity::PrefixTable;

/// Picks, and keeps places for those who reserved one.
///
/// A reservation is of a pool, not of an endpoint. What is reserved there never exceeds what is free, unless a bound was
/// lowered or an endpoint closed since: so a pick by reservation finds room.
#[derive(Debug)]
pub(crate) struct Picker {
    pub(super) settings: Settings,
    pub(super) routes: Routes,
    pub(super) slots: Vec<Slot>,
    /// Slots that nobody uses.
    vacant: Vec<usize>,
    gone: Vec<usize>,
    pub(super) pools: Vec<Pool>,
    ticket: u64,
    /// When time alone changes which slot.
    due: BTreeSet<(Instant, usize)>,
    /// Places have come free since [`take_opened`](Self::take_opened).
    pub(super) opened: bool,
    /// Something else has happened that others are to be told: endpoints are gone, or were ejected, or what is
    /// [`due`](Self::due) has changed.
    pub(super) news: bool,
    /// Ejections for errors since [`take_ejected`](Self::take_ejected).
    pub(super) ejected: [u64; EjectCause::ALL.len()],
    pub(super) random: u64,
    pub(super) pins: Pins,
    /// Who was sent which beginnings of prompts.
    pub(super) prefixes: PrefixTable,
    /// From when the windows of error counts are numbered.
    pub(super) epoch: Instant,
}

impl Picker {
    pub(crate) fn new(settings: Settings, routes: Routes, pools: usize, seed: u64, now: Instant) -> Self {
        let pools = (0..pools.max(1)).map(|_| Pool::new(settings.policy)).collect();
        Self {
            settings,
            routes,
            slots: Vec::new(),
            vacant: Vec::new(),
            gone: Vec::new(),
            pools,
            ticket: 0,
            due: BTreeSet::new(),
            opened: false,
            news: false,
            ejected: [0; EjectCause::ALL.len()],
            random: seed | 1,
            pins: Pins::default(),
            prefixes: PrefixTable::new(),
            epoch: now,
        }
    }

    pub(crate) fn slot(&self, index: usize) -> &Slot {
        &self.slots[index]
    }

    pub(crate) fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// When [`advance`](Self::advance) has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Whether places have come free since it was last asked.
    #[inline]
    pub(crate) const fn take_opened(&mut self) -> bool {
        std::mem::replace(&mut self.opened, false)
    }

    /// How many endpoints were ejected for errors since this was last asked, by [`EjectCause`].
    pub(crate) fn take_ejected(&mut self) -> [u64; EjectCause::ALL.len()] {
        self.news = !self.gone.is_empty();
        std::mem::take(&mut self.ejected)
    }

    /// Does what time alone brings.
    pub(crate) fn advance(&mut self, now: Instant) {
        while let Some((at, index)) = self.due.first().copied()
            && at <= now
        {
            self.change(index, now, |slot| slot.tick(now));
            self.spread_foreign(self.slots[index].pool, now);
        }
    }

    /// Does what time alone brings, if there is anything that waits for it.
    #[inline]
    fn catch_up(&mut self, time: &mut Time) {
        if self.is_timeless() {
            return;
        }
        self.advance(time.now());
        if let Some(pin) = self.settings.pin {
            self.pins.expire(pin.linger, time.now());
        }
    }

    /// Whether there is nothing that time alone changes.
    #[inline]
    fn is_timeless(&self) -> bool {
        self.due.is_empty() && self.pins.none_idle()
    }

    /// Whether a change had no effect on anybody else, and none with time that was not known before.
    #[inline]
    pub(crate) const fn is_settled(&self) -> bool {
        !self.opened && !self.news
    }

    /// Whoever waits looks for a place again.
    pub(crate) const fn look_again(&mut self) {
        self.opened = true;
    }

    /// Adds an endpoint; its index. O(endpoints) where the pool has to grow.
    pub(crate) fn insert(&mut self, new: New, now: Instant) -> usize {
        let index = self.vacant.pop().unwrap_or(self.slots.len());
        let leaf = self.pools[new.pool].join(index as u32, &self.slots); // far fewer endpoints than u32 has numbers
        let slot = Slot::new(new.pool, leaf);
        if index == self.slots.len() {
            self.slots.push(slot);
        } else {
            self.slots[index] = slot;
        }
        if new.checked {
            self.slots[index].check = Check::New;
        }
        let starting = self.settings.slow_start.filter(|_| !new.checked);
        self.slots[index].starting = starting.map(|config| Starting::new(config, now));
        self.ticket += 1;
        self.slots[index].last_pick = self.ticket; // of equals, those that came earlier
        self.update(index, new, now);
        index
    }

    /// Changes what an endpoint was inserted as; its counters stay, also if it was removed. Its pool stays, too.
    pub(crate) fn update(&mut self, index: usize, new: New, now: Instant) {
        self.change(index, now, |slot| {
            slot.base = new.weight;
            slot.id_hash = new.id_hash;
            slot.group_hash = new.group_hash;
            slot.max_concurrency = new.max_concurrency;
            slot.removed = false;
            // What was heard of it stays, also what was said by hand.
            if new.checked && slot.check == Check::Unchecked {
                slot.check = Check::New;
            }
            if new.probed && slot.foreign == Foreign::Unasked {
                slot.foreign = Foreign::Unknown;
            }
        });
        self.spread_foreign(new.pool, now);
    }

    /// Picks no more there. It is gone once nothing is in flight.
    pub(crate) fn remove(&mut self, index: usize, now: Instant) {
        self.change(index, now, |slot| slot.removed = true);
        self.retire(index);
    }

    /// The endpoints that are gone since this was last asked.
    pub(crate) fn take_gone(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.gone)
    }

    /// Frees the slot of an endpoint that was removed once nothing is in flight.
    pub(super) fn retire(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        if !slot.removed || slot.gone || slot.own > 0 {
            return;
        }
        if let Some(at) = slot.due.take() {
            self.due.remove(&(at, index));
        }
        slot.gone = true;
        self.prefixes.remove(index);
        self.pools[slot.pool].leave(slot.leaf);
        self.vacant.push(index);
        self.gone.push(index);
        self.news = true;
    }

    /// Changes an endpoint, and all that follows from it. O(log endpoints); O(endpoints) where a panic starts or ends.
    pub(crate) fn change(&mut self, index: usize, now: Instant, change: impl FnOnce(&mut Slot)) {
        let slot = &mut self.slots[index];
        if slot.gone {
            return; // a check or a probe that came too late
        }
        let (of, due) = (slot.pool, slot.due);
        let pool = &mut self.pools[of];
        let open = pool.open();
        pool.change(slot, self.settings.offset, now, change);
        self.news |= reschedule(&mut self.due, index, due, slot.due);
        let panic = pool.should_panic(self.settings.panic_threshold);
        if panic != pool.panic {
            pool.panic = panic;
            for index in pool.members.clone().into_iter().flatten() {
                let slot = &mut self.slots[index as usize];
                let due = slot.due;
                pool.change(slot, self.settings.offset, now, |_| ());
                self.news |= reschedule(&mut self.due, index as usize, due, slot.due);
            }
        }
        self.opened |= self.pools[of].open() > open;
    }

    /// What most ask for: a place for this class and nothing else, where nothing else is to be done or learned, and nothing
    /// follows from it. `None`: [`pick`](Self::pick) has to look. O(log endpoints).
    #[inline(always)]
    pub(crate) fn pick_plainly(&mut self, class: Class, now: Option<Instant>) -> Option<Picked> {
        if !self.is_timeless() || self.settings.policy != Policy::LeastConn {
            return None;
        }
        let at = self.routes.first(class)?;
        let pool = &mut self.pools[at];
        let index = pool.best_untimed(&self.slots)? as usize;
        let slot = &mut self.slots[index];
        if !slot.plain {
            return None;
        }
        self.ticket += 1;
        pool.leave_untimed();
        slot.count_pick(self.ticket);
        pool.occupy(slot, index, true);
        Some(Picked::plain(index, Claim::new(at, None), self.ticket, now))
    }

    /// Takes a place at the best endpoint of the first pool of its route that has one for it. A claim is used up,
    /// whatever comes of it.
    ///
    /// O(log endpoints) for each that is excluded, and once more; O(endpoints) where nothing can be picked.
    pub(crate) fn pick(
        &mut self,
        ask: Ask<'_>,
        excluded: &[usize],
        time: impl Into<Time>,
    ) -> Result<Picked, PickError> {
        let time = &mut time.into();
        self.catch_up(time);
        // What is unreserved is open for it alone, as nobody gets in between.
        self.swap(ask.claim, |picker| {
            if let Some(claim) = ask.claim {
                picker.unreserve(claim);
            }
            picker.exclude(excluded, true);
            let picked = picker.pick_by_route(&ask, excluded, time);
            picker.exclude(excluded, false);
            picked
        })
    }

    /// Gives one place up for another; whether places came free is judged at the end.
    fn swap(
        &mut self,
        from: Option<Claim>,
        swap: impl FnOnce(&mut Self) -> Result<Picked, PickError>,
    ) -> Result<Picked, PickError> {
        let Some(from) = from else { return swap(self) };
        let (opened, open) = (self.opened, self.pools[from.pool()].open());
        let picked = swap(self);
        let lent = from.guest.is_some() && picked.is_ok_and(|picked| picked.claim != from);
        self.opened = opened || lent || self.pools[from.pool()].open() > open;
        picked
    }

    fn pick_by_route(&mut self, ask: &Ask<'_>, excluded: &[usize], time: &mut Time) -> Result<Picked, PickError> {
        let mut station = 0;
        while let Some((pool, guest)) = self.routes.of(ask.class, station) {
            let owed = ask.claim.is_some_and(|claim| claim.pool() == pool);
            if (owed || self.admits(pool, guest, ask.class))
                && let Some((index, by_key)) = self.choose(pool, ask, excluded)
            {
                let reason = match (guest, station) {
                    (Some(_), _) => PickReason::Borrow,
                    _ if by_key => PickReason::Affinity,
                    (None, 0) => PickReason::Load,
                    (None, _) => PickReason::Spill,
                };
                let pinned = ask.key.is_some_and(|key| self.pin(key, index, time));
                let picked = self.take(index, pool, guest.map(|_| ask.class), time);
                if !ask.prefix.is_empty() {
                    self.prefixes.insert(index, ask.prefix);
                }
                return Ok(Picked { reason, key: ask.key, pinned, ..picked });
            }
            station += 1;
        }
        Err(self.why_none(ask.class))
    }

    fn take(&mut self, index: usize, pool: usize, guest: Option<Class>, time: &mut Time) -> Picked {
        self.ticket += 1;
        let ticket = self.ticket;
        let claim = Claim::new(pool, guest);
        let slot = &mut self.slots[index];
        slot.count_pick(ticket);
        let pool = &mut self.pools[pool];
        let timed = pool.is_timed();
        if timed {
            pool.time(time.now(), &mut self.random);
        } else {
            pool.leave_untimed();
        }
        if let Some(class) = guest {
            pool.borrowed[class.index()] += 1;
        }
        pool.occupy(slot, index, true);
        let trial = !slot.plain && self.begin_trial(index, ticket, time);
        let timed = timed || trial;
        if timed {
            time.now();
        }
        Picked { trial, timed, ..Picked::plain(index, claim, ticket, time.known()) }
    }

    /// Whether a pick tries an endpoint that was ejected.
    fn begin_trial(&mut self, index: usize, ticket: u64, time: &mut Time) -> bool {
        let begins = self.slots[index].begin_trial(ticket);
        if begins {
            self.change(index, time.now(), |_| ());
        }
        begins
    }

    /// Whether a place of the pool is open for the class.
    #[inline]
    pub(super) fn admits(&self, pool: usize, guest: Option<Guest>, class: Class) -> bool {
        let pool = &self.pools[pool];
        match guest {
            None => pool.open() > 0,
            Some(guest) => pool.open() > guest.keep && pool.borrowed[class.index()] < guest.at_most,
        }
    }

    fn exclude(&mut self, excluded: &[usize], out: bool) {
        for &index in excluded {
            let slot = &self.slots[index];
            let pool = &mut self.pools[slot.pool];
            if pool.members[slot.leaf as usize] == Some(index as u32) {
                pool.exclude(slot, out); // or else it is gone by now
            }
        }
    }

    /// Gives the place at `from` back and takes one elsewhere, in one step, so that nobody gets in between; on an error
    /// all is as it was.
    pub(crate) fn shift(
        &mut self,
        from: &Picked,
        (class, prefix): (Class, &[u64]),
        excluded: &[usize],
        now: Instant,
    ) -> Result<Picked, PickError> {
        let time = &mut Time::from(now);
        self.catch_up(time);
        self.swap(Some(from.claim), |picker| {
            picker.vacate(from, time);
            picker.exclude(excluded, true);
            let picked = picker.pick_by_route(&Ask { class, key: from.key, prefix, claim: None }, excluded, time);
            picker.exclude(excluded, false);
            if picked.is_err() {
                let slot = &mut picker.slots[from.index];
                let pool = &mut picker.pools[slot.pool];
                if let Some(class) = from.claim.guest {
                    pool.borrowed[class.index()] += 1;
                }
                pool.occupy(slot, from.index, true);
                let home = picker.home_of(from.index);
                from.pinned().map(|key| picker.pins.take(key, home, false, now));
            }
            picked
        })
        .map(|picked| {
            self.retire(from.index);
            Picked { reason: PickReason::Redial, ..picked }
        })
    }

    /// One request less there.
    #[inline]
    pub(super) fn vacate(&mut self, picked: &Picked, time: &mut Time) {
        if let Some(key) = picked.pinned() {
            self.pins.release(key, time.now());
        }
        let slot = &mut self.slots[picked.index];
        let pool = &mut self.pools[slot.pool];
        if let Some(class) = picked.claim.guest {
            let borrowed = &mut pool.borrowed[class.index()];
            *borrowed = borrowed.saturating_sub(1);
            self.opened = true; // a guest may have it, also where the pool's open places are as many as before
        }
        self.opened |= pool.occupy(slot, picked.index, false);
    }

    fn why_none(&self, class: Class) -> PickError {
        let mut station = 0;
        while let Some((pool, _)) = self.routes.of(class, station) {
            let mut members = self.pools[pool].members.iter().flatten();
            if members.any(|index| self.slots[*index as usize].open) {
                return PickError::AtCapacity;
            }
            station += 1;
        }
        PickError::NoEndpoint
    }

    pub(super) fn random(&mut self) -> f64 {
        next(&mut self.random) as f64 / u64::MAX as f64
    }
}

/// Whether that changes anything.
fn reschedule(
    due: &mut BTreeSet<(Instant, usize)>,
    index: usize,
    before: Option<Instant>,
    after: Option<Instant>,
) -> bool {
    let changes = before != after;
    if changes {
        before.map(|at| due.remove(&(at, index)));
        after.map(|at| due.insert((at, index)));
    }
    changes
}

/// Marsaglia's xorshift64*: enough for a draw.
pub(super) const fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D)
}
