//! Dropped at any poll, in the call or in the body, an exchange leaves every gauge at zero.

use std::convert::Infallible;

use forebay_autoscale::AutoscaleLayer;
use forebay_core::testing::{Scripted, Spy, Step, cut_after};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tower::{Layer as _, ServiceExt as _, service_fn};

#[tokio::test]
async fn a_cut_exchange_leaves_nothing() {
    let (layer, handle) = AutoscaleLayer::builder().build_with_handle().unwrap();
    let (spy, seen) = Spy::new(service_fn(|_: Request<()>| async {
        tokio::task::yield_now().await;
        let steps = [Step::Pending, Step::Data("a".into()), Step::Pending, Step::Data("b".into()), Step::Pending];
        Ok::<_, Infallible>(Response::new(Scripted::new(steps)))
    }));
    let (mut polls, mut cuts) = (0, 0);
    loop {
        let exchange = async {
            let response = layer.layer(spy.clone()).oneshot(Request::new(())).await.unwrap();
            response.into_body().collect().await.unwrap().to_bytes()
        };
        let done = cut_after(polls, exchange).await;
        let counts = handle.snapshot().classes[2];
        assert_eq!((counts.queued, counts.in_flight), (0, 0), "cut after {polls} polls");
        assert_eq!(counts.arrived, counts.done + counts.cancelled);
        assert_eq!(seen.lock().unwrap().in_flight, 0);
        if let Some(text) = done {
            assert_eq!(text, "ab");
            assert_eq!((counts.done, counts.cancelled), (1, cuts));
            assert!(cuts >= 4, "in the call and at each step of the body");
            return;
        }
        cuts = counts.cancelled;
        polls += 1;
    }
}
