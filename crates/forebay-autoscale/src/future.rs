//! The response future, a named type.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use forebay_core::{Guarded, Outcome, Rejection};
use http::{HeaderMap, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;

use crate::{Early, Ticket};

pin_project! {
    /// The response future of [`Autoscale`](crate::Autoscale).
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        // Dropped before the ticket: the work is over before it stops counting.
        #[pin]
        inner: F,
        ticket: Option<Ticket>,
    }
}

impl<F> ResponseFuture<F> {
    pub(crate) const fn new(inner: F, ticket: Ticket) -> Self {
        Self { inner, ticket: Some(ticket) }
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<Guarded<R, Ticket>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        let mut ticket = this.ticket.take().expect("a future is not polled after it was ready");
        Poll::Ready(match result {
            Ok(response) => {
                read_head(&mut ticket, &response);
                Ok(response.map(|body| Guarded::new(body, ticket)))
            }
            Err(error) => {
                ticket.finish(Outcome::Error);
                Err(error)
            }
        })
    }
}

/// A refusal stays in the offered load, an early answer leaves it.
fn read_head<R>(ticket: &mut Ticket, response: &Response<R>) {
    ticket.head(Outcome::of_head(response.status(), response.headers()));
    if let Some(rejection) = response.extensions().get::<Rejection>() {
        ticket.refuse(rejection.reason);
    } else if is_cache_hit(response.headers()) {
        ticket.early(Early::Hit);
    } else if response.status() == StatusCode::ACCEPTED {
        ticket.early(Early::Deferred);
    }
}

/// RFC 9211, section 2.1: any cache on the way says `hit`, as a parameter of its member of the list.
fn is_cache_hit(headers: &HeaderMap) -> bool {
    headers.get_all("cache-status").iter().any(|value| {
        let (mut quoted, mut escaped, mut parameter, mut start) = (false, false, false, 0);
        let bytes = value.as_bytes();
        for (at, byte) in bytes.iter().chain(b",").enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b',' | b';' if !quoted || at == bytes.len() => {
                    let word = bytes[start..at].trim_ascii();
                    if parameter && (word == b"hit" || word == b"hit=?1") {
                        return true;
                    }
                    parameter = *byte == b';';
                    start = at + 1;
                }
                _ => {}
            }
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_is_a_parameter_outside_quotes() {
        let hit = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.append("cache-status", http::HeaderValue::from_static(value));
            is_cache_hit(&headers)
        };
        for yes in ["forebay; hit", "a;fwd=miss, b ; hit ; ttl=3", "a;hit=?1", r#""x;y";hit"#, r#"a;detail="\"";hit"#] {
            assert!(hit(yes), "{yes}");
        }
        for no in ["", "hit", "a, hit", "a;fwd=miss", "a;hit=?0", r#"a;detail="x;hit""#, r#"a;detail="x, b;hit"#] {
            assert!(!hit(no), "{no}");
        }
    }
}
