//! An exchange dropped at any poll, alone or before a waiter, leaves every count right and its seat to the next.

use std::convert::Infallible;

use forebay_core::testing::{Scripted, Spy, Step, cut_after};
use forebay_priority::{PriorityConfig, PriorityLayer};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tower::{Layer as _, ServiceExt as _, service_fn};

#[tokio::test(start_paused = true)]
async fn r10_dropped_at_every_poll_in_the_wait_the_call_and_the_body() {
    for occupied in [false, true] {
        for polls in 0.. {
            let (layer, handle) =
                PriorityLayer::builder().config(PriorityConfig::four_class(1)).build_with_handle().expect("a preset");
            let (spy, seen) = Spy::new(service_fn(|_: Request<()>| async {
                tokio::task::yield_now().await;
                let steps = [Step::Pending, Step::Data("a".into()), Step::Pending, Step::Data("b".into())];
                Ok::<_, Infallible>(Response::new(Scripted::new(steps)))
            }));
            let service = layer.layer(spy);
            let holder = if occupied {
                let body = service.clone().oneshot(Request::new(())).await.expect("infallible").into_body();
                Some(tokio::spawn(async move {
                    tokio::task::yield_now().await; // the exchange under test waits first
                    body.collect().await
                }))
            } else {
                None
            };
            let exchange = {
                let service = service.clone();
                async move { service.oneshot(Request::new(())).await.expect("infallible").into_body().collect().await }
            };
            let cut = tokio::spawn(cut_after(polls, exchange));
            tokio::task::yield_now().await;
            // A second request, which must get the place of the one that was cut.
            let next = tokio::spawn(service.oneshot(Request::new(())));
            let done = cut.await.expect("no panic").is_some();
            let next = next.await.expect("no panic").expect("infallible");
            assert_eq!(next.status(), 200, "cut after {polls} polls");
            next.into_body().collect().await.expect("a good stream");
            if let Some(holder) = holder {
                holder.await.expect("no panic").expect("a good stream");
            }
            let snapshot = handle.snapshot();
            assert!(snapshot.classes.iter().all(|class| class.queued == 0 && class.in_flight == 0), "{snapshot:?}");
            let class = snapshot.classes[2];
            assert_eq!(class.offered, class.admitted + class.shed + class.cancelled);
            let seen = *seen.lock().unwrap();
            assert_eq!((seen.in_flight, seen.unready_calls), (0, 0));
            assert_eq!(seen.peak, 1, "never two at once");
            if done {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r10_a_crowd_that_leaves_the_queue_at_once_leaves_nothing_behind() {
    let mut config = PriorityConfig::four_class(1);
    config.classes[2].queue = forebay_priority::QueueLength::Fixed(100_000);
    let (layer, handle) = PriorityLayer::builder().config(config).build_with_handle().expect("valid");
    let service =
        layer.layer(service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Scripted::new([]))) }));
    let held = service.clone().oneshot(Request::new(())).await.expect("infallible");
    let mut crowd: Vec<_> =
        (0..100_000).map(|_| tokio_test::task::spawn(service.clone().oneshot(Request::new(())))).collect();
    for task in &mut crowd {
        tokio_test::assert_pending!(task.poll());
    }
    assert_eq!(handle.snapshot().classes[2].queued, 100_000);
    drop(crowd);
    drop(held);
    let class = handle.snapshot().classes[2];
    assert_eq!((class.queued, class.in_flight, class.cancelled), (0, 0, 100_000));
}

#[tokio::test(start_paused = true)]
async fn dropped_at_every_poll_while_the_service_inside_is_not_ready() {
    /// Ready at the third look.
    #[derive(Clone)]
    struct Slow(u8);
    impl tower::Service<Request<()>> for Slow {
        type Response = Response<Scripted>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Self::Response, Infallible>>;
        fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
            self.0 += 1;
            cx.waker().wake_by_ref();
            if self.0 > 2 { std::task::Poll::Ready(Ok(())) } else { std::task::Poll::Pending }
        }
        fn call(&mut self, _: Request<()>) -> Self::Future {
            assert!(self.0 > 2, "the very instance that was polled ready");
            std::future::ready(Ok(Response::new(Scripted::new([]))))
        }
    }
    for polls in 0.. {
        let (layer, handle) =
            PriorityLayer::builder().config(PriorityConfig::four_class(1)).build_with_handle().expect("a preset");
        let service = layer.layer(Slow(0));
        let done = cut_after(polls, service.clone().oneshot(Request::new(()))).await.is_some();
        assert_eq!(handle.snapshot().classes[2].in_flight, 0, "cut after {polls} polls");
        assert_eq!(service.oneshot(Request::new(())).await.expect("infallible").status(), 200);
        if done {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn waiters_outlive_the_layer_and_its_handle() {
    let (layer, handle) =
        PriorityLayer::builder().config(PriorityConfig::four_class(1)).build_with_handle().expect("a preset");
    let service =
        layer.layer(service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Scripted::new([]))) }));
    let held = service.clone().oneshot(Request::new(())).await.expect("infallible");
    let mut waits = tokio_test::task::spawn(service.oneshot(Request::new(())));
    tokio_test::assert_pending!(waits.poll());
    drop((layer, handle));
    drop(held);
    assert!(waits.is_woken());
    assert_eq!(waits.await.expect("infallible").status(), 200);
}

#[test]
fn a_runtime_that_is_dropped_takes_its_waiters_along() {
    let (layer, handle) =
        PriorityLayer::builder().config(PriorityConfig::four_class(1)).build_with_handle().expect("a preset");
    let service =
        layer.layer(service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Scripted::new([]))) }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let held = runtime.block_on(service.clone().oneshot(Request::new(()))).expect("infallible");
    for _ in 0..10 {
        runtime.spawn(service.clone().oneshot(Request::new(())));
    }
    runtime.block_on(tokio::task::yield_now());
    assert_eq!(handle.snapshot().classes[2].waiting, 10);
    drop(runtime);
    let class = handle.snapshot().classes[2];
    assert_eq!((class.waiting, class.cancelled), (0, 10));
    drop(held);
    assert_eq!(handle.snapshot().classes[2].in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_forgotten_holds_its_seat_until_max_hold() {
    let mut config = PriorityConfig::four_class(1);
    config.classes[2].max_hold = Some(std::time::Duration::from_secs(2));
    let (layer, handle) = PriorityLayer::builder().config(config).build_with_handle().expect("valid");
    let service = layer.layer(service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Scripted::new([Step::Data("a".into())])))
    }));
    let forgotten = std::mem::ManuallyDrop::new(service.clone().oneshot(Request::new(())).await.expect("infallible"));
    let before = tokio::time::Instant::now();
    let served = service.oneshot(Request::new(())).await.expect("infallible");
    assert_eq!((served.status().as_u16(), before.elapsed().as_secs()), (200, 2));
    assert_eq!((forgotten.status().as_u16(), handle.snapshot().classes[2].overdue), (200, 1));
}
