use std::collections::{HashMap, VecDeque};
use std::fmt;

use super::PrefixBlocks;

/// Words of a [`Bits`].
const WORDS: usize = 4;

/// Remembers which endpoint was sent which blocks of prompts, and so which of them likely still has the longest part of
/// a new prompt in its KV cache.
///
/// A guess: nobody asks the servers. Of each endpoint it knows the last [`RING`](Self::RING) blocks that were new to it,
/// first in, first out; so it holds at most that many times [`MAX_ENDPOINTS`](Self::MAX_ENDPOINTS), at about 60 bytes
/// each. Endpoints are small numbers, such as the indices of slots; those from 256 on are not remembered.
///
/// ```
/// use forebay_balance::affinity::PrefixTable;
///
/// let mut table = PrefixTable::new();
/// table.insert(0, &[1]); // everybody's system prompt …
/// table.insert(1, &[1]);
/// table.insert(2, &[1, 2, 3]); // … and a conversation
///
/// let found = table.matches(&[1, 2, 3, 4]);
/// assert_eq!([0, 1, 2].map(|endpoint| found.blocks(endpoint)), [1, 1, 3]);
/// assert_eq!(found.best(0..3, |_| true, |_| 0.0), Some(2));
/// // What half of them have makes no difference: least connections may decide.
/// assert_eq!(table.matches(&[1, 7]).best(0..3, |_| true, |_| 0.0), None);
/// ```
#[derive(Clone)]
pub struct PrefixTable {
    ring: usize,
    holders: HashMap<u64, Bits>,
    /// Of each endpoint the blocks whose bit it has, oldest first.
    rings: Vec<VecDeque<u64>>,
}

/// A set of endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Bits([u64; WORDS]);

impl PrefixTable {
    /// How many blocks of an endpoint are remembered, unless set otherwise: 2 million tokens.
    pub const RING: usize = 4096;
    /// How many endpoints are remembered.
    pub const MAX_ENDPOINTS: usize = 64 * WORDS;

    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::with_ring(Self::RING)
    }

    /// An empty table that remembers this many blocks of an endpoint, at least 1: about as many as its cache holds.
    #[must_use]
    pub fn with_ring(blocks: usize) -> Self {
        Self { ring: blocks.max(1), holders: HashMap::new(), rings: Vec::new() }
    }

    /// Remembers that `endpoint` was sent a prompt with these blocks, of which [`PrefixBlocks::MAX`] count. O(depth).
    pub fn insert(&mut self, endpoint: usize, blocks: &[u64]) {
        if endpoint >= Self::MAX_ENDPOINTS {
            return;
        }
        if self.rings.len() <= endpoint {
            self.rings.resize_with(endpoint + 1, VecDeque::new);
        }
        for &block in blocks.iter().take(PrefixBlocks::MAX) {
            if !self.holders.entry(block).or_default().insert(endpoint) {
                continue; // its place in the ring stays
            }
            let ring = &mut self.rings[endpoint];
            ring.push_back(block);
            if ring.len() > self.ring
                && let Some(oldest) = ring.pop_front()
            {
                self.forget(endpoint, oldest);
            }
        }
    }

    /// Forgets all of an endpoint, which has gone or was restarted. O(blocks that it has).
    pub fn remove(&mut self, endpoint: usize) {
        let blocks = self.rings.get_mut(endpoint).map(std::mem::take).unwrap_or_default();
        for block in blocks {
            self.forget(endpoint, block);
        }
    }

    /// How much of a prompt with these blocks each endpoint has, as far as is known. O(depth).
    #[must_use]
    pub fn matches(&self, blocks: &[u64]) -> Matches {
        let mut lengths = [0; Self::MAX_ENDPOINTS];
        let mut live = Bits([u64::MAX; WORDS]);
        let mut depth = 0;
        for block in blocks.iter().take(PrefixBlocks::MAX) {
            let next = self.holders.get(block).copied().unwrap_or_default().and(live);
            if next != live {
                live.without(next).each(|endpoint| lengths[endpoint] = depth);
                live = next;
            }
            if live == Bits::default() {
                break;
            }
            depth += 1;
        }
        live.each(|endpoint| lengths[endpoint] = depth);
        Matches { lengths }
    }

    fn forget(&mut self, endpoint: usize, block: u64) {
        if let Some(holders) = self.holders.get_mut(&block) {
            holders.remove(endpoint);
            if *holders == Bits::default() {
                self.holders.remove(&block);
            }
        }
    }
}

impl Default for PrefixTable {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for PrefixTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrefixTable").field("blocks", &self.holders.len()).finish_non_exhaustive()
    }
}

impl Bits {
    /// Whether it was not there before.
    fn insert(&mut self, bit: usize) -> bool {
        let (word, mask) = (&mut self.0[bit / 64], 1 << (bit % 64));
        let new = *word & mask == 0;
        *word |= mask;
        new
    }

    fn remove(&mut self, bit: usize) {
        self.0[bit / 64] &= !(1 << (bit % 64));
    }

    fn and(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    fn without(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & !other.0[word]))
    }

    fn each(self, mut act: impl FnMut(usize)) {
        for (word, mut bits) in self.0.into_iter().enumerate() {
            while bits != 0 {
                act(word * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }
}

/// How many leading blocks of one prompt each endpoint has.
#[derive(Clone)]
pub struct Matches {
    lengths: [u8; PrefixTable::MAX_ENDPOINTS],
}

impl Matches {
    /// The leading blocks that this endpoint has, 0 to [`PrefixBlocks::MAX`].
    #[must_use]
    pub fn blocks(&self, endpoint: usize) -> usize {
        self.lengths.get(endpoint).copied().unwrap_or_default().into()
    }

    /// The endpoint of a pool that has the longest part; of equals, that with the highest `score`, as of
    /// [`rendezvous::score`](super::rendezvous::score). `None`: any is as good as another, take the least busy.
    ///
    /// Only those count that have more than the pool's median (the lower of two), so that a system prompt, which most
    /// have, ties nobody; and that are `open`: within their bound, not full, not closed. O(pool), without allocation.
    pub fn best(
        &self,
        pool: impl Iterator<Item = usize> + Clone,
        mut open: impl FnMut(usize) -> bool,
        mut score: impl FnMut(usize) -> f64,
    ) -> Option<usize> {
        let median = self.median(pool.clone());
        let mut best: Option<(usize, f64, usize)> = None;
        for endpoint in pool {
            let blocks = self.blocks(endpoint);
            if blocks <= median || best.is_some_and(|best| blocks < best.0) || !open(endpoint) {
                continue;
            }
            let score = score(endpoint);
            if best.is_none_or(|best| blocks > best.0 || score > best.1) {
                best = Some((blocks, score, endpoint));
            }
        }
        best.map(|(_, _, endpoint)| endpoint)
    }

    /// By counting: there are few lengths.
    fn median(&self, pool: impl Iterator<Item = usize>) -> usize {
        let (mut counts, mut size) = ([0_usize; PrefixBlocks::MAX + 1], 0_usize);
        for endpoint in pool {
            counts[self.blocks(endpoint)] += 1;
            size += 1;
        }
        let mut below = 0;
        counts
            .iter()
            .position(|count| {
                below += count;
                below >= size.div_ceil(2)
            })
            .unwrap_or_default()
    }
}

impl fmt::Debug for Matches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = self.lengths.iter().enumerate().filter(|(_, length)| **length > 0);
        f.debug_map().entries(some).finish()
    }
}

#[cfg(test)]
mod tests;
