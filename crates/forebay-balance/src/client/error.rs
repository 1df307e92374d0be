use std::error::Error as _;
use std::sync::Mutex;
use std::time::Duration;

use forebay_core::BoxError;
use http::{Request, StatusCode};

use crate::client::ClientBody;
use crate::redial::Undispatched;

/// Why an upstream gave no answer. Its text names no address: it may reach a client.
#[derive(Debug, thiserror::Error)]
#[error("{kind}")]
pub struct HttpError {
    kind: Kind,
    #[source]
    source: Option<BoxError>,
    /// There if it never left, or was not taken and can be sent again. In a mutex only to be `Sync`, as errors are.
    request: Mutex<Option<Box<Request<ClientBody>>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Kind {
    #[error("cannot connect to the upstream")]
    Connect,
    #[error("connecting to the upstream took too long")]
    ConnectTimeout,
    #[cfg(feature = "tls")]
    #[error("no TLS session with the upstream came about")]
    Tls,
    #[cfg(feature = "tls")]
    #[error("the upstream does not offer the HTTP version asked for over TLS")]
    Alpn,
    #[error("the upstream closed the connection before it took the request")]
    Closed,
    #[error("the upstream refused the request before it worked on it")]
    Refused,
    #[error("the upstream broke off or did not speak HTTP")]
    Exchange,
}

impl HttpError {
    /// A failure of a request that provably was not processed.
    pub(crate) fn undispatched(kind: Kind, source: impl Into<BoxError>, request: Request<ClientBody>) -> Self {
        Self { kind, source: Some(source.into()), request: Mutex::new(Some(Box::new(request))) }
    }

    /// A failure after which nobody knows what the upstream has done.
    pub(crate) fn exchange(source: impl Into<BoxError>) -> Self {
        Self { kind: Kind::Exchange, source: Some(source.into()), request: Mutex::new(None) }
    }

    /// Whether no connection came about, or no TLS session on it: nothing was sent.
    #[must_use]
    pub const fn is_connect(&self) -> bool {
        !matches!(self.kind, Kind::Closed | Kind::Refused | Kind::Exchange)
    }

    /// Whether it took too long.
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(self.kind, Kind::ConnectTimeout)
    }

    /// What a gateway answers: 504 for a timeout, else 502.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        if self.is_timeout() { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::BAD_GATEWAY }
    }
}

/// The reason why the body of an answer failed. Its text names no address.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct AnswerError(AnswerFault);

#[derive(Debug, thiserror::Error)]
enum AnswerFault {
    #[error("the upstream broke off its answer")]
    Broken(#[source] BoxError),
    #[error("the upstream was silent for {0:?} in the middle of its answer")]
    Silent(Duration),
}

impl AnswerError {
    pub(crate) fn broken(source: impl Into<BoxError>) -> Self {
        Self(AnswerFault::Broken(source.into()))
    }

    pub(crate) const fn silent(time: Duration) -> Self {
        Self(AnswerFault::Silent(time))
    }

    /// Returns true if the upstream was silent for the idle timeout.
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(self.0, AnswerFault::Silent(_))
    }
}

/// How the upstream says that it has not processed the request and will not: it refused its stream, or went away with a
/// last stream below it. RFC 9113, sections 6.8 and 8.7.
pub(crate) fn unprocessed(error: &hyper::Error) -> Option<Kind> {
    let error = error.source()?.downcast_ref::<h2::Error>().filter(|error| error.is_remote())?;
    match error.reason() {
        _ if error.is_go_away() => Some(Kind::Closed),
        Some(h2::Reason::REFUSED_STREAM) => Some(Kind::Refused),
        _ => None,
    }
}

impl Undispatched<Request<ClientBody>> for HttpError {
    fn take_request(&mut self) -> Option<Request<ClientBody>> {
        let request = self.request.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        request.take().map(|request| *request)
    }

    /// A stream that was refused: the connection is full, or about to be closed.
    fn is_busy(&self) -> bool {
        matches!(self.kind, Kind::Refused)
    }
}
