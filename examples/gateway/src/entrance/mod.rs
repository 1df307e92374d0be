//! What stands before the stack: it knows the caller, receives the body within its bounds, and writes the access log.

mod bounded;
mod budget;
mod collect;
mod fault;
mod linger;
mod log;
mod paced;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use forebay_core::{Class, Deadline, Reason, Rejection};
use forebay_priority::PriorityHandle;
use http::{HeaderValue, StatusCode, Version, header};
use http_body::Body as _;
use tokio::time::Instant;

use self::bounded::Bounded;
use self::budget::Caller;
use self::fault::Fault;
use self::linger::Lingering;
use crate::auth::{AuthError, Keys};
use crate::problem::{problem, refusal};

pub(crate) use self::budget::Budget;
pub(crate) use self::collect::Collector;
pub(crate) use self::fault::Refused;
pub(crate) use self::log::log;

/// What the entrance needs to know.
#[derive(Debug)]
pub(crate) struct Entrance {
    pub(crate) keys: Keys,
    pub(crate) priority: PriorityHandle,
    pub(crate) max_body_bytes: u64,
    pub(crate) collector: Collector,
    pub(crate) answer_timeout: Duration,
    pub(crate) refused: Arc<Refused>,
}

/// Sets `Principal`, `Class` and `Deadline`, takes off the caller's key, which is not for the backends, and receives the
/// body.
pub(crate) async fn enter(State(entrance): State<Arc<Entrance>>, request: Request, next: Next) -> Response {
    let mut request = Lingering::wrap(request);
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
    let mut response = entrance.receive(request, next).await;
    if let Some(class) = class {
        response.extensions_mut().insert(class); // for the access log
    }
    response
}

impl Entrance {
    /// Reads the body, in whole or up to a bound, before the request goes on: so that none waits for bytes that do not
    /// come while it holds a seat.
    async fn receive(&self, request: http::Request<Lingering>, next: Next) -> Response {
        let began = Instant::now();
        let http1 = request.version() < Version::HTTP_2;
        let class = request.extensions().get::<Class>().copied();
        let caller = Caller::of(request.extensions());
        let (head, body) = request.into_parts();
        let later = Arc::new(OnceLock::new());
        let collected = if body.size_hint().lower() > self.max_body_bytes {
            Err(Fault::TooLong)
        } else {
            let until = began + self.collector.timeout.min(self.answer_timeout);
            let body = Bounded::new(body, self.max_body_bytes);
            self.collector.collect(body, caller, until, &later).await
        };
        let body = match collected {
            Ok(body) => body,
            Err(fault) => {
                let reason = fault.reason();
                self.refused.count(reason);
                let mut rejection = Rejection::new(reason).waited(began.elapsed());
                rejection.class = class;
                return closing(refusal(rejection, &self.detail(reason)), http1);
            }
        };
        let response = next.run(Request::from_parts(head, Body::new(body))).await;
        // The body failed on its way to the backend: what looks like a broken backend, or a broken body, was this.
        let blamed = [StatusCode::BAD_GATEWAY, StatusCode::BAD_REQUEST, StatusCode::REQUEST_TIMEOUT];
        match later.get().filter(|_| blamed.contains(&response.status())) {
            None => response,
            Some(&reason) => {
                self.refused.count(reason);
                closing(problem(reason.status(), reason.as_str(), &self.detail(reason)), http1)
            }
        }
    }

    fn detail(&self, reason: Reason) -> String {
        match reason {
            Reason::TooLarge => format!("the request body is longer than {} bytes", self.max_body_bytes),
            Reason::BodyBroken => "the request body broke off before its end".to_owned(),
            Reason::BufferFull => "too many request bodies are being received or waiting; retry later".to_owned(),
            _ => format!(
                "the request body came too slowly: at most {} s may pass without enough of it",
                self.collector.timeout.as_secs()
            ),
        }
    }
}

/// A response to a request whose body is not read to its end.
fn closing(mut response: Response, http1: bool) -> Response {
    if http1 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
