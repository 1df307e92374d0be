use proptest::prelude::*;

use super::*;

/// What the table should know, in the plainest way.
struct Naive {
    ring: usize,
    known: Vec<VecDeque<u64>>,
}

impl Naive {
    fn insert(&mut self, endpoint: usize, blocks: &[u64]) {
        let known = &mut self.known[endpoint];
        for block in blocks {
            if !known.contains(block) {
                known.push_back(*block);
            }
            if known.len() > self.ring {
                known.pop_front();
            }
        }
    }

    fn length(&self, endpoint: usize, blocks: &[u64]) -> usize {
        blocks.iter().take_while(|block| self.known[endpoint].contains(block)).count()
    }

    fn best(&self, pool: &[usize], blocks: &[u64], open: u16) -> Option<usize> {
        let mut lengths: Vec<usize> = pool.iter().map(|&endpoint| self.length(endpoint, blocks)).collect();
        lengths.sort_unstable();
        let median = lengths.get((lengths.len().max(1) - 1) / 2).copied().unwrap_or_default();
        let good = |&&endpoint: &&usize| open >> endpoint & 1 == 1 && self.length(endpoint, blocks) > median;
        pool.iter().filter(good).max_by_key(|&&endpoint| (self.length(endpoint, blocks), tie(endpoint))).copied()
    }
}

/// Another order than that of the endpoints.
fn tie(endpoint: usize) -> u64 {
    (endpoint as u64 * 7 + 3) % 10
}

#[derive(Debug, Clone)]
enum Do {
    Insert(usize, Vec<u64>),
    Remove(usize),
    Ask(Vec<usize>, Vec<u64>, u16),
}

fn what() -> impl Strategy<Value = Do> {
    let chain = || prop::collection::vec(0..12_u64, 0..7);
    let pool = prop::sample::subsequence((0..10).collect::<Vec<_>>(), 0..=10);
    prop_oneof![
        4 => (0..10_usize, chain()).prop_map(|(endpoint, blocks)| Do::Insert(endpoint, blocks)),
        1 => (0..10_usize).prop_map(Do::Remove),
        4 => (pool, chain(), any::<u16>()).prop_map(|(pool, blocks, open)| Do::Ask(pool, blocks, open)),
    ]
}

proptest! {
    #[test]
    fn r41_knows_what_the_naive_one_knows(ring in 1..9_usize, acts in prop::collection::vec(what(), 0..60)) {
        let mut table = PrefixTable::with_ring(ring);
        let mut naive = Naive { ring, known: vec![VecDeque::new(); 10] };
        for act in acts {
            match act {
                Do::Insert(endpoint, blocks) => {
                    table.insert(endpoint, &blocks);
                    naive.insert(endpoint, &blocks);
                }
                Do::Remove(endpoint) => {
                    table.remove(endpoint);
                    naive.known[endpoint].clear();
                }
                Do::Ask(pool, blocks, open) => {
                    let found = table.matches(&blocks);
                    for endpoint in 0..10 {
                        prop_assert_eq!(found.blocks(endpoint), naive.length(endpoint, &blocks));
                    }
                    let best = found.best(pool.iter().copied(), |i| open >> i & 1 == 1, |i| tie(i) as f64);
                    prop_assert_eq!(best, naive.best(&pool, &blocks, open));
                }
            }
            let bits: usize = table.holders.values().map(|holders| holders.0.iter().map(|word| word.count_ones() as usize).sum::<usize>()).sum();
            prop_assert_eq!(bits, naive.known.iter().map(VecDeque::len).sum::<usize>(), "nothing is left behind");
            prop_assert!(table.holders.values().all(|holders| *holders != Bits::default()));
        }
    }
}

#[test]
fn memory_is_bounded() {
    let mut table = PrefixTable::with_ring(3);
    (0..10_000).for_each(|block| table.insert(255, &[block]));
    table.insert(256, &[1]);
    assert_eq!((table.holders.len(), table.rings.len()), (3, 256));
    assert_eq!(table.matches(&[9_999]).blocks(255), 1);
    assert_eq!(table.matches(&[1]).blocks(256), 0, "too many endpoints");
    table.remove(255);
    table.remove(1_000);
    assert!(table.holders.is_empty());
}

#[test]
fn a_chain_counts_up_to_its_bound() {
    let chain: Vec<u64> = (0..100).collect();
    let mut table = PrefixTable::new();
    table.insert(0, &chain);
    assert_eq!(table.matches(&chain).blocks(0), PrefixBlocks::MAX);
    assert_eq!(table.matches(&[]).blocks(0), 0);
    assert_eq!(PrefixTable::with_ring(0).ring, 1);
}

#[test]
fn two_endpoints_have_a_median_too() {
    let mut table = PrefixTable::new();
    table.insert(1, &[5]);
    let found = table.matches(&[5, 6]);
    assert_eq!(found.best(0..2, |_| true, |_| 0.0), Some(1));
    assert_eq!(found.best(0..2, |_| false, |_| 0.0), None, "it is full");
    assert_eq!(found.best(1..2, |_| true, |_| 0.0), None, "there is no choice");
    assert_eq!(found.best(0..0, |_| true, |_| 0.0), None);
}
