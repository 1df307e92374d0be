//! The layer keeps tower's contract, changes no error, and counts what it should.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_autoscale::{Autoscale, AutoscaleHandle, AutoscaleLayer};
use forebay_core::testing::{Scripted, Spy, Step};
use forebay_core::{BoxError, Class, Reason, Rejection};
use http::{HeaderMap, Request, Response};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use tower::{Layer as _, Service, ServiceExt as _, service_fn};

fn build() -> (AutoscaleLayer, AutoscaleHandle) {
    AutoscaleLayer::builder().build_with_handle().expect("the default is valid")
}

#[tokio::test]
async fn calls_land_on_the_ready_instance_and_bodies_pass_whole() {
    let (layer, handle) = build();
    let (spy, seen) = Spy::new(service_fn(|_: Request<()>| async {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("x"))]);
        let steps = vec![Step::Data("one".into()), Step::Pending, Step::Data("two".into()), Step::Trailers(trailers)];
        Ok::<_, Infallible>(Response::new(Scripted::new(steps)))
    }));
    let mut service = layer.layer(spy);
    for round in 1..=3 {
        let mut request = Request::new(());
        request.extensions_mut().insert(Class::P1);
        let response = service.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(handle.demand()[Class::P1].in_flight, 1, "until the body has ended");
        let body = response.into_body().collect().await.unwrap();
        assert!(body.trailers().is_some());
        assert_eq!(body.to_bytes(), "onetwo");
        assert_eq!(handle.demand()[Class::P1].in_flight, 0);
        assert_eq!(handle.demand()[Class::P1].done, round);
    }
    let seen = *seen.lock().unwrap();
    assert_eq!((seen.calls, seen.unready_calls, seen.clones, seen.in_flight, seen.early_drops), (3, 0, 0, 0, 0));
    assert_eq!((seen.frames, seen.trailers), (6, 3));
}

#[derive(Debug, PartialEq)]
struct Broken(&'static str);

/// Fails where it is told to.
struct Fails {
    unready: bool,
}

impl Service<Request<()>> for Fails {
    type Response = Response<Full<Bytes>>;
    type Error = Broken;
    type Future = Ready<Result<Self::Response, Broken>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(if self.unready { Err(Broken("ready")) } else { Ok(()) })
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Err(Broken("call")))
    }
}

#[tokio::test]
async fn errors_keep_their_type_and_end_the_count() {
    let (layer, handle) = build();
    let mut service: Autoscale<Fails> = layer.layer(Fails { unready: true });
    assert_eq!(service.ready().await.err(), Some(Broken("ready")));
    assert_eq!(handle.demand().total(), Default::default(), "readiness counts nothing");
    let mut service = layer.layer(Fails { unready: false });
    assert_eq!(service.ready().await.unwrap().call(Request::new(())).await.err(), Some(Broken("call")));
    let counts = handle.snapshot().classes[2];
    assert_eq!((counts.arrived, counts.done, counts.in_flight), (1, 1, 0), "P2 by default");
}

#[tokio::test]
async fn refusals_stay_in_the_offered_load_and_early_answers_leave_it() {
    let (layer, handle) = build();
    let mut service = layer.layer(service_fn(|request: Request<()>| async move {
        let full = |text: &'static str| Full::new(Bytes::from_static(text.as_bytes()));
        Ok::<_, Infallible>(match request.uri().path() {
            "/shed" => Rejection::new(Reason::QueueFull).into_response().map(Full::new),
            "/hit" => Response::builder().header("cache-status", "forebay; hit; ttl=3").body(full("old")).unwrap(),
            "/later" => Response::builder().status(202).body(full("")).unwrap(),
            _ => Response::new(full("new")),
        })
    }));
    for path in ["/shed", "/hit", "/later", "/new"] {
        let response = service.ready().await.unwrap().call(Request::get(path).body(()).unwrap()).await.unwrap();
        assert_eq!(response.body().is_end_stream(), path == "/later");
        drop(response.into_body().collect().await.unwrap());
    }
    let counts = handle.snapshot().classes[2];
    assert_eq!((counts.arrived, counts.early, counts.shed, counts.done, counts.cancelled), (4, 2, 1, 3, 0));
    assert_eq!(handle.demand()[Class::P2].offered, 2);
}

#[tokio::test]
async fn a_broken_body_and_a_panic_end_the_count() {
    let (layer, handle) = build();
    let mut service = layer.layer(service_fn(|request: Request<()>| {
        assert!(request.uri().path() != "/panic", "as told");
        let error: BoxError = "broken".into();
        ready(Ok::<_, Infallible>(Response::new(Scripted::new([Step::Data("a".into()), Step::Error(error)]))))
    }));
    let response = service.ready().await.unwrap().call(Request::new(())).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap_err().to_string(), "broken");
    let request = Request::get("/panic").body(()).unwrap();
    service.ready().await.unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(service.call(request))));
    assert!(panicked.is_err());
    let counts = handle.snapshot().classes[2];
    assert_eq!((counts.arrived, counts.done, counts.cancelled, counts.in_flight, counts.queued), (2, 1, 1, 0, 0));
}
