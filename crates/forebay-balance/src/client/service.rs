use std::convert;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use forebay_core::{BoxError, ConfigError, ResBody};
use http::{HeaderValue, Request, Response, header};
use http_body::Body;
use http_body_util::BodyExt as _;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::builder::BalanceBuilder;
use crate::client::connections::UpstreamBody;
use crate::client::endpoint::{ClientBody, HttpEndpoint};
use crate::client::error::HttpError;
use crate::client::headers::strip_hop_by_hop;
use crate::client::timeouts::Timeouts;
use crate::client::url::HttpUrl;
use crate::client::watch::Watch;
use crate::discover::{Change, follow};
use crate::driver::{Driver, Job, WatchEndpoint, spawned};
use crate::endpoint::Endpoint;
use crate::future::ResponseFuture;
use crate::handle::BalanceHandle;
use crate::health::HttpCheck;
use crate::members::Members;
use crate::probe::MetricsProbe;
use crate::redial::Redial;
use crate::service::{Balance, BalanceBody};

type Inner = Balance<HttpEndpoint, Redial>;

/// A balancer over HTTP servers, for requests with any body.
#[derive(Debug, Clone)]
pub struct HttpBalance {
    inner: Inner,
    timeouts: Timeouts,
}

/// How the endpoints of an [`HttpBalance`] are reached; the second parameter of its builder.
#[derive(Debug)]
pub struct Http {
    timeouts: Timeouts,
    watch: Watch,
}

/// Builds an [`HttpBalance`].
pub type HttpBalanceBuilder = BalanceBuilder<HttpUrl, Http>;

impl Balance<HttpEndpoint, Redial> {
    /// A builder for endpoints that are HTTP servers.
    pub fn http() -> HttpBalanceBuilder {
        BalanceBuilder::new(Http { timeouts: Timeouts::default(), watch: Watch::default() })
    }
}

impl BalanceBuilder<HttpUrl, Http> {
    /// How long a connection, with its TLS handshake, may take to come about before the request goes elsewhere. Default 1 s.
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.kind.timeouts.connect = timeout;
        self
    }

    /// Sets how long an endpoint may be silent between two frames of an answer's body. After that the body fails and the
    /// exchange counts as an error of the endpoint. Time before the first frame does not count, as prefill and reasoning
    /// are silent; neither does time in which the client does not read. Default 120 s.
    pub const fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.kind.timeouts.idle = timeout;
        self
    }

    /// Checks the health of each endpoint. Default: an endpoint that is there is up.
    pub fn health(mut self, check: HttpCheck) -> Self {
        self.kind.watch.check = Some(check);
        self.options.checked = true;
        self
    }

    /// Fetches a metrics page of each endpoint; called again, one more.
    pub fn probe(mut self, probe: MetricsProbe) -> Self {
        self.kind.watch.probes.push(probe);
        self.options.probed = true;
        self
    }

    /// The balancer. With discovery, checks or probes it needs a tokio runtime, where its [`Driver`] then runs.
    ///
    /// # Errors
    ///
    /// Every field that is out of range and every URL that cannot be used, at once.
    pub fn build(self) -> Result<HttpBalance, ConfigError> {
        self.build_with_handle().map(|(balance, _)| balance)
    }

    /// The balancer, and a handle to watch and change it.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_with_handle(self) -> Result<(HttpBalance, BalanceHandle), ConfigError> {
        spawned(self.kind.watch.is_set() || !self.sources.is_empty(), |problems| self.parts(problems))
    }

    /// As [`build_with_handle`](Self::build_with_handle), outside a runtime too: what runs in the background is handed out
    /// instead, to be spawned. Until it runs, endpoints with a health check get nothing.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_parts(self) -> Result<(HttpBalance, BalanceHandle, Driver), ConfigError> {
        self.parts(Vec::new())
    }

    fn parts(self, mut problems: Vec<String>) -> Result<(HttpBalance, BalanceHandle, Driver), ConfigError> {
        let Http { timeouts, watch } = self.kind;
        watch.validate(&mut problems);
        timeouts.validate(&mut problems);
        let endpoints = resolve(self.endpoints, timeouts, &mut problems);
        let inner: Inner = self.options.build(endpoints, !self.sources.is_empty(), problems)?;
        let apply = move |members: &Members, change| {
            members.apply(match change {
                Change::Insert(endpoint) => {
                    let endpoint = Endpoint::<HttpUrl>::resolve(endpoint, timeouts);
                    Change::Insert(endpoint.map_err(|problem| ConfigError::new(vec![problem]))?)
                }
                Change::Remove(id) => Change::Remove(id),
            })
        };
        let job = |source| -> Job { Box::pin(follow(source, Arc::downgrade(&inner.members), apply)) };
        let sources = self.sources.into_iter().map(job).collect();
        let watch = watch.is_set().then(|| -> WatchEndpoint { Box::new(move |index, node| watch.jobs(index, node)) });
        let (driver, handle) = (Driver::new(&inner.members, sources, watch), inner.handle());
        Ok((HttpBalance { inner, timeouts }, handle, driver))
    }
}

