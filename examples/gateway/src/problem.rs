use axum::body::Body;
use axum::response::Response;
use forebay_core::Rejection;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

/// A refusal of the gateway itself: RFC 9457, with the `error` member that OpenAI clients read beside it.
pub(crate) fn problem(status: StatusCode, kind: &str, detail: &str) -> Response {
    let body = json!({
        "type": format!("urn:forebay:problem:{kind}"),
        "title": status.canonical_reason().unwrap_or("Refused"),
        "status": status.as_u16(),
        "detail": detail,
        "error": {"message": detail, "type": kind, "param": null, "code": kind},
    });
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

/// A refusal before the backend has seen the request: with `Retry-After` where the reason calls for it, and the rejection
/// in the extensions.
pub(crate) fn refusal(rejection: Rejection, detail: &str) -> Response {
    let body = problem(rejection.reason.status(), rejection.reason.as_str(), detail).into_body();
    rejection.into_response().map(|_| body)
}
