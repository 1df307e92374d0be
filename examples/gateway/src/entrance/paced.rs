use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::fault::Fault;

/// A body that fails when waiting for it takes too long: for one frame, or for too few bytes over many frames.
///
/// Waiting uses up an allowance of time, and each byte gives back the time that it may take at the least speed, up to
/// the allowance at the beginning. Only time in which a poll found nothing is waiting, so that a backend that reads slowly
/// is not held against the client.
#[derive(Debug)]
pub(super) struct Paced<B> {
    body: B,
    allowance: Duration,
    bytes_per_second: f64,
    /// What is left of the allowance.
    left: Duration,
    /// When the present wait began.
    since: Option<Instant>,
    /// Made at the first wait. A frame does not reset it: it is set anew when it fires too early.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B> Paced<B> {
    pub(super) const fn new(body: B, allowance: Duration, bytes_per_second: u64) -> Self {
        Self { body, allowance, bytes_per_second: bytes_per_second as f64, left: allowance, since: None, timer: None }
    }
}

impl<B: Body<Data = Bytes, Error = Fault> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = &mut *self;
        // The body before the timer: a frame that is here is not late.
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            if let Some(since) = this.since.take() {
                this.left = this.left.saturating_sub(since.elapsed());
            }
            if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
                let earned = Duration::try_from_secs_f64(data.len() as f64 / this.bytes_per_second);
                this.left =
                    earned.map_or(this.allowance, |earned| this.left.saturating_add(earned).min(this.allowance));
            }
            return Poll::Ready(frame);
        }
        let since = *this.since.get_or_insert_with(Instant::now);
        let Some(end) = since.checked_add(this.left) else { return Poll::Pending };
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= end {
                return Poll::Ready(Some(Err(Fault::Slow)));
            }
            timer.as_mut().reset(end);
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body_util::BodyExt as _;
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
    use tokio::time::{advance, sleep};

    use super::*;

    struct Sent(UnboundedReceiver<usize>);

    impl Body for Sent {
        type Data = Bytes;
        type Error = Fault;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
            self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(vec![0; bytes].into()))))
        }
    }

    fn body() -> (UnboundedSender<usize>, Paced<Sent>) {
        let (sender, receiver) = unbounded_channel();
        (sender, Paced::new(Sent(receiver), Duration::from_secs(15), 1000))
    }

    /// How many seconds a body lasts that gets so many bytes after each pause.
    async fn lasts(bytes: usize, pause: Duration) -> u64 {
        let (sender, mut body) = body();
        tokio::spawn(async move {
            while sender.send(bytes).is_ok() {
                sleep(pause).await;
            }
        });
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(1000) {
            if body.frame().await.expect("endless").is_err() {
                break;
            }
        }
        begun.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_too_slow_fails_and_one_that_is_fast_enough_does_not() {
        assert_eq!(lasts(1, Duration::from_secs(1)).await, 15, "one byte a second");
        assert_eq!(
            lasts(1 << 20, Duration::from_secs(16)).await,
            15,
            "a pause that is too long, however much came before"
        );
        assert_eq!(lasts(1 << 20, Duration::from_secs(14)).await, 1008, "never");
        assert_eq!(lasts(1000, Duration::from_secs(1)).await, 1000, "never");
        let slow = lasts(900, Duration::from_secs(1)).await;
        assert!((100..200).contains(&slow), "{slow}");
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_backend_does_not_read_does_not_count() {
        let (sender, mut body) = body();
        let poll = |body: &mut Paced<Sent>| Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()));
        for _ in 0..10 {
            sender.send(1).expect("open");
            assert!(poll(&mut body).is_ready());
            advance(Duration::from_secs(60)).await;
        }
        assert!(poll(&mut body).is_pending());
        sender.send(100_000).expect("open");
        advance(Duration::from_secs(60)).await;
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Ok(_)))), "a frame that is here is not late");
        assert!(poll(&mut body).is_pending());
        advance(Duration::from_secs(16)).await;
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Err(Fault::Slow)))));
    }
}
