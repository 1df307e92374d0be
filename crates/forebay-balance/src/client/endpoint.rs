use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_core::BoxError;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderValue, Request, Response, Version, header};
use http_body_util::combinators::UnsyncBoxBody;
use tower_service::Service;

use crate::client::connections::{Connections, UpstreamBody};
use crate::client::error::{HttpError, Kind, unprocessed};
use crate::client::headers::strip_hop_by_hop;
use crate::client::orca::Reports;
use crate::client::outgoing::Outgoing;
use crate::client::timeouts::Timeouts;
use crate::client::tls::Tls;
use crate::client::url::{HttpUrl, without_secrets};

/// A request body of any kind, in a box, so that all requests can share connections.
pub type ClientBody = UnsyncBoxBody<Bytes, BoxError>;

/// An upstream server: a base URL and the connections to it.
#[derive(Debug, Clone)]
pub struct HttpEndpoint {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    base: Base,
    at: HttpUrl,
    connections: Arc<Connections>,
    reports: Reports,
}

/// What a request gets of the endpoint's URL.
#[derive(Debug)]
struct Base {
    scheme: Scheme,
    host: HeaderValue,
    authority: Authority,
    /// Without a slash at its end.
    path: String,
}

/// What a request was before it was addressed to an endpoint.
#[derive(Debug)]
struct Original {
    uri: Uri,
    version: Version,
    host: Option<HeaderValue>,
    /// A load report is asked for with it.
    asked: bool,
}

impl Original {
    /// Whom the client asked for: the `Host` field, or the authority of its URI (HTTP/2).
    fn authority(&self) -> Option<Authority> {
        let host = self.host.as_ref().and_then(|host| Authority::try_from(host.as_bytes()).ok());
        host.or_else(|| self.uri.authority().cloned())
    }

    /// A request that is handed back is as it came.
    fn restore(&self, request: &mut Request<ClientBody>) {
        request.uri_mut().clone_from(&self.uri);
        *request.version_mut() = self.version;
        match &self.host {
            Some(host) => drop(request.headers_mut().insert(header::HOST, host.clone())),
            None => drop(request.headers_mut().remove(header::HOST)),
        }
        if self.asked {
            Reports::take_back(request.headers_mut());
        }
    }
}

impl HttpEndpoint {
    /// Another server of an endpoint, such as an exporter: at a URL, where `{host}` is the endpoint's own.
    pub(crate) fn beside(endpoint: &Self, url: &str) -> Option<Self> {
        let Inner { base, at, connections, .. } = &*endpoint.inner;
        let at = HttpUrl {
            url: url.replace("{host}", base.authority.host()),
            http2: false,
            preserve_host: false,
            connect_to: at.connect_to.filter(|_| url.contains("{host}")),
            tls: at.tls.clone().filter(|_| url.starts_with("https:")),
            rows: Vec::new(),
        };
        Self::new(&at, connections.timeouts())
            .inspect_err(|problem| tracing::warn!(problem, "a probe cannot be sent"))
            .ok()
    }

    /// The load reports that come with its answers.
    pub(crate) fn reports(&self) -> &Reports {
        &self.inner.reports
    }

    /// Which rows of shared pages are about it.
    pub(crate) fn rows(&self) -> &[(String, String)] {
        &self.inner.at.rows
    }

