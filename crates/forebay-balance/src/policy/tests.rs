use std::time::{Duration, Instant};

use forebay_core::{Class, Outcome, Places};

use super::*;
use crate::core::now;

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
    picker.release(picked, &Ended { outcome, started, pause: None }, now);
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
    let second = picker.shift(&first, (Class::P2, None), &[0], now).expect("what it gives back pays for what it takes");
    assert_eq!(picker.shift(&second, (Class::P2, None), &[0, 1], now), Err(PickError::AtCapacity));
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
        requests: Some(5),
        own_sent: 0,
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
    picker.revive(0, now);
    end(&mut picker, &held, Outcome::Success, now, now);
    assert_eq!(picker.take_gone(), []);
    assert!((0..4).all(|_| pick(&mut picker, now).expect("the other").index == 1), "its service is not there yet");
    picker.update(0, new(9, None), now);
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

mod routes {
    use super::*;

    /// Pool 0 is shared and has two places, pool 1 is P0's own and has one; P3 may borrow there while one stays free.
    fn pools(dedicated: u32) -> (Picker, Instant) {
        let mut routes = Routes::to_one_pool();
        routes.0[0].pools = vec![1, 0];
        routes.0[3].guests = vec![Guest { pool: 1, at_most: 1, keep: 1 }];
        let now = now();
        let mut picker = Picker::new(Settings::default(), routes, 2, 7, now);
        picker.insert(new(1, Some(2)), now);
        picker.insert(New { pool: 1, ..new(1, Some(dedicated)) }, now);
        (picker, now)
    }

    fn ask(class: Class) -> Ask {
        Ask { class, ..Ask::default() }
    }

    #[test]
    fn r42_a_class_goes_to_its_own_pool_and_spills_when_that_is_full() {
        let (mut picker, now) = pools(1);
        let reasons: Vec<_> = (0..3).map(|_| picker.pick(ask(Class::P0), &[], now).expect("open").reason).collect();
        assert_eq!(reasons, [PickReason::Load, PickReason::Spill, PickReason::Spill]);
        assert_eq!(picker.pick(ask(Class::P0), &[], now), Err(PickError::AtCapacity));
    }

    #[test]
    fn r43_nobody_else_enters_but_who_may_borrow_and_then_so_many() {
        let (mut picker, now) = pools(3);
        for _ in 0..2 {
            assert_eq!(picker.pick(ask(Class::P1), &[], now).expect("shared").claim.pool, 0);
        }
        assert_eq!(picker.pick(ask(Class::P1), &[], now), Err(PickError::AtCapacity), "not in P0's");
        let guest = picker.pick(ask(Class::P3), &[], now).expect("borrowed");
        assert_eq!((guest.claim.pool, guest.reason), (1, PickReason::Borrow));
        assert_eq!(picker.pick(ask(Class::P3), &[], now), Err(PickError::AtCapacity), "one at most");
        end(&mut picker, &guest, Outcome::Success, now, now);
        let claim = picker.reserve(Class::P3).expect("a place to borrow again");
        assert!(picker.reserve(Class::P3).is_none());
        picker.unreserve(claim);
        let own: Vec<_> = (0..2).map(|_| picker.pick(ask(Class::P0), &[], now).expect("its own")).collect();
        assert_eq!(picker.pick(ask(Class::P3), &[], now), Err(PickError::AtCapacity), "one is kept");
        assert!(own.iter().all(|picked| picked.claim.pool == 1));
        assert_eq!(picker.pools[1].borrowed[3], 0);
    }

    #[test]
    fn r43_a_dead_dedicated_pool_spills() {
        let (mut picker, now) = pools(1);
        picker.remove(1, now);
        assert_eq!(picker.pick(ask(Class::P0), &[], now).expect("shared").reason, PickReason::Spill);
        picker.remove(0, now);
        assert_eq!(picker.pick(ask(Class::P0), &[], now), Err(PickError::NoEndpoint));
    }

    #[test]
    fn r32_a_reservation_of_one_pool_is_given_back_where_a_better_one_came_free() {
        let (mut picker, now) = pools(1);
        let own = picker.pick(ask(Class::P0), &[], now).expect("its own");
        let claim = picker.reserve(Class::P0).expect("in the shared one");
        assert_eq!(claim.pool, 0);
        end(&mut picker, &own, Outcome::Success, now, now);
        let picked = picker.pick(Ask { claim: Some(claim), ..ask(Class::P0) }, &[], now).expect("open");
        assert_eq!((picked.claim.pool, picker.pools[0].reserved, picker.pools[0].open()), (1, 0, 2));
    }
}

