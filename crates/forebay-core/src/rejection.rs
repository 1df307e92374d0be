use std::collections::hash_map::RandomState;
use std::fmt::{self, Write as _};
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, header};

use crate::protocol::{self, GRPC, MESSAGE, PUSHBACK, STATUS};
use crate::{Class, Protocol, Reason};

/// A refusal: why, for whom, how long it waited, and when to come back.
///
/// [`into_response`](Self::into_response) renders it as RFC 9457 `application/problem+json`,
/// [`into_response_for`](Self::into_response_for) as what the caller can read, and leaves it in the response extensions. There it is a promise to the layers outside that the backend never saw the request
/// ([`Reason::DeadlineExceeded`] excepted): it may be run later or elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejection {
    /// Why.
    pub reason: Reason,
    /// The class it was refused in, if known.
    pub class: Option<Class>,
    /// How long the request waited before the refusal.
    pub waited: Duration,
    /// When it makes sense to come back; `None` means 1 s where the status calls for `Retry-After` at all.
    pub retry_after: Option<Duration>,
}

impl Rejection {
    /// A refusal for this reason, without class, waiting time and hint.
    #[must_use]
    pub const fn new(reason: Reason) -> Self {
        Self { reason, class: None, waited: Duration::ZERO, retry_after: None }
    }

    /// Sets the class that it was refused in.
    #[must_use]
    pub const fn class(mut self, class: Class) -> Self {
        self.class = Some(class);
        self
    }

    /// Sets how long the request waited.
    #[must_use]
    pub const fn waited(mut self, waited: Duration) -> Self {
        self.waited = waited;
        self
    }

    /// Sets when it makes sense to come back.
    #[must_use]
    pub const fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The response: the status of the reason, a problem document (RFC 9457), `Retry-After` with 429 and 503, and this
    /// value in the extensions.
    ///
    /// `Retry-After` is in whole seconds, rounded up, plus up to a quarter (at least: sometimes one second) at random,
    /// so that the refused do not all come back in the same instant.
    #[must_use]
    pub fn into_response(self) -> Response<Bytes> {
        let retry_after = self.seconds();
        let mut response = Response::new(Bytes::from(self.problem(retry_after)));
        *response.status_mut() = self.reason.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }

