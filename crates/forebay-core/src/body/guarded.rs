use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::{BoxError, Outcome};

/// What a [`Guarded`] body carries: a slot, a count, a permit. Dropped unfinished it means [`Outcome::Cancelled`].
///
/// A guard that knows worse from the response head (a 503) keeps that, whatever the body says.
#[diagnostic::on_unimplemented(note = "`impl BodyGuard for {Self} {{}}` will do where its `Drop` says all")]
pub trait BodyGuard {
    /// Asked before each poll of the body; an `Err` cuts the body with that error.
    ///
    /// # Errors
    ///
    /// When the exchange must not go on, for example because it held its slot for too long.
    fn check(&mut self) -> Result<(), BoxError> {
        Ok(())
    }

    /// Told of the first data frame that is not empty: the "time to first byte" of a stream.
    fn first_data(&mut self) {}

    /// Told once, when the body has ended (`Success`, or what its trailers say: [`Outcome::of_trailers`]) or failed
    /// (`Error`).
    fn finish(self, outcome: Outcome)
    where
        Self: Sized,
    {
        let _ = outcome;
    }
}

pin_project! {
    /// A body that carries a guard until its stream ends, fails or is dropped.
    ///
    /// Frames, trailers and [`SizeHint`] pass as they are. A body that says at once that it is empty (an answer to HEAD,
    /// 204, 304) lets go of its guard in [`new`](Guarded::new); one that knows its end lets go with its last frame, as
    /// nobody may poll for the `None` behind it. Once the guard is gone the inner body is not polled again.
    #[derive(Debug)]
    pub struct Guarded<B, G> {
        // Dropped before the guard: the work is over before its slot is free.
        #[pin]
        body: B,
        guard: Option<G>,
        seen_data: bool,
    }
}

impl<B: Body, G: BodyGuard> Guarded<B, G> {
    /// Wraps `body`, so that `guard` lasts as long as it does.
    #[inline]
    pub fn new(body: B, guard: G) -> Self {
        // First asked, then put together: so it is made where it is to lie, and not moved there.
        let mut guard = Some(guard);
        if body.is_end_stream() {
            finish(&mut guard, Outcome::Success);
        }
        Self { body, guard, seen_data: false }
    }
}

#[inline]
fn finish<G: BodyGuard>(guard: &mut Option<G>, outcome: Outcome) {
    if let Some(guard) = guard.take() {
        guard.finish(outcome);
    }
}

impl<B, G> Body for Guarded<B, G>
where
    B: Body,
    B::Error: Into<BoxError>,
    G: BodyGuard,
{
    type Data = B::Data;
    type Error = BoxError;

    #[inline]
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        let Some(guard) = this.guard.as_mut() else { return Poll::Ready(None) };
        if let Err(cut) = guard.check() {
            finish(this.guard, Outcome::Error);
            return Poll::Ready(Some(Err(cut)));
        }
        match ready!(this.body.as_mut().poll_frame(cx)) {
            Some(Ok(frame)) => {
                let data = frame.data_ref().is_some_and(bytes::Buf::has_remaining);
                if data && !*this.seen_data {
                    *this.seen_data = true;
                    guard.first_data();
                }
                if let Some(trailers) = frame.trailers_ref() {
                    finish(this.guard, Outcome::of_trailers(trailers));
                } else if this.body.is_end_stream() {
                    finish(this.guard, Outcome::Success);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                finish(this.guard, Outcome::Error);
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                finish(this.guard, Outcome::Success);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.guard.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
