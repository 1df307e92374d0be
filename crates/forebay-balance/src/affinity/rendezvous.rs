//! Weighted rendezvous hashing: every key has its own order of the endpoints, the same in all processes.
//!
//! Each endpoint draws a number in (0, 1) from the key and its own id, and scores `-weight / ln(number)`; the highest
//! score goes first. So shares follow the weights, and an endpoint that leaves or comes moves its own keys only. The
//! method is Thaler and Ravishankar's ("Using Name-Based Mappings to Increase Hit Rates", IEEE/ACM Transactions on
//! Networking, 1998), the weighting that of Schindelhauer and Schomaker's logarithmic method ("Weighted Distributed Hash
//! Tables", SPAA 2005).
//!
//! ```
//! use forebay_balance::affinity::rendezvous::{Candidate, ranked};
//! use forebay_core::AffinityKey;
//!
//! let fleet = [("big", 4), ("small", 1), ("drained", 0)].map(|(id, weight)| Candidate::new(id, weight));
//! let order: Vec<usize> = ranked(0, AffinityKey(7), &fleet).collect();
//! assert_eq!(order.len(), 2, "an endpoint of weight 0 has no keys");
//! ```

use forebay_core::AffinityKey;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// An endpoint that keys are spread over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The [`id_hash`] of its id.
    pub id_hash: u64,
    /// Its relative weight, 0 (no keys) to 65535. The base weight: if it changes with the load, sessions move.
    pub weight: u16,
}

impl Candidate {
    /// The endpoint with this id and weight.
    #[must_use]
    pub fn new(id: &str, weight: u16) -> Self {
        Self { id_hash: id_hash(id), weight }
    }
}

/// The hash of an endpoint's id, for [`score`]: the same in all processes.
#[must_use]
pub fn id_hash(id: &str) -> u64 {
    xxh3_64(id.as_bytes())
}

/// How strongly `key` belongs to an endpoint: more than 0 and finite, and 0 for the weight 0. The highest wins.
///
/// All processes that share a fleet must have the same `seed`, else they send a key to different endpoints. O(1).
#[must_use]
pub fn score(seed: u64, key: AffinityKey, id_hash: u64, weight: u16) -> f64 {
    if weight == 0 {
        return 0.0;
    }
    -f64::from(weight) / number(seed, key, id_hash).ln()
}

/// A number in (0, 1): the middle of one of 2^52 equal parts, as those are exact in an `f64` and none is 0 or 1.
fn number(seed: u64, key: AffinityKey, id_hash: u64) -> f64 {
    let mut text = [0; 16];
    text[..8].copy_from_slice(&key.0.to_le_bytes());
    text[8..].copy_from_slice(&id_hash.to_le_bytes());
    let part = xxh3_64_with_seed(&text, seed) >> 12;
    (part as f64 + 0.5) / (1_u64 << 52) as f64
}

/// The candidates of a key, best first, as indices into `candidates`; those of weight 0 are left out.
///
/// O(n) for each that is asked for and no allocation: almost always the first is taken.
#[must_use]
pub const fn ranked(seed: u64, key: AffinityKey, candidates: &[Candidate]) -> Ranked<'_> {
    Ranked { seed, key, candidates, last: None }
}

/// The iterator of [`ranked`].
#[derive(Debug, Clone)]
pub struct Ranked<'a> {
    seed: u64,
    key: AffinityKey,
    candidates: &'a [Candidate],
    /// The score and index of the last one: all that come after are less.
    last: Option<(f64, usize)>,
}

impl Iterator for Ranked<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let mut best: Option<(f64, usize)> = None;
        for (index, candidate) in self.candidates.iter().enumerate().filter(|(_, candidate)| candidate.weight > 0) {
            let scored = (score(self.seed, self.key, candidate.id_hash, candidate.weight), index);
            let left = self.last.is_none_or(|last| before(last, scored));
            if left && best.is_none_or(|best| before(scored, best)) {
                best = Some(scored);
            }
        }
        self.last = best.or(self.last);
        best.map(|(_, index)| index)
    }
}

