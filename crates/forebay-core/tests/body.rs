//! Bodies: the guard goes once, at the right moment, whatever the body does; hints and trailers survive.

use std::pin::pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use forebay_core::testing::{Scripted, Step, cut_after};
use forebay_core::{BodyGuard, BoxError, Guarded, Never, Outcome, ReqBody, ResBody};
use http::HeaderMap;
use http_body::Body;
use http_body_util::{BodyExt as _, Empty, Full};

/// What happened to a guard, in order.
type Log = Arc<Mutex<Vec<&'static str>>>;

#[derive(Debug)]
struct Witness(Log, Option<&'static str>);
impl BodyGuard for Witness {
    fn check(&mut self) -> Result<(), BoxError> {
        self.1.map_or(Ok(()), |why| Err(why.into()))
    }
    fn first_data(&mut self) {
        self.0.lock().unwrap().push("first data");
    }
    fn finish(self, outcome: Outcome) {
        self.0.lock().unwrap().push(outcome.as_str());
    }
}
impl Drop for Witness {
    fn drop(&mut self) {
        self.0.lock().unwrap().push("gone");
    }
}

fn watched<B: Body>(body: B) -> (Guarded<B, Witness>, Log) {
    let log = Log::default();
    (Guarded::new(body, Witness(Arc::clone(&log), None)), log)
}

fn log(log: &Log) -> Vec<&'static str> {
    log.lock().unwrap().clone()
}

#[tokio::test]
async fn a_stream_ends_at_none() {
    let steps = [Step::Data("".into()), Step::Data("a".into()), Step::Pending, Step::Data("b".into())];
    let (body, seen) = watched(Scripted::new(steps));
    assert_eq!(body.collect().await.unwrap().to_bytes(), "ab");
    assert_eq!(log(&seen), ["first data", "success", "gone"]);
}

#[tokio::test]
async fn a_sized_body_ends_with_its_last_frame_not_with_none() {
    let (body, seen) = watched(Full::new(Bytes::from("abc")));
    assert_eq!(body.size_hint().exact(), Some(3));
    let mut body = pin!(body);
    body.frame().await.unwrap().unwrap();
    assert_eq!(log(&seen), ["first data", "success", "gone"]);
    assert!(body.is_end_stream());
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn an_empty_body_lets_go_at_the_head() {
    let (body, seen) = watched(Empty::<Bytes>::new());
    assert_eq!(log(&seen), ["success", "gone"]);
    assert!(body.is_end_stream());
    assert_eq!(body.size_hint().exact(), Some(0));
}

#[tokio::test]
async fn grpc_trailers_say_how_it_ended() {
    for (status, ended) in [("0", "success"), ("5", "success"), ("14", "overload"), ("13", "error")] {
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), status.parse().unwrap())]);
        let (body, seen) = watched(Scripted::new([Step::Data("a".into()), Step::Trailers(trailers)]));
        body.collect().await.unwrap();
        assert_eq!(log(&seen), ["first data", ended, "gone"], "grpc-status {status}");
    }
}

#[tokio::test]
async fn trailers_pass_and_end_it() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "1".parse().unwrap());
    let (body, seen) = watched(Scripted::new([Step::Trailers(trailers.clone())]));
    let mut body = pin!(body);
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.trailers_ref(), Some(&trailers));
    assert_eq!(log(&seen), ["success", "gone"], "trailers are no data");
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn an_error_ends_it_and_the_body_is_not_polled_again() {
    let (body, seen) = watched(Scripted::new([Step::Error("cut".into()), Step::Data("never".into())]));
    let mut body = pin!(body);
    assert_eq!(body.frame().await.unwrap().unwrap_err().to_string(), "cut");
    assert!(body.frame().await.is_none());
    assert_eq!(log(&seen), ["error", "gone"]);
}

#[tokio::test]
async fn a_failed_check_cuts_the_body() {
    let seen = Log::default();
    let guard = Witness(Arc::clone(&seen), Some("held too long"));
    let mut body = pin!(Guarded::new(Scripted::new([Step::Data("never".into())]), guard));
    assert_eq!(body.frame().await.unwrap().unwrap_err().to_string(), "held too long");
    assert!(body.frame().await.is_none());
    assert_eq!(log(&seen), ["error", "gone"]);
}

#[tokio::test]
async fn a_body_dropped_at_any_frame_lets_go_once() {
    for polls in 0.. {
        let steps = [Step::Data("a".into()), Step::Pending, Step::Data("b".into()), Step::Pending];
        let (body, seen) = watched(Scripted::new(steps));
        let done = cut_after(polls, body.collect()).await.is_some();
        let log = log(&seen);
        assert_eq!(log.iter().filter(|event| **event == "gone").count(), 1, "{polls}");
        assert_eq!(log.contains(&"success"), done, "{polls}");
        if done {
            break;
        }
    }
}

#[tokio::test]
async fn a_request_body_is_a_stream_a_buffer_or_both() {
    let buffered: ReqBody = ReqBody::buffered("abc");
    assert_eq!((buffered.size_hint().exact(), buffered.is_end_stream()), (Some(3), false));
    assert_eq!(buffered.as_buffered().unwrap(), "abc");
    assert_eq!(buffered.collect().await.unwrap().to_bytes(), "abc");
    let empty: ReqBody = ReqBody::default();
    assert!(empty.is_end_stream());
    let streamed = ReqBody::stream(Full::new(Bytes::from("abc")));
    assert_eq!((streamed.size_hint().exact(), streamed.as_buffered()), (Some(3), None));
    let both = ReqBody::prefixed("abc", Full::new(Bytes::from("def")));
    assert_eq!((both.size_hint().exact(), both.is_end_stream()), (Some(6), false));
    assert_eq!(both.collect().await.unwrap().to_bytes(), "abcdef");
    let unknown = ReqBody::prefixed("abc", Scripted::new([Step::Data("d".into())]));
    assert_eq!((unknown.size_hint().lower(), unknown.size_hint().upper()), (3, None));
}

#[tokio::test]
async fn a_response_body_is_ours_or_passed() {
    let ours: ResBody<Never> = ResBody::answer("busy");
    assert_eq!((ours.size_hint().exact(), ours.is_end_stream()), (Some(4), false));
    assert_eq!(ours.collect().await.unwrap().to_bytes(), "busy");
    let nothing: ResBody<Never> = ResBody::answer("");
    assert!(nothing.is_end_stream());
    let passed = ResBody::passed(Full::new(Bytes::from("abc")));
    assert_eq!(passed.size_hint().exact(), Some(3));
    assert_eq!(passed.collect().await.unwrap().to_bytes(), "abc");
}

#[tokio::test]
async fn a_cut_future_is_dropped_at_the_poll_it_was_given() {
    assert_eq!(cut_after(0, async { 1 }).await, None);
    assert_eq!(cut_after(1, async { 1 }).await, Some(1));
    let twice = || async { tokio::task::yield_now().await };
    assert_eq!(cut_after(1, twice()).await, None);
    assert_eq!(cut_after(2, twice()).await, Some(()));
}
