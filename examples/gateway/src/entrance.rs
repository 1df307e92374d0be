//! What stands before the stack: knows the caller, bounds the body, writes the access log.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use forebay_core::{BoxError, Class, Deadline, Rejection};
use forebay_priority::PriorityHandle;
use http::{HeaderValue, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use crate::auth::{AuthError, Keys};
use crate::problem::problem;

/// What the entrance needs to know.
#[derive(Debug)]
pub(crate) struct Entrance {
    pub(crate) keys: Keys,
    pub(crate) priority: PriorityHandle,
    pub(crate) max_body_bytes: u64,
    pub(crate) answer_timeout: Duration,
}

/// Bounds the body, sets `Principal`, `Class` and `Deadline`, and takes the caller's key off: it is ours, the backends never see it.
pub(crate) async fn enter(State(entrance): State<Arc<Entrance>>, mut request: Request, next: Next) -> Response {
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
    let deadline = Deadline::after(Instant::now().into_std(), entrance.answer_timeout);
    request.extensions_mut().insert(deadline);
    let class = request.extensions().get::<Class>().copied();
    let mut response = bound(entrance.max_body_bytes, request, next).await;
    if let Some(class) = class {
        response.extensions_mut().insert(class); // for the access log
    }
    response
}

/// Refuses a body that says it is too long at once, and cuts one that turns out to be.
async fn bound(max: u64, request: Request, next: Next) -> Response {
    if request.body().size_hint().lower() > max {
        let detail = format!("the request body is longer than {max} bytes");
        return problem(StatusCode::PAYLOAD_TOO_LARGE, "too-large", &detail);
    }
    let state = Arc::new(BodyState::default());
    let bounded = |body| Body::new(Bounded { body, left: max, state: Arc::clone(&state) });
    let response = next.run(request.map(bounded)).await;
    if response.status() != StatusCode::BAD_GATEWAY {
        return response;
    }
    // What looks like a broken upstream was the caller's own doing.
    match state.0.load(Ordering::Relaxed) {
        TOO_LONG => {
            let detail = format!("the request body is longer than {max} bytes");
            problem(StatusCode::PAYLOAD_TOO_LARGE, "too-large", &detail)
        }
        BROKEN => problem(StatusCode::BAD_REQUEST, "body-broken", "the request body broke off before its end"),
        _ => response,
    }
}

/// What became of a request body.
#[derive(Debug, Default)]
struct BodyState(AtomicU8);

const TOO_LONG: u8 = 1;
const BROKEN: u8 = 2;

/// A request body that fails when it grows too long, and remembers why it failed.
struct Bounded {
    body: Body,
    left: u64,
    state: Arc<BodyState>,
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                match self.left.checked_sub(length) {
                    Some(left) => {
                        self.left = left;
                        Some(Ok(frame))
                    }
                    None => {
                        self.state.0.store(TOO_LONG, Ordering::Relaxed);
                        Some(Err("the request body is too long".into()))
                    }
                }
            }
            Some(Err(error)) => {
                self.state.0.store(BROKEN, Ordering::Relaxed);
                Some(Err(error.into()))
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
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
        class = response.extensions().get::<Class>().copied().map(Class::as_str),
        refused = rejection.map(|rejection| rejection.reason.as_str()),
        head_ms = started.elapsed().as_millis() as u64,
    );
    response
}
