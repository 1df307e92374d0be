//! Hostile and unusual input: who sees which job, keys, paths, tokens.

mod kit;

use bytes::Bytes;
use forebay_core::{BoxError, Principal, Reason, Rejection, ReqBody};
use forebay_offload::{JobRouter, Offload, OffloadLayer, policy::JobId, store::MemoryStore};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use kit::{queue, read, respond_async};
use tower::{Layer, ServiceExt, service_fn};

type Inner = Request<ReqBody<Full<Bytes>>>;

async fn inline(_: Inner) -> Result<Response<Full<Bytes>>, BoxError> {
    Ok(Response::new(Full::from("inline")))
}

fn who(name: &str) -> Option<Principal> {
    (!name.is_empty()).then(|| Principal::from_bytes(name))
}

async fn visit(router: &JobRouter, method: Method, uri: &str, name: &str) -> (StatusCode, String) {
    let mut request = Request::builder().method(method).uri(uri).body(()).unwrap();
    if let Some(principal) = who(name) {
        request.extensions_mut().insert(principal);
    }
    read(router.clone().oneshot(request).await.unwrap()).await
}

async fn make(
    service: &Offload<impl tower::Service<Inner, Response = Response<Full<Bytes>>, Error = BoxError> + Clone>,
    name: &str,
    key: Option<&str>,
    body: &'static str,
) -> Response<forebay_core::ResBody<Full<Bytes>>> {
    let mut request = respond_async("/v1/x", body);
    if let Some(principal) = who(name) {
        request.extensions_mut().insert(principal);
    }
    if let Some(key) = key {
        request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    }
    service.clone().oneshot(request).await.unwrap()
}

