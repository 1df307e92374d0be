//! Dropped at any poll, or failed at any frame: nothing is stored, and nothing is left behind.
#![cfg(feature = "moka")]

mod kit;

use forebay_core::testing::{Step, cut_after};
use http_body_util::BodyExt as _;
use kit::{DONE, Kit, chat, get, kit, reply};

const ASK: &str = r#"{"temperature":0}"#;

fn slow() -> Kit {
    kit(|_, request| {
        let mut steps = vec![Step::Pending];
        steps.extend(DONE.split_inclusive("\n\n").flat_map(|part| [Step::Data(part.into()), Step::Pending]));
        if request.headers().contains_key("x-break") {
            steps.push(Step::Error("broken".into()));
        }
        reply(&[("content-type", "text/event-stream"), ("cache-control", "max-age=9")], steps)
    })
}

#[tokio::test]
async fn a_client_that_leaves_early_stores_nothing() {
    for json in [true, false] {
        let request = || if json { chat(ASK) } else { get("/a", &[]) };
        for polls in 0.. {
            let kit = slow();
            let exchange = async { kit.head(request()).await.into_body().collect().await.unwrap() };
            let done = cut_after(polls, exchange).await.is_some();
            let (seen, snapshot) = (*kit.seen.lock().unwrap(), kit.handle.snapshot());
            assert_eq!((seen.in_flight, seen.unready_calls), (0, 0));
            assert_eq!((snapshot.stored, snapshot.entries > 0), (u64::from(done), done), "after {polls} polls");
            if done {
                assert!(polls > 2);
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_broken_body_stores_nothing() {
    let kit = slow();
    let got = kit.head(get("/a", &[("x-break", "1")])).await;
    assert!(got.into_body().collect().await.is_err());
    assert_eq!(kit.handle.snapshot().entries, 0);
}
