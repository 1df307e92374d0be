//! What the tests of the HTTP client share.

#![allow(dead_code)] // each test uses a part

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use forebay_balance::{Balance, BalanceHandle, Endpoint, HttpBalance};
use http::Request;
use http_body_util::Full;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Long enough for a slow machine; a test that needs it fails.
pub(crate) const LONG: Duration = Duration::from_secs(30);

pub(crate) async fn soon<F: Future>(what: F) -> F::Output {
    timeout(LONG, what).await.expect("it happens")
}

pub(crate) async fn until(what: impl Fn() -> bool) {
    soon(async {
        while !what() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Lets time pass at once. What runs needs no time, so sockets are waited for by the real clock.
pub(crate) async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

pub(crate) fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).body(Full::default()).expect("valid")
}

pub(crate) fn balance(urls: &[(&str, u16)], http2: bool) -> (HttpBalance, BalanceHandle) {
    let add = |builder: forebay_balance::client::HttpBalanceBuilder, (url, weight): &(&str, u16)| {
        builder.endpoint(Endpoint::new(url).weight(*weight).http2(http2))
    };
    urls.iter().fold(Balance::http(), add).build_with_handle().expect("valid")
}

pub(crate) async fn idle(handle: &BalanceHandle) {
    until(|| handle.snapshot().iter().all(|endpoint| endpoint.in_flight == 0)).await;
}

/// A server of raw bytes: on each connection it reads one request head and does `answer`; and how many it has read.
pub(crate) async fn server<F>(
    answer: impl Fn(TcpStream, usize) -> F + Send + Sync + 'static,
) -> (String, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            if read_head(&mut stream).await {
                tokio::spawn(answer(stream, count.fetch_add(1, SeqCst)));
            }
        }
    });
    (url, served)
}

/// Reads one request head; false: the connection has ended.
pub(crate) async fn read_head(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    true
}
