use super::*;
use proptest::prelude::*;

#[test]
fn held_requests_are_shared_exactly_by_weight() {
    let mut picker = Picker::new([(3, None), (2, None), (1, None)]);
    for _ in 0..600 {
        picker.pick(&[]).expect("open");
    }
    assert_eq!(picker.slots.iter().map(|slot| slot.in_flight).collect::<Vec<_>>(), [300, 200, 100]);
}

#[test]
fn an_equal_fleet_is_round_robin_also_when_idle() {
    let mut picker = Picker::new([(1, None); 3]);
    let order: Vec<_> = (0..6)
        .map(|_| {
            let index = picker.pick(&[]).expect("open");
            picker.release(index);
            index
        })
        .collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn drained_full_and_excluded_are_told_apart() {
    let mut picker = Picker::new([(0, None), (1, Some(1)), (1, None)]);
    assert_eq!(picker.pick(&[2]), Ok(1));
    assert_eq!(picker.pick(&[2]), Err(PickError::AtCapacity));
    assert_eq!(picker.pick(&[1, 2]), Err(PickError::NoEndpoint));
    assert_eq!(Picker::default().pick(&[]), Err(PickError::NoEndpoint));
    let mut huge = Picker::new([(u16::MAX, None)]);
    huge.slots[0].in_flight = u32::MAX - 1;
    assert_eq!(huge.pick(&[]), Ok(0), "no overflow");
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
            let got = picker.pick(&[]);
            prop_assert_eq!(got.ok(), expected);
            if let Ok(index) = got {
                model[index] = (model[index].0 + 1, step + 1);
            }
        }
    }
}
