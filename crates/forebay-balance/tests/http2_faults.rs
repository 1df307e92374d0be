//! HTTP/2 servers that go away, refuse or reset streams, end with trailers, stall and cut off: what was seen is not sent
//! twice, streams are cancelled when nobody waits, and the shared connection serves the others on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use forebay_core::{Deadline, Reason, Rejection};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;
use tower::ServiceExt as _;

mod http2_kit;
mod http_kit;
use http_kit::{balance, get, idle, pass, soon, until};
use http2_kit::*;

#[tokio::test]
async fn r45_after_a_goaway_the_next_request_is_served_on_a_new_connection() {
    for code in [NO_ERROR, ENHANCE_YOUR_CALM] {
        let (url, connections) = server(move |mut connection, _| async move {
            let Some(stream) = connection.request().await else { return };
            connection.head(stream).await;
            connection.go_away(stream, code).await;
            connection.send(DATA, END_STREAM, stream, b"ok").await;
            connection.answer_all().await;
        })
        .await;
        let (balance, handle) = balance(&[(&url, 1)], true);
        for i in 1..=50 {
            let response = soon(balance.clone().oneshot(get("/"))).await;
            let response = response.unwrap_or_else(|error| panic!("request {i} after code {code}: {error:?}"));
            assert_eq!(text(response).await, "ok");
            assert_eq!(connections.load(SeqCst), i, "each connection takes one");
        }
        idle(&handle).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r45_a_goaway_before_the_request_costs_nothing() {
    let (url, _) = server(|mut connection, _| async move {
        connection.go_away(0, NO_ERROR).await; // as servers do that shut down just now
        while connection.next().await.is_some() {}
    })
    .await;
    let (good, others) = good().await;
    for i in 1..=100 {
        let (balance, handle) = balance(&[(&url, 9), (&good, 1)], true);
        let response = soon(balance.oneshot(get("/"))).await.expect("by the other, had it left or not");
        assert_eq!((text(response).await, others.load(SeqCst)), ("ok".into(), i));
        idle(&handle).await;
    }
}

#[tokio::test]
async fn r45_what_a_server_says_it_did_not_take_is_served_elsewhere_once() {
    for refused in [true, false] {
        let (bad, _) = server(move |mut connection, _| async move {
            while let Some(stream) = connection.request().await {
                if refused {
                    connection.cancel(stream, REFUSED_STREAM).await;
                } else {
                    connection.go_away(stream - 1, NO_ERROR).await;
                }
            }
        })
        .await;
        let (good, others) = good().await;
        let (balance, handle) = balance(&[(&bad, 9), (&good, 1)], true);
        let response = soon(balance.into_infallible().oneshot(get("/"))).await.expect("infallible");
        assert_eq!((response.status().as_u16(), others.load(SeqCst)), (200, 1), "refused: {refused}");
        drop(response);
        idle(&handle).await;
        let bad = handle.snapshot().swap_remove(0);
        assert_eq!((bad.overload, bad.error), if refused { (1, 0) } else { (0, 1) }, "busy is not broken");
    }
}

#[tokio::test]
async fn r45_what_a_server_may_have_seen_is_a_502_and_never_sent_again() {
    for how in ["internal error", "protocol error", "cancel", "goaway and close", "close"] {
        let seen = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&seen);
        let (bad, _) = server(move |mut connection, _| {
            let count = Arc::clone(&count);
            async move {
                while let Some(stream) = connection.request().await {
                    count.fetch_add(1, SeqCst);
                    match how {
                        "internal error" => connection.cancel(stream, INTERNAL_ERROR).await,
                        "protocol error" => connection.cancel(stream, PROTOCOL_ERROR).await,
                        "cancel" => connection.cancel(stream, CANCEL).await,
                        "goaway and close" => return connection.go_away(stream, NO_ERROR).await,
                        _ => return,
                    }
                }
            }
        })
        .await;
        let (good, others) = good().await;
        let (balance, handle) = balance(&[(&bad, 9), (&good, 1)], true);
        let response = soon(balance.into_infallible().oneshot(get("/"))).await.expect("infallible");
        assert_eq!((response.status().as_u16(), seen.load(SeqCst), others.load(SeqCst)), (502, 1, 0), "{how}");
        idle(&handle).await;
        assert_eq!(handle.snapshot()[0].error, 1, "{how}");
    }
}

#[tokio::test]
async fn a_goaway_under_a_long_stream_lets_it_end_and_costs_the_next_request_nothing() {
    let rest = Arc::new(Notify::new());
    let go = Arc::clone(&rest);
    let (url, connections) = server(move |mut connection, number| {
        let rest = Arc::clone(&rest);
        async move {
            if number > 0 {
                return connection.answer_all().await;
            }
            let Some(stream) = connection.request().await else { return };
            connection.head(stream).await;
            connection.go_away(stream, NO_ERROR).await;
            connection.send(DATA, 0, stream, b"half").await;
            rest.notified().await;
            connection.send(DATA, END_STREAM, stream, b"half").await;
            connection.answer_all().await;
        }
    })
    .await;
    let (balance, handle) = balance(&[(&url, 1)], true);
    let mut body = soon(balance.clone().oneshot(get("/"))).await.expect("a head").into_body();
    assert_eq!(soon(body.frame()).await.expect("a frame").expect("data").into_data().expect("data"), "half");
    let next = soon(balance.oneshot(get("/"))).await.expect("on a new connection, though there is one endpoint only");
    assert_eq!(text(next).await, "ok");
    assert_eq!((connections.load(SeqCst), handle.snapshot()[0].in_flight), (2, 1));
    go.notify_one();
    assert_eq!(soon(body.collect()).await.expect("the rest").to_bytes(), "half");
    idle(&handle).await;
    assert_eq!((handle.snapshot()[0].success, handle.snapshot()[0].error), (2, 0), "it did nothing wrong");
}

/// hyper may take no notice of a request that enters its channel just as the connection ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_ends_however_close_to_the_end_of_a_connection_it_is_sent() {
    let (url, _) = server(|mut connection, _| async move {
        let Some(stream) = connection.request().await else { return };
        connection.head(stream).await;
        connection.go_away(stream, NO_ERROR).await;
        connection.send(DATA, END_STREAM, stream, b"ok").await;
        connection.answer_all().await;
    })
    .await;
    let (balance, handle) = balance(&[(&url, 1)], true);
    for _ in 0..1000 {
        handle.clear(&url);
        if let Ok(response) = soon(balance.clone().oneshot(get("/"))).await {
            let _ = soon(response.into_body().collect()).await;
        }
    }
    idle(&handle).await;
    assert!(handle.snapshot()[0].success > 900, "{:?}", handle.snapshot());
}

