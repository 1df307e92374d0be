//! SIGHUP changes the upstreams of a running gateway, and no request is dropped.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use common::{Http, ask, gateway};
use forebay_model_server::{Handle, ModelServer, serve};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(60);

async fn model() -> Handle {
    let settings = ModelServer::builder().slots(64).decode_tokens_per_second(200.0).build().expect("valid");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    serve(listener, settings, std::future::pending()).expect("a model server")
}

fn chat(url: &str, stream: bool, i: u64, tokens: u32) -> Request<Full<bytes::Bytes>> {
    let text = format!(
        r#"{{"model":"sim-7b","stream":{stream},"max_tokens":{tokens},"min_tokens":{tokens},"ignore_eos":true,"messages":[{{"role":"user","content":"{i}"}}]}}"#
    );
    let request = Request::post(format!("{url}/v1/chat/completions")).header("content-type", "application/json");
    request.body(Full::from(text)).expect("valid")
}

async fn until(what: impl Fn() -> bool) {
    timeout(LONG, async {
        while !what() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn r50_upstreams_change_on_sighup_and_no_request_is_dropped() {
    let (old, new) = (model().await, model().await);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (config, jobs) = (folder.path().join("gateway.toml"), folder.path().join("jobs.redb"));
    let write = |upstreams: &str| {
        let text = format!("listen = \"127.0.0.1:0\"\naccess_log = false\njobs.file = {jobs:?}\n{upstreams}");
        std::fs::write(&config, text).expect("a temporary file");
    };
    let upstream = |url: &str| format!("[[upstreams]]\nurl = {url:?}\n");
    write(&upstream(&old.url()));
    let process = gateway(&config);
    let http: Http = Client::builder(TokioExecutor::new()).build_http();

    // A stream that began at the old one, and a flood of short requests.
    let mut stream = http.request(chat(&process.url, true, 0, 400)).await.expect("an answer").into_body();
    stream.frame().await.expect("a first frame").expect("whole");
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(1)));
    let flood: Vec<_> = (0..4)
        .map(|_| {
            let (http, url) = (http.clone(), process.url.clone());
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            tokio::spawn(async move {
                while !stop.load(SeqCst) {
                    let answer = ask(&http, chat(&url, false, answered.fetch_add(1, SeqCst), 1)).await;
                    assert_eq!(answer.status(), 200, "{:?}", answer.body());
                }
            })
        })
        .collect();
    until(|| old.stats().completed >= 20).await;

    // What cannot be used changes nothing.
    write("[[upstreams]]\nurl = \"ftp://nobody\"\n");
    process.signal("HUP");
    let before = old.stats().completed;
    until(|| old.stats().completed >= before + 20).await;
    assert_eq!(new.stats().received, 0);

    write(&upstream(&new.url()));
    process.signal("HUP");
    until(|| new.stats().completed >= 20).await;
    let last = old.stats().received;
    until(|| new.stats().completed >= 60).await;
    assert_eq!(old.stats().received, last, "nothing more goes to the old one");

    let rest = timeout(LONG, stream.collect()).await.expect("in time").expect("the stream is whole").to_bytes();
    assert!(rest.ends_with(b"data: [DONE]\n\n"));
    stop.store(true, SeqCst);
    for caller in flood {
        caller.await.expect("every request was answered");
    }
    assert_eq!(old.stats().cancelled + new.stats().cancelled, 0);
}
