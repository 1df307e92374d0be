/// From here on an endpoint is closed. Times a weight below 2^24 it still fits in 64 bits.
const CLOSED: i64 = 1 << 39;

/// How an endpoint stands beside the others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// `2 load + offset`, in 1/256 requests, a thousand million requests at most; `CLOSED`: more than any. Less than 0 if
    /// others have much less there than elsewhere.
    work: i64,
    /// When it was picked last, in picks: no two are the same, but for closed ones.
    ticket: u64,
    /// In 1/256, at least 1.
    weight: u32,
    /// Whose it is.
    leaf: u32,
}

impl Key {
    /// With no weight it is closed.
    fn new(leaf: u32, work: i64, weight: u32, ticket: u64) -> Self {
        if weight == 0 {
            Self { work: CLOSED, weight: 1, ticket: 0, leaf }
        } else {
            Self { work: work.clamp(1 - CLOSED, CLOSED - 1), weight, ticket, leaf }
        }
    }

    /// The weight in use, in 1/256; 0: it is closed.
    pub(super) const fn weight(&self) -> u32 {
        if self.work < CLOSED { self.weight } else { 0 }
    }

    /// Whether it has less work for its weight, compared exactly; of equals, whether it was picked longer ago.
    pub(super) const fn beats(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.work * other.weight as i64, other.work * self.weight as i64);
        ours < theirs || ours == theirs && self.ticket < other.ticket
    }
}

/// A winner tree: each inner node holds the better of its two children, so that the root is the best of all, and a
/// change is felt on one path only (Knuth, The Art of Computer Programming 3, 5.4.1).
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// 1-based: the children of `n` are `2n` and `2n + 1`; the second half are the leaves, in order, as many as the next
    /// power of two.
    nodes: Vec<Key>,
    len: usize,
}

impl Tree {
    fn first_leaf(&self) -> usize {
        self.nodes.len() / 2
    }

    pub(super) fn keys(&self) -> &[Key] {
        &self.nodes[self.first_leaf()..][..self.len]
    }

    /// Adds a closed leaf at the end; its number. O(leaves) when the tree has to grow, so O(1) over many.
    pub(super) fn push(&mut self) -> u32 {
        let leaf = self.len;
        self.len += 1;
        if leaf >= self.first_leaf() {
            let leaves = self.len.next_power_of_two();
            let closed = |leaf: usize| Key::new(leaf as u32, 0, 0, 0);
            let kept = self.nodes.split_off(self.first_leaf());
            self.nodes = vec![closed(0); leaves];
            self.nodes.extend(kept);
            let known = self.nodes.len() - leaves;
            self.nodes.extend((known..leaves).map(closed));
            for node in (1..leaves).rev() {
                let (one, other) = (self.nodes[2 * node], self.nodes[2 * node + 1]);
                self.nodes[node] = if one.beats(&other) { one } else { other };
            }
        }
        leaf as u32
    }

    /// The best that is open.
    pub(super) fn best(&self) -> Option<u32> {
        let best = self.nodes.get(1)?;
        (best.work < CLOSED).then_some(best.leaf)
    }

    /// Changes a leaf: its work, its weight (0 closes it), and when it was picked last. O(log leaves), less where it neither was nor
    /// becomes the better one.
    pub(super) fn set(&mut self, leaf: u32, work: i64, weight: u32, ticket: u64) {
        let nodes = &mut *self.nodes;
        let mut node = nodes.len() / 2 + leaf as usize;
        let mut best = Key::new(leaf, work, weight, ticket);
        nodes[node] = best;
        while node > 1 {
            let rival = &nodes[node ^ 1];
            if rival.beats(&best) {
                best = *rival;
            }
            node /= 2;
            let parent = &mut nodes[node];
            let was = std::mem::replace(parent, best).leaf;
            if was != leaf && best.leaf != leaf {
                break;
            }
        }
    }
}
