use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::BoxError;

/// The body that is not there: the type of the rest of a [`ReqBody`] that is all buffered.
#[derive(Debug, Clone, Copy)]
pub enum Never {}

impl Body for Never {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match *self {}
    }
}

pin_project! {
    /// The request body that cache, offload and affinity hand inward: a stream, a buffer, or a prefix already read and
    /// the rest.
    ///
    /// Workers and warmers send a plain `ReqBody` (its `B` is [`Never`]), all of it buffered.
    ///
    /// ```
    /// use forebay_core::ReqBody;
    /// use http_body::Body;
    ///
    /// let body: ReqBody = ReqBody::buffered("hello");
    /// assert_eq!(body.size_hint().exact(), Some(5)); // so Content-Length is known
    /// ```
    #[derive(Debug)]
    pub struct ReqBody<B = Never> {
        read: Bytes,
        #[pin]
        rest: Option<B>,
    }
}

impl<B> ReqBody<B> {
    /// A body of which nothing has been read.
    pub const fn stream(body: B) -> Self {
        Self { read: Bytes::new(), rest: Some(body) }
    }

    /// A body that is all here.
    pub fn buffered(bytes: impl Into<Bytes>) -> Self {
        Self { read: bytes.into(), rest: None }
    }

    /// A body whose first bytes have been read.
    pub fn prefixed(read: impl Into<Bytes>, rest: B) -> Self {
        Self { read: read.into(), rest: Some(rest) }
    }

    /// The whole body, if it is all here.
    #[must_use]
    pub fn as_buffered(&self) -> Option<&Bytes> {
        self.rest.is_none().then_some(&self.read)
    }
}

impl<B> Default for ReqBody<B> {
    /// An empty body.
    fn default() -> Self {
        Self::buffered(Bytes::new())
    }
}

impl<B> Body for ReqBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        if !this.read.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(this.read)))));
        }
        match this.rest.as_pin_mut() {
            Some(rest) => rest.poll_frame(cx).map_err(Into::into),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.len() as u64;
        let Some(rest) = &self.rest else { return SizeHint::with_exact(read) };
        let (rest, mut sum) = (rest.size_hint(), SizeHint::new());
        sum.set_lower(rest.lower().saturating_add(read));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(read)) {
            sum.set_upper(upper);
        }
        sum
    }
}
