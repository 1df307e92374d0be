//! The layer keeps the contract of a tower service: readiness, pass-through, refusals, and never a 202 for nothing.

mod kit;

use std::time::Duration;

use bytes::Bytes;
use forebay_core::{
    BoxError, Class, DemandSource, Offloaded, Overflow, Principal, Reason, Rejection, ReqBody, ResBody,
    testing::{Scripted, Spy, Step},
};
use forebay_offload::{JobOptions, OffloadLayer, Policy, policy::JobState, store::MemoryStore};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use kit::{Down, queue, read, respond_async};
use tower::{Layer, Service, ServiceExt, service_fn};

type Inner = Request<ReqBody<Full<Bytes>>>;

async fn echo(request: Inner) -> Result<Response<Full<Bytes>>, BoxError> {
    let body = request.into_body().collect().await?.to_bytes();
    Ok(Response::new(Full::new(Bytes::from([b"inline ", &body[..]].concat()))))
}

#[tokio::test]
async fn what_is_not_asked_for_passes_untouched() {
    let queue = queue(MemoryStore::new());
    let (layer, handle) = OffloadLayer::builder(queue).build_with_handle().unwrap();
    let (spy, seen) = Spy::new(service_fn(echo));
    let service = layer.layer(spy);
    let plain = Request::post("/").body(Full::from("a")).unwrap();
    assert_eq!(read(service.clone().oneshot(plain).await.unwrap()).await.1, "inline a");
    for (method, name, value) in [
        (Method::HEAD, "accept", "*/*"),
        (Method::OPTIONS, "accept", "*/*"),
        (Method::TRACE, "accept", "*/*"),
        (Method::CONNECT, "accept", "*/*"),
        (Method::GET, "upgrade", "websocket"),
        (Method::POST, "content-type", "application/grpc+proto"),
    ] {
        let mut request = respond_async("/", "b");
        *request.method_mut() = method;
        request.headers_mut().insert(name, value.parse().unwrap());
        assert_eq!(service.clone().oneshot(request).await.unwrap().status(), 200, "{name}: {value}");
    }
    let mut job = respond_async("/", "c");
    job.extensions_mut().insert(Offloaded);
    assert_eq!(service.oneshot(job).await.unwrap().status(), 200);
    assert_eq!(handle.snapshot().passed, 8);
    assert_eq!(handle.snapshot().queue.offered, [0; 16]);
    let seen = seen.lock().unwrap();
    assert_eq!((seen.calls, seen.unready_calls, seen.in_flight), (8, 0, 0));
}

