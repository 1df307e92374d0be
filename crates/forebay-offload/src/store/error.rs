use std::error::Error;

use forebay_core::BoxError;

/// A store could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("job store: {message}")]
pub struct StoreError {
    kind: StoreErrorKind,
    message: String,
    #[source]
    source: Option<BoxError>,
}

/// What kind of [`StoreError`] it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// Another process has the store open.
    InUse,
    /// The store is closed, for good: after a failed write nothing it says could be trusted.
    Closed,
    /// A record could not be read.
    Corrupt,
    /// The store did not answer in time.
    Timeout,
    /// Reading or writing failed.
    Io,
}

impl StoreError {
    /// Makes an error.
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Adds what caused it.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(cause.into());
        self
    }

    /// Returns the kind of the error.
    #[must_use]
    pub const fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Says whether the same call may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Timeout | StoreErrorKind::Io)
    }

    /// Says whether the store did not answer in time.
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Timeout)
    }

    /// Says whether the call may have taken effect nevertheless.
    #[must_use]
    pub const fn outcome_unknown(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Timeout | StoreErrorKind::Io | StoreErrorKind::Closed)
    }
}
