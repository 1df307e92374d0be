//! A request waits as long as seats need to come free, and no tenant takes more than its part of them.

mod common;

use std::task::Waker;
use std::time::Duration;

use common::{OneFrame, ask, assert_idle, house, millis, reason, request};
use forebay_core::{CapacitySignal, Class, Places, Principal, Reason, Reservation, Subscription};
use forebay_priority::{ClassConfig, Limit, PriorityConfig, PriorityLayer};
use tokio::time::{Instant, advance};
use tokio_test::{assert_pending, assert_ready, task::spawn};
use tower::{Layer as _, ServiceExt as _};

/// One class: 2 s, or until ten seats have come free.
fn ten_seats(seats: usize) -> PriorityConfig {
    let class = ClassConfig::new("all", millis(2000)).patience_seats(10);
    PriorityConfig::four_class(0).classes(vec![class]).limit(Limit::Fixed(seats)).expected_hold(millis(100))
}

#[tokio::test(start_paused = true)]
async fn patience_grows_with_the_measured_hold_over_the_seats() {
    let (service, handle) = house(ten_seats(4));
    assert_eq!(handle.snapshot().classes[0].patience, millis(2000), "a seat every 25 ms");
    for _ in 0..32 {
        let held = [ask(&service, Class::P0).await, ask(&service, Class::P0).await];
        advance(millis(4000)).await;
        drop(held);
    }
    let snapshot = handle.snapshot();
    assert_eq!((snapshot.hold, snapshot.seats), (millis(4000), 4));
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(ask(&service, Class::P0).await);
    }
    let begun = Instant::now();
    let refused = tokio::spawn(ask(&service, Class::P0));
    tokio::task::yield_now().await;
    assert_eq!(handle.snapshot().classes[0].patience, millis(10_000), "a seat every second");
    assert_eq!(reason(&refused.await.expect("no panic")), Reason::QueueTimeout);
    assert_eq!(begun.elapsed().as_secs(), 10);
    // Half the seats: twice as long.
    handle.set_limit(2);
    assert_eq!(handle.snapshot().classes[0].patience, millis(20_000));
    drop(held);
    assert_idle(&handle);
}

#[tokio::test(start_paused = true)]
async fn before_enough_have_ended_the_age_of_what_runs_counts() {
    let mut config = ten_seats(2);
    config.stall = None;
    let (service, handle) = house(config);
    let held = [ask(&service, Class::P0).await, ask(&service, Class::P0).await];
    advance(millis(8000)).await;
    let waits = tokio::spawn(ask(&service, Class::P0));
    tokio::task::yield_now().await;
    let snapshot = handle.snapshot();
    assert_eq!((snapshot.hold, snapshot.classes[0].patience), (millis(8000), millis(40_000)));
    // A backend that hangs is not waited for without end: no age above a minute counts.
    let begun = Instant::now();
    assert_eq!(reason(&waits.await.expect("no panic")), Reason::QueueTimeout);
    assert_eq!(begun.elapsed().as_secs(), 300, "ten seats, one every 30 s");
    drop(held);
    assert_idle(&handle);
}

struct TwoPlaces;

impl CapacitySignal for TwoPlaces {
    fn try_reserve(&self, _: Class) -> Option<Reservation> {
        Some(Reservation::new(()))
    }

    fn subscribe(&self, _: &Waker) -> Subscription {
        Subscription::new(())
    }

    fn places(&self, _: Option<Class>) -> Places {
        Places { endpoints: 1, weight: 1, total: 2, open: 2 }
    }
}

#[tokio::test]
async fn the_seats_are_those_that_the_backends_have_a_place_for() {
    let config = ten_seats(64).expected_hold(millis(1000));
    let layer = PriorityLayer::builder().config(config).capacity(TwoPlaces).build_with_handle();
    let snapshot = layer.expect("valid").1.snapshot();
    assert_eq!((snapshot.limit, snapshot.seats), (64, 2));
    assert_eq!(snapshot.classes[0].patience, millis(5000), "a seat every half second");
}

#[tokio::test(start_paused = true)]
async fn a_tenant_holds_its_part_of_the_seats_and_others_pass() {
    let (layer, handle) = PriorityLayer::builder()
        .config(PriorityConfig::four_class(4).max_share(0.5))
        .build_with_handle()
        .expect("valid");
    let service = layer.layer(OneFrame);
    let of = |who: Option<&str>, class: Class| {
        let mut request = request(class);
        if let Some(who) = who {
            request.extensions_mut().insert(Principal::from_bytes(who));
        }
        spawn(service.clone().oneshot(request))
    };
    let mut greedy: Vec<_> = (0..3).map(|_| of(Some("greedy"), Class::P0)).collect();
    let first = assert_ready!(greedy[0].poll());
    let second = assert_ready!(greedy[1].poll());
    assert_pending!(greedy[2].poll(), "half of four");
    let mut modest = of(Some("modest"), Class::P3);
    let third = assert_ready!(modest.poll());
    let mut nameless = of(None, Class::P3);
    let fourth = assert_ready!(nameless.poll());
    // A seat of another comes free: it is not for the one that has its part.
    drop(third);
    assert!(!greedy[2].is_woken());
    let mut again = of(Some("modest"), Class::P3);
    let third = assert_ready!(again.poll());
    drop(first);
    assert!(greedy[2].is_woken());
    let last = assert_ready!(greedy[2].poll());
    drop((second, third, fourth, last));
    assert_idle(&handle);
}

#[tokio::test(start_paused = true)]
async fn shares_come_after_waiting_p0_and_no_class_fares_better_than_a_more_urgent_one() {
    let config = PriorityConfig::four_class(10).expected_hold(millis(100));
    let (service, handle) = house(config);
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(ask(&service, Class::P3).await);
    }
    let mut batch: Vec<_> = (0..5).map(|_| spawn(ask(&service, Class::P3))).collect();
    batch.iter_mut().for_each(|task| assert_pending!(task.poll()));
    let mut urgent: Vec<_> = (0..5).map(|_| spawn(ask(&service, Class::P0))).collect();
    urgent.iter_mut().for_each(|task| assert_pending!(task.poll()));
    advance(Duration::from_secs(1)).await; // the share of P3 is due by now
    held.truncate(5);
    assert!(urgent.iter().all(|task| task.is_woken()) && batch.iter().all(|task| !task.is_woken()));
    drop((urgent, batch, held));
    assert_idle(&handle);
}
