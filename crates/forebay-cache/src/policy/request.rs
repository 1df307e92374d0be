//! What kind of request it is, from its head alone.

use forebay_core::RequestHead;
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Version};

use crate::config::JsonRoute;

/// Bodies on a JSON route are read up to here; larger ones pass.
pub(crate) const MAX_BODY: usize = 1 << 20;

const OVERRIDES: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];
const PARTIAL: [HeaderName; 6] = [RANGE, IF_RANGE, IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE];

/// What a request is to the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// gRPC, an upgrade, CONNECT: none of our business.
    Untouched,
    /// Passed on, neither looked up nor recorded.
    Bypass,
    /// GET or HEAD.
    Get,
    /// A question to the JSON route of this index, if its body is one.
    Json(usize),
    /// It may change the resource.
    Unsafe,
}

/// The kind of the request; `empty`: it has no body.
pub(crate) fn kind(head: &RequestHead<'_>, empty: bool, routes: &[JsonRoute]) -> Kind {
    let headers = head.headers;
    let content_type = media_type(headers);
    // Only HTTP/1.1 upgrades by field; an extended CONNECT of h2 is a CONNECT.
    let upgrade = headers.contains_key(UPGRADE) && head.version < Version::HTTP_2;
    if head.method == Method::CONNECT || upgrade || content_type.starts_with("application/grpc") {
        return Kind::Untouched;
    }
    let overridden = OVERRIDES.iter().any(|name| headers.contains_key(name));
    if head.method == Method::GET || head.method == Method::HEAD {
        let body = !empty
            || headers.contains_key(TRANSFER_ENCODING)
            || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
        let partial = PARTIAL.iter().any(|name| headers.contains_key(name));
        return if body || partial || overridden { Kind::Bypass } else { Kind::Get };
    }
    let asked = head.method == Method::POST && !overridden;
    if let Some(route) = routes.iter().position(|route| asked && route.path() == head.uri.path()) {
        let too_large = content_length(headers).is_some_and(|length| length > MAX_BODY as u64);
        let odd = [CONTENT_ENCODING, TRAILER].iter().any(|name| headers.contains_key(name));
        let plain = content_type == "application/json" && !too_large && !odd;
        return if plain { Kind::Json(route) } else { Kind::Bypass };
    }
    if head.method.is_safe() { Kind::Bypass } else { Kind::Unsafe }
}

/// The media type, without parameters, in lower case; empty if there is none.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
