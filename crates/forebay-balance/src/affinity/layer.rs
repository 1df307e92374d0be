use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use forebay_core::{AffinityKey, Principal, ReqBody, RequestHead};
use http::{HeaderMap, HeaderName, Request, header};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::body::Rest;
use super::config::{AffinityLayerBuilder, KeyFn, Wanted};
use super::find::Finder;
use super::future::ResponseFuture;
use super::key::{Kind, key};

/// Finds out which requests belong together and marks them with an [`AffinityKey`]: see the [module's page](super).
#[derive(Debug, Clone)]
pub struct AffinityLayer {
    shared: Arc<Shared>,
}

impl AffinityLayer {
    /// Starts with nothing to look for: a function, a header, fields or the prompt must be set.
    pub const fn builder() -> AffinityLayerBuilder {
        AffinityLayerBuilder::new()
    }

    pub(super) const fn over(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl<S> Layer<S> for AffinityLayer {
    type Service = Affinity<S>;

    fn layer(&self, inner: S) -> Affinity<S> {
        Affinity { inner, shared: Arc::clone(&self.shared) }
    }
}

/// The service of an [`AffinityLayer`]: always ready; a clone of the inner one is called.
#[derive(Debug, Clone)]
pub struct Affinity<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S, B> Service<Request<B>> for Affinity<S>
where
    S: Service<Request<ReqBody<Rest<B>>>> + Clone,
    B: Body<Data = Bytes> + Unpin,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(())) // the inner service is needed once the body is here
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let (inner, shared) = (self.inner.clone(), &self.shared);
        let principal = request.extensions().get::<Principal>();
        let count = if request.extensions().get::<AffinityKey>().is_some() {
            &shared.counts.given
        } else if let Some(key) = shared.of_head(&RequestHead::from(&request), principal) {
            request.extensions_mut().insert(key);
            &shared.counts.keyed
        } else if shared.looks_at_bodies() && is_json(request.headers()) && !request.body().is_end_stream() {
            let finder = Finder::new(Arc::clone(&shared.wanted), principal.cloned());
            return ResponseFuture::peek(inner, request, finder, Arc::clone(shared));
        } else {
            &shared.counts.unkeyed
        };
        count.fetch_add(1, Relaxed);
        ResponseFuture::passed(inner, request.map(|body| ReqBody::stream(Rest::of(body))))
    }
}

/// The body is JSON that can be read as it is: not compressed.
fn is_json(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map_or(Some(""), |value| value.to_str().ok());
    let (Some(kind), Some(coding)) = (text(header::CONTENT_TYPE), text(header::CONTENT_ENCODING)) else { return false };
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json = kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"));
    json && (coding.is_empty() || coding.trim().eq_ignore_ascii_case("identity"))
}

/// What all services of a layer share.
#[derive(Debug)]
pub(super) struct Shared {
    key_by: Option<KeyFn>,
    headers: Vec<HeaderName>,
    wanted: Arc<Wanted>,
    pub(super) timeout: Duration,
    pub(super) counts: Counts,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    given: AtomicU64,
    pub(super) keyed: AtomicU64,
    pub(super) unkeyed: AtomicU64,
    pub(super) timed_out: AtomicU64,
}

impl Shared {
    pub(super) fn new(key_by: Option<KeyFn>, headers: Vec<HeaderName>, wanted: Wanted, timeout: Duration) -> Self {
        Self { key_by, headers, wanted: Arc::new(wanted), timeout, counts: Counts::default() }
    }

    fn of_head(&self, head: &RequestHead<'_>, principal: Option<&Principal>) -> Option<AffinityKey> {
        if let Some(key) = self.key_by.as_ref().and_then(|key_by| key_by.key(head)) {
            return Some(key);
        }
        let mut present = self.headers.iter().filter_map(|name| Some((name, head.headers.get(name)?)));
        let (name, value) = present.find(|(_, value)| !value.is_empty())?;
        Some(key(principal, Kind::Header(name.as_str()), value.as_bytes()))
    }

    fn looks_at_bodies(&self) -> bool {
        !(self.wanted.fields.is_empty() && self.wanted.prompt.is_empty())
    }
}

/// Shows what an [`AffinityLayer`] does. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AffinityHandle {
    shared: Arc<Shared>,
}

/// What has become of the requests so far, in requests since the layer was made; cancelled ones are in none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AffinitySnapshot {
    /// Came with a key.
    pub given: u64,
    /// Were given one.
    pub keyed: u64,
    /// Went on without.
    pub unkeyed: u64,
    /// Of those without: their body came too slowly.
    pub timed_out: u64,
}

impl AffinityHandle {
    pub(super) const fn over(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The counts now.
    #[must_use]
    pub fn snapshot(&self) -> AffinitySnapshot {
        let Counts { given, keyed, unkeyed, timed_out } = &self.shared.counts;
        AffinitySnapshot {
            given: given.load(Relaxed),
            keyed: keyed.load(Relaxed),
            unkeyed: unkeyed.load(Relaxed),
            timed_out: timed_out.load(Relaxed),
        }
    }
}
