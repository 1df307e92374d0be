//! Readers that stop lose their seat, and with it the body at the backend, as soon as another request waits; all others go
//! on.

mod common;

use std::convert::Infallible;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use common::{ask, assert_idle, millis, request};
use forebay_core::{BoxError, Class, Principal};
use forebay_priority::{Priority, PriorityConfig, PriorityHandle, PriorityLayer, SeatRevoked};
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full};
use tokio::time::{Instant, Sleep, advance, sleep};
use tokio_test::{assert_ready, task::spawn};
use tower::{Layer as _, Service, ServiceExt as _};

/// An endless stream of frames of so many bytes, each after a pause of the backend.
struct Endless {
    bytes: usize,
    pace: Duration,
    next: Pin<Box<Sleep>>,
    live: Arc<AtomicUsize>,
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.live.fetch_sub(1, SeqCst);
    }
}

impl Body for Endless {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        std::task::ready!(self.next.as_mut().poll(cx));
        let next = Instant::now() + self.pace;
        self.next.as_mut().reset(next);
        Poll::Ready(Some(Ok(Frame::data(vec![b'x'; self.bytes].into()))))
    }
}

#[derive(Clone)]
struct Backend {
    bytes: usize,
    pace: Duration,
    live: Arc<AtomicUsize>,
}

impl Service<Request<()>> for Backend {
    type Response = Response<Endless>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        self.live.fetch_add(1, SeqCst);
        let next = Box::pin(sleep(self.pace));
        let Self { bytes, pace, live } = self.clone();
        std::future::ready(Ok(Response::new(Endless { bytes, pace, next, live })))
    }
}

/// So many seats before a backend of such frames; a stall of 15 s.
fn house(seats: usize, bytes: usize, pace: u64) -> (Priority<Backend>, PriorityHandle, Arc<AtomicUsize>) {
    let layer = PriorityLayer::builder().config(PriorityConfig::four_class(seats)).build_with_handle();
    let (layer, handle) = layer.expect("a preset");
    let live = Arc::<AtomicUsize>::default();
    (layer.layer(Backend { bytes, pace: millis(pace), live: Arc::clone(&live) }), handle, live)
}

fn why(error: BoxError) -> SeatRevoked {
    *error.downcast::<SeatRevoked>().expect("this layer's own error")
}

