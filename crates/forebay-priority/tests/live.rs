//! Changes while it runs act on those who wait, within the call.

mod common;

use common::{ask, assert_idle, config, house, millis, reason, request};
use forebay_core::{Class, DemandSource as _, Reason};
use forebay_priority::{Cap, OnFull, PriorityConfig, PriorityLayer, QueueLength, ReleaseOn, Warning};
use http_body_util::BodyExt as _;
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};
use tower::{Layer as _, ServiceExt as _};

#[tokio::test(start_paused = true)]
async fn r18_a_shared_bound_evicts_the_least_urgent_and_a_full_queue_its_last() {
    let (service, handle) = house(config(1, 2).max_queued(3));
    let held = ask(&service, Class::P0).await;
    let mut batch: Vec<_> = (0..2).map(|_| spawn(ask(&service, Class::P3))).collect();
    batch.iter_mut().for_each(|task| assert_pending!(task.poll()));
    let mut middle = spawn(ask(&service, Class::P1));
    assert_pending!(middle.poll());
    // All queues together are full: the last of the batch makes way.
    let mut urgent = spawn(ask(&service, Class::P0));
    assert_pending!(urgent.poll());
    assert!(batch[1].is_woken() && !batch[0].is_woken());
    assert_eq!(reason(&assert_ready!(batch[1].poll())), Reason::Evicted);
    // Less urgent than all who wait: nobody makes way for it.
    assert_eq!(reason(&ask(&service, Class::P3).await), Reason::QueueFull);
    drop(held);
    drop(assert_ready!(urgent.poll()));
    drop(assert_ready!(middle.poll()));
    drop(assert_ready!(batch[0].poll()));
    assert_idle(&handle);

    let (service, _) = house(config(1, 1).max_queued(1).on_full(OnFull::Reject));
    let _held = ask(&service, Class::P0).await;
    let mut batch = spawn(ask(&service, Class::P3));
    assert_pending!(batch.poll());
    assert_eq!(reason(&ask(&service, Class::P0).await), Reason::QueueFull, "the newcomer, however urgent");
}

#[tokio::test(start_paused = true)]
async fn r17_once_the_queue_has_not_been_empty_for_long_the_newest_goes_first() {
    let mut config = config(1, 3);
    config.classes[2].order = forebay_priority::Order::AdaptiveLifo { after: Some(millis(1000)) };
    let (service, handle) = house(config);
    let held = ask(&service, Class::P2).await;
    let mut old: Vec<_> = (0..2).map(|_| spawn(ask(&service, Class::P2))).collect();
    old.iter_mut().for_each(|task| assert_pending!(task.poll()));
    drop(held);
    let held = assert_ready!(old[0].poll());
    old[0] = spawn(ask(&service, Class::P2));
    assert_pending!(old[0].poll());
    tokio::time::advance(millis(1501)).await;
    let mut newest = spawn(ask(&service, Class::P2));
    assert_pending!(newest.poll());
    // Full, and in this order the oldest would be served last.
    let mut newer = spawn(ask(&service, Class::P2));
    assert_pending!(newer.poll());
    assert_eq!(reason(&assert_ready!(old[1].poll())), Reason::Evicted);
    drop(held);
    drop(assert_ready!(newer.poll()));
    drop(assert_ready!(newest.poll()));
    drop(assert_ready!(old[0].poll()));
    assert_idle(&handle);
}

#[tokio::test(start_paused = true)]
async fn r20_a_class_is_changed_under_its_waiters() {
    let (service, handle) = house(config(4, 4));
    handle.update_class(Class::P2, |class| class.max_in_flight = Cap::Seats(1)).expect("valid");
    let held = ask(&service, Class::P2).await;
    let mut waiting: Vec<_> = (0..4).map(|_| spawn(ask(&service, Class::P2))).collect();
    waiting.iter_mut().for_each(|task| assert_pending!(task.poll()));
    handle.update_class(Class::P2, |class| class.queue = QueueLength::Fixed(2)).expect("valid");
    for task in &mut waiting[2..] {
        assert!(task.is_woken(), "the excess hears of it within the call");
        assert_eq!(reason(&assert_ready!(task.poll())), Reason::Evicted);
    }
    handle.update_class(Class::new(9), |class| class.name = "last".into()).expect("beyond the last is the last");
    handle.update_class(Class::P2, |class| class.max_in_flight = Cap::Seats(2)).expect("valid");
    assert!(waiting[0].is_woken() && !waiting[1].is_woken());
    drop(assert_ready!(waiting[0].poll()));
    drop(assert_ready!(waiting[1].poll()));
    drop(held);

    let error = handle.update_class(Class::P2, |class| class.reserved = 0.6).expect_err("more than half");
    assert!(error.to_string().contains("reserved"));
    assert_idle(&handle);
}

