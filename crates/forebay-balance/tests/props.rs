//! Requests that are held are shared as the theory of apportionment says, whatever the weights.
//!
//! Many cases: `PROPTEST_CASES=10000000 cargo test --release -p forebay-balance --test props apportioned`

use forebay_balance::{Balance, Endpoint, Fleet, Offset};
use forebay_core::Class;
use proptest::prelude::*;

fn fleet(weights: &[u16], offset: Offset) -> Fleet<usize> {
    let add = |builder: forebay_balance::BalanceBuilder<usize>, (index, weight): (usize, &u16)| {
        builder.endpoint(Endpoint::with_service(index.to_string(), index).weight(*weight))
    };
    weights.iter().enumerate().fold(Balance::builder().offset(offset), add).build().expect("valid").fleet()
}

fn offset() -> impl Strategy<Value = Offset> {
    prop_oneof![Just(Offset::Half), Just(Offset::FiveEighths), Just(Offset::Zero), Just(Offset::One)]
}

/// Of all sizes: half of them small, some of them the extremes.
fn weight() -> impl Strategy<Value = u16> {
    prop_oneof![4 => 1..10_u16, 2 => 1..1000_u16, 1 => 1..=u16::MAX, 1 => Just(1), 1 => Just(u16::MAX)]
}

/// Whether `counts` are the apportionment by the method of the offset (Webster's, Adams's, D'Hondt's or the one between): none that has a request
/// had a weaker claim to its last than another has to its next (Balinski and Young, Fair Representation, 1982: the
/// min-max inequality of divisor methods).
fn is_apportioned(counts: &[u64], weights: &[u16], offset: Offset) -> bool {
    let eighths = match offset {
        Offset::Zero => 0,
        Offset::Half => 4,
        Offset::One => 8,
        _ => 5,
    };
    let all = || counts.iter().zip(weights);
    all().filter(|(count, _)| **count > 0).all(|(count, weight)| {
        let last = 8 * (count - 1) + eighths;
        all().all(|(other, of)| {
            let next = 8 * other + eighths;
            u128::from(last) * u128::from(*of) <= u128::from(next) * u128::from(*weight)
        })
    })
}

proptest! {
    #[test]
    fn held_requests_are_apportioned(
        weights in prop::collection::vec(weight(), 1..12), held in 0..150_usize, offset in offset(),
    ) {
        let fleet = fleet(&weights, offset);
        let mut counts = vec![0; weights.len()];
        let picks: Vec<_> = (0..held).map(|_| fleet.pick(Class::P1).expect("no endpoint is full")).collect();
        picks.iter().for_each(|pick| counts[pick.service] += 1);
        prop_assert!(is_apportioned(&counts, &weights, offset), "{:?} of {:?}", counts, weights);
    }

    /// Also in a fleet that has ended some: what is added to it then is apportioned as soon as there is enough of it.
    #[test]
    fn what_was_released_is_made_up_for(
        weights in prop::collection::vec(1..50_u16, 1..8), ended in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        offset in offset(),
    ) {
        let fleet = fleet(&weights, offset);
        let pick = || fleet.pick(Class::P1).expect("no endpoint is full");
        let mut picks: Vec<_> = (0..50).map(|_| pick()).collect();
        ended.iter().for_each(|index| drop(picks.swap_remove(index.index(picks.len()))));
        // Nobody has more than when there were 50, so that many are enough.
        picks.extend((picks.len()..50).map(|_| pick()));
        let mut counts = vec![0; weights.len()];
        picks.iter().for_each(|pick| counts[pick.service] += 1);
        prop_assert!(is_apportioned(&counts, &weights, offset), "{:?} of {:?}", counts, weights);
    }

    #[test]
    fn nobody_starves(weights in prop::collection::vec(prop_oneof![1..10_u16, 1..500_u16], 1..12), offset in offset()) {
        starves_nobody(&weights, offset);
    }
}

/// Between two picks of an endpoint, and before its first, there are fewer than `ceil(W/w) + N` held ones.
fn starves_nobody(weights: &[u16], offset: Offset) {
    let all: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
    let bounds: Vec<usize> = weights.iter().map(|weight| all.div_ceil(usize::from(*weight)) + weights.len()).collect();
    let longest = *bounds.iter().max().expect("an endpoint");
    let fleet = fleet(weights, offset);
    let (mut picks, mut last) = (Vec::new(), vec![0; weights.len()]);
    for turn in 1..=2 * longest {
        let pick = fleet.pick(Class::P1).expect("no endpoint is full");
        last[pick.service] = turn;
        picks.push(pick);
        for (index, last) in last.iter().enumerate() {
            assert!(turn - last < bounds[index], "{index} of {weights:?} waits for more than {}", bounds[index]);
        }
    }
}

#[test]
fn the_smallest_weight_beside_the_largest_is_served() {
    for offset in [Offset::Zero, Offset::Half, Offset::FiveEighths, Offset::One] {
        starves_nobody(&[u16::MAX, 1], offset);
        starves_nobody(&[1, 1, u16::MAX], offset);
    }
}
