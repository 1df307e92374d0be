//! The response body: the one from inside and its seat, where they can be taken away together.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use forebay_core::{BodyGuard as _, BoxError, Guarded, Outcome, ResBody};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::policy::{Tick, Ticket};
use crate::reader::Reader;
use crate::seat::{HowWatched, Seat, SeatRevoked};
use crate::shared::Shared;

/// The response body of a [`Priority`](crate::Priority): a refusal, or the body from inside with its [`Seat`].
pub type PriorityBody<R> = ResBody<SeatedBody<R>>;

pin_project! {
    /// A body from inside that holds a [`Seat`] until it ends.
    ///
    /// Where its reader is watched, one that has stopped loses body and seat when another request waits; the next poll
    /// returns [`SeatRevoked`] then.
    pub struct SeatedBody<R> {
        #[pin]
        kind: Kind<R>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<R> {
        // Has no seat, or one that nothing takes away.
        Kept { #[pin] body: Guarded<R, Seat> },
        // In boxes, as a body is moved more often than it is either of these.
        Watched { watch: Box<Watch<R>> },
        // Has let go of its seat; without a body, what was read ahead is its end.
        Read { rest: Box<(Ahead, Option<Pin<Box<R>>>)> },
    }
}

/// A body that may be taken away, and its place among those that are watched.
struct Watch<R> {
    answer: Arc<Answer<R>>,
    shared: Arc<Shared>,
    ticket: Ticket,
    /// Read before the reader asked for anything.
    ahead: Ahead,
    /// The end of a body that was taken away has been told.
    told: bool,
}

/// A frame that was read before the reader asked for anything.
type Ahead = Option<Result<Frame<Bytes>, BoxError>>;

/// A body that can be moved into its place after it was polled.
type Movable<R> = Guarded<Pin<Box<R>>, Seat>;

/// The body until it is taken away, and what tells its reader that it was.
struct Source<R> {
    body: Option<Movable<R>>,
    /// The task that waits for the next frame. The body knows it as well, and forgets it when it is dropped.
    waker: Option<Waker>,
}

struct Answer<R> {
    source: Mutex<Source<R>>,
    reader: Reader,
    /// The time at which its seat is taken away in any case.
    hold_ends: Tick,
    class: u8,
}

/// An answer that may lose its seat.
pub(crate) trait Revocable: Send + Sync {
    /// Returns when the answer must have ended, as far as is known now.
    fn until(&self) -> Tick;

    /// Drops the body, and its seat with it, if that is over. Returns its class, if it was the reader that had stopped.
    fn revoke(&self, now: Tick) -> Option<u8>;
}

impl<R: Send> Revocable for Answer<R> {
    fn until(&self) -> Tick {
        self.reader.until().min(self.hold_ends)
    }

    fn revoke(&self, now: Tick) -> Option<u8> {
        let mut source = match self.source.try_lock() {
            Ok(source) => source,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None, // it is being read
        };
        // The reader may have come back since a waiter looked.
        if self.until() > now {
            return None;
        }
        let (body, waker) = (source.body.take()?, source.waker.take());
        drop(source);
        drop(body); // outside its lock
        if let Some(waker) = waker {
            waker.wake(); // nothing else will
        }
        (now < self.hold_ends).then_some(self.class)
    }
}

impl<R> Answer<R> {
    fn lock(&self) -> MutexGuard<'_, Source<R>> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R> SeatedBody<R>
where
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    /// A body behind its seat. One of known length that is whole with its first frame, as a text in memory is, lets go of
    /// its seat here: nothing is left to be done for it, however slowly it is read.
    #[inline]
    pub(crate) fn new(body: R, seat: Seat, cx: &mut Context<'_>) -> PriorityBody<R> {
        if seat.is_watched() && !body.is_end_stream() {
            return Self::watched(body, seat, cx);
        }
        ResBody::passed(Self { kind: Kind::Kept { body: Guarded::new(body, seat) } })
    }

    fn watched(body: R, mut seat: Seat, cx: &mut Context<'_>) -> PriorityBody<R> {
        let known = body.size_hint().exact().is_some();
        let (mut body, mut ahead) = (Box::pin(body), None);
        if known && let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(cx) {
            let frame = frame.map(Frame::into_data).map_err(Into::into);
            if let Ok(Ok(data)) = &frame
                && !data.is_empty()
            {
                seat.first_data();
            }
            let (outcome, end) = match frame {
                Ok(Ok(data)) if body.is_end_stream() => {
                    seat.finish(Outcome::Success);
                    return ResBody::answer(data);
                }
                Ok(Ok(data)) => (None, Ok(Frame::data(data))),
                Ok(Err(last)) => (Some(last.trailers_ref().map_or(Outcome::Success, Outcome::of_trailers)), Ok(last)),
                Err(error) => (Some(Outcome::Error), Err(error)),
            };
            ahead = Some(end);
            if let Some(outcome) = outcome {
                seat.finish(outcome);
                return ResBody::passed(Self { kind: Kind::Read { rest: Box::new((ahead, None)) } });
            }
        }
        match seat.watch() {
            Some(how) => {
                let watch = Box::new(Watch::new(body, seat, ahead, how));
                ResBody::passed(Self { kind: Kind::Watched { watch } })
            }
            // With the first data it has let go of its seat: nothing is left to be taken away.
            None => ResBody::passed(Self { kind: Kind::Read { rest: Box::new((ahead, Some(body))) } }),
        }
    }
}

impl<R: Body<Data = Bytes> + Send + 'static> Watch<R> {
    fn new(body: Pin<Box<R>>, seat: Seat, ahead: Ahead, (shared, class, hold_ends): HowWatched) -> Self {
        let (reader, body) = (shared.reader(), Guarded::new(body, seat));
        let source = Mutex::new(Source { body: Some(body), waker: None });
        let answer = Arc::new(Answer { source, reader, hold_ends, class });
        let ticket = shared.watch(Arc::clone(&answer) as Arc<dyn Revocable>);
        Self { answer, shared, ticket, ahead, told: false }
    }
}

impl<R> Watch<R>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let now = self.shared.now();
        let mut source = self.answer.lock();
        let Source { body, waker } = &mut *source;
        let Some(body) = body else {
            let told = std::mem::replace(&mut self.told, true);
            let why = if self.answer.hold_ends <= now { SeatRevoked::MaxHold } else { SeatRevoked::ReaderStalled };
            return Poll::Ready((!told).then(|| Err(why.into())));
        };
        self.answer.reader.asks(now);
        let polled = match self.ahead.take() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut *body).poll_frame(cx),
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) if !body.is_end_stream() => {
                self.answer.reader.takes(frame.data_ref().map_or(0, Bytes::len), now);
            }
            Poll::Pending if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) => {
                *waker = Some(cx.waker().clone());
            }
            _ => {}
        }
        polled
    }
}

