//! Whatever comes in whatever order, the sums are those counted from scratch and each pick is that of a plain scan.

use proptest::prelude::*;

use super::super::slot::Slot;
use super::*;
use crate::probe::{CloseCause, Verdict};

#[derive(Debug, Clone)]
enum Step {
    Pick { class: u8, exclude: Option<usize> },
    Shift(usize),
    End { held: usize, outcome: u8, took_ms: u16, pause: Option<u8> },
    Head(usize),
    Reserve(u8),
    Unreserve(usize),
    Redeem(usize),
    Weight(usize, u16),
    Bound(usize, Option<u8>),
    Insert { pool: usize, weight: u16, bound: Option<u8>, checked: bool, probed: bool },
    Remove(usize),
    Eject(usize, Option<u16>),
    Clear(usize),
    Checked(usize, bool),
    Heard { index: usize, requests: Option<u8>, factor: f32, close: bool },
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0..16_usize;
    let bound = || prop::option::of(0..5_u8);
    prop_oneof![
        12 => (0..4_u8, prop::option::of(n.clone())).prop_map(|(class, exclude)| Step::Pick { class, exclude }),
        2 => n.clone().prop_map(Step::Shift),
        10 => (n.clone(), 0..4_u8, any::<u16>(), prop::option::of(any::<u8>()))
            .prop_map(|(held, outcome, took_ms, pause)| Step::End { held, outcome, took_ms, pause }),
        1 => n.clone().prop_map(Step::Head),
        4 => (0..4_u8).prop_map(Step::Reserve),
        2 => n.clone().prop_map(Step::Unreserve),
        3 => n.clone().prop_map(Step::Redeem),
        1 => (n.clone(), 0..9_u16).prop_map(|(index, weight)| Step::Weight(index, weight)),
        1 => (n.clone(), bound()).prop_map(|(index, max)| Step::Bound(index, max)),
        2 => (0..2_usize, 0..9_u16, bound(), any::<bool>(), any::<bool>()).prop_map(
            |(pool, weight, bound, checked, probed)| Step::Insert { pool, weight, bound, checked, probed }
        ),
        1 => n.clone().prop_map(Step::Remove),
        1 => (n.clone(), prop::option::of(any::<u16>())).prop_map(|(index, ms)| Step::Eject(index, ms)),
        1 => n.clone().prop_map(Step::Clear),
        2 => (n.clone(), any::<bool>()).prop_map(|(index, good)| Step::Checked(index, good)),
        2 => (n, prop::option::of(any::<u8>()), -0.5..1.5_f32, any::<bool>()).prop_map(
            |(index, requests, factor, close)| Step::Heard { index, requests, factor, close }
        ),
        2 => any::<u16>().prop_map(Step::Wait),
    ]
}

/// The best of a pool by a plain scan.
fn scan(picker: &Picker, pool: usize, excluded: &[usize]) -> Option<usize> {
    let members = picker.pools[pool].members.iter().flatten().map(|index| *index as usize);
    let open = members.filter(|index| !excluded.contains(index) && takes(&picker.slots[*index]));
    open.min_by(|a, b| {
        let (a, b) = (&picker.slots[*a], &picker.slots[*b]);
        let load = |of: &Slot| (i64::from(of.own) + i64::from(of.ghosts.count())) * 256 + of.surplus;
        let work = |of: &Slot, against: &Slot| i128::from(2 * load(of) + 320) * i128::from(against.weight);
        work(a, b).cmp(&work(b, a)).then(a.last_pick.cmp(&b.last_pick))
    })
}

fn takes(slot: &Slot) -> bool {
    slot.open && slot.weight > 0 && slot.takes_more()
}

/// The pick by a plain scan along the route.
fn model(picker: &Picker, class: Class, claim: Option<Claim>, excluded: &[usize]) -> Option<usize> {
    let mut station = 0;
    while let Some((pool, guest)) = picker.routes.of(class, station) {
        let owed = claim.is_some_and(|claim| claim.pool() == pool);
        if (owed || picker.admits(pool, guest, class))
            && let Some(index) = scan(picker, pool, excluded)
        {
            return Some(index);
        }
        station += 1;
    }
    None
}

