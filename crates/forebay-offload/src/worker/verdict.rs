use std::{fmt, time::Duration};

use forebay_core::BoxError;
use http::{HeaderMap, StatusCode, header, response};

/// How an attempt went, as far as a verdict needs it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Exchange<'a> {
    /// The head of an answer has come.
    Head(&'a response::Parts),
    /// The service failed, or the body of its answer broke off.
    Failed(&'a BoxError),
    /// The attempt took longer than the job allows.
    TimedOut,
}

/// What is to become of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Decision {
    /// The answer counts.
    Done,
    /// Another attempt may help.
    Retry,
    /// Another attempt would not help.
    Fail,
}

impl Decision {
    /// Decides as workers do unless told otherwise: errors, timeouts and the statuses 408, 425, 429 and 5xx but 501 and
    /// 505 are worth another attempt; any other answer counts.
    #[must_use]
    pub fn by_default(exchange: &Exchange<'_>) -> Self {
        match exchange {
            Exchange::Failed(_) | Exchange::TimedOut => Self::Retry,
            Exchange::Head(head) => match head.status.as_u16() {
                408 | 425 | 429 => Self::Retry,
                501 | 505 => Self::Done,
                500..=599 => Self::Retry,
                _ => Self::Done,
            },
        }
    }
}

type DecideFn = dyn Fn(&Exchange<'_>) -> Decision + Send + Sync;

pub(super) struct Decide(pub(super) Box<DecideFn>);

impl fmt::Debug for Decide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decide(..)")
    }
}

/// Reads `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3) as seen at `now_ms`.
pub(super) fn retry_after_ms(status: StatusCode, headers: &HeaderMap, now_ms: u64) -> u64 {
    if status.is_success() {
        return 0;
    }
    let Some(text) = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()) else { return 0 };
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return seconds.saturating_mul(1_000);
    }
    httpdate::parse_http_date(text)
        .ok()
        .and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok())
        .and_then(|date| date.checked_sub(Duration::from_millis(now_ms)))
        .map_or(0, |wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Response, StatusCode};

    use super::{Decision, Exchange, retry_after_ms};

    #[test]
    fn statuses_are_judged() {
        for (status, decision) in [
            (200, Decision::Done),
            (404, Decision::Done),
            (408, Decision::Retry),
            (429, Decision::Retry),
            (501, Decision::Done),
            (503, Decision::Retry),
            (529, Decision::Retry),
        ] {
            let (head, ()) = Response::builder().status(status).body(()).unwrap().into_parts();
            assert_eq!(Decision::by_default(&Exchange::Head(&head)), decision, "{status}");
        }
    }

    #[test]
    fn both_forms_of_retry_after() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", HeaderValue::from_str(text).unwrap());
            retry_after_ms(StatusCode::SERVICE_UNAVAILABLE, &headers, 784_111_770_000)
        };
        assert_eq!(read("7"), 7_000);
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), 7_000);
        assert_eq!(read("Sun, 06 Nov 1993 08:49:37 GMT"), 0);
        assert_eq!(read("soon"), 0);
    }
}
