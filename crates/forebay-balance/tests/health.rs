//! Health checks and probes against real servers: who is broken, busy or loading gets no requests, and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use forebay_balance::probe::{LoadReport, Preset, Rule, Verdict};
use forebay_balance::{
    Balance, BalanceHandle, Endpoint, EndpointSnapshot, EndpointState, HttpBalance, HttpCheck, MetricsProbe, Outlier,
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tower::ServiceExt as _;

const LONG: Duration = Duration::from_secs(20);

/// A server that can be made ill.
#[derive(Debug, Default)]
struct Server {
    ill: AtomicBool,
    fails: AtomicBool,
    served: AtomicUsize,
    running: AtomicU32,
    kv_percent: AtomicU32,
    page: AtomicUsize,
}

type Shared = State<Arc<Server>>;

async fn health(State(server): Shared) -> StatusCode {
    if server.ill.load(SeqCst) { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

async fn metrics(State(server): Shared) -> String {
    if server.page.load(SeqCst) > 0 {
        return "#".repeat(server.page.load(SeqCst));
    }
    let (running, kv) = (server.running.load(SeqCst), f64::from(server.kv_percent.load(SeqCst)) / 100.0);
    format!(
        "vllm:num_requests_running {running}\nvllm:num_requests_waiting 2\nvllm:kv_cache_usage_perc{{a=\"b\"}} {kv}\n"
    )
}

async fn work(State(server): Shared) -> StatusCode {
    server.served.fetch_add(1, SeqCst);
    if server.fails.load(SeqCst) { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
}

async fn server() -> (String, Arc<Server>) {
    let server = Arc::new(Server::default());
    let app = axum::Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(work)
        .with_state(Arc::clone(&server));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, server)
}

fn often() -> HttpCheck {
    HttpCheck::new("/health").interval(Duration::from_millis(5))
}

async fn call(balance: &HttpBalance) -> StatusCode {
    let request = Request::get("/work").body(Empty::<bytes::Bytes>::new()).expect("valid");
    let response = balance.clone().oneshot(request).await.expect("an answer");
    let status = response.status();
    let _ = response.into_body().collect().await;
    status
}

/// Waits until the first endpoint is so.
async fn until(handle: &BalanceHandle, what: impl Fn(&EndpointSnapshot) -> bool) -> EndpointSnapshot {
    let wait = async {
        loop {
            let first = handle.snapshot().remove(0);
            if what(&first) {
                return first;
            }
            tokio::task::yield_now().await;
        }
    };
    let last = || handle.snapshot();
    timeout(LONG, wait).await.unwrap_or_else(|_| panic!("it never was so: {:?}", last()))
}

#[tokio::test]
async fn r27_who_is_loading_gets_nothing_then_goes_down_and_comes_back() {
    let ((first, ill), (second, well)) = (server().await, server().await);
    ill.ill.store(true, SeqCst);
    well.ill.store(true, SeqCst);
    let (balance, handle) = Balance::http()
        .endpoint(Endpoint::new(&first))
        .endpoint(Endpoint::new(&second))
        .health(often())
        .build_with_handle()
        .expect("valid");
    assert_eq!(call(&balance).await, 503, "both are loading");
    let replicas = handle.replicas("default").expect("a pool");
    assert_eq!((replicas.ready, replicas.starting, replicas.current), (0, 2, 2));
    assert_eq!(ill.served.load(SeqCst) + well.served.load(SeqCst), 0);

    ill.ill.store(false, SeqCst);
    until(&handle, |first| first.state == EndpointState::Up).await;
    assert_eq!(call(&balance).await, 200);
    assert_eq!((ill.served.load(SeqCst), well.served.load(SeqCst)), (1, 0));

    well.ill.store(false, SeqCst);
    timeout(LONG, async {
        while handle.replicas("default").expect("a pool").ready < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("both are up");
    ill.ill.store(true, SeqCst);
    until(&handle, |first| first.state == EndpointState::Down).await;
    let before = ill.served.load(SeqCst);
    for _ in 0..10 {
        assert_eq!(call(&balance).await, 200);
    }
    assert_eq!(ill.served.load(SeqCst), before);
    ill.ill.store(false, SeqCst);
    until(&handle, |first| first.state == EndpointState::Up).await;
}

#[tokio::test]
async fn r24_who_fails_is_left_out_and_its_errors_are_few() {
    let ((bad, fails), (good, _)) = (server().await, server().await);
    fails.fails.store(true, SeqCst);
    let (balance, handle) = Balance::http()
        .endpoint(Endpoint::new(&bad))
        .endpoint(Endpoint::new(&good))
        .build_with_handle()
        .expect("valid");
    let mut errors = 0;
    timeout(LONG, async {
        while handle.snapshot()[0].state == EndpointState::Up {
            errors += usize::from(call(&balance).await != 200);
        }
    })
    .await
    .expect("it is left out");
    assert_eq!(errors, 5, "five in a row, then it is out");
    for _ in 0..20 {
        assert_eq!(call(&balance).await, 200);
    }
    let first = handle.snapshot().remove(0);
    assert_eq!((first.state, first.error), (EndpointState::Ejected, 5));
    fails.fails.store(false, SeqCst);
    assert!(handle.clear(&bad));
    assert_eq!(handle.snapshot()[0].state, EndpointState::Up);
    assert_eq!(call(&balance).await, 200);
}

#[tokio::test]
async fn r17_what_a_server_says_runs_there_keeps_requests_away() {
    let ((busy, load), (idle, other)) = (server().await, server().await);
    load.running.store(7, SeqCst);
    let probe = MetricsProbe::vllm("/metrics").interval(Duration::from_millis(5));
    let (balance, handle) = Balance::http()
        .endpoint(Endpoint::new(&busy))
        .endpoint(Endpoint::new(&idle))
        .probe(probe)
        .build_with_handle()
        .expect("valid");
    until(&handle, |first| (first.load - 9.0).abs() < 0.01).await;
    for _ in 0..10 {
        assert_eq!(call(&balance).await, 200);
    }
    assert_eq!((load.served.load(SeqCst), other.served.load(SeqCst)), (0, 10));
}

#[tokio::test]
async fn an_exporter_that_hangs_makes_no_other_page_late() {
    let (url, load) = server().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port"); // it accepts, and says nothing
    let at = format!("http://{}", silent.local_addr().expect("bound"));
    let (_balance, handle) = Balance::http()
        .endpoint(Endpoint::new(&url))
        .probe(MetricsProbe::dcgm(at, "/metrics").timeout(LONG))
        .probe(MetricsProbe::vllm("/metrics").interval(Duration::from_millis(5)))
        .build_with_handle()
        .expect("valid");
    for running in [7, 3, 5] {
        load.running.store(running, SeqCst);
        let as_said = f64::from(running + 2);
        let wait = until(&handle, |first| (first.load - as_said).abs() < 0.01);
        timeout(LONG / 2, wait).await.expect("long before the exporter is given up");
    }
}

#[tokio::test]
async fn r30_a_full_kv_cache_closes_and_frees_again() {
    let (url, load) = server().await;
    let (second, _) = server().await;
    load.kv_percent.store(99, SeqCst);
    let probe = MetricsProbe::vllm("/metrics").interval(Duration::from_millis(5));
    let (_balance, handle) = Balance::http()
        .endpoint(Endpoint::new(&url))
        .endpoint(Endpoint::new(&second))
        .probe(probe)
        .build_with_handle()
        .expect("valid");
    until(&handle, |first| matches!(first.state, EndpointState::Closed(_))).await;
    load.kv_percent.store(50, SeqCst);
    until(&handle, |first| first.state == EndpointState::Up && first.effective_weight >= 1.0).await;
}

#[tokio::test]
async fn r20_each_endpoint_has_its_own_rows_of_a_shared_exporter() {
    const PAGE: &str = "DCGM_FI_DEV_FB_USED{gpu=\"0\",UUID=\"GPU-a\",pod=\"x\"} 8000\n\
                        DCGM_FI_DEV_FB_FREE{gpu=\"0\",UUID=\"GPU-a\",pod=\"x\"} 8000\n\
                        DCGM_FI_DEV_FB_USED{gpu=\"1\",UUID=\"GPU-b\",pod=\"y\"} 15840\n\
                        DCGM_FI_DEV_FB_FREE{gpu=\"1\",UUID=\"GPU-b\",pod=\"y\"} 160\n";
    let app = axum::Router::new().route("/metrics", get(|| async { PAGE }));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let exporter = format!("http://{{host}}:{}", listener.local_addr().expect("bound").port());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut urls = Vec::new();
    for _ in 0..6 {
        urls.push(server().await.0);
    }
    let mut builder =
        Balance::http().probe(MetricsProbe::dcgm(exporter, "/metrics").interval(Duration::from_millis(5)));
    let selectors: [&[(&str, &str)]; 6] = [
        &[("gpu", "0")],
        &[("gpu", "1")],
        &[("UUID", "GPU-a")],
        &[("pod", "y")],
        &[("gpu", "0"), ("gpu", "1")],
        &[("gpu", "7")],
    ];
    for (url, rows) in urls.iter().zip(selectors) {
        let select = |endpoint: Endpoint<_>, (label, value): &(&str, &str)| endpoint.probe_select(*label, *value);
        builder = builder.endpoint(rows.iter().fold(Endpoint::new(url), select));
    }
    let (balance, handle) = builder.build_with_handle().expect("valid");
    // Who has a GPU with one hundredth of its memory free has half of its weight.
    let weights = || handle.snapshot().iter().map(|one| one.effective_weight).collect::<Vec<_>>();
    let wait = async {
        while weights() != [1.0, 0.5, 1.0, 0.5, 0.5, 1.0] {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, wait).await.unwrap_or_else(|_| panic!("{:?}", weights()));
    balance.insert(Endpoint::new(&urls[1]).probe_select("gpu", "0")).expect("valid");
    timeout(LONG, async {
        while weights() != [1.0, 1.0, 1.0, 0.5, 0.5, 1.0] {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it has other rows now, by a quarter up at a time");
    let error = balance.insert(Endpoint::new("http://a").probe_select("gpu", "")).expect_err("no value");
    assert!(error.to_string().contains("probe_select"), "{error}");
}

#[tokio::test]
async fn r18_a_page_that_says_nothing_or_too_much_is_unknown_and_its_server_serves() {
    let (url, load) = server().await;
    load.page.store(5 << 20, SeqCst);
    let probe = MetricsProbe::vllm("/metrics").interval(Duration::from_millis(5)).at("http://127.0.0.1:1");
    let (balance, _handle) = Balance::http()
        .endpoint(Endpoint::new(&url))
        .probe(probe)
        .probe(MetricsProbe::auto("/metrics").interval(Duration::from_millis(5)))
        .probe(MetricsProbe::auto("/metrics").at("no URL"))
        .build_with_handle()
        .expect("valid");
    for _ in 0..50 {
        assert_eq!(call(&balance).await, 200);
    }
}

#[derive(Debug)]
struct Panics;

impl Rule for Panics {
    fn judge(&mut self, _: &LoadReport, _: std::time::Instant) -> Verdict {
        panic!("a rule of the user's")
    }
}

#[tokio::test]
async fn a_rule_that_panics_says_nothing() {
    let (url, load) = server().await;
    load.running.store(1, SeqCst);
    let probe = MetricsProbe::new(Preset::vllm(), "/metrics")
        .interval(Duration::from_millis(5))
        .rules(|| vec![Box::new(Panics)]);
    let (balance, handle) =
        Balance::http().endpoint(Endpoint::new(&url)).probe(probe).build_with_handle().expect("valid");
    until(&handle, |first| first.load >= 3.0).await;
    assert_eq!(call(&balance).await, 200);
    assert_eq!(handle.snapshot()[0].state, EndpointState::Up);
}

#[test]
fn what_runs_in_the_background_needs_a_runtime_and_every_problem_is_named() {
    let error = Balance::http()
        .endpoint(Endpoint::new("http://127.0.0.1:1"))
        .health(HttpCheck::new("health").up(0).down(0).interval(Duration::ZERO).timeout(Duration::ZERO))
        .probe(MetricsProbe::vllm("").interval(Duration::ZERO).max_bytes(0))
        .outlier(None::<Outlier>)
        .panic(1.5)
        .build()
        .expect_err("nothing is right");
    let text = error.to_string();
    for named in [
        "runtime",
        "health.path",
        "health.up",
        "health.down",
        "health.interval",
        "health.timeout",
        "probe.path",
        "probe.interval",
        "probe.max_bytes",
        "panic is 1.5",
    ] {
        assert!(text.contains(named), "{named} in {text}");
    }
}

#[tokio::test]
async fn r27_a_flapping_endpoint_stays_as_it_is_until_three_bad_or_two_good_run() {
    const ANSWERS: &[u8] = b"gbbgbbgbbgbbgbbbgbgbgbgb"; // then good
    const THIRD_BAD: usize = 16;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let app = axum::Router::new().route(
        "/health",
        get(move || async move {
            match ANSWERS.get(count.fetch_add(1, SeqCst)) {
                Some(b'b') => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::OK,
            }
        }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let (_balance, handle) =
        Balance::http().endpoint(Endpoint::new(url)).health(often()).build_with_handle().expect("valid");
    until(&handle, |first| first.state == EndpointState::Up).await;
    let down = until(&handle, |first| {
        first.state != EndpointState::Up || {
            assert!(asked.load(SeqCst) <= ANSWERS.len(), "it was never down");
            false
        }
    });
    down.await;
    assert!(asked.load(SeqCst) >= THIRD_BAD, "{} checks", asked.load(SeqCst));
    until(&handle, |first| first.state == EndpointState::Up).await;
    assert!(asked.load(SeqCst) >= ANSWERS.len() + 2, "{} checks", asked.load(SeqCst));
}
