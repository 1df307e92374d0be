//! Requests that an HTTP/2 server says it did not process are sent again, elsewhere or on a new connection: none is
//! lost, none runs twice.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use forebay_core::testing::{Scripted, Step};
use forebay_core::{BoxError, Deadline, ReqBody};
use h2::server::{SendResponse, handshake};
use h2::{Reason, RecvStream};
use http::{Request, Response};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::ServiceExt as _;

mod http2_kit;
mod http_kit;
use http_kit::{LONG, balance, get, idle, soon};
use http2_kit::{DATA, NO_ERROR, REFUSED_STREAM, SETTINGS};

/// `SETTINGS_MAX_CONCURRENT_STREAMS` is 1: RFC 9113, section 6.5.2.
const MAX_ONE_STREAM: &[u8] = &[0, 3, 0, 0, 0, 1];

/// What servers have begun to process: how often each path.
type Processed = Arc<Mutex<HashMap<String, usize>>>;

/// A server that refuses each stream once it has read `after` of its body; how many it refused.
async fn refusing(after: usize) -> (String, Arc<AtomicUsize>) {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let url = listen(move |stream| {
        let count = Arc::clone(&count);
        async move {
            let mut connection = handshake(stream).await.expect("a client");
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    let (mut body, mut read) = (request.into_body(), 0);
                    while read < after {
                        let Some(Ok(data)) = body.data().await else { return };
                        read += data.len();
                    }
                    count.fetch_add(1, SeqCst);
                    respond.send_reset(Reason::REFUSED_STREAM);
                });
            }
        }
    })
    .await;
    (url, refused)
}

/// A server that answers with the body that it got. It shuts a connection down, as h2 does, after so many requests.
async fn echoing(processed: &Processed, last: usize) -> String {
    let processed = Arc::clone(processed);
    listen(move |stream| {
        let processed = Arc::clone(&processed);
        async move {
            // Whoever closes a socket with something unread in it takes back what he has sent (TCP's reset), the GOAWAY
            // too: so it stays open until the client is gone.
            let stream = stream.into_std().expect("a socket");
            let mut rest = TcpStream::from_std(stream.try_clone().expect("a socket")).expect("a socket");
            let mut connection = handshake(TcpStream::from_std(stream).expect("a socket")).await.expect("a client");
            let mut count = 0;
            while let Some(Ok((request, respond))) = connection.accept().await {
                *processed.lock().expect("no panic").entry(request.uri().path().to_owned()).or_default() += 1;
                tokio::spawn(echo(request, respond));
                count += 1;
                if count == last {
                    connection.graceful_shutdown();
                }
            }
            drop(connection);
            while rest.read_u8().await.is_ok() {}
        }
    })
    .await
}

async fn echo(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut body = request.into_body();
    let mut all = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        all.extend_from_slice(&data);
    }
    if let Ok(mut send) = respond.send_response(Response::default(), false) {
        let _ = send.send_data(all.into(), true);
    }
}

async fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    url
}

fn post<B: Body<Data = Bytes> + Send + 'static>(path: &str, body: B) -> Request<UnsyncBoxBody<Bytes, io::Error>>
where
    B::Error: Into<BoxError>,
{
    Request::post(path).body(body.map_err(io::Error::other).boxed_unsync()).expect("valid")
}

fn once(processed: &Processed, count: usize) {
    let processed = processed.lock().expect("no panic");
    assert_eq!(processed.len(), count, "none lost");
    assert!(processed.values().all(|times| *times == 1), "none doubled: {processed:?}");
}

#[tokio::test]
async fn r45_a_refused_stream_is_served_elsewhere_if_its_body_is_empty_or_buffered() {
    for after in [0, 1] {
        let (processed, (bad, refused)) = (Processed::default(), refusing(after).await);
        let good = echoing(&processed, usize::MAX).await;
        let (balance, handle) = balance(&[(&bad, 9), (&good, 1)], true);
        let mut calls = JoinSet::new();
        for i in 0..40 {
            let text = if after == 0 && i % 2 == 0 { String::new() } else { format!("body {i}") };
            let sent = if i % 4 == 1 {
                post(&format!("/{i}"), ReqBody::<Full<Bytes>>::buffered(text.clone()))
            } else {
                post(&format!("/{i}"), Full::new(Bytes::from(text.clone())))
            };
            let call = balance.clone().oneshot(sent);
            calls.spawn(async move {
                let response = soon(call).await.expect("elsewhere");
                let body = soon(response.into_body().collect()).await.expect("whole").to_bytes();
                assert_eq!(body, text, "the body is sent again as it was");
            });
        }
        while let Some(call) = calls.join_next().await {
            call.expect("no panic");
        }
        once(&processed, 40);
        assert!(refused.load(SeqCst) > 0);
        idle(&handle).await;
        let first = handle.snapshot().swap_remove(0);
        assert_eq!((first.overload, first.error), (refused.load(SeqCst) as u64, 0), "busy is not broken");
        assert_eq!(handle.snapshot()[1].success, 40);
    }
}

