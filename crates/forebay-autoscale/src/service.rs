use std::task::{Context, Poll};

use forebay_core::{Class, Guarded};
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::future::ResponseFuture;
use crate::{DemandSignal, Ticket};

/// The service of [`AutoscaleLayer`](crate::AutoscaleLayer). See the [crate] page.
#[derive(Debug, Clone)]
pub struct Autoscale<S> {
    inner: S,
    signal: DemandSignal,
}

impl<S> Autoscale<S> {
    pub(crate) const fn new(inner: S, signal: DemandSignal) -> Self {
        Self { inner, signal }
    }
}

impl<S, B, R> Service<Request<B>> for Autoscale<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body,
{
    type Response = Response<Guarded<R, Ticket>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let class = request.extensions().get::<Class>().copied().unwrap_or_default();
        // Before the call: should that panic, the ticket is dropped.
        let mut ticket = self.signal.arrive(class, 1);
        ticket.start();
        ResponseFuture::new(self.inner.call(request), ticket)
    }
}