impl<R> Drop for Watch<R> {
    fn drop(&mut self) {
        self.shared.forget(self.ticket);
    }
}

impl<R> Body for SeatedBody<R>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    #[inline]
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().kind.project() {
            KindProj::Kept { body } => body.poll_frame(cx),
            KindProj::Watched { watch } => watch.poll_frame(cx),
            KindProj::Read { rest } => match rest.0.take() {
                Some(frame) => Poll::Ready(Some(frame)),
                None => match &mut rest.1 {
                    Some(body) => body.as_mut().poll_frame(cx).map_err(Into::into),
                    None => Poll::Ready(None),
                },
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Kept { body } => body.is_end_stream(),
            Kind::Watched { watch } => match &watch.answer.lock().body {
                Some(body) => watch.ahead.is_none() && body.is_end_stream(),
                None => watch.told,
            },
            Kind::Read { rest } => rest.0.is_none() && rest.1.as_ref().is_none_or(Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Kept { body } => body.size_hint(),
            Kind::Watched { watch } => {
                with_ahead(watch.answer.lock().body.as_ref().map(Body::size_hint).unwrap_or_default(), &watch.ahead)
            }
            Kind::Read { rest } => {
                let after = rest.1.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
                with_ahead(after, &rest.0)
            }
        }
    }
}

/// The size of a frame that was read before, and of the rest.
fn with_ahead(rest: SizeHint, ahead: &Ahead) -> SizeHint {
    match (ahead, rest.exact()) {
        (Some(Ok(frame)), Some(rest)) => SizeHint::with_exact(rest + frame.data_ref().map_or(0, Bytes::len) as u64),
        (Some(_), _) => SizeHint::default(),
        (None, _) => rest,
    }
}

impl<R> fmt::Debug for SeatedBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let watched = matches!(self.kind, Kind::Watched { .. });
        f.debug_struct("SeatedBody").field("watched", &watched).finish_non_exhaustive()
    }
}
