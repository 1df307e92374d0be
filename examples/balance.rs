//! Shares requests among two unequal backends, by their weights.
//!
//! Run it with `cargo run -p forebay-examples --example balance`, then ask for forty answers, forty at a time:
//!
//! ```text
//! $ seq 40 | xargs -P40 -I_ curl -s http://127.0.0.1:3000/_ | sort | uniq -c
//!      30 big
//!      10 small
//! ```
//!
//! The two backends, 300 ms an answer, run in the same program; put in the URLs of yours.

use std::time::Duration;

use axum::{Router, routing::any};
use forebay_balance::{Balance, Endpoint};
use tokio::net::TcpListener;

fn app(big: &str, small: &str) -> Result<Router, Box<dyn std::error::Error>> {
    let balance =
        Balance::http().endpoint(Endpoint::new(big).weight(3)).endpoint(Endpoint::new(small).weight(1)).build()?;
    Ok(Router::new().fallback_service(balance.into_infallible()))
}

/// A backend on a free port, and its URL.
async fn backend(answer: axum::routing::MethodRouter) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async { axum::serve(listener, Router::new().fallback_service(answer)).await });
    Ok(url)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let slow = |name: &'static str| {
        any(async move || {
            tokio::time::sleep(Duration::from_millis(300)).await;
            name
        })
    };
    let (big, small) = (backend(slow("big\n")).await?, backend(slow("small\n")).await?);
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app(&big, &small)?).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt as _;
    use tokio::{sync::Barrier, task::JoinSet};
    use tower::ServiceExt as _;

    #[tokio::test]
    async fn a_backend_three_times_as_heavy_gets_three_times_as_much() {
        // No backend answers before all requests have arrived: all of them are under way at once.
        let all = Arc::new(Barrier::new(40));
        let held = |name: &'static str| {
            let all = Arc::clone(&all);
            any(async move || {
                all.wait().await;
                name
            })
        };
        let big = backend(held("big")).await.expect("a free port");
        let small = backend(held("small")).await.expect("a free port");
        let app = app(&big, &small).expect("valid");

        let mut answers = JoinSet::new();
        for _ in 0..40 {
            let response = app.clone().oneshot(Request::get("/").body(Body::empty()).expect("valid"));
            answers.spawn(async {
                let body = response.await.expect("infallible").into_body();
                body.collect().await.expect("a body").to_bytes()
            });
        }
        let answers = tokio::time::timeout(Duration::from_secs(60), answers.join_all()).await.expect("all arrive");
        let from = |name: &str| answers.iter().filter(|answer| *answer == name).count();
        assert_eq!((from("big"), from("small")), (30, 10));
    }
}