    pub(super) fn new(at: &HttpUrl, timeouts: Timeouts) -> Result<Self, String> {
        let (url, uri) = (without_secrets(&at.url), at.url.parse::<Uri>());
        if let Some((label, value)) = at.rows.iter().find(|(label, value)| label.is_empty() || value.is_empty()) {
            return Err(format!("endpoint {url:?} has probe_select {label:?}, {value:?}: neither may be empty"));
        }
        let uri = uri.map_err(|error| format!("endpoint {url:?} is no URL: {error}"))?;
        let (scheme, port) = match uri.scheme_str() {
            Some("http") if at.tls.is_some() => return Err(format!("endpoint {url:?} has tls but is http: use https")),
            Some("http") => (Scheme::HTTP, 80),
            Some("https") => (Scheme::HTTPS, 443),
            _ => return Err(format!("endpoint {url:?} is neither http nor https: http://host:port")),
        };
        let authority = uri.authority().cloned().ok_or_else(|| format!("endpoint {url:?} has no host"))?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(format!("endpoint {url:?} has credentials or a query: only host, port and path"));
        }
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| format!("endpoint {url:?} has a bad host"))?;
        let port = authority.port_u16().unwrap_or(port);
        let address = match at.connect_to {
            None => format!("{}:{port}", authority.host()),
            Some(mut address) => {
                address.set_port(port);
                address.to_string()
            }
        };
        let tls = (scheme == Scheme::HTTPS).then(|| Tls::new(at.tls.as_ref(), authority.host(), at.http2));
        let tls = tls.transpose().map_err(|problem| format!("endpoint {url:?} {problem}"))?;
        let path = uri.path().trim_end_matches('/').to_owned();
        let connections = Arc::new(Connections::new(address, timeouts, tls));
        let base = Base { scheme, host, authority, path };
        Ok(Self { inner: Arc::new(Inner { base, at: at.clone(), connections, reports: Reports::default() }) })
    }
}

impl Inner {
    /// Turns the request to this endpoint; what it was goes back with [`Original::restore`].
    fn address(&self, request: &mut Request<ClientBody>) -> Result<Original, http::Error> {
        let host = request.headers().get(header::HOST).cloned();
        let asked = self.reports.ask(request.headers_mut());
        let original = Original { uri: request.uri().clone(), version: request.version(), host, asked };
        let target = if self.base.path.is_empty() {
            original.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
        } else {
            let rest = original.uri.path_and_query().map_or("/", PathAndQuery::as_str);
            PathAndQuery::try_from(format!("{}{rest}", self.base.path))?
        };
        let kept = if self.at.preserve_host { original.authority() } else { None };
        *request.uri_mut() = if self.at.http2 {
            let authority = kept.unwrap_or_else(|| self.base.authority.clone());
            request.headers_mut().remove(header::HOST); // `:authority` says it
            *request.version_mut() = Version::HTTP_2;
            Uri::builder().scheme(self.base.scheme.clone()).authority(authority).path_and_query(target).build()?
        } else {
            let host = kept.and_then(|kept| HeaderValue::from_str(kept.as_str()).ok());
            request.headers_mut().insert(header::HOST, host.unwrap_or_else(|| self.base.host.clone()));
            *request.version_mut() = Version::HTTP_11;
            Uri::from(target)
        };
        Ok(original)
    }

    async fn exchange(&self, mut request: Request<ClientBody>) -> Result<Response<UpstreamBody>, HttpError> {
        let original = self.address(&mut request).map_err(HttpError::exchange)?;
        let undispatched = |(kind, source): (Kind, BoxError), mut request: Request<ClientBody>| {
            original.restore(&mut request);
            HttpError::undispatched(kind, source, request)
        };
        let idle = self.connections.timeouts().idle;
        let response = if self.at.http2 {
            let mut sent_before = false;
            loop {
                let (mut sender, fresh) = match self.connections.http2().await {
                    Ok(connection) => connection,
                    Err(error) => return Err(undispatched(error, request)),
                };
                let (outgoing, spare) = Outgoing::of(request);
                let response = sender.try_send_request(outgoing);
                drop(sender); // or a request left in a closed channel would wait for us, and we for it
                let mut error = match response.await {
                    Ok(response) => break response.map(|body| UpstreamBody::new(body, idle, None)),
                    Err(error) => error,
                };
                let sent = error.message().is_none();
                let (again, kind) = match (error.take_message(), unprocessed(error.error())) {
                    (Some(back), _) => (Some(back.map(Outgoing::into_inner)), Kind::Closed),
                    (None, Some(kind)) => (spare.request().await, kind),
                    (None, None) => (None, Kind::Exchange),
                };
                match again {
                    // The upstream went away from the shared connection: once more, at last on a fresh one. What had left
                    // is sent here twice at most.
                    Some(again) if kind == Kind::Closed && !fresh && !(sent && sent_before) => {
                        (request, sent_before) = (again, sent_before || sent);
                    }
                    Some(again) => return Err(undispatched((kind, error.into_error().into()), again)),
                    None => return Err(HttpError::exchange(error.into_error())),
                }
            }
        } else {
            loop {
                let reused = self.connections.idle();
                let fresh = reused.is_none();
                let mut sender = match reused {
                    Some(sender) => sender,
                    None => match self.connections.dial_http1().await {
                        Ok(sender) => sender,
                        Err(error) => return Err(undispatched(error, request)),
                    },
                };
                match sender.try_send_request(request).await {
                    Ok(response) => {
                        let connection = Some((sender, Arc::clone(&self.connections)));
                        break response.map(|body| UpstreamBody::new(body, idle, connection));
                    }
                    Err(mut error) => match error.take_message() {
                        // An idle connection that the upstream had closed: once more, at last on a fresh one.
                        Some(back) if !fresh => request = back,
                        Some(back) => return Err(undispatched((Kind::Closed, error.into_error().into()), back)),
                        None => return Err(HttpError::exchange(error.into_error())),
                    },
                }
            }
        };
        let (mut head, body) = response.into_parts();
        strip_hop_by_hop(&mut head.headers);
        self.reports.hear(original.asked, &mut head.headers);
        head.version = Version::HTTP_11; // of this hop, not of the next
        Ok(Response::from_parts(head, body))
    }
}

