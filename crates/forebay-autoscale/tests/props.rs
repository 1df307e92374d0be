//! `decide` agrees with a naive model, stays in its bounds, grows with demand and survives any input.

use std::time::{Duration, Instant};

use forebay_autoscale::{Capacity, ClusterDemand, Decision, PolicyState, ScalePolicy, Signal};
use forebay_core::{Class, Demand, ReplicaState};
use proptest::prelude::*;

fn demand(queued: u64, in_flight: u64) -> Signal {
    let mut demand = Demand::default();
    demand[Class::P1].queued = queued;
    demand[Class::P3].in_flight = in_flight;
    Signal::Fresh(demand.into())
}

fn replicas(ready: u32, starting: u32) -> Option<ReplicaState> {
    Some(ReplicaState { ready, starting, current: ready })
}

fn start() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// In whole numbers: percent instead of fractions, and a list of all that ever was.
fn model(seats: u64, slots: u64, percent: u64, history: &[(u64, u32, u32)], at: u64, have: u32) -> (u32, u32) {
    let target = (seats * 100).div_ceil(slots * percent).clamp(3, 20) as u32;
    let since = |window: u64| history.iter().filter(move |record| at - record.0 < window);
    let wanted = since(300).map(|record| record.1).chain([target]).max().unwrap();
    let least = since(15).map(|record| record.2).chain([have]).min().unwrap();
    let most = since(300).map(|record| record.2).chain([have]).max().unwrap();
    let ceiling = (least + least.max(4)).max(have);
    let floor = (most - 1.min(most)).min(have);
    (target, wanted.clamp(floor, ceiling.max(floor)).clamp(3, 20))
}

proptest! {
    #[test]
    fn it_decides_like_the_model(
        slots in 1_u32..64, percent in 1_u32..=100,
        ticks in prop::collection::vec((1_u64..120, 0_u64..2000, 0_u64..2000, 0_u32..30, 0_u32..5), 1..60),
    ) {
        let policy = ScalePolicy::builder().capacity(Capacity::slots(slots)).utilisation(f64::from(percent) / 100.0);
        let policy = policy.build().unwrap();
        let (start, mut past, mut history, mut at) = (start(), PolicyState::default(), Vec::new(), 0);
        for (pause, queued, in_flight, ready, starting) in ticks {
            at += pause;
            let now = start + Duration::from_secs(at);
            let state = replicas(ready, starting);
            let decision = policy.decide(now, &past, &demand(queued, in_flight), state).unwrap();
            let (target, desired) =
                model(queued + in_flight, slots.into(), percent.into(), &history, at, ready + starting);
            prop_assert_eq!((decision.target, decision.desired), (target, Some(desired)));
            past.record(now, &decision, state);
            history.push((at, decision.target, ready + starting));
        }
    }

    #[test]
    fn more_demand_never_gets_fewer(
        one in any::<u64>(), other in any::<u64>(), ready in any::<u32>(), starting in any::<u32>(),
    ) {
        let policy = ScalePolicy::default();
        let past = PolicyState::default();
        let decide = |seats| policy.decide(start(), &past, &demand(seats, seats), replicas(ready, starting)).unwrap();
        let (less, more) = (decide(one.min(other)), decide(one.max(other)));
        prop_assert!(less.target <= more.target && less.desired <= more.desired && less.reactive <= more.reactive);
    }

    #[test]
    fn any_input_stays_in_the_bounds(
        min in 0_u32..100, more in 1_u32..1000, slots in any::<u32>(), share in any::<f64>(),
        utilisation in prop_oneof![any::<f64>(), Just(f64::NAN), Just(0.0), Just(-1.0), Just(f64::INFINITY)],
        queued in any::<u64>(), stored in any::<u64>(), have in any::<u32>(), back in 0_u64..1000,
    ) {
        // The fields are public: what the builder would refuse may still be here.
        let mut policy = ScalePolicy::builder().replicas(min..=min + more).capacity(Capacity::slots(slots)).build().unwrap();
        policy.utilisation = utilisation;
        policy.share = [share; 16];
        let now = start() + Duration::from_secs(1000);
        let mut past = PolicyState::default();
        let mut cluster = ClusterDemand::from(Demand::default());
        cluster.demand[Class::P0].queued = queued;
        cluster.demand[Class::P1].in_flight = u64::MAX;
        cluster.stored[0] = stored;
        cluster.service_time = Some(Duration::MAX);
        for now in [now, now - Duration::from_secs(back)] {
            let decision = policy.decide(now, &past, &Signal::Fresh(cluster), replicas(have, have)).unwrap();
            prop_assert!((min..=min + more).contains(&decision.target));
            prop_assert!((min..=min + more).contains(&decision.desired.unwrap()));
            past.record(now, &decision, replicas(have, have));
        }
    }
}

fn decided(policy: &ScalePolicy, past: &PolicyState, signal: &Signal) -> Decision {
    policy.decide(start(), past, signal, None).unwrap()
}

#[test]
fn a_full_fleet_is_not_rounded_up_and_no_share_orders_nothing() {
    let policy = ScalePolicy::builder().capacity(Capacity::slots(8)).share(Class::P3, 0.0).build().unwrap();
    let past = PolicyState::default();
    assert_eq!(decided(&policy, &past, &demand(56, u64::MAX)).target, 10, "56 / (8 · 0.7)");
    assert_eq!(decided(&policy, &past, &demand(57, 0)).target, 11);
    assert_eq!(decided(&policy, &past, &demand(57, 0)).desired, None, "unknown replicas");
}

#[test]
fn stored_work_orders_what_drains_it_in_time() {
    let policy = ScalePolicy::builder().utilisation(1.0).build().unwrap();
    let mut cluster = ClusterDemand::from(Demand::default());
    cluster.demand[Class::P3].queued = 1000;
    cluster.stored[3] = 1000;
    cluster.service_time = Some(Duration::from_secs(3));
    assert_eq!(decided(&policy, &PolicyState::default(), &Signal::Fresh(cluster)).target, 10, "1000 · 3 s in 300 s");
}

#[test]
fn held_never_lowers_and_stale_is_an_error() {
    let policy = ScalePolicy::default();
    let mut past = PolicyState::default();
    let first = decided(&policy, &past, &demand(7, 0));
    past.record(start(), &first, None);
    let age = Duration::from_secs(5);
    let held = |seats| match demand(seats, 0) {
        Signal::Fresh(last) => Signal::Held { last, age },
        other => other,
    };
    assert_eq!(decided(&policy, &past, &held(0)).target, 10);
    assert_eq!(decided(&policy, &past, &held(10)).target, 15);
    assert_eq!(policy.decide(start(), &past, &Signal::Stale { age }, None).unwrap_err().age, age);
}
