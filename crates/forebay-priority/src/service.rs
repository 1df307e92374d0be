use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_core::{BoxError, NoOverflow, Overflow};
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::body::PriorityBody;
use crate::future::ResponseFuture;
use crate::shared::Shared;
use crate::spill::Spill;

/// The service of a [`PriorityLayer`](crate::PriorityLayer); see the [crate] page.
#[derive(Debug, Clone)]
pub struct Priority<S, O = NoOverflow> {
    inner: S,
    shared: Arc<Shared>,
    spill: Spill<O>,
}

impl<S, O> Priority<S, O> {
    pub(crate) const fn new(inner: S, shared: Arc<Shared>, spill: Spill<O>) -> Self {
        Self { inner, shared, spill }
    }
}

impl<S, O, B, R> Service<Request<B>> for Priority<S, O>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    O: Overflow<B>,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<PriorityBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B, O>;

    /// Always ready: the wait is in the future, so that an idle clone holds nothing.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ResponseFuture::new(self.inner.clone(), request, Arc::clone(&self.shared), self.spill.clone())
    }
}
