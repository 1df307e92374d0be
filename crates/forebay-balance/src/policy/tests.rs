use std::time::{Duration, Instant};

use forebay_core::{Class, Outcome, Places};

use super::*;
use crate::ledger::now;

fn new(weight: u16, max_concurrency: Option<u32>) -> New {
    New { pool: 0, weight, max_concurrency, checked: false, probed: false, id_hash: u64::from(weight), group_hash: 0 }
}

/// A picker of one pool, and its time.
pub(super) fn fleet(endpoints: &[(u16, Option<u32>)]) -> (Picker, Instant) {
    let now = now();
    let mut picker = Picker::new(Settings::default(), Routes::to_one_pool(), 1, 7, now);
    for (weight, max) in endpoints {
        picker.insert(new(*weight, *max), now);
    }
    (picker, now)
}

pub(super) fn pick(picker: &mut Picker, now: Instant) -> Result<Picked, PickError> {
    picker.pick(Ask::default(), &[], now)
}

pub(super) fn end(picker: &mut Picker, picked: &Picked, outcome: Outcome, started: Instant, now: Instant) {
    let picked = Picked { started: Some(started), ..*picked };
    picker.release(&picked, &Ended { outcome, pause: None }, now);
}

fn own(picker: &Picker) -> Vec<u32> {
    picker.slots.iter().map(|slot| slot.own).collect()
}

#[test]
fn r1_held_requests_are_shared_exactly_by_weight() {
    let (mut picker, now) = fleet(&[(3, None), (2, None), (1, None)]);
    for _ in 0..600 {
        pick(&mut picker, now).expect("open");
    }
    assert_eq!(own(&picker), [300, 200, 100]);
}

