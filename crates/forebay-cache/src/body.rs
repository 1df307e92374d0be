//! The response body of a cache.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use forebay_core::BoxError;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::entry::{Answer, Entry, Kind};
use crate::shared::{Control, Recording};

pin_project! {
    /// The body from inside, on the way or recorded on the way, or a stored one.
    ///
    /// A recorded body gives each frame as it comes; what is stored is decided at its end. Dropped before, or after an
    /// error, it stores nothing.
    #[derive(Debug)]
    pub struct CacheBody<R> {
        #[pin]
        passed: Option<R>,
        recorder: Option<Recorder>,
        replay: Option<Replay>,
    }
}

#[derive(Debug)]
struct Recorder {
    control: Arc<dyn Control>,
    recording: Box<Recording>,
}

#[derive(Debug)]
struct Replay {
    entry: Arc<Entry>,
    next: usize,
}

impl Replay {
    fn answer(&self) -> Option<&Answer> {
        match &self.entry.kind {
            Kind::Answer(answer) => Some(answer),
            Kind::Index(_) => None,
        }
    }
}

impl<R> CacheBody<R> {
    pub(crate) const fn passed(body: R) -> Self {
        Self { passed: Some(body), recorder: None, replay: None }
    }

    pub(crate) const fn empty() -> Self {
        Self { passed: None, recorder: None, replay: None }
    }

    pub(crate) const fn replay(entry: Arc<Entry>) -> Self {
        Self { passed: None, recorder: None, replay: Some(Replay { entry, next: 0 }) }
    }
}

impl<R: Body> CacheBody<R> {
    pub(crate) fn recorded(body: R, control: Arc<dyn Control>, recording: Recording) -> Self {
        let mut recorder = Some(Recorder { control, recording: Box::new(recording) });
        if body.is_end_stream() {
            finish(&mut recorder);
        }
        Self { passed: Some(body), recorder, replay: None }
    }
}

fn finish(recorder: &mut Option<Recorder>) {
    if let Some(Recorder { control, recording }) = recorder.take() {
        control.store(*recording);
    }
}

impl<R> Body for CacheBody<R>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        let Some(mut body) = this.passed.as_mut().as_pin_mut() else {
            return Poll::Ready(next(this.replay.as_mut()).map(Ok));
        };
        let polled = ready!(body.as_mut().poll_frame(cx));
        match (&polled, this.recorder.as_mut()) {
            (_, None) => {}
            (Some(Ok(frame)), Some(recorder)) => {
                let mut fits = true;
                if let Some(data) = frame.data_ref() {
                    fits = recorder.recording.push(data, recorder.control.max_entry());
                } else if let Some(trailers) = frame.trailers_ref() {
                    recorder.recording.trailers(trailers.clone());
                }
                if !fits {
                    *this.recorder = None;
                } else if frame.is_trailers() || body.is_end_stream() {
                    finish(this.recorder); // nobody may poll for the `None` behind it
                }
            }
            (Some(Err(_)), _) => *this.recorder = None,
            (None, _) => finish(this.recorder),
        }
        Poll::Ready(polled.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        match (&self.passed, self.replay.as_ref().and_then(|replay| Some((replay.next, replay.answer()?)))) {
            // Whoever sees the end here polls no more: so the recording must have ended too.
            (Some(body), _) => body.is_end_stream() && self.recorder.is_none(),
            (None, Some((next, answer))) => next >= answer.frames.len() + usize::from(answer.trailers.is_some()),
            (None, None) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.passed, self.replay.as_ref().and_then(|replay| Some((replay.next, replay.answer()?)))) {
            (Some(body), _) => body.size_hint(),
            (None, Some((next, answer))) => {
                let sent = answer.frames.start(next.min(answer.frames.len()));
                SizeHint::with_exact((answer.frames.body.len() - sent) as u64)
            }
            (None, None) => SizeHint::with_exact(0),
        }
    }
}

/// The next stored frame: the data as it came, then the trailers.
fn next(replay: Option<&mut Replay>) -> Option<Frame<Bytes>> {
    let replay = replay?;
    let answer = replay.answer()?;
    let frame = match answer.frames.frame(replay.next) {
        Some(data) => Some(Frame::data(data)),
        None if replay.next == answer.frames.len() => answer.trailers.clone().map(Frame::trailers),
        None => None,
    };
    replay.next += usize::from(frame.is_some());
    frame
}
