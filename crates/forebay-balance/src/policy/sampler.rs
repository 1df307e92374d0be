/// Draws leaves in proportion to their weights: a Fenwick tree (Fenwick, A New Data Structure for Cumulative Frequency
/// Tables, 1994) of these.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    /// 1-based: at `n` the sum of the `n & -n` weights that end there.
    sums: Vec<u64>,
}

impl Sampler {
    /// Adds a leaf without weight at the end. O(log leaves).
    pub(super) fn push(&mut self) {
        if self.sums.is_empty() {
            self.sums.push(0); // nobody's
        }
        let at = self.sums.len();
        let below = at & (at - 1);
        let mut sum = 0;
        let mut part = at - 1;
        while part > below {
            sum += self.sums[part];
            part &= part - 1;
        }
        self.sums.push(sum);
    }

    /// Changes the weight of a leaf. O(log leaves).
    #[inline(never)]
    pub(super) fn change(&mut self, leaf: u32, from: u32, to: u32) {
        let mut at = leaf as usize + 1;
        while let Some(sum) = self.sums.get_mut(at) {
            *sum = *sum + u64::from(to) - u64::from(from);
            at += at & at.wrapping_neg();
        }
    }

    fn total(&self) -> u64 {
        let mut at = self.sums.len().saturating_sub(1);
        let mut total = 0;
        while at > 0 {
            total += self.sums[at];
            at &= at - 1;
        }
        total
    }

    /// The leaf that a draw of 64 bits falls on; `None`: no leaf has a weight. O(log leaves).
    pub(super) fn draw(&self, random: u64) -> Option<u32> {
        let mut rest = ((u128::from(random) * u128::from(self.total())) >> 64) as u64;
        let mut at = 0;
        let mut step = (self.sums.len() / 2 + 1).next_power_of_two();
        while step > 0 {
            if let Some(sum) = self.sums.get(at + step)
                && *sum <= rest
            {
                (at, rest) = (at + step, rest - sum);
            }
            step /= 2;
        }
        (at + 1 < self.sums.len()).then_some(at as u32)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A draw that falls on the first `at` units of the total.
    fn random(at: u64, total: u64) -> u64 {
        ((u128::from(at) << 64).div_ceil(u128::from(total))) as u64
    }

    proptest! {
        #[test]
        fn each_unit_of_weight_is_drawn_once(weights in prop::collection::vec(0_u32..6, 0..40), grow in any::<bool>()) {
            let mut sampler = Sampler::default();
            if !grow {
                weights.iter().for_each(|_| sampler.push());
            }
            for (leaf, weight) in weights.iter().enumerate() {
                if grow {
                    sampler.push();
                }
                sampler.change(leaf as u32, 0, 9);
                sampler.change(leaf as u32, 9, *weight);
            }
            let total = weights.iter().map(|weight| u64::from(*weight)).sum::<u64>();
            let mut drawn = vec![0; weights.len()];
            for at in 0..total {
                drawn[sampler.draw(random(at, total)).expect("some have a weight") as usize] += 1;
            }
            prop_assert_eq!(drawn, weights);
            prop_assert_eq!(sampler.draw(u64::MAX).is_some(), total > 0);
        }
    }
}
