//! Says how many replicas the requests in flight need: to Prometheus, and on the terminal.
//!
//! Run it with `cargo run -p forebay-examples --example autoscale`, then ask for twenty answers at once, and meanwhile:
//!
//! ```text
//! $ seq 20 | xargs -P20 -I_ curl -s 'http://127.0.0.1:3000/chat?_' >answers &
//! $ curl -s http://127.0.0.1:3000/metrics | grep -e '^forebay_autoscale_demand.*P2' -e '^forebay_autoscale_target'
//! forebay_autoscale_demand_requests{pool="default",class="P2"} 20
//! forebay_autoscale_target_replicas{pool="default"} 8
//! ```
//!
//! A replica serves four at a time and should be busy at 70 %, so twenty need eight; when they have ended, one is left.

use std::{future::pending, time::Duration};

use axum::{Router, routing::get};
use forebay_autoscale::{AutoscaleHandle, AutoscaleLayer, Capacity, ScalePolicy};

fn app() -> Result<(Router, AutoscaleHandle), Box<dyn std::error::Error>> {
    let (autoscale, handle) = AutoscaleLayer::builder()
        .policy(ScalePolicy::builder().replicas(1..=10).capacity(Capacity::slots(4)).utilisation(0.7).build()?)
        .build_with_handle()?;
    let chat = || async {
        tokio::time::sleep(Duration::from_secs(5)).await; // the slow backend
        "hello\n"
    };
    let metrics = handle.metrics_service(); // outside the layer: who asks for metrics is no demand
    Ok((Router::new().route("/chat", get(chat)).layer(autoscale).route_service("/metrics", metrics), handle))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (app, handle) = app()?;
    let mut decisions = handle.decision();
    tokio::spawn(handle.run(pending())); // a decision a second, for as long as the program runs
    tokio::spawn(async move {
        while decisions.changed().await.is_ok() {
            let decision = *decisions.borrow_and_update();
            println!("replicas needed: {} ({:?})", decision.target, decision.reason);
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{body::Body, http::Request, response::Response};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    async fn ask(app: Router, path: &str) -> Response {
        app.oneshot(Request::get(path).body(Body::empty()).expect("valid")).await.expect("infallible")
    }

    /// The sample of this name on the page that Prometheus reads.
    async fn sample(app: &Router, name: &str) -> String {
        let page = ask(app.clone(), "/metrics").await.into_body().collect().await.expect("a body").to_bytes();
        let page = String::from_utf8(page.to_vec()).expect("text");
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {page}")).to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_demand_until_their_bodies_have_ended() {
        const DEMAND: &str = r#"forebay_autoscale_demand_requests{pool="default",class="P2"}"#;
        const TARGET: &str = r#"forebay_autoscale_target_replicas{pool="default"}"#;
        let (app, handle) = app().expect("valid");
        let mut decisions = handle.decision();

        let mut heads = tokio::task::JoinSet::new();
        for _ in 0..20 {
            heads.spawn(ask(app.clone(), "/chat"));
        }
        let responses = heads.join_all().await;
        assert_eq!(sample(&app, DEMAND).await, "20", "the heads are here, the bodies are not");

        let ticking = tokio::spawn(handle.run(pending()));
        decisions.changed().await.expect("it runs");
        assert_eq!(decisions.borrow_and_update().target, 8, "20 requests / (4 a replica * 0.7), rounded up");
        assert_eq!(sample(&app, TARGET).await, "8");

        for response in responses {
            response.into_body().collect().await.expect("a body");
        }
        assert_eq!(sample(&app, DEMAND).await, "0");
        decisions.changed().await.expect("it runs");
        assert_eq!(sample(&app, TARGET).await, "1", "the lower bound");
        ticking.abort();
    }
}