#[tokio::test]
async fn r45_a_refused_stream_whose_body_streams_fails_as_it_did() {
    let (processed, (bad, refused)) = (Processed::default(), refusing(2).await);
    let good = echoing(&processed, usize::MAX).await;
    let (balance, handle) = balance(&[(&bad, 9), (&good, 1)], true);
    let body = Scripted::new([Step::Data("a".into()), Step::Pending, Step::Data("b".into())]);
    let error = soon(balance.clone().oneshot(post("/1", body))).await.expect_err("it cannot be sent again");
    assert_eq!((error.status().as_u16(), error.is_connect()), (502, false));
    let longest = vec![0; (1 << 20) + 1];
    soon(balance.oneshot(post("/2", Full::from(longest)))).await.expect_err("too long to be kept");
    once(&processed, 0);
    assert_eq!(refused.load(SeqCst), 2);
    idle(&handle).await;
}

#[tokio::test]
async fn r45_three_endpoints_are_tried_and_then_it_is_an_error() {
    let mut servers = Vec::new();
    for _ in 0..5 {
        servers.push(refusing(0).await);
    }
    let urls: Vec<_> = servers.iter().map(|(url, _)| (&**url, 1)).collect();
    let (balance, handle) = balance(&urls, true);
    let error = soon(balance.oneshot(get("/"))).await.expect_err("all refuse");
    assert_eq!(error.to_string(), "the upstream refused the request before it worked on it");
    assert_eq!((error.status().as_u16(), error.is_connect(), error.is_timeout()), (502, false, false));
    assert_eq!(servers.iter().map(|(_, refused)| refused.load(SeqCst)).sum::<usize>(), 3);
    assert!(servers.iter().all(|(_, refused)| refused.load(SeqCst) <= 1));
    idle(&handle).await;
}

#[tokio::test]
async fn r45_what_is_above_the_last_stream_of_a_goaway_goes_to_a_new_connection_and_the_rest_ends() {
    for body in ["", "a body"] {
        let processed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&processed);
        let (url, connections) = http2_kit::server(move |mut connection, number| {
            let count = Arc::clone(&count);
            async move {
                if number > 0 {
                    while let Some(stream) = connection.request().await {
                        count.fetch_add(1, SeqCst);
                        connection.answer(stream).await;
                    }
                    return;
                }
                let mut streams = Vec::new();
                for _ in 0..20 {
                    streams.push(connection.request().await.expect("twenty at once"));
                }
                connection.go_away(streams[3], NO_ERROR).await;
                for stream in &streams[..4] {
                    count.fetch_add(1, SeqCst);
                    connection.answer(*stream).await;
                }
                while connection.next().await.is_some() {}
            }
        })
        .await;
        let (balance, handle) = balance(&[(&url, 1)], true);
        let mut calls = JoinSet::new();
        for i in 0..20 {
            calls.spawn(soon(balance.clone().oneshot(post(&format!("/{i}"), Full::from(body)))));
        }
        while let Some(call) = calls.join_next().await {
            let response = call.expect("no panic").expect("none is lost");
            assert_eq!(http2_kit::text(response).await, "ok");
        }
        assert_eq!((processed.load(SeqCst), connections.load(SeqCst)), (20, 2), "none is doubled");
        idle(&handle).await;
        assert_eq!((handle.snapshot()[0].success, handle.snapshot()[0].error), (20, 0), "it only closed a connection");
    }
}

#[tokio::test]
async fn r45_a_server_that_goes_away_from_each_connection_is_tried_twice_and_others_once() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let (url, connections) = http2_kit::server(move |mut connection, number| {
        let count = Arc::clone(&count);
        async move {
            if number == 0 {
                let first = connection.request().await.expect("a request");
                connection.answer(first).await;
            }
            while let Some(stream) = connection.request().await {
                count.fetch_add(1, SeqCst);
                connection.go_away(stream - 1, NO_ERROR).await;
            }
        }
    })
    .await;
    let (balance, handle) = balance(&[(&url, 1)], true);
    let response = soon(balance.clone().oneshot(get("/"))).await.expect("the first is served");
    http2_kit::text(response).await;
    let error = soon(balance.oneshot(get("/"))).await.expect_err("nobody else is there");
    assert_eq!(error.to_string(), "the upstream closed the connection before it took the request");
    assert_eq!((seen.load(SeqCst), connections.load(SeqCst)), (2, 2), "on the shared connection, and on a fresh one");
    idle(&handle).await;
    assert_eq!((handle.snapshot()[0].success, handle.snapshot()[0].error), (1, 1));
}

#[tokio::test]
async fn r45_a_body_that_is_half_sent_when_the_server_goes_away_is_an_error() {
    let (url, _) = http2_kit::server(|mut connection, number| async move {
        assert_eq!(number, 0, "it is not sent again");
        let stream = connection.request().await.expect("a request");
        while connection.next().await.expect("a part of its body").0 != DATA {}
        connection.go_away(stream - 1, NO_ERROR).await;
        while connection.next().await.is_some() {}
    })
    .await;
    let (good, others) = http2_kit::good().await;
    let (balance, handle) = balance(&[(&url, 9), (&good, 1)], true);
    // Its second part never comes: the answer does not wait for it.
    let body = http_body_util::StreamBody::new(Half(Some(Bytes::from_static(b"half"))));
    let mut request = post("/", body);
    request.extensions_mut().insert(Deadline::after(Instant::now().into_std(), LONG));
    let error = soon(balance.oneshot(request)).await.expect_err("it cannot be sent again");
    assert_eq!((error.status().as_u16(), others.load(SeqCst)), (502, 0));
    idle(&handle).await;
}