#[tokio::test]
async fn a_reset_of_one_stream_leaves_the_connection_to_the_others() {
    let (url, connections) = server(|mut connection, _| async move {
        let (Some(first), Some(second)) = (connection.request().await, connection.request().await) else { return };
        connection.head(first).await;
        connection.head(second).await;
        connection.send(DATA, 0, first, b"half").await;
        connection.cancel(first, INTERNAL_ERROR).await;
        connection.send(DATA, END_STREAM, second, b"ok").await;
        connection.answer_all().await;
    })
    .await;
    let (balance, handle) = balance(&[(&url, 1)], true);
    let calls = (balance.clone().oneshot(get("/")), balance.clone().oneshot(get("/")));
    let (first, second) = soon(async { tokio::join!(calls.0, calls.1) }).await;
    let results = [
        soon(first.expect("a head").into_body().collect()).await,
        soon(second.expect("a head").into_body().collect()).await,
    ];
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1, "broken, not short");
    assert_eq!(text(soon(balance.oneshot(get("/"))).await.expect("an answer")).await, "ok");
    assert_eq!(connections.load(SeqCst), 1);
    idle(&handle).await;
    assert_eq!((handle.snapshot()[0].success, handle.snapshot()[0].error), (2, 1));
}

#[tokio::test]
async fn an_answer_of_trailers_only_is_over_at_its_head() {
    let (url, _) = server(|mut connection, _| async move {
        while let Some(stream) = connection.request().await {
            let head = [STATUS_200, GRPC_STATUS].concat();
            connection.send(HEADERS, END_HEADERS | END_STREAM, stream, &head).await;
        }
    })
    .await;
    let (balance, handle) = balance(&[(&url, 1)], true);
    let response = soon(balance.oneshot(get("/"))).await.expect("an answer");
    assert_eq!((handle.snapshot()[0].in_flight, handle.snapshot()[0].success), (0, 1));
    assert_eq!(response.headers()["grpc-status"], "0");
    assert!(response.body().is_end_stream());
}

#[tokio::test]
async fn the_last_frame_frees_the_place_be_it_trailers_or_data() {
    for trailers in [true, false] {
        let last = Arc::new(Notify::new());
        let go = Arc::clone(&last);
        let (url, _) = server(move |mut connection, _| {
            let last = Arc::clone(&last);
            async move {
                let Some(stream) = connection.request().await else { return };
                connection.head(stream).await;
                connection.send(DATA, 0, stream, b"half").await;
                last.notified().await;
                if trailers {
                    connection.send(HEADERS, END_HEADERS | END_STREAM, stream, GRPC_STATUS).await;
                } else {
                    connection.send(DATA, END_STREAM, stream, b"half").await;
                }
                while connection.next().await.is_some() {}
            }
        })
        .await;
        let (balance, handle) = balance(&[(&url, 1)], true);
        let mut body = soon(balance.oneshot(get("/"))).await.expect("a head").into_body();
        assert_eq!(soon(body.frame()).await.expect("a frame").expect("data").into_data().expect("data"), "half");
        assert_eq!(handle.snapshot()[0].in_flight, 1, "it is not over");
        go.notify_one();
        let frame = soon(body.frame()).await.expect("a frame").expect("good");
        if trailers {
            assert_eq!(frame.into_trailers().expect("trailers")["grpc-status"], "0");
        } else {
            assert_eq!(frame.into_data().expect("data"), "half");
        }
        assert_eq!((handle.snapshot()[0].in_flight, handle.snapshot()[0].success), (0, 1), "trailers: {trailers}");
        assert!(soon(body.frame()).await.is_none());
    }
}