/// Whether `a` goes before `b`: by score, and of equals (the same id twice) the first.
fn before(a: (f64, usize), b: (f64, usize)) -> bool {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).is_lt()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fleet(weights: &[u16]) -> Vec<Candidate> {
        let endpoint = |(index, &weight)| Candidate::new(&format!("http://10.0.0.{index}:8000"), weight);
        weights.iter().enumerate().map(endpoint).collect()
    }

    fn first(seed: u64, key: u64, fleet: &[Candidate]) -> Option<usize> {
        ranked(seed, AffinityKey(key), fleet).next()
    }

    #[test]
    fn the_order_is_fixed() {
        // Gateways of different versions share a fleet: a change of these is a breaking one.
        let fleet = fleet(&[3, 2, 1, 0, 3]);
        let order = |key| ranked(42, AffinityKey(key), &fleet).collect::<Vec<_>>();
        assert_eq!([0, 1, u64::MAX].map(order), [[4, 0, 1, 2], [1, 0, 2, 4], [0, 2, 1, 4]]);
        assert_eq!(fleet[0].id_hash, 15_749_925_157_863_168_565);
        // The part of 2^52, as the logarithm may differ in its last bit from system to system.
        assert_eq!((number(42, AffinityKey(1), fleet[0].id_hash) * (1_u64 << 52) as f64) as u64, 1_370_626_492_725_879);
    }

    #[test]
    fn every_number_is_inside() {
        for part in [0, (1_u64 << 52) - 1] {
            let number = (part as f64 + 0.5) / (1_u64 << 52) as f64;
            assert!(number > 0.0 && number < 1.0);
            let scores = [1, u16::MAX].map(|weight| -f64::from(weight) / number.ln());
            assert!(scores.iter().all(|score| score.is_finite() && *score > 0.0));
        }
    }

    #[test]
    fn without_weight_there_is_nobody() {
        assert_eq!(ranked(0, AffinityKey(1), &fleet(&[0, 0])).next(), None);
        assert_eq!(ranked(0, AffinityKey(1), &[]).next(), None);
    }

    #[test]
    fn the_same_id_twice_is_two_candidates() {
        let twice = [Candidate::new("a", 1); 3];
        assert_eq!(ranked(0, AffinityKey(1), &twice).collect::<Vec<_>>(), [0, 1, 2]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn shares_follow_the_weights(weights in prop::collection::vec(1..=50_u16, 2..12), seed in any::<u64>()) {
            const KEYS: u64 = 20_000;
            let fleet = fleet(&weights);
            let mut counts = vec![0_u32; fleet.len()];
            for key in 0..KEYS {
                counts[first(seed, key, &fleet).expect("they have weights")] += 1;
            }
            let total: u32 = weights.iter().map(|&weight| u32::from(weight)).sum();
            for (&weight, &count) in weights.iter().zip(&counts) {
                let share = f64::from(weight) / f64::from(total);
                let expected = share * KEYS as f64;
                // Binomial: five and a half standard deviations.
                let allowed = 5.5 * (expected * (1.0 - share)).sqrt() + 1.0;
                prop_assert!((f64::from(count) - expected).abs() <= allowed, "{count} of {expected} +- {allowed}");
            }
        }
    }

    proptest! {
        #[test]
        fn r38_who_leaves_moves_only_its_own_keys(
            weights in prop::collection::vec(0..=9_u16, 1..10), gone in any::<prop::sample::Index>(), seed in any::<u64>(),
        ) {
            let fleet = fleet(&weights);
            let mut fewer = fleet.clone();
            let gone = gone.index(fleet.len());
            fewer.remove(gone);
            for key in 0..200 {
                let order: Vec<usize> = ranked(seed, AffinityKey(key), &fleet).collect();
                let left = ranked(seed, AffinityKey(key), &fewer).map(|index| index + usize::from(index >= gone));
                prop_assert_eq!(left.collect::<Vec<_>>(), order.into_iter().filter(|&i| i != gone).collect::<Vec<_>>());
            }
        }

        #[test]
        fn more_weight_only_attracts(
            weights in prop::collection::vec(1..=9_u16, 2..10), grown in any::<prop::sample::Index>(), seed in any::<u64>(),
        ) {
            let (fleet, grown) = (fleet(&weights), grown.index(weights.len()));
            let mut more = fleet.clone();
            more[grown].weight += 3;
            for key in 0..200 {
                let (before, after) = (first(seed, key, &fleet), first(seed, key, &more));
                prop_assert!(before == after || after == Some(grown));
            }
        }

        #[test]
        fn the_order_is_that_of_the_scores(weights in prop::collection::vec(0..=9_u16, 0..10), key in any::<u64>()) {
            let fleet = fleet(&weights);
            let of = |&index: &usize| score(1, AffinityKey(key), fleet[index].id_hash, fleet[index].weight);
            let mut naive: Vec<usize> = (0..fleet.len()).filter(|&index| weights[index] > 0).collect();
            naive.sort_by(|a, b| of(b).total_cmp(&of(a)));
            prop_assert_eq!(ranked(1, AffinityKey(key), &fleet).collect::<Vec<_>>(), naive);
        }
    }
}