    /// The response that this caller can read: [`into_response`](Self::into_response), or for gRPC an error without a body
    /// ("Trailers-Only"): `RESOURCE_EXHAUSTED` where HTTP says 429, `UNAVAILABLE` for 503, `DEADLINE_EXCEEDED` for 504,
    /// `INVALID_ARGUMENT` for what the caller must change, with the reason in the message.
    ///
    /// With the first two comes `grpc-retry-pushback-ms`, the time of `Retry-After`: retries that a client's service config
    /// asks for wait for so long (gRPC proposal A6).
    #[must_use]
    pub fn into_response_for(self, caller: Protocol) -> Response<Bytes> {
        if caller == Protocol::Http {
            return self.into_response();
        }
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(GRPC));
        headers.insert(STATUS.clone(), HeaderValue::from(u16::from(protocol::code(self.reason))));
        // Our own words: visible ASCII without a percent sign, so they are their own encoding.
        let message = format!("{}: {}", self.reason.as_str(), self.reason.detail());
        if let Ok(message) = HeaderValue::try_from(message) {
            headers.insert(MESSAGE.clone(), message);
        }
        if let Some(seconds) = self.seconds() {
            let millis = i32::try_from(seconds.saturating_mul(1000)).unwrap_or(i32::MAX); // its type in gRPC
            headers.insert(PUSHBACK.clone(), HeaderValue::from(millis));
        }
        response.extensions_mut().insert(self);
        response
    }

    /// When to come back, with jitter, where the status calls for that.
    fn seconds(&self) -> Option<u64> {
        self.reason.has_retry_after().then(|| {
            let after = self.retry_after.unwrap_or(Duration::from_secs(1));
            jittered_seconds(after, RandomState::new().build_hasher().finish())
        })
    }

    /// Every text in it is our own, so nothing needs escaping.
    fn problem(&self, retry_after: Option<u64>) -> String {
        let status = self.reason.status();
        let mut json = format!(
            r#"{{"type":"urn:forebay:problem:{}","title":"{}","status":{},"detail":"{}""#,
            self.reason.as_str(),
            status.canonical_reason().unwrap_or("Refused"),
            status.as_u16(),
            self.reason.detail(),
        );
        // Writing to a String cannot fail.
        if let Some(class) = self.class {
            let _ = write!(json, r#","class":"{class}""#);
        }
        let _ = write!(json, r#","waited_ms":{}"#, self.waited.as_millis());
        if let Some(seconds) = retry_after {
            let _ = write!(json, r#","retry_after":{seconds}"#);
        }
        json.push('}');
        json
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused ({}): {}", self.reason.as_str(), self.reason.detail())
    }
}

impl std::error::Error for Rejection {}

/// Whole seconds, at least 1, plus 0 to a quarter (and never always nothing): `random` is any 64 random bits.
fn jittered_seconds(after: Duration, random: u64) -> u64 {
    let whole = after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0)).max(1);
    // 2^53 equal steps in [0, 1).
    let share = (random >> 11) as f64 / (1_u64 << 53) as f64;
    whole.saturating_add((share * (whole as f64 * 0.25 + 1.0)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_problem_document() {
        let rejection = Rejection::new(Reason::QueueTimeout)
            .class(Class::P1)
            .waited(Duration::from_millis(1000))
            .retry_after(Duration::from_secs(4));
        let response = rejection.clone().into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.extensions().get::<Rejection>(), Some(&rejection));
        let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((4..=5).contains(&seconds), "{seconds}");
        let expected = format!(
            r#"{{"type":"urn:forebay:problem:queue-timeout","title":"Too Many Requests","status":429,"detail":"no place came free within the queue timeout of this class; retry later","class":"P1","waited_ms":1000,"retry_after":{seconds}}}"#
        );
        assert_eq!(response.body(), &expected);
    }

    #[test]
    fn only_429_and_503_name_a_time() {
        for (reason, named) in [
            (Reason::AtCapacity, true),
            (Reason::ShuttingDown, true),
            (Reason::DeadlineExceeded, false),
            (Reason::TooLarge, false),
            (Reason::KeyMismatch, false),
        ] {
            let response = Rejection::new(reason).retry_after(Duration::from_secs(3)).into_response();
            assert_eq!(response.headers().contains_key("retry-after"), named, "{reason:?}");
            assert_eq!(response.status(), reason.status());
        }
    }

    #[test]
    fn r33_a_grpc_client_gets_a_status_a_message_and_a_time() {
        for (reason, code, timed) in [
            (Reason::QueueFull, "8", true),
            (Reason::NoEndpoint, "14", true),
            (Reason::DeadlineExceeded, "4", false),
            (Reason::KeyInvalid, "3", false),
        ] {
            let rejection = Rejection::new(reason).retry_after(Duration::from_secs(3));
            let response = rejection.clone().into_response_for(Protocol::Grpc);
            let headers = response.headers();
            assert_eq!((response.status().as_u16(), &headers["content-type"]), (200, &HeaderValue::from_static(GRPC)));
            assert_eq!(headers["grpc-status"], code, "{reason:?}");
            let message = headers["grpc-message"].to_str().expect("text");
            assert!(message.starts_with(reason.as_str()) && !message.contains('%'), "{message}");
            let millis = headers.get("grpc-retry-pushback-ms").map(|millis| millis.to_str().expect("text"));
            assert!(if timed { matches!(millis, Some("3000" | "4000")) } else { millis.is_none() }, "{millis:?}");
            assert!(response.body().is_empty() && !headers.contains_key("retry-after"));
            assert_eq!(response.extensions().get::<Rejection>(), Some(&rejection));
        }
        let problem = Rejection::new(Reason::QueueFull).into_response_for(Protocol::Http);
        assert_eq!(problem.headers()["content-type"], "application/problem+json");
    }

    #[test]
    fn jitter_adds_at_most_a_quarter_or_one_second_and_never_takes() {
        for (millis, least, most) in [(0, 1, 2), (1, 1, 2), (1000, 1, 2), (1001, 2, 3), (60_000, 60, 75)] {
            let after = Duration::from_millis(millis);
            assert_eq!(jittered_seconds(after, 0), least);
            assert!(jittered_seconds(after, u64::MAX) <= most, "{millis}");
        }
        assert!(jittered_seconds(Duration::MAX, u64::MAX) >= 1); // no overflow
        let spread: std::collections::HashSet<_> = (0..64)
            .map(|_| Rejection::new(Reason::QueueFull).retry_after(Duration::from_secs(60)).into_response())
            .map(|response| response.headers()["retry-after"].clone())
            .collect();
        assert!(spread.len() > 1, "64 refusals, one Retry-After");
    }
}
