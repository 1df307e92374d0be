use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use forebay_core::{ReqBody, RequestHead, ResBody};
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::{decide::Plan, future::ResponseFuture, shared::Shared};

/// Answers 202 and makes a job where the policy says so, and passes everything else; see the [crate page](crate).
#[derive(Debug, Clone)]
pub struct Offload<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Offload<S> {
    pub(crate) const fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<S, B, R> Service<Request<B>> for Offload<S>
where
    S: Service<Request<ReqBody<B>>, Response = Response<R>> + Clone,
    B: Body<Data = Bytes> + Unpin,
{
    type Response = Response<ResBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(())) // readiness of `inner` is asked for once it is known that it is needed
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let inner = self.inner.clone();
        match self.shared.plan(&RequestHead::from(&request)) {
            Plan::Pass => ResponseFuture::passed(inner, request.map(ReqBody::stream)),
            Plan::Job { asked, always } => ResponseFuture::job(inner, request, Arc::clone(&self.shared), asked, always),
        }
    }
}