#[test]
fn r2_an_equal_fleet_is_round_robin_also_when_idle() {
    let (mut picker, now) = fleet(&[(1, None); 3]);
    let mut order = Vec::new();
    for _ in 0..6 {
        let picked = pick(&mut picker, now).expect("open");
        end(&mut picker, &picked, Outcome::Success, now, now);
        order.push(picked.index);
    }
    assert_eq!(order, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn r4_smooth_round_robin_and_two_choices_follow_the_weights() {
    for policy in [Policy::RoundRobin, Policy::P2c] {
        let now = now();
        let settings = Settings { policy, ..Settings::default() };
        let mut picker = Picker::new(settings, Routes::to_one_pool(), 1, 7, now);
        for weight in [5, 1, 1] {
            picker.insert(new(weight, None), now);
        }
        let mut order = Vec::new();
        for _ in 0..700 {
            order.push(pick(&mut picker, now).expect("open").index);
        }
        match policy {
            Policy::RoundRobin => assert_eq!(order[..7], [0, 0, 1, 0, 2, 0, 0], "nginx's example"),
            _ => assert!(own(&picker)[0].abs_diff(500) < 15, "held: {:?}", own(&picker)),
        }
    }
}

#[test]
fn r5_weights_from_one_to_the_largest_each_get_their_share() {
    let (mut picker, now) = fleet(&[(u16::MAX, None), (1, None)]);
    let held = (0..=65_536).position(|_| pick(&mut picker, now).expect("open").index == 1).expect("the small one, too");
    assert!(held < 65_535 + 2);
}

#[test]
fn drained_full_and_excluded_are_told_apart() {
    let (mut picker, now) = fleet(&[(0, None), (1, Some(1)), (1, None)]);
    let index = |result: Result<Picked, PickError>| result.map(|picked| picked.index);
    assert_eq!(index(picker.pick(Ask::default(), &[2], now)), Ok(1));
    assert_eq!(index(picker.pick(Ask::default(), &[2], now)), Err(PickError::AtCapacity));
    assert_eq!(index(pick(&mut picker, now)), Ok(2));
    assert_eq!(fleet(&[(0, None)]).0.pick(Ask::default(), &[], now).map(|_| ()), Err(PickError::NoEndpoint));
    assert_eq!(fleet(&[]).0.pick(Ask::default(), &[], now).map(|_| ()), Err(PickError::NoEndpoint));
}

#[test]
fn reserved_places_are_for_those_who_reserved() {
    let (mut picker, now) = fleet(&[(1, Some(1)), (1, Some(1)), (0, None)]);
    let claim = picker.reserve(Class::P1).expect("open");
    let first = pick(&mut picker, now).expect("one is open");
    assert_eq!(pick(&mut picker, now), Err(PickError::AtCapacity));
    assert!(picker.reserve(Class::P1).is_none());
    let second = picker.shift(&first, (Class::P2, &[]), &[0], now).expect("what it gives back pays for what it takes");
    assert_eq!(picker.shift(&second, (Class::P2, &[]), &[0, 1], now), Err(PickError::AtCapacity));
    assert_eq!(own(&picker), [0, 1, 0], "as it was");
    let third = picker.pick(Ask { claim: Some(claim), ..Ask::default() }, &[], now).expect("its own");
    assert_eq!(third.index, 0);
    assert_eq!((picker.pools[0].reserved, picker.pools[0].open()), (0, 0));
}

#[test]
fn what_comes_too_late_for_an_endpoint_that_is_gone_changes_nothing() {
    let (mut picker, now) = fleet(&[(1, None), (1, None)]);
    picker.remove(0, now);
    let heard = Heard {
        load: Load::Requests { requests: 5, own_sent: 0 },
        verdict: crate::probe::Verdict::Factor(0.5),
        valid: Duration::from_secs(1),
    };
    picker.heard(0, &heard, now);
    picker.set_health(0, true, now);
    picker.eject(0, Some(Duration::from_secs(1)), now);
    picker.advance(now + Duration::from_secs(2));
    assert_eq!((picker.pools[0].weight, picker.pools[0].known, picker.due()), (256, 1, None));
    assert!((0..4).all(|_| pick(&mut picker, now).expect("the other").index == 1));
}

#[test]
fn an_endpoint_that_comes_back_before_it_is_gone_stays() {
    let (mut picker, now) = fleet(&[(1, None), (1, None)]);
    let held = picker.pick(Ask::default(), &[1], now).expect("open");
    picker.remove(0, now);
    assert!((0..4).all(|_| pick(&mut picker, now).expect("the other").index == 1));
    picker.update(0, new(9, None), now);
    end(&mut picker, &held, Outcome::Success, now, now);
    assert!(picker.take_gone().is_empty());
    assert_eq!(pick(&mut picker, now).expect("open").index, 0);
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let (mut picker, now) = fleet(&[(u16::MAX, Some(u32::MAX - 1)); 3]);
    let all = Places { endpoints: 3, weight: 3 * 65535, total: u32::MAX, open: u32::MAX };
    assert_eq!(picker.places(None), all);
    picker.update(0, new(u16::MAX, None), now);
    assert_eq!(picker.places(None), all);
    assert!(picker.reserve(Class::P0).is_some());
    picker.change(1, now, |slot| slot.own = u32::MAX - 2);
    picker.change(2, now, |slot| slot.own = u32::MAX);
    assert!(pick(&mut picker, now).is_ok());
}

mod affinity;
mod health;
mod load;
mod props;
mod routes;

#[test]
fn the_clock_is_read_for_all_exchanges_at_first_and_after_an_error_and_else_for_some() {
    use std::cell::Cell;
    thread_local!(static READ: Cell<u32> = const { Cell::new(0) });
    thread_local!(static NOW: Cell<Option<Instant>> = const { Cell::new(None) });
    let clock = || {
        READ.set(READ.get() + 1);
        NOW.get().expect("set")
    };
    let (mut picker, start) = fleet(&[(1, None), (1, None)]);
    NOW.set(Some(start));
    let mut exchanges = |outcome, every: Duration, many| {
        let before = READ.get();
        for _ in 0..many {
            NOW.set(NOW.get().map(|now| now + every));
            let ask = Ask { class: Class::P1, ..Ask::default() };
            let picked = picker.pick_plainly(Class::P1, None);
            let picked = picked.unwrap_or_else(|| picker.pick(ask, &[], Time::by(clock)).expect("open"));
            if outcome != Outcome::Success || !picker.release_plainly(&picked) {
                picker.release(&picked, &Ended { outcome, pause: None }, Time::by(clock));
            }
        }
        READ.get() - before
    };
    let slowly = Duration::from_millis(100);
    let fast = Duration::from_micros(1);
    assert_eq!(exchanges(Outcome::Success, fast, 32), 64, "at the pick and at the end, of the first ones");
    assert_eq!(exchanges(Outcome::Success, slowly, 100), 200, "of all if they come slowly");
    exchanges(Outcome::Success, fast, 1000);
    let some = exchanges(Outcome::Success, fast, 256_000);
    assert!((2000..2400).contains(&some), "of one in 192 to 256 if they come fast: {some}");
    exchanges(Outcome::Error, fast, 1);
    assert_eq!(exchanges(Outcome::Success, fast, 256), 512, "how fast errors come matters now");
    assert!(exchanges(Outcome::Success, fast, 25_600) < 300, "and not any more");
}
