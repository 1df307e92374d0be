//! The balancer keeps tower's contract, counts to the end of the body, and says what it refuses, with a spy behind it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use forebay_balance::{Balance, BalanceHandle, Endpoint, EndpointState, OnFull, Picked, Redial, Undispatched};
use forebay_core::testing::{Scripted, Seen, Spy, Step, cut_after};
use forebay_core::{Class, Counted, Deadline, DemandSource as _, Reason, Rejection};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tower::{Service, ServiceExt as _, service_fn};

/// An endpoint that streams two frames, or does as its mode says.
#[derive(Debug, Clone)]
struct Backend {
    mode: &'static str,
}

#[derive(Debug, thiserror::Error)]
#[error("failed")]
struct Failed(Option<Request<()>>);

impl Undispatched<Request<()>> for Failed {
    fn take_request(&mut self) -> Option<Request<()>> {
        self.0.take()
    }
}

impl Service<Request<()>> for Backend {
    type Response = Response<Scripted>;
    type Error = Failed;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<Scripted>, Failed>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        if self.mode == "unready" { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let mode = self.mode;
        Box::pin(async move {
            tokio::task::yield_now().await;
            let steps = [Step::Data("a".into()), Step::Pending, Step::Data("b".into())];
            let mut response = Response::new(Scripted::new(steps));
            match mode {
                "refuses" => return Err(Failed(Some(request))),
                "breaks" => return Err(Failed(None)),
                "busy" => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
                "silent" => std::future::pending().await,
                "grpc-head" => drop(response.headers_mut().insert("grpc-status", HeaderValue::from_static("13"))),
                "grpc-end" => {
                    let end = HeaderMap::from_iter([(
                        HeaderName::from_static("grpc-status"),
                        HeaderValue::from_static("14"),
                    )]);
                    *response.body_mut() = Scripted::new([Step::Data("a".into()), Step::Trailers(end)]);
                }
                _ => {}
            }
            Ok(response)
        })
    }
}

type Fleet = Balance<Spy<Backend>, Redial>;

