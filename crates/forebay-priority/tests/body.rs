//! Whatever the body does, its seat is freed once, at its end, and frames, hints and trailers pass as they are.

mod common;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use common::{assert_idle, config, request};
use forebay_core::Class;
use forebay_core::testing::{Scripted, Step};
use forebay_priority::{PriorityBody, PriorityHandle, PriorityLayer};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tower::{Layer as _, ServiceExt as _, service_fn};

/// The answer to one request, of a backend that answers like this.
async fn answer(
    method: Method,
    status: StatusCode,
    steps: Vec<Step>,
) -> (Response<PriorityBody<Scripted>>, PriorityHandle) {
    let (layer, handle) = PriorityLayer::builder().config(config(1, 1)).build_with_handle().expect("valid");
    let steps = Arc::new(Mutex::new(Some(steps)));
    let service = layer.layer(service_fn(move |_: Request<()>| {
        let steps = steps.lock().expect("no panic").take().expect("one request");
        let response = Response::builder().status(status).body(Scripted::new(steps)).expect("valid");
        async { Ok::<_, Infallible>(response) }
    }));
    let mut request = request(Class::P0);
    *request.method_mut() = method;
    let Ok(response) = service.oneshot(request).await;
    (response, handle)
}

fn seats(handle: &PriorityHandle) -> usize {
    handle.snapshot().classes[0].in_flight
}

#[tokio::test]
async fn r8_an_empty_body_frees_the_seat_with_the_head() {
    for status in [StatusCode::OK, StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED] {
        let (layer, handle) = PriorityLayer::builder().config(config(1, 1)).build_with_handle().expect("valid");
        let service = layer.layer(service_fn(move |_: Request<()>| async move {
            let body = http_body_util::Empty::<bytes::Bytes>::new(); // of an answer to HEAD, a 204, a 304
            Ok::<_, Infallible>(Response::builder().status(status).body(body).expect("valid"))
        }));
        let Ok(response) = service.oneshot(request(Class::P0)).await;
        assert!(response.body().is_end_stream());
        assert_idle(&handle);
    }
}

#[tokio::test]
async fn r8_a_tunnel_frees_the_seat_with_the_head() {
    let frame = || vec![Step::Data("bytes of another protocol".into())];
    let (switched, handle) = answer(Method::GET, StatusCode::SWITCHING_PROTOCOLS, frame()).await;
    assert_idle(&handle);
    let (connected, handle) = answer(Method::CONNECT, StatusCode::OK, frame()).await;
    assert_idle(&handle);
    let (refused, handle) = answer(Method::CONNECT, StatusCode::FORBIDDEN, frame()).await;
    assert_eq!(seats(&handle), 1);
    drop((switched, connected, refused));
}

#[tokio::test]
async fn r8_frames_hints_and_trailers_pass_and_the_last_frame_frees() {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("a value"));
    let steps = vec![Step::Data("ab".into()), Step::Pending, Step::Data("c".into()), Step::Trailers(trailers.clone())];
    let (response, handle) = answer(Method::GET, StatusCode::OK, steps).await;
    let mut body = response.into_body();
    let before = body.size_hint();
    assert!(before.lower() <= 3 && before.upper().is_none_or(|upper| upper >= 3));
    assert_eq!(body.frame().await.expect("a frame").expect("good").into_data().expect("data"), "ab");
    assert_eq!(body.frame().await.expect("a frame").expect("good").into_data().expect("data"), "c");
    assert_eq!(seats(&handle), 1);
    let last = body.frame().await.expect("a frame").expect("good").into_trailers().expect("trailers");
    assert_eq!(last, trailers);
    assert_idle(&handle);
    assert!(body.frame().await.is_none());

    let (response, handle) = answer(Method::POST, StatusCode::OK, vec![Step::Trailers(trailers)]).await;
    response.into_body().collect().await.expect("trailers alone");
    assert_idle(&handle);
}

#[tokio::test]
async fn r8_an_error_a_drop_and_an_unread_body_free_it_too() {
    let (response, handle) =
        answer(Method::GET, StatusCode::OK, vec![Step::Data("a".into()), Step::Error("reset".into())]).await;
    assert!(response.into_body().collect().await.is_err());
    assert_idle(&handle);

    for polls in 0..3 {
        let steps = (0..10).map(|_| Step::Data("a".into())).collect();
        let (response, handle) = answer(Method::GET, StatusCode::OK, steps).await;
        let mut body = response.into_body();
        for _ in 0..polls {
            body.frame().await.expect("a frame").expect("data");
        }
        assert_eq!(seats(&handle), 1);
        drop(body);
        assert_idle(&handle);
    }
}

#[tokio::test]
async fn a_million_tiny_frames_pass() {
    let steps = (0..1_000_000).map(|_| Step::Data("x".into())).collect();
    let (response, handle) = answer(Method::GET, StatusCode::OK, steps).await;
    assert_eq!(response.into_body().collect().await.expect("good").to_bytes().len(), 1_000_000);
    assert_idle(&handle);
}

#[tokio::test]
async fn a_panic_in_the_body_frees_the_seat() {
    struct Bomb;
    impl http_body::Body for Bomb {
        type Data = bytes::Bytes;
        type Error = Infallible;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Infallible>>> {
            panic!("a bug in the body")
        }
    }
    let (layer, handle) = PriorityLayer::builder().config(config(1, 1)).build_with_handle().expect("valid");
    let service = layer.layer(service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Bomb)) }));
    let Ok(response) = service.oneshot(request(Class::P0)).await;
    let outcome = tokio::spawn(async { response.into_body().collect().await.is_ok() }).await;
    assert!(outcome.is_err_and(|error| error.is_panic()));
    assert_idle(&handle);
}
