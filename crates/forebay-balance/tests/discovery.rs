//! Endpoints come, change and go under load: nothing is lost, sent elsewhere than it was picked for, or counted wrong.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use forebay_balance::{
    Ask, Balance, BalanceHandle, Change, Endpoint, EndpointId, EndpointState, Fleet, OnFull, PickError, Picked,
};
use forebay_core::testing::{Scripted, Step};
use forebay_core::{Class, Outcome, Reason, Rejection};
use futures_core::Stream;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tower::{Service, ServiceExt as _};

const LONG: Duration = Duration::from_secs(20);

/// Answers with its name in a header.
#[derive(Debug, Clone)]
struct Backend(&'static str);

impl Service<Request<()>> for Backend {
    type Response = Response<Scripted>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Scripted>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        let body = Scripted::new([Step::Data("a".into()), Step::Pending, Step::Data("b".into())]);
        let response = Response::builder().header("name", self.0).body(body);
        std::future::ready(Ok(response.expect("valid")))
    }
}

fn endpoint(name: &'static str) -> Endpoint<Backend> {
    Endpoint::with_service(name, Backend(name))
}

fn balance(endpoints: impl IntoIterator<Item = Endpoint<Backend>>) -> (Balance<Backend>, BalanceHandle) {
    let builder = Balance::builder().on_full(OnFull::Reject);
    endpoints
        .into_iter()
        .fold(builder, |builder, endpoint| builder.endpoint(endpoint))
        .build_with_handle()
        .expect("valid")
}

async fn name(balance: &Balance<Backend>) -> String {
    let response = balance.clone().oneshot(Request::new(())).await.expect("infallible");
    if let Some(rejection) = response.extensions().get::<Rejection>() {
        return rejection.reason.as_str().to_owned();
    }
    let picked = response.extensions().get::<Picked>().expect("picked").endpoint.to_string();
    assert_eq!(response.headers()["name"], *picked, "it is where it was picked for");
    picked
}

#[tokio::test]
async fn r12_a_removed_endpoint_drains_and_one_inserted_again_keeps_its_counters() {
    let (balance, handle) = balance([endpoint("a"), endpoint("b")]);
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(balance.clone().oneshot(Request::new(())).await.expect("infallible").into_body());
    }
    assert!(balance.remove("a") && !balance.remove("nobody"));
    assert_eq!(handle.snapshot().len(), 1);
    assert_eq!(handle.demand_in_flight(), 4, "what streams goes on");
    for _ in 0..3 {
        assert_eq!(name(&balance).await, "b");
    }
    balance.insert(endpoint("a").weight(5)).expect("valid");
    let a = handle.snapshot().remove(0);
    assert_eq!((a.id.as_str(), a.weight, a.in_flight, a.picks), ("a", 5, 2, 2), "it comes back as it was");
    balance.remove("a");
    drop(streams);
    balance.insert(endpoint("a")).expect("valid");
    let again = handle.snapshot().into_iter().find(|endpoint| endpoint.id.as_str() == "a").expect("there");
    assert_eq!((again.in_flight, again.picks), (0, 0), "it had gone, and is a new one");
    assert_eq!(handle.demand_in_flight(), 0);
}

trait InFlight {
    fn demand_in_flight(&self) -> u64;
}

impl InFlight for BalanceHandle {
    fn demand_in_flight(&self) -> u64 {
        forebay_core::DemandSource::demand(self).total().in_flight
    }
}

#[tokio::test]
async fn an_endpoint_removed_between_pick_and_call_is_left_for_another() {
    let (balance, handle) = balance([endpoint("a"), endpoint("b")]);
    // The first is picked in `call`, before the future is polled.
    let first = balance.clone().call(Request::new(()));
    handle.remove("a");
    let response = first.await.expect("infallible");
    assert_eq!(response.headers()["name"], "a", "its service was taken with the pick");
    let (mut only, handle) = self::balance([endpoint("a")]);
    handle.drain("a");
    let response = only.call(Request::new(())).await.expect("infallible");
    assert_eq!(response.extensions().get::<Rejection>().expect("refused").reason, Reason::NoEndpoint);
}

#[test]
fn an_idle_endpoint_that_moves_to_another_pool_keeps_its_name() {
    let builder = Balance::builder().route(Class::P0, ["gold", "default"]).on_full(OnFull::Reject);
    let (balance, handle) = builder.endpoint(endpoint("a")).build_with_handle().expect("valid");
    balance.insert(endpoint("a").pool("gold")).expect("valid");
    let pools = || handle.snapshot().into_iter().map(|endpoint| endpoint.pool.to_string()).collect::<Vec<_>>();
    assert_eq!(pools(), ["gold"]);
    assert!(balance.fleet().pick(Class::P1).is_err(), "not its pool");
    balance.insert(endpoint("a")).expect("valid");
    assert_eq!(pools(), ["default"]);
    assert!(balance.remove("a") && pools().is_empty());
}

