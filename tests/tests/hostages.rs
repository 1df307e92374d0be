//! Clients that hold every seat and do not read: each loses its seat after the stall, so that a more urgent tenant is
//! served in full all the while. Real gateway, real sockets. The tests run one after the other, as each of them
//! measures times and the memory of this process.

use std::collections::HashSet;
use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use forebay_gateway::{Config, Upstream};
use forebay_priority::{ClassSnapshot, PrioritySnapshot};
use forebay_tests::Stack;
use http::{Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};

const ENTERPRISE: &str = "enterprise-key";
const TRIAL: &str = "trial-key";
const SEATS: usize = 16;
const HOSTAGES: usize = 64;
/// The stall, as in `config`.
const STALL: Duration = Duration::from_secs(1);
/// What a loaded machine may add to it.
const SLACK: Duration = Duration::from_secs(2);
/// The most memory that the hostages may take, of the gateway, the upstream and all clients together.
const MEMORY: u64 = 96 << 20;
const TOKEN: &[u8] = b"data: {\"token\":\"abcdefgh\"}\n\n";
const SHORT: &[u8] = b"{\"ok\":true}";

/// One test at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// What an upstream sends.
#[derive(Debug, Clone, Copy)]
struct Plan {
    frame: &'static [u8],
    /// How many frames there are; none: without end.
    frames: Option<usize>,
    /// The pause before each frame.
    every: Duration,
    /// Whether the head says how long the answer is.
    sized: bool,
}

fn plan(path: &str) -> Plan {
    const LARGE: &[u8] = &[b'x'; 16 << 10];
    let every = Duration::from_millis;
    let endless = |frame, pause| Plan { frame, frames: None, every: every(pause), sized: false };
    match path {
        "/v1/big" => endless(LARGE, 0),
        "/v1/steady" => endless(&LARGE[..4 << 10], 0),
        "/v1/slow" => endless(TOKEN, 10),
        "/v1/rare" => endless(TOKEN, 400),
        "/v1/pauses" => Plan { frames: Some(3), ..endless(TOKEN, 2500) },
        "/v1/late" => Plan { frames: Some(1), ..endless(SHORT, 50) },
        _ => Plan { frames: Some(1), sized: true, ..endless(SHORT, 20) },
    }
}

/// An answer of the upstream, counted until it is dropped.
struct Answer {
    plan: Plan,
    left: Option<usize>,
    next: Pin<Box<Sleep>>,
    id: u64,
    backend: Arc<Backend>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let every = self.plan.every;
        match &mut self.left {
            Some(0) => return Poll::Ready(None),
            _ if every.is_zero() => {}
            _ => {
                ready!(self.next.as_mut().poll(cx));
                self.next.as_mut().reset(Instant::now() + every);
            }
        }
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(self.plan.frame)))))
    }

    fn size_hint(&self) -> SizeHint {
        let exact = self.left.filter(|_| self.plan.sized);
        exact.map_or_else(SizeHint::default, |left| SizeHint::with_exact((left * self.plan.frame.len()) as u64))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.backend.live().remove(&self.id);
    }
}

/// The upstream: the exchanges that run there, by their `x-id`.
#[derive(Debug, Default)]
struct Backend {
    live: Mutex<HashSet<u64>>,
    ids: AtomicU64,
}

impl Backend {
    fn live(&self) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn start() -> (String, Arc<Self>) {
        let backend = Arc::<Self>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let of = Arc::clone(&backend);
        let routes = Router::new().fallback(move |request: Request<Body>| {
            let backend = Arc::clone(&of);
            async move {
                let id = request.headers()["x-id"].to_str().expect("ASCII").parse().expect("a number");
                let plan = plan(request.uri().path());
                assert!(backend.live().insert(id), "{id} comes once");
                let next = Box::pin(sleep(plan.every));
                let answer = Body::new(Answer { plan, left: plan.frames, next, id, backend });
                Response::builder().header("content-type", "text/event-stream").body(answer).expect("valid")
            }
        });
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (url, backend)
    }
}

/// A gateway before an upstream.
struct House {
    stack: Stack,
    backend: Arc<Backend>,
}

