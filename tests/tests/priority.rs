//! The priority layer in real servers: axum and tonic take it as it is, and callers whose connection breaks while they
//! wait leave nothing behind.

use std::time::Duration;

use axum::{Router, routing::post};
use bytes::Bytes;
use forebay_core::{Class, RequestHead};
use forebay_priority::{Order, PriorityConfig, PriorityHandle, PriorityLayer, QueueLength};
use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tower::Layer as _;

/// One seat, long queues.
fn one_seat() -> (PriorityLayer, PriorityHandle) {
    let mut config = PriorityConfig::four_class(1);
    for class in &mut config.classes {
        (class.queue, class.queue_timeout) = (QueueLength::Fixed(1000), Duration::from_secs(60));
        (class.reserved, class.order) = (0.0, Order::Fifo);
    }
    let classify = |head: &RequestHead<'_>| if head.headers.contains_key("x-urgent") { Class::P0 } else { Class::P3 };
    PriorityLayer::builder().config(config).classify(classify).build_with_handle().expect("valid")
}

/// Waits until `holds`; for at most ten seconds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(tokio::time::Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn waiting(handle: &PriorityHandle) -> usize {
    handle.snapshot().classes.iter().map(|class| class.waiting).sum()
}

/// An axum server behind one seat, whose answers wait for `gate`.
async fn axum_server(gate: std::sync::Arc<Notify>) -> (String, PriorityHandle) {
    let (layer, handle) = one_seat();
    let answer = move |body: Bytes| {
        let gate = std::sync::Arc::clone(&gate);
        async move {
            gate.notified().await;
            body
        }
    };
    let app = Router::new().route("/", post(answer)).layer(layer);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async { axum::serve(listener, app).await });
    (address, handle)
}

#[tokio::test]
async fn http1_and_http2_callers_that_break_off_while_queued_leave_nothing_behind() {
    let gate = std::sync::Arc::new(Notify::new());
    let (address, handle) = axum_server(std::sync::Arc::clone(&gate)).await;
    let first = TcpStream::connect(&address).await.expect("it listens");
    let text = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi";
    let mut first = first;
    first.write_all(text).await.expect("sent");
    until("the first has the seat", || handle.snapshot().classes[3].in_flight == 1).await;

    // HTTP/1.1, in the queue; some close, some reset.
    let mut crowd = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(&address).await.expect("it listens");
        stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await.expect("sent");
        crowd.push(stream);
    }
    until("twenty wait", || waiting(&handle) == 20).await;
    for (i, stream) in crowd.into_iter().enumerate() {
        if i % 2 == 0 {
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket");
        }
        drop(stream);
    }
    until("nobody waits any more", || waiting(&handle) == 0).await;

    // HTTP/2: one connection, twenty streams, all reset.
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let request = Request::post(format!("http://{address}/")).body(Full::default()).expect("valid");
        streams.spawn(client.request(request));
    }
    until("twenty streams wait", || waiting(&handle) == 20).await;
    streams.shutdown().await;
    until("no stream waits any more", || waiting(&handle) == 0).await;

    let counts = handle.snapshot().classes[3];
    assert_eq!((counts.admitted, counts.cancelled), (1, 40), "the backend saw the first alone");
    drop(first);
    gate.notify_waiters();
    until("the seat is free", || handle.snapshot().classes[3].in_flight == 0).await;
}

#[tokio::test]
async fn a_body_is_not_asked_for_while_its_request_waits() {
    let gate = std::sync::Arc::new(Notify::new());
    let (address, handle) = axum_server(std::sync::Arc::clone(&gate)).await;
    let mut holder = TcpStream::connect(&address).await.expect("it listens");
    holder.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await.expect("sent");
    until("the seat is taken", || handle.snapshot().classes[3].in_flight == 1).await;
    let mut polite = TcpStream::connect(&address).await.expect("it listens");
    let head = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    polite.write_all(head).await.expect("sent");
    until("it waits", || waiting(&handle) == 1).await;
    let mut answer = [0; 64];
    let early = tokio::time::timeout(Duration::from_millis(50), polite.readable()).await;
    assert!(early.is_err(), "no `100 Continue` for a body that nobody will read yet");
    gate.notify_one();
    polite.readable().await.expect("open");
    let read = polite.try_read(&mut answer).expect("some bytes");
    assert!(answer[..read].starts_with(b"HTTP/1.1 100 Continue"), "{:?}", String::from_utf8_lossy(&answer[..read]));
    polite.write_all(b"hello").await.expect("sent");
    until("it runs", || handle.snapshot().classes[3].in_flight == 1).await;
    gate.notify_one();
    until("all done", || handle.snapshot().classes[3].in_flight == 0).await;
}

#[tokio::test]
async fn tonic_takes_the_layer_as_it_is() {
    let (layer, handle) = one_seat();
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("models", tonic_health::ServingStatus::Serving).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = tonic::transport::Server::builder().layer(layer).add_service(service).serve_with_incoming(incoming);
    tokio::spawn(server);
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("a URL").connect().await;
    let mut client = tonic_health::pb::health_client::HealthClient::new(channel.expect("it listens"));
    let ask = || tonic_health::pb::HealthCheckRequest { service: "models".into() };
    let answer = client.check(ask()).await.expect("an answer").into_inner();
    assert_eq!(answer.status(), tonic_health::pb::health_check_response::ServingStatus::Serving);

    // A stream holds its seat until it ends; whoever comes meanwhile and is in a hurry is told.
    let watch = client.watch(ask()).await.expect("a stream").into_inner();
    assert_eq!(handle.snapshot().classes[3].in_flight, 1);
    let mut hurried = tonic::Request::new(ask());
    hurried.set_timeout(Duration::from_millis(50));
    assert!(client.check(hurried).await.is_err());
    // Who does not find a place is refused in gRPC, not in HTTP.
    handle.update_class(Class::P3, |class| class.queue = QueueLength::Fixed(0)).expect("a legal change");
    let refused = client.check(ask()).await.expect_err("there is no queue");
    assert!(refused.code() == tonic::Code::ResourceExhausted, "{refused:?}");
    assert!(refused.message().starts_with("queue-full: "), "{refused:?}");
    assert!(refused.metadata().contains_key("grpc-retry-pushback-ms"), "{refused:?}");
    handle.update_class(Class::P3, |class| class.queue = QueueLength::Fixed(1000)).expect("a legal change");
    drop(watch);
    until("the stream is gone", || handle.snapshot().classes[3].in_flight == 0).await;
    assert_eq!(client.check(ask()).await.expect("an answer").into_inner().status(), answer.status());
    until("all done", || handle.snapshot().classes.iter().all(|class| class.in_flight == 0 && class.waiting == 0))
        .await;
}

#[test]
fn what_is_public_is_send_sync_and_clone_where_it_should_be() {
    fn all<T: Send + Sync + Clone + 'static>() {}
    fn sent<T: Send + 'static>(_: T) {}
    all::<PriorityLayer>();
    all::<PriorityHandle>();
    all::<forebay_priority::Admission>();
    let (layer, handle) = one_seat();
    let service = layer.layer(tower::service_fn(|_: Request<()>| async {
        Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::new())))
    }));
    sent(tower::ServiceExt::oneshot(service, Request::new(())));
    sent(handle.admission().acquire(forebay_priority::Ask::new(Class::P0)));
    sent(handle.drain());
}
