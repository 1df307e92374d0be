//! How much more than its share an endpoint may have before a key goes to the next.
//!
//! Consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, SODA 2018) with the factor 1.25, for
//! weights: busy keys spill over to the next endpoint of their order instead of queueing, and the others stay where they
//! are.

/// Whether an endpoint may have one request more: `load + 1 <= ceil(1.25 * weight / total_weight * (total_load + 1))`.
///
/// `load` is what it has in flight, and `total_load` what all have together; `weight` is its part of `total_weight`, in
/// any one unit, such as 1/256. Exact, for all values; `false` for a weight of 0. While loads and weights add up to their
/// totals some endpoint is within its bound. O(1).
///
/// ```
/// use forebay_balance::affinity::bound::within;
/// // Four equal endpoints and 15 requests: 5 each, which is 1.25 times the share of 4.
/// assert!(within(4, 1, 4, 15));
/// assert!(!within(5, 1, 4, 15));
/// ```
#[must_use]
pub const fn within(load: u64, weight: u32, total_weight: u64, total_load: u64) -> bool {
    if weight == 0 || total_weight == 0 {
        return false;
    }
    // 1.25 = 5/4. At most 5 * 2^32 * 2^64, so it fits.
    let most = (5 * weight as u128 * (total_load as u128 + 1)).div_ceil(4 * total_weight as u128);
    (load as u128) < most
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::within;

    #[test]
    fn the_first_request_goes_anywhere() {
        assert!(within(0, 1, u64::MAX, 0));
        assert!(within(0, 65_535, 65_536, 0) && within(0, 1, 65_536, 0));
    }

    #[test]
    fn without_weight_there_is_no_bound_to_keep() {
        assert!(!within(0, 0, 5, 100) && !within(0, 0, 0, 0) && !within(0, 1, 0, 0));
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        assert!(within(u64::MAX, u32::MAX, u32::MAX.into(), u64::MAX));
        assert!(!within(u64::MAX, 1, 4, u64::MAX) && !within(u64::MAX, u32::MAX, u64::MAX, 0));
    }

    proptest! {
        #[test]
        fn r38_as_the_formula_says(load in 0..50_u64, weight in 1..20_u32, others in 0..80_u64, total_load in 0..200_u64) {
            let total = u64::from(weight) + others;
            // 1.25 w/W (M+1) is a fraction over 4 W: rounded up, by counting.
            let part = 5 * u64::from(weight) * (total_load + 1);
            let most = (0..).find(|most| most * 4 * total >= part).expect("it is finite");
            prop_assert_eq!(within(load, weight, total, total_load), load < most);
        }

        #[test]
        fn somebody_is_always_within(fleet in prop::collection::vec((any::<u32>(), any::<u32>()), 1..20)) {
            let weight: u64 = fleet.iter().map(|&(weight, _)| u64::from(weight)).sum();
            let load: u64 = fleet.iter().map(|&(_, load)| u64::from(load)).sum();
            let any = fleet.iter().any(|&(own, has)| within(has.into(), own, weight, load));
            prop_assert_eq!(any, weight > 0);
        }
    }
}
