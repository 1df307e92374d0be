//! Large uploads that wait in the queue, unread, over the HTTP/2 connection of somebody who sends for many: the bodies of
//! others come through all the same.

use std::time::Duration;

use bytes::Bytes;
use forebay_core::Class;
use forebay_gateway::Config;
use forebay_model_server::ModelServer;
use forebay_tests::Stack;
use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;

type Http = Client<HttpConnector, Full<Bytes>>;

#[tokio::test]
async fn uploads_that_wait_do_not_keep_out_who_is_more_urgent() {
    const KEY: &str = "urgent-test-key";
    let slow = ModelServer::builder().model("sim-7b").decode_tokens_per_second(1.0).build().expect("valid");
    let text = format!("tiers.gold = 'p0'\n[[keys]]\ntenant = 'urgent'\ntier = 'gold'\nkey = '{KEY}'");
    let mut config = Config::parse(&text).expect("valid");
    (config.priority.limit, config.access_log) = (Some(1.into()), false);
    let stack = Stack::start(vec![slow], config).await;
    let http: Http = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let post = |path: &str, class: &str, body: Bytes| {
        let request = Request::post(format!("{}{path}", stack.url))
            .header("authorization", format!("Bearer {KEY}"))
            .header("x-priority", class)
            .header("content-type", if path == "/v1/files" { "application/octet-stream" } else { "application/json" });
        http.request(request.body(Full::new(body)).expect("valid"))
    };
    let ask = Bytes::from_static(
        br#"{"model":"sim-7b","max_tokens":500,"stream":true,"messages":[{"role":"user","content":"?"}]}"#,
    );
    let waits = |class: Class, count: usize| {
        let priority = stack.gateway.priority();
        async move {
            let waiting = || priority.snapshot().classes[class.index()].waiting;
            let came = tokio::time::timeout(Duration::from_secs(10), async {
                while waiting() < count {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
            assert!(came.await.is_ok(), "{} of {count} wait in {class}", waiting());
        }
    };
    // The only seat, for minutes.
    let held = post("/v1/chat/completions", "p0", ask.clone()).await.expect("an answer");
    let mut uploads = JoinSet::new();
    for _ in 0..10 {
        uploads.spawn(post("/v1/files", "p3", vec![0; 3 << 20].into()));
    }
    waits(Class::P3, 10).await;
    let mut urgent = JoinSet::new();
    urgent.spawn(post("/v1/chat/completions", "p0", ask));
    waits(Class::P0, 1).await; // its body was read, as the cache wants it, over the same connection
    drop((held, uploads, urgent));
}
