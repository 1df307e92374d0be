//! The layer keeps tower's contract, its order, its bounds and its promises, with a spy behind it and a paused clock.

use std::convert::Infallible;
use std::future::Future as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay_core::testing::{Scripted, Seen, Spy, SpyBody, Step};
use forebay_core::{Class, Deadline, Reason, Rejection};
use forebay_priority::{ByHeader, Cap, PriorityBody, PriorityConfig, PriorityHandle, PriorityLayer, QueueLength};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};
use tower::util::BoxCloneService;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};

type Seens = Arc<Mutex<Seen>>;
type Boxed = BoxCloneService<Request<()>, Response<PriorityBody<SpyBody<Scripted>>>, Infallible>;

/// One seat, a queue of two a class, and answers that stream two frames.
fn one_seat() -> (Boxed, PriorityHandle, Seens) {
    let mut config = PriorityConfig::four_class(1);
    for class in &mut config.classes {
        (class.queue, class.patience_seats) = (QueueLength::Fixed(2), 0);
    }
    config.classes[0].queue_timeout = Duration::from_millis(500);
    let (layer, handle) = PriorityLayer::builder().config(config).build_with_handle().expect("a valid configuration");
    let steps = || [Step::Pending, Step::Data("a".into()), Step::Data("b".into())];
    let (spy, seen) = Spy::new(service_fn(move |_: Request<()>| async move {
        Ok::<_, Infallible>(Response::new(Scripted::new(steps())))
    }));
    (BoxCloneService::new(layer.layer(spy)), handle, seen)
}

fn request(class: Class) -> Request<()> {
    let mut request = Request::new(());
    request.extensions_mut().insert(class);
    request
}

fn reason<B>(response: &Response<B>) -> Reason {
    response.extensions().get::<Rejection>().expect("a refusal").reason
}

#[tokio::test(start_paused = true)]
async fn a_seat_lasts_until_the_body_has_ended() {
    let (service, handle, seen) = one_seat();
    let body = service.clone().oneshot(request(Class::P2)).await.expect("infallible").into_body();
    let mut second = spawn(service.clone().oneshot(request(Class::P2)));
    assert_pending!(second.poll());
    assert_eq!(handle.snapshot().classes[2].in_flight, 1, "the head is out, the stream is not");
    assert_eq!(body.collect().await.expect("a good stream").to_bytes(), "ab");
    assert!(second.is_woken());
    let answer = assert_ready!(second.poll()).expect("infallible");
    drop(answer);
    let seen = seen.lock().unwrap();
    assert_eq!((seen.calls, seen.unready_calls, seen.in_flight, seen.peak), (2, 0, 0, 1));
    let idle = handle.snapshot();
    assert!(idle.classes.iter().all(|class| class.in_flight == 0 && class.queued == 0), "{idle:?}");
}

#[tokio::test(start_paused = true)]
async fn r7_the_most_urgent_goes_first_then_the_oldest() {
    let (service, _, _) = one_seat();
    let first = service.clone().oneshot(request(Class::P0)).await.expect("infallible");
    let mut queued: Vec<_> =
        [Class::P3, Class::P1, Class::P1, Class::P0].map(|class| spawn(service.clone().oneshot(request(class)))).into();
    queued.iter_mut().for_each(|task| assert_pending!(task.poll()));
    let mut order = Vec::new();
    let mut seat = Some(first);
    while order.len() < 4 {
        drop(seat.take());
        let next = queued.iter().position(|task| task.is_woken()).expect("the freed seat wakes one");
        assert_eq!(queued.iter().filter(|task| task.is_woken()).count(), 1, "and only one");
        seat = Some(assert_ready!(queued[next].poll()).expect("infallible"));
        queued[next] = spawn(service.clone().oneshot(request(Class::P2))); // unpolled: takes no place
        order.push(next);
    }
    assert_eq!(order, [3, 1, 2, 0]);
}

