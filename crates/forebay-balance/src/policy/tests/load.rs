//! What servers say about themselves.

use super::*;
use crate::probe::{CloseCause, Verdict};

fn heard(requests: Option<u32>, own_sent: u32) -> Heard {
    let load = requests.map_or(Load::Unknown, |requests| Load::Requests { requests, own_sent });
    Heard { load, verdict: Verdict::Factor(1.0), valid: Duration::from_secs(2) }
}

fn probed(endpoints: &[(u16, Option<u32>)]) -> (Picker, Instant) {
    let now = now();
    let mut picker = Picker::new(Settings::default(), Routes::to_one_pool(), 1, 7, now);
    for (weight, max) in endpoints {
        picker.insert(New { probed: true, ..new(*weight, *max) }, now);
    }
    (picker, now)
}

fn loads(picker: &Picker) -> Vec<f64> {
    picker.slots.iter().map(|slot| slot.load_units() as f64 / 256.0).collect()
}

#[test]
fn r17_what_others_have_there_counts_and_ours_not_twice() {
    let (mut picker, now) = probed(&[(1, None), (1, None)]);
    let held: Vec<_> = (0..4).map(|_| pick(&mut picker, now).expect("open")).collect();
    picker.heard(0, &heard(Some(5), 2), now); // two are ours
    picker.heard(1, &heard(Some(1), 1), now); // it has not seen our second yet
    assert_eq!(loads(&picker), [5.0, 2.0]);
    end(&mut picker, &held[0], Outcome::Success, now, now);
    picker.heard(0, &heard(Some(5), 2), now); // one of ours ended while the probe was out
    assert_eq!(loads(&picker), [4.0, 2.0]);
    assert_eq!(pick(&mut picker, now).expect("open").index, 1);
}

#[test]
fn r18_unknown_is_never_idle() {
    let (mut picker, now) = probed(&[(1, None), (3, None), (2, None)]);
    picker.heard(0, &heard(Some(4), 0), now);
    assert_eq!(loads(&picker), [4.0, 12.0, 8.0], "as much for their weight");
    picker.heard(1, &heard(Some(0), 0), now);
    picker.heard(2, &heard(None, 0), now);
    assert_eq!(loads(&picker), [4.0, 0.0, 2.0]);
    picker.heard(1, &heard(Some(6), 0), now + Duration::from_secs(1));
    picker.advance(now + Duration::from_secs(2)); // what the first said is stale
    assert_eq!(loads(&picker), [2.0, 6.0, 4.0]);
    picker.advance(now + Duration::from_secs(9));
    assert!(picker.slots.iter().all(|slot| slot.foreign == foreign::Foreign::Unknown));
}

#[test]
fn r31_what_others_have_there_takes_places() {
    let (mut picker, now) = probed(&[(1, Some(4))]);
    picker.heard(0, &heard(Some(3), 0), now);
    assert_eq!(picker.places(None).open, 1);
    assert!(pick(&mut picker, now).is_ok());
    assert_eq!(pick(&mut picker, now), Err(PickError::AtCapacity));
}

#[test]
fn r15_a_factor_moves_step_by_step() {
    let (mut picker, now) = probed(&[(100, None), (100, None)]);
    let judge = |picker: &mut Picker, factor| {
        picker.heard(0, &Heard { verdict: Verdict::Factor(factor), ..heard(Some(0), 0) }, now);
        picker.slots[0].weight
    };
    assert_eq!(judge(&mut picker, 0.0), 12_800, "half at most");
    assert_eq!(judge(&mut picker, 0.0), 6_400);
    assert_eq!(judge(&mut picker, 0.26), 6_400, "not for less than a tenth");
    assert_eq!(judge(&mut picker, 1.0), 8_000, "a quarter more at most");
    assert_eq!(judge(&mut picker, f32::NAN), 10_000, "no number is no reason");
    for _ in 0..60 {
        judge(&mut picker, 0.0);
    }
    assert_eq!(picker.slots[0].weight, 100, "1/256 at least");
    picker.advance(now + Duration::from_secs(3));
    assert_eq!(picker.slots[0].weight, 25_600, "stale: as if it had said nothing");
}

