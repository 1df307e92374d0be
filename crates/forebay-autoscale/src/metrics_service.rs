use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use forebay_core::{Never, ResBody};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use tower_service::Service;

use crate::{AutoscaleHandle, Format};

/// Answers `GET` and `HEAD` with the metrics, in the format that `Accept` prefers; other methods with 405.
#[derive(Debug, Clone)]
pub struct MetricsService {
    handle: AutoscaleHandle,
}

impl MetricsService {
    pub(crate) const fn new(handle: AutoscaleHandle) -> Self {
        Self { handle }
    }
}

impl<B> Service<Request<B>> for MetricsService {
    type Response = Response<ResBody<Never>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let head = request.method() == Method::HEAD;
        if !head && request.method() != Method::GET {
            let mut refusal = Response::new(ResBody::answer(""));
            *refusal.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return ready(Ok(refusal));
        }
        let format = preferred(request.headers());
        let text = self.handle.render(format);
        let length = HeaderValue::from(text.len());
        let mut response = Response::new(ResBody::answer(if head { String::new() } else { text }));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        headers.insert(header::CONTENT_LENGTH, length);
        headers.insert(header::VARY, HeaderValue::from_static("accept"));
        ready(Ok(response))
    }
}

/// RFC 9110, section 12.5.1: OpenMetrics where it is named with a weight not below that of plain text.
fn preferred(headers: &HeaderMap) -> Format {
    let (mut open, mut plain) = (0.0_f32, 0.0_f32);
    for range in headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
        for range in range.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let (mut weight, mut ours) = (1.0_f32, true);
            for (key, value) in parts.filter_map(|part| part.split_once('=')) {
                if key.trim().eq_ignore_ascii_case("q") {
                    weight = value.trim().parse().unwrap_or(0.0);
                } else if key.trim().eq_ignore_ascii_case("version") {
                    ours = value.trim().trim_matches('"') == "1.0.0";
                }
            }
            if kind.eq_ignore_ascii_case("application/openmetrics-text") && ours {
                open = open.max(weight);
            } else if kind.eq_ignore_ascii_case("text/plain") {
                plain = plain.max(weight);
            }
        }
    }
    if open > 0.0 && open >= plain { Format::OpenMetrics } else { Format::Text }
}
