//! What runs in the background runs where its driver was spawned, needs no traffic, and ends with the balancer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use forebay_balance::{Balance, BalanceHandle, Change, Endpoint, EndpointState, HttpCheck, MetricsProbe};
use futures_core::Stream;
use http::{Request, StatusCode};
use http_body_util::Empty;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tower::ServiceExt as _;

const LONG: Duration = Duration::from_secs(20);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn until(what: impl Fn() -> bool) {
    let wait = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, wait).await.expect("it never was so");
}

/// A stream of changes that a test pushes.
struct Pushed(mpsc::UnboundedReceiver<Result<Change<()>, &'static str>>);

impl Stream for Pushed {
    type Item = Result<Change<()>, &'static str>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

/// A server that counts its health checks and the fetches of its metrics page.
#[derive(Debug, Default)]
struct Asked {
    health: AtomicUsize,
    page: AtomicUsize,
}

async fn server() -> (String, Arc<Asked>) {
    let asked = Arc::new(Asked::default());
    let (health, page) = (Arc::clone(&asked), Arc::clone(&asked));
    let health = move || async move {
        health.health.fetch_add(1, SeqCst);
        StatusCode::OK
    };
    let page = move || async move {
        page.page.fetch_add(1, SeqCst);
        "vllm:num_requests_running 3\nvllm:num_requests_waiting 0\n"
    };
    let app = axum::Router::new()
        .route("/health", axum::routing::get(health))
        .route("/metrics", axum::routing::get(page))
        .fallback(|| async { StatusCode::OK });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, asked)
}

fn check() -> HttpCheck {
    HttpCheck::new("/health").interval(Duration::from_millis(5))
}

fn state(handle: &BalanceHandle, id: &str) -> Option<EndpointState> {
    handle.snapshot().into_iter().find(|endpoint| endpoint.id.as_str() == id).map(|endpoint| endpoint.state)
}

#[test]
fn r51_outside_a_runtime_the_driver_is_handed_out_and_build_says_so() {
    let (source, pushed) = mpsc::unbounded_channel();
    let error = Balance::builder().discover(Pushed(pushed)).build().expect_err("there is no runtime");
    assert!(error.to_string().contains("runtime") && error.to_string().contains("build_parts"), "{error}");
    assert!(source.is_closed());

    let (source, pushed) = mpsc::unbounded_channel();
    let (balance, handle, driver) = Balance::builder().discover(Pushed(pushed)).build_parts().expect("valid");
    source.send(Ok(Change::Insert(Endpoint::with_service("a", ())))).expect("it is kept");
    let runtime = runtime();
    let driver = runtime.spawn(driver);
    runtime.block_on(async {
        until(|| state(&handle, "a") == Some(EndpointState::Up)).await;
        drop(balance);
        tokio::task::yield_now().await;
        assert!(!driver.is_finished(), "a handle is left");
        drop(handle);
        timeout(LONG, driver).await.expect("it ends with the last").expect("no panic");
        timeout(LONG, source.closed()).await.expect("the source is let go");
    });
}

#[tokio::test]
async fn r51_a_driver_with_nothing_to_do_waits_for_the_end() {
    let builder = Balance::builder().endpoint(Endpoint::with_service("a", ()));
    let (balance, handle, driver) = builder.build_parts().expect("valid");
    let mut driver = std::pin::pin!(driver);
    assert!(timeout(Duration::from_millis(5), driver.as_mut()).await.is_err());
    drop((handle, balance.clone(), balance.fleet(), balance));
    timeout(LONG, driver).await.expect("it ends");
}

#[tokio::test]
async fn r51_a_driver_that_is_dropped_lets_its_sources_go_and_the_endpoints_stay() {
    let (source, pushed) = mpsc::unbounded_channel();
    let (_balance, handle, driver) = Balance::builder().discover(Pushed(pushed)).build_parts().expect("valid");
    let driver = tokio::spawn(driver);
    source.send(Ok(Change::Insert(Endpoint::with_service("a", ())))).expect("it is followed");
    until(|| state(&handle, "a").is_some()).await;
    driver.abort();
    timeout(LONG, source.closed()).await.expect("the source is let go");
    assert_eq!(state(&handle, "a"), Some(EndpointState::Up));
}

#[tokio::test]
async fn r51_checks_and_probes_need_the_driver_and_no_traffic() {
    let ((url, asked), (later, other)) = (server().await, server().await);
    let (balance, handle, driver) = Balance::http()
        .endpoint(Endpoint::new(&url))
        .health(check())
        .probe(MetricsProbe::vllm("/metrics").interval(Duration::from_millis(5)))
        .build_parts()
        .expect("valid");
    let request = || Request::get("/").body(Empty::<bytes::Bytes>::new()).expect("valid");
    let refused = balance.clone().oneshot(request()).await.expect("an answer");
    assert_eq!((refused.status(), state(&handle, &url)), (StatusCode::SERVICE_UNAVAILABLE, Some(EndpointState::New)));
    assert_eq!((asked.health.load(SeqCst), asked.page.load(SeqCst)), (0, 0));

    let driver = tokio::spawn(driver);
    until(|| state(&handle, &url) == Some(EndpointState::Up) && handle.snapshot()[0].load > 2.9).await;
    balance.insert(Endpoint::new(&later)).expect("valid");
    until(|| state(&handle, &later) == Some(EndpointState::Up) && other.page.load(SeqCst) > 0).await;
    assert_eq!(handle.snapshot()[0].picks, 0, "nobody has asked for anything");

    driver.abort();
    assert!(driver.await.expect_err("dropped").is_cancelled());
    let before = asked.health.load(SeqCst);
    tokio::time::sleep(Duration::from_millis(50)).await;
    // One may have been on its way.
    assert!(asked.health.load(SeqCst) <= before + 1, "checks have stopped");
    assert_eq!(state(&handle, &url), Some(EndpointState::Up), "what was known holds");
    assert_eq!(balance.oneshot(request()).await.expect("an answer").status(), StatusCode::OK);
}

/// Counts those that hang.
struct Hangs(Arc<AtomicUsize>);

impl Drop for Hangs {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[tokio::test]
async fn r51_who_is_removed_or_replaced_is_left_alone_at_once() {
    let hanging = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&hanging);
    let health = move || async move {
        count.fetch_add(1, SeqCst);
        let _hangs = Hangs(count);
        std::future::pending::<StatusCode>().await
    };
    let app = axum::Router::new().route("/health", axum::routing::get(health));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, app).await });

    let patient = HttpCheck::new("/health").timeout(Duration::from_secs(3600));
    let balance = Balance::http().endpoint(Endpoint::new(&url)).health(patient).build().expect("valid");
    until(|| hanging.load(SeqCst) == 1).await;
    for _ in 0..1000 {
        balance.insert(Endpoint::new(&url)).expect("valid"); // no pile of checks comes of it
    }
    until(|| hanging.load(SeqCst) == 1).await;
    assert!(balance.remove(&url));
    until(|| hanging.load(SeqCst) == 0).await;
    balance.insert(Endpoint::new(&url)).expect("valid");
    until(|| hanging.load(SeqCst) == 1).await;
    drop(balance);
    until(|| hanging.load(SeqCst) == 0).await;
}