#[tokio::test(start_paused = true)]
async fn one_that_takes_nothing_loses_seat_and_body_once_another_waits() {
    let (service, handle, live) = house(1, 100, 0);
    let mut stopped = ask(&service, Class::P3).await.into_body();
    stopped.frame().await.expect("endless").expect("a frame"); // and no more
    let begun = Instant::now();
    let waits = tokio::spawn(ask(&service, Class::P0));
    let served = waits.await.expect("no panic");
    assert_eq!(served.status(), 200);
    let waited = begun.elapsed();
    assert!(millis(15_000) <= waited && waited <= millis(16_000), "{waited:?}");
    assert_eq!(live.load(SeqCst), 1, "the backend works for the other alone");
    let classes = handle.snapshot().classes;
    assert_eq!((classes[3].stalled, classes[3].in_flight, classes[0].in_flight), (1, 0, 1));
    assert!(!stopped.is_end_stream(), "it must not look complete");
    assert_eq!(why(stopped.frame().await.expect("an error").expect_err("cut")), SeatRevoked::ReaderStalled);
    assert!(stopped.frame().await.is_none());
    drop((served, stopped));
    assert_idle(&handle);
    assert_eq!(live.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_has_not_asked_for_anything_is_behind_from_the_head_on() {
    let (service, handle, live) = house(1, 100, 0);
    let _unread = ask(&service, Class::P3).await;
    advance(millis(3_600_000)).await;
    assert_eq!(handle.snapshot().classes[3].in_flight, 1, "it harms nobody");
    let begun = Instant::now();
    let served = ask(&service, Class::P0).await;
    assert_eq!((served.status().as_u16(), begun.elapsed(), live.load(SeqCst)), (200, Duration::ZERO, 1));
}

#[tokio::test(start_paused = true)]
async fn one_that_stops_after_it_has_read_for_long_is_cut_too() {
    let (service, handle, _) = house(1, 100, 500);
    let mut read = ask(&service, Class::P3).await.into_body();
    let waits = tokio::spawn(ask(&service, Class::P0));
    let begun = Instant::now();
    while begun.elapsed() < millis(20_300) {
        read.frame().await.expect("endless").expect("not cut, while it reads");
    }
    let stopped = Instant::now();
    assert_eq!(waits.await.expect("no panic").status(), 200);
    let waited = stopped.elapsed();
    assert!(millis(14_000) <= waited && waited <= millis(19_000), "{waited:?}");
    assert_eq!(handle.snapshot().classes[3].stalled, 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_reads_is_not_cut_however_slow_the_backend_is() {
    for (bytes, pace) in [(1, 60_000), (20, 20), (64_000, 0)] {
        let (service, handle, _) = house(1, bytes, pace);
        let mut read = ask(&service, Class::P3).await.into_body();
        let _waits = tokio::spawn(ask(&service, Class::P0));
        let begun = Instant::now();
        let mut frames = 0;
        while begun.elapsed() < millis(29_000) {
            if let Ok(frame) = tokio::time::timeout(millis(1000), read.frame()).await {
                frame.expect("endless").expect("not cut");
                frames += 1;
            }
            if pace == 0 {
                sleep(millis(10_000)).await; // reads a large frame every ten seconds
            }
        }
        assert_eq!(handle.snapshot().classes[3].stalled, 0, "{bytes} bytes every {pace} ms, {frames} frames");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_trickles_is_cut_and_a_slow_one_is_not() {
    for (bytes, cut) in [(20, true), (300, false)] {
        let (service, handle, _) = house(1, bytes, 0);
        let mut slow = ask(&service, Class::P3).await.into_body();
        let _waits = tokio::spawn(ask(&service, Class::P0));
        let mut ended = None;
        for second in 0..28 {
            match slow.frame().await.expect("endless") {
                Ok(_) => sleep(millis(1000)).await,
                Err(error) => {
                    assert_eq!(why(error), SeatRevoked::ReaderStalled);
                    ended = Some(second);
                    break;
                }
            }
        }
        assert_eq!(ended.is_some(), cut, "{bytes} bytes a second: ended after {ended:?}");
        assert_eq!(handle.snapshot().classes[3].stalled, u64::from(cut));
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_for_the_backend_is_told_that_its_hold_is_over() {
    let mut config = PriorityConfig::four_class(1);
    config.classes[3] = config.classes[3].clone().max_hold(millis(5000));
    let (layer, handle) = PriorityLayer::builder().config(config).build_with_handle().expect("valid");
    let live = Arc::<AtomicUsize>::default();
    let service = layer.layer(Backend { bytes: 1, pace: millis(3_600_000), live: Arc::clone(&live) });
    let mut held = ask(&service, Class::P3).await.into_body();
    let reads = tokio::spawn(async move { (held.frame().await, Instant::now()) });
    let begun = Instant::now();
    let served = ask(&service, Class::P0).await;
    assert_eq!((served.status().as_u16(), live.load(SeqCst)), (200, 1));
    let read = tokio::time::timeout(millis(10_000), reads).await;
    let (end, at) = read.expect("the reader is told").expect("no panic");
    assert_eq!(why(end.expect("an error").expect_err("cut")), SeatRevoked::MaxHold);
    let after = at - begun;
    assert!(millis(5000) <= after && after <= millis(7000), "and not with the backend's next frame: {after:?}");
    assert_eq!(handle.snapshot().classes[3].overdue, 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_stall_nothing_is_cut() {
    let mut config = PriorityConfig::four_class(1);
    config.stall = None;
    config.classes[0] = config.classes[0].clone().patience_seats(0);
    let (layer, handle) = PriorityLayer::builder().config(config).build_with_handle().expect("valid");
    let service = layer.layer(Backend { bytes: 1, pace: millis(0), live: Arc::default() });
    let mut unread = ask(&service, Class::P3).await.into_body();
    assert_eq!(ask(&service, Class::P0).await.status(), 429);
    unread.frame().await.expect("endless").expect("it goes on");
    assert_eq!(handle.snapshot().classes[3].in_flight, 1);
}

/// 64 connections of one caller that never read, each opened again as soon as it is cut, and another caller's urgent
/// requests at the same instant and later: all of them are served, the first after one stall.
#[tokio::test(start_paused = true)]
async fn a_crowd_of_stopped_readers_shuts_out_nobody() {
    let (service, handle, live) = house(16, 100, 0);
    let of = |class: Class, who: &str| {
        let mut request = request(class);
        request.extensions_mut().insert(Principal::from_bytes(who));
        service.clone().oneshot(request)
    };
    for _ in 0..64 {
        let again = service.clone();
        tokio::spawn(async move {
            loop {
                let mut request = request(Class::P3);
                request.extensions_mut().insert(Principal::from_bytes("hostile"));
                let response = again.clone().oneshot(request).await.expect("infallible");
                if response.status() != 200 {
                    sleep(millis(500)).await;
                    continue;
                }
                let mut body = response.into_body();
                body.frame().await.expect("endless").expect("the first");
                sleep(millis(20_000)).await; // by then it was cut, and the client connects again
            }
        });
    }
    let mut waits = Vec::new();
    for _ in 0..60 {
        let begun = Instant::now();
        let response = of(Class::P0, "friend").await.expect("infallible");
        assert_eq!(response.status(), 200);
        waits.push(begun.elapsed());
        let mut body = response.into_body();
        for _ in 0..3 {
            body.frame().await.expect("endless").expect("read");
        }
        drop(body);
        sleep(millis(50)).await;
    }
    let most = waits.iter().max().expect("some");
    assert!(*most <= millis(16_000), "{most:?}");
    assert!(live.load(SeqCst) <= 16);
    assert!(handle.snapshot().classes[3].stalled >= 16);
}

/// A body of known length that breaks off at once, and may not be asked again.
struct Broken(bool);

impl Body for Broken {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        assert!(!std::mem::replace(&mut self.0, true), "polled after its error");
        Poll::Ready(Some(Err("the backend has gone".into())))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(10)
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_off_at_once_lets_go_and_is_not_asked_again() {
    let (layer, handle) =
        PriorityLayer::builder().config(PriorityConfig::four_class(1)).build_with_handle().expect("ok");
    let service =
        layer.layer(tower::service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Broken(false))) }));
    let mut body = service.oneshot(request(Class::P3)).await.expect("infallible").into_body();
    assert_eq!(handle.snapshot().classes[3].in_flight, 0);
    assert!(!body.is_end_stream(), "the error is yet to be told");
    assert!(body.frame().await.expect("an error").is_err());
    assert!(body.frame().await.is_none() && body.is_end_stream());
    assert_idle(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_short_answer_that_is_whole_lets_go_with_its_head() {
    let (layer, handle) =
        PriorityLayer::builder().config(PriorityConfig::four_class(1)).build_with_handle().expect("ok");
    let service = layer.layer(tower::service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"done"))))
    }));
    let unread = service.clone().oneshot(request(Class::P3)).await.expect("infallible");
    assert_eq!(handle.snapshot().classes[3].in_flight, 0, "nothing is left to be done for it");
    assert_eq!(unread.body().size_hint().exact(), Some(4));
    let mut other = spawn(service.oneshot(request(Class::P0)));
    drop(assert_ready!(other.poll()));
    assert_eq!(unread.into_body().collect().await.expect("whole").to_bytes(), "done");
    assert_idle(&handle);
}