mod health {
    use super::*;

    fn fails(picker: &mut Picker, index: usize, now: Instant) {
        let others: Vec<usize> = (0..picker.slots.len()).filter(|other| *other != index).collect();
        let picked = picker.pick(Ask::default(), &others, now).expect("open");
        assert_eq!(picked.index, index);
        end(picker, &picked, Outcome::Error, now, now);
    }

    #[test]
    fn r24_five_errors_in_a_row_eject_then_one_tries_then_it_starts_slowly() {
        let (mut picker, start) = fleet(&[(100, None); 4]);
        for _ in 0..5 {
            assert_eq!(picker.slots[0].state(), EndpointState::Up);
            fails(&mut picker, 0, start);
        }
        assert_eq!(picker.slots[0].state(), EndpointState::Ejected);
        picker.advance(start + Duration::from_millis(4900));
        assert_eq!(picker.slots[0].state(), EndpointState::Ejected);
        let later = start + Duration::from_secs(6);
        picker.advance(later);
        assert_eq!(picker.slots[0].state(), EndpointState::Probation);
        let trial = picker.pick(Ask::default(), &[1, 2, 3], later).expect("one may try");
        assert!(trial.trial);
        assert_eq!(picker.pick(Ask::default(), &[1, 2, 3], later), Err(PickError::AtCapacity), "only one");
        end(&mut picker, &trial, Outcome::Success, later, later);
        assert_eq!((picker.slots[0].state(), picker.slots[0].weight), (EndpointState::Up, 2560), "a tenth");
        picker.advance(later + Duration::from_secs(15));
        assert!((12_600..13_000).contains(&picker.slots[0].weight), "{}", picker.slots[0].weight);
        picker.advance(later + Duration::from_secs(31));
        assert_eq!(picker.slots[0].weight, 25_600);
    }

    /// When the first comes back.
    fn back(picker: &Picker) -> Instant {
        let outlier::Phase::Ejected { until: Some(until) } = picker.slots[0].record.phase else { panic!("ejected") };
        until
    }

    #[test]
    fn r24_a_flapping_endpoint_is_out_for_longer_each_time() {
        let (mut picker, mut now) = fleet(&[(1, None); 4]);
        let mut outs = Vec::new();
        for _ in 0..5 {
            for _ in 0..5 {
                if picker.slots[0].state() == EndpointState::Up {
                    fails(&mut picker, 0, now);
                }
            }
            assert_eq!(picker.slots[0].state(), EndpointState::Ejected);
            let until = back(&picker);
            outs.push(until.duration_since(now).as_secs());
            now = until;
            picker.advance(now);
            let trial = picker.pick(Ask::default(), &[1, 2, 3], now).expect("a trial");
            end(&mut picker, &trial, Outcome::Success, now, now);
        }
        for (out, base) in outs.iter().zip([5, 10, 20, 40, 80]) {
            assert!((base..=base + base / 10).contains(out), "{outs:?}");
        }
        // A healthy spell makes the next one shorter again.
        now += Duration::from_secs(400);
        picker.advance(now);
        for _ in 0..5 {
            fails(&mut picker, 0, now);
        }
        let until = back(&picker);
        assert!(until.duration_since(now).as_secs() < 12);
    }

    #[test]
    fn r24_a_trial_that_fails_ejects_at_once_and_one_that_leaves_is_repeated() {
        let (mut picker, start) = fleet(&[(1, None); 4]);
        for _ in 0..5 {
            fails(&mut picker, 0, start);
        }
        let now = start + Duration::from_secs(6);
        let trial = picker.pick(Ask::default(), &[1, 2, 3], now).expect("one may try");
        end(&mut picker, &trial, Outcome::Cancelled, now, now);
        let trial = picker.pick(Ask::default(), &[1, 2, 3], now).expect("another may try");
        end(&mut picker, &trial, Outcome::Error, now, now);
        assert_eq!(picker.slots[0].state(), EndpointState::Ejected);
    }

    #[test]
    fn r24_at_most_half_of_a_pool_and_never_the_last_is_ejected() {
        let (mut picker, now) = fleet(&[(1, None); 4]);
        for index in 0..4 {
            for _ in 0..20 {
                if picker.slots[index].state() == EndpointState::Up {
                    fails(&mut picker, index, now);
                }
            }
        }
        let ejected = picker.slots.iter().filter(|slot| slot.state() == EndpointState::Ejected).count();
        assert_eq!(ejected, 2);
        let (mut alone, now) = fleet(&[(1, None)]);
        for _ in 0..20 {
            fails(&mut alone, 0, now);
        }
        assert_eq!(alone.slots[0].state(), EndpointState::Up);
    }