#[tokio::test(start_paused = true)]
async fn r20_a_shortened_timeout_holds_for_newcomers_and_a_lengthened_one_for_waiters_too() {
    let (service, handle) = house(config(1, 4));
    let _held = ask(&service, Class::P0).await;
    let waiter = tokio::spawn(ask(&service, Class::P0));
    tokio::task::yield_now().await;
    handle.update_class(Class::P0, |class| class.queue_timeout = millis(2000)).expect("valid");
    let before = tokio::time::Instant::now();
    assert_eq!(reason(&waiter.await.expect("no panic")), Reason::QueueTimeout);
    assert_eq!(before.elapsed().as_millis(), 2000);
}

#[tokio::test(start_paused = true)]
async fn r20_draining_at_once_refuses_the_queue_and_zero_seats_are_no_capacity() {
    let (service, handle) = house(config(1, 100));
    let held = ask(&service, Class::P2).await;
    let mut waiting: Vec<_> = (0..100).map(|_| spawn(ask(&service, Class::P1))).collect();
    waiting.iter_mut().for_each(|task| assert_pending!(task.poll()));
    let mut drained = spawn(handle.drain_now());
    for task in &mut waiting {
        assert!(task.is_woken());
        let refused = assert_ready!(task.poll());
        assert_eq!((refused.status().as_u16(), reason(&refused)), (503, Reason::ShuttingDown));
    }
    assert_pending!(drained.poll());
    drop(held);
    assert!(drained.is_woken());
    assert_ready!(drained.poll());
    drop(handle.drain()); // twice is once
    assert_idle(&handle);

    let (service, handle) = house(config(1, 0));
    handle.set_limit(0);
    let refused = ask(&service, Class::P0).await;
    assert_eq!((refused.status().as_u16(), reason(&refused)), (503, Reason::NoCapacity));
    assert!(refused.headers().contains_key("retry-after"));
}

#[tokio::test(start_paused = true)]
async fn r20_after_a_shrink_nothing_underflows_and_demand_is_in_seats() {
    let (service, handle) = house(config(4, 4));
    let held: Vec<_> =
        [ask(&service, Class::P0).await, ask(&service, Class::P1).await, ask(&service, Class::P1).await].into();
    handle.set_limit(1);
    let mut waits = spawn(ask(&service, Class::P0));
    assert_pending!(waits.poll());
    let demand = handle.demand();
    assert_eq!((demand[Class::P0].in_flight, demand[Class::P1].in_flight, demand[Class::P0].queued), (1, 2, 1));
    assert!((handle.snapshot().saturation - 4.0).abs() < 1e-9);
    let mut left = held.into_iter();
    drop((left.next(), left.next()));
    assert!(!waits.is_woken(), "as many run as may");
    left.next().expect("the third").into_body().collect().await.expect("a body");
    assert!(waits.is_woken());
    drop(assert_ready!(waits.poll()));
    assert_eq!(handle.demand()[Class::P1].done, 1, "served to its end, as opposed to dropped");
    assert_idle(&handle);
}

