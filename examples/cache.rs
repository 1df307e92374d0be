//! Answers a repeated question from memory, to whoever asked it before and nobody else.
//!
//! Run it with `cargo run -p forebay-examples --example cache`, then ask twice, and once more with another key:
//!
//! ```text
//! $ ask() { curl -si http://127.0.0.1:3000/v1/chat/completions -H "authorization: Bearer $1" \
//!     --json '{"temperature": 0, "messages": [{"role": "user", "content": "6 * 7?"}]}' | grep -e '^cache-status' -e id; }
//! $ ask alice
//! cache-status: forebay; fwd=uri-miss; stored
//! {"id":"run-1","choices":[{"message":{"role":"assistant","content":"42"},"finish_reason":"stop"}]}
//! $ ask alice
//! cache-status: forebay; hit; ttl=3599; detail=memory
//! {"id":"run-1","choices":[{"message":{"role":"assistant","content":"42"},"finish_reason":"stop"}]}
//! $ ask bob
//! cache-status: forebay; fwd=uri-miss; stored
//! {"id":"run-2","choices":[{"message":{"role":"assistant","content":"42"},"finish_reason":"stop"}]}
//! ```
//!
//! The first answer takes 2 s, the second none. With a `temperature` above 0 and no `seed` every question is asked anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::{Router, routing::post};
use forebay_cache::{CacheLayer, JsonRoute};

/// What the model says the `run`-th time that it is asked.
async fn answer(run: u32) -> ([(HeaderName, &'static str); 1], String) {
    tokio::time::sleep(Duration::from_secs(2)).await; // it thinks
    let choice = r#"{"message":{"role":"assistant","content":"42"},"finish_reason":"stop"}"#;
    ([(CONTENT_TYPE, "application/json")], format!("{{\"id\":\"run-{run}\",\"choices\":[{choice}]}}\n"))
}

fn app() -> Result<Router, Box<dyn std::error::Error>> {
    // Authentication goes around it and sets a `Principal`; without one, whoever sends the same credentials is the same.
    let cache = CacheLayer::builder().json(JsonRoute::openai_chat("/v1/chat/completions")).build()?;
    let runs = Arc::new(AtomicU32::new(0));
    let chat = move || answer(runs.fetch_add(1, Relaxed) + 1);
    Ok(Router::new().route("/v1/chat/completions", post(chat)).layer(cache))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app()?).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    /// What `Cache-Status` says, and the answer.
    async fn ask(app: &Router, key: &str, question: &'static str) -> (String, String) {
        let request = Request::post("/v1/chat/completions").header("authorization", key);
        let request = request.header(CONTENT_TYPE, "application/json").body(Body::from(question)).expect("valid");
        let response = app.clone().oneshot(request).await.expect("infallible");
        let status = response.headers()["cache-status"].to_str().expect("text").to_owned();
        let answer = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8(answer.to_vec()).expect("text"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_repeated_question_is_answered_once_for_each_key() {
        let app = app().expect("valid");
        let (miss, first) = ask(&app, "Bearer alice", r#"{"temperature": 0, "messages": []}"#).await;
        assert_eq!(miss, "forebay; fwd=uri-miss; stored");
        assert!(first.contains("run-1"), "{first}");

        let before = tokio::time::Instant::now();
        let (hit, second) = ask(&app, "Bearer alice", r#"{"messages":[],"temperature":0}"#).await;
        assert!(hit.starts_with("forebay; hit; ttl="), "{hit}");
        assert_eq!(second, first, "the order of members is no other question");
        assert!(before.elapsed().is_zero(), "without the model");

        let (other, third) = ask(&app, "Bearer bob", r#"{"temperature": 0, "messages": []}"#).await;
        assert_eq!(other, "forebay; fwd=uri-miss; stored");
        assert!(third.contains("run-2"), "one run a key, and no answer of another's: {third}");
    }
}