fn resolve(
    endpoints: impl IntoIterator<Item = Endpoint<HttpUrl>>,
    timeouts: Timeouts,
    problems: &mut Vec<String>,
) -> Vec<Endpoint<HttpEndpoint>> {
    let resolve = |endpoint: Endpoint<HttpUrl>| match endpoint.resolve(timeouts) {
        Ok(endpoint) => Some(endpoint),
        Err(problem) => {
            problems.push(problem);
            None
        }
    };
    endpoints.into_iter().filter_map(resolve).collect()
}

impl HttpBalance {
    /// As [`Balance::insert`]; an endpoint that stays at its URL keeps its connections only if it is not inserted again.
    ///
    /// # Errors
    ///
    /// As there, or a URL that cannot be used.
    pub fn insert(&self, endpoint: Endpoint<HttpUrl>) -> Result<(), ConfigError> {
        self.inner.insert(endpoint.resolve(self.timeouts).map_err(|problem| ConfigError::new(vec![problem]))?)
    }

    /// As [`Balance::remove`].
    pub fn remove(&self, id: &str) -> bool {
        self.inner.remove(id)
    }

    /// As [`Balance::replace`].
    ///
    /// # Errors
    ///
    /// As there, and every URL that cannot be used; then nothing has changed.
    pub fn replace(&self, endpoints: impl IntoIterator<Item = Endpoint<HttpUrl>>) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        let endpoints = resolve(endpoints, self.timeouts, &mut problems);
        ConfigError::check(problems)?;
        self.inner.replace(endpoints)
    }

    /// A handle to watch and change it.
    #[must_use]
    pub fn handle(&self) -> BalanceHandle {
        self.inner.handle()
    }

    /// A service that never fails: an upstream without an answer becomes 502, or 504 if it took too long, as a problem
    /// document that names no address.
    #[must_use]
    pub const fn into_infallible(self) -> Infallible {
        Infallible { inner: self }
    }
}

impl<B> Service<Request<B>> for HttpBalance
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<BalanceBody<UpstreamBody>>;
    type Error = HttpError;
    type Future = HttpBalanceFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> HttpBalanceFuture {
        let mut request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        strip_hop_by_hop(request.headers_mut());
        request.headers_mut().append(header::VIA, HeaderValue::from_static("1.1 forebay"));
        self.inner.call(request)
    }
}

/// The future of an [`HttpBalance`].
pub type HttpBalanceFuture = ResponseFuture<HttpEndpoint, Redial, ClientBody>;

/// An [`HttpBalance`] whose errors are responses.
#[derive(Debug, Clone)]
pub struct Infallible {
    inner: HttpBalance,
}

impl<B> Service<Request<B>> for Infallible
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResBody<BalanceBody<UpstreamBody>>>;
    type Error = convert::Infallible;
    type Future = InfallibleFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), convert::Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> InfallibleFuture {
        InfallibleFuture { inner: self.inner.call(request) }
    }
}

pin_project! {
    /// The future of an [`Infallible`].
    #[derive(Debug)]
    pub struct InfallibleFuture {
        #[pin]
        inner: HttpBalanceFuture,
    }
}

impl Future for InfallibleFuture {
    type Output = Result<Response<ResBody<BalanceBody<UpstreamBody>>>, convert::Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(match ready!(self.project().inner.poll(cx)) {
            Ok(response) => response.map(ResBody::passed),
            Err(error) => problem(&error),
        }))
    }
}

/// Every text in it is our own, so nothing needs escaping.
fn problem<R>(error: &HttpError) -> Response<ResBody<R>> {
    let status = error.status();
    let title = status.canonical_reason().unwrap_or("Bad Gateway");
    let kind = if error.is_timeout() { "upstream-timeout" } else { "upstream-failed" };
    let text = format!(
        r#"{{"type":"urn:forebay:problem:{kind}","title":"{title}","status":{},"detail":"{error}"}}"#,
        status.as_u16()
    );
    let mut response = Response::new(ResBody::answer(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}