#[tokio::test(start_paused = true)]
async fn r6_warnings_come_at_build_and_at_live_changes() {
    let (_, handle) =
        PriorityLayer::builder().config(PriorityConfig::reference_table()).build_with_handle().expect("a preset");
    assert_eq!(handle.warnings().len(), 6, "{:?}", handle.warnings());
    let (_, handle) = house(PriorityConfig::four_class(64));
    assert!(handle.warnings().is_empty());
    handle.set_limit(1);
    assert!(handle.warnings().is_empty(), "it waits for longer");
    let short = forebay_priority::ClassConfig::new("P0", millis(500));
    handle.update_class(Class::P0, |class| *class = short).expect("valid");
    let warnings = handle.warnings();
    assert!(
        matches!(
            warnings[..],
            [Warning::SeatsTooRare { .. }, Warning::PatienceRises { .. }, Warning::StallTooLong { .. }]
        ),
        "{warnings:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn r8_a_seat_goes_with_the_head_or_the_first_frame_where_that_was_asked_for() {
    for (release, after_head, after_frame) in
        [(ReleaseOn::Headers, 0, 0), (ReleaseOn::FirstFrame, 1, 0), (ReleaseOn::BodyEnd, 1, 1)]
    {
        let layer = PriorityLayer::builder().config(config(1, 1).release(release));
        let (layer, handle) = layer.build_with_handle().expect("valid");
        let two = tower::service_fn(|_: http::Request<()>| async {
            let steps = ["a", "b"].map(|text| forebay_core::testing::Step::Data(text.into()));
            Ok::<_, std::convert::Infallible>(http::Response::new(forebay_core::testing::Scripted::new(steps)))
        });
        let mut body = layer.layer(two).oneshot(request(Class::P1)).await.expect("infallible").into_body();
        assert_eq!(handle.snapshot().classes[1].in_flight, after_head, "{release:?}");
        body.frame().await.expect("a frame").expect("data");
        assert_eq!(handle.snapshot().classes[1].in_flight, after_frame, "{release:?}");
        body.collect().await.expect("a body");
        assert_idle(&handle);
        assert_eq!(handle.demand()[Class::P1].done, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn r22_retry_after_is_the_time_in_which_those_ahead_will_have_been_served() {
    // Ten wait, an exchange holds its seat for 4 s, two at a time: 20 s, and a jitter of up to a quarter and a second.
    let (service, handle) = house(config(2, 10).expected_hold(millis(4000)));
    let _held = [ask(&service, Class::P3).await, ask(&service, Class::P3).await];
    let told = async || {
        let refused = ask(&service, Class::P3).await;
        refused.headers()["retry-after"].to_str().expect("text").parse::<u64>().expect("seconds")
    };
    let mut waiting: Vec<_> = (0..10).map(|_| spawn(ask(&service, Class::P3))).collect();
    waiting.iter_mut().for_each(|task| assert_pending!(task.poll()));
    let seconds = told().await;
    assert!((20..=26).contains(&seconds), "{seconds}");
    handle.set_limit(1);
    let seconds = told().await;
    assert!((32..=41).contains(&seconds), "32 s at most, and the jitter: {seconds}");
}

#[tokio::test(start_paused = true)]
async fn r1_there_may_be_one_class_or_sixteen_and_one_beyond_them_is_the_last() {
    for count in [1, 16] {
        let class = |i| forebay_priority::ClassConfig::new(format!("c{i}"), millis(1000));
        let (service, handle) = house(config(1, 4).classes((0..count).map(class).collect()));
        let held = ask(&service, Class::new(200)).await;
        assert_eq!(handle.snapshot().classes[count - 1].in_flight, 1);
        let mut last = spawn(ask(&service, Class::new(15)));
        let mut first = spawn(ask(&service, Class::P0));
        assert_pending!(last.poll());
        assert_pending!(first.poll());
        drop(held);
        assert_eq!((first.is_woken(), last.is_woken()), if count == 1 { (false, true) } else { (true, false) });
    }
}

#[tokio::test(start_paused = true)]
async fn r24_an_adaptive_limit_falls_while_the_backend_says_that_it_is_busy_and_rises_again() {
    use forebay_priority::adaptive::AdaptiveConfig;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    let config = config(1, 1000).limit(forebay_priority::Limit::Adaptive(AdaptiveConfig::default()));
    let (layer, handle) = PriorityLayer::builder().config(config).build_with_handle().expect("valid");
    assert_eq!(handle.snapshot().limit, 16);
    let busy = std::sync::Arc::new(AtomicBool::new(true));
    let says = std::sync::Arc::clone(&busy);
    let service = layer.layer(tower::service_fn(move |_: http::Request<()>| {
        let status = if says.load(Relaxed) { 503 } else { 200 };
        async move {
            tokio::time::sleep(millis(20)).await;
            let body = forebay_core::testing::Scripted::new([]);
            Ok::<_, std::convert::Infallible>(http::Response::builder().status(status).body(body).expect("valid"))
        }
    }));
    let clients: Vec<_> = (0..64)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move {
                loop {
                    drop(ask(&service, Class::P1).await);
                }
            })
        })
        .collect();
    tokio::time::sleep(millis(5000)).await;
    let low = handle.snapshot().limit;
    assert!((2..8).contains(&low), "{low}");
    busy.store(false, Relaxed);
    tokio::time::sleep(millis(60_000)).await;
    let high = handle.snapshot().limit;
    assert!(high > 16, "{high} after a minute of good answers");
    clients.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn r24_a_pause_by_hand_outlasts_what_is_still_learned() {
    let adaptive = forebay_priority::adaptive::AdaptiveConfig::default();
    let config = config(1, 1000).limit(forebay_priority::Limit::Adaptive(adaptive));
    let (layer, handle) = PriorityLayer::builder().config(config).build_with_handle().expect("valid");
    let service = layer.layer(tower::service_fn(|_: http::Request<()>| async {
        tokio::time::sleep(millis(500)).await;
        let body = forebay_core::testing::Scripted::new([]);
        Ok::<_, std::convert::Infallible>(http::Response::builder().status(503).body(body).expect("valid"))
    }));
    let running: Vec<_> = (0..16).map(|_| tokio::spawn(ask(&service, Class::P1))).collect();
    tokio::task::yield_now().await;
    handle.set_limit(0);
    for exchange in running {
        assert_eq!(exchange.await.expect("no panic").status(), 503);
    }
    tokio::time::sleep(millis(2000)).await;
    assert_eq!(handle.snapshot().limit, 0);
    handle.set_limit(8);
    assert_eq!(handle.snapshot().limit, 8);
}