impl Service<Request<ClientBody>> for HttpEndpoint {
    type Response = Response<UpstreamBody>;
    type Error = HttpError;
    type Future = HttpFuture;

    /// Always ready: connections are found or made by the call.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ClientBody>) -> HttpFuture {
        let inner = Arc::clone(&self.inner);
        HttpFuture(Box::pin(async move { inner.exchange(request).await }))
    }
}

/// The future of an [`HttpEndpoint`]. Dropped, it takes its connection along, so that the upstream stops.
pub struct HttpFuture(Pin<Box<dyn Future<Output = Result<Response<UpstreamBody>, HttpError>> + Send>>);

impl Future for HttpFuture {
    type Output = Result<Response<UpstreamBody>, HttpError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for HttpFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HttpFuture")
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::endpoint::Endpoint;

    fn resolve(url: &str, connect_to: Option<SocketAddr>) -> Result<Endpoint<HttpEndpoint>, String> {
        let mut endpoint = Endpoint::new(url);
        endpoint.service.connect_to = connect_to;
        endpoint.resolve(Timeouts::default())
    }

    #[test]
    fn the_port_is_that_of_the_url_also_where_the_address_is_known() {
        let known = Some(SocketAddr::from(([10, 0, 0, 1], 1)));
        let mut urls = vec![("http://a", "10.0.0.1:80"), ("http://a:8000/b", "10.0.0.1:8000")];
        if cfg!(feature = "tls") {
            urls.extend([("https://a", "10.0.0.1:443"), ("https://a:80", "10.0.0.1:80")]);
        }
        for (url, address) in urls {
            let endpoint = resolve(url, known).expect("valid");
            assert_eq!(endpoint.service.inner.connections.address(), address);
        }
    }

    #[test]
    fn a_server_beside_it_is_at_the_same_address_unless_it_has_a_host_of_its_own() {
        let known = Some(SocketAddr::from(([10, 0, 0, 1], 1)));
        for (known, url, address) in [
            (known, "http://{host}:9400", "10.0.0.1:9400"),
            (known, "http://b:9400", "b:9400"),
            (None, "http://{host}:9400", "[::1]:9400"),
        ] {
            let endpoint = resolve("http://[::1]:8000", known).expect("valid");
            let beside = HttpEndpoint::beside(&endpoint.service, url).expect("valid");
            assert_eq!(beside.inner.connections.address(), address);
        }
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn without_tls_a_url_that_needs_it_names_the_feature() {
        let problem = resolve("https://a", None).expect_err("no TLS");
        assert!(problem.contains("feature `tls`"), "{problem}");
    }
}
