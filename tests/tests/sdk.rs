//! The official OpenAI SDKs, unmodified, through the gateway: chat, streams, embeddings, models, errors, a full house with
//! the SDK's own retry, timeouts, and a client that leaves.

use std::time::Duration;

use forebay_gateway::Config;
use forebay_model_server::ModelServer;
use forebay_tests::Stack;

const KEY: &str = "sdk-test-key";

async fn check(script: Option<&str>, mut sdk: std::process::Command, seats: usize) {
    let model = || ModelServer::builder().model("sim-7b").decode_tokens_per_second(500.0).build().expect("valid");
    // A full house says so after half a second: the scripts do not wait for longer.
    let text = format!(
        "tiers.gold = 'p0'\n[[keys]]\ntenant = 'sdk'\ntier = 'gold'\nkey = '{KEY}'\n[priority.classes.p0]\n\
         queue_timeout_seconds = 0.5\npatience_seats = 0"
    );
    let mut config = Config::parse(&text).expect("valid");
    config.priority.limit = Some(seats.into());
    let stack = Stack::start(vec![model(), model(), model()], config).await;
    if let Some(script) = script {
        sdk = std::process::Command::new(sdk.get_program());
        sdk.arg(forebay_tests::sdk().join(script));
    }
    sdk.args([stack.url.as_str(), KEY, "sim-7b"]);
    let output = tokio::task::spawn_blocking(move || sdk.output()).await.expect("no panic").expect("it starts");
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{text}");
    // Whoever left in mid-stream took the work along, in the gateway and behind it.
    tokio::time::timeout(Duration::from_secs(5), async {
        let held = || stack.gateway.priority().snapshot().classes.iter().any(|class| class.in_flight > 0);
        while held() || stack.servers.iter().any(|server| server.stats().running > 0) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .expect("no seat and no slot is held once the clients are gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_is_served() {
    check(None, forebay_tests::python_sdk(), 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_sdk_is_served() {
    check(None, forebay_tests::node_sdk(), 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_house_is_a_429_that_the_sdk_retries() {
    check(Some("busy.py"), forebay_tests::python_sdk(), 1).await;
}
