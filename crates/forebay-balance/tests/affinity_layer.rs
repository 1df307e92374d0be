//! The affinity layer keeps tower's contract, finds keys wherever a body is cut, and loses nothing of any body.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use forebay_balance::affinity::body::Rest;
use forebay_balance::affinity::{
    Affinity, AffinityHandle, AffinityLayer, AffinityLayerBuilder, BLOCK_BYTES, PrefixBlocks,
};
use forebay_core::testing::{Scripted, Seen, Spy, Step, cut_after};
use forebay_core::{AffinityKey, BoxError, Principal, ReqBody};
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};
use proptest::prelude::*;
use tower::{Layer as _, Service, ServiceExt as _};

/// What reached the inner service.
#[derive(Debug, Default, Clone)]
struct Got {
    key: Option<AffinityKey>,
    blocks: Option<PrefixBlocks>,
    exact: Option<u64>,
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    error: Option<String>,
}

/// Reads the whole request, and writes it down.
#[derive(Debug, Clone)]
struct Inner {
    got: Arc<Mutex<Vec<Got>>>,
    ready: Result<bool, &'static str>,
}

impl<B> Service<Request<ReqBody<Rest<B>>>> for Inner
where
    B: Body<Data = Bytes, Error: Into<BoxError> + Send> + Unpin + Send + 'static,
{
    type Response = Response<Scripted>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Scripted>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.ready? {
            return Poll::Ready(Ok(()));
        }
        self.ready = Ok(true); // the next time
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn call(&mut self, request: Request<ReqBody<Rest<B>>>) -> Self::Future {
        let (log, extensions) = (Arc::clone(&self.got), request.extensions());
        let (key, blocks) = (extensions.get().copied(), extensions.get().cloned());
        let mut body = request.into_body();
        Box::pin(async move {
            let mut got = Got { key, blocks, exact: body.size_hint().exact(), ..Got::default() };
            while let Some(frame) = body.frame().await {
                match frame.map(Frame::into_data) {
                    Ok(Ok(data)) => got.data.extend_from_slice(&data),
                    Ok(Err(other)) => got.trailers = other.into_trailers().ok(),
                    Err(error) => got.error = Some(error.to_string()),
                }
            }
            log.lock().unwrap().push(got);
            Ok(Response::new(Scripted::new([Step::Data("answer".into()), Step::Pending])))
        })
    }
}

/// The layer with a spy and the inner service behind it.
struct Kit {
    service: Affinity<Spy<Inner>>,
    handle: AffinityHandle,
    seen: Arc<Mutex<Seen>>,
    got: Arc<Mutex<Vec<Got>>>,
}

fn kit(builder: AffinityLayerBuilder) -> Kit {
    let (layer, handle) = builder.build_with_handle().unwrap();
    let got = Arc::default();
    let (spy, seen) = Spy::new(Inner { got: Arc::clone(&got), ready: Ok(false) });
    Kit { service: layer.layer(spy), handle, seen, got }
}

impl Kit {
    async fn send<B>(&self, request: Request<B>) -> Got
    where
        B: Body<Data = Bytes, Error: Into<BoxError> + Send> + Unpin + Send + 'static,
    {
        let response = self.service.clone().oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap();
        self.got.lock().unwrap().last().cloned().unwrap()
    }

    /// Sends the body in these frames, with a wait before each.
    async fn frames(&self, frames: &[&[u8]]) -> Got {
        let steps = frames.iter().flat_map(|frame| [Step::Pending, Step::Data(Bytes::copy_from_slice(frame))]);
        self.send(json(Scripted::new(steps))).await
    }

    async fn text(&self, body: &str) -> Got {
        self.send(json(Full::new(Bytes::copy_from_slice(body.as_bytes())))).await
    }
}

fn json<B>(body: B) -> Request<B> {
    Request::post("/v1/chat/completions").header("content-type", "application/json; charset=utf-8").body(body).unwrap()
}

fn sessions() -> AffinityLayerBuilder {
    AffinityLayer::builder().session_fields()
}

fn prompts() -> AffinityLayerBuilder {
    AffinityLayer::builder().prompt()
}

