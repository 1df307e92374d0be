//! A silent body fails in time, and time that is not the body's silence does not count.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Waker;

use forebay_core::testing::{Scripted, Step};
use http_body_util::BodyExt as _;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::advance;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(120);

/// A body that yields what is sent, and counts its polls.
struct Sent(UnboundedReceiver<Bytes>, Arc<AtomicUsize>);

impl Body for Sent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.1.fetch_add(1, Relaxed);
        self.0.poll_recv(cx).map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}

fn sent() -> (UnboundedSender<Bytes>, Idle<Sent>) {
    let (sender, receiver) = unbounded_channel();
    (sender, Idle::new(Sent(receiver, Arc::default()), TIMEOUT))
}

fn poll(body: &mut Idle<Sent>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
    Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn a_body_that_falls_silent_fails_after_the_timeout() {
    let (sender, mut body) = sent();
    for _ in 0..3 {
        sender.send("x".into()).expect("open");
        body.frame().await.expect("a frame").expect("data");
        let (begun, sender) = (Instant::now(), sender.clone());
        tokio::spawn(async move {
            tokio::time::sleep(TIMEOUT / 4 * 3).await;
            let _ = sender.send("y".into());
        });
        body.frame().await.expect("a frame").expect("silent for less than the timeout");
        assert_eq!(begun.elapsed().as_secs(), 90);
    }
    let begun = Instant::now();
    let error = body.frame().await.expect("a frame").expect_err("silent");
    assert!(error.is_timeout() && error.to_string().contains("silent for 120s"), "{error}");
    assert!((TIMEOUT..TIMEOUT + Duration::from_millis(10)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert!(body.frame().await.is_none() && body.is_end_stream(), "it has ended");
}

#[tokio::test(start_paused = true)]
async fn time_before_the_first_frame_does_not_count() {
    let (sender, mut body) = sent();
    assert!(poll(&mut body).is_pending());
    advance(TIMEOUT * 10).await;
    assert!(poll(&mut body).is_pending());
    sender.send("x".into()).expect("open");
    assert!(matches!(poll(&mut body), Poll::Ready(Some(Ok(_)))));
}

#[tokio::test(start_paused = true)]
async fn time_without_a_poll_does_not_count() {
    let (sender, mut body) = sent();
    sender.send("x".into()).expect("open");
    assert!(poll(&mut body).is_ready());
    advance(TIMEOUT * 2).await; // the reader is busy: silence has not begun
    assert!(poll(&mut body).is_pending());
    advance(TIMEOUT / 2).await;
    sender.send("y".into()).expect("open");
    advance(TIMEOUT * 2).await; // a frame waits for the reader
    assert!(matches!(poll(&mut body), Poll::Ready(Some(Ok(_)))));
    assert!(poll(&mut body).is_pending());
    advance(TIMEOUT - Duration::from_millis(1)).await;
    assert!(poll(&mut body).is_pending());
    advance(Duration::from_millis(2)).await;
    assert!(matches!(poll(&mut body), Poll::Ready(Some(Err(_)))));
    let polls = body.body.1.load(Relaxed);
    assert!(matches!(poll(&mut body), Poll::Ready(None)));
    assert_eq!(body.body.1.load(Relaxed), polls, "the body inside is not polled again");
}

#[tokio::test]
async fn a_body_that_is_ready_at_once_needs_no_timer() {
    let steps = || (0..100).map(|_| Step::Data("x".into()));
    let mut body = Idle::new(Scripted::new(steps()), TIMEOUT);
    while let Some(frame) = body.frame().await {
        frame.expect("data");
    }
    assert!(body.timer.is_none());
    let mut late = Idle::new(Scripted::new([Step::Pending, Step::Data("x".into())]), TIMEOUT);
    late.frame().await.expect("a frame").expect("data");
    assert!(late.timer.is_none(), "nor does one that is late to begin");
}

#[tokio::test]
async fn an_error_inside_ends_it() {
    let mut body = Idle::new(Scripted::new([Step::Error("broken".into()), Step::Data("x".into())]), TIMEOUT);
    let error = body.frame().await.expect("a frame").expect_err("broken");
    assert!(!error.is_timeout());
    assert!(body.frame().await.is_none());
}