impl House {
    /// Starts both; `more` are lines of the configuration, in `[priority]`.
    async fn start(more: &str) -> Arc<Self> {
        let (url, backend) = Backend::start().await;
        let text = format!(
            "access_log = false
            tiers = {{ enterprise = 'p0', trial = 'p3' }}
            [[keys]]\ntenant = 'acme'\ntier = 'enterprise'\nkey = '{ENTERPRISE}'
            [[keys]]\ntenant = 'joe'\ntier = 'trial'\nkey = '{TRIAL}'
            [priority]\nlimit = {SEATS}\nclasses.p0.queue_timeout_seconds = 10\nclasses.p0.patience_seats = 0\n{more}"
        );
        let mut config = Config::parse(&text).expect("valid");
        let mut upstream = Upstream::new(url, 1);
        upstream.max_concurrency = Some(SEATS as u32);
        config.upstreams.push(upstream);
        Arc::new(Self { stack: Stack::start(Vec::new(), config).await, backend })
    }

    fn next_id(&self) -> u64 {
        self.backend.ids.fetch_add(1, Relaxed)
    }

    fn is_live(&self, id: u64) -> bool {
        self.backend.live().contains(&id)
    }

    fn snapshot(&self) -> PrioritySnapshot {
        self.stack.gateway.priority().snapshot()
    }

    fn request(&self, path: &str, key: &str) -> (u64, Request<Full<Bytes>>) {
        let id = self.next_id();
        let request = Request::post(format!("{}{path}", self.stack.url))
            .header("authorization", format!("Bearer {key}"))
            .header("x-id", id);
        (id, request.body(Full::default()).expect("valid"))
    }

    /// Sends a request over a connection of its own with a small receive buffer and packets as on a real network; reads
    /// nothing.
    async fn connect(&self, path: &str) -> (u64, TcpStream) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.set_tcp_mss(1448).expect("a packet size");
        socket.set_recv_buffer_size(4096).expect("a buffer size");
        socket.set_nonblocking(true).expect("a socket");
        let socket = TcpSocket::from_std_stream(socket.into());
        let address = self.stack.url.trim_start_matches("http://").parse().expect("an address");
        let mut stream = socket.connect(address).await.expect("the gateway listens");
        let id = self.next_id();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TRIAL}\r\nx-id: {id}\r\ncontent-length: 0\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        (id, stream)
    }

    /// Waits until the upstream's exchange has ended: how long that took.
    async fn ended(&self, id: u64, since: Instant) -> Duration {
        while self.is_live(id) {
            sleep(Duration::from_millis(5)).await;
        }
        since.elapsed()
    }
}

