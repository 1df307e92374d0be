use http::{Extensions, HeaderMap, Method, Request, Uri, Version, request::Parts};

/// All of a request but its body: what classifiers, cache-key and cost functions see.
///
/// ```
/// use forebay_core::RequestHead;
/// let request = http::Request::get("/v1/models").body(()).unwrap();
/// assert_eq!(RequestHead::from(&request).uri.path(), "/v1/models");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// The request target.
    pub uri: &'a Uri,
    /// The HTTP version.
    pub version: Version,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// What the layers further out have left.
    pub extensions: &'a Extensions,
}

impl<'a, B> From<&'a Request<B>> for RequestHead<'a> {
    fn from(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}

impl<'a> From<&'a Parts> for RequestHead<'a> {
    fn from(parts: &'a Parts) -> Self {
        Self {
            method: &parts.method,
            uri: &parts.uri,
            version: parts.version,
            headers: &parts.headers,
            extensions: &parts.extensions,
        }
    }
}

/// Requests with an equal key belong together: a batch, a session, a prompt prefix. A request extension.
///
/// The value is the caller's own hash and must be the same in all processes; jobs keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AffinityKey(pub u64);
