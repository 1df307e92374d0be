//! The prefix cache: blocks of prompt seen before, each known by the hash of itself and all before it.

use std::collections::{BTreeMap, HashMap};

use crate::answer::Hash;

/// Tokens of a block, as vLLM's default.
pub(crate) const BLOCK_TOKENS: u64 = 16;
/// A token counts as four bytes of prompt.
const BLOCK_BYTES: usize = 4 * BLOCK_TOKENS as usize;

/// Least recently used blocks leave first; at most `max_blocks` stay.
#[derive(Debug)]
pub(crate) struct PrefixCache {
    max_blocks: usize,
    clock: u64,
    by_hash: HashMap<u64, u64>,
    by_use: BTreeMap<u64, u64>,
}

/// Hashes the whole blocks of a prompt, each with all before it. O(bytes).
pub(crate) fn blocks(model: &str, prompt: &[u8]) -> Vec<u64> {
    let mut hash = Hash::new().part(model.as_bytes());
    let mut block = |bytes: &[u8]| {
        hash = hash.part(bytes);
        hash.finish()
    };
    prompt.chunks_exact(BLOCK_BYTES).map(&mut block).collect()
}

impl PrefixCache {
    pub(crate) fn new(max_blocks: usize) -> Self {
        Self { max_blocks, clock: 0, by_hash: HashMap::new(), by_use: BTreeMap::new() }
    }

    /// Says how many leading blocks are known, and knows all of them from now on. O(blocks · log n).
    pub(crate) fn enter(&mut self, blocks: &[u64]) -> u64 {
        let known = blocks.iter().take_while(|block| self.by_hash.contains_key(block)).count();
        for &block in blocks.iter().rev() {
            self.clock += 1; // last block first, so that the end of a prompt leaves before its beginning
            if let Some(old) = self.by_hash.insert(block, self.clock) {
                self.by_use.remove(&old);
            }
            self.by_use.insert(self.clock, block);
        }
        while self.by_hash.len() > self.max_blocks {
            let Some((_, block)) = self.by_use.pop_first() else { break };
            self.by_hash.remove(&block);
        }
        known as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_beginnings_are_known() {
        let mut cache = PrefixCache::new(100);
        let (a, b) = ([b'x'; 640], [[b'x'; 320], [b'y'; 320]].concat());
        assert_eq!(cache.enter(&blocks("m", &a)), 0);
        assert_eq!(cache.enter(&blocks("m", &a)), 10);
        assert_eq!(cache.enter(&blocks("m", &b)), 5);
        assert_eq!(cache.enter(&blocks("other", &a)), 0);
    }

    #[test]
    fn the_bound_holds_and_beginnings_stay_longest() {
        let mut cache = PrefixCache::new(4);
        cache.enter(&blocks("m", &[b'x'; 640]));
        assert_eq!((cache.by_hash.len(), cache.by_use.len()), (4, 4));
        assert_eq!(cache.enter(&blocks("m", &[b'x'; 640])), 4);
        assert_eq!(cache.enter(&blocks("m", &[b'z'; 63])), 0); // less than a block
    }
}
