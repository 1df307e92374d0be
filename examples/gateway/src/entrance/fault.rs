use forebay_core::Reason;

use super::budget::Full;

/// Why a request body is not received.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("the request body is too long")]
    TooLong,
    #[error("the request body broke off before its end")]
    Broken(#[source] axum::Error),
    #[error("the request body came too slowly")]
    Slow,
    #[error("there is no memory for the request body at present")]
    Full,
}

impl Fault {
    pub(super) const fn reason(&self) -> Reason {
        match self {
            Self::TooLong => Reason::TooLarge,
            Self::Broken(_) => Reason::BodyBroken,
            Self::Slow => Reason::BodyTimeout,
            Self::Full => Reason::BufferFull,
        }
    }
}

impl From<Full> for Fault {
    fn from(_: Full) -> Self {
        Self::Full
    }
}
