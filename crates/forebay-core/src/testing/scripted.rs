use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};

use crate::BoxError;

/// One step of a [`Scripted`] body.
#[derive(Debug)]
pub enum Step {
    /// A data frame.
    Data(Bytes),
    /// Trailers.
    Trailers(HeaderMap),
    /// An error.
    Error(BoxError),
    /// `Pending` once, and awake at once.
    Pending,
}

/// A body that plays a script, then ends. Like a chunked stream it does not know its end beforehand.
#[derive(Debug)]
pub struct Scripted {
    steps: VecDeque<Step>,
}

impl Scripted {
    /// A body that takes these steps.
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { steps: steps.into_iter().collect() }
    }
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
        Poll::Ready(match self.steps.pop_front() {
            Some(Step::Data(data)) => Some(Ok(Frame::data(data))),
            Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Step::Error(error)) => Some(Err(error)),
            Some(Step::Pending) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => None,
        })
    }
}
