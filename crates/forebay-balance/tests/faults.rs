//! The HTTP client against real sockets that refuse, reset, answer nonsense, close, and stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use forebay_balance::{Balance, Dns, Endpoint};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tower::ServiceExt as _;

mod http_kit;
use http_kit::{LONG, balance, get, idle, server};

async fn refusing() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    format!("http://{}", listener.local_addr().expect("bound")) // nobody listens once it is dropped
}

async fn text<B: http_body::Body<Data = Bytes>>(response: Response<B>) -> Bytes
where
    B::Error: std::fmt::Debug,
{
    response.into_body().collect().await.expect("a whole body").to_bytes()
}

async fn ok() -> (String, Arc<AtomicUsize>) {
    server(|mut stream, _| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    })
    .await
}

#[tokio::test]
async fn r50_each_address_of_a_name_is_an_endpoint() {
    let (url, served) = ok().await;
    let port = url.rsplit_once(':').expect("a port").1;
    let dns = Dns::new(format!("http://localhost:{port}"));
    let (balance, handle) = Balance::http().discover(dns).build_with_handle().expect("valid");
    let name = format!("http://localhost:{port} at 127.0.0.1:{port}");
    timeout(LONG, async {
        while handle.snapshot().iter().all(|endpoint| endpoint.id.as_str() != name) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("localhost has an address");
    let response = balance.oneshot(get("/")).await.expect("an answer, from whichever address");
    assert_eq!(response.status(), 200);
    assert_eq!(served.load(SeqCst), 1);
}

#[tokio::test]
async fn a_refused_connection_goes_to_another_backend() {
    let (good, served) = ok().await;
    let (balance, handle) = balance(&[(&refusing().await, 9), (&good, 1)], false);
    for _ in 0..20 {
        let response = balance.clone().oneshot(get("/x")).await.expect("served");
        assert_eq!(text(response).await, "ok");
    }
    assert_eq!(served.load(SeqCst), 20);
    idle(&handle).await;
    assert!(handle.snapshot()[0].error > 0);
}

#[tokio::test]
async fn nobody_there_is_a_502_that_names_no_address() {
    let url = refusing().await;
    let (balance, handle) = balance(&[(&url, 1)], false);
    let response = balance.into_infallible().oneshot(get("/")).await.expect("infallible");
    assert_eq!(response.status(), 502);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem = String::from_utf8(text(response).await.to_vec()).expect("UTF-8");
    assert!(problem.contains("upstream-failed") && !problem.contains("127.0.0.1"), "{problem}");
    idle(&handle).await;
}

#[tokio::test]
async fn a_reset_or_nonsense_is_a_502_and_is_not_sent_twice() {
    for answer in ["", "SSH-2.0-nonsense\r\n", "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "HTTP/1.1 200"] {
        let (bad, served) = server(move |mut stream, _| async move {
            let _ = stream.write_all(answer.as_bytes()).await;
        })
        .await;
        let (good, other) = ok().await;
        let (balance, handle) = balance(&[(&bad, 9), (&good, 1)], false);
        let response = balance.into_infallible().oneshot(get("/")).await.expect("infallible");
        assert_eq!(response.status(), 502, "{answer:?}");
        assert_eq!((served.load(SeqCst), other.load(SeqCst)), (1, 0), "{answer:?}");
        idle(&handle).await;
    }
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closed_costs_no_request() {
    let (url, served) = ok().await; // closes after each answer, without saying so
    let (balance, handle) = balance(&[(&url, 1)], false);
    for _ in 0..50 {
        assert_eq!(text(balance.clone().oneshot(get("/")).await.expect("served")).await, "ok");
    }
    assert_eq!(served.load(SeqCst), 50, "each exactly once");
    idle(&handle).await;
}

#[tokio::test]
async fn a_body_cut_short_is_an_error_to_the_reader() {
    let (url, _) = server(|mut stream, _| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
    })
    .await;
    let (balance, handle) = balance(&[(&url, 1)], false);
    let response = balance.oneshot(get("/")).await.expect("a head");
    assert!(response.into_body().collect().await.is_err(), "truncated must not look whole");
    idle(&handle).await;
    assert_eq!(handle.snapshot()[0].error, 1);
}

#[tokio::test]
async fn a_client_that_leaves_closes_the_upstream_before_and_after_the_head() {
    for early in [true, false] {
        let (sent, mut closed) = tokio::sync::mpsc::channel(1);
        let (url, _) = server(move |mut stream, _| {
            let sent = sent.clone();
            async move {
                if !early {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n").await;
                }
                let end = stream.read_u8().await; // ends when the client side is gone
                let _ = sent.send(end.is_err()).await;
            }
        })
        .await;
        let (balance, handle) = balance(&[(&url, 1)], false);
        if early {
            let call = tokio::spawn(balance.oneshot(get("/")));
            timeout(LONG, async {
                while handle.snapshot()[0].in_flight == 0 {
                    tokio::task::yield_now().await;
                }
            })
            .await
            .expect("under way");
            tokio::time::sleep(Duration::from_millis(20)).await; // let the request out; correct either way
            call.abort();
        } else {
            let mut body = balance.oneshot(get("/")).await.expect("a head").into_body();
            body.frame().await.expect("a frame").expect("data");
            assert_eq!(handle.snapshot()[0].in_flight, 1);
            drop(body);
        }
        assert!(timeout(LONG, closed.recv()).await.expect("the upstream is closed").expect("it says so"));
        idle(&handle).await;
        assert_eq!(handle.snapshot()[0].cancelled, 1);
    }
}

/// A well-behaved server of both protocols.
async fn axum_server() -> String {
    let app = axum::Router::new().fallback(|request: Request<Body>| async move {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let host = head.headers.get("host").and_then(|host| host.to_str().ok()).map(str::to_owned);
        let text = format!(
            "{} {} {:?} host={} via={} secret={} len={} {}",
            head.method,
            head.uri.path_and_query().map_or("", |path| path.as_str()),
            head.version,
            host.or_else(|| head.uri.host().map(str::to_owned)).unwrap_or_default().split(':').next().unwrap_or(""),
            head.headers.contains_key("via"),
            head.headers.contains_key("x-hop"),
            head.headers.get("content-length").and_then(|length| length.to_str().ok()).unwrap_or("none"),
            String::from_utf8_lossy(&body),
        );
        match head.uri.path() {
            "/empty" => Response::builder().status(204).body(Body::empty()).expect("valid"),
            _ => Response::builder()
                .header("connection", "x-inner")
                .header("x-inner", "1")
                .body(text.into())
                .expect("valid"),
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

#[tokio::test]
async fn both_protocols_carry_requests_whole_and_without_hop_by_hop_fields() {
    let url = axum_server().await;
    for http2 in [false, true] {
        let endpoint = Endpoint::new(format!("{url}/base/")).http2(http2);
        let (balance, handle) = Balance::http().endpoint(endpoint).build_with_handle().expect("valid");
        let request = Request::post("http://outside.example/v1/x?q=1")
            .header("host", "outside.example")
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .body(Full::new(Bytes::from("hello")))
            .expect("valid");
        let response = balance.clone().oneshot(request).await.expect("served");
        assert!(!response.headers().contains_key("x-inner") && !response.headers().contains_key("connection"));
        let version = if http2 { "HTTP/2.0" } else { "HTTP/1.1" };
        let expected = format!("POST /base/v1/x?q=1 {version} host=127.0.0.1 via=true secret=false len=5 hello");
        assert_eq!(text(response).await, expected);
        let mut head = get("/x");
        *head.method_mut() = Method::HEAD;
        let response = balance.clone().oneshot(head).await.expect("served");
        assert!(response.headers().contains_key("content-length"));
        assert_eq!(text(response).await, "");
        idle(&handle).await;
    }
    let (balance, handle) = balance(&[(&url, 1)], false);
    let empty = balance.oneshot(get("/empty")).await.expect("served");
    assert_eq!((empty.status().as_u16(), handle.snapshot()[0].in_flight), (204, 0), "no body, so over at the head");
}

#[tokio::test]
async fn r48_the_clients_host_is_kept_where_it_is_wanted_also_when_sent_again() {
    let url = axum_server().await;
    for http2 in [false, true] {
        let refuses = Endpoint::new(refusing().await).weight(1000);
        let serves = Endpoint::new(&url).http2(http2).preserve_host(true);
        let balance = Balance::http().endpoint(refuses).endpoint(serves).build().expect("valid");
        let request =
            Request::post("/v1").header("host", "tenant.example").body(Full::new(Bytes::new())).expect("valid");
        let answer = text(balance.oneshot(request).await.expect("served")).await;
        assert!(String::from_utf8_lossy(&answer).contains("host=tenant.example"), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_exchanges_with_cancels_leave_no_count() {
    let url = axum_server().await;
    let (balance, handle) = balance(&[(&url, 3), (&refusing().await, 2), (&format!("{url}/twin"), 1)], false);
    let workers: Vec<_> = (0..20_u64)
        .map(|worker| {
            let balance = balance.clone();
            tokio::spawn(async move {
                for i in 0..500_u64 {
                    let exchange = async { text(balance.clone().oneshot(get("/x")).await.expect("served")).await };
                    let polls = (worker * 7 + i * 13) % 11;
                    if polls < 6 {
                        let _ = forebay_core::testing::cut_after(polls as usize, exchange).await;
                    } else {
                        assert!(!exchange.await.is_empty());
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("no panic");
    }
    idle(&handle).await;
    let ended: u64 = handle.snapshot().iter().map(|e| e.success + e.overload + e.error + e.cancelled).sum();
    assert_eq!(ended, handle.snapshot().iter().map(|e| e.picks).sum::<u64>());
}

#[test]
fn a_url_that_cannot_be_used_is_named_with_all_others() {
    let mut builder = Balance::http().connect_timeout(Duration::ZERO).idle_timeout(Duration::ZERO);
    let bad = ["https://u:p@a", "a:80", "http://u:p@a", "http://a/?q", "", "ftp://a", "http://exa mple"];
    for url in bad {
        builder = builder.endpoint(Endpoint::new(url));
    }
    let error = builder.build().expect_err("nine problems");
    assert_eq!(error.problems().len(), bad.len() + 2, "{error}");
}