#[test]
fn r28_what_a_rule_closes_opens_again() {
    let (mut picker, now) = probed(&[(1, None); 3]);
    let closed = Heard { verdict: Verdict::Close(CloseCause::KvCache), ..heard(Some(0), 0) };
    picker.heard(0, &closed, now);
    assert_eq!(picker.slots[0].state(), EndpointState::Closed(CloseCause::KvCache));
    assert!((0..6).all(|_| pick(&mut picker, now).expect("the others").index != 0));
    picker.heard(0, &heard(Some(0), 0), now);
    assert_eq!(pick(&mut picker, now).expect("open").index, 0);
}

#[test]
fn what_a_page_does_not_say_anew_is_not_read_again_with_newer_counts() {
    let (mut picker, now) = probed(&[(1, None), (1, None)]);
    picker.heard(0, &heard(Some(10), 0), now);
    let held: Vec<_> = (0..4).map(|_| picker.pick(Ask::default(), &[1], now).expect("open")).collect();
    let unsaid = Heard { load: Load::Unsaid, ..heard(None, 0) };
    picker.heard(0, &unsaid, now + Duration::from_secs(1));
    assert_eq!(loads(&picker)[0], 14.0, "ten of others, and our four");
    picker.advance(now + Duration::from_secs(2));
    assert_eq!(loads(&picker)[0], 4.0, "nor for longer: it is stale");
    drop(held);
}

#[test]
fn what_was_said_by_hand_stays_when_an_endpoint_is_inserted_again() {
    let (mut picker, now) = fleet(&[(1, None), (1, None)]);
    picker.set_health(0, false, now);
    picker.heard(1, &heard(Some(3), 0), now);
    for index in 0..2 {
        picker.update(index, new(2, None), now);
    }
    assert_eq!(picker.slots[0].state(), EndpointState::Down);
    assert_eq!(loads(&picker)[1], 3.0);
}

#[test]
fn r17_the_older_news_is_the_less_it_counts_and_what_all_have_counts_for_nothing() {
    let surplus = |every: u64| {
        let (mut picker, now) = probed(&[(1, None), (3, None), (1, None)]);
        let later = now + Duration::from_millis(every);
        for at in [now, later] {
            picker.heard(0, &heard(Some(5), 0), at);
            picker.heard(1, &heard(Some(3), 0), at);
        }
        picker.slots.iter().map(|slot| slot.surplus as f64 / 256.0).collect::<Vec<f64>>()
    };
    // Two requests for each unit of weight; a request takes a second, as far as is known.
    assert_eq!(surplus(0), [3.0, -3.0, 0.0], "in full, and of who does not say nothing is assumed");
    let old = surplus(1000);
    assert!((old[0] - 3.0 / 9.0).abs() < 0.05 && old[1] == -old[0], "eight others' requests for one of ours: {old:?}");
    assert!((1..10).map(|every| surplus(200 * every)[0]).is_sorted_by(|a, b| a > b));
}

#[test]
fn r17_what_stays_the_same_counts_in_full_after_a_while() {
    let (mut picker, now) = probed(&[(1, None), (1, None)]);
    let mut surplus = Vec::new();
    for second in 0..600 {
        picker.heard(0, &heard(Some(8), 0), now + Duration::from_secs(second));
        picker.heard(1, &heard(Some(0), 0), now + Duration::from_secs(second));
        surplus.push(picker.slots[0].surplus as f64 / 256.0);
    }
    assert!(surplus[1] < 1.0 && surplus[1..].is_sorted() && surplus[599] > 3.9, "four above its share: {surplus:?}");
    assert_eq!((0..4).filter(|_| pick(&mut picker, now).expect("open").index == 0).count(), 0);
}