#[tokio::test(start_paused = true)]
async fn r9_a_full_queue_a_timeout_and_a_deadline_are_told_apart() {
    let (service, handle, seen) = one_seat();
    let held = service.clone().oneshot(request(Class::P2)).await.expect("infallible");
    let waits = tokio::spawn(service.clone().oneshot(request(Class::P0)));
    let mut dies = request(Class::P0);
    dies.extensions_mut().insert(Deadline::after(tokio::time::Instant::now().into_std(), Duration::from_millis(20)));
    let dies = tokio::spawn(service.clone().oneshot(dies));
    tokio::task::yield_now().await;
    let full = service.clone().oneshot(request(Class::P0)).await.expect("infallible");
    assert_eq!((full.status().as_u16(), reason(&full)), (429, Reason::QueueFull));
    let late = waits.await.expect("no panic").expect("infallible");
    assert_eq!((late.status().as_u16(), reason(&late)), (429, Reason::QueueTimeout));
    assert_eq!(late.extensions().get::<Rejection>().unwrap().waited, Duration::from_millis(500));
    let dead = dies.await.expect("no panic").expect("infallible");
    assert_eq!((dead.status().as_u16(), reason(&dead)), (504, Reason::DeadlineExceeded));
    let mut past = request(Class::P0);
    past.extensions_mut().insert(Deadline::at(tokio::time::Instant::now().into_std()));
    assert_eq!(reason(&service.clone().oneshot(past).await.expect("infallible")), Reason::DeadlineExceeded);
    assert_eq!(seen.lock().unwrap().calls, 1, "the backend saw none of them");
    drop(held);
    let p0 = handle.snapshot().classes[0];
    assert_eq!((p0.offered, p0.shed, p0.queued), (4, 4, 0));
}

#[tokio::test(start_paused = true)]
async fn r2_an_idle_clone_and_readiness_reserve_nothing() {
    let (mut service, handle, _) = one_seat();
    for _ in 0..1_000_000 {
        std::future::poll_fn(|cx| service.poll_ready(cx)).await.expect("infallible");
    }
    let unpolled: Vec<_> = (0..100).map(|_| service.clone().oneshot(request(Class::P2))).collect();
    assert_eq!(handle.snapshot().classes[2].offered, 0);
    let answer = service.oneshot(request(Class::P3)).await.expect("infallible");
    assert_eq!(answer.status(), 200);
    drop(unpolled);
}

#[tokio::test(start_paused = true)]
async fn inner_errors_pass_as_they_are_and_free_the_seat() {
    let (layer, handle) =
        PriorityLayer::builder().config(PriorityConfig::four_class(1)).build_with_handle().expect("a preset");
    let failing = layer.layer(service_fn(|_: Request<()>| async { Err::<Response<Scripted>, _>("broken") }));
    for _ in 0..3 {
        assert_eq!(failing.clone().oneshot(Request::new(())).await.err(), Some("broken"));
    }
    let panicking = layer.layer(service_fn(|_: Request<()>| async {
        if true {
            panic!("a bug inside")
        }
        Ok::<_, Infallible>(Response::new(Scripted::new([])))
    }));
    let outcome = tokio::spawn(panicking.oneshot(Request::new(()))).await;
    assert!(outcome.is_err_and(|error| error.is_panic()));
    assert_eq!(handle.snapshot().classes[2].in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_raised_limit_wakes_waiters_within_the_call_and_zero_pauses() {
    let (service, handle, _) = one_seat();
    handle.set_limit(0);
    let mut waits = spawn(service.clone().oneshot(request(Class::P1)));
    assert_pending!(waits.poll());
    handle.set_limit(2);
    assert!(waits.is_woken());
    let first = assert_ready!(waits.poll()).expect("infallible");
    handle.set_limit(1);
    let mut second = spawn(service.oneshot(request(Class::P1)));
    assert_pending!(second.poll());
    drop(first);
    assert!(second.is_woken());
}

#[tokio::test(start_paused = true)]
async fn a_drain_refuses_newcomers_serves_the_queue_and_ends() {
    let (service, handle, _) = one_seat();
    let running = service.clone().oneshot(request(Class::P2)).await.expect("infallible");
    let mut queued = spawn(service.clone().oneshot(request(Class::P2)));
    assert_pending!(queued.poll());
    let mut drained = spawn(handle.drain());
    assert_pending!(drained.poll());
    let refused = service.oneshot(request(Class::P0)).await.expect("infallible");
    assert_eq!((refused.status().as_u16(), reason(&refused)), (503, Reason::ShuttingDown));
    drop(running);
    let last = assert_ready!(queued.poll()).expect("infallible");
    assert_pending!(drained.poll());
    drop(last);
    assert!(drained.is_woken());
    assert_ready!(drained.poll());
}

#[tokio::test(start_paused = true)]
async fn r7_a_class_at_its_cap_does_not_hold_up_those_below() {
    let mut config = PriorityConfig::four_class(2);
    config.classes[0].max_in_flight = Cap::Seats(1);
    let (layer, _) = PriorityLayer::builder().config(config).build_with_handle().expect("valid");
    let service =
        layer.layer(service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Scripted::new([]))) }));
    let held = service.clone().oneshot(request(Class::P0)).await.expect("infallible");
    let mut capped = spawn(service.clone().oneshot(request(Class::P0)));
    assert_pending!(capped.poll());
    let below = service.oneshot(request(Class::P3)).await.expect("infallible");
    assert_eq!(below.status(), 200);
    drop(held);
    assert!(capped.is_woken());
}

