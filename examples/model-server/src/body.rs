//! The response body: a text, half a text, or a stream.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::stream::Sse;

/// The injected end of a body: hyper cuts the connection, or resets the stream.
#[derive(Debug, thiserror::Error)]
#[error("the simulator was told to break off this answer")]
pub(crate) struct BrokenOff;

#[derive(Debug)]
pub(crate) enum Reply {
    Whole(Option<Bytes>),
    /// `missing` bytes were promised beyond what comes.
    Half {
        sent: Option<Bytes>,
        missing: u64,
        flushed: bool,
    },
    Stream(Box<Sse>),
}

impl Reply {
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::Whole((!bytes.is_empty()).then_some(bytes))
    }

    pub(crate) fn half(mut bytes: Bytes) -> Self {
        let rest = bytes.split_off(bytes.len() / 2);
        Self::Half { sent: Some(bytes), missing: rest.len() as u64, flushed: false }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Half { sent, flushed, .. } => match sent.take() {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None if *flushed => Poll::Ready(Some(Err(BrokenOff))),
                None => {
                    *flushed = true; // one poll later, so that the first half has left
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            },
            Self::Stream(sse) => sse.poll_next(cx).map(|next| next.map(|bytes| bytes.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Half { .. } => false,
            Self::Stream(sse) => sse.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(length(bytes)),
            Self::Half { sent, missing, .. } => SizeHint::with_exact(length(sent) + missing),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
