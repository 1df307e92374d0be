use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_core::{ConfigError, Guarded, ResBody};
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::builder::BalanceBuilder;
use crate::endpoint::Endpoint;
use crate::fleet::Fleet;
use crate::future::ResponseFuture;
use crate::handle::BalanceHandle;
use crate::members::Members;
use crate::permit::Permit;
use crate::redial::{NoRedial, RedialMode, RedialPolicy};

/// The response body: a refusal, or the endpoint's body, which holds its [`Permit`] until it ends.
pub type BalanceBody<R> = ResBody<Guarded<R, Permit>>;

/// Sends each request to the endpoint with the least work for its power; see the [crate] page.
pub struct Balance<S, R = NoRedial> {
    pub(crate) members: Arc<Members>,
    kind: PhantomData<fn() -> (S, R)>,
}

impl<S, R> Clone for Balance<S, R> {
    fn clone(&self) -> Self {
        Self { members: Arc::clone(&self.members), kind: PhantomData }
    }
}

impl<S, R> fmt::Debug for Balance<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.members.core.ledger().endpoints().map(|(_, node)| node.id.clone()).collect();
        f.debug_struct("Balance").field("endpoints", &ids).finish_non_exhaustive()
    }
}

impl<S> Balance<S> {
    /// A builder for endpoints that are any service.
    pub fn builder() -> BalanceBuilder<S, NoRedial> {
        BalanceBuilder::new(NoRedial)
    }
}

impl<S, R: RedialMode> Balance<S, R> {
    /// A builder for endpoints whose errors may hand a request back; see [`Redial`](crate::Redial).
    pub fn builder_with_redial() -> BalanceBuilder<S, R> {
        BalanceBuilder::new(R::default())
    }
}

impl<S, R> Balance<S, R> {
    pub(crate) const fn of(members: Arc<Members>) -> Self {
        Self { members, kind: PhantomData }
    }

    /// The same endpoints and counts for work that is no HTTP request.
    #[must_use]
    pub fn fleet(&self) -> Fleet<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        Fleet::new(Arc::clone(&self.members))
    }

    /// A handle to watch and change it.
    #[must_use]
    pub fn handle(&self) -> BalanceHandle {
        BalanceHandle::new(Arc::clone(&self.members))
    }

    /// Adds an endpoint, or changes the one of its name in place: its counters, and what is in flight there, stay. An
    /// endpoint that is being removed comes back.
    ///
    /// # Errors
    ///
    /// A field that is out of range, or a pool that no route names; then nothing has changed.
    pub fn insert(&self, endpoint: Endpoint<S>) -> Result<(), ConfigError>
    where
        S: Send + Sync + 'static,
    {
        self.members.insert(endpoint)
    }

    /// Removes an endpoint: it gets no more requests, and is gone when those that it has are over. False: there is none
    /// of this name.
    pub fn remove(&self, id: &str) -> bool {
        self.members.remove(id)
    }

    /// Makes the endpoints those of the list: new ones come in, those of a known name are changed in place, all others
    /// are removed. The list may be empty, and filled again later.
    ///
    /// # Errors
    ///
    /// Every field that is out of range, at once; then nothing has changed.
    pub fn replace(&self, endpoints: impl IntoIterator<Item = Endpoint<S>>) -> Result<(), ConfigError>
    where
        S: Send + Sync + 'static,
    {
        self.members.replace(endpoints.into_iter().collect())
    }
}

impl<S, R, B, RB> Service<Request<B>> for Balance<S, R>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone + Send + Sync + 'static,
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
        ResponseFuture::new(Arc::clone(&self.members), request)
    }
}
