//! A stream is never held back; what was recorded is replayed frame by frame, with trailers.
#![cfg(feature = "moka")]

mod kit;

use std::pin::pin;

use bytes::Bytes;
use forebay_core::testing::Step;
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt as _;
use kit::{DONE, chat, kit, reply};

const ASK: &str = r#"{"stream":true,"temperature":0}"#;

async fn frames(
    body: impl Body<Data = Bytes, Error = forebay_core::BoxError>,
) -> (Vec<Bytes>, Option<HeaderMap>, bool) {
    let (mut body, mut data, mut trailers) = (pin!(body), Vec::new(), None);
    while let Some(frame) = body.frame().await {
        match frame.unwrap().into_data() {
            Ok(bytes) => data.push(bytes),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    (data, trailers, body.is_end_stream())
}

#[tokio::test]
async fn the_first_frame_is_there_before_the_second_is_made() {
    let kit = kit(|_, _| {
        let steps = vec![Step::Data(": a\n\n".into()), Step::Pending, Step::Data(DONE.into())];
        reply(&[("content-type", "text/event-stream")], steps)
    });
    let mut body = pin!(kit.head(chat(ASK)).await.into_body());
    let first = tokio::select! { biased; frame = body.frame() => frame, () = std::future::ready(()) => None };
    assert_eq!(first.unwrap().unwrap().into_data().unwrap(), ": a\n\n");
    assert_eq!(kit.seen.lock().unwrap().frames, 1);
}

#[tokio::test]
async fn what_was_recorded_is_replayed_equal() {
    let kit = kit(|_, _| {
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]);
        let steps = DONE.split_inclusive('\n').map(|part| Step::Data(Bytes::from_static(part.as_bytes())));
        let steps = steps.chain([Step::Pending, Step::Trailers(trailers)]).collect();
        reply(&[("content-type", "text/event-stream"), ("cache-control", "no-cache")], steps)
    });
    let recorded = frames(kit.head(chat(ASK)).await.into_body()).await;
    let hit = kit.head(chat(ASK)).await;
    assert!(hit.headers()["cache-status"].to_str().unwrap().contains("hit"));
    assert_eq!(hit.headers()["content-type"], "text/event-stream");
    assert_eq!(hit.body().size_hint().exact(), Some(DONE.len() as u64));
    let replayed = frames(hit.into_body()).await;
    assert_eq!((&replayed.0, &replayed.1, replayed.2), (&recorded.0, &recorded.1, true));
    assert_eq!((recorded.0.len(), recorded.1.is_some(), kit.calls()), (4, true, 1));
    let snapshot = kit.handle.snapshot();
    assert_eq!((snapshot.entries, snapshot.stored), (1, 1));
    assert!(snapshot.bytes > DONE.len() as u64);
}
