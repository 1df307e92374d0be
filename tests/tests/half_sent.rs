//! Uploads that never end: they hold no seat, take no memory from other tenants, and each is ended in its time with the
//! status that says why.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use forebay_core::Reason;
use forebay_gateway::Config;
use forebay_model_server::ModelServer;
use forebay_tests::Stack;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, interval, sleep, timeout};

const GOLD: &str = "gold-test-key";
const TRIAL: &str = "trial-test-key";
const ASK: &str = r#"{"model":"sim-7b","max_tokens":2,"messages":[{"role":"user","content":"?"}]}"#;
/// The time for a body, as in `config`.
const TIME: Duration = Duration::from_secs(1);
/// What a loaded machine may add to it.
const SLACK: Duration = Duration::from_secs(3);

fn config() -> Config {
    let text = format!(
        "tiers = {{ gold = 'p0', trial = 'p3' }}
        [uploads]
        collect_max_bytes = 65536
        max_total_bytes = 1048576
        body_timeout_seconds = 1
        [[keys]]\ntenant = 'urgent'\ntier = 'gold'\nkey = '{GOLD}'
        [[keys]]\ntenant = 'trial'\ntier = 'trial'\nkey = '{TRIAL}'"
    );
    let mut config = Config::parse(&text).expect("valid");
    (config.priority.limit, config.access_log) = (Some(16.into()), false);
    config
}

async fn stack(config: Config) -> Arc<Stack> {
    let server = ModelServer::builder()
        .model("sim-7b")
        .slots(64)
        .prefill_tokens_per_second(1e7)
        .decode_tokens_per_second(2e4)
        .build()
        .expect("valid");
    Arc::new(Stack::start(vec![server], config).await)
}

/// An upload that stops in the middle: its kind, how many bytes it says and sends, and the type it has.
#[derive(Debug, Clone, Copy)]
struct Upload {
    says: Option<usize>,
    sends: usize,
    kind: &'static str,
}

const JSON: Upload = Upload { says: Some(3000), sends: 2000, kind: "application/json" };
const TEXT: Upload = Upload { says: Some(3000), sends: 2000, kind: "text/plain" };
const CHUNKED: Upload = Upload { says: None, sends: 2000, kind: "application/json" };

/// What came back for an upload, and when.
#[derive(Debug)]
struct End {
    text: String,
    after: Duration,
}

impl End {
    fn status(&self) -> u16 {
        self.text.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default()
    }
}

