use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::BoxError;

pin_project! {
    /// The response body of a layer that may answer itself: its own text, or the body from inside.
    ///
    /// ```
    /// use forebay_core::{Never, ResBody};
    /// use http_body::Body;
    ///
    /// let body: ResBody<Never> = ResBody::answer("busy");
    /// assert_eq!(body.size_hint().exact(), Some(4));
    /// ```
    #[derive(Debug)]
    pub struct ResBody<R> {
        answer: Option<Bytes>,
        #[pin]
        passed: Option<R>,
    }
}

impl<R> ResBody<R> {
    /// Our own text: a refusal, a 202.
    pub fn answer(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        Self { answer: (!text.is_empty()).then_some(text), passed: None }
    }

    /// The body from inside.
    pub const fn passed(body: R) -> Self {
        Self { answer: None, passed: Some(body) }
    }
}

impl<R> Body for ResBody<R>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        match this.passed.as_pin_mut() {
            Some(body) => body.poll_frame(cx).map_err(Into::into),
            None => Poll::Ready(this.answer.take().map(|text| Ok(Frame::data(text)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.passed {
            Some(body) => body.is_end_stream(),
            None => self.answer.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.passed {
            Some(body) => body.size_hint(),
            None => SizeHint::with_exact(self.answer.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}
