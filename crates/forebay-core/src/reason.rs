use http::StatusCode;

/// Why a layer refused a request.
///
/// A 429 says "not you, not now" and makes no outer balancer eject a healthy gateway; a 503 says that the whole service
/// cannot serve; both come with `Retry-After`. With 400, 408, 413 and 422 the caller must change the request first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The queue of its class is full (429).
    QueueFull,
    /// It waited as long as its class may wait (429).
    QueueTimeout,
    /// A more urgent request took its place in the queue (429).
    Evicted,
    /// The service is overloaded (429).
    Overloaded,
    /// It could not have been answered before its deadline (429).
    DeadlineInfeasible,
    /// Every backend that may serve it is full (429).
    AtCapacity,
    /// There is no capacity at all: the limit is zero (503).
    NoCapacity,
    /// No backend is available (503).
    NoEndpoint,
    /// The service is shutting down (503).
    ShuttingDown,
    /// The job store does not answer (503).
    StoreUnavailable,
    /// Its deadline has passed (504): the only reason that makes no promise that the backend never saw it.
    DeadlineExceeded,
    /// The idempotency key is malformed (400).
    KeyInvalid,
    /// The request body broke off before its end (400).
    BodyBroken,
    /// The request body did not arrive in time (408).
    BodyTimeout,
    /// The request body is larger than what may be stored (413).
    TooLarge,
    /// The idempotency key was used for another request (422).
    KeyMismatch,
    /// The memory for request bodies is used up (503).
    BufferFull,
}

impl Reason {
    /// All reasons, in order: for metric labels that should be there before the first refusal.
    pub const ALL: &'static [Self] = &[
        Self::QueueFull,
        Self::QueueTimeout,
        Self::Evicted,
        Self::Overloaded,
        Self::DeadlineInfeasible,
        Self::AtCapacity,
        Self::NoCapacity,
        Self::NoEndpoint,
        Self::ShuttingDown,
        Self::StoreUnavailable,
        Self::DeadlineExceeded,
        Self::KeyInvalid,
        Self::BodyBroken,
        Self::BodyTimeout,
        Self::TooLarge,
        Self::KeyMismatch,
        Self::BufferFull,
    ];

    /// The status of the refusal.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::QueueFull
            | Self::QueueTimeout
            | Self::Evicted
            | Self::Overloaded
            | Self::DeadlineInfeasible
            | Self::AtCapacity => StatusCode::TOO_MANY_REQUESTS,
            Self::NoCapacity | Self::NoEndpoint | Self::ShuttingDown | Self::StoreUnavailable | Self::BufferFull => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::KeyInvalid | Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::KeyMismatch => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }

    /// The name of the reason: the metric label, and the tail of the problem's `type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::QueueTimeout => "queue-timeout",
            Self::Evicted => "evicted",
            Self::Overloaded => "overloaded",
            Self::DeadlineInfeasible => "deadline-infeasible",
            Self::AtCapacity => "at-capacity",
            Self::NoCapacity => "no-capacity",
            Self::NoEndpoint => "no-endpoint",
            Self::ShuttingDown => "shutting-down",
            Self::StoreUnavailable => "store-unavailable",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::KeyInvalid => "key-invalid",
            Self::BodyBroken => "body-broken",
            Self::BodyTimeout => "body-timeout",
            Self::TooLarge => "too-large",
            Self::KeyMismatch => "key-mismatch",
            Self::BufferFull => "buffer-full",
        }
    }

    /// One sentence for the caller: what happened and what to do.
    pub(crate) const fn detail(self) -> &'static str {
        match self {
            Self::QueueFull => "the queue of this priority class is full; retry after the given time",
            Self::QueueTimeout => "no place came free within the queue timeout of this class; retry later",
            Self::Evicted => "a more urgent request took the place in the queue; retry later",
            Self::Overloaded => "the service is overloaded; retry later",
            Self::DeadlineInfeasible => {
                "the answer could not arrive before its deadline; retry later, or allow more time"
            }
            Self::AtCapacity => "every backend is busy; retry later",
            Self::NoCapacity => "the service has no capacity at present; retry later",
            Self::NoEndpoint => "no backend is available; retry later",
            Self::ShuttingDown => "this instance is shutting down; retry, another one will answer",
            Self::StoreUnavailable => "the job store does not answer; retry later",
            Self::DeadlineExceeded => "the deadline passed before an answer was there",
            Self::KeyInvalid => "Idempotency-Key must be 1 to 255 visible ASCII characters, once",
            Self::BodyBroken => "the request body broke off before its end; send all of it",
            Self::BodyTimeout => "the request body did not arrive in time; send it faster",
            Self::TooLarge => "the request body is too large to be stored as a job",
            Self::KeyMismatch => "this Idempotency-Key was used for another request; use a new one",
            Self::BufferFull => "too many request bodies are being received or waiting; retry later",
        }
    }

    /// Whether the refusal names a time to come back.
    pub(crate) const fn has_retry_after(self) -> bool {
        matches!(self.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_reasons_are_in_the_list_in_order() {
        assert!(Reason::ALL.iter().enumerate().all(|(index, reason)| *reason as usize == index));
        assert_eq!(Reason::ALL.last(), Some(&Reason::BufferFull), "the last one there is");
    }
}
