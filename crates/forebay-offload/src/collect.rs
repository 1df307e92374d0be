use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use forebay_core::ReqBody;
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

pin_project! {
    /// Reads a request body into memory, up to a size and a time. Trailers are dropped.
    #[derive(Debug)]
    pub(crate) struct Collect<B> {
        body: Option<B>,
        read: BytesMut,
        max: usize,
        #[pin]
        timeout: Sleep,
    }
}

/// How the reading of a body ended.
#[derive(Debug)]
pub(crate) enum Collected<B> {
    /// This is all of it.
    All(Bytes),
    /// It is too large: what was read, and the rest.
    TooLarge(ReqBody<B>),
    /// It did not arrive, in time or in full.
    Missing,
}

impl<B> Collect<B> {
    pub(crate) fn new(body: B, max: usize, timeout: Duration) -> Self {
        Self { body: Some(body), read: BytesMut::new(), max, timeout: sleep(timeout) }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Future for Collect<B> {
    type Output = Collected<B>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Collected<B>> {
        let this = self.project();
        loop {
            let Some(body) = this.body.as_mut() else { return Poll::Ready(Collected::Missing) };
            let left = *this.max - this.read.len().min(*this.max);
            // Known to be too large: not a byte needs to be read.
            if body.size_hint().lower() > left as u64 {
                return Poll::Ready(too_large(this.body, this.read));
            }
            let frame = match Pin::new(body).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    ready!(this.timeout.poll(cx));
                    return Poll::Ready(Collected::Missing);
                }
            };
            match frame {
                None => return Poll::Ready(Collected::All(mem::take(this.read).freeze())),
                Some(Err(_)) => return Poll::Ready(Collected::Missing),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    this.read.extend_from_slice(&data);
                    if data.len() > left {
                        return Poll::Ready(too_large(this.body, this.read));
                    }
                }
            }
        }
    }
}

fn too_large<B>(body: &mut Option<B>, read: &mut BytesMut) -> Collected<B> {
    match body.take() {
        Some(body) => Collected::TooLarge(ReqBody::prefixed(mem::take(read).freeze(), body)),
        None => Collected::Missing,
    }
}
