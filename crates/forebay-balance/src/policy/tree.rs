/// From here on an endpoint is closed. Times a weight below 2^24 it still fits in 64 bits.
pub(super) const CLOSED: i64 = 1 << 39;

/// How an endpoint stands beside the others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// `2 load + offset`, in 1/256 requests; `CLOSED`: more than any. Less than 0 if others have much less there than
    /// elsewhere.
    work: i64,
    /// When it was picked last, in picks: no two are the same, but for closed ones.
    ticket: u64,
    /// In 1/256, at least 1.
    weight: u32,
    /// Whose it is.
    pub(super) leaf: u32,
}

impl Key {
    #[inline]
    pub(super) fn open(leaf: u32, work: i64, weight: u32, ticket: u64) -> Self {
        debug_assert!(work.abs() < CLOSED && weight > 0);
        Self { work, weight, ticket, leaf }
    }

    pub(super) const fn closed(leaf: u32) -> Self {
        Self { work: CLOSED, weight: 1, ticket: 0, leaf }
    }

    /// The weight in use, in 1/256; 0: it is closed.
    pub(super) const fn weight(&self) -> u32 {
        if self.work < CLOSED { self.weight } else { 0 }
    }

    /// Whether it has less work for its weight, compared exactly; of equals, whether it was picked longer ago.
    #[inline]
    pub(super) const fn beats(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.work * other.weight as i64, other.work * self.weight as i64);
        ours < theirs || ours == theirs && self.ticket < other.ticket
    }
}

/// A tree of losers: at each inner node the best of its two halves meet, the node keeps who lost there, and node 0 who
/// lost nowhere. Who was picked plays its matches again, each against what its own node holds (Knuth, The Art of Computer
/// Programming 3, 5.4.1); with a tree of winners it would be against a neighbour, and each node be written.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// As many as leaves, a power of two: each leaf is in one of them. The parent of node `n` and of leaf `n - leaves` is
    /// `n / 2`.
    losers: Vec<Key>,
    len: usize,
}

impl Tree {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// O(log leaves); about two nodes on average.
    pub(super) fn key(&self, leaf: u32) -> &Key {
        &self.losers[self.lost(leaf).0]
    }

    /// Adds a closed leaf at the end; its number. O(leaves) when the tree has to grow, so O(1) over many.
    pub(super) fn push(&mut self) -> u32 {
        let leaf = self.len;
        self.len += 1;
        if leaf == self.losers.len() {
            self.losers.extend((leaf..self.len.next_power_of_two()).map(|leaf| Key::closed(leaf as u32)));
            self.play();
        }
        leaf as u32
    }

    /// All matches.
    fn play(&mut self) {
        let leaves = self.losers.len();
        let mut winners = [&self.losers[..], &self.losers[..]].concat();
        winners[leaves..].sort_unstable_by_key(|key| key.leaf);
        for node in (1..leaves).rev() {
            let (one, other) = (winners[2 * node], winners[2 * node + 1]);
            (winners[node], self.losers[node]) = if one.beats(&other) { (one, other) } else { (other, one) };
        }
        self.losers[0] = winners[1];
    }

    /// The best that is open.
    #[inline]
    pub(super) fn best(&self) -> Option<u32> {
        let best = self.losers.first()?;
        (best.work < CLOSED).then_some(best.leaf)
    }

    /// Changes a leaf. O(log leaves); about four nodes where it gets better and does not become the best.
    #[inline(never)]
    pub(super) fn set(&mut self, key: Key) {
        if key.beats(self.key(key.leaf)) {
            self.rise(key);
        } else {
            self.fall(key);
        }
    }

    /// The node where a leaf lost, and how many are on the way there.
    #[inline]
    fn lost(&self, leaf: u32) -> (usize, u32) {
        let (mut node, mut height) = (0, 1);
        if self.losers[0].leaf != leaf {
            node = self.first(leaf);
            while self.losers[node].leaf != leaf {
                (node, height) = (node / 2, height + 1);
            }
        }
        (node, height)
    }

    /// The node above a leaf.
    #[inline]
    const fn first(&self, leaf: u32) -> usize {
        (self.losers.len() + leaf as usize) / 2
    }

    /// It got worse, so whom it beat may beat it. Who wins up to where it lost loses there, too, to who beat it.
    #[inline(always)] // so that the key stays in registers
    pub(super) fn fall(&mut self, key: Key) {
        debug_assert!(!key.beats(self.key(key.leaf)));
        let (lost, _) = self.lost(key.leaf);
        let mut node = self.first(key.leaf);
        let losers = &mut *self.losers;
        let mut best = key;
        while node > lost {
            let rival = &mut losers[node];
            if rival.beats(&best) {
                std::mem::swap(rival, &mut best);
            }
            node /= 2;
        }
        losers[lost] = best;
    }

    /// It got better, so it beats whom it beat, and perhaps those who beat it, one after the other.
    #[inline(always)]
    pub(super) fn rise(&mut self, key: Key) {
        debug_assert!(!self.key(key.leaf).beats(&key));
        let (mut lost, mut height) = self.lost(key.leaf);
        let losers = &mut *self.losers;
        while lost > 0 {
            // Who won here comes from the same half, and lost further up, or nowhere.
            let (mut above, mut top) = (lost / 2, height + 1);
            while above > 0 && (losers[above].leaf ^ key.leaf) >> height > 0 {
                (above, top) = (above / 2, top + 1);
            }
            let rival = losers[above];
            if !key.beats(&rival) {
                break;
            }
            losers[lost] = rival;
            (lost, height) = (above, top);
        }
        losers[lost] = key;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_best_is_that_of_a_plain_scan(
            changes in prop::collection::vec((0..40_u32, -3..4_i64, 0..4_u32, any::<bool>()), 0..200), leaves in 1..40_u32,
        ) {
            let mut tree = Tree::default();
            let mut keys: Vec<Key> = Vec::new();
            for (ticket, (leaf, work, weight, grow)) in changes.into_iter().enumerate() {
                if grow && tree.len() < leaves as usize {
                    let leaf = tree.push();
                    keys.push(Key::closed(leaf));
                }
                if let Some(key) = keys.get_mut(leaf as usize) {
                    let ticket = ticket as u64 / 2 * 2 + u64::from(leaf % 2);
                    *key = if weight > 0 { Key::open(leaf, work, weight, ticket) } else { Key::closed(leaf) };
                    tree.set(*key);
                }
                let open = keys.iter().filter(|key| key.weight() > 0);
                let best = open.min_by(|a, b| if a.beats(b) { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater });
                let beaten = |leaf: u32| keys.iter().any(|key| key.beats(&keys[leaf as usize]));
                prop_assert_eq!(tree.best().is_some(), best.is_some());
                prop_assert!(!tree.best().is_some_and(beaten));
            }
        }
    }
}
