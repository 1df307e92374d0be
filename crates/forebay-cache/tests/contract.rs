//! The contract of tower: always ready, and a clone that was polled ready is called; hits call nobody.
#![cfg(feature = "moka")]

mod kit;

use forebay_cache::{Cache, CacheLayer, MokaStore};
use forebay_core::ReqBody;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use kit::{chat, get, kit, stop, text};
use tower::{Layer as _, Service as _, ServiceExt as _};

#[tokio::test]
async fn calls_land_on_a_clone_that_was_polled_ready() {
    let kit = kit(|n, _| if n == 0 { stop(n) } else { text(&[("cache-control", "max-age=9")], "x") });
    for request in [|| chat(r#"{"seed":1}"#), || get("/a", &[])] {
        for _ in 0..3 {
            kit.ask(request()).await;
        }
    }
    let seen = *kit.seen.lock().unwrap();
    assert_eq!((seen.calls, seen.unready_calls, seen.in_flight, seen.early_drops), (2, 0, 0, 0));
    let snapshot = kit.handle.snapshot();
    assert_eq!((snapshot.hits, snapshot.misses, snapshot.bypassed), (4, 2, 0));
}

#[tokio::test]
async fn readiness_is_asked_in_the_future_and_its_error_passes() {
    let (spy, seen) = forebay_core::testing::Spy::new(Unready);
    let mut cache = CacheLayer::builder().build().unwrap().layer(spy);
    std::future::poll_fn(|cx| cache.poll_ready(cx)).await.unwrap();
    assert_eq!(seen.lock().unwrap().polls, 0);
    assert_eq!(cache.call(get("/a", &[])).await.err(), Some("no"));
    let seen = *seen.lock().unwrap();
    assert_eq!((seen.polls, seen.calls), (1, 0));
}

#[derive(Clone)]
struct Unready;
impl tower::Service<Request<ReqBody<Full<bytes::Bytes>>>> for Unready {
    type Response = Response<Empty<bytes::Bytes>>;
    type Error = &'static str;
    type Future = std::future::Ready<Result<Self::Response, &'static str>>;
    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), &'static str>> {
        std::task::Poll::Ready(Err("no"))
    }
    fn call(&mut self, _: Request<ReqBody<Full<bytes::Bytes>>>) -> Self::Future {
        unreachable!("not ready")
    }
}

#[tokio::test]
async fn two_routes_share_one_cache_and_axum_takes_it() {
    fn is_send_sync<T: Clone + Send + Sync>() {}
    is_send_sync::<Cache<axum::routing::Route, MokaStore>>();
    let layer = CacheLayer::builder().build().unwrap();
    let app = || {
        let page = axum::routing::get(|| async { ([("cache-control", "max-age=9")], "x") });
        axum::Router::<()>::new().route("/a", page).layer(layer.clone())
    };
    let ask = || Request::get("/a").body(axum::body::Body::empty()).unwrap();
    app().oneshot(ask()).await.unwrap().into_body().collect().await.unwrap();
    let hit = app().oneshot(ask()).await.unwrap();
    assert_eq!(hit.headers()["cache-status"], "forebay; hit; ttl=9; detail=memory");
}
