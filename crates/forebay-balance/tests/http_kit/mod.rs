//! What the tests of the HTTP client share.

use std::time::Duration;

use bytes::Bytes;
use forebay_balance::{Balance, BalanceHandle, Endpoint, HttpBalance};
use http::Request;
use http_body_util::Full;
use tokio::time::timeout;

/// Long enough for a slow machine; a test that needs it fails.
const LONG: Duration = Duration::from_secs(30);

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
