use std::sync::Arc;

use forebay_core::{BodyGuard, BoxError, Outcome};
use http::{HeaderMap, StatusCode, header};

use crate::config::ReleaseOn;
use crate::permit::Permit;
use crate::policy::Tick;
use crate::shared::Shared;

/// What a response body holds: its seat, until the body has ended, however it ends, or until its first data if that was
/// asked for.
#[derive(Debug)]
pub struct Seat {
    permit: Option<Permit>,
}

/// Why an exchange lost its seat to another request; its body ends with this error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SeatRevoked {
    /// It was held for longer than its class may: [`max_hold`](field@crate::ClassConfig::max_hold).
    #[error("the exchange held its seat for longer than its class may")]
    MaxHold,
    /// Its reader had stopped: [`stall`](field@crate::PriorityConfig::stall).
    #[error("the exchange lost its seat, as its reader had stopped")]
    ReaderStalled,
}

/// The layer, the class, and when the seat is taken away in any case.
pub(crate) type HowWatched = (Arc<Shared>, u8, Tick);

impl Seat {
    /// A seat for the body behind this head.
    #[inline]
    pub(crate) fn new(mut permit: Permit, status: StatusCode, headers: &HeaderMap, tunnel: bool) -> Self {
        let on = permit.shared().settings.release;
        let head = Outcome::of_head(status, headers);
        if permit.is_timed() && head == Outcome::Success && !status.is_client_error() && !streams(headers) {
            permit.first_byte(false); // of a stream the head comes before the first token: it says nothing
        }
        if head == Outcome::Overload {
            permit.overloaded(); // now, as nobody may read the body
        }
        if head != Outcome::Success {
            permit.fail();
        }
        let mut seat = Self { permit: Some(permit) };
        if on == ReleaseOn::Headers || tunnel {
            seat.end(head);
        }
        seat
    }

    /// No seat: for an exchange that needs none.
    pub(crate) const fn none() -> Self {
        Self { permit: None }
    }

    /// What it takes to watch the reader of its body: the layer, the class, and when the seat is taken away in any case.
    /// `None`: there is no seat, or nothing takes it away.
    pub(crate) fn watch(&self) -> Option<HowWatched> {
        let permit = self.permit.as_ref().filter(|_| self.is_watched())?;
        Some((Arc::clone(permit.shared()), permit.class(), permit.hold_ends()))
    }

    /// Whether something takes it away.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.permit.as_ref().is_some_and(|permit| permit.shared().watches() || permit.is_bounded())
    }

    #[inline]
    fn end(&mut self, outcome: Outcome) {
        if let Some(mut permit) = self.permit.take() {
            permit.end(outcome);
        }
    }
}

/// Media types whose servers send the head before they have begun to work.
fn streams(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        let is = |media: &[u8]| value.get(..media.len()).is_some_and(|start| start.eq_ignore_ascii_case(media));
        is(b"text/event-stream") || is(b"application/x-ndjson") || is(b"application/grpc")
    })
}

impl BodyGuard for Seat {
    #[inline]
    fn check(&mut self) -> Result<(), BoxError> {
        if self.permit.as_ref().is_some_and(Permit::is_revoked) { Err(SeatRevoked::MaxHold.into()) } else { Ok(()) }
    }

    #[inline]
    fn first_data(&mut self) {
        let Some(permit) = &mut self.permit else { return };
        if !permit.is_failed() {
            permit.first_byte(true);
        }
        permit.shrink();
        if permit.shared().settings.release == ReleaseOn::FirstFrame {
            self.end(Outcome::Success);
        }
    }

    #[inline]
    fn finish(mut self, outcome: Outcome) {
        self.end(outcome); // what the head said stands, if it is worse
    }
}
