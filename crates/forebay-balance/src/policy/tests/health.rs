//! Who is broken, busy, loading, and comes back.

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
    let busy = Ended { outcome: Outcome::Overload, pause };
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

#[test]
fn r16_a_slow_start_counts_completions_and_a_cap_is_learnt_also_without_ejection() {
    let start = now();
    let slow_start = Some(SlowStart::new(Duration::from_secs(10)).after_completions(20));
    let settings = Settings { outlier: None, slow_start, ..Settings::default() };
    let mut picker = Picker::new(settings, Routes::to_one_pool(), 1, 7, start);
    for _ in 0..2 {
        picker.insert(new(10, None), start);
    }
    let mut now = start;
    for _ in 0..60 {
        now += Duration::from_millis(250);
        let picked = pick(&mut picker, now).expect("open");
        end(&mut picker, &picked, Outcome::Success, now, now);
    }
    assert!(picker.slots.iter().all(|slot| slot.weight == 2560), "both have started");
    let held: Vec<_> = (0..4).map(|_| picker.pick(Ask::default(), &[1], now).expect("open")).collect();
    end(&mut picker, &held[0], Outcome::Overload, now, now);
    assert_eq!(picker.pick(Ask::default(), &[1], now), Err(PickError::AtCapacity));
}