#[derive(Debug, PartialEq)]
enum Event {
    Asked,
    Reset(u32),
}

/// A server that sends so much of the first request's answer, tells of its reset, then serves on.
async fn stalls(head: bool) -> (String, Arc<AtomicUsize>, UnboundedReceiver<Event>) {
    let (events, seen) = unbounded_channel();
    let (url, connections) = server(move |mut connection, _| {
        let events = events.clone();
        async move {
            let Some(stream) = connection.request().await else { return };
            if head {
                connection.head(stream).await;
                connection.send(DATA, 0, stream, b"half").await;
            }
            let _ = events.send(Event::Asked);
            let Some((_, code)) = connection.reset().await else { return };
            let _ = events.send(Event::Reset(code));
            connection.answer_all().await;
        }
    })
    .await;
    (url, connections, seen)
}

#[tokio::test]
async fn r11_a_client_that_leaves_cancels_its_stream_and_no_other() {
    for head in [false, true] {
        let (url, connections, mut seen) = stalls(head).await;
        let (balance, handle) = balance(&[(&url, 1)], true);
        let call = tokio::spawn(balance.clone().oneshot(get("/")));
        assert_eq!(soon(seen.recv()).await, Some(Event::Asked));
        if head {
            let mut body = soon(call).await.expect("no panic").expect("a head").into_body();
            assert_eq!(soon(body.frame()).await.expect("a frame").expect("data").into_data().expect("data"), "half");
            assert_eq!(handle.snapshot()[0].in_flight, 1);
            drop(body);
        } else {
            call.abort();
        }
        assert_eq!(soon(seen.recv()).await, Some(Event::Reset(CANCEL)), "after the head: {head}");
        until(|| handle.snapshot()[0].cancelled == 1).await;
        assert_eq!(text(soon(balance.oneshot(get("/"))).await.expect("an answer")).await, "ok");
        assert_eq!((connections.load(SeqCst), handle.snapshot()[0].in_flight), (1, 0));
    }
}

#[tokio::test]
async fn a_silent_server_is_504_at_the_deadline_and_its_stream_is_cancelled() {
    let (url, connections, mut seen) = stalls(false).await;
    let (balance, handle) = balance(&[(&url, 1)], true);
    let mut request = get("/");
    request.extensions_mut().insert(Deadline::after(Instant::now().into_std(), Duration::from_secs(600)));
    let call = tokio::spawn(balance.clone().into_infallible().oneshot(request));
    assert_eq!(soon(seen.recv()).await, Some(Event::Asked));
    pass(Duration::from_secs(601)).await;
    let response = soon(call).await.expect("no panic").expect("infallible");
    assert_eq!(response.status(), 504);
    assert_eq!(response.extensions().get::<Rejection>().expect("ours").reason, Reason::DeadlineExceeded);
    assert_eq!(soon(seen.recv()).await, Some(Event::Reset(CANCEL)));
    assert_eq!(text(soon(balance.oneshot(get("/"))).await.expect("an answer")).await, "ok");
    assert_eq!((connections.load(SeqCst), handle.snapshot()[0].in_flight), (1, 0));
}

#[tokio::test]
async fn a_connection_that_closes_under_streams_breaks_their_bodies() {
    let (url, _) = server(|mut connection, number| async move {
        if number > 0 {
            return connection.answer_all().await;
        }
        for _ in 0..3 {
            let Some(stream) = connection.request().await else { return };
            connection.head(stream).await;
            connection.send(DATA, 0, stream, b"half").await;
        }
    })
    .await;
    let (balance, handle) = balance(&[(&url, 1)], true);
    let mut calls = Vec::new();
    for _ in 0..3 {
        calls.push(tokio::spawn({
            let call = balance.clone().oneshot(get("/"));
            async move { call.await.expect("a head").into_body().collect().await.is_err() }
        }));
    }
    for call in calls {
        assert!(soon(call).await.expect("no panic"), "truncated must not look whole");
    }
    idle(&handle).await;
    assert_eq!(handle.snapshot()[0].error, 3);
    assert_eq!(text(soon(balance.oneshot(get("/"))).await.expect("by a new connection")).await, "ok");
}
