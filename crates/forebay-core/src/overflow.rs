use std::future::{Future, Ready, ready};

use bytes::Bytes;
use http::{Request, Response};

use crate::Rejection;

/// May answer a refused, unread request otherwise: for example by making it a job (202).
///
/// Never asked for [`Reason::DeadlineExceeded`](crate::Reason::DeadlineExceeded), nor for an [`Offloaded`] request.
#[diagnostic::on_unimplemented(
    note = "an overflow hook takes the refused `Request<B>` and answers it with a `Response<Bytes>`; \
            `OffloadHandle::overflow()` of forebay-offload makes one, `NoOverflow` refuses"
)]
pub trait Overflow<B>: Clone {
    /// The answer, or the refusal that stands after all.
    type Future: Future<Output = Result<Response<Bytes>, Rejection>>;

    /// Takes over `request`, which would otherwise be refused with `why`.
    fn overflow(&self, request: Request<B>, why: Rejection) -> Self::Future;
}

/// No overflow: what is refused stays refused. The default type parameter of the layers that take a hook.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoOverflow;

impl<B> Overflow<B> for NoOverflow {
    type Future = Ready<Result<Response<Bytes>, Rejection>>;

    fn overflow(&self, _request: Request<B>, why: Rejection) -> Self::Future {
        ready(Err(why))
    }
}

/// This request already is a job. A request extension, set by the worker: a job must not become a job again.
#[derive(Debug, Clone, Copy, Default)]
pub struct Offloaded;
