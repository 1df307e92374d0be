//! A service that writes down what reaches it, behind the affinity layer, and short words for requests.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_balance::affinity::body::Rest;
use forebay_balance::affinity::{
    Affinity, AffinityHandle, AffinityLayer, AffinityLayerBuilder, BLOCK_BYTES, PrefixBlocks,
};
use forebay_core::testing::{Scripted, Seen, Spy, Step};
use forebay_core::{AffinityKey, BoxError, ReqBody};
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full};
use tower::{Layer as _, Service, ServiceExt as _};

/// What reached the inner service.
#[derive(Debug, Default, Clone)]
pub struct Got {
    pub key: Option<AffinityKey>,
    pub blocks: Option<PrefixBlocks>,
    pub exact: Option<u64>,
    pub data: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    pub error: Option<String>,
}

/// Reads the whole request, and writes it down.
#[derive(Debug, Clone)]
pub struct Inner {
    pub got: Arc<Mutex<Vec<Got>>>,
    pub ready: Result<bool, &'static str>,
}

impl<B> Service<Request<ReqBody<Rest<B>>>> for Inner
where
    B: Body<Data = Bytes, Error: Into<BoxError> + Send> + Unpin + Send + 'static,
{
    type Response = Response<Scripted>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Scripted>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.ready? {
            return Poll::Ready(Ok(()));
        }
        self.ready = Ok(true); // the next time
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn call(&mut self, request: Request<ReqBody<Rest<B>>>) -> Self::Future {
        let (log, extensions) = (Arc::clone(&self.got), request.extensions());
        let (key, blocks) = (extensions.get().copied(), extensions.get().cloned());
        let mut body = request.into_body();
        Box::pin(async move {
            let mut got = Got { key, blocks, exact: body.size_hint().exact(), ..Got::default() };
            while let Some(frame) = body.frame().await {
                match frame.map(Frame::into_data) {
                    Ok(Ok(data)) => got.data.extend_from_slice(&data),
                    Ok(Err(other)) => got.trailers = other.into_trailers().ok(),
                    Err(error) => got.error = Some(error.to_string()),
                }
            }
            log.lock().unwrap().push(got);
            Ok(Response::new(Scripted::new([Step::Data("answer".into()), Step::Pending])))
        })
    }
}

/// The layer with a spy and the inner service behind it.
pub struct Kit {
    pub service: Affinity<Spy<Inner>>,
    pub handle: AffinityHandle,
    pub seen: Arc<Mutex<Seen>>,
    pub got: Arc<Mutex<Vec<Got>>>,
}

pub fn kit(builder: AffinityLayerBuilder) -> Kit {
    let (layer, handle) = builder.build_with_handle().unwrap();
    let got = Arc::default();
    let (spy, seen) = Spy::new(Inner { got: Arc::clone(&got), ready: Ok(false) });
    Kit { service: layer.layer(spy), handle, seen, got }
}

impl Kit {
    pub async fn send<B>(&self, request: Request<B>) -> Got
    where
        B: Body<Data = Bytes, Error: Into<BoxError> + Send> + Unpin + Send + 'static,
    {
        let response = self.service.clone().oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap();
        self.got.lock().unwrap().last().cloned().unwrap()
    }

    /// Sends the body in these frames, with a wait before each.
    pub async fn frames(&self, frames: &[&[u8]]) -> Got {
        let steps = frames.iter().flat_map(|frame| [Step::Pending, Step::Data(Bytes::copy_from_slice(frame))]);
        self.send(json(Scripted::new(steps))).await
    }

    pub async fn text(&self, body: &str) -> Got {
        self.send(json(Full::new(Bytes::copy_from_slice(body.as_bytes())))).await
    }
}

pub fn json<B>(body: B) -> Request<B> {
    Request::post("/v1/chat/completions").header("content-type", "application/json; charset=utf-8").body(body).unwrap()
}

pub fn sessions() -> AffinityLayerBuilder {
    AffinityLayer::builder().session_fields()
}

pub fn prompts() -> AffinityLayerBuilder {
    AffinityLayer::builder().prompt()
}

/// A chat whose one message is this many blocks long, and then what `tail` says.
pub fn chat(blocks: usize, tail: &str) -> String {
    let text: String = (0..blocks * BLOCK_BYTES).map(|at| char::from(b'a' + (at / 7 % 26) as u8)).collect();
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}{tail}"}}],"stream":true}}"#)
}
