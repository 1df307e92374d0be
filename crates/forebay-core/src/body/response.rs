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
        #[pin]
        kind: Kind<R>,
    }
}

pin_project! {
    // Either lies where the other would: the body from inside is moved often, and this adds little to it.
    #[derive(Debug)]
    #[project = KindProj]
    enum Kind<R> {
        Answer { text: Option<Bytes> },
        Passed { #[pin] body: R },
    }
}

impl<R> ResBody<R> {
    /// Our own text: a refusal, a 202.
    pub fn answer(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        Self { kind: Kind::Answer { text: (!text.is_empty()).then_some(text) } }
    }

    /// The body from inside.
    #[inline]
    pub const fn passed(body: R) -> Self {
        Self { kind: Kind::Passed { body } }
    }
}

impl<R> Body for ResBody<R>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    #[inline]
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().kind.project() {
            KindProj::Passed { body } => body.poll_frame(cx).map_err(Into::into),
            KindProj::Answer { text } => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Passed { body } => body.is_end_stream(),
            Kind::Answer { text } => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Passed { body } => body.size_hint(),
            Kind::Answer { text } => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}
