//! The official OpenAI SDKs, unmodified, are served by the model server: chat, streams, embeddings, models, errors, and
//! a client that leaves.

use forebay_model_server::{ModelServer, serve};
use tokio::net::TcpListener;

async fn check(mut sdk: std::process::Command) {
    let config = ModelServer::builder().model("sim-7b").decode_tokens_per_second(500.0).build().expect("valid");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let server = serve(listener, config, std::future::pending()).expect("a server");
    sdk.args([server.url().as_str(), "any-key", "sim-7b"]);
    let output = tokio::task::spawn_blocking(move || sdk.output()).await.expect("no panic").expect("it starts");
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{text}");
    // The one who left in mid-stream took its work along.
    tokio::time::timeout(std::time::Duration::from_secs(5), async {
        while server.stats().running > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("no slot is held once the clients are gone");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_is_served() {
    check(forebay_tests::python_sdk()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_sdk_is_served() {
    check(forebay_tests::node_sdk()).await;
}
