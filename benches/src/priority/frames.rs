use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};

/// How many bodies are alive, and the most that were.
#[derive(Debug, Clone, Default)]
pub struct Live(Arc<(AtomicUsize, AtomicUsize)>);

impl Live {
    /// The most at once.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }

    fn enter(&self) -> Alive {
        let now = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(now, Ordering::SeqCst);
        Alive(self.clone())
    }
}

#[derive(Debug)]
struct Alive(Live);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

pin_project! {
    /// A token stream: frames at a steady pace; a reader who is slower finds the next one ready.
    #[derive(Debug)]
    pub struct Frames {
        left: usize,
        pace: Duration,
        #[pin]
        next: Sleep,
        alive: Option<Alive>,
    }
}

impl Frames {
    /// So many frames, one after each `pace`, counted in `live` from now to its end or drop.
    #[must_use]
    pub fn new(frames: usize, pace: Duration, live: &Live) -> Self {
        Self { left: frames, pace, next: sleep(pace), alive: Some(live.enter()) }
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut this = self.project();
        if *this.left == 0 {
            *this.alive = None;
            return Poll::Ready(None);
        }
        ready!(this.next.as_mut().poll(cx));
        this.next.reset(Instant::now() + *this.pace);
        *this.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"data: token\n\n")))))
    }
}