fn location<B>(response: &Response<B>) -> String {
    response.headers()["location"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_job_is_visible_to_its_own_only_on_every_route() {
    let queue = queue(MemoryStore::new());
    let service = OffloadLayer::new(queue.clone()).layer(service_fn(inline));
    let router = JobRouter::new(queue.clone());
    let own = location(&make(&service, "alice", None, "a").await);
    let free = location(&make(&service, "", None, "b").await);
    let other = location(&make(&service, "", None, "c").await);
    assert!(!own.contains('?'));
    let (free_path, free_token) = free.split_once('?').unwrap();
    let other_token = other.split_once('?').unwrap().1;
    let forbidden = [
        (own.clone(), ""),
        (own.clone(), "bob"),
        (format!("{own}?{free_token}"), "bob"),
        (format!("{own}?{free_token}"), ""),
        (free_path.to_owned(), ""),
        (free_path.to_owned(), "alice"),
        (format!("{free_path}?{other_token}"), ""),
        (format!("{free_path}?{}", &free_token[..free_token.len() - 1]), ""),
        (format!("{free_path}?{free_token}0"), ""),
        (format!("{free_path}?token="), ""),
        (format!("{free_path}?token=%00"), ""),
        (format!("/jobs/{}", JobId::random()), "alice"),
    ];
    for (url, name) in &forbidden {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        for (method, tail) in
            [(Method::GET, ""), (Method::GET, "/result"), (Method::DELETE, ""), (Method::POST, "/cancel")]
        {
            let (status, body) = visit(&router, method.clone(), &format!("{path}{tail}?{query}"), name).await;
            assert_eq!(status, 404, "{method} {url}{tail} as {name:?}");
            assert!(body.contains("job-not-found"));
        }
    }
    // Nothing of that has cancelled anything.
    assert_eq!(visit(&router, Method::GET, &own, "alice").await.0, 200);
    assert_eq!(visit(&router, Method::GET, &free, "").await.0, 200);
    // A URL with its token is as good for somebody who has a principal.
    assert_eq!(visit(&router, Method::GET, &free, "bob").await.0, 200);
}

#[tokio::test]
async fn nonsense_paths_and_methods_are_told_apart() {
    let queue = queue(MemoryStore::new());
    let router = JobRouter::new(queue);
    for path in ["/", "/jobs", "/jobs/", "/jobs/x", "/jobs/../../etc/passwd", "/jobs/%2e%2e"] {
        assert_eq!(visit(&router, Method::GET, path, "").await.0, 404, "{path}");
    }
    let upper = JobId::random().to_string().to_uppercase();
    assert_eq!(visit(&router, Method::GET, &format!("/jobs/{upper}"), "").await.0, 404);
    assert_eq!(visit(&router, Method::PUT, &format!("/jobs/{}", JobId::random()), "").await.0, 405);
}

#[tokio::test]
async fn the_life_of_a_job_over_the_router() {
    let queue = queue(MemoryStore::new());
    let service = OffloadLayer::new(queue.clone()).layer(service_fn(inline));
    let router = JobRouter::new(queue.clone());
    let at = location(&make(&service, "a", None, "x").await);
    let result = format!("{at}/result");
    assert_eq!(visit(&router, Method::GET, &result, "a").await.0, 202);
    let answer = service_fn(|_: Request<ReqBody>| async {
        let response = Response::builder().status(418).header("x-own", "1").header("set-cookie", "s=1");
        Ok::<_, BoxError>(response.body(Full::<Bytes>::from("teapot")).unwrap())
    });
    kit::run_until_idle(&queue, answer).await;
    let request = |uri: &str| {
        let mut request = Request::get(uri).body(()).unwrap();
        request.extensions_mut().insert(Principal::from_bytes("a"));
        request
    };
    let response = router.clone().oneshot(request(&result)).await.unwrap();
    assert_eq!(response.headers()["x-own"], "1");
    assert_eq!(response.headers().len(), 1, "{:?}", response.headers());
    let (status, body) = read(response).await;
    assert_eq!((status.as_u16(), body.as_str()), (418, "teapot"));
    let (_, document) = visit(&router, Method::GET, &at, "a").await;
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!((document["state"].as_str(), document["http_status"].as_u64()), (Some("completed"), Some(418)));
    assert_eq!(visit(&router, Method::POST, &format!("{at}/cancel"), "a").await.0, 409);
    assert_eq!(visit(&router, Method::DELETE, &at, "a").await.0, 204);
    assert_eq!(visit(&router, Method::GET, &at, "a").await.0, 404);

    let at = location(&make(&service, "a", None, "y").await);
    assert_eq!(visit(&router, Method::DELETE, &at, "a").await.0, 200);
    assert_eq!(visit(&router, Method::POST, &format!("{at}/cancel"), "a").await.0, 200);
    assert_eq!(visit(&router, Method::GET, &format!("{at}/result"), "a").await.0, 410);
}

#[tokio::test]
async fn a_key_is_one_job_within_its_principal() {
    let queue = queue(MemoryStore::new());
    let service = OffloadLayer::new(queue.clone()).layer(service_fn(inline));
    let first = make(&service, "a", Some("\"k\""), "x").await;
    let again = make(&service, "a", Some("k"), "x").await;
    assert_eq!((first.status().as_u16(), again.status().as_u16()), (202, 202));
    assert_eq!(location(&first), location(&again));
    assert_ne!(location(&first), location(&make(&service, "b", Some("k"), "x").await));
    let other = make(&service, "a", Some("k"), "y").await;
    assert_eq!(other.status(), 422);
    assert_eq!(other.extensions().get::<Rejection>().unwrap().reason, Reason::KeyMismatch);
    for invalid in ["", "\"", "\"\"", "a b"] {
        assert_eq!(make(&service, "a", Some(invalid), "x").await.status(), 400, "{invalid}");
    }
    let answer =
        service_fn(|_: Request<ReqBody>| async { Ok::<_, BoxError>(Response::new(Full::<Bytes>::from("ok"))) });
    kit::run_until_idle(&queue, answer).await;
    let replayed = make(&service, "a", Some("k"), "x").await;
    assert_eq!(replayed.headers()["idempotent-replayed"], "true");
    assert_eq!(read(replayed).await.1, "ok");
    // The job forgotten, the key is not: no second run.
    let router = JobRouter::new(queue);
    assert_eq!(visit(&router, Method::DELETE, &location(&first), "a").await.0, 204);
    assert_eq!(make(&service, "a", Some("k"), "x").await.status(), 410);
}

#[tokio::test]
async fn fifty_equal_keys_at_a_time_are_one_job() {
    let queue = queue(MemoryStore::new());
    let service = OffloadLayer::new(queue.clone()).layer(service_fn(inline));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let service = service.clone();
        tasks.spawn(async move { location(&make(&service, "", Some("k"), "x").await) });
    }
    let mut locations = tasks.join_all().await;
    locations.dedup();
    assert_eq!(locations.len(), 1);
    assert_eq!(queue.stats().waiting.iter().sum::<u64>(), 1);
}

#[tokio::test]
async fn axum_nests_the_router_and_takes_the_layer() {
    use axum::{Router, body::Body, routing::post};
    let queue = queue(MemoryStore::new());
    let api = Router::new().route("/v1/report", post(|body: String| async move { format!("report on {body}") }));
    let app = api.clone().layer(OffloadLayer::new(queue.clone())).nest_service("/jobs", JobRouter::new(queue.clone()));
    let ask = Request::post("/v1/report").header("prefer", "respond-async").body(Body::from("rain")).unwrap();
    let accepted = app.clone().oneshot(ask).await.unwrap();
    assert_eq!(accepted.status(), 202);
    let at = location(&accepted);
    kit::run_until_idle(&queue, api).await;
    let result = Request::get(at.replace('?', "/result?")).body(Body::empty()).unwrap();
    let (status, body) = read(app.clone().oneshot(result).await.unwrap()).await;
    assert_eq!((status.as_u16(), body.as_str()), (200, "report on rain"));
    let plain = Request::post("/v1/report").body(Body::from("sun")).unwrap();
    assert_eq!(read(app.oneshot(plain).await.unwrap()).await.1, "report on sun");
}
