use super::Slot;

/// No endpoint: a leaf that is not there.
const NONE: u32 = u32::MAX;

/// A winner tree: each inner node holds the better of the winners of its two children, so that the root is the best of
/// all, and a change is felt on one path only (Knuth, The Art of Computer Programming 3, 5.4.1).
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// 1-based: the children of `n` are `2n` and `2n + 1`; behind the inner nodes stand the leaves, in order.
    nodes: Vec<u32>,
    leaves: usize,
}

impl Tree {
    /// O(endpoints).
    pub(super) fn new(slots: &[Slot]) -> Self {
        let leaves = slots.len().next_power_of_two().max(1);
        let mut nodes = vec![NONE; 2 * leaves];
        for index in 0..slots.len() {
            nodes[leaves + index] = index as u32; // far fewer endpoints than u32 has numbers
        }
        for node in (1..leaves).rev() {
            nodes[node] = better(slots, nodes[2 * node], nodes[2 * node + 1]);
        }
        Self { nodes, leaves }
    }

    /// The best that is open.
    pub(super) fn best(&self, slots: &[Slot]) -> Option<usize> {
        let best = *self.nodes.get(1)?;
        (best != NONE && slots[best as usize].is_open()).then_some(best as usize)
    }

    /// An endpoint has changed. O(log endpoints), less where it neither was nor becomes the better one.
    pub(super) fn update(&mut self, slots: &[Slot], index: usize) {
        let mut node = (self.leaves + index) / 2;
        while node > 0 {
            let winner = better(slots, self.nodes[2 * node], self.nodes[2 * node + 1]);
            let before = std::mem::replace(&mut self.nodes[node], winner);
            if before != index as u32 && winner != index as u32 {
                break;
            }
            node /= 2;
        }
    }
}

/// Which of two has less work for its weight, compared exactly; of equals the one that was picked longer ago. What is
/// closed loses to all.
fn better(slots: &[Slot], a: u32, b: u32) -> u32 {
    let (Some(one), Some(other)) = (slots.get(a as usize), slots.get(b as usize)) else {
        return a.min(b); // one of them is not there
    };
    let key = |of: &Slot, against: &Slot| {
        // Below 2^33 times below 2^16.
        let work = (2 * u64::from(of.in_flight) + 1) * u64::from(against.weight);
        (!of.is_open(), work, of.last_pick)
    };
    if key(one, other) <= key(other, one) { a } else { b }
}
