//! What stands before the stack: knows the caller, bounds the body, writes the access log.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use forebay_core::{Class, Rejection};
use forebay_priority::PriorityHandle;
use http::{HeaderValue, StatusCode, header};
use http_body::Body as _;
use http_body_util::Limited;
use tokio::time::Instant;

use crate::auth::{AuthError, Keys};
use crate::problem::problem;

/// What the entrance needs to know.
#[derive(Debug)]
pub(crate) struct Entrance {
    pub(crate) keys: Keys,
    pub(crate) priority: PriorityHandle,
    pub(crate) max_body_bytes: u64,
}

/// Sets `Principal` and `Class`, and takes the caller's key off: it is ours, the backends never see it.
pub(crate) async fn authenticate(State(entrance): State<Arc<Entrance>>, mut request: Request, next: Next) -> Response {
    match entrance.keys.principal(request.headers()) {
        Ok(Some(principal)) => {
            request.extensions_mut().insert(principal);
            request.headers_mut().remove(header::AUTHORIZATION);
            request.headers_mut().remove("x-api-key");
        }
        Ok(None) => {}
        Err(error) => {
            let detail = match error {
                AuthError::Missing => "no API key: send it as `Authorization: Bearer <key>`",
                AuthError::Unknown => "this API key is unknown",
            };
            let mut response = problem(StatusCode::UNAUTHORIZED, "invalid-api-key", detail);
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return response;
        }
    }
    entrance.priority.mark(&mut request);
    next.run(request).await
}

/// Refuses a body that says it is too long at once, and cuts one that turns out to be.
pub(crate) async fn bound(State(entrance): State<Arc<Entrance>>, request: Request, next: Next) -> Response {
    let max = entrance.max_body_bytes;
    if request.body().size_hint().lower() > max {
        let detail = format!("the request body is longer than {max} bytes");
        return problem(StatusCode::PAYLOAD_TOO_LARGE, "too-large", &detail);
    }
    let known = request.body().size_hint().exact().is_some();
    let limit = usize::try_from(max).unwrap_or(usize::MAX);
    let bounded = |body| if known { body } else { Body::new(Limited::new(body, limit)) };
    next.run(request.map(bounded)).await
}

/// One event per request, when its head is out: no query, no body, no key, no tenant.
pub(crate) async fn log(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let rejection = response.extensions().get::<Rejection>();
    tracing::info!(
        target: "access",
        %method,
        path,
        status = response.status().as_u16(),
        class = rejection.and_then(|rejection| rejection.class).map(Class::as_str),
        refused = rejection.map(|rejection| rejection.reason.as_str()),
        head_ms = started.elapsed().as_millis() as u64,
    );
    response
}