/// A chat whose one message is this many blocks long, and then what `tail` says.
fn chat(blocks: usize, tail: &str) -> String {
    let text: String = (0..blocks * BLOCK_BYTES).map(|at| char::from(b'a' + (at / 7 % 26) as u8)).collect();
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}{tail}"}}],"stream":true}}"#)
}

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
async fn finds_the_same_wherever_the_body_is_cut() {
    let kit = kit(sessions().prompt());
    let body = r#"{"x":{"user":"no"},"messages":[{"content":"é\n"}],"us\u0065r":"\ud83d\ude00é","session_id":"s"}"#;
    let whole = kit.text(body).await;
    let plain = kit.text(r#"{"messages":[],"user":"😀é"}"#).await;
    assert!(whole.key.is_some() && whole.key == plain.key);
    for cut in 0..=body.len() {
        let (one, two) = body.as_bytes().split_at(cut);
        let got = kit.frames(&[one, two]).await;
        assert_eq!((got.key, got.data.as_slice()), (whole.key, body.as_bytes()), "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
    assert_eq!(kit.frames(&bytes).await.key, whole.key);
}

#[tokio::test]
async fn the_first_usable_field_of_the_body_wins() {
    let kit = kit(sessions());
    let user = kit.text(r#"{"user":"7"}"#).await.key;
    assert!(user.is_some());
    for body in [
        r#"{"user":"7","session_id":"s"}"#,
        r#"{"session_id":"","user":7}"#,
        r#"{"session_id":null,"prompt_cache_key":["k"],"user":"7"}"#,
        r#"{"session_id":{"id":"x"},"user":"7"}"#,
        r#"{"user":"7","user":"8"}"#,
        r#" {"a":[[[{}]]],"user":"7" and then something that nobody has looked at"#,
    ] {
        assert_eq!(kit.text(body).await.key, user, "{body}");
    }
    for body in [r#"{"user":"8"}"#, r#"{"session_id":"7"}"#, r#"{"prompt_cache_key":"7"}"#] {
        let key = kit.text(body).await.key;
        assert!(key.is_some() && key != user, "{body}");
    }
}

#[tokio::test]
async fn tenants_share_no_keys_and_no_blocks() {
    let kit = kit(sessions().prompt());
    let mut all = Vec::new();
    for body in [r#"{"messages":[],"user":"7"}"#.to_owned(), chat(3, "")] {
        for principal in [None, Some("a"), Some("b")] {
            let mut request = json(Full::<Bytes>::from(body.clone()));
            if let Some(principal) = principal {
                request.extensions_mut().insert(Principal::from_bytes(principal));
            }
            let got = kit.send(request).await;
            all.push(got.key.unwrap().0);
            all.extend(got.blocks.iter().flat_map(PrefixBlocks::hashes).filter(|&&hash| hash != got.key.unwrap().0));
        }
    }
    let mut distinct = all.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!((all.len(), distinct.len()), (3 + 3 * 3, 3 + 3 * 3));
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
async fn a_prompt_gives_its_first_two_blocks_even_if_it_never_ends_within_the_bound() {
    let kit = kit(prompts());
    let three = kit.text(&chat(3, "")).await;
    let blocks = three.blocks.unwrap();
    assert_eq!((blocks.hashes().len(), three.key), (3, Some(AffinityKey(blocks.hashes()[1]))));
    for tail in ["other", "\\n"] {
        let got = kit.text(&chat(2, tail)).await;
        assert_eq!(got.key, three.key, "the same two blocks, and then {tail}");
    }
    let long = kit.text(&chat(200, "")).await;
    assert_eq!((long.key, long.blocks.unwrap().hashes().len()), (three.key, 31), "64 KiB with the head");
    let text = chat(200, "");
    let cut: Vec<&[u8]> = text.as_bytes().chunks(1460).collect();
    let got = kit.frames(&cut).await;
    assert_eq!((got.key, got.data.as_slice()), (three.key, text.as_bytes()));

    let one = kit.text(&chat(1, "")).await;
    assert_eq!((one.key, one.blocks.map(|blocks| blocks.hashes().len())), (None, Some(1)), "everybody's system prompt");
    assert!(kit.text(&chat(0, "")).await.blocks.is_none());
}

#[tokio::test]
async fn prompts_of_all_shapes() {
    let kit = kit(prompts());
    let text = "x".repeat(5000);
    let mut keys = Vec::new();
    for body in [
        format!(r#"{{"prompt":"{text}"}}"#),
        format!(r#"{{"prompt":["{}","{}"]}}"#, &text[..2500], &text[2500..]),
        format!(r#"{{"input":[{{"type":"text","text":"{text}"}}],"messages":["no"]}}"#),
        format!(r#"{{"prompt":[{}1]}}"#, "123,".repeat(2000)),
    ] {
        keys.push(kit.text(&body).await.key.unwrap());
    }
    assert_eq!(keys[0], kit.text(&format!(r#"{{"input":"{text}"}}"#)).await.key.unwrap());
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 4);
}

#[tokio::test]
async fn a_field_goes_before_the_prompt_and_is_looked_for_behind_it() {
    let kit = kit(sessions().prompt());
    let chat = chat(3, "");
    let prompt = kit.text(&chat).await;
    let user = kit.text(r#"{"user":"u"}"#).await;
    assert!(user.key.is_some() && user.key != prompt.key);
    let before = chat.replace("\"model\"", "\"user\":\"u\",\"model\"");
    let behind = chat.replace("\"stream\"", "\"user\":\"u\",\"stream\"");
    for body in [before, behind] {
        let got = kit.text(&body).await;
        assert_eq!((got.key, got.blocks), (user.key, prompt.blocks.clone()));
    }
}

#[tokio::test]
async fn bad_bodies_pass_as_they_are_without_a_key() {
    let kit = kit(sessions().prompt());
    let bad: [&[u8]; 12] = [
        b"hello",
        b"[{\"user\":\"u\"}]",
        b"\"user\"",
        b"\xef\xbb\xbf{\"user\":\"u\"}",
        b"{\"user\":\"u",
        b"{\"user\":\"u\\",
        b"{\"user\":7",
        b"{\"user\":\"\xff\"}",
        b"{\"user\":\"\\ud800\"}",
        b"{\"a\":1 \"user\":\"u\"}",
        b"\x1f\x8b\x08\x00",
        b"{\"a\":\"b\"",
    ];
    for body in bad {
        let got = kit.frames(&[body]).await;
        assert_eq!((got.key, got.blocks.is_some(), got.data.as_slice()), (None, false, body), "{body:?}");
    }
    let deep = format!("{}{}", "{\"a\":[".repeat(100_000), "\"user\"");
    assert_eq!(kit.text(&deep).await.key, None);
    let late = format!(r#"{{"x":"{}","user":"u"}}"#, "y".repeat(64 << 10));
    let got = kit.text(&late).await;
    assert_eq!((got.key, got.data.as_slice()), (None, late.as_bytes()), "beyond the bound");
    let half = format!(r#"{{"user":"{}"#, "u".repeat(70_000));
    assert_eq!(kit.text(&half).await.key, None, "no half of a value is a key");
    let empty: Vec<&[u8]> = vec![b""; 70_000];
    assert_eq!(kit.frames(&empty).await.key, None, "empty frames are bounded, too");
}

#[tokio::test]
async fn only_plain_json_is_read() {
    let kit = kit(sessions());
    for (kind, coding, keyed) in [
        ("application/json", "identity", true),
        ("Application/JSON", "", true),
        ("application/vnd.api+json;x=y", "", true),
        ("application/json", "gzip", false),
        ("text/json", "", false),
        ("application/jsonl", "", false),
        ("multipart/form-data", "", false),
        ("", "", false),
    ] {
        let mut request = json(Full::<Bytes>::from(r#"{"user":"u"}"#));
        request.headers_mut().insert("content-type", kind.parse().unwrap());
        request.headers_mut().insert("content-encoding", coding.parse().unwrap());
        assert_eq!(kit.send(request).await.key.is_some(), keyed, "{kind} {coding}");
    }
    let mut request = json(Full::<Bytes>::from(r#"{"user":"u"}"#));
    request.headers_mut().remove("content-type");
    assert_eq!(kit.send(request).await.key, None);
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

proptest! {
    #[test]
    fn no_body_is_changed(body in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec(0..200_usize, 0..4)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(body.len())).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        let frames: Vec<&[u8]> = cuts.windows(2).map(|cut| &body[cut[0]..cut[1]]).collect();
        let got = runtime.block_on(kit(sessions().prompt().max_peek(100)).frames(&frames));
        prop_assert_eq!(got.data, body);
    }

    #[test]
    fn any_value_is_found_as_serde_would_read_it(value in ".{1,40}", cut in any::<prop::sample::Index>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        // Debug's escapes are not JSON's: every character becomes an escape of its own instead.
        let escaped: String = value.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        let plain: String = value.chars().map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            '\0'..='\x1f' => format!("\\u{:04x}", u32::from(c)),
            c => c.to_string(),
        }).collect();
        let body = |text: &str| format!(r#"{{"user":"{text}"}}"#);
        let kit = kit(sessions());
        let (escaped, plain) = (body(&escaped), body(&plain));
        let (one, two) = escaped.as_bytes().split_at(cut.index(escaped.len()));
        let key = runtime.block_on(kit.frames(&[one, two])).key;
        prop_assert!(key.is_some());
        prop_assert_eq!(key, runtime.block_on(kit.text(&plain)).key);
    }
}
