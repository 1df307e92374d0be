use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_core::Class;
use http::{Request, Response};
use http_body_util::Full;
use tower::Service;

/// Answers at once: what a layer costs shows best around nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

impl Service<Request<()>> for Echo {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(Full::new(Bytes::from_static(b"done")))))
    }
}

/// A request that bears its class.
#[must_use]
pub fn classed(class: Class) -> Request<()> {
    let mut request = Request::new(());
    request.extensions_mut().insert(class);
    request
}
