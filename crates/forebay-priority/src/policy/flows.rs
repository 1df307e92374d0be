//! The queue of one class: 64 flows among which tenants are dealt, and one for those without a name.
//!
//! Fair in seat-time: the flow with the least virtual start is served next, and a grant moves that start on by what it
//! is expected to cost; the release corrects it (start-time fair queueing: Goyal, Vin and Cheng, SIGCOMM 1996). Which
//! flow a tenant joins is shuffle sharding, as in the API priority and fairness of Kubernetes: a keyed hash deals each
//! tenant a hand of six flows, of which it joins the shortest, so that a light tenant shares its whole hand with a given
//! heavy one in 1 of 75 million cases, and memory does not grow with tenants.

use super::slab::{List, Slab};
use super::tick::Tick;

const TENANTS: usize = 64;
const HAND: usize = 6;
/// The flow of requests without a tenant.
pub(super) const COMMON: u8 = TENANTS as u8;

#[derive(Debug, Clone, Copy)]
struct Flow {
    waiters: List,
    /// Virtual start of its next grant, in seat-nanoseconds.
    start: u64,
}

#[derive(Debug)]
pub(super) struct Flows {
    flows: Box<[Flow]>,
    /// A bit for each flow that is not empty.
    busy: u128,
    /// Virtual start of the last grant.
    now: u64,
}

impl Flows {
    pub(super) fn new() -> Self {
        let flow = Flow { waiters: List::EMPTY, start: 0 };
        Self { flows: vec![flow; TENANTS + 1].into(), busy: 0, now: 0 }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.busy == 0
    }

    /// The flow that a newcomer joins: the shortest of its tenant's hand. O(1).
    pub(super) fn choose(&self, tenant: Option<u64>) -> u8 {
        let Some(tenant) = tenant else { return COMMON };
        let shortest = hand(tenant).into_iter().min_by_key(|&flow| {
            let flow = &self.flows[usize::from(flow)];
            (flow.waiters.len, flow.start)
        });
        shortest.unwrap_or(COMMON)
    }

    /// Appends a waiter to a flow. O(1).
    pub(super) fn push<T, P>(&mut self, slab: &mut Slab<T, P>, flow: u8, index: u32) {
        slab.at_mut(index).flow = flow;
        let list = &mut self.flows[usize::from(flow)];
        if list.waiters.len == 0 {
            list.start = list.start.max(self.now); // it wakes: idleness is no credit
            self.busy |= 1 << flow;
        }
        list.waiters.push(slab, index);
    }

    /// Takes a waiter out, wherever it stands. O(1).
    pub(super) fn unlink<T, P>(&mut self, slab: &mut Slab<T, P>, index: u32) {
        let flow = slab.at(index).flow;
        let waiters = &mut self.flows[usize::from(flow)].waiters;
        waiters.unlink(slab, index);
        if waiters.len == 0 {
            self.busy &= !(1 << flow);
        }
    }

    /// Who is next: of the flow with the least virtual start the oldest, or in LIFO order the newest. O(flows in use).
    pub(super) fn front(&self, lifo: bool) -> Option<u32> {
        let waiters = &self.flows[self.busy().min_by_key(|&flow| self.flows[flow].start)?].waiters;
        Some(if lifo { waiters.tail } else { waiters.head })
    }

    /// Who would be served last, of the longest flow; among equals, of that flow which `newcomer` has joined.
    pub(super) fn last(&self, lifo: bool, newcomer: Option<u8>) -> Option<u32> {
        let joined = |flow: usize| newcomer.is_some_and(|newcomer| usize::from(newcomer) == flow);
        let longest = self.busy().max_by_key(|&flow| (self.flows[flow].waiters.len, joined(flow)))?;
        let waiters = &self.flows[longest].waiters;
        Some(if lifo { waiters.head } else { waiters.tail })
    }

    /// The oldest of a flow.
    pub(super) fn oldest(&self, flow: u8) -> Option<u32> {
        self.flows[usize::from(flow)].waiters.first()
    }

    /// When the oldest of all came. O(flows in use).
    pub(super) fn oldest_since<T, P>(&self, slab: &Slab<T, P>) -> Option<Tick> {
        self.busy().map(|flow| slab.at(self.flows[flow].waiters.head).since).min()
    }

    /// Moves the virtual time on: a waiter of `flow` was granted what is expected to take `charge` seat-nanoseconds.
    pub(super) fn charge(&mut self, flow: u8, charge: u64) {
        let flow = &mut self.flows[usize::from(flow)];
        self.now = self.now.max(flow.start);
        flow.start = flow.start.saturating_add(charge);
    }

    /// Corrects a charge once it is known what the grant has really taken.
    pub(super) fn correct(&mut self, flow: u8, charged: u64, actual: u64) {
        let flow = &mut self.flows[usize::from(flow)];
        flow.start = flow.start.saturating_add(actual).saturating_sub(charged);
    }

    fn busy(&self) -> impl Iterator<Item = usize> + use<> {
        let mut busy = self.busy;
        std::iter::from_fn(move || {
            let flow = busy.trailing_zeros() as usize;
            busy &= busy.checked_sub(1)?;
            Some(flow)
        })
    }
}

/// Six different flows, dealt like cards: each next one from those that are left.
pub(super) fn hand(mut tenant: u64) -> [u8; HAND] {
    let mut cards = [0; HAND];
    for dealt in 0..HAND {
        let left = (TENANTS - dealt) as u64;
        let mut card = (tenant % left) as u8;
        tenant /= left;
        // The card-th of those that are left: step over what was dealt already, in ascending order.
        let mut before = cards;
        before[..dealt].sort_unstable();
        for &taken in &before[..dealt] {
            card += u8::from(card >= taken);
        }
        cards[dealt] = card;
    }
    cards
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_hand_has_six_different_cards_and_hands_differ() {
        let mut seen = HashSet::new();
        for tenant in 0..10_000_u64 {
            let mut cards = hand(tenant.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            cards.sort_unstable();
            assert!(cards.windows(2).all(|pair| pair[0] < pair[1]) && cards[5] < 64, "{cards:?}");
            seen.insert(cards);
        }
        assert!(seen.len() > 9_990, "{} different hands", seen.len());
    }
}
