//! A scripted origin behind the cache, and short words for requests.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use bytes::Bytes;
use forebay_cache::body::CacheBody;
use forebay_cache::{Cache, CacheBuilder, CacheHandle, CacheLayer, JsonRoute, MokaStore};
use forebay_core::testing::{Scripted, Seen, Spy, SpyBody, Step};
use forebay_core::{BoxError, Principal, ReqBody};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tower::{Layer as _, ServiceExt as _};

pub type Reply = Response<Scripted>;
pub type Got = Response<CacheBody<SpyBody<Scripted>>>;
type Script = dyn Fn(u64, &Request<ReqBody<Full<Bytes>>>) -> Reply + Send + Sync;
pub const CHAT: &str = "/v1/chat/completions";
pub const DONE: &str = "data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

/// Answers with what `reply` makes of the request's number and head.
#[derive(Clone)]
pub struct Origin {
    reply: Arc<Script>,
    calls: Arc<AtomicU64>,
}

impl tower::Service<Request<ReqBody<Full<Bytes>>>> for Origin {
    type Response = Reply;
    type Error = BoxError;
    type Future = std::future::Ready<Result<Reply, BoxError>>;
    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), BoxError>> {
        std::task::Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: Request<ReqBody<Full<Bytes>>>) -> Self::Future {
        std::future::ready(Ok((self.reply)(self.calls.fetch_add(1, SeqCst), &request)))
    }
}

pub struct Kit {
    pub cache: Cache<Spy<Origin>, MokaStore>,
    pub handle: CacheHandle,
    pub seen: Arc<std::sync::Mutex<Seen>>,
}

pub fn kit(reply: impl Fn(u64, &Request<ReqBody<Full<Bytes>>>) -> Reply + Send + Sync + 'static) -> Kit {
    kit_with(CacheLayer::builder(), reply)
}

pub fn kit_with(
    builder: CacheBuilder<MokaStore>,
    reply: impl Fn(u64, &Request<ReqBody<Full<Bytes>>>) -> Reply + Send + Sync + 'static,
) -> Kit {
    let builder = builder.json(JsonRoute::openai_chat(CHAT)).json(JsonRoute::openai_embeddings("/v1/embeddings"));
    let (layer, handle) = builder.build_with_handle().unwrap();
    let (spy, seen) = Spy::new(Origin { reply: Arc::new(reply), calls: Arc::default() });
    Kit { cache: layer.layer(spy), handle, seen }
}

impl Kit {
    pub async fn head(&self, request: Request<Full<Bytes>>) -> Got {
        self.cache.clone().oneshot(request).await.unwrap()
    }

    /// Sends, reads the body, and gives its text and `Cache-Status`.
    pub async fn ask(&self, request: Request<Full<Bytes>>) -> (String, String) {
        let got = self.head(request).await;
        let status = got.headers().get("cache-status").map_or(String::new(), |v| v.to_str().unwrap().to_owned());
        let body = got.into_body().collect().await.unwrap().to_bytes();
        (String::from_utf8_lossy(&body).into_owned(), status)
    }

    /// Whether `b` gets the answer that `a` was given.
    pub async fn shared(&self, a: Request<Full<Bytes>>, b: Request<Full<Bytes>>) -> bool {
        self.ask(a).await;
        self.ask(b).await.1.contains("hit")
    }

    pub fn calls(&self) -> u64 {
        self.seen.lock().unwrap().calls
    }
}

pub fn reply(fields: &[(&str, &str)], steps: Vec<Step>) -> Reply {
    let mut response = Response::builder();
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(Scripted::new(steps)).unwrap()
}

pub fn text(fields: &[(&str, &str)], text: impl Into<Bytes>) -> Reply {
    reply(fields, vec![Step::Data(text.into())])
}

pub fn stop(n: u64) -> Reply {
    let body = format!("{{\"n\":{n},\"choices\":[{{\"finish_reason\":\"stop\"}}]}}");
    text(&[("content-type", "application/json")], body)
}

pub fn get(uri: &str, fields: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::get(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).unwrap()
}

pub fn chat(body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(CHAT).header("content-type", "application/json").body(Full::new(body.into())).unwrap()
}

pub fn with(mut request: Request<Full<Bytes>>, name: &'static str, value: &str) -> Request<Full<Bytes>> {
    request.headers_mut().append(name, value.parse().unwrap());
    request
}

pub fn by(mut request: Request<Full<Bytes>>, who: &str) -> Request<Full<Bytes>> {
    request.extensions_mut().insert(Principal::from_bytes(who));
    request
}
