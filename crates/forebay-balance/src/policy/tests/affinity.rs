//! Keys: rendezvous, bounds and pins.

use super::*;

fn keyed(key: u64) -> Ask<'static> {
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

/// Where a prompt of these blocks goes, and stays in flight.
fn sent(picker: &mut Picker, prefix: &[u64], now: Instant) -> Picked {
    picker.pick(Ask { key: prefix.get(1).copied(), prefix, ..Ask::default() }, &[], now).expect("open")
}

#[test]
fn r41_a_conversation_goes_where_it_was_and_a_common_beginning_ties_nobody() {
    let (mut picker, now) = named();
    let system = 1; // everybody's
    let firsts: Vec<_> = (10..18).map(|conversation| sent(&mut picker, &[system, conversation], now)).collect();
    let homes: Vec<usize> = firsts.iter().map(|picked| picked.index).collect();
    assert_eq!(homes, [0, 1, 2, 3, 4, 5, 6, 7]);
    firsts.iter().for_each(|picked| end(&mut picker, picked, Outcome::Success, now, now));
    for (home, conversation) in homes.into_iter().rev().zip((10..18).rev()) {
        let next = sent(&mut picker, &[system, conversation, conversation + 100], now);
        assert_eq!((next.index, next.reason), (home, PickReason::Affinity));
        end(&mut picker, &next, Outcome::Success, now, now);
    }
    let stranger = sent(&mut picker, &[system, 99], now);
    assert_eq!(
        (stranger.index, stranger.reason),
        (7, PickReason::Load),
        "all have the system prompt: the longest idle"
    );
}

#[test]
fn r41_a_busy_endpoint_is_passed_over_and_who_took_over_knows_the_prompt_too() {
    let (mut picker, now) = named();
    let first = sent(&mut picker, &[1, 2, 3], now).index;
    let others: Vec<_> = (0..3).map(|_| sent(&mut picker, &[1, 2, 3], now).index).collect();
    let most = picker.slots.iter().map(|slot| slot.own).max().expect("eight");
    assert!(most == 1 && !others.contains(&first), "no more than its share: {others:?}");
    assert_eq!(picker.prefixes.matches(&[1, 2, 3]).blocks(others[0]), 3);
}

#[test]
fn r41_what_an_endpoint_was_sent_is_forgotten_with_it() {
    let (mut picker, now) = named();
    let first = sent(&mut picker, &[1, 2, 3], now);
    picker.remove(first.index, now);
    end(&mut picker, &first, Outcome::Success, now, now);
    let next = picker.insert(new(2, None), now);
    assert_eq!(next, first.index, "its number is another's now");
    assert_eq!(picker.prefixes.matches(&[1, 2, 3]).blocks(next), 0);
}

#[test]
fn r41_an_endpoint_that_is_ejected_or_down_is_not_taken_to_have_a_cache() {
    let (mut picker, now) = named();
    let first = sent(&mut picker, &[1, 2, 3], now);
    end(&mut picker, &first, Outcome::Success, now, now);
    for _ in 0..5 {
        let failed = sent(&mut picker, &[1, 2, 3], now);
        assert_eq!(failed.index, first.index, "it has the prompt");
        end(&mut picker, &failed, Outcome::Error, now, now + Duration::from_secs(2)); // no ghost, as it took so long
    }
    assert_eq!(picker.slots[first.index].state(), EndpointState::Ejected);
    assert_eq!(picker.prefixes.matches(&[1, 2, 3]).blocks(first.index), 0);
    let second = sent(&mut picker, &[1, 2, 3], now);
    assert!(second.index != first.index && picker.prefixes.matches(&[1, 2, 3]).blocks(second.index) == 3);
    picker.set_health(second.index, true, now);
    picker.checked(second.index, false, 1, 1, now);
    assert_eq!(picker.prefixes.matches(&[1, 2, 3]).blocks(second.index), 0);
}