/// Returns the status of an answer without reading it.
async fn peek_status(stream: &TcpStream) -> u16 {
    let mut text = [0; 12];
    loop {
        match stream.peek(&mut text).await {
            Ok(12) => return std::str::from_utf8(&text[9..]).expect("ASCII").parse().expect("a status"),
            Ok(0) | Err(_) => return 0,
            Ok(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Memory of this process, in bytes; 0 where the system does not say.
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * 4096
}

fn http1() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// A client whose streams may send nothing but a head.
fn http2_shut() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).http2_only(true).http2_initial_stream_window_size(0).build_http()
}

/// What was seen while the hostages held on.
#[derive(Debug)]
struct Seen {
    /// The longest wait of an urgent request, until its body was whole.
    longest_wait: Duration,
    /// The longest hold of a hostage, and how many there were.
    longest_hold: Duration,
    holds: usize,
    /// The most exchanges at the upstream, and for how long there were more than it has slots.
    most: usize,
    over: Duration,
    /// The most slots that the balancer knew to be taken.
    slots: u32,
    memory: u64,
    batch: ClassSnapshot,
}

/// Where a hostage notes how long it held on.
type Holds = Arc<Mutex<Vec<Duration>>>;

/// Starts 64 hostages, and in the same instant 10 urgent requests; then one every 100 ms. All of them are served.
async fn served_all_the_while<F>(house: &Arc<House>, hostage: impl Fn(usize, Arc<House>, Holds) -> F) -> Seen
where
    F: Future<Output = Infallible> + Send + 'static,
{
    let before = memory();
    let holds = Holds::default();
    let watched = Arc::clone(house);
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let watch = tokio::spawn(async move {
        let (mut most, mut over, mut slots, mut top) = (0, Duration::ZERO, 0, 0);
        let mut since = None;
        while stopped.try_recv().is_err() {
            let live = watched.backend.live().len();
            most = most.max(live);
            let since: &mut Option<Instant> = &mut since;
            match live > SEATS {
                true => over = over.max(since.get_or_insert_with(Instant::now).elapsed()),
                false => *since = None,
            }
            let endpoints = watched.stack.gateway.balance().snapshot();
            slots = slots.max(endpoints.iter().map(|endpoint| endpoint.in_flight).max().unwrap_or_default());
            top = top.max(memory());
            sleep(Duration::from_millis(2)).await;
        }
        (most, over, slots, top)
    });
    let mut hostages = JoinSet::new();
    for index in 0..HOSTAGES {
        hostages.spawn(hostage(index, Arc::clone(house), Arc::clone(&holds)));
    }
    let http = http1();
    let mut urgent = JoinSet::new();
    for index in 0..50 {
        if index >= 10 {
            sleep(Duration::from_millis(100)).await;
        }
        let (_, request) = house.request("/v1/x", ENTERPRISE);
        let answer = timeout(Duration::from_secs(15), http.request(request));
        urgent.spawn(async move {
            let began = Instant::now();
            let (head, body) = answer.await.expect("in time").expect("an answer").into_parts();
            let body = body.collect().await.expect("a whole body").to_bytes();
            (head.status, body, began.elapsed())
        });
    }
    let mut longest_wait = Duration::ZERO;
    for (status, body, waited) in urgent.join_all().await {
        assert_eq!((status, &body[..]), (StatusCode::OK, SHORT), "after {waited:?}");
        longest_wait = longest_wait.max(waited);
    }
    let snapshot = house.snapshot();
    assert_eq!((snapshot.classes[0].offered, snapshot.classes[0].shed), (50, 0));
    let _ = stop.send(());
    let (most, over, slots, top) = watch.await.expect("no panic");
    let failed = hostages.try_join_next();
    assert!(failed.is_none(), "{failed:?}");
    hostages.shutdown().await;
    // All hostages have gone: nothing of them stays.
    let idle = timeout(Duration::from_secs(5), async {
        while !house.backend.live().is_empty() || house.snapshot().classes.iter().any(|class| class.in_flight > 0) {
            sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(idle.await.is_ok(), "{:?}, {:?}", house.backend.live(), house.snapshot());
    let holds = std::mem::take(&mut *holds.lock().expect("no panic"));
    let seen = Seen {
        longest_wait,
        longest_hold: holds.iter().max().copied().unwrap_or_default(),
        holds: holds.len(),
        most,
        over,
        slots,
        memory: top.saturating_sub(before),
        batch: snapshot.classes[3],
    };
    println!("{seen:?}");
    assert!(seen.longest_wait <= STALL + SLACK, "{seen:?}");
    assert!(seen.longest_hold <= STALL + SLACK, "{seen:?}");
    assert!(seen.slots <= SEATS as u32, "{seen:?}");
    // The upstream hears of an end a moment after the gateway, which may have sent it the next request by then.
    assert!(seen.most <= SEATS + SEATS / 2, "{seen:?}");
    assert!(seen.over <= Duration::from_millis(250), "{seen:?}");
    assert!(seen.memory <= MEMORY, "{seen:?}");
    seen
}

/// What is so where the hostages held every seat, several times.
fn assert_cut(seen: &Seen, cut: u64) {
    assert!(seen.longest_wait >= STALL / 2, "they did hold every seat: {seen:?}");
    assert!(cut >= 2 * SEATS as u64, "{seen:?}");
    assert!(seen.holds >= 2 * SEATS, "{seen:?}");
}

/// Sends requests over connections of its own, and reads so many bytes a second; keeps those that were cut.
async fn hold_http1(house: Arc<House>, holds: Holds, bytes_per_second: usize) -> Infallible {
    let mut kept = Vec::new();
    loop {
        let (id, mut stream) = house.connect("/v1/big").await;
        if peek_status(&stream).await != 200 {
            sleep(Duration::from_millis(50)).await;
            continue;
        }
        let reads = async {
            let mut byte = vec![0; bytes_per_second];
            while bytes_per_second > 0 && stream.read(&mut byte).await.is_ok_and(|read| read > 0) {
                sleep(Duration::from_secs(1)).await;
            }
            pending().await
        };
        let held = tokio::select! {
            held = house.ended(id, Instant::now()) => held,
            () = reads => unreachable!("it does not end"),
        };
        holds.lock().expect("no panic").push(held);
        kept.push(stream);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_read_lose_their_seats() {
    let _alone = ALONE.lock().await;
    let house = House::start("stall_seconds = 1").await;
    let seen = served_all_the_while(&house, |_, house, holds| hold_http1(house, holds, 0)).await;
    assert_cut(&seen, seen.batch.stalled);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_read_a_byte_a_second_lose_their_seats() {
    let _alone = ALONE.lock().await;
    let house = House::start("stall_seconds = 1").await;
    let seen = served_all_the_while(&house, |_, house, holds| hold_http1(house, holds, 1)).await;
    assert_cut(&seen, seen.batch.stalled);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_does_not_look_complete() {
    let _alone = ALONE.lock().await;
    let house = House::start("stall_seconds = 1").await;
    let mut hostages = Vec::new();
    for _ in 0..=SEATS {
        hostages.push(house.connect("/v1/big").await);
    }
    // Each loses its seat to the one that waits, or holds on as nothing waits any more.
    let began = Instant::now();
    let mut came = HashSet::new();
    let ended = loop {
        let live = house.backend.live().clone();
        came.extend(live.iter().copied());
        let ended: HashSet<u64> = came.difference(&live).copied().collect();
        if !ended.is_empty() && house.snapshot().classes[3].stalled > 0 {
            break ended;
        }
        assert!(began.elapsed() < STALL + SLACK, "{:?}", house.snapshot());
        sleep(Duration::from_millis(5)).await;
    };
    let mut cut = 0;
    for (id, mut stream) in hostages.into_iter().filter(|(id, _)| ended.contains(id)) {
        let mut text = Vec::new();
        let read = timeout(Duration::from_secs(10), stream.read_to_end(&mut text)).await.expect("the connection ends");
        assert!(text.starts_with(b"HTTP/1.1 200"), "{id}");
        assert!(!text.ends_with(b"\r\n0\r\n\r\n"), "{id}: {read:?}");
        cut += 1;
    }
    assert_eq!(cut, ended.len());
}

/// Opens streams with a window of 0; keeps those that were cut.
async fn hold_http2(http: Client<HttpConnector, Full<Bytes>>, house: Arc<House>, holds: Holds) -> Infallible {
    let mut kept = Vec::new();
    loop {
        let (id, request) = house.request("/v1/big", TRIAL);
        let answer = http.request(request).await.expect("a head");
        if answer.status() != StatusCode::OK {
            sleep(Duration::from_millis(50)).await;
            continue;
        }
        let held = house.ended(id, Instant::now()).await;
        holds.lock().expect("no panic").push(held);
        kept.push(answer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_with_a_window_of_0_lose_their_seats() {
    let _alone = ALONE.lock().await;
    let house = House::start("stall_seconds = 1").await;
    let clients: Vec<_> = (0..4).map(|_| http2_shut()).collect();
    let seen =
        served_all_the_while(&house, |index, house, holds| hold_http2(clients[index % 4].clone(), house, holds)).await;
    assert_cut(&seen, seen.batch.stalled);
}

/// Opens ten streams with a window of 0, for short answers; keeps them all.
async fn hold_short(
    path: &'static str,
    http: Client<HttpConnector, Full<Bytes>>,
    house: Arc<House>,
    holds: Holds,
) -> Infallible {
    let mut kept = Vec::new();
    while kept.len() < 10 {
        let (id, request) = house.request(path, TRIAL);
        let answer = http.request(request).await.expect("a head");
        if answer.status() == StatusCode::OK {
            let held = house.ended(id, Instant::now()).await;
            holds.lock().expect("no panic").push(held);
            kept.push(answer);
        }
        sleep(Duration::from_millis(200)).await;
    }
    pending().await
}

#[tokio::test(flavor = "multi_thread")]
async fn short_answers_behind_a_window_of_0_hold_no_seat() {
    let _alone = ALONE.lock().await;
    let house = House::start("stall_seconds = 1").await;
    let clients: Vec<_> = (0..4).map(|_| http2_shut()).collect();
    let seen = served_all_the_while(&house, |index, house, holds| {
        hold_short("/v1/x", clients[index % 4].clone(), house, holds)
    })
    .await;
    assert!(seen.holds >= HOSTAGES * 5, "{seen:?}");
    assert!(seen.longest_wait < STALL, "the seat is free once the upstream has done its part: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn short_answers_of_unknown_length_behind_a_window_of_0_lose_their_seats() {
    let _alone = ALONE.lock().await;
    let house = House::start("stall_seconds = 1").await;
    let clients: Vec<_> = (0..4).map(|_| http2_shut()).collect();
    let seen = served_all_the_while(&house, |index, house, holds| {
        hold_short("/v1/late", clients[index % 4].clone(), house, holds)
    })
    .await;
    assert_cut(&seen, seen.batch.stalled);
}

/// Reads an endless answer eagerly until it breaks off, and opens the next.
async fn read_on(
    path: &'static str,
    http: Client<HttpConnector, Full<Bytes>>,
    house: Arc<House>,
    holds: Holds,
) -> Infallible {
    loop {
        let (id, request) = house.request(path, TRIAL);
        let answer = http.request(request).await.expect("a head");
        if answer.status() != StatusCode::OK {
            sleep(Duration::from_millis(50)).await;
            continue;
        }
        let began = Instant::now();
        let mut body = answer.into_body();
        let reads = async { while body.frame().await.expect("it must not look complete").is_ok() {} };
        let (held, ()) = tokio::join!(house.ended(id, began), async {
            let until = STALL + SLACK * 2;
            timeout(until, reads).await.expect("the client is told");
        });
        holds.lock().expect("no panic").push(held);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_streams_that_are_read_lose_their_seats_after_max_hold() {
    let _alone = ALONE.lock().await;
    let house = House::start("classes.p3.max_hold_seconds = 1").await;
    let clients = [http1(), Client::builder(TokioExecutor::new()).http2_only(true).build_http()];
    let paths = ["/v1/slow", "/v1/rare"];
    let seen = served_all_the_while(&house, |index, house, holds| {
        read_on(paths[index / 2 % 2], clients[index % 2].clone(), house, holds)
    })
    .await;
    assert_cut(&seen, seen.batch.overdue);
    assert_eq!(seen.batch.stalled, 0, "{seen:?}");
}

/// Reads 16 KiB every 250 ms, for 6 s. Returns whether it still went on.
async fn read_slowly(house: Arc<House>) -> bool {
    let (id, mut stream) = house.connect("/v1/steady").await;
    let mut part = vec![0; 16 << 10];
    for _ in 0..24 {
        if stream.read_exact(&mut part).await.is_err() {
            return false;
        }
        sleep(Duration::from_millis(250)).await;
    }
    house.is_live(id)
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_and_slow_backends_are_not_cut() {
    let _alone = ALONE.lock().await;
    let house = House::start("stall_seconds = 2").await;
    let mut friends = JoinSet::new();
    // The gateway sees that a client reads each time some 72 KiB have gone, which are what hyper holds. This is as fast
    // for this stall as 9 KiB a second are for that of the preset, 15 s.
    for _ in 0..SEATS / 2 {
        friends.spawn(read_slowly(Arc::clone(&house)));
    }
    let http = http1();
    for _ in 0..SEATS / 2 {
        let (_, request) = house.request("/v1/pauses", TRIAL);
        let answer = http.request(request);
        friends.spawn(async move {
            let body: Incoming = answer.await.expect("an answer").into_body();
            body.collect().await.is_ok_and(|body| body.to_bytes() == TOKEN.repeat(3))
        });
    }
    let began = Instant::now();
    while house.snapshot().classes[3].in_flight < SEATS {
        assert!(began.elapsed() < SLACK, "they hold every seat: {:?}", house.snapshot());
        sleep(Duration::from_millis(5)).await;
    }
    let mut urgent = JoinSet::new();
    for _ in 0..10 {
        urgent.spawn(http.request(house.request("/v1/x", ENTERPRISE).1));
    }
    let ended = friends.join_all().await;
    assert_eq!((house.snapshot().classes[3].stalled, ended), (0, vec![true; SEATS]));
    for answer in urgent.join_all().await {
        assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
    }
    assert!(began.elapsed() > Duration::from_secs(5), "they waited all the while");
}
