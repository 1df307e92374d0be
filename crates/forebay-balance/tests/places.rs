//! Who follows the places sees each change of them, costs nobody else, and keeps no balancer alive.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use forebay_balance::probe::Verdict;
use forebay_balance::{Balance, BalanceHandle, Endpoint, OnFull, Outlier};
use forebay_core::testing::cut_after;
use forebay_core::{CapacitySignal as _, Class, Outcome};
use tokio::time::{Instant, timeout};

fn endpoint(name: &'static str, places: u32) -> Endpoint<()> {
    Endpoint::with_service(name, ()).max_concurrency(places)
}

fn balance(endpoints: impl IntoIterator<Item = Endpoint<()>>) -> (Balance<()>, BalanceHandle) {
    let builder = Balance::builder().on_full(OnFull::Reject).outlier(Outlier::default()).route(Class::P0, ["gold"]);
    endpoints.into_iter().fold(builder, |builder, one| builder.endpoint(one)).build_with_handle().expect("valid")
}

#[tokio::test(start_paused = true)]
async fn r33_what_opens_is_seen_at_once_and_what_is_taken_soon() {
    let (balance, handle) = balance([endpoint("a", 3)]);
    let mut watch = handle.watch_places(None);
    assert_eq!(watch.now().map(|places| (places.total, places.open)), Some((3, 3)));
    let nothing = timeout(Duration::from_secs(3600), watch.changed()).await;
    assert!(nothing.is_err(), "nothing has changed");

    let start = Instant::now();
    let fleet = balance.fleet();
    let taker =
        tokio::spawn(async move { (fleet.pick(Class::P1).expect("open"), fleet.pick(Class::P1).expect("open")) });
    let places = watch.changed().await.expect("the balancer is there");
    assert_eq!(places.open, 1);
    assert!(start.elapsed() <= Duration::from_millis(100), "{:?}", start.elapsed());

    let start = Instant::now();
    let (one, two) = taker.await.expect("no panic");
    tokio::spawn(async move { one.finish(Outcome::Success) });
    assert_eq!(watch.changed().await.map(|places| places.open), Some(2));
    let (reserving, capacity) = (handle.clone(), handle.capacity());
    tokio::spawn(async move { drop(two) });
    assert_eq!(watch.changed().await.map(|places| places.open), Some(3));
    tokio::spawn(async move { reserving.set_max_concurrency("a", Some(7)) });
    assert_eq!(watch.changed().await.map(|places| (places.total, places.open)), Some((7, 7)));
    tokio::spawn(async move { balance.insert(endpoint("b", 2)) });
    assert_eq!(watch.changed().await.map(|places| (places.endpoints, places.open)), Some((2, 9)));
    assert_eq!(start.elapsed(), Duration::ZERO, "it was woken each time");

    let _place = capacity.try_reserve(Class::P1).expect("open");
    assert_eq!(watch.now().map(|places| places.open), Some(8), "a reserved place is not open");
    assert!(timeout(Duration::from_secs(1), watch.changed()).await.is_err(), "that was seen");
}

#[tokio::test(start_paused = true)]
async fn r33_what_time_alone_opens_is_seen_when_it_does() {
    let (_balance, handle) = balance([endpoint("a", 3), endpoint("b", 1)]);
    handle.eject("a", Duration::from_millis(7_050));
    let (mut watch, start) = (handle.watch_places(None), Instant::now());
    assert_eq!(watch.now().map(|places| places.open), Some(1));
    let places = watch.changed().await.expect("the balancer is there");
    assert_eq!((places.endpoints, start.elapsed().as_millis()), (2, 7_050));
}

#[tokio::test(start_paused = true)]
async fn r33_a_class_sees_the_places_of_its_pools() {
    let (balance, handle) = balance([endpoint("a", 3), endpoint("b", 2).pool("gold")]);
    let (mut gold, mut all) = (handle.watch_places(Class::P0), handle.watch_places(None));
    assert_eq!((gold.now().map(|places| places.open), all.now().map(|places| places.open)), (Some(2), Some(5)));
    let _held = balance.fleet().pick(Class::P1).expect("open");
    assert_eq!(all.changed().await.map(|places| places.open), Some(4));
    assert!(timeout(Duration::from_secs(1), gold.changed()).await.is_err(), "it is nothing to P0");
}

#[tokio::test(start_paused = true)]
async fn r33_dropped_at_any_poll_nothing_is_missed_and_a_watch_keeps_nobody_alive() {
    let (balance, handle) = balance([endpoint("a", 2)]);
    let mut watch = handle.watch_places(None);
    for polls in 0..3 {
        assert!(cut_after(polls, watch.changed()).await.is_none(), "nothing has changed");
        let held = balance.fleet().pick(Class::P1).expect("open");
        assert_eq!(watch.changed().await.map(|places| places.open), Some(1));
        drop(held);
        drop((watch.clone(), Box::pin(watch.changed())));
        assert_eq!(watch.changed().await.map(|places| places.open), Some(2));
    }
    tokio::spawn(async move { drop((balance, handle)) });
    assert_eq!(watch.changed().await, None, "it ends with the balancer");
    assert_eq!(watch.now(), None);
}

#[tokio::test(start_paused = true)]
async fn r44_a_snapshot_says_what_is_used_reserved_and_how_old_the_word_of_an_endpoint_is() {
    let (balance, handle) = balance([endpoint("a", 3), endpoint("b", 2).pool("gold")]);
    let (used, place) = (balance.fleet().pick(Class::P1), handle.capacity().try_reserve(Class::P1));
    let of = |handle: &BalanceHandle| -> Vec<_> {
        handle.pools().into_iter().map(|pool| (pool.used, pool.reserved, pool.open)).collect()
    };
    assert_eq!(of(&handle), [(1, 1, Some(1)), (0, 0, Some(2))]);
    drop((used, place));
    assert_eq!(of(&handle), [(0, 0, Some(3)), (0, 0, Some(2))]);

    assert!(handle.report("b", Some(1), Verdict::Factor(1.0), Duration::from_secs(1)));
    tokio::time::advance(Duration::from_secs(7)).await;
    let ages: Vec<_> = handle.snapshot().into_iter().map(|endpoint| endpoint.probe_age).collect();
    assert_eq!(ages, [None, Some(Duration::from_secs(7))], "also when it holds no more");
}

/// Looks at the places while it is woken, as nobody holds a lock then.
struct CallsBack(BalanceHandle, AtomicU32);

impl Wake for CallsBack {
    fn wake(self: Arc<Self>) {
        self.1.store(self.0.places().open, SeqCst);
    }
}

#[tokio::test]
async fn r33_who_is_woken_may_call_back() {
    let (balance, handle) = balance([endpoint("a", 1)]);
    let held = balance.fleet().pick(Class::P1).expect("open");
    let mut watch = handle.watch_places(None);
    let mut changed = pin!(watch.changed());
    let woken = Arc::new(CallsBack(handle, AtomicU32::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    assert!(changed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    held.finish(Outcome::Success);
    assert_eq!(woken.1.load(SeqCst), 1);
    assert!(changed.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
}