#[tokio::test]
async fn what_is_asked_for_becomes_a_job_and_the_inner_service_is_not_touched() {
    let queue = queue(MemoryStore::new());
    let (layer, handle) = OffloadLayer::builder(queue.clone()).build_with_handle().unwrap();
    let (spy, seen) = Spy::new(service_fn(echo));
    let mut request = respond_async("/v1/report?a=b", "body");
    request.extensions_mut().insert(Class::P1);
    let response = layer.layer(spy).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 202);
    let headers = response.headers().clone();
    for (name, value) in [
        ("preference-applied", "respond-async"),
        ("vary", "prefer"),
        ("cache-control", "no-store"),
        ("content-type", "application/json"),
        ("retry-after", "5"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    let location = headers["location"].to_str().unwrap();
    assert!(location.starts_with("/jobs/") && location.contains("?token="), "{location}");
    let document: serde_json::Value = serde_json::from_str(&read(response).await.1).unwrap();
    assert_eq!(document["state"], "queued");
    assert_eq!(document["class"], "P1");
    assert_eq!(document["links"]["self"], location);
    assert_eq!(handle.demand()[Class::P1].queued, 1);
    assert_eq!(seen.lock().unwrap().polls, 0);
}

#[tokio::test]
async fn the_layer_is_always_ready_and_asks_the_instance_it_calls() {
    let layer = OffloadLayer::new(queue(MemoryStore::new()));
    let (spy, seen) = Spy::new(service_fn(echo));
    let mut service = layer.layer(spy);
    std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
    assert_eq!(seen.lock().unwrap().polls, 0);
    let response = service.call(Request::post("/").body(Full::from("x")).unwrap()).await.unwrap();
    read(response).await;
    let seen = seen.lock().unwrap();
    assert_eq!((seen.calls, seen.unready_calls), (1, 0));
    assert!(seen.polls >= 1);
}

#[tokio::test]
async fn policies_are_obeyed() {
    let queue = queue(MemoryStore::new());
    let layer = OffloadLayer::builder(queue.clone())
        .policy_fn(|head| if head.uri.path() == "/slow" { Policy::Always } else { Policy::Never })
        .build()
        .unwrap();
    let service = layer.layer(service_fn(echo));
    let slow = Request::post("/slow").body(Full::from("a")).unwrap();
    let response = service.clone().oneshot(slow).await.unwrap();
    assert_eq!(response.status(), 202);
    assert!(!response.headers().contains_key("preference-applied"));
    assert_eq!(service.oneshot(respond_async("/fast", "b")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_body_at_the_limit_is_stored_and_one_over_it_is_served_inline_whole() {
    let queue = kit::builder(MemoryStore::new()).max_request_body(4).build().unwrap();
    let (layer, handle) = OffloadLayer::builder(queue.clone()).build_with_handle().unwrap();
    let inner = service_fn(|request: Request<ReqBody<Scripted>>| async move {
        let body = request.into_body().collect().await?.to_bytes();
        Ok::<_, BoxError>(Response::new(Full::new(body)))
    });
    let service = layer.layer(inner);
    let body = |parts: &[&'static str]| {
        Scripted::new(parts.iter().map(|part| Step::Data(Bytes::from_static(part.as_bytes()))).collect::<Vec<_>>())
    };
    let ask = |body| Request::post("/").header("prefer", "respond-async").body(body).unwrap();
    assert_eq!(service.clone().oneshot(ask(body(&[]))).await.unwrap().status(), 202);
    assert_eq!(service.clone().oneshot(ask(body(&["ab", "cd"]))).await.unwrap().status(), 202);
    let (status, text) = read(service.oneshot(ask(body(&["ab", "cd", "e", "fgh"]))).await.unwrap()).await;
    assert_eq!((status.as_u16(), text.as_str()), (200, "abcdefgh"));
    assert_eq!((handle.snapshot().answered, handle.snapshot().inline), (2, 1));

    let strict = OffloadLayer::builder(queue).policy(Policy::Always).build().unwrap();
    let response = strict.layer(service_fn(echo)).oneshot(Request::post("/").body(Full::from("abcde")).unwrap()).await;
    let response = response.unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(response.extensions().get::<Rejection>().unwrap().reason, Reason::TooLarge);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_is_refused_in_time() {
    let layer = OffloadLayer::new(queue(MemoryStore::new()));
    let inner = service_fn(|_: Request<ReqBody<kit::Silent>>| async {
        Ok::<_, BoxError>(Response::new(Full::<Bytes>::from("x")))
    });
    let request = Request::post("/").header("prefer", "respond-async").body(kit::Silent).unwrap();
    let started = tokio::time::Instant::now();
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 408);
    assert_eq!(started.elapsed().as_secs(), 30);
}

#[tokio::test]
async fn a_store_that_is_down_means_inline_but_for_keyed_requests() {
    let (layer, handle) = OffloadLayer::builder(queue(Down)).build_with_handle().unwrap();
    let service = layer.layer(service_fn(echo));
    let (status, text) = read(service.clone().oneshot(respond_async("/", "a")).await.unwrap()).await;
    assert_eq!((status.as_u16(), text.as_str()), (200, "inline a"));
    let mut keyed = respond_async("/", "a");
    keyed.headers_mut().insert("idempotency-key", "\"k\"".parse().unwrap());
    let response = service.oneshot(keyed).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.extensions().get::<Rejection>().unwrap().reason, Reason::StoreUnavailable);
    assert_eq!((handle.snapshot().inline, handle.snapshot().refused), (1, 1));
}

#[tokio::test]
async fn a_full_queue_refuses_and_one_principal_cannot_fill_it() {
    let mut class = forebay_offload::policy::JobClass::of(Class::P3);
    class.max_backlog = 8;
    let queue = kit::builder(MemoryStore::new()).class(Class::P3, class).build().unwrap();
    let service = OffloadLayer::new(queue).layer(service_fn(echo));
    let of = |who: &str| {
        let mut request = respond_async("/", "x");
        request.extensions_mut().insert(Principal::from_bytes(who));
        request
    };
    let mut statuses = Vec::new();
    for who in ["a", "a", "a", "b", "b", "c", "c", "d", "d", "e"] {
        let response = service.clone().oneshot(of(who)).await.unwrap();
        statuses.push(response.status().as_u16());
        if response.status() == 429 {
            assert!(response.headers().contains_key("retry-after"));
            assert_eq!(response.extensions().get::<Rejection>().unwrap().reason, Reason::QueueFull);
        }
    }
    assert_eq!(statuses, [202, 202, 429, 202, 202, 202, 202, 202, 202, 429]);
}

#[tokio::test]
async fn inner_errors_pass_unchanged() {
    #[derive(Debug, PartialEq)]
    struct Broken;
    let layer = OffloadLayer::new(queue(MemoryStore::new()));
    let inner = service_fn(|_: Inner| async { Err::<Response<Full<Bytes>>, _>(Broken) });
    let error = layer.layer(inner).oneshot(Request::get("/").body(Full::default()).unwrap()).await.unwrap_err();
    assert_eq!(error, Broken);
}

#[tokio::test]
async fn overflow_makes_a_job_or_lets_the_refusal_stand() {
    let queue = kit::builder(MemoryStore::new()).max_request_body(4).build().unwrap();
    let (_layer, handle) = OffloadLayer::builder(queue).build_with_handle().unwrap();
    let hook = handle.overflow();
    let why = Rejection::new(Reason::QueueTimeout).class(Class::P2).retry_after(Duration::from_secs(7));
    let ask = |body: &'static str| Request::post("/").body(Full::from(body)).unwrap();
    let response = hook.overflow(ask("abcd"), why.clone()).await.unwrap();
    assert_eq!(response.status(), 202);
    assert_eq!(handle.demand()[Class::P2].queued, 1);
    assert_eq!(hook.overflow(ask("abcde"), why.clone()).await.unwrap_err(), why);
    let late = Rejection::new(Reason::DeadlineExceeded);
    assert_eq!(hook.overflow(ask("a"), late.clone()).await.unwrap_err(), late);
    handle.drain();
    assert_eq!(hook.overflow(ask("a"), why.clone()).await.unwrap_err(), why);
    let (_layer, down) = OffloadLayer::builder(kit::queue(Down)).build_with_handle().unwrap();
    assert_eq!(down.overflow().overflow(ask("a"), why.clone()).await.unwrap_err(), why);
}

#[tokio::test]
async fn gauges_return_to_zero() {
    let queue = queue(MemoryStore::new());
    let layer = OffloadLayer::new(queue.clone());
    layer.layer(service_fn(echo)).oneshot(respond_async("/", "x")).await.unwrap();
    let (layer, _) = OffloadLayer::builder(queue.clone()).build_with_handle().unwrap();
    drop(layer);
    kit::run_until_idle(
        &queue,
        service_fn(|_| async { Ok::<_, BoxError>(Response::new(Full::<Bytes>::from("done"))) }),
    )
    .await;
    let total = queue.demand().total();
    assert_eq!((total.queued, total.in_flight, total.offered, total.done), (0, 0, 1, 1));
}

#[test]
fn builders_name_every_problem() {
    let error = kit::builder(MemoryStore::new()).path("jobs/").body_timeout(Duration::ZERO).build().unwrap_err();
    assert_eq!(error.problems().len(), 2, "{error}");
}

#[tokio::test]
async fn the_queue_is_usable_alone() {
    let queue = queue(MemoryStore::new());
    let request = Request::post("/x").body(Bytes::from("y")).unwrap();
    let options = JobOptions::new().class(Class::P0).delay(Duration::from_secs(5));
    let forebay_offload::policy::Enqueued::New(job) = queue.enqueue(request, options).await.unwrap() else { panic!() };
    assert_eq!((job.state, job.class), (JobState::Scheduled, Class::P0));
    assert_eq!(queue.status(job.id).await.unwrap(), Some(job));
}

const _: fn() = || {
    fn send_sync_clone<T: Send + Sync + Clone>() {}
    send_sync_clone::<OffloadLayer>();
    send_sync_clone::<forebay_offload::Offload<()>>();
    send_sync_clone::<forebay_offload::JobRouter>();
    send_sync_clone::<forebay_offload::OffloadHandle>();
    let _ = ResBody::<ReqBody>::passed;
};
