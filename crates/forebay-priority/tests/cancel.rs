//! An exchange dropped at any poll, alone or before a waiter, leaves every count right and its seat to the next.

use std::convert::Infallible;

use forebay_core::testing::{Scripted, Spy, Step, cut_after};
use forebay_priority::{PriorityConfig, PriorityLayer};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tower::{Layer as _, ServiceExt as _, service_fn};

#[tokio::test(start_paused = true)]
async fn dropped_at_every_poll_in_the_wait_the_call_and_the_body() {
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
async fn a_crowd_that_leaves_the_queue_at_once_leaves_nothing_behind() {
    let mut config = PriorityConfig::four_class(1);
    config.classes[2].queue = forebay_priority::QueueLength::Fixed(10_000);
    let (layer, handle) = PriorityLayer::builder().config(config).build_with_handle().expect("valid");
    let service =
        layer.layer(service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Scripted::new([]))) }));
    let held = service.clone().oneshot(Request::new(())).await.expect("infallible");
    let mut crowd: Vec<_> =
        (0..10_000).map(|_| tokio_test::task::spawn(service.clone().oneshot(Request::new(())))).collect();
    for task in &mut crowd {
        tokio_test::assert_pending!(task.poll());
    }
    assert_eq!(handle.snapshot().classes[2].queued, 10_000);
    drop(crowd);
    drop(held);
    let class = handle.snapshot().classes[2];
    assert_eq!((class.queued, class.in_flight, class.cancelled), (0, 0, 10_000));
}
