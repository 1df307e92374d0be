use http::{HeaderMap, StatusCode};

use crate::protocol;

/// How an exchange ended, as seen by whoever counts, balances or limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was answered; a client's own error (4xx) is a success of the server.
    Success,
    /// The server said that it is busy: 429, 503 or 529; gRPC's `RESOURCE_EXHAUSTED` or `UNAVAILABLE`.
    Overload,
    /// Another 5xx, or a broken connection or body; gRPC's `UNKNOWN`, `INTERNAL` or `DATA_LOSS`.
    Error,
    /// Nobody waited for the end.
    Cancelled,
}

impl Outcome {
    /// What a response head says: 429, 503, 529 are overload, other 5xx an error, all else success.
    #[must_use]
    pub fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            429 | 503 | 529 => Self::Overload,
            500.. => Self::Error,
            _ => Self::Success,
        }
    }

    /// What a response head says, by its status and by the `grpc-status` that a gRPC error without a body has there.
    #[must_use]
    pub fn of_head(status: StatusCode, headers: &HeaderMap) -> Self {
        match Self::of_status(status) {
            Self::Success => protocol::outcome(headers).unwrap_or(Self::Success),
            worse => worse,
        }
    }

    /// What the end of a body says, by the `grpc-status` in its trailers; without one it has ended well.
    #[must_use]
    pub fn of_trailers(trailers: &HeaderMap) -> Self {
        protocol::outcome(trailers).unwrap_or(Self::Success)
    }

    /// The lower-case name: for metric labels and log fields.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Overload => "overload",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_sort_into_three() {
        let of = |code| Outcome::of_status(StatusCode::from_u16(code).expect("a legal status"));
        assert_eq!([200, 304, 404, 499].map(of), [Outcome::Success; 4]);
        assert_eq!([429, 503, 529].map(of), [Outcome::Overload; 3]);
        assert_eq!([500, 502, 504, 599].map(of), [Outcome::Error; 4]);
    }

    #[test]
    fn grpc_says_in_a_field_what_its_status_does_not() {
        let busy = HeaderMap::from_iter([(protocol::STATUS.clone(), http::HeaderValue::from_static("14"))]);
        assert_eq!(Outcome::of_head(StatusCode::OK, &busy), Outcome::Overload);
        assert_eq!(Outcome::of_head(StatusCode::BAD_GATEWAY, &busy), Outcome::Error, "the status is worse");
        assert_eq!(Outcome::of_head(StatusCode::OK, &HeaderMap::new()), Outcome::Success);
        assert_eq!(Outcome::of_trailers(&busy), Outcome::Overload);
        assert_eq!(Outcome::of_trailers(&HeaderMap::new()), Outcome::Success);
    }
}
