//! Jobs through the real gateway: those of a tenant that hang at the backend hold up nothing but the tenant's own.

use std::time::Duration;

use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use forebay_gateway::{Config, Upstream};
use forebay_tests::Stack;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::time::Instant;

const KEYS: &str = r#"
    access_log = false
    tiers = { enterprise = "p0", trial = "p3" }
    [[keys]]
    tenant = "acme"
    tier = "enterprise"
    key = "enterprise-key"
    [[keys]]
    tenant = "joe"
    tier = "trial"
    key = "trial-key-1"
    [[keys]]
    tenant = "eve"
    tier = "trial"
    key = "trial-key-2"
"#;

/// Starts an upstream that never answers at `/v1/hang`, and at once at `/v1/x`.
async fn upstream() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let routes = Router::new()
        .route("/v1/hang", post(|| async { std::future::pending::<()>().await }))
        .route("/v1/x", post(|| async { "done" }));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}

/// A tenant's client.
struct Tenant<'a> {
    stack: &'a Stack,
    http: Client<HttpConnector, Full<Bytes>>,
    key: &'static str,
}

impl<'a> Tenant<'a> {
    fn new(stack: &'a Stack, key: &'static str) -> Self {
        Self { stack, http: Client::builder(TokioExecutor::new()).build_http(), key }
    }

    async fn ask(&self, method: Method, target: &str, prefer: &str) -> (http::response::Parts, Bytes) {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{target}", self.stack.url))
            .header("authorization", format!("Bearer {}", self.key))
            .header("prefer", prefer)
            .body(Full::default())
            .expect("valid");
        let (head, body) = self.http.request(request).await.expect("an answer").into_parts();
        (head, body.collect().await.expect("a whole body").to_bytes())
    }

    /// Sends a request that becomes a job; returns where the job is.
    async fn send(&self, path: &str) -> String {
        let (head, body) = self.ask(Method::POST, path, "respond-async").await;
        assert_eq!(head.status, StatusCode::ACCEPTED, "{body:?}");
        head.headers["location"].to_str().expect("ASCII").to_owned()
    }

    /// Returns the state of a job, at the latest after so many seconds or once it has ended.
    async fn state(&self, job: &str, seconds: u32) -> String {
        let (_, body) = self.ask(Method::GET, job, &format!("wait={seconds}")).await;
        let status: serde_json::Value = serde_json::from_slice(&body).expect("a status document");
        status["state"].as_str().expect("a state").to_owned()
    }
}

async fn stack(jobs: &str) -> Stack {
    let mut config = Config::parse(&format!("{KEYS}\n[jobs]\n{jobs}\n")).expect("valid");
    config.upstreams.push(Upstream::new(upstream().await, 1));
    Stack::start(Vec::new(), config).await
}

#[tokio::test(flavor = "multi_thread")]
async fn hung_jobs_of_a_trial_tenant_hold_up_no_other_tenant() {
    let stack = stack("").await;
    let [acme, joe, eve] = ["enterprise-key", "trial-key-1", "trial-key-2"].map(|key| Tenant::new(&stack, key));
    let mut hung = Vec::new();
    for _ in 0..16 {
        hung.push(joe.send("/v1/hang").await);
    }
    // Due after all of joe's: without a bound for joe it would find no slot.
    let others = eve.send("/v1/x").await;
    assert_eq!(eve.state(&others, 10).await, "completed");
    let sent = Instant::now();
    let urgent = acme.send("/v1/x").await;
    assert_eq!(acme.state(&urgent, 10).await, "completed");
    assert!(sent.elapsed() < Duration::from_secs(5), "after {:?}", sent.elapsed());
    let mut states = Vec::new();
    for job in &hung {
        states.push(joe.state(job, 0).await);
    }
    assert_eq!(states.iter().filter(|state| *state == "running").count(), 8, "{states:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_attempt_timeout_of_a_class_and_the_share_of_a_tenant_are_settings() {
    let stack = stack("max_tenant_share = 0.05\nattempt_timeout_seconds = { p3 = 1 }").await;
    let joe = Tenant::new(&stack, "trial-key-1");
    let sent = Instant::now();
    let (_hung, next) = (joe.send("/v1/hang").await, joe.send("/v1/x").await);
    assert_eq!(joe.state(&next, 0).await, "queued", "one slot of sixteen is joe's");
    assert_eq!(joe.state(&next, 10).await, "completed");
    assert!(sent.elapsed() >= Duration::from_secs(1), "after {:?}", sent.elapsed());
}
