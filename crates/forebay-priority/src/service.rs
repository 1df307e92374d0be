use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_core::{Guarded, ResBody};
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::future::ResponseFuture;
use crate::seat::Seat;
use crate::shared::Shared;

/// The response body: a refusal, or the body from inside, which holds a [`Seat`] until it ends.
pub type PriorityBody<R> = ResBody<Guarded<R, Seat>>;

/// The service of a [`PriorityLayer`](crate::PriorityLayer); see the [crate] page.
#[derive(Debug, Clone)]
pub struct Priority<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Priority<S> {
    pub(crate) const fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<S, B, R> Service<Request<B>> for Priority<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    R: Body<Data = Bytes>,
{
    type Response = Response<PriorityBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B>;

    /// Always ready: the wait is in the future, so that an idle clone holds nothing.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ResponseFuture::new(self.inner.clone(), request, Arc::clone(&self.shared))
    }
}