    #[test]
    fn r24_half_of_twenty_eject_also_where_successes_lie_between() {
        let (mut picker, now) = fleet(&[(1, None); 4]);
        for _ in 0..9 {
            let picked = picker.pick(Ask::default(), &[1, 2, 3], now).expect("open");
            end(&mut picker, &picked, Outcome::Success, now, now);
            fails(&mut picker, 0, now);
        }
        assert_eq!(picker.slots[0].state(), EndpointState::Up, "too few");
        fails(&mut picker, 0, now);
        fails(&mut picker, 0, now);
        assert_eq!(picker.slots[0].state(), EndpointState::Ejected);
        // What lies further back than the window does not count.
        for _ in 0..9 {
            let picked = picker.pick(Ask::default(), &[0, 2, 3], now).expect("open");
            end(&mut picker, &picked, Outcome::Success, now, now);
            fails(&mut picker, 1, now);
        }
        let later = now + Duration::from_secs(11);
        fails(&mut picker, 1, later);
        fails(&mut picker, 1, later);
        assert_eq!(picker.slots[1].state(), EndpointState::Up);
    }

    #[test]
    fn r25_an_overload_answer_caps_and_successes_lift_the_cap() {
        let (mut picker, start) = fleet(&[(1, None), (1, None)]);
        let held: Vec<_> = (0..4).map(|_| picker.pick(Ask::default(), &[1], start).expect("open")).collect();
        let now = start + Duration::from_secs(2);
        end(&mut picker, &held[0], Outcome::Overload, start, now);
        assert_eq!(picker.pick(Ask::default(), &[1], now), Err(PickError::AtCapacity), "three are enough");
        end(&mut picker, &held[1], Outcome::Success, start, now);
        let again: Vec<_> = (0..2).map(|_| picker.pick(Ask::default(), &[1], now).expect("four again")).collect();
        assert_eq!(picker.pick(Ask::default(), &[1], now), Err(PickError::AtCapacity));
        assert_eq!(picker.slots[0].state(), EndpointState::Up, "busy is not broken");
        let later = now + Duration::from_secs(10);
        assert!(picker.pick(Ask::default(), &[1], later).is_ok(), "lifted");
        drop(again);
    }

    #[test]
    fn r25_retry_after_closes_only_who_has_nothing_to_do_and_never_the_last() {
        let (mut picker, start) = fleet(&[(1, None), (1, None)]);
        let pause = Some(Duration::from_secs(7));
        let busy = Ended { outcome: Outcome::Overload, started: start, pause };
        let held: Vec<_> = (0..2).map(|_| picker.pick(Ask::default(), &[1], start).expect("open")).collect();
        picker.release(&held[0], &busy, start);
        assert_eq!(picker.slots[0].state(), EndpointState::Up, "it has another: a full house");
        picker.release(&held[1], &busy, start);
        assert_eq!(picker.slots[0].state(), EndpointState::Paused);
        let last = pick(&mut picker, start).expect("the other");
        picker.release(&last, &busy, start);
        assert_eq!(picker.slots[1].state(), EndpointState::Up);
        picker.advance(start + Duration::from_secs(7));
        assert_eq!(picker.slots[0].state(), EndpointState::Up);
    }

    #[test]
    fn r26_failing_fast_attracts_nothing() {
        let (mut picker, start) = fleet(&[(1, None), (1, None)]);
        let good = picker.pick(Ask::default(), &[1], start).expect("open");
        let mut now = start + Duration::from_secs(2);
        end(&mut picker, &good, Outcome::Success, start, now); // the mean is 2 s
        let mut bad = 0;
        for _ in 0..20 {
            now += Duration::from_millis(1);
            let picked = pick(&mut picker, now).expect("open");
            if picked.index == 1 {
                bad += 1;
                end(&mut picker, &picked, Outcome::Error, now, now);
                picker.clear_record(1); // it may not be ejected here
            }
        }
        assert_eq!(bad, 10, "as if they took as long as work");
        picker.advance(now + Duration::from_secs(3));
        assert_eq!(picker.slots[1].load_units(), 0);
    }