#[test]
fn the_services_go_with_the_last_balancer_or_with_the_last_permit() {
    let alive = Arc::new(());
    let builder = || ["a", "b"].map(|name| Endpoint::with_service(name, Arc::clone(&alive))).into_iter();
    let balance = builder().fold(Balance::builder(), forebay_balance::BalanceBuilder::endpoint).build().expect("valid");
    let clone = balance.clone();
    drop(balance);
    assert_eq!(Arc::strong_count(&alive), 3);
    let fleet = clone.fleet();
    let pick = fleet.pick(Class::P1).expect("open");
    drop((clone, fleet));
    assert_eq!(Arc::strong_count(&alive), 3, "the pick's clone, and its endpoint's, which the permit keeps");
    drop(pick);
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[test]
fn a_permit_of_a_removed_endpoint_may_outlive_the_balancer() {
    let (balance, handle) = balance([endpoint("a"), endpoint("b")]);
    let pick = balance.fleet().pick(Class::P1).expect("open");
    balance.remove(pick.permit.endpoint().as_str());
    drop((balance, handle));
    pick.finish(Outcome::Success);
}

#[tokio::test]
async fn a_list_replaces_the_endpoints_and_a_wrong_one_changes_nothing() {
    let (balance, handle) = balance([endpoint("a"), endpoint("b").weight(2)]);
    let stream = balance.clone().oneshot(Request::new(())).await.expect("infallible");
    let error = balance.replace([endpoint("c"), endpoint("c"), endpoint("d").max_concurrency(0).pool("gold")]);
    let text = error.expect_err("three problems").to_string();
    for named in ["c is in the list twice", "d max_concurrency", "gold"] {
        assert!(text.contains(named), "{named} in {text}");
    }
    assert_eq!(handle.snapshot().len(), 2);
    balance.replace([endpoint("b").weight(7), endpoint("c")]).expect("valid");
    let now: Vec<_> =
        handle.snapshot().into_iter().map(|end| (end.id.to_string(), end.weight, end.in_flight)).collect();
    assert_eq!(now, [("b".into(), 7, 1), ("c".into(), 1, 0)]);
    balance.replace([]).expect("it may be empty");
    assert_eq!(name(&balance).await, "no-endpoint");
    balance.insert(endpoint("d")).expect("valid");
    assert_eq!(name(&balance).await, "d", "and be filled again");
    drop(stream);
}

/// A stream of changes that a test pushes.
struct Pushed(mpsc::UnboundedReceiver<Result<Change<Backend>, &'static str>>);

impl Stream for Pushed {
    type Item = Result<Change<Backend>, &'static str>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

#[tokio::test]
async fn r50_a_stream_of_changes_is_followed_and_errors_change_nothing() {
    let (source, pushed) = mpsc::unbounded_channel();
    let (balance, handle) = Balance::builder().discover(Pushed(pushed)).build_with_handle().expect("valid");
    assert_eq!(name(&balance).await, "no-endpoint", "nothing is there yet");
    for change in [
        Ok(Change::Insert(endpoint("a"))),
        Ok(Change::Insert(endpoint("b"))),
        Err("the registry is away"),
        Ok(Change::Insert(endpoint("c").max_concurrency(0))),
        Ok(Change::Remove(EndpointId::new("a"))),
    ] {
        source.send(change).expect("it is followed");
    }
    timeout(LONG, async {
        while handle.snapshot().first().is_none_or(|first| first.id.as_str() != "b") {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("b is the only one");
    assert_eq!(name(&balance).await, "b");
    drop((balance, handle));
    timeout(LONG, source.closed()).await.expect("the source is let go with the balancer");
}

#[cfg(feature = "tower")]
#[tokio::test]
async fn r50_a_tower_discover_is_a_source() {
    let list = tower::discover::ServiceList::new::<Request<()>>(vec![Backend("0"), Backend("1")]);
    let (balance, handle) = Balance::builder().tower_discover(list).build_with_handle().expect("valid");
    timeout(LONG, async {
        while handle.snapshot().len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("both are there");
    assert_eq!((name(&balance).await, name(&balance).await), ("0".to_owned(), "1".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn r34_who_finds_no_place_waits_its_turn_and_who_leaves_gives_it_on() {
    let builder = Balance::builder().endpoint(endpoint("a").max_concurrency(1));
    let wait = OnFull::Wait { len: 2, timeout: Duration::from_secs(1) };
    let (balance, handle) = builder.on_full(wait).build_with_handle().expect("valid");
    let fleet: Fleet<Backend> = balance.fleet();
    let held = fleet.pick(Class::P1).expect("open");
    let mut first = Box::pin(fleet.wait(Class::P1));
    let mut second = Box::pin(fleet.wait(Class::P1));
    poll_once(first.as_mut()).await;
    poll_once(second.as_mut()).await;
    assert!(matches!(fleet.wait(Class::P1).await, Err(PickError::AtCapacity { .. })), "two wait already");
    held.finish(Outcome::Success);
    assert!(fleet.pick(Class::P0).is_err(), "the place is the first one's");
    drop(first); // with the place that it was given
    let held = second.await.expect("its turn");
    assert!(matches!(fleet.wait(Class::P2).await, Err(PickError::AtCapacity { .. })), "a second is over");
    let soon = forebay_core::Deadline::at((tokio::time::Instant::now() + Duration::from_millis(5)).into_std());
    let late = fleet.wait(Ask::from(Class::P2).deadline(soon)).await;
    assert_eq!(late.map(|_| ()), Err(PickError::DeadlineExceeded));
    drop(held);
    assert_eq!((handle.demand_in_flight(), handle.places().open), (0, 1));
}

async fn poll_once<F: Future>(mut future: Pin<&mut F>) {
    poll_fn(|cx| {
        assert!(future.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_served_when_time_alone_brings_a_place() {
    let builder =
        Balance::builder().endpoint(endpoint("a").max_concurrency(4)).endpoint(endpoint("b").max_concurrency(1));
    let wait = OnFull::Wait { len: 2, timeout: Duration::from_secs(60) };
    let (balance, handle) = builder.on_full(wait).build_with_handle().expect("valid");
    let fleet = balance.fleet();
    handle.eject("a", Duration::from_secs(7));
    let _held = fleet.pick(Class::P0).expect("b");
    let before = tokio::time::Instant::now();
    let pick = fleet.wait(Class::P0).await.expect("a comes back");
    assert_eq!((pick.permit.endpoint().as_str(), before.elapsed().as_secs()), ("a", 7));
    assert_eq!(handle.snapshot()[0].state, EndpointState::Probation);
}

#[test]
fn who_waits_is_served_also_when_the_runtime_of_an_earlier_waiter_has_ended() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let builder =
        Balance::builder().endpoint(endpoint("a").max_concurrency(4)).endpoint(endpoint("b").max_concurrency(1));
    let wait = OnFull::Wait { len: 2, timeout: Duration::from_secs(60) };
    let (balance, handle) = builder.on_full(wait).build_with_handle().expect("valid");
    let fleet = balance.fleet();
    handle.eject("a", Duration::from_millis(200));
    let _held = fleet.pick(Class::P0).expect("b");
    runtime().block_on(poll_once(Box::pin(fleet.wait(Class::P0)).as_mut()));
    let pick = runtime().block_on(async { timeout(LONG, fleet.wait(Class::P0)).await.expect("in time") });
    assert_eq!(pick.expect("a comes back").permit.endpoint().as_str(), "a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_changes_under_load_lose_and_misroute_nothing() {
    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let (balance, handle) = balance([endpoint("a")]);
    let served = Arc::new(AtomicU32::new(0));
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            let (balance, served) = (balance.clone(), Arc::clone(&served));
            tokio::spawn(async move {
                for i in 0..10_000_u32 {
                    let response = balance.clone().oneshot(Request::new(())).await.expect("infallible");
                    let Some(picked) = response.extensions().get::<Picked>().cloned() else {
                        panic!("a is always there: {:?}", response.extensions().get::<Rejection>())
                    };
                    assert_eq!(response.headers()["name"], *picked.endpoint.as_str());
                    served.fetch_add(1, SeqCst);
                    match (i + caller) % 3 {
                        0 => drop(response),
                        1 => drop(response.into_body().frame().await),
                        _ => drop(response.into_body().collect().await),
                    }
                    if i % 64 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    let changer = tokio::task::spawn_blocking({
        let (balance, handle) = (balance.clone(), handle.clone());
        move || {
            for i in 0..100_000_usize {
                let name = NAMES[1 + i * 7 % 5];
                match i % 4 {
                    0 => balance.insert(endpoint(name).weight(1 + (i % 9) as u16)).expect("valid"),
                    1 => drop(balance.remove(name)),
                    2 => drop(handle.set_weight(name, (i % 3) as u16)),
                    _ => drop(handle.eject(name, Duration::from_millis(1))),
                }
            }
        }
    });
    for caller in callers {
        caller.await.expect("no panic");
    }
    changer.await.expect("no panic");
    assert_eq!(served.load(SeqCst), 40_000);
    assert_eq!(handle.demand_in_flight(), 0);
    assert!(handle.snapshot().iter().all(|endpoint| endpoint.in_flight == 0));
    balance.replace([endpoint("a")]).expect("valid");
    assert_eq!(handle.snapshot().len(), 1, "nothing that was removed is left");
}