/// Sends the first part of an upload, and then a byte every 200 ms until the connection ends.
async fn hold(url: &str, key: &str, upload: Upload) -> End {
    let began = Instant::now();
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await.expect("the gateway listens");
    let length = match upload.says {
        Some(length) => format!("content-length: {length}"),
        None => "transfer-encoding: chunked".to_owned(),
    };
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: {}\r\n{length}\r\n\r\n",
        upload.kind
    );
    let chunk = |bytes: usize| match upload.says {
        Some(_) => vec![b' '; bytes],
        None => [format!("{bytes:x}\r\n").into_bytes(), vec![b' '; bytes], b"\r\n".to_vec()].concat(),
    };
    let (mut read, mut write) = stream.split();
    let send = async {
        let mut sent = write.write_all(head.as_bytes()).await;
        for bytes in std::iter::once(upload.sends).chain(std::iter::repeat(1)) {
            if sent.is_err() {
                break;
            }
            sent = write.write_all(&chunk(bytes)).await;
            sleep(Duration::from_millis(200)).await;
        }
        std::future::pending().await
    };
    // The end of the response is the end of this: the connection may stay for a moment.
    let receive = async {
        let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = read.read(&mut buffer).await {
            text.extend_from_slice(&buffer[..count]);
            if text.ends_with(b"}") {
                break;
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    };
    let text = tokio::select! {
        () = send => unreachable!("it never ends"),
        text = timeout(Duration::from_secs(30), receive) => text.expect("it is ended"),
    };
    End { text, after: began.elapsed() }
}

/// Opens 64 uploads of the trial tenant, each again as soon as it is ended; the other tenant's requests, sent at the same
/// instant and later, are all served.
async fn served_all_the_while(uploads: &[Upload], statuses: &[u16]) {
    let stack = stack(config()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut hostages = JoinSet::new();
    for index in 0..64 {
        let (stack, stop, upload) = (Arc::clone(&stack), Arc::clone(&stop), uploads[index % uploads.len()]);
        hostages.spawn(async move {
            let mut ends = Vec::new();
            while !stop.load(Relaxed) {
                ends.push(hold(&stack.url, TRIAL, upload).await);
            }
            ends
        });
    }
    let (peak, watched) = (Arc::new(AtomicU64::new(0)), Arc::clone(&stack));
    let top = Arc::clone(&peak);
    let watch = tokio::spawn(async move {
        loop {
            top.fetch_max(watched.gateway.upload_bytes(), Relaxed);
            sleep(Duration::from_millis(1)).await;
        }
    });
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut asked = JoinSet::new();
    for _ in 0..60 {
        let request = Request::post(format!("{}/v1/chat/completions", stack.url))
            .header("authorization", format!("Bearer {GOLD}"))
            .header("content-type", "application/json")
            .body(Full::from(ASK))
            .expect("valid");
        asked.spawn(http.request(request));
        sleep(Duration::from_millis(50)).await;
    }
    let mut served = 0;
    while let Some(answer) = asked.join_next().await {
        let answer = answer.expect("no panic").expect("an answer");
        assert_eq!(answer.status(), 200);
        served += 1;
    }
    assert_eq!(served, 60);
    stop.store(true, Relaxed);
    let ends: Vec<End> = hostages.join_all().await.into_iter().flatten().collect();
    watch.abort();
    assert!(ends.len() >= 128, "each was ended and opened again: {}", ends.len());
    for end in &ends {
        let status = end.status();
        assert!(statuses.contains(&status), "{end:?}");
        assert!(end.text.contains("connection: close") && end.text.contains(r#""error":{"#), "{end:?}");
        let in_time = if status == 408 { TIME..TIME + SLACK } else { Duration::ZERO..SLACK };
        assert!(in_time.contains(&end.after), "{end:?}");
    }
    assert!(statuses.iter().all(|status| ends.iter().any(|end| end.status() == *status)), "all of {statuses:?}");
    for (status, reason) in [(408, Reason::BodyTimeout), (503, Reason::BufferFull)] {
        let told = ends.iter().filter(|end| end.status() == status).count() as u64;
        assert_eq!(stack.gateway.uploads_refused(reason), told, "each is counted");
    }
    let peak = peak.load(Relaxed);
    assert!((1..=1_048_576 / 4 + 65536).contains(&peak), "a quarter of the budget, and the other tenant: {peak}");
    assert_eq!(stack.gateway.upload_bytes(), 0, "all was given back");
    assert!(stack.gateway.priority().snapshot().classes.iter().all(|class| class.in_flight == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_never_end_hold_no_seat() {
    served_all_the_while(&[JSON, TEXT, CHUNKED], &[408]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_fill_their_tenants_memory_leave_that_of_others() {
    let large = |upload| Upload { says: Some(60_000), sends: 50_000, ..upload };
    served_all_the_while(&[large(JSON), large(TEXT), Upload { sends: 50_000, ..CHUNKED }], &[408, 503]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_stalls_behind_what_was_read_gives_its_seat_back() {
    let stack = stack(config()).await;
    let mut uploads = JoinSet::new();
    for upload in [JSON, TEXT, CHUNKED] {
        let stack = Arc::clone(&stack);
        let says = upload.says.map(|_| 200_000);
        let upload = Upload { says, sends: 70_000, ..upload };
        uploads.spawn(async move { (hold(&stack.url, TRIAL, upload).await, upload) });
    }
    let began = Instant::now();
    let seats = || stack.gateway.priority().snapshot().classes[3].in_flight;
    while seats() == 0 {
        assert!(began.elapsed() < SLACK, "one is on its way to the backend");
        sleep(Duration::from_millis(1)).await;
    }
    while let Some(end) = uploads.join_next().await {
        let (end, upload) = end.expect("no panic");
        assert!(end.status() == 408 && end.text.contains("body-timeout"), "{upload:?}: {end:?}");
        assert!((TIME..TIME * 2 + SLACK).contains(&end.after), "{upload:?}: {end:?}");
    }
    assert_eq!(seats(), 0);
    while stack.gateway.upload_bytes() > 0 {
        assert!(began.elapsed() < TIME * 2 + SLACK * 2, "what was read is given back");
        sleep(Duration::from_millis(1)).await;
    }
}

/// A body of one byte every 200 ms, without an end.
struct Drip(Interval);

impl http_body::Body for Drip {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.0.poll_tick(cx));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b" ")))))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http2_an_upload_that_never_ends_is_ended_alone() {
    let stack = stack(config()).await;
    let http = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let url = format!("{}/v1/chat/completions", stack.url);
    let post = move |key: &str, body| {
        let request = Request::post(&url)
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json");
        let call = http.request(request.body(body).expect("valid"));
        async move {
            let began = Instant::now();
            let answer = timeout(Duration::from_secs(30), call).await.expect("it is ended");
            let (head, body) = answer.expect("an answer").into_parts();
            (head.status.as_u16(), body.collect().await.expect("whole").to_bytes(), began.elapsed())
        }
    };
    let mut hostages = JoinSet::new();
    for _ in 0..64 {
        let post = post.clone();
        hostages.spawn(async move {
            for _ in 0..2 {
                let (status, text, after) = post(TRIAL, Drip(interval(Duration::from_millis(200))).boxed()).await;
                assert_eq!(status, 408, "{text:?}");
                assert!((TIME..TIME + SLACK).contains(&after), "{after:?}");
            }
        });
    }
    // Over the same connection.
    for _ in 0..40 {
        assert_eq!(post(GOLD, Full::from(ASK).boxed()).await.0, 200);
        sleep(Duration::from_millis(50)).await;
    }
    hostages.join_all().await;
    assert_eq!(stack.gateway.upload_bytes(), 0);
}

/// Sends this, all of which must be taken, and returns what comes back until the gateway closes.
async fn raw(url: &str, request: &[u8], half_close: bool) -> String {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await.expect("the gateway listens");
    stream.write_all(request).await.expect("the gateway reads on");
    if half_close {
        let _ = stream.shutdown().await;
    }
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    read.expect("the gateway closes").expect("and does not reset");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_end_of_a_body_has_its_status_and_the_response_arrives() {
    let mut config = config();
    config.max_body_bytes = 200_000;
    let stack = stack(config).await;
    let head = |key: &str, length: &str| {
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n{length}\r\n\r\n"
        )
    };
    let long = vec![b' '; 4 << 20];
    let chunks = [b"400000\r\n".to_vec(), long.clone(), b"\r\n0\r\n\r\n".to_vec()].concat();
    let cases = [
        ("broken off", head(TRIAL, "content-length: 100"), &b"{"[..], true, "400", "body-broken"),
        ("broken chunk", head(TRIAL, "transfer-encoding: chunked"), b"zz\r\n", false, "400", "body-broken"),
        ("never comes", head(TRIAL, "content-length: 100"), b"", false, "408", "body-timeout"),
        ("says too much", head(TRIAL, "content-length: 4194304"), &long, false, "413", "too-large"),
        ("is too much", head(TRIAL, "transfer-encoding: chunked"), &chunks, false, "413", "too-large"),
        ("no key", head("unknown-key", "content-length: 4194304"), &long, false, "401", "invalid-api-key"),
    ];
    for (name, head, body, half_close, status, kind) in cases {
        let answer = raw(&stack.url, &[head.as_bytes(), body].concat(), half_close).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{name}: {answer:?}");
        let kind = format!("urn:forebay:problem:{kind}");
        assert!(answer.contains(&kind) && answer.contains(r#""error":{"#), "{name}: {answer:?}");
    }
    assert_eq!(stack.gateway.upload_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_is_charged_until_it_is_with_the_backend() {
    let mut config = config();
    config.priority.limit = Some(0.into()); // paused: requests wait in the queue
    let stack = stack(config).await;
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let text = format!("{ASK}{}", " ".repeat(40_000));
    let length = text.len() as u64;
    let request = Request::post(format!("{}/v1/chat/completions", stack.url))
        .header("authorization", format!("Bearer {TRIAL}"))
        .header("content-type", "application/json")
        .body(Full::from(text))
        .expect("valid");
    let call = tokio::spawn(http.request(request));
    let began = Instant::now();
    while stack.gateway.priority().snapshot().classes[3].waiting == 0 {
        assert!(began.elapsed() < SLACK, "it waits");
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(stack.gateway.upload_bytes(), length);
    stack.gateway.priority().set_limit(1);
    let answer = call.await.expect("no panic").expect("an answer");
    assert_eq!((answer.status().as_u16(), stack.gateway.upload_bytes()), (200, 0));
}