fn audit(picker: &Picker, held: &[(Picked, Instant)], reserved: &[(Class, Claim)]) -> Result<(), TestCaseError> {
    let mut own = vec![0; picker.slots.len()];
    for (picked, _) in held {
        own[picked.index] += 1;
    }
    for (index, slot) in picker.slots.iter().enumerate() {
        prop_assert_eq!(slot.own, own[index], "permits out are what is counted");
    }
    for (at, pool) in picker.pools.iter().enumerate() {
        let members: Vec<&Slot> = pool.members.iter().flatten().map(|index| &picker.slots[*index as usize]).collect();
        let free: u64 = members.iter().map(|slot| slot.room()).sum();
        let unbounded = members.iter().any(|slot| slot.is_unbounded());
        let open = if unbounded { u64::MAX } else { free.saturating_sub(pool.reserved) };
        prop_assert_eq!(pool.open(), open);
        prop_assert_eq!(pool.own, members.iter().map(|slot| u64::from(slot.own)).sum::<u64>());
        let sum = |of: &dyn Fn(&Slot) -> u64| members.iter().map(|slot| of(slot)).sum::<u64>();
        prop_assert_eq!(pool.weight, sum(&|slot| if slot.open { u64::from(slot.weight) } else { 0 }));
        prop_assert_eq!(pool.healthy, sum(&|slot| if slot.healthy() { u64::from(slot.base) } else { 0 }));
        let unknown = |slot: &Slot| u64::from(slot.stays() && slot.foreign == foreign::Foreign::Unknown);
        prop_assert_eq!(pool.unknown as u64, sum(&unknown));
        let reported = |slot: &Slot| slot.foreign.reported().filter(|_| slot.stays());
        prop_assert_eq!(pool.reported, sum(&|slot| reported(slot).unwrap_or_default().into()));
        prop_assert_eq!(pool.reporting, sum(&|slot| reported(slot).map_or(0, |_| slot.base.into())));
        prop_assert_eq!(pool.reserved, reserved.iter().filter(|(_, claim)| claim.pool() == at).count() as u64);
        let borrowed = held.iter().map(|(picked, _)| picked.claim).chain(reserved.iter().map(|(_, claim)| *claim));
        let borrowed = borrowed.filter(|claim| claim.pool() == at && claim.guest.is_some()).count();
        prop_assert_eq!(pool.borrowed.iter().sum::<u32>() as usize, borrowed);
        prop_assert_eq!(pool.panic, pool.should_panic(0.5));
    }
    Ok(())
}

