//! The balancer where people put it: as the fallback of an axum router, behind a real server.

use axum::body::Body;
use forebay_balance::{Balance, Endpoint};
use http::Request;
use http_body_util::BodyExt as _;
use tokio::net::TcpListener;
use tower::ServiceExt as _;

async fn serve(app: axum::Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

#[tokio::test]
async fn axum_takes_it_as_its_fallback_service() {
    let backend = axum::Router::new().fallback(|request: Request<Body>| async move { request.uri().path().to_owned() });
    let backend = Endpoint::new(serve(backend).await);
    let (inner, handle) = Balance::http().endpoint(backend).build_with_handle().expect("valid");
    let app = axum::Router::new()
        .route("/own", axum::routing::get(|| async { "own" }))
        .fallback_service(inner.into_infallible());
    let gateway = Endpoint::new(serve(app).await);
    let client = Balance::http().endpoint(gateway).build().expect("valid");
    for (path, answer) in [("/own", "own"), ("/v1/models", "/v1/models")] {
        let response = client.clone().oneshot(Request::get(path).body(Body::empty()).expect("valid")).await;
        let body = response.expect("an answer").into_body().collect().await.expect("whole").to_bytes();
        assert_eq!(body, answer);
    }
    let backend = &handle.snapshot()[0];
    assert_eq!((backend.picks, backend.success, backend.in_flight), (1, 1, 0));
}