    #[test]
    fn ghosts_stay_few_whatever_comes() {
        let mean = Duration::from_secs(1);
        let start = now();
        let mut ghosts = busy::Ghosts::new();
        for i in 0..100_000_u64 {
            ghosts.hold(start + mean + Duration::from_micros(10 * i), mean);
        }
        assert!(ghosts.held() < 20, "{}", ghosts.held());
        assert_eq!(ghosts.count(), 100_000);
        ghosts.tick(start + Duration::from_secs(3));
        assert_eq!(ghosts.count(), 0);
    }

    #[test]
    fn r27_nothing_before_the_first_success_then_three_failures_then_two_successes() {
        let now = now();
        let mut picker = Picker::new(Settings::default(), Routes::to_one_pool(), 1, 7, now);
        for _ in 0..3 {
            picker.insert(New { checked: true, ..new(1, None) }, now);
        }
        assert_eq!(pick(&mut picker, now), Err(PickError::NoEndpoint), "all new: they are loading");
        for index in 0..3 {
            picker.checked(index, false, 2, 3, now);
            assert_eq!(picker.slots[index].state(), EndpointState::New);
            picker.checked(index, true, 2, 3, now);
            assert_eq!(picker.slots[index].state(), EndpointState::Up);
        }
        for (good, state) in [
            (false, EndpointState::Up),
            (false, EndpointState::Up),
            (true, EndpointState::Up),
            (false, EndpointState::Up),
            (false, EndpointState::Up),
            (false, EndpointState::Down),
            (true, EndpointState::Down),
            (false, EndpointState::Down),
            (true, EndpointState::Down),
            (true, EndpointState::Up),
        ] {
            picker.checked(0, good, 2, 3, now);
            assert_eq!(picker.slots[0].state(), state);
        }
    }

    fn down(picker: &mut Picker, index: usize, now: Instant) {
        for _ in 0..3 {
            picker.checked(index, false, 2, 3, now);
        }
    }

    #[test]
    fn r27_health_is_ignored_when_too_little_is_left_unless_bounds_protect_it() {
        for bound in [None, Some(4)] {
            let now = now();
            let mut picker = Picker::new(Settings::default(), Routes::to_one_pool(), 1, 7, now);
            for index in 0..3 {
                picker.insert(New { checked: true, ..new(1, bound) }, now);
                picker.checked(index, true, 2, 3, now);
            }
            down(&mut picker, 0, now);
            assert!(!picker.pools[0].panic);
            down(&mut picker, 1, now);
            assert_eq!(picker.pools[0].panic, bound.is_none());
            down(&mut picker, 2, now);
            assert!(picker.pools[0].panic, "nothing is left");
            assert!((0..3).all(|_| pick(&mut picker, now).is_ok()));
            picker.checked(2, true, 2, 3, now);
            picker.checked(2, true, 2, 3, now);
            assert_eq!(picker.pools[0].panic, bound.is_none());
        }
    }
}

mod load {
    use super::*;
    use crate::probe::{CloseCause, Verdict};

    fn heard(requests: Option<u32>, own_sent: u32) -> Heard {
        Heard { requests, own_sent, verdict: Verdict::Factor(1.0), valid: Duration::from_secs(2) }
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
}

mod affinity {
    use super::*;

    fn keyed(key: u64) -> Ask {
        Ask { key: Some(key), ..Ask::default() }
    }

    /// Eight endpoints with names.
    fn named() -> (Picker, Instant) {
        let now = now();
        let mut picker = Picker::new(Settings::default(), Routes::to_one_pool(), 1, 7, now);
        for name in 0..8_u64 {
            picker.insert(New { id_hash: name * 7919, ..new(2, None) }, now);
        }
        (picker, now)
    }

    /// Picks for one key with nothing else in flight.
    fn home(picker: &mut Picker, key: u64, now: Instant) -> usize {
        let picked = picker.pick(keyed(key), &[], now).expect("open");
        end(picker, &picked, Outcome::Cancelled, now, now);
        picked.index
    }

    #[test]
    fn r38_a_key_has_a_home_and_a_removal_moves_only_the_keys_of_the_removed() {
        let (mut picker, now) = named();
        let homes: Vec<usize> = (0..400).map(|key| home(&mut picker, key, now)).collect();
        assert!((0..8).all(|index| homes.iter().filter(|home| **home == index).count() > 20));
        picker.remove(3, now);
        for (key, before) in homes.iter().enumerate() {
            let after = home(&mut picker, key as u64, now);
            assert!(after == *before || *before == 3);
        }
    }

