//! The access log.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use forebay_core::{Class, Rejection};
use tokio::time::Instant;

/// Writes one event per request, when its head is out: no query, no body, no key, no tenant.
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
        class = response.extensions().get::<Class>().copied().map(Class::as_str),
        refused = rejection.map(|rejection| rejection.reason.as_str()),
        head_ms = started.elapsed().as_millis() as u64,
    );
    response
}
