//! The queue of one class: 64 flows among which tenants are dealt, and one for those without a name.
//!
//! Which flow a request joins is shuffle sharding, as in the API priority and fairness of Kubernetes: a keyed hash deals
//! each tenant a hand of six flows, of which it joins the shortest, so that a light tenant shares its whole hand with a
//! given heavy one in 1 of 75 million cases, and memory does not grow with tenants.
//!
//! Fair in seat-time (start-time fair queueing: Goyal, Vin and Cheng, SIGCOMM 1996): whoever has the least virtual start
//! at the front of a flow is served next; a grant moves that start on by what it is expected to cost, and the release
//! corrects it. Where we depart from Kubernetes: the virtual start is the tenant's and not the flow's, so that who fills
//! all six has one share and not six. It is kept in two rows of 1024 cells, of which the lesser counts (a count-min sketch:
//! Cormode and Muthukrishnan, Journal of Algorithms 55, 2005): also this does not grow with tenants.

use super::slab::{Entry, List, Slab};
use super::tick::Tick;

const TENANTS: usize = 64;
const HAND: usize = 6;
const CELLS: usize = 1024;
/// The flow of requests without a tenant.
pub(super) const COMMON: u8 = TENANTS as u8;

/// A tenant's cells, one in each row.
pub(super) type Account = [u16; 2];

#[derive(Debug)]
pub(super) struct Flows {
    flows: Box<[List]>,
    /// A bit for each flow that is not empty.
    busy: u128,
    /// Virtual starts in seat-nanoseconds, by account: when a tenant's next grant is due.
    starts: Box<[u64]>,
    /// Virtual start of the last grant.
    now: u64,
}

impl Flows {
    pub(super) fn new() -> Self {
        let starts = vec![0; 2 * CELLS + 1].into();
        Self { flows: vec![List::EMPTY; TENANTS + 1].into(), busy: 0, starts, now: 0 }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.busy == 0
    }

    /// The flow that a newcomer joins: the shortest of its tenant's hand. O(1).
    pub(super) fn choose(&self, tenant: Option<u64>) -> u8 {
        let shortest = |tenant| hand(tenant).into_iter().min_by_key(|&flow| self.flows[usize::from(flow)].len);
        tenant.and_then(shortest).unwrap_or(COMMON)
    }

    /// Appends a waiter to a flow. O(1).
    pub(super) fn push<T, P>(&mut self, slab: &mut Slab<T, P>, flow: u8, account: Account, index: u32) {
        let entry = slab.at_mut(index);
        (entry.flow, entry.account) = (flow, account);
        self.come(account);
        self.flows[usize::from(flow)].push(slab, index);
        self.busy |= 1 << flow;
    }

    /// Notes that a tenant is there: idleness is no credit.
    pub(super) fn come(&mut self, account: Account) {
        for cell in account {
            let start = &mut self.starts[usize::from(cell)];
            *start = (*start).max(self.now);
        }
    }

    /// Takes a waiter out, wherever it stands. O(1).
    pub(super) fn unlink<T, P>(&mut self, slab: &mut Slab<T, P>, index: u32) {
        let flow = slab.at(index).flow;
        let waiters = &mut self.flows[usize::from(flow)];
        waiters.unlink(slab, index);
        if waiters.len == 0 {
            self.busy &= !(1 << flow);
        }
    }

    /// Who is next: at the front of each flow stands the oldest, or in LIFO order the newest; of those that `may` go, whose
    /// tenant has the least virtual start. O(flows in use).
    pub(super) fn front<T, P>(&self, lifo: bool, slab: &Slab<T, P>, may: impl Fn(&Entry<T, P>) -> bool) -> Option<u32> {
        let front = |flow: usize| if lifo { self.flows[flow].tail } else { self.flows[flow].head };
        let fronts = self.busy().map(front).filter(|&index| may(slab.at(index)));
        fronts.min_by_key(|&index| self.start(slab.at(index).account))
    }

    fn start(&self, account: Account) -> u64 {
        let [one, other] = account.map(|cell| self.starts[usize::from(cell)]);
        one.min(other)
    }

    /// Who would be served last, of the longest flow; among equals, of that flow which `newcomer` has joined.
    pub(super) fn last(&self, lifo: bool, newcomer: Option<u8>) -> Option<u32> {
        let joined = |flow: usize| newcomer.is_some_and(|newcomer| usize::from(newcomer) == flow);
        let longest = self.busy().max_by_key(|&flow| (self.flows[flow].len, joined(flow)))?;
        let waiters = &self.flows[longest];
        Some(if lifo { waiters.head } else { waiters.tail })
    }

    /// Whether no other flow would be longer than this one with one more.
    pub(super) fn is_longest_with(&self, flow: u8) -> bool {
        let length = self.flows[usize::from(flow)].len + 1;
        self.busy().all(|other| self.flows[other].len <= length)
    }

    /// The oldest of a flow.
    pub(super) fn oldest(&self, flow: u8) -> Option<u32> {
        self.flows[usize::from(flow)].first()
    }

    /// When the oldest of all came. O(flows in use).
    pub(super) fn oldest_since<T, P>(&self, slab: &Slab<T, P>) -> Option<Tick> {
        self.busy().map(|flow| slab.at(self.flows[flow].head).since).min()
    }

    /// Moves the virtual time on: a tenant was granted what is expected to take `charge` seat-nanoseconds.
    pub(super) fn charge(&mut self, account: Account, charge: u64) {
        self.now = self.now.max(self.start(account));
        self.correct(account, 0, charge);
    }

    /// Corrects a charge once it is known what the grant has really taken.
    pub(super) fn correct(&mut self, [one, other]: Account, charged: u64, actual: u64) {
        let mut change = |cell: u16| {
            let start = &mut self.starts[usize::from(cell)];
            *start = start.saturating_add(actual).saturating_sub(charged);
        };
        change(one);
        if other != one {
            change(other);
        }
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

/// A tenant's cells; those without a tenant have one together.
pub(super) fn account(tenant: Option<u64>) -> Account {
    let Some(tenant) = tenant else { return [2 * CELLS as u16; 2] };
    // Other bits than those that deal the hand.
    let bits = tenant.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    [(bits >> 54) as u16, (bits >> 44) as u16 % CELLS as u16 + CELLS as u16]
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