#[tokio::test]
async fn an_untrusted_header_only_lowers_a_class() {
    let (_, handle) = PriorityLayer::builder()
        .classify(ByHeader::new("x-priority").default_class(Class::P1))
        .build_with_handle()
        .expect("valid");
    let huge = "p3".repeat(4096);
    for (values, class) in [
        (vec!["p0"], Class::P1),
        (vec!["P3"], Class::P3),
        (vec!["p3", "p3"], Class::P3),
        (vec!["p3", "p2"], Class::P1),
        (vec!["p0,p3"], Class::P1),
        (vec!["-1"], Class::P1),
        (vec!["999"], Class::P1),
        (vec![""], Class::P1),
        (vec![&huge], Class::P1),
        (vec!["NaN"], Class::P1),
        (vec!["ünïcode"], Class::P1),
    ] {
        let mut request = Request::new(());
        for value in &values {
            request.headers_mut().append("x-priority", http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        handle.mark(&mut request);
        assert_eq!(request.extensions().get::<Class>(), Some(&class), "{values:?}");
        let seen: Vec<_> = request.headers().get_all("x-priority").iter().collect();
        assert_eq!(seen, [class.as_str()], "the caller's own value never goes inward");
    }
    let error = PriorityLayer::builder().classify(ByHeader::new("a b")).build().expect_err("no header name");
    assert!(error.to_string().contains("ByHeader is \"a b\""));
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_comes_back_or_panics_harms_nobody() {
    struct Comes(PriorityHandle, bool);
    impl std::task::Wake for Comes {
        fn wake(self: Arc<Self>) {
            assert_eq!(self.0.snapshot().classes[1].in_flight, 1, "it may look");
            drop(self.0.admission().try_acquire(forebay_priority::Ask::new(Class::P0))); // and ask
            assert!(!self.1, "a bug in a waker");
        }
    }
    let (service, handle, _) = one_seat();
    let running = service.clone().oneshot(request(Class::P2)).await.expect("infallible");
    let mut polite = Box::pin(service.clone().oneshot(request(Class::P1)));
    let comes = std::task::Waker::from(Arc::new(Comes(handle.clone(), false)));
    assert!(polite.as_mut().poll(&mut std::task::Context::from_waker(&comes)).is_pending());
    drop(running);
    let answer = polite.await.expect("infallible");
    drop(answer);

    handle.set_limit(0);
    let mut bad = Box::pin(service.clone().oneshot(request(Class::P1)));
    let panics = std::task::Waker::from(Arc::new(Comes(handle.clone(), true)));
    assert!(bad.as_mut().poll(&mut std::task::Context::from_waker(&panics)).is_pending());
    let mut good = spawn(service.clone().oneshot(request(Class::P2)));
    assert_pending!(good.poll());
    let raised = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| handle.set_limit(2)));
    assert!(raised.is_err() && good.is_woken(), "the one behind it is woken all the same");
    drop(assert_ready!(good.poll()));
    drop(bad.await);
    let idle = handle.snapshot();
    assert!(idle.classes.iter().all(|class| class.in_flight == 0 && class.waiting == 0), "{idle:?}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_users_function_holds_nothing() {
    let classify = |head: &forebay_core::RequestHead<'_>| {
        assert!(!head.headers.contains_key("bad"), "a bug in the classifier");
        Class::P1
    };
    let cost = |head: &forebay_core::RequestHead<'_>| {
        assert!(!head.headers.contains_key("worse"), "a bug in the cost");
        forebay_priority::Seats::new(1)
    };
    let config = PriorityConfig::four_class(1);
    let builder = PriorityLayer::builder().config(config).classify(classify).cost(cost);
    let (layer, handle) = builder.build_with_handle().expect("valid");
    let service =
        layer.layer(service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Scripted::new([]))) }));
    for bug in ["bad", "worse"] {
        let mut request = Request::new(());
        request.headers_mut().insert(bug, "1".parse().expect("a value"));
        assert!(tokio::spawn(service.clone().oneshot(request)).await.is_err_and(|error| error.is_panic()));
    }
    let changed = std::panic::AssertUnwindSafe(|| handle.update_class(Class::P0, |_| panic!("a bug in the change")));
    assert!(std::panic::catch_unwind(changed).is_err());
    assert_eq!(service.oneshot(Request::new(())).await.expect("infallible").status(), 200, "the layer lives on");
}

