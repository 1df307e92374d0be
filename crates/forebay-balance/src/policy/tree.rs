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
    /// The name of who lost nowhere, if its key is another by now and it has yet to play its matches with that: see
    /// [`put_off`](Self::put_off).
    late: Option<u32>,
}

impl Tree {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// As it was when it was last not put off. O(log leaves); about two nodes on average.
    pub(super) fn key(&self, leaf: u32) -> &Key {
        &self.losers[self.lost(leaf).0]
    }

    /// Adds a closed leaf at the end, once nothing is [put off](Self::settle); its number. O(leaves) when the tree has to
    /// grow, so O(1) over many.
    pub(super) fn push(&mut self) -> u32 {
        debug_assert!(self.late.is_none());
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

    /// The best that is open. As [`settle`](Self::settle).
    #[inline(always)]
    pub(super) fn best(&mut self, key: impl FnOnce(u32) -> Key) -> Option<u32> {
        let best = self.settle(key)?;
        (best.work < CLOSED).then_some(best.leaf)
    }

    /// Lets whose change was put off play its matches, with the key of its name; who is the best then. O(log leaves), or
    /// O(1) where nothing was put off.
    #[inline(always)]
    pub(super) fn settle(&mut self, key: impl FnOnce(u32) -> Key) -> Option<Key> {
        match self.late.take() {
            Some(late) => Some(self.replay(key(late), 0)),
            None => self.losers.first().copied(),
        }
    }

    /// Puts the change of a leaf off until somebody asks for the best, if it is the best so far: where it is picked and
    /// released before another pick its matches are played once. False: it is not, so it has to be changed at once. O(1).
    #[inline(always)]
    pub(super) fn put_off(&mut self, leaf: u32, name: u32) -> bool {
        let best = self.losers[0].leaf == leaf;
        if best {
            self.late = Some(name);
        }
        best
    }

    /// Changes a leaf. O(log leaves); about four nodes where it gets better and does not become the best.
    #[inline(never)]
    pub(super) fn set(&mut self, key: Key) {
        if key.leaf == self.losers[0].leaf {
            self.late = None;
            self.replay(key, 0);
        } else if key.beats(self.key(key.leaf)) {
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

    /// It got worse, so whom it beat may beat it.
    #[inline(always)]
    pub(super) fn fall(&mut self, key: Key) {
        debug_assert!(!key.beats(self.key(key.leaf)));
        self.replay(key, self.lost(key.leaf).0);
    }

    /// Plays the matches up to where it lost: who wins them loses there, too, to who beat it, or nowhere.
    #[inline(always)] // so that the key stays in registers
    fn replay(&mut self, key: Key, lost: usize) -> Key {
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
        best
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
            if !key.beats(&rival) || above == 0 && self.late.is_some() {
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
            changes in prop::collection::vec((0..40_u32, -3..4_i64, 0..4_u32, any::<bool>(), any::<bool>()), 0..200),
            leaves in 1..40_u32,
        ) {
            let mut tree = Tree::default();
            let mut keys: Vec<Key> = Vec::new();
            for (ticket, (leaf, work, weight, grow, ask)) in changes.into_iter().enumerate() {
                if grow && tree.len() < leaves as usize {
                    tree.settle(|name| keys[name as usize - 100]);
                    let leaf = tree.push();
                    keys.push(Key::closed(leaf));
                }
                if let Some(key) = keys.get_mut(leaf as usize) {
                    let ticket = ticket as u64 / 2 * 2 + u64::from(leaf % 2);
                    *key = if weight > 0 { Key::open(leaf, work, weight, ticket) } else { Key::closed(leaf) };
                    if weight == 0 || ticket.is_multiple_of(3) || !tree.put_off(leaf, leaf + 100) {
                        tree.set(*key);
                    }
                }
                if !ask {
                    continue;
                }
                let open = keys.iter().filter(|key| key.weight() > 0);
                let best = open.min_by(|a, b| if a.beats(b) { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater });
                let beaten = |leaf: u32| keys.iter().any(|key| key.beats(&keys[leaf as usize]));
                let found = tree.best(|name| keys[name as usize - 100]);
                prop_assert_eq!(found.is_some(), best.is_some());
                prop_assert!(!found.is_some_and(beaten));
                prop_assert_eq!(tree.best(|_| unreachable!("nothing is put off")), found);
            }
        }
    }
}
