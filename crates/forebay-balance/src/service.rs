use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use forebay_core::{ConfigError, Guarded, ResBody};
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::endpoint::{Endpoint, EndpointId};
use crate::fleet::Fleet;
use crate::future::ResponseFuture;
use crate::handle::BalanceHandle;
use crate::permit::{Counts, Permit};
use crate::policy::Picker;
use crate::redial::{NoRedial, RedialPolicy};

/// The response body: a refusal, or the endpoint's body, which holds its [`Permit`] until it ends.
pub type BalanceBody<R> = ResBody<Guarded<R, Permit>>;

/// Sends each request to the endpoint with the least work for its power; see the [crate] page.
pub struct Balance<S, R = NoRedial> {
    pub(crate) shared: Arc<Shared<S>>,
    redial: PhantomData<fn() -> R>,
}

pub(crate) struct Shared<S> {
    pub(crate) services: Vec<S>,
    pub(crate) ids: Arc<[EndpointId]>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) ready_timeout: Duration,
}

impl<S, R> Clone for Balance<S, R> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), redial: PhantomData }
    }
}

impl<S, R> std::fmt::Debug for Balance<S, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Balance").field("endpoints", &self.shared.ids).finish_non_exhaustive()
    }
}

impl<S> Balance<S> {
    /// A builder for endpoints that are any service.
    pub fn builder() -> BalanceBuilder<S> {
        BalanceBuilder::new()
    }
}

impl<S, R> Balance<S, R> {
    /// A builder for endpoints whose errors may hand a request back; see [`Redial`](crate::Redial).
    pub fn builder_with_redial() -> BalanceBuilder<S, R> {
        BalanceBuilder::new()
    }

    /// The same endpoints and counts for work that is no HTTP request.
    #[must_use]
    pub fn fleet(&self) -> Fleet<S>
    where
        S: Clone,
    {
        Fleet::new(Arc::clone(&self.shared))
    }

    /// A handle to watch and change it.
    #[must_use]
    pub fn handle(&self) -> BalanceHandle {
        BalanceHandle { counts: Arc::clone(&self.shared.counts), ids: Arc::clone(&self.shared.ids) }
    }
}

impl<S, R, B, RB> Service<Request<B>> for Balance<S, R>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    R: RedialPolicy<S::Error, Request<B>>,
    RB: Body<Data = Bytes>,
{
    type Response = Response<BalanceBody<RB>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, R, B>;

    /// Always ready: the place is taken in `call`.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ResponseFuture::new(Arc::clone(&self.shared), request)
    }
}

/// Builds a [`Balance`].
#[derive(Debug)]
#[must_use]
pub struct BalanceBuilder<S, R = NoRedial> {
    endpoints: Vec<Endpoint<S>>,
    ready_timeout: Duration,
    redial: PhantomData<fn() -> R>,
}

impl<S, R> BalanceBuilder<S, R> {
    pub(crate) const fn new() -> Self {
        Self { endpoints: Vec::new(), ready_timeout: Duration::from_secs(1), redial: PhantomData }
    }

    /// Adds an endpoint.
    pub fn endpoint(mut self, endpoint: Endpoint<S>) -> Self {
        self.endpoints.push(endpoint);
        self
    }

    /// How long a picked endpoint may take to be ready before the request goes elsewhere. Default 1 s.
    pub const fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.ready_timeout = timeout;
        self
    }

    /// The balancer.
    ///
    /// # Errors
    ///
    /// Every field that is out of range, at once.
    pub fn build(self) -> Result<Balance<S, R>, ConfigError> {
        let mut problems = Vec::new();
        if self.endpoints.is_empty() {
            problems.push("endpoints is empty: at least one".to_owned());
        }
        if self.ready_timeout.is_zero() {
            problems.push("ready_timeout is 0: more than 0".to_owned());
        }
        for (i, endpoint) in self.endpoints.iter().enumerate() {
            if endpoint.max_concurrency == Some(0) {
                problems.push(format!("endpoint {} max_concurrency is 0: at least 1", endpoint.id));
            }
            if self.endpoints[..i].iter().any(|other| other.id == endpoint.id) {
                problems.push(format!("endpoint {} is in the list twice: once", endpoint.id));
            }
        }
        ConfigError::check(problems)?;
        let picker = Picker::new(self.endpoints.iter().map(|endpoint| (endpoint.weight, endpoint.max_concurrency)));
        let (ids, services): (Vec<_>, Vec<_>) =
            self.endpoints.into_iter().map(|endpoint| (endpoint.id, endpoint.service)).unzip();
        let counts = Arc::new(Counts::new(picker));
        let shared = Shared { services, ids: ids.into(), counts, ready_timeout: self.ready_timeout };
        Ok(Balance { shared: Arc::new(shared), redial: PhantomData })
    }
}
