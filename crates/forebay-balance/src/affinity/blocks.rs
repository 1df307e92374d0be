//! Chained hashes of the blocks of a prompt: equal up to block n means equal text up to there.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The text that one hash stands for, in bytes: about 512 tokens of English.
pub const BLOCK_BYTES: usize = 2048;

/// The hashes of the whole blocks at the beginning of a prompt, first block first. A request extension, set by
/// [`AffinityLayer`](super::AffinityLayer) where it looks at prompts, for the balancer's
/// [`PrefixTable`](super::PrefixTable).
///
/// Each hash covers its block of [`BLOCK_BYTES`] and all before it, and whose request it is: tenants share no blocks. At
/// most [`MAX`](Self::MAX), and no more than were peeked at; a last block that is not full is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixBlocks(Arc<[u64]>);

impl PrefixBlocks {
    /// The most blocks of a prompt that are told apart.
    pub const MAX: usize = 64;

    /// Blocks with these hashes, of which [`MAX`](Self::MAX) are kept: for whoever hashes prompts otherwise.
    #[must_use]
    pub fn new(hashes: &[u64]) -> Self {
        Self(hashes[..hashes.len().min(Self::MAX)].into())
    }

    /// The hashes, first block first.
    #[must_use]
    pub fn hashes(&self) -> &[u64] {
        &self.0
    }

    /// Those of a prompt, if there is one.
    #[inline]
    pub(crate) fn of(prompt: &Option<Self>) -> &[u64] {
        prompt.as_ref().map_or(&[], |blocks| &blocks.0)
    }
}

/// Hashes text block by block.
#[derive(Debug)]
pub(super) struct Blocks {
    /// The hash of all blocks so far.
    chain: u64,
    block: Vec<u8>,
    hashes: Vec<u64>,
}

impl Blocks {
    /// `seed` tells apart what must share no blocks.
    pub(super) const fn new(seed: u64) -> Self {
        Self { chain: seed, block: Vec::new(), hashes: Vec::new() }
    }

    pub(super) fn push(&mut self, mut text: &[u8]) {
        while !text.is_empty() && !self.is_full() {
            let (now, later) = text.split_at(text.len().min(BLOCK_BYTES - self.block.len()));
            self.block.extend_from_slice(now);
            text = later;
            if self.block.len() == BLOCK_BYTES {
                self.chain = xxh3_64_with_seed(&self.block, self.chain);
                self.hashes.push(self.chain);
                self.block.clear();
            }
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.hashes.len() >= PrefixBlocks::MAX
    }

    pub(super) fn hashes(&self) -> &[u64] {
        &self.hashes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(seed: u64, pieces: &[&[u8]]) -> Vec<u64> {
        let mut blocks = Blocks::new(seed);
        pieces.iter().for_each(|piece| blocks.push(piece));
        blocks.hashes
    }

    #[test]
    fn a_hash_stands_for_its_block_and_all_before_it() {
        let text: Vec<u8> = (0..3 * BLOCK_BYTES + 1).map(|at| (at % 251) as u8).collect();
        let whole = hashes(7, &[&text]);
        assert_eq!(whole.len(), 3, "the last block is not full");
        for cut in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, text.len()] {
            assert_eq!(hashes(7, &[&text[..cut], &text[cut..]]), whole);
        }
        let mut other = text.clone();
        other[BLOCK_BYTES] ^= 1;
        let changed = hashes(7, &[&other]);
        assert_eq!(changed[0], whole[0]);
        assert!(changed[1] != whole[1] && changed[2] != whole[2]);
        assert!(hashes(8, &[&text])[0] != whole[0]);
    }

    #[test]
    fn their_number_is_bounded() {
        let text = vec![0; BLOCK_BYTES];
        let mut blocks = Blocks::new(0);
        (0..PrefixBlocks::MAX + 9).for_each(|_| blocks.push(&text));
        assert!(blocks.is_full() && blocks.hashes().len() == PrefixBlocks::MAX);
        assert_eq!(PrefixBlocks::new(&[1; 100]).hashes().len(), PrefixBlocks::MAX);
        assert_eq!(PrefixBlocks::new(&[1, 2]).hashes(), [1, 2]);
    }
}
