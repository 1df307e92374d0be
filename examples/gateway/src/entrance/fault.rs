use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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

/// Counts of the request bodies that were refused, by reason.
#[derive(Debug, Default)]
pub(crate) struct Refused([AtomicU64; 4]);

const REASONS: [Reason; 4] = [Reason::TooLarge, Reason::BodyBroken, Reason::BodyTimeout, Reason::BufferFull];

impl Refused {
    fn row(&self, reason: Reason) -> Option<&AtomicU64> {
        REASONS.iter().position(|&known| known == reason).map(|at| &self.0[at])
    }

    pub(super) fn count(&self, reason: Reason) {
        if let Some(row) = self.row(reason) {
            row.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn of(&self, reason: Reason) -> u64 {
        self.row(reason).map_or(0, |row| row.load(Relaxed))
    }
}
