use http::{HeaderMap, HeaderName, header};

use crate::{Outcome, Reason};

/// What a caller speaks, and so in which form it can read a refusal.
///
/// ```
/// use forebay_core::Protocol;
///
/// let mut request = http::Request::new(());
/// assert_eq!(Protocol::of(request.headers()), Protocol::Http);
/// request.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc+proto"));
/// assert_eq!(Protocol::of(request.headers()), Protocol::Grpc);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Protocol {
    /// HTTP: the status says it.
    #[default]
    Http,
    /// gRPC over HTTP/2: the status is 200, and `grpc-status` says it. Not gRPC-Web, whose clients read HTTP's status.
    Grpc,
}

impl Protocol {
    /// By the `Content-Type` of a request.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let grpc = headers.get(header::CONTENT_TYPE).and_then(|value| value.as_bytes().strip_prefix(GRPC.as_bytes()));
        if grpc.is_some_and(|rest| matches!(rest, [] | [b'+' | b';', ..])) { Self::Grpc } else { Self::Http }
    }
}

pub(crate) const GRPC: &str = "application/grpc";
pub(crate) static STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) static MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// For how many milliseconds a client's own retries hold off (gRPC proposal A6).
pub(crate) static PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

// The codes of gRPC, and what they are called.
const INVALID_ARGUMENT: u8 = 3;
const DEADLINE_EXCEEDED: u8 = 4;
const RESOURCE_EXHAUSTED: u8 = 8;
const UNAVAILABLE: u8 = 14;

/// The code of a refusal, as `google.rpc.Code` pairs them with HTTP's status.
pub(crate) fn code(reason: Reason) -> u8 {
    match reason.status().as_u16() {
        429 => RESOURCE_EXHAUSTED,
        503 => UNAVAILABLE,
        504 => DEADLINE_EXCEEDED,
        _ => INVALID_ARGUMENT,
    }
}

/// What `grpc-status` says of whoever answered, in a head or in trailers; `None`: there is none.
pub(crate) fn outcome(headers: &HeaderMap) -> Option<Outcome> {
    let code = headers.get(&STATUS)?.to_str().ok().and_then(|code| code.parse::<u8>().ok());
    Some(match code {
        Some(RESOURCE_EXHAUSTED | UNAVAILABLE) => Outcome::Overload,
        // Unknown (an exception, by many servers), internal, data loss; and what is no code.
        Some(2 | 13 | 15) | None => Outcome::Error,
        Some(_) => Outcome::Success,
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn grpc_is_known_by_its_content_type() {
        let of = |value: &'static str| {
            Protocol::of(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))]))
        };
        for grpc in ["application/grpc", "application/grpc+proto", "application/grpc;x=y"] {
            assert_eq!(of(grpc), Protocol::Grpc, "{grpc}");
        }
        for other in ["application/grpc-web", "application/grpc-web-text+proto", "application/json", "", "grpc"] {
            assert_eq!(of(other), Protocol::Http, "{other}");
        }
        assert_eq!(Protocol::of(&HeaderMap::new()), Protocol::Http);
    }

    #[test]
    fn grpc_status_is_an_outcome() {
        let of =
            |value: &'static str| outcome(&HeaderMap::from_iter([(STATUS.clone(), HeaderValue::from_static(value))]));
        let success = ["0", "1", "3", "4", "5", "6", "7", "9", "10", "11", "12", "16", "200"];
        success.iter().for_each(|code| assert_eq!(of(code), Some(Outcome::Success), "{code}"));
        ["8", "14"].iter().for_each(|code| assert_eq!(of(code), Some(Outcome::Overload), "{code}"));
        let errors = ["2", "13", "15", "", "-1", "OK", "1e9"];
        errors.iter().for_each(|code| assert_eq!(of(code), Some(Outcome::Error), "{code}"));
        assert_eq!(outcome(&HeaderMap::new()), None);
    }
}
