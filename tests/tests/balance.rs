//! The balancer in the gateway's stack: pools of a class's own, sessions that stay together, servers that load.

use std::time::Duration;

use bytes::Bytes;
use forebay_gateway::{Config, Gateway, PinTo, Upstream};
use forebay_model_server::{Handle, ModelServer, serve};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;

type Http = Client<HttpConnector, Full<Bytes>>;

/// Long enough for a slow machine; a test that needs it fails.
const LONG: Duration = Duration::from_secs(30);

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

async fn model(slots: u32) -> Handle {
    let model =
        ModelServer::builder().model("sim-7b").slots(slots as _).decode_tokens_per_second(50.0).build().expect("valid");
    serve(listener().await, model, std::future::pending()).expect("a model server")
}

/// A gateway for `config`, its URL, and what stops it when dropped.
async fn gateway(mut config: Config) -> (Gateway, String, oneshot::Sender<()>, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    config.jobs.file = folder.path().join("jobs.redb");
    config.access_log = false;
    let gateway = Gateway::new(&config).await.expect("a valid configuration");
    let listener = listener().await;
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(gateway.clone().serve(listener, async {
        let _ = stopped.await;
    }));
    (gateway, url, stop, folder)
}

fn chat(url: &str, key: &str, session: &str, tokens: u32) -> Request<Full<Bytes>> {
    let body = format!(
        r#"{{"model":"sim-7b","stream":true,"max_tokens":{tokens},"min_tokens":{tokens},"ignore_eos":true,"messages":[{{"role":"user","content":"x"}}]}}"#
    );
    Request::post(format!("{url}/v1/chat/completions"))
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {key}"))
        .header("x-session-id", session)
        .body(Full::from(body))
        .expect("valid")
}

async fn ask(http: &Http, request: Request<Full<Bytes>>) -> Response<hyper::body::Incoming> {
    timeout(LONG, http.request(request)).await.expect("in time").expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn r43_p0_finds_its_place_while_the_shared_pool_is_full() {
    let (shared, own) = (model(2).await, model(2).await);
    let mut config: Config = toml::from_str(
        r#"
        tiers = { enterprise = "p0", trial = "p3" }
        [[keys]]
        tenant = "acme"
        tier = "enterprise"
        key = "enterprise-key"
        [[keys]]
        tenant = "visitor"
        tier = "trial"
        key = "trial-key-1"
        [balance.routes]
        p0 = ["dedicated", "default"]
        "#,
    )
    .expect("valid");
    let mut upstream = Upstream::new(shared.url(), 1);
    upstream.max_concurrency = Some(2);
    config.upstreams.push(upstream.clone());
    upstream.url = own.url();
    upstream.pool = Some("dedicated".to_owned());
    config.upstreams.push(upstream);
    let (gateway, url, _stop, _folder) = gateway(config).await;
    let http: Http = Client::builder(TokioExecutor::new()).build_http();

    let mut trials = Vec::new();
    for _ in 0..2 {
        trials.push(ask(&http, chat(&url, "trial-key-1", "a", 500)).await);
    }
    // The third of the trial tier waits, though the dedicated one is idle.
    let third = tokio::spawn({
        let (http, url) = (http.clone(), url.clone());
        async move { ask(&http, chat(&url, "trial-key-1", "a", 1)).await.status() }
    });
    let mut enterprise = ask(&http, chat(&url, "enterprise-key", "b", 5)).await;
    assert_eq!((enterprise.status().as_u16(), own.stats().started), (200, 1));
    while let Some(frame) = enterprise.body_mut().frame().await {
        frame.expect("whole");
    }
    assert_eq!((own.stats().started, own.stats().received), (1, 1), "nobody else enters");
    assert_eq!(gateway.balance().pools().len(), 2);
    drop(trials);
    assert_eq!(third.await.expect("no panic"), 200, "a trial place came free");
}

#[tokio::test(flavor = "multi_thread")]
async fn r37_a_session_stays_with_its_group_and_idle_servers_are_checked() {
    let servers = [model(64).await, model(64).await, model(64).await, model(64).await];
    let mut config = Config::default();
    config.priority.limit = Some(64.into());
    config.balance.pin = Some(PinTo::Group);
    config.balance.health_path = Some("/health".to_owned());
    config.balance.metrics_path = Some("/metrics".to_owned());
    for (index, server) in servers.iter().enumerate() {
        let mut upstream = Upstream::new(server.url(), 1);
        upstream.group = Some(format!("machine-{}", index / 2));
        config.upstreams.push(upstream);
    }
    let (gateway, url, _stop, _folder) = gateway(config).await;
    timeout(LONG, async {
        while gateway.balance().replicas("default").expect("a pool").ready < 4 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("all are checked and up");
    let http: Http = Client::builder(TokioExecutor::new()).build_http();
    for session in ["a", "b", "c", "d"] {
        let before = servers.each_ref().map(|server| server.stats().started);
        let mut held = Vec::new();
        for _ in 0..6 {
            held.push(ask(&http, chat(&url, "none", session, 300)).await);
        }
        let after = servers.each_ref().map(|server| server.stats().started);
        let new: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        assert!(new[..2].iter().sum::<u64>() == 6 || new[2..].iter().sum::<u64>() == 6, "{session}: {new:?}");
        assert!(new.iter().filter(|new| **new == 3).count() == 2, "inside the group by load: {new:?}");
        drop(held);
    }
}
