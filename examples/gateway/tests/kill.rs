//! `kill -9` of the gateway with a thousand accepted jobs: after a restart all of them finish, each with the model server's
//! own answer.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Http, ask, gateway};
use forebay_model_server::{ChatRequest, ModelServer, expected_body, serve};
use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const JOBS: usize = 1000;

fn job(i: usize) -> String {
    format!(r#"{{"model":"sim-7b","messages":[{{"role":"user","content":"job number {i}"}}]}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_accepted_jobs_survive_kill_9() {
    let settings = ModelServer::builder().slots(32).decode_tokens_per_second(400.0).build().expect("valid");
    let model = serve(TcpListener::bind("127.0.0.1:0").await.expect("a port"), settings, std::future::pending());
    let model = model.expect("a model server");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("gateway.toml");
    let file = folder.path().join("jobs.redb");
    let text = format!(
        "listen = \"127.0.0.1:0\"\naccess_log = false\njobs.file = {file:?}\njobs.concurrency = 32\n[[upstreams]]\nurl = {:?}\n",
        model.url()
    );
    std::fs::write(&config, text).expect("a temporary file");
    let http: Http = Client::builder(TokioExecutor::new()).build_http();

    let first = gateway(&config);
    let (at_once, mut accepted) = (Arc::new(Semaphore::new(64)), JoinSet::new());
    for i in 0..JOBS {
        let (http, url, at_once) = (http.clone(), first.url.clone(), Arc::clone(&at_once));
        accepted.spawn(async move {
            let _turn = at_once.acquire().await.expect("never closed");
            let request = Request::post(format!("{url}/v1/chat/completions"))
                .header("content-type", "application/json")
                .header("prefer", "respond-async")
                .body(Full::from(job(i)))
                .expect("valid");
            let answer = ask(&http, request).await;
            assert_eq!(answer.status(), 202, "{:?}", answer.body());
            (i, answer.headers()["location"].to_str().expect("ASCII").to_owned())
        });
    }
    let mut locations = Vec::new();
    while let Some(job) = accepted.join_next().await {
        locations.push(job.expect("accepted"));
    }
    drop(first); // kill -9
    let before = model.stats().completed;
    assert!(before < JOBS as u64, "some must still have been waiting when it was killed");

    let second = gateway(&config);
    let mut results = JoinSet::new();
    for (i, location) in locations {
        let (http, url, at_once) = (http.clone(), second.url.clone(), Arc::clone(&at_once));
        results.spawn(async move {
            let _turn = at_once.acquire().await.expect("never closed");
            let (path, token) = location.split_once('?').expect("a token");
            let expected = expected_body(&serde_json::from_str::<ChatRequest>(&job(i)).expect("a chat request"));
            loop {
                let request = Request::get(format!("{url}{path}/result?{token}"))
                    .header("prefer", "wait=30")
                    .body(Full::default())
                    .expect("valid");
                let answer = ask(&http, request).await;
                match answer.status().as_u16() {
                    202 => {}
                    200 => return assert_eq!(Some(answer.body()), expected.as_ref(), "job {i}"),
                    status => panic!("job {i}: {status} {:?}", answer.body()),
                }
            }
        });
    }
    let all = async {
        let mut finished = 0;
        while let Some(result) = results.join_next().await {
            result.expect("it finished");
            finished += 1;
        }
        finished
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(120), all).await.expect("all finish in time"), JOBS);
}
