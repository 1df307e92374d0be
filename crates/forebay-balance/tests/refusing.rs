//! One endpoint of four refuses connections all the time, and is never left out: no request is lost, none is sent twice.
//!
//! Many: `CONNECT_FAILURES=1000000 cargo test --release -p forebay-balance --features client --test refusing`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use axum::extract::State;
use forebay_balance::{Balance, Endpoint};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Empty};
use tokio::net::TcpListener;
use tower::ServiceExt as _;

/// Which requests have come to a server, a bit for each.
struct Seen {
    bits: Vec<AtomicU64>,
    twice: AtomicUsize,
}

async fn note(State(seen): State<Arc<Seen>>, headers: HeaderMap) -> &'static str {
    let number: usize = headers["x-number"].to_str().expect("text").parse().expect("a number");
    let bit = 1 << (number % 64);
    if seen.bits[number / 64].fetch_or(bit, SeqCst) & bit != 0 {
        seen.twice.fetch_add(1, SeqCst);
    }
    "ok"
}

async fn server(seen: &Arc<Seen>) -> String {
    let app = axum::Router::new().fallback(note).with_state(Arc::clone(seen));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn r45_connect_failures_lose_no_request_and_double_none() {
    let wanted = std::env::var("CONNECT_FAILURES").map_or(2000, |number| number.parse().expect("a number"));
    let requests = 8 * wanted; // more than enough
    let seen = Arc::new(Seen {
        bits: (0..requests / 64 + 1).map(|_| AtomicU64::new(0)).collect(),
        twice: AtomicUsize::new(0),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let refusing = format!("http://{}", listener.local_addr().expect("bound"));
    drop(listener); // nobody listens there any more
    let mut builder = Balance::http().outlier(None).endpoint(Endpoint::new(&refusing));
    for _ in 0..3 {
        builder = builder.endpoint(Endpoint::new(server(&seen).await));
    }
    let (balance, handle) = builder.build_with_handle().expect("valid");
    let (number, good) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let workers: Vec<_> = (0..16)
        .map(|_| {
            let (balance, handle) = (balance.clone(), handle.clone());
            let (number, good) = (Arc::clone(&number), Arc::clone(&good));
            tokio::spawn(async move {
                while handle.snapshot()[0].error < wanted as u64 {
                    let next = number.fetch_add(1, SeqCst);
                    assert!(next < requests, "one in four fails, or more");
                    let request = Request::get("/").header("x-number", next).body(Empty::new()).expect("valid");
                    let Ok(response) = balance.clone().oneshot(request).await else { continue };
                    let ok = response.status().is_success() && response.into_body().collect().await.is_ok();
                    good.fetch_add(usize::from(ok), SeqCst);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("no panic");
    }
    let (sent, good) = (number.load(SeqCst), good.load(SeqCst));
    assert!(good as f64 >= 0.9999 * sent as f64, "{good} of {sent} are answered");
    assert_eq!(seen.twice.load(SeqCst), 0, "none is sent twice");
    assert!(handle.snapshot().iter().all(|endpoint| endpoint.in_flight == 0));
}
