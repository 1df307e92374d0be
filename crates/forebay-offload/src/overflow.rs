use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use forebay_core::{Class, Overflow, Reason, Rejection, RequestHead};
use http::{Request, Response, request::Parts};
use http_body::Body;
use pin_project_lite::pin_project;

use crate::{
    collect::{Collect, Collected},
    decide::may_be_job,
    future::take_once,
    shared::{Shared, add},
    submit::{Submission, Submitted, submit},
};

/// Makes jobs of requests that a layer inside refused before reading them.
///
/// The client never asked for a job: whoever installs the hook vouches that the clients of these classes know what a
/// 202 means. Where there can be no job, the refusal stands.
#[derive(Debug, Clone)]
pub struct JobOverflow {
    shared: Arc<Shared>,
}

impl JobOverflow {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Overflow<B> for JobOverflow {
    type Future = OverflowFuture<B>;

    fn overflow(&self, request: Request<B>, why: Rejection) -> OverflowFuture<B> {
        let shared = Arc::clone(&self.shared);
        let head = RequestHead::from(&request);
        let hopeless = why.reason == Reason::DeadlineExceeded || shared.draining.load(Ordering::Relaxed);
        if hopeless || !may_be_job(&head) {
            return OverflowFuture { shared, why: Some(why), state: State::Refused };
        }
        let class = why.class.or_else(|| (shared.classify)(&head));
        let config = shared.queue.config();
        let (parts, body) = request.into_parts();
        let collect = Collect::new(body, config.max_request_body, config.body_timeout);
        OverflowFuture { shared, why: Some(why), state: State::Collecting { collect, parts: Some((parts, class)) } }
    }
}

pin_project! {
    /// Resolves to the 202 of a job, or to the refusal that stands.
    #[must_use = "futures do nothing unless polled"]
    pub struct OverflowFuture<B> {
        shared: Arc<Shared>,
        why: Option<Rejection>,
        #[pin]
        state: State<B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<B> {
        Refused,
        Collecting { #[pin] collect: Collect<B>, parts: Option<(Parts, Option<Class>)> },
        Storing { submission: Submission },
    }
}

impl<B: Body<Data = Bytes> + Unpin> Future for OverflowFuture<B> {
    type Output = Result<Response<Bytes>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Refused => return Poll::Ready(Err(take_once(this.why))),
                // Collecting => Storing | Refused
                StateProj::Collecting { collect, parts } => {
                    let next = match ready!(collect.poll(cx)) {
                        Collected::All(body) => {
                            let (parts, class) = take_once(parts);
                            let request = Request::from_parts(parts, body);
                            State::Storing { submission: submit(this.shared.queue.clone(), request, class, false) }
                        }
                        Collected::TooLarge(_) | Collected::Missing => State::Refused,
                    };
                    this.state.set(next);
                }
                StateProj::Storing { submission } => {
                    return Poll::Ready(match ready!(submission.as_mut().poll(cx)) {
                        Submitted::Answered(response) => {
                            add(&this.shared.counts.answered);
                            Ok(response)
                        }
                        // No room here either: the first refusal says when to come back.
                        Submitted::Refused(ours) if ours.reason != Reason::QueueFull => Err(ours),
                        Submitted::Refused(_) | Submitted::Unavailable => Err(take_once(this.why)),
                    });
                }
            }
        }
    }
}

impl<B> fmt::Debug for OverflowFuture<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OverflowFuture").finish_non_exhaustive()
    }
}
