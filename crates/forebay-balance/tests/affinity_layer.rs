//! The affinity layer keeps tower's contract, waits for nobody for long, and loses nothing of any body.

mod affinity_kit;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use affinity_kit::{Inner, chat, json, kit, sessions};
use bytes::Bytes;
use forebay_balance::affinity::AffinityLayer;
use forebay_balance::affinity::body::Rest;
use forebay_balance::{Balance, BalanceBuilder, Endpoint};
use forebay_core::testing::{Scripted, Spy, Step, cut_after};
use forebay_core::{AffinityKey, BoxError, Principal, ReqBody, RequestHead};
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};
use tower::{Layer as _, Service, ServiceExt as _};

#[tokio::test]
async fn keeps_the_contract() {
    let kit = kit(sessions());
    let mut service = kit.service.clone();
    std::future::poll_fn(|cx| Service::<Request<Full<Bytes>>>::poll_ready(&mut service, cx)).await.unwrap();
    assert_eq!(kit.seen.lock().unwrap().polls, 0, "always ready, and touches nothing");
    for body in [r#"{"user":"u"}"#, "{}", ""] {
        assert_eq!(kit.text(body).await.data, body.as_bytes());
    }
    let seen = *kit.seen.lock().unwrap();
    assert_eq!((seen.calls, seen.unready_calls, seen.in_flight, seen.early_drops), (3, 0, 0, 0));
    assert_eq!(seen.polls, 6, "not ready at first");
    let snapshot = kit.handle.snapshot();
    assert_eq!((snapshot.given, snapshot.keyed, snapshot.unkeyed, snapshot.timed_out), (0, 1, 2, 0));
}

#[tokio::test]
async fn an_error_of_readiness_is_passed_on() {
    let inner = Inner { got: Arc::default(), ready: Err("down") };
    let (spy, seen) = Spy::new(inner);
    let service = sessions().build().unwrap().layer(spy);
    let error = service.oneshot(json(Full::<Bytes>::from("{}"))).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), seen.lock().unwrap().calls), ("down", 0));
}

#[tokio::test]
async fn a_dropped_exchange_leaves_nothing_at_any_poll() {
    let body = r#"{"a":[1,{"b":null}],"user":"u7"}"#;
    for polls in 0.. {
        let kit = kit(sessions());
        let frames: Vec<&[u8]> = body.as_bytes().chunks(5).collect();
        let done = cut_after(polls, kit.frames(&frames)).await.is_some();
        let (seen, snapshot) = (*kit.seen.lock().unwrap(), kit.handle.snapshot());
        assert_eq!((seen.in_flight, seen.unready_calls), (0, 0), "after {polls} polls");
        assert!(seen.calls <= snapshot.keyed && snapshot.keyed <= 1, "after {polls} polls");
        if done {
            assert!(polls > frames.len() && snapshot.keyed == 1);
            break;
        }
    }
}