/// `calm`: nothing fails or is probed, so that time alone changes nothing and nothing is to be learned; how many picks were
/// plain ones then.
fn run(steps: Vec<Step>, calm: bool) -> Result<usize, TestCaseError> {
    let mut plain = 0;
    let mut routes = Routes::to_one_pool();
    routes.0[0].pools = vec![1, 0];
    routes.0[3].guests = vec![Guest { pool: 1, at_most: 2, keep: 1 }];
    let mut now = now();
    let slow_start = (!calm).then(|| SlowStart::new(Duration::from_secs(4)));
    let settings = Settings { slow_start, ..Settings::default() };
    let mut picker = Picker::new(settings, routes, 2, 7, now);
    let mut alive: Vec<usize> = Vec::new();
    let mut held: Vec<(Picked, Instant)> = Vec::new();
    let mut reserved: Vec<(Class, Claim)> = Vec::new();
    let outcomes = [Outcome::Success, Outcome::Overload, Outcome::Error, Outcome::Cancelled];
    for pool in [0, 1] {
        alive.push(picker.insert(New { pool, ..new(3, Some(3)) }, now));
        alive.push(picker.insert(New { pool, ..new(1, Some(2)) }, now));
    }
    for step in steps {
        let disturbs = matches!(step, Step::Eject(..) | Step::Checked(..) | Step::Heard { .. });
        if calm && disturbs {
            continue;
        }
        let of = |index: usize| alive.get(index % alive.len().max(1)).copied();
        match step {
            Step::Pick { class, exclude } => {
                let class = Class::new(class);
                let excluded: Vec<usize> = exclude.and_then(of).into_iter().collect();
                picker.advance(now);
                let expected = model(&picker, class, None, &excluded);
                if calm {
                    picker.pools.iter_mut().for_each(Pool::forget_to_time);
                }
                let plainly = if excluded.is_empty() { picker.pick_plainly(class, None) } else { None };
                plain += usize::from(plainly.is_some());
                let ask = Ask { class, ..Ask::default() };
                let picked = plainly.ok_or(()).or_else(|()| picker.pick(ask, &excluded, now));
                prop_assert_eq!(picked.ok().map(|picked| picked.index), expected);
                held.extend(picked.map(|picked| (picked, now)));
            }
            Step::Shift(i) if !held.is_empty() => {
                let i = i % held.len();
                let from = held[i].0;
                if let Ok(picked) = picker.shift(&from, (from.claim.guest.unwrap_or_default(), &[]), &[from.index], now)
                {
                    held[i] = (picked, now);
                }
            }
            Step::End { held: i, outcome, took_ms, pause } if !held.is_empty() => {
                let (picked, started) = held.swap_remove(i % held.len());
                now = now.max(started + Duration::from_millis(u64::from(took_ms) / 16));
                let pause = pause.map(|ms| Duration::from_millis(u64::from(ms)));
                let outcome = if calm { Outcome::Success } else { outcomes[usize::from(outcome)] };
                if outcome != Outcome::Success || !picker.release_plainly(&picked) {
                    picker.release(&picked, &Ended { outcome, pause }, now);
                }
            }
            Step::Head(i) if !held.is_empty() => picker.headed(&held[i % held.len()].0, now),
            Step::Reserve(class) => {
                let class = Class::new(class);
                reserved.extend(picker.reserve(class).map(|claim| (class, claim)));
            }
            Step::Unreserve(i) if !reserved.is_empty() => {
                let (_, claim) = reserved.swap_remove(i % reserved.len());
                picker.unreserve(claim);
            }
            Step::Redeem(i) if !reserved.is_empty() => {
                let (class, claim) = reserved.swap_remove(i % reserved.len());
                picker.advance(now);
                let room =
                    picker.pools[claim.pool()].members.iter().flatten().any(|i| takes(&picker.slots[*i as usize]));
                let picked = picker.pick(Ask { class, claim: Some(claim), ..Ask::default() }, &[], now);
                prop_assert!(!room || picked.is_ok(), "who reserved finds room");
                held.extend(picked.map(|picked| (picked, now)));
            }
            Step::Weight(i, weight) => {
                if let Some(index) = of(i) {
                    picker.update(index, New { weight, ..picker.slots[index].as_new() }, now);
                }
            }
            Step::Bound(i, bound) => {
                if let Some(index) = of(i) {
                    let max_concurrency = bound.map(u32::from);
                    picker.update(index, New { max_concurrency, ..picker.slots[index].as_new() }, now);
                }
            }
            Step::Insert { pool, weight, bound, checked, probed } if alive.len() < 12 => {
                let max_concurrency = bound.map(u32::from);
                let (checked, probed) = (checked && !calm, probed && !calm);
                alive.push(
                    picker
                        .insert(New { pool, weight, max_concurrency, checked, probed, id_hash: 0, group_hash: 0 }, now),
                );
            }
            Step::Remove(i) if !alive.is_empty() => {
                let index = alive.swap_remove(i % alive.len());
                picker.remove(index, now);
            }
            Step::Eject(i, ms) => {
                if let Some(index) = of(i) {
                    picker.eject(index, ms.map(|ms| Duration::from_millis(u64::from(ms))), now);
                }
            }
            Step::Clear(i) => {
                if let Some(index) = of(i) {
                    picker.clear(index, now);
                }
            }
            Step::Checked(i, good) => {
                if let Some(index) = of(i) {
                    picker.checked(index, good, 2, 3, now);
                }
            }
            Step::Heard { index, requests, factor, close } => {
                if let Some(index) = of(index) {
                    let verdict = if close { Verdict::Close(CloseCause::KvCache) } else { Verdict::Factor(factor) };
                    let own_sent = 1;
                    let requests = requests.map(u32::from);
                    let load = requests.map_or(Load::Unknown, |requests| Load::Requests { requests, own_sent });
                    let valid = Duration::from_secs(2);
                    picker.heard(index, &Heard { load, verdict, valid }, now);
                }
            }
            Step::Wait(ms) => {
                now += Duration::from_millis(u64::from(ms) / 8);
                picker.advance(now);
                prop_assert!(picker.due().is_none_or(|due| due > now), "nothing is overdue");
            }
            _ => {}
        }
        audit(&picker, &held, &reserved)?;
    }
    for (picked, started) in held.drain(..) {
        picker.release(&picked, &Ended { outcome: Outcome::Success, pause: None }, now.max(started));
    }
    for (_, claim) in reserved.drain(..) {
        picker.unreserve(claim);
    }
    audit(&picker, &[], &[])?;
    Ok(plain)
}

fn pick_of(class: u8) -> Step {
    Step::Pick { class, exclude: None }
}

proptest! {
    #[test]
    fn every_pick_is_the_naive_one_and_nothing_leaks(steps in prop::collection::vec(step(), 0..120)) {
        run(steps, false)?;
    }

    #[test]
    fn every_plain_pick_is_the_naive_one_and_nothing_leaks(
        steps in prop::collection::vec(prop_oneof![1 => step(), 2 => (0..5_u8).prop_map(pick_of)], 20..120),
    ) {
        prop_assert!(run([vec![pick_of(1)], steps].concat(), true)? > 0);
    }
}
