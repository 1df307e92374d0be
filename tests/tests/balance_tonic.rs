//! The balancer over tonic channels: gRPC calls, unary and streaming, go to the endpoint with the least work, and count to
//! the end of their stream.

use std::time::Duration;

use forebay_balance::{Balance, BalanceHandle, Endpoint, OnFull};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus::Serving;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::HealthReporter;

/// Long enough for a slow machine; a test that needs it fails.
const LONG: Duration = Duration::from_secs(30);

/// A gRPC server, what changes the answers of its health service, and a channel to it.
async fn server() -> (HealthReporter, Channel) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("models", ServingStatus::Serving).await;
    let server = Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(server);
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("a URL");
    (reporter, endpoint.connect_lazy())
}

/// In flight, well ended and cancelled, of each endpoint.
fn counts(handle: &BalanceHandle) -> Vec<(u32, u64, u64)> {
    handle.snapshot().into_iter().map(|one| (one.in_flight, one.success, one.cancelled)).collect()
}

fn models() -> HealthCheckRequest {
    HealthCheckRequest { service: "models".into() }
}

#[tokio::test]
async fn r6_a_tonic_channel_is_an_endpoint_and_calls_count_to_the_end_of_their_stream() {
    let ((mut first, one), (mut second, two)) = (server().await, server().await);
    let (balance, handle) = Balance::builder()
        .endpoint(Endpoint::with_service("one", one).max_concurrency(2))
        .endpoint(Endpoint::with_service("two", two).max_concurrency(1))
        .on_full(OnFull::Reject)
        .build_with_handle()
        .expect("valid");
    let mut client = HealthClient::new(balance);

    for _ in 0..4 {
        let answer = timeout(LONG, client.check(models())).await.expect("in time").expect("an answer");
        assert_eq!(answer.into_inner().status(), Serving);
    }
    assert_eq!(counts(&handle), [(0, 2, 0), (0, 2, 0)], "in turn, and over with the answer");
    // An error in the head, without a body, is an answer like any other.
    let unknown = client.check(HealthCheckRequest { service: "nobody".into() }).await.expect_err("there is none");
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(counts(&handle).iter().all(|(in_flight, ..)| *in_flight == 0));
    assert_eq!(handle.snapshot().iter().map(|one| one.success).sum::<u64>(), 5);

    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = timeout(LONG, client.watch(models())).await.expect("in time").expect("a stream").into_inner();
        let status = timeout(LONG, stream.message()).await.expect("in time").expect("no error").expect("a first one");
        assert_eq!(status.status(), Serving);
        streams.push(stream);
    }
    let in_flight = |handle: &BalanceHandle| counts(handle).iter().map(|(now, ..)| *now).collect::<Vec<_>>();
    assert_eq!(in_flight(&handle), [2, 1], "a stream counts while it streams");
    let refused = client.check(models()).await.expect_err("all are full");
    assert!(refused.code() == Code::ResourceExhausted && refused.message().starts_with("at-capacity"), "{refused:?}");
    assert!(refused.metadata().contains_key("grpc-retry-pushback-ms"), "{refused:?}");
    assert_eq!(in_flight(&handle), [2, 1]);

    // One is left by its client, the others are ended by their servers.
    let before = counts(&handle);
    drop(streams.pop());
    let cancelled = |handle: &BalanceHandle| counts(handle).iter().map(|(.., cancelled)| *cancelled).sum::<u64>();
    assert_eq!((in_flight(&handle).iter().sum::<u32>(), cancelled(&handle)), (2, 1));
    first.clear_service_status("models").await;
    second.clear_service_status("models").await;
    for stream in &mut streams {
        let end = timeout(LONG, stream.message()).await.expect("in time").expect("no error");
        assert!(end.is_none(), "it has ended");
    }
    assert_eq!(in_flight(&handle), [0, 0], "at the end of the stream, while the client still holds it");
    let success = |counts: &[(u32, u64, u64)]| counts.iter().map(|(_, success, _)| *success).sum::<u64>();
    assert_eq!(success(&counts(&handle)), success(&before) + 2);
    drop(streams);
    assert_eq!(in_flight(&handle), [0, 0]);
}
