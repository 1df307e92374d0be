//! Serves paying customers first when the backend is full.
//!
//! Run it with `cargo run -p forebay-examples --example priority`, then ask as a customer and as a batch job:
//!
//! ```text
//! $ curl -si http://127.0.0.1:3000/report -H 'x-plan: pro'
//! HTTP/1.1 200 OK
//! $ curl -si http://127.0.0.1:3000/report
//! HTTP/1.1 200 OK
//! ```
//!
//! Two reports run at a time, 300 ms each. Ask for eight at once (`seq 8 | xargs -P8 -I_ curl …`) and see who
//! waits, and for how long.

use std::time::Duration;

use axum::{Router, routing::get};
use forebay_core::{Class, RequestHead};
use forebay_priority::{PriorityConfig, PriorityLayer};

fn app(seats: usize) -> Result<Router, Box<dyn std::error::Error>> {
    let class = |head: &RequestHead<'_>| match head.headers.get("x-plan") {
        Some(plan) if plan == "pro" => Class::P0, // behind your own authentication, of course
        _ => Class::P3,
    };
    let priority = PriorityLayer::builder().config(PriorityConfig::four_class(seats)).classify(class).build()?;
    let report = || async {
        tokio::time::sleep(Duration::from_millis(300)).await; // the slow backend
        "the report\n"
    };
    Ok(Router::new().route("/report", get(report)).layer(priority))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app(2)?).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{body::Body, http::Request};
    use tower::ServiceExt as _;

    #[tokio::test(start_paused = true)]
    async fn the_customer_overtakes_the_batch_job() {
        let app = app(1).expect("valid");
        let ask = |plan: &'static str| {
            let request = Request::get("/report").header("x-plan", plan).body(Body::empty()).expect("valid");
            let app = app.clone();
            tokio::spawn(async move {
                let response = app.oneshot(request).await.expect("infallible");
                let status = response.status();
                http_body_util::BodyExt::collect(response.into_body()).await.expect("a body");
                (status.as_u16(), tokio::time::Instant::now())
            })
        };
        let first = ask("free");
        tokio::task::yield_now().await;
        let (batch, customer) = (ask("free"), ask("pro"));
        assert_eq!(first.await.expect("no panic").0, 200);
        let (batch, customer) = (batch.await.expect("no panic"), customer.await.expect("no panic"));
        assert_eq!((customer.0, batch.0), (200, 200));
        assert!(customer.1 < batch.1, "it came later, and is served first");
    }
}
