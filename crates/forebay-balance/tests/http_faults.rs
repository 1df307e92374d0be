//! HTTP/1 servers that are silent, slow, stall, cut off, flood or refuse, clients that leave or never read: places come
//! back, upstreams are closed, and traffic goes where it is served.

use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use forebay_balance::client::AnswerError;
use forebay_balance::{Balance, Endpoint, EndpointState, Picked};
use forebay_core::{Deadline, Reason, Rejection};
use http::{Method, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout};
use tower::{Service as _, ServiceExt as _};

mod http_kit;
use http_kit::{balance, get, idle, pass, server, soon, until};

/// A server that writes this and closes.
async fn says(answer: &'static str) -> (String, Arc<AtomicUsize>) {
    server(move |mut stream, _| async move {
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[derive(Debug, PartialEq)]
enum Event {
    /// All that the server has to say was said.
    Said,
    Closed,
}

/// A server that writes this, says so, and waits for its client to close.
async fn stalls(said: &'static str) -> (String, UnboundedReceiver<Event>) {
    let (events, seen) = unbounded_channel();
    let serve = move |mut stream: TcpStream, _| {
        let events: UnboundedSender<Event> = events.clone();
        async move {
            let _ = stream.write_all(said.as_bytes()).await;
            let _ = events.send(Event::Said);
            if matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)) {
                let _ = events.send(Event::Closed);
            }
        }
    };
    (server(serve).await.0, seen)
}

#[tokio::test]
async fn a_silent_server_and_half_a_head_are_504_at_the_deadline_and_closed() {
    for said in ["", "HTTP/1.1 200 OK\r\nx-slow: "] {
        let (url, mut seen) = stalls(said).await;
        let (balance, handle) = balance(&[(&url, 1)], false);
        let mut request = get("/");
        request.extensions_mut().insert(Deadline::after(Instant::now().into_std(), Duration::from_secs(600)));
        let call = tokio::spawn(balance.into_infallible().oneshot(request));
        assert_eq!(soon(seen.recv()).await, Some(Event::Said));
        assert_eq!(handle.snapshot()[0].in_flight, 1, "a head may take any time before the deadline");
        pass(Duration::from_secs(601)).await;
        let response = soon(call).await.expect("no panic").expect("infallible");
        assert_eq!(response.status(), 504, "{said:?}");
        assert_eq!(response.extensions().get::<Rejection>().expect("ours").reason, Reason::DeadlineExceeded);
        assert_eq!(soon(seen.recv()).await, Some(Event::Closed), "{said:?}");
        idle(&handle).await;
    }
}

#[tokio::test]
async fn a_head_in_pieces_is_an_answer() {
    let (url, _) = server(|mut stream, _| async move {
        for byte in OK.bytes() {
            let _ = stream.write_all(&[byte]).await;
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (balance, handle) = balance(&[(&url, 1)], false);
    let response = soon(balance.oneshot(get("/"))).await.expect("an answer");
    assert_eq!(soon(response.into_body().collect()).await.expect("whole").to_bytes(), "ok");
    assert_eq!(handle.snapshot()[0].success, 1);
}

#[tokio::test]
async fn a_stall_in_the_body_keeps_the_place_until_the_client_leaves_and_is_closed_then() {
    for said in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\nhalf",
        "HTTP/1.1 200 OK\r\n\r\nhalf",
    ] {
        let (url, mut seen) = stalls(said).await;
        let (balance, handle) = balance(&[(&url, 1)], false);
        let mut body = soon(balance.oneshot(get("/"))).await.expect("a head").into_body();
        assert_eq!(soon(body.frame()).await.expect("a frame").expect("data").into_data().expect("data"), "half");
        let mut next = tokio_test::task::spawn(async move {
            let frame = body.frame().await.map(|frame| frame.is_ok());
            (frame, body)
        });
        assert!(next.poll().is_pending(), "{said:?}");
        assert_eq!(handle.snapshot()[0].in_flight, 1);
        drop(next);
        assert_eq!(handle.snapshot()[0].in_flight, 0, "at once");
        assert_eq!(soon(seen.recv()).await, Some(Event::Said));
        assert_eq!(soon(seen.recv()).await, Some(Event::Closed), "{said:?}");
        assert_eq!((handle.snapshot()[0].cancelled, handle.snapshot()[0].error), (1, 0));
    }
}

#[tokio::test]
async fn an_answer_that_falls_silent_is_an_error_after_the_idle_timeout_and_is_closed() {
    for (said, begun) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", true),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", false),
    ] {
        let (url, mut seen) = stalls(said).await;
        let builder = Balance::http().idle_timeout(Duration::from_secs(60)).endpoint(Endpoint::new(&url));
        let (balance, handle) = builder.build_with_handle().expect("valid");
        let mut body = soon(balance.oneshot(get("/"))).await.expect("a head").into_body();
        if begun {
            assert_eq!(soon(body.frame()).await.expect("a frame").expect("data").into_data().expect("data"), "half");
        }
        let mut next = tokio_test::task::spawn(async move { (body.frame().await, body) });
        for time in [59, 2] {
            assert!(next.poll().is_pending(), "{said:?}");
            assert_eq!(handle.snapshot()[0].in_flight, 1);
            pass(Duration::from_secs(time)).await;
        }
        if !begun {
            pass(Duration::from_secs(3600)).await;
            assert!(next.poll().is_pending(), "an answer may take any time to begin");
            continue;
        }
        let (frame, body) = soon(next).await;
        let error = frame.expect("a frame").expect_err("silent");
        assert!(error.downcast_ref::<AnswerError>().is_some_and(AnswerError::is_timeout), "{error}");
        let snapshot = handle.snapshot();
        assert_eq!((snapshot[0].in_flight, snapshot[0].error, snapshot[0].cancelled), (0, 1, 0), "{said:?}");
        drop(body);
        assert_eq!(soon(seen.recv()).await, Some(Event::Said));
        assert_eq!(soon(seen.recv()).await, Some(Event::Closed), "{said:?}");
    }
}

#[tokio::test]
async fn closed_within_a_chunk_or_between_chunks_the_body_is_broken_not_over() {
    for said in ["8\r\nhalf", "4\r\nhalf\r\n", "4\r\nhalf\r\nzz", "4\r\nhalf\r\n0\r\n"] {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let (url, served) = server(move |mut stream, _| async move {
            let _ = stream.write_all(format!("{head}{said}").as_bytes()).await;
        })
        .await;
        let (balance, handle) = balance(&[(&url, 1)], false);
        let response = soon(balance.oneshot(get("/"))).await.expect("a head");
        assert!(soon(response.into_body().collect()).await.is_err(), "{said:?}");
        idle(&handle).await;
        assert_eq!((handle.snapshot()[0].error, handle.snapshot()[0].success), (1, 0), "{said:?}");
        assert_eq!(served.load(SeqCst), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_ends_however_close_to_the_end_of_a_connection_it_is_sent() {
    // Each connection looks alive after its answer, and closes just then.
    let (url, read) = says(OK).await;
    let (balance, handle) = balance(&[(&url, 1)], false);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (balance, handle, url) = (balance.clone(), handle.clone(), url.clone());
        calls.spawn(async move {
            let mut whole = 0;
            for _ in 0..200 {
                handle.clear(&url); // never out for errors
                if let Ok(response) = soon(balance.clone().oneshot(get("/"))).await {
                    whole += usize::from(soon(response.into_body().collect()).await.is_ok());
                }
            }
            whole
        });
    }
    let mut whole = 0;
    while let Some(call) = calls.join_next().await {
        whole += call.expect("no panic");
    }
    idle(&handle).await;
    let read = read.load(SeqCst);
    assert!(whole <= read && read <= 3200, "{whole} answers, {read} requests: none is sent twice");
    assert!(whole > 1600, "{whole} of 3200");
}

#[tokio::test]
async fn an_exact_length_body_frees_its_place_at_its_last_frame() {
    let (url, mut seen) = stalls(OK).await; // no close tells the end
    let (balance, handle) = balance(&[(&url, 1)], false);
    let mut body = soon(balance.oneshot(get("/"))).await.expect("a head").into_body();
    assert_eq!((handle.snapshot()[0].in_flight, body.size_hint().exact()), (1, Some(2)));
    let mut left = 2;
    while left > 0 {
        left -= soon(body.frame()).await.expect("a frame").expect("data").into_data().expect("data").len();
    }
    assert_eq!((handle.snapshot()[0].in_flight, handle.snapshot()[0].success), (0, 1), "`None` was not polled for");
    assert_eq!(soon(seen.recv()).await, Some(Event::Said));
    drop(body);
}

#[tokio::test]
async fn an_answer_without_a_body_frees_its_place_at_the_head() {
    for (method, said) in [
        (Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"),
        (Method::HEAD, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        (Method::GET, "HTTP/1.1 204 No Content\r\n\r\n"),
        (Method::GET, "HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\n\r\n"),
        (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    ] {
        let (url, _seen) = stalls(said).await;
        let (balance, handle) = balance(&[(&url, 1)], false);
        let mut request = get("/");
        *request.method_mut() = method;
        let response = soon(balance.oneshot(request)).await.expect("a head");
        assert_eq!((handle.snapshot()[0].in_flight, handle.snapshot()[0].success), (0, 1), "{said:?}");
        assert!(response.body().is_end_stream());
    }
}

#[tokio::test]
async fn interim_answers_come_before_the_answer() {
    for interim in ["HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let (url, served) = server(move |mut stream, _| async move {
            let _ = stream.write_all(format!("{interim}{interim}{OK}").as_bytes()).await;
        })
        .await;
        let (balance, handle) = balance(&[(&url, 1)], false);
        let response = soon(balance.oneshot(get("/"))).await.expect("an answer");
        assert_eq!(response.status(), 200, "{interim:?}");
        assert_eq!(soon(response.into_body().collect()).await.expect("whole").to_bytes(), "ok");
        assert_eq!((served.load(SeqCst), handle.snapshot()[0].success), (1, 1));
    }
}

#[tokio::test]
async fn a_head_of_a_mebibyte_or_without_end_is_an_error_and_closed() {
    for many in [false, true] {
        for mebibytes in [1, 1024] {
            let (closed, mut seen) = unbounded_channel();
            let (url, _) = server(move |mut stream, _| {
                let closed = closed.clone();
                async move {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx-0: ").await;
                    let piece = if many { "a\r\nx-n: ".repeat(128) } else { "a".repeat(1024) };
                    let mut written = 0;
                    while written < mebibytes << 20 && stream.write_all(piece.as_bytes()).await.is_ok() {
                        written += piece.len();
                    }
                    let _ = stream.read(&mut [0]).await; // no end of the head; until the client closes
                    let _ = closed.send(written);
                }
            })
            .await;
            let (balance, handle) = balance(&[(&url, 1)], false);
            let response = soon(balance.into_infallible().oneshot(get("/"))).await.expect("infallible");
            assert_eq!(response.status(), 502, "many fields: {many}, {mebibytes} MiB");
            let written = soon(seen.recv()).await.expect("closed");
            assert!(written < 32 << 20, "{written} bytes of a head were taken, socket buffers included");
            idle(&handle).await;
            assert_eq!(handle.snapshot()[0].error, 1);
        }
    }
}

#[tokio::test]
async fn a_429_with_retry_after_pauses_an_endpoint_with_nothing_in_flight() {
    let (quota, asked) = says("HTTP/1.1 429 Too Many Requests\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n").await;
    let (good, served) = says(OK).await;
    let (balance, handle) = balance(&[(&quota, 9), (&good, 1)], false);
    let status = async || {
        let response = soon(balance.clone().oneshot(get("/"))).await.expect("an answer");
        let status = response.status();
        soon(response.into_body().collect()).await.expect("whole");
        status
    };
    assert_eq!(status().await, 429, "the answer itself is passed on");
    for _ in 0..20 {
        assert_eq!(status().await, 200);
    }
    assert_eq!((asked.load(SeqCst), served.load(SeqCst)), (1, 20), "all others go to who serves");
    pass(Duration::from_secs(61)).await;
    assert_eq!((status().await, asked.load(SeqCst)), (StatusCode::TOO_MANY_REQUESTS, 2), "asked again after the pause");
    assert_eq!((handle.snapshot()[0].overload, handle.snapshot()[0].error), (2, 0), "busy is not broken");
}

#[tokio::test]
async fn r26_an_endpoint_that_fails_at_once_draws_less_than_a_hundredth_of_the_requests() {
    const SERVICE_TIME: Duration = Duration::from_millis(10);
    let (bad, asked) = says("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    let mut urls = vec![bad];
    for _ in 0..3 {
        let (good, _) = server(|mut stream, _| async move {
            tokio::time::sleep(SERVICE_TIME).await; // the work that it does
            let _ = stream.write_all(OK.as_bytes()).await;
        })
        .await;
        urls.push(good);
    }
    let (balance, handle) = balance(&urls.iter().map(|url| (url.as_str(), 1)).collect::<Vec<_>>(), false);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let balance = balance.clone();
            tokio::spawn(async move {
                let mut good = 0;
                for _ in 0..250 {
                    let response = balance.clone().oneshot(get("/")).await.expect("an answer");
                    good += usize::from(response.status() == 200);
                    response.into_body().collect().await.expect("whole");
                }
                good
            })
        })
        .collect();
    let mut good = 0;
    for client in clients {
        good += soon(client).await.expect("no panic");
    }
    assert!(good >= 1984, "{good} of 2000 were served, {} asked the bad one", asked.load(SeqCst));
    idle(&handle).await;
}

#[tokio::test]
async fn who_never_reads_stops_the_upstream_and_who_reads_again_gets_all() {
    const CHUNK: usize = 64 << 10;
    let written = Arc::new(AtomicUsize::new(0));
    let (count, closed) = (Arc::clone(&written), Arc::new(AtomicBool::new(false)));
    let gone = Arc::clone(&closed);
    let (url, _) = server(move |mut stream, _| {
        let (count, gone) = (Arc::clone(&count), Arc::clone(&gone));
        async move {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await; // without end
            while let Ok(bytes) = stream.write(&[0; CHUNK]).await {
                count.fetch_add(bytes, SeqCst);
            }
            gone.store(true, SeqCst);
        }
    })
    .await;
    let (balance, handle) = balance(&[(&url, 1)], false);
    let mut body = soon(balance.oneshot(get("/"))).await.expect("a head").into_body();
    // No event tells that nothing happens: until a tenth of a second brings no byte.
    let stalled = async || loop {
        let before = written.load(SeqCst);
        let more = async {
            while written.load(SeqCst) == before {
                tokio::task::yield_now().await;
            }
        };
        if timeout(Duration::from_millis(100), more).await.is_err() {
            return before;
        }
    };
    let before = soon(stalled()).await;
    assert!(before < 32 << 20, "{before} bytes were taken, socket buffers included");
    let mut read = 0;
    while read < 64 << 20 {
        read += soon(body.frame()).await.expect("a frame").expect("data").into_data().expect("data").len();
    }
    assert!(soon(stalled()).await < read + (32 << 20));
    assert_eq!(handle.snapshot()[0].in_flight, 1);
    drop(body);
    until(|| closed.load(SeqCst)).await;
    idle(&handle).await;
}

#[test]
fn a_runtime_that_ends_under_streams_and_calls_panics_nowhere() {
    let panics = Arc::new(AtomicUsize::new(0));
    let (count, before) = (Arc::clone(&panics), panic::take_hook());
    panic::set_hook(Box::new(move |info| {
        // Other tests of this file run beside, and their threads have names; a runtime's have its own.
        let thread = std::thread::current();
        if thread.name().is_none_or(|name| name.starts_with("tokio") || name.contains("a_runtime_that_ends")) {
            count.fetch_add(1, SeqCst);
        }
        before(info);
    }));
    for workers in [0, 2] {
        let mut builder = if workers == 0 {
            tokio::runtime::Builder::new_current_thread()
        } else {
            tokio::runtime::Builder::new_multi_thread()
        };
        let runtime = builder.worker_threads(workers.max(1)).enable_all().build().expect("a runtime");
        let (handle, bodies) = runtime.block_on(async {
            let (url, _seen) = stalls("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
            let (silent, mut seen) = stalls("").await;
            let (balance, handle) = balance(&[(&url, 1), (&silent, 1)], false);
            assert!(handle.drain(&silent));
            let mut bodies = Vec::new();
            for _ in 0..8 {
                bodies.push(soon(balance.clone().oneshot(get("/"))).await.expect("a head").into_body());
            }
            let streamed = soon(balance.clone().oneshot(get("/"))).await.expect("a head").into_body();
            tokio::spawn(streamed.collect());
            assert!(handle.set_weight(&silent, 1) && handle.drain(&url));
            tokio::spawn(balance.oneshot(get("/")));
            assert_eq!(soon(seen.recv()).await, Some(Event::Said));
            (handle, bodies)
        });
        drop(runtime);
        assert_eq!(handle.snapshot()[0].in_flight, 8, "what is held outside is still there");
        for (i, mut body) in bodies.into_iter().enumerate() {
            if i % 2 == 0 {
                let mut rest =
                    tokio_test::task::spawn(
                        async move { while body.frame().await.is_some_and(|frame| frame.is_ok()) {} },
                    );
                assert!(rest.poll().is_ready(), "it ends, as nobody is left who would send");
            }
        }
        assert!(handle.snapshot().iter().all(|endpoint| endpoint.in_flight == 0));
    }
    assert_eq!(panics.load(SeqCst), 0);
}

#[tokio::test]
async fn clones_and_readiness_hold_nothing() {
    let (url, served) = says(OK).await;
    let endpoint = Endpoint::new(&url).max_concurrency(1);
    let (mut balance, handle) = Balance::http().endpoint(endpoint).build_with_handle().expect("valid");
    let clones: Vec<_> = (0..10_000).map(|_| balance.clone()).collect();
    for _ in 0..100_000 {
        let ready = std::future::poll_fn(|cx| {
            tower::Service::<http::Request<http_body_util::Full<Bytes>>>::poll_ready(&mut balance, cx)
        });
        ready.await.expect("always ready");
    }
    assert_eq!((handle.snapshot()[0].in_flight, handle.snapshot()[0].picks, handle.places().open), (0, 0, 1));
    let response = soon(balance.call(get("/"))).await.expect("the one place is free");
    assert!(response.extensions().get::<Picked>().is_some());
    drop((response, clones));
    assert_eq!((served.load(SeqCst), handle.snapshot()[0].state), (1, EndpointState::Up));
}