#[tokio::test]
async fn a_header_spares_the_body() {
    let kit = kit(sessions().header("X-Session-Id"));
    let request = |value: &str, steps| {
        let mut request = json(Scripted::new(steps));
        request.headers_mut().insert("x-session-id", value.parse().unwrap());
        request
    };
    let key = kit.send(request("s1", vec![Step::Data(r#"{"user":"u"}"#.into())])).await.key;
    assert!(key.is_some() && key != kit.text(r#"{"user":"s1"}"#).await.key);
    assert_eq!(kit.send(request("s1", vec![])).await.key, key, "whatever the body is");
    assert_ne!(kit.send(request("s2", vec![])).await.key, key);
    let empty = kit.send(request("", vec![Step::Data(r#"{"user":"u"}"#.into())])).await.key;
    assert_eq!(empty, kit.text(r#"{"user":"u"}"#).await.key);
}

#[tokio::test]
async fn r37_a_function_of_the_head_goes_first_and_tenants_share_no_key() {
    #[derive(Clone)]
    struct Batch(&'static str);
    let by_batch = |head: &RequestHead<'_>| head.extensions.get::<Batch>().map(|batch| batch.0);
    let kit = kit(sessions().header("x-session-id").key_by(by_batch));
    let request = |batch: Option<&'static str>, tenant: &str| {
        let mut request = json(Full::<Bytes>::from(r#"{"user":"u"}"#));
        request.headers_mut().insert("x-session-id", "s".parse().unwrap());
        request.extensions_mut().insert(Principal::from_bytes(tenant));
        if let Some(batch) = batch {
            request.extensions_mut().insert(Batch(batch));
        }
        request
    };
    let key = kit.send(request(Some("night"), "a")).await.key;
    assert!(key.is_some());
    assert_eq!(kit.send(request(Some("night"), "a")).await.key, key);
    assert_ne!(kit.send(request(Some("day"), "a")).await.key, key);
    assert_ne!(kit.send(request(Some("night"), "b")).await.key, key);
    let by_header = kit.send(request(None, "a")).await.key;
    assert!(by_header.is_some() && by_header != key, "it says nothing, so the header does");
    assert_eq!(kit.send(request(Some(""), "a")).await.key, by_header);
    let mut given = request(Some("night"), "a");
    given.extensions_mut().insert(AffinityKey(42));
    assert_eq!(kit.send(given).await.key, Some(AffinityKey(42)));
    let alone = AffinityLayer::builder().key_by(|head| Some(head.uri.path().to_owned())).build();
    assert!(format!("{:?}", alone.expect("it is enough")).contains("KeyFn"));
}

#[tokio::test]
async fn a_key_that_is_there_stays() {
    let kit = kit(sessions().header("x-session-id"));
    let mut request = json(Full::<Bytes>::from(r#"{"user":"u"}"#));
    request.headers_mut().insert("x-session-id", "s".parse().unwrap());
    request.extensions_mut().insert(AffinityKey(42));
    let got = kit.send(request).await;
    assert_eq!((got.key, got.exact), (Some(AffinityKey(42)), Some(12)));
    assert_eq!(kit.handle.snapshot().given, 1);
}

#[tokio::test]
async fn errors_trailers_and_lengths_pass() {
    let kit = kit(sessions());
    let trailers = HeaderMap::from_iter([(http::header::ETAG, "\"e\"".parse().unwrap())]);
    for text in [r#"{"user":"u"}"#, r#"{"user":"u"#, ""] {
        let steps = [Step::Data(text.into()), Step::Trailers(trailers.clone())];
        let got = kit.send(json(Scripted::new(steps))).await;
        assert_eq!((got.data.as_slice(), got.trailers.as_ref()), (text.as_bytes(), Some(&trailers)));
        let steps = [Step::Data(text.into()), Step::Error("reset".into())];
        let got = kit.send(json(Scripted::new(steps))).await;
        assert_eq!((got.data.as_slice(), got.error.as_deref()), (text.as_bytes(), Some("reset")));
        assert_eq!(got.key.is_some(), text.ends_with('}'));
        assert_eq!(kit.text(text).await.exact, Some(text.len() as u64));
    }
    assert_eq!(kit.text(&chat(100, "")).await.exact, Some(chat(100, "").len() as u64));
}

/// A body that sends a beginning, then nothing for a while, then the end.
#[derive(Debug)]
struct Slow {
    begin: Option<Bytes>,
    wait: Pin<Box<tokio::time::Sleep>>,
    end: Option<Bytes>,
}

impl Body for Slow {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(begin) = self.begin.take() {
            return Poll::Ready(Some(Ok(Frame::data(begin))));
        }
        std::task::ready!(self.wait.as_mut().poll(cx));
        Poll::Ready(self.end.take().map(Frame::data).map(Ok))
    }

    fn size_hint(&self) -> SizeHint {
        let left = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len) as u64;
        SizeHint::with_exact(left(&self.begin) + left(&self.end))
    }
}

fn slow(seconds: u64) -> Request<Slow> {
    let wait = Box::pin(tokio::time::sleep(Duration::from_secs(seconds)));
    json(Slow { begin: Some(r#"{"user":"#.into()), wait, end: Some(r#""u"}"#.into()) })
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_goes_on_without_a_key_and_whole() {
    let kit = kit(sessions());
    let started = tokio::time::Instant::now();
    let got = kit.send(slow(4)).await;
    assert!(got.key.is_some() && started.elapsed() < Duration::from_secs(5));
    let got = kit.send(slow(60)).await;
    assert_eq!((got.key, got.data.as_slice(), got.exact), (None, br#"{"user":"u"}"#.as_slice(), Some(12)));
    assert_eq!(kit.handle.snapshot().timed_out, 1);
}

#[tokio::test(start_paused = true)]
async fn the_inner_service_is_called_when_the_time_is_over() {
    let kit = kit(sessions().timeout(Duration::from_secs(2)));
    let mut exchange = tokio_test::task::spawn(kit.service.clone().oneshot(slow(60)));
    assert!(exchange.poll().is_pending());
    tokio::time::advance(Duration::from_millis(1999)).await;
    assert!(exchange.poll().is_pending() && !exchange.is_woken());
    tokio::time::advance(Duration::from_millis(2)).await;
    assert!(exchange.is_woken());
    while kit.seen.lock().unwrap().calls == 0 {
        assert!(exchange.poll().is_pending(), "not ready at first, then it waits for the rest of the body");
    }
    drop(exchange);
    assert_eq!(kit.seen.lock().unwrap().in_flight, 0);
}

#[test]
fn a_bad_configuration_says_all_that_is_wrong() {
    let error = AffinityLayer::builder().build().unwrap_err();
    assert_eq!(error.problems().len(), 1);
    let builder = AffinityLayer::builder().header("a b").fields([""]).prompt_fields(["x".repeat(256)]).max_peek(0);
    let error = builder.timeout(Duration::ZERO).build().unwrap_err();
    assert_eq!(error.problems().len(), 5, "{error}");
    assert!(AffinityLayer::builder().fields(["x".repeat(255)]).max_peek(1 << 20).build().is_ok());
}

#[test]
fn the_types_are_what_servers_need() {
    fn check<T: Clone + Send + Sync + 'static>(_: &T) {}
    let layer = sessions().build().unwrap();
    check(&layer);
    let _: axum::Router = axum::Router::new().fallback(|| async { "ok" }).layer(layer);
}

#[tokio::test]
async fn r41_the_next_turn_of_a_conversation_goes_to_the_endpoint_that_has_its_beginning() {
    type Sent = Request<ReqBody<Rest<Full<Bytes>>>>;
    let endpoint = |name: &'static str| {
        let answer = move |request: Sent| async move {
            request.into_body().collect().await?;
            Ok::<_, BoxError>(Response::new(Full::new(Bytes::from_static(name.as_bytes()))))
        };
        Endpoint::with_service(name, tower::service_fn(answer))
    };
    let fleet = ["a", "b", "c"].map(endpoint).into_iter().fold(Balance::builder(), BalanceBuilder::endpoint);
    let service = AffinityLayer::builder().prompt().build().unwrap().layer(fleet.build().unwrap());
    let ask = |turns: &[&str]| {
        let text = turns.iter().map(|turn| format!("{turn} ").repeat(2048)).collect::<String>();
        let body = format!(r#"{{"model":"m","prompt":"{text}"}}"#);
        let answer = service.clone().oneshot(json(Full::<Bytes>::from(body)));
        async move { answer.await.unwrap().into_body().collect().await.unwrap().to_bytes() }
    };
    // Of what everybody has nothing follows, of what one has its place.
    let homes = [ask(&["s", "x"]).await, ask(&["t", "y"]).await, ask(&["u", "z"]).await];
    assert_eq!(homes, ["a", "b", "c"]);
    for _ in 0..3 {
        for (turns, home) in [["u", "z", "3"], ["s", "x", "1"], ["t", "y", "2"]].iter().zip(["c", "a", "b"]) {
            assert_eq!(ask(turns).await, home);
        }
    }
}