fn fleet(endpoints: &[(&'static str, u16, Option<u32>)]) -> (Fleet, BalanceHandle, Vec<Arc<Mutex<Seen>>>) {
    let mut builder = Balance::<Spy<Backend>, Redial>::builder_with_redial().on_full(OnFull::Reject);
    let mut seens = Vec::new();
    for (index, (mode, weight, max)) in endpoints.iter().enumerate() {
        let (spy, seen) = Spy::new(Backend { mode });
        let mut endpoint = Endpoint::with_service(format!("{index}-{mode}"), spy).weight(*weight);
        if let Some(max) = max {
            endpoint = endpoint.max_concurrency(*max);
        }
        builder = builder.endpoint(endpoint);
        seens.push(seen);
    }
    let balance = builder.build().expect("valid");
    let handle = balance.handle();
    (balance, handle, seens)
}

fn idle(handle: &BalanceHandle) -> bool {
    let demand = handle.demand().total();
    handle.snapshot().iter().all(|endpoint| endpoint.in_flight == 0) && demand.in_flight == 0
}

#[tokio::test(start_paused = true)]
async fn held_requests_are_shared_by_weight_to_the_end_of_their_bodies() {
    let (balance, handle, seens) = fleet(&[("good", 3, None), ("good", 2, None), ("good", 1, None)]);
    let mut held = Vec::new();
    for _ in 0..60 {
        held.push(balance.clone().oneshot(Request::new(())).await.expect("served"));
    }
    let in_flight: Vec<_> = handle.snapshot().iter().map(|endpoint| endpoint.in_flight).collect();
    assert_eq!(in_flight, [30, 20, 10], "the heads are out, the streams are not");
    assert_eq!(handle.demand()[Class::P2].in_flight, 60);
    for response in held {
        assert_eq!(response.into_body().collect().await.expect("a good stream").to_bytes(), "ab");
    }
    assert!(idle(&handle));
    assert_eq!(handle.snapshot()[0].success, 30);
    for seen in seens {
        let seen = *seen.lock().unwrap();
        assert_eq!((seen.unready_calls, seen.in_flight, seen.early_drops), (0, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_and_clones_hold_nothing() {
    let (mut balance, handle, _) = fleet(&[("good", 1, Some(1))]);
    for _ in 0..1000 {
        std::future::poll_fn(|cx| Service::<Request<()>>::poll_ready(&mut balance, cx)).await.expect("always ready");
    }
    let _clones: Vec<_> = (0..100).map(|_| balance.clone()).collect();
    assert!(idle(&handle));
    assert_eq!(balance.oneshot(Request::new(())).await.expect("served").status(), 200);
}

#[tokio::test(start_paused = true)]
async fn full_and_drained_are_refused_in_their_own_words() {
    let (balance, handle, _) = fleet(&[("good", 1, Some(1))]);
    let held = balance.clone().oneshot(Request::new(())).await.expect("served");
    let full = balance.clone().oneshot(Request::new(())).await.expect("refused");
    assert_eq!(full.status(), 429);
    assert_eq!(full.extensions().get::<Rejection>().unwrap().reason, Reason::AtCapacity);
    drop(held);
    assert!(handle.set_weight("0-good", 0) && !handle.set_weight("nobody", 1));
    let drained = balance.oneshot(Request::new(())).await.expect("refused");
    assert_eq!(drained.status(), 503);
    assert_eq!(drained.extensions().get::<Rejection>().unwrap().reason, Reason::NoEndpoint);
    assert_eq!(handle.demand()[Class::P2].shed, 2);
    assert_eq!(handle.replicas("default").unwrap().ready, 0);
    assert_eq!(handle.replicas("other"), None);
}

#[tokio::test(start_paused = true)]
async fn what_never_left_goes_elsewhere_twice_at_most() {
    let (balance, handle, seens) = fleet(&[("refuses", 9, None), ("unready", 8, None), ("good", 1, None)]);
    let response = balance.oneshot(Request::new(())).await.expect("served by the third");
    let picked = response.extensions().get::<Picked>().unwrap();
    assert_eq!((picked.endpoint.as_str(), picked.tries), ("2-good", 3));
    drop(response);
    assert!(idle(&handle));
    assert_eq!(seens[2].lock().unwrap().calls, 1);
    let (balance, handle, _) =
        fleet(&[("refuses", 4, None), ("refuses", 3, None), ("refuses", 2, None), ("good", 1, None)]);
    assert!(balance.oneshot(Request::new(())).await.is_err(), "the fourth is not asked");
    assert!(idle(&handle));
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_seen_and_a_status_are_never_sent_again() {
    let (balance, handle, seens) = fleet(&[("breaks", 9, None), ("good", 1, None)]);
    assert!(balance.oneshot(Request::new(())).await.is_err());
    assert_eq!(seens[1].lock().unwrap().calls, 0);
    assert!(idle(&handle));
    assert_eq!((handle.snapshot()[0].error, handle.snapshot()[1].picks), (1, 0), "the other was not even picked");
    let (balance, handle, seens) = fleet(&[("busy", 9, None), ("good", 1, None)]);
    let response = balance.oneshot(Request::new(())).await.expect("a status is an answer");
    assert_eq!(response.status(), 503);
    assert!(response.extensions().get::<Rejection>().is_none(), "the backend's own refusal is no promise of ours");
    response.into_body().collect().await.expect("a good stream");
    assert_eq!(seens[1].lock().unwrap().calls, 0);
    assert_eq!((handle.snapshot()[0].overload, handle.snapshot()[0].success), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_wait_for_the_head_and_drops_the_upstream() {
    let (balance, handle, seens) = fleet(&[("silent", 1, None)]);
    let mut request = Request::new(());
    let now = tokio::time::Instant::now();
    request.extensions_mut().insert(Deadline::after(now.into_std(), Duration::from_secs(2)));
    let response = balance.oneshot(request).await.expect("refused");
    assert_eq!(response.status(), 504);
    assert_eq!(now.elapsed(), Duration::from_secs(2));
    assert!(idle(&handle));
    assert_eq!(seens[0].lock().unwrap().early_drops, 1);
}

/// The answer to a request that may take so long.
async fn within(balance: &Fleet, time: Duration) -> StatusCode {
    let mut request = Request::new(());
    request.extensions_mut().insert(Deadline::after(tokio::time::Instant::now().into_std(), time));
    let response = balance.clone().oneshot(request).await.expect("infallible");
    let status = response.status();
    drop(response.into_body().collect().await);
    status
}

#[tokio::test(start_paused = true)]
async fn r13_a_deadline_that_only_one_endpoint_misses_is_its_error() {
    let (balance, handle, _) = fleet(&[("good", 1, None), ("silent", 1, None)]);
    for _ in 0..20 {
        within(&balance, Duration::from_secs(5)).await;
    }
    let silent = &handle.snapshot()[1];
    assert_eq!((silent.state, silent.error), (EndpointState::Ejected, 5));
}

#[tokio::test(start_paused = true)]
async fn r13_a_deadline_that_leaves_no_time_says_nothing_of_an_endpoint() {
    let (balance, handle, _) = fleet(&[("silent", 1, None), ("silent", 1, None)]);
    for _ in 0..20 {
        assert_eq!(within(&balance, Duration::from_millis(900)).await, 504);
    }
    let endpoints = handle.snapshot();
    assert!(
        endpoints.iter().all(|silent| (silent.state, silent.error, silent.cancelled) == (EndpointState::Up, 0, 10))
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_counted_further_out_is_not_counted_again() {
    let (balance, handle, _) = fleet(&[("good", 1, None)]);
    let mut request = Request::new(());
    request.extensions_mut().insert(Counted);
    let held = balance.oneshot(request).await.expect("served");
    assert_eq!(handle.demand().total().offered, 0);
    assert_eq!(handle.snapshot()[0].in_flight, 1);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn dropped_at_every_poll_it_leaves_every_count_right() {
    for mode in ["good", "refuses", "breaks", "busy"] {
        for polls in 0.. {
            let (balance, handle, seens) = fleet(&[(mode, 2, Some(1)), ("good", 1, Some(1))]);
            let exchange = {
                let balance = balance.clone();
                async move {
                    match balance.oneshot(Request::new(())).await {
                        Ok(response) => drop(response.into_body().collect().await),
                        Err(_) => assert_eq!(mode, "breaks"),
                    }
                }
            };
            let done = cut_after(polls, exchange).await.is_some();
            assert!(idle(&handle), "{mode} cut after {polls} polls");
            for seen in &seens {
                let seen = seen.lock().unwrap();
                assert_eq!((seen.in_flight, seen.unready_calls), (0, 0), "{mode} cut after {polls} polls");
            }
            let next = balance.oneshot(Request::new(())).await;
            assert!(next.is_ok() || mode == "breaks", "the places are free again");
            if done {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_panic_inside_leaves_no_count() {
    let panicking = service_fn(|_: Request<()>| async {
        if true {
            panic!("a bug inside");
        }
        Ok::<_, Infallible>(Response::new(Scripted::new([])))
    });
    let balance: Balance<_> =
        Balance::builder().endpoint(Endpoint::with_service("bad", panicking)).build().expect("valid");
    let handle = balance.handle();
    let outcome = tokio::spawn(balance.oneshot(Request::new(()))).await;
    assert!(outcome.is_err_and(|error| error.is_panic()));
    assert!(idle(&handle));
}

#[test]
fn every_problem_is_named_at_once() {
    let endpoint = |max| Endpoint::with_service("twin", Backend { mode: "good" }).max_concurrency(max);
    let error = Balance::builder()
        .endpoint(endpoint(0))
        .endpoint(endpoint(1))
        .ready_timeout(Duration::ZERO)
        .build()
        .map(|balance: Balance<_>| balance)
        .expect_err("three problems");
    assert_eq!(error.problems().len(), 3, "{error}");
    let none = Balance::<Backend>::builder().build().map(|balance: Balance<_>| balance).expect_err("no endpoints");
    assert!(none.to_string().contains("endpoints is empty"));
}

#[tokio::test]
async fn a_grpc_error_is_none_of_its_endpoints_successes() {
    let (balance, handle, _) = fleet(&[("grpc-head", 1, None), ("grpc-end", 1, None)]);
    for _ in 0..2 {
        let response = balance.clone().oneshot(Request::new(())).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body().collect().await.expect("a whole body");
    }
    let ended: Vec<_> = handle.snapshot().iter().map(|one| (one.success, one.overload, one.error)).collect();
    assert_eq!(ended, [(0, 0, 1), (0, 1, 0)], "in the head, and in the trailers");
}
