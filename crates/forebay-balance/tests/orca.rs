//! Load reports that come with answers (ORCA) are asked for only where they are wanted, heard, and kept from clients.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use forebay_balance::probe::{CloseCause, Preset};
use forebay_balance::{Balance, BalanceHandle, Endpoint, EndpointState, HttpBalance, MetricsProbe};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use tokio::net::TcpListener;
use tower::ServiceExt as _;

mod http_kit;
use http_kit::{get, pass, soon, until};

const FORMAT: &str = "endpoint-load-metrics-format";
const REPORT: &str = "endpoint-load-metrics";

/// What a server says about itself, and what it was asked.
#[derive(Debug, Default)]
struct Says {
    report: &'static str,
    asked: Vec<Vec<String>>,
}

type Shared = Arc<Mutex<Says>>;

/// A server that, as vLLM, reports its load if it is asked to.
async fn server(report: &'static str) -> (String, Shared) {
    let says = Arc::new(Mutex::new(Says { report, asked: Vec::new() }));
    let answer = |State(says): State<Shared>, headers: HeaderMap| async move {
        let mut says = says.lock().expect("no panic");
        let asked = headers.get_all(FORMAT).iter().map(|format| format.to_str().expect("text").to_owned());
        says.asked.push(asked.collect());
        let answer = Response::builder();
        let answer = if headers.contains_key(FORMAT) { answer.header(REPORT, says.report) } else { answer };
        answer.body("ok".to_owned()).expect("valid")
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let app = Router::new().fallback(answer).with_state(Arc::clone(&says));
    tokio::spawn(async { axum::serve(listener, app).await });
    (url, says)
}

fn listening(urls: &[&str]) -> (HttpBalance, BalanceHandle) {
    let add = |builder: forebay_balance::client::HttpBalanceBuilder, url: &&str| builder.endpoint(Endpoint::new(url));
    let builder = urls.iter().fold(Balance::http(), add);
    builder.probe(MetricsProbe::orca().interval(Duration::from_millis(1))).build_with_handle().expect("valid")
}

async fn call(balance: &HttpBalance, request: Request<Full<bytes::Bytes>>) -> HeaderMap {
    let response = soon(balance.clone().oneshot(request)).await.expect("an answer");
    let (head, body) = response.into_parts();
    assert_eq!(soon(body.collect()).await.expect("whole").to_bytes(), "ok");
    head.headers
}

/// Calls until the driver listens.
async fn heard(balance: &HttpBalance, says: &Shared) {
    soon(async {
        while says.lock().expect("no panic").asked.last().is_none_or(Vec::is_empty) {
            assert!(!call(balance, get("/")).await.contains_key(REPORT), "asked for by us, and kept from the client");
        }
    })
    .await;
}

#[tokio::test]
async fn r23_without_a_listener_nothing_is_asked_and_reports_pass() {
    let (url, says) = server("TEXT named_metrics.kv_cache_usage_perc=0.5").await;
    let (balance, handle) = Balance::http()
        .endpoint(Endpoint::new(&url))
        .probe(MetricsProbe::new(Preset::vllm(), "/metrics"))
        .build_with_handle()
        .expect("valid");
    call(&balance, get("/")).await;
    let mut asks = get("/");
    asks.headers_mut().insert(FORMAT, "JSON".parse().expect("valid"));
    assert_eq!(call(&balance, asks).await[REPORT], "TEXT named_metrics.kv_cache_usage_perc=0.5", "the client asked");
    assert!(says.lock().expect("no panic").asked.iter().flatten().all(|format| format == "JSON"));
    drop(handle);
}

#[tokio::test]
async fn r23_a_report_of_a_full_cache_closes_and_is_forgotten() {
    let (url, says) = server("TEXT named_metrics.kv_cache_usage_perc=0.99, named_metrics.num_requests_waiting=3").await;
    let (other, _) = server("TEXT named_metrics.kv_cache_usage_perc=0.1, named_metrics.num_requests_waiting=0").await;
    let (balance, handle) = listening(&[&url, &other]);
    let state = || handle.snapshot()[0].state;
    soon(async {
        while state() != EndpointState::Closed(CloseCause::KvCache) {
            call(&balance, get("/")).await;
        }
    })
    .await;
    assert_eq!(says.lock().expect("no panic").asked.last(), Some(&vec!["TEXT".to_owned()]));
    says.lock().expect("no panic").report = "JSON {\"named_metrics\": {\"kv_cache_usage_perc\": 0.2}}";
    pass(Duration::from_secs(3)).await; // it gets nothing, so it says nothing: what it said holds for a second
    soon(async {
        while state() != EndpointState::Up {
            call(&balance, get("/")).await;
        }
    })
    .await;
}

#[tokio::test]
async fn r23_requests_that_run_and_wait_there_are_its_load() {
    let (url, says) =
        server("JSON {\"named_metrics\": {\"num_requests_running\": 7, \"num_requests_waiting\": 2}}").await;
    let (balance, handle) = listening(&[&url]);
    heard(&balance, &says).await;
    // Our own was one of them, or had ended when it was read.
    until(|| (8.0..=9.0).contains(&handle.snapshot()[0].load)).await;
}

#[tokio::test]
async fn r18_a_report_that_cannot_be_true_is_no_report() {
    let (url, says) = server("TEXT named_metrics.kv_cache_usage_perc=NaN, named_metrics.num_requests_waiting=-1").await;
    let (balance, handle) = listening(&[&url]);
    heard(&balance, &says).await;
    for report in [
        "",
        "TEXT named_metrics.num_requests_running=-1, named_metrics.num_requests_waiting=0",
        "JSON {\"named_metrics\": {\"num_requests_running\": 0, \"num_requests_waiting\": 0",
        "JSON {\"named_metrics\": {\"num_requests_running\": null, \"num_requests_waiting\": 0}}",
    ] {
        says.lock().expect("no panic").report = report;
        for _ in 0..20 {
            call(&balance, get("/")).await;
            assert_eq!(handle.snapshot()[0].probe_age, None, "no load was said: {report}");
        }
    }
    says.lock().expect("no panic").report =
        "TEXT named_metrics.num_requests_running=0,named_metrics.num_requests_waiting=0";
    soon(async {
        while handle.snapshot()[0].probe_age.is_none() {
            call(&balance, get("/")).await;
        }
    })
    .await;
}

#[tokio::test]
async fn r23_what_the_client_asks_stands_and_is_answered() {
    let (url, says) = server("JSON {\"named_metrics\": {\"kv_cache_usage_perc\": 0.5}}").await;
    let (balance, _handle) = listening(&[&url]);
    heard(&balance, &says).await;
    let mut asks = get("/");
    asks.headers_mut().insert(FORMAT, "JSON".parse().expect("valid"));
    assert!(call(&balance, asks).await.contains_key(REPORT));
    assert_eq!(says.lock().expect("no panic").asked.last(), Some(&vec!["JSON".to_owned()]));
}

/// R48: a request that is handed back is as it came, so that the next endpoint asks for itself.
#[tokio::test]
async fn r48_a_request_that_goes_elsewhere_asks_once() {
    let refusing = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let bad = format!("http://{}", refusing.local_addr().expect("bound"));
    drop(refusing);
    let (good, says) = server("TEXT named_metrics.kv_cache_usage_perc=0.5").await;
    let (balance, handle) = listening(&[&bad, &good]);
    heard(&balance, &says).await;
    soon(async {
        while handle.snapshot()[0].error < 3 {
            assert!(!call(&balance, get("/")).await.contains_key(REPORT));
        }
    })
    .await;
    assert!(says.lock().expect("no panic").asked.iter().all(|asked| asked.is_empty() || *asked == ["TEXT"]));
}

#[tokio::test]
async fn an_address_of_its_own_is_a_problem() {
    let probe = MetricsProbe::orca().at("http://{host}:9400");
    let error = Balance::http().endpoint(Endpoint::new("http://a")).probe(probe).build().expect_err("no address");
    assert!(error.to_string().contains("probe.at is set for ORCA"), "{error}");
}