/// Nothing of it has come when the server says no: it waits for nobody, and goes along as it is.
#[tokio::test]
async fn r45_a_body_that_has_not_begun_goes_elsewhere_unread() {
    for goaway in [false, true] {
        let (url, _) = http2_kit::server(move |mut connection, _| async move {
            while let Some(stream) = connection.request().await {
                if goaway {
                    connection.go_away(stream - 1, NO_ERROR).await;
                } else {
                    connection.cancel(stream, REFUSED_STREAM).await;
                }
            }
        })
        .await;
        let (good, others) = http2_kit::good().await;
        let (balance, handle) = balance(&[(&url, 9), (&good, 1)], true);
        let response = soon(balance.oneshot(post("/", http_body_util::StreamBody::new(Half(None))))).await;
        assert_eq!(http2_kit::text(response.expect("elsewhere")).await, "ok");
        assert_eq!(others.load(SeqCst), 1);
        idle(&handle).await;
    }
}

/// One part of a body, of which the rest never comes.
struct Half(Option<Bytes>);

impl futures_core::Stream for Half {
    type Item = Result<http_body::Frame<Bytes>, BoxError>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0
            .take()
            .map_or(std::task::Poll::Pending, |part| std::task::Poll::Ready(Some(Ok(http_body::Frame::data(part)))))
    }
}

/// The limit that the guide names: hyper does not say what became of the one request that waits for a free stream.
#[tokio::test]
async fn r45_at_most_one_request_that_waits_for_a_stream_is_an_error_and_none_runs_twice() {
    let (processed, asked, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let shared = (Arc::clone(&processed), Arc::clone(&asked), Arc::clone(&go));
    let (url, _) = http2_kit::server(move |mut connection, number| {
        let (processed, asked, go) = shared.clone();
        async move {
            if number == 0 {
                connection.send(SETTINGS, 0, 0, MAX_ONE_STREAM).await;
                for last in [false, true] {
                    let stream = connection.request().await.expect("a request");
                    processed.fetch_add(1, SeqCst);
                    if last {
                        asked.notify_one();
                        go.notified().await;
                        connection.go_away(stream, NO_ERROR).await;
                    }
                    connection.answer(stream).await;
                }
            }
            while let Some(stream) = connection.request().await {
                processed.fetch_add(1, SeqCst);
                connection.answer(stream).await;
            }
        }
    })
    .await;
    let (balance, handle) = balance(&[(&url, 1)], true);
    http2_kit::text(soon(balance.clone().oneshot(get("/"))).await.expect("the first")).await;
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        calls.spawn(soon(balance.clone().oneshot(get("/"))));
    }
    soon(asked.notified()).await;
    for _ in 0..100 {
        tokio::task::yield_now().await; // the others come to wait
    }
    go.notify_one();
    let results = soon(calls.join_all()).await;
    let errors: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(errors.iter().all(|error| error.status() == 502));
    assert_eq!(processed.load(SeqCst), 1 + 20 - errors.len());
    drop(results);
    idle(&handle).await;
}

/// Half of the bodies stream: those that the server has not taken are errors, as they cannot be sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r45_no_request_is_lost_or_doubled_by_a_server_that_shuts_connections_down_under_load() {
    const ROUNDS: usize = 100;
    const AT_ONCE: usize = 32;
    let processed = Processed::default();
    let (one, other) = (echoing(&processed, 7).await, echoing(&processed, usize::MAX).await);
    let (balance, handle) = balance(&[(&one, 1), (&other, 1)], true);
    let mut calls = JoinSet::new();
    for client in 0..AT_ONCE {
        let balance = balance.clone();
        calls.spawn(async move {
            let mut served = 0;
            for round in 0..ROUNDS {
                let path = format!("/{client}/{round}");
                let parts = [Step::Data("/".into()), Step::Pending, Step::Data(path[1..].to_owned().into())];
                let streams = round % 2 == 1;
                let request =
                    if streams { post(&path, Scripted::new(parts)) } else { post(&path, Full::from(path.clone())) };
                match soon(balance.clone().oneshot(request)).await {
                    Ok(response) => {
                        assert_eq!(soon(response.into_body().collect()).await.expect("whole").to_bytes(), path);
                        served += 1;
                    }
                    Err(error) => assert!(streams, "{path}: {error:?}"),
                }
            }
            served
        });
    }
    let served: usize = soon(calls.join_all()).await.into_iter().sum();
    assert!(served >= AT_ONCE * ROUNDS / 2);
    once(&processed, served);
    idle(&handle).await;
    assert_eq!(handle.snapshot().iter().map(|endpoint| endpoint.success).sum::<u64>(), served as u64);
}
