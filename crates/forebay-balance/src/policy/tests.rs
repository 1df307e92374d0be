use super::*;
use proptest::prelude::*;

#[test]
fn held_requests_are_shared_exactly_by_weight() {
    let mut picker = Picker::new([(3, None), (2, None), (1, None)]);
    for _ in 0..600 {
        picker.pick(Claim::Open, &[]).expect("open");
    }
    assert_eq!(picker.slots.iter().map(|slot| slot.in_flight).collect::<Vec<_>>(), [300, 200, 100]);
}

#[test]
fn an_equal_fleet_is_round_robin_also_when_idle() {
    let mut picker = Picker::new([(1, None); 3]);
    let order: Vec<_> = (0..6)
        .map(|_| {
            let index = picker.pick(Claim::Open, &[]).expect("open");
            picker.release(index);
            index
        })
        .collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn drained_full_and_excluded_are_told_apart() {
    let mut picker = Picker::new([(0, None), (1, Some(1)), (1, None)]);
    assert_eq!(picker.pick(Claim::Open, &[2]), Ok(1));
    assert_eq!(picker.pick(Claim::Open, &[2]), Err(PickError::AtCapacity));
    assert_eq!(picker.pick(Claim::Open, &[1, 2]), Err(PickError::NoEndpoint));
    assert_eq!(Picker::default().pick(Claim::Open, &[]), Err(PickError::NoEndpoint));
    let mut huge = Picker::new([(u16::MAX, None)]);
    huge.slots[0].in_flight = u32::MAX - 1;
    assert_eq!(huge.pick(Claim::Open, &[]), Ok(0), "no overflow");
}

#[test]
fn reserved_places_are_for_those_who_reserved() {
    let mut picker = Picker::new([(1, Some(1)), (1, Some(1)), (0, None)]);
    assert!(picker.reserve());
    assert_eq!(picker.pick(Claim::Open, &[]), Ok(0));
    assert_eq!(picker.pick(Claim::Open, &[]), Err(PickError::AtCapacity));
    assert!(!picker.reserve());
    assert_eq!(picker.shift(0, &[0]), Ok(1), "what it gives back pays for what it takes");
    assert_eq!(picker.shift(1, &[0, 1]), Err(PickError::NoEndpoint));
    assert_eq!(picker.slots[1].in_flight, 1, "as it was");
    assert_eq!(picker.pick(Claim::Reserved, &[]), Ok(0));
    assert_eq!((picker.reserved, picker.free), (0, 0));
}

#[test]
fn who_leaves_a_drained_endpoint_takes_no_reserved_place() {
    let mut picker = Picker::new([(2, Some(1)), (1, Some(1))]);
    assert_eq!(picker.pick(Claim::Open, &[]), Ok(0));
    assert!(picker.reserve());
    picker.change(0, |slot| slot.weight = 0);
    assert_eq!(picker.shift(0, &[0]), Err(PickError::AtCapacity));
    assert_eq!(picker.pick(Claim::Reserved, &[]), Ok(1));
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let mut picker = Picker::new([(u16::MAX, Some(u32::MAX)); 3]);
    let all = Places { endpoints: 3, weight: 3 * 65535, total: u32::MAX, open: u32::MAX };
    assert_eq!(picker.places(), all);
    picker.change(0, |slot| slot.max_concurrency = None);
    assert_eq!(picker.places(), all);
    assert!(picker.reserve());
    assert_eq!(Picker::default().places(), Places::default());
}

proptest! {
    #[test]
    fn every_pick_is_the_naive_one(
        weights in prop::collection::vec(0..=20_u16, 1..8),
        steps in prop::collection::vec((any::<bool>(), 0..8_usize), 0..200),
    ) {
        let mut picker = Picker::new(weights.iter().map(|weight| (*weight, Some(9))));
        let mut model: Vec<(u32, usize)> = vec![(0, 0); weights.len()]; // in flight, step of the last pick
        for (step, (release, index)) in steps.into_iter().enumerate() {
            if release {
                if let Some(slot) = model.get_mut(index).filter(|slot| slot.0 > 0) {
                    slot.0 -= 1;
                    picker.release(index);
                }
                continue;
            }
            let expected = (0..weights.len())
                .filter(|i| weights[*i] > 0 && model[*i].0 < 9)
                .min_by(|a, b| {
                    let key = |i: usize| f64::from(2 * model[i].0 + 1) / f64::from(weights[i]);
                    key(*a).total_cmp(&key(*b)).then(model[*a].1.cmp(&model[*b].1))
                });
            let got = picker.pick(Claim::Open, &[]);
            prop_assert_eq!(got.ok(), expected);
            if let Ok(index) = got {
                model[index] = (model[index].0 + 1, step + 1);
            }
        }
    }
}
