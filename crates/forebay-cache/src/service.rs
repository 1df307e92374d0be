use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_core::{BoxError, ReqBody, RequestHead};
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::body::CacheBody;
use crate::future::{Plan, ResponseFuture};
use crate::policy::request::{Kind, kind};
use crate::shared::{Control, Invalidation, Shared};
use crate::{Forward, Memory};

/// The service of a [`CacheLayer`](crate::CacheLayer): always ready; a clone of the inner one is called on a miss.
pub struct Cache<S, M> {
    pub(crate) inner: S,
    pub(crate) shared: Arc<Shared<M>>,
}

impl<S: Clone, M> Clone for Cache<S, M> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<S: fmt::Debug, M> fmt::Debug for Cache<S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, M, B, R> Service<Request<B>> for Cache<S, M>
where
    S: Service<Request<ReqBody<B>>, Response = Response<R>> + Clone,
    M: Memory,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Response = Response<CacheBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B, M>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        let head = RequestHead::from(&request);
        let kind = kind(&head, request.body().is_end_stream(), &shared.routes);
        let plan = match kind {
            Kind::Untouched => Plan::Untouched,
            Kind::Bypass => Plan::Pass(Forward::Bypass),
            // What is stored stays meanwhile, so unsafe methods must count.
            Kind::Json(_) | Kind::Get if !shared.enabled() => Plan::Pass(Forward::Bypass),
            Kind::Json(route) => return ResponseFuture::read(shared, self.inner.clone(), request, route),
            Kind::Get => match shared.find_get(&head) {
                Some(found) => return ResponseFuture::found(shared, &self.inner, request.map(ReqBody::stream), found),
                None => Plan::Pass(Forward::Bypass),
            },
            Kind::Unsafe => match shared.resource(&head) {
                Some(resource) => {
                    let control: Arc<dyn Control> = Arc::<Shared<M>>::clone(&shared);
                    Plan::Change(Invalidation::new(control, resource))
                }
                None => Plan::Pass(Forward::Method),
            },
        };
        if !matches!(plan, Plan::Untouched) {
            shared.counts.bypassed.fetch_add(1, Relaxed);
        }
        ResponseFuture::forward(shared, self.inner.clone(), request.map(ReqBody::stream), plan)
    }
}