#[tokio::test(start_paused = true)]
async fn a_service_inside_that_is_never_ready_is_bounded_by_the_deadline_and_by_its_caller() {
    let (layer, handle) =
        PriorityLayer::builder().config(PriorityConfig::four_class(1)).build_with_handle().expect("a preset");
    #[derive(Clone)]
    struct Never;
    impl Service<Request<()>> for Never {
        type Response = Response<Scripted>;
        type Error = Infallible;
        type Future = std::future::Pending<Result<Self::Response, Infallible>>;
        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
            std::task::Poll::Pending
        }
        fn call(&mut self, _: Request<()>) -> Self::Future {
            panic!("called without being ready")
        }
    }
    let service = layer.layer(Never);
    let mut leaves = spawn(service.clone().oneshot(Request::new(())));
    assert_pending!(leaves.poll());
    assert_eq!(handle.snapshot().classes[2].in_flight, 1);
    drop(leaves);
    let mut bounded = Request::new(());
    bounded
        .extensions_mut()
        .insert(Deadline::after(tokio::time::Instant::now().into_std(), Duration::from_millis(100)));
    let response = service.oneshot(bounded).await.expect("infallible");
    assert_eq!(reason(&response), Reason::DeadlineExceeded);
    assert_eq!(handle.snapshot().classes[2].in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn the_routes_of_an_axum_router_share_the_seats() {
    use axum::{Router, body::Body, routing::get};
    let (layer, handle) =
        PriorityLayer::builder().config(PriorityConfig::four_class(1)).build_with_handle().expect("a preset");
    let stream = || async { Body::new(Scripted::new([Step::Data("a".into())])) }; // of unknown length: it has to be read
    let app: Router = Router::new().route("/a", get(stream)).route("/b", get(stream)).layer(layer);
    let to = |path: &str| Request::get(path).body(Body::empty()).expect("valid");
    let held = app.clone().oneshot(to("/a")).await.expect("infallible");
    let mut other = spawn(app.oneshot(to("/b")));
    assert_pending!(other.poll());
    assert_eq!(handle.snapshot().classes[2].waiting, 1);
    drop(held);
    assert!(other.is_woken());
}
