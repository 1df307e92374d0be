use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use forebay_core::BoxError;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::client::error::AnswerError;

pin_project! {
    /// A body that fails once the body inside has been silent for too long between two frames.
    ///
    /// Time before the first frame does not count, and neither does time in which the reader does not poll: silence
    /// begins when the body inside is polled and has nothing.
    #[derive(Debug)]
    pub(crate) struct Idle<B> {
        #[pin]
        body: B,
        timeout: Duration,
        begun: bool,
        failed: bool,
        // When the silence began; `None` while there is none.
        since: Option<Instant>,
        // Made at the first silence, and then kept: a frame only clears `since`, which costs no timer operation.
        timer: Option<Pin<Box<Sleep>>>,
    }
}

impl<B> Idle<B> {
    pub(crate) const fn new(body: B, timeout: Duration) -> Self {
        Self { body, timeout, begun: false, failed: false, since: None, timer: None }
    }
}

impl<B> Body for Idle<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let this = self.project();
        if *this.failed {
            return Poll::Ready(None);
        }
        // The body before the timer: a frame that came while the reader was busy is not late.
        if let Poll::Ready(frame) = this.body.poll_frame(cx) {
            *this.since = None;
            *this.begun = true;
            *this.failed = matches!(frame, Some(Err(_)));
            return Poll::Ready(frame.map(|frame| frame.map_err(AnswerError::broken)));
        }
        if !*this.begun {
            return Poll::Pending;
        }
        let since = *this.since.get_or_insert_with(Instant::now);
        let Some(end) = since.checked_add(*this.timeout) else { return Poll::Pending };
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= end {
                *this.failed = true;
                return Poll::Ready(Some(Err(AnswerError::silent(*this.timeout))));
            }
            timer.as_mut().reset(end); // it was set for an earlier silence
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.failed || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