    #[test]
    fn r38_a_busy_key_spills_over_at_its_bound() {
        let (mut picker, now) = named();
        let first = home(&mut picker, 1, now);
        let mut reasons = Vec::new();
        for _ in 0..80 {
            let picked = picker.pick(keyed(1), &[], now).expect("open");
            reasons.push(picked.reason);
            let most = picker.slots.iter().map(|slot| slot.own).max().expect("eight");
            let all: u32 = picker.slots.iter().map(|slot| slot.own).sum();
            assert!(most <= (5 * all).div_ceil(4 * 8), "{most} of {all}");
        }
        assert!(own(&picker)[first] >= 12, "the first gets as much as it may: {:?}", own(&picker));
        assert!(reasons.iter().all(|reason| *reason == PickReason::Affinity));
    }

    fn pinned(pin: Pin) -> (Picker, Instant) {
        let now = now();
        let settings = Settings { pin: Some(pin), ..Settings::default() };
        let mut picker = Picker::new(settings, Routes::to_one_pool(), 1, 7, now);
        for name in 0..6_u64 {
            let group_hash = 100 + name / 2;
            picker.insert(New { id_hash: name * 7919, group_hash, ..new(2, Some(3)) }, now);
        }
        (picker, now)
    }

    #[test]
    fn r37_a_batch_stays_in_its_group_until_a_minute_after_its_last_request() {
        let (mut picker, now) = pinned(Pin::to_group());
        let first = picker.pick(keyed(9), &[], now).expect("open");
        let group = first.index / 2;
        // Load elsewhere and weights do not tear it apart.
        picker.update(first.index, New { weight: 1, ..picker.slots[first.index].as_new() }, now);
        let more: Vec<_> = (0..5).map(|_| picker.pick(keyed(9), &[], now).expect("open")).collect();
        assert!(more.iter().all(|picked| picked.index / 2 == group && picked.reason == PickReason::Affinity));
        let spilled = picker.pick(keyed(9), &[], now).expect("its group is full");
        assert_ne!(spilled.index / 2, group);
        end(&mut picker, &more[0], Outcome::Success, now, now);
        assert_eq!(picker.pick(keyed(9), &[], now).expect("room again").index / 2, group, "and is not pinned anew");
        assert_eq!(picker.pins.counts().0, 1);
    }

    #[test]
    fn r37_a_pin_lingers_and_is_let_go() {
        let (mut picker, start) = pinned(Pin::to_endpoint());
        let first = picker.pick(keyed(9), &[], start).expect("open");
        end(&mut picker, &first, Outcome::Success, start, start);
        // A better endpoint for the key comes: without a pin it would move.
        let soon = start + Duration::from_secs(59);
        picker.insert(New { id_hash: 1, weight: 60_000, ..new(1, None) }, soon);
        let again = picker.pick(keyed(9), &[], soon).expect("open");
        assert_eq!(again.index, first.index);
        end(&mut picker, &again, Outcome::Success, soon, soon);
        let late = soon + Duration::from_secs(61);
        let moved = picker.pick(keyed(9), &[], late).expect("open");
        assert_eq!(moved.index, 6);
        end(&mut picker, &moved, Outcome::Success, late, late);
        for key in 0..1000 {
            let picked = picker.pick(keyed(key), &[], late).expect("open");
            end(&mut picker, &picked, Outcome::Success, late, late);
        }
        let much_later = late + Duration::from_secs(120);
        let _ = picker.pick(keyed(1), &[], much_later).expect("open");
        assert_eq!(picker.pins.counts(), (1, 0));
    }

    #[test]
    fn r37_a_pin_to_an_endpoint_that_is_gone_moves_once() {
        let (mut picker, now) = pinned(Pin::to_endpoint());
        let first = picker.pick(keyed(9), &[], now).expect("open");
        picker.remove(first.index, now);
        let second = picker.pick(keyed(9), &[], now).expect("open");
        assert_ne!(second.index, first.index);
        assert_eq!(picker.pick(keyed(9), &[], now).expect("open").index, second.index);
    }

    #[test]
    fn a_key_goes_elsewhere_while_its_home_is_out_and_comes_back() {
        let (mut picker, now) = named();
        let first = home(&mut picker, 5, now);
        picker.eject(first, None, now);
        assert_ne!(home(&mut picker, 5, now), first);
        picker.clear(first, now);
        assert_eq!(home(&mut picker, 5, now), first);
    }
}

mod props;
