/// No leaf: one that is not there.
const NONE: u32 = u32::MAX;

/// How an endpoint stands beside the others.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Key {
    /// `2 load + offset`, in 1/256 requests.
    pub(super) work: u64,
    /// In 1/256; 0: closed, it loses to all.
    pub(super) weight: u32,
    /// When it was picked last, in picks.
    pub(super) ticket: u64,
}

impl Key {
    pub(super) const CLOSED: Self = Self { work: 0, weight: 0, ticket: 0 };

    /// Whether it has less work for its weight, compared exactly; of equals, whether it was picked longer ago.
    pub(super) fn beats(&self, other: &Self) -> bool {
        if self.weight == 0 || other.weight == 0 {
            return self.weight >= other.weight;
        }
        if (self.work | other.work) >> 39 == 0 {
            // Times a weight below 2^24 it still fits.
            let (ours, theirs) = (self.work * u64::from(other.weight), other.work * u64::from(self.weight));
            return ours < theirs || ours == theirs && self.ticket <= other.ticket;
        }
        let ours = u128::from(self.work) * u128::from(other.weight);
        let theirs = u128::from(other.work) * u128::from(self.weight);
        ours < theirs || ours == theirs && self.ticket <= other.ticket
    }
}

/// A winner tree: each inner node holds the better of the winners of its two children, so that the root is the best of
/// all, and a change is felt on one path only (Knuth, The Art of Computer Programming 3, 5.4.1).
#[derive(Debug, Default)]
pub(super) struct Tree {
    keys: Vec<Key>,
    /// 1-based: the children of `n` are `2n` and `2n + 1`; behind the inner nodes stand the leaves, in order.
    nodes: Vec<u32>,
    leaves: usize,
}

impl Tree {
    pub(super) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Adds a closed leaf at the end; its number. O(leaves) when the tree has to grow, so O(1) over many.
    pub(super) fn push(&mut self) -> u32 {
        let leaf = self.keys.len();
        self.keys.push(Key::CLOSED);
        if leaf >= self.leaves {
            self.leaves = self.keys.len().next_power_of_two();
            self.nodes = vec![NONE; 2 * self.leaves];
            for node in (1..self.leaves + leaf + 1).rev() {
                self.nodes[node] = if node >= self.leaves { (node - self.leaves) as u32 } else { self.winner(node) };
            }
        } else {
            self.nodes[self.leaves + leaf] = leaf as u32;
            self.set(leaf as u32, Key::CLOSED);
        }
        leaf as u32
    }

    /// The best that is open.
    pub(super) fn best(&self) -> Option<u32> {
        let best = *self.nodes.get(1)?;
        (self.keys.get(best as usize)?.weight > 0).then_some(best)
    }

    /// Changes a leaf. O(log leaves), less where it neither was nor becomes the better one.
    pub(super) fn set(&mut self, leaf: u32, key: Key) {
        self.keys[leaf as usize] = key;
        let mut node = (self.leaves + leaf as usize) / 2;
        while node > 0 {
            let winner = self.winner(node);
            let before = std::mem::replace(&mut self.nodes[node], winner);
            if before != leaf && winner != leaf {
                break;
            }
            node /= 2;
        }
    }

    fn winner(&self, node: usize) -> u32 {
        let (a, b) = (self.nodes[2 * node], self.nodes[2 * node + 1]);
        match (self.keys.get(a as usize), self.keys.get(b as usize)) {
            (Some(one), Some(other)) => {
                if one.beats(other) {
                    a
                } else {
                    b
                }
            }
            _ => a.min(b), // one of them is not there
        }
    }
}
