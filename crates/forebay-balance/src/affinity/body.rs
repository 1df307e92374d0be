//! What [`AffinityLayer`](super::AffinityLayer) hands on.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// The rest of a request body that was peeked at: behind a [`ReqBody`](forebay_core::ReqBody)'s prefix.
    ///
    /// If trailers or an error were met in place of more data, they come first, as they were.
    #[derive(Debug)]
    pub struct Rest<B: Body> {
        held: Option<Result<Frame<B::Data>, B::Error>>,
        ended: bool,
        #[pin]
        body: B,
    }
}

impl<B: Body<Data = Bytes>> Rest<B> {
    /// A body that is not at its end.
    pub(super) const fn of(body: B) -> Self {
        Self { held: None, ended: false, body }
    }

    /// What was met last, and then the body.
    pub(super) const fn after(held: Result<Frame<Bytes>, B::Error>, body: B) -> Self {
        Self { held: Some(held), ended: false, body }
    }

    /// A body that has said that it is at its end.
    pub(super) const fn ended(body: B) -> Self {
        Self { held: None, ended: true, body }
    }
}

impl<B: Body<Data = Bytes>> Body for Rest<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        match this.held.take() {
            Some(held) => Poll::Ready(Some(held)),
            None if *this.ended => Poll::Ready(None),
            None => this.body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && (self.ended || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
