use forebay_core::{Offloaded, RequestHead};
use http::{Method, header};

use crate::prefer::Preferences;

/// When a request becomes a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Policy {
    /// When the client asks for it: `Prefer: respond-async` (RFC 7240).
    #[default]
    Prefer,
    /// Always, asked or not: for routes whose clients know to expect a 202.
    Always,
    /// Never.
    Never,
}

/// What is to be done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// It passes untouched.
    Pass,
    /// It becomes a job.
    Job {
        /// The client asked for it.
        asked: bool,
        /// It must not be served inline for being too large.
        always: bool,
    },
}

/// Says what the policy makes of a request.
pub(crate) fn plan(head: &RequestHead<'_>, policy: impl FnOnce(&RequestHead<'_>) -> Policy) -> Plan {
    if !may_be_job(head) {
        return Plan::Pass;
    }
    let asked = || Preferences::of(head.headers).respond_async;
    match policy(head) {
        Policy::Never => Plan::Pass,
        Policy::Always => Plan::Job { asked: asked(), always: true },
        Policy::Prefer if asked() => Plan::Job { asked: true, always: false },
        Policy::Prefer => Plan::Pass,
    }
}

/// Says whether a request can be run later at all: not a tunnel, not a stream in both directions, no job already.
pub(crate) fn may_be_job(head: &RequestHead<'_>) -> bool {
    let method_passes = [Method::CONNECT, Method::HEAD, Method::OPTIONS, Method::TRACE].contains(head.method);
    let grpc =
        head.headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    !method_passes
        && !grpc
        && !head.headers.contains_key(header::UPGRADE)
        && head.extensions.get::<Offloaded>().is_none()
}
