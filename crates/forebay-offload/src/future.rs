//! The future of [`Offload`](crate::Offload).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use forebay_core::{Class, Reason, Rejection, ReqBody, RequestHead, ResBody};
use http::{Request, Response, request::Parts};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    collect::{Collect, Collected},
    shared::{Shared, add},
    submit::{Submission, Submitted, submit},
};

pin_project! {
    /// Resolves to the 202 of a job, to a refusal, or to the response from inside.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<ReqBody<B>>>,
    {
        #[pin]
        state: State<S, B, S::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B, F> {
        // The body of a job-to-be arrives.
        Collecting { #[pin] collect: Collect<B>, job: Option<Box<Job<S>>> },
        // The store is asked.
        Storing { submission: Submission, inline: Option<Box<(S, Request<ReqBody<B>>)>>, shared: Arc<Shared> },
        // The inner service gets ready.
        Waking { service: S, request: Option<Request<ReqBody<B>>> },
        // The inner service answers.
        Running { #[pin] future: F },
        // We answer.
        Answering { response: Option<Response<Bytes>> },
    }
}

/// What waits for the body.
struct Job<S> {
    service: S,
    parts: Parts,
    shared: Arc<Shared>,
    class: Option<Class>,
    asked: bool,
    always: bool,
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<ReqBody<B>>>,
{
    pub(crate) const fn passed(service: S, request: Request<ReqBody<B>>) -> Self {
        Self { state: State::Waking { service, request: Some(request) } }
    }

    pub(crate) fn job(service: S, request: Request<B>, shared: Arc<Shared>, asked: bool, always: bool) -> Self {
        let class = (shared.classify)(&RequestHead::from(&request));
        let config = shared.queue.config();
        let (parts, body) = request.into_parts();
        let collect = Collect::new(body, config.max_request_body, config.body_timeout);
        let job = Job { service, parts, shared, class, asked, always };
        Self { state: State::Collecting { collect, job: Some(Box::new(job)) } }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<ReqBody<B>>, Response = Response<R>>,
    B: Body<Data = Bytes> + Unpin,
{
    type Output = Result<Response<ResBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                // Collecting => Storing | Waking | Answering
                StateProj::Collecting { collect, job } => {
                    let collected = ready!(collect.poll(cx));
                    collected_next(collected, *take_once(job))
                }
                // Storing => Answering | Waking
                StateProj::Storing { submission, inline, shared } => {
                    let submitted = ready!(submission.as_mut().poll(cx));
                    match submitted {
                        Submitted::Answered(response) => {
                            add(&shared.counts.answered);
                            State::Answering { response: Some(response) }
                        }
                        Submitted::Refused(rejection) => {
                            add(&shared.counts.refused);
                            State::Answering { response: Some(rejection.into_response()) }
                        }
                        Submitted::Unavailable => {
                            add(&shared.counts.inline);
                            let (service, request) = *take_once(inline);
                            State::Waking { service, request: Some(request) }
                        }
                    }
                }
                // Waking => Running; an error of readiness is the inner service's answer.
                StateProj::Waking { service, request } => {
                    ready!(service.poll_ready(cx))?;
                    State::Running { future: service.call(take_once(request)) }
                }
                StateProj::Running { future } => {
                    return Poll::Ready(ready!(future.poll(cx)).map(|response| response.map(ResBody::passed)));
                }
                StateProj::Answering { response } => {
                    return Poll::Ready(Ok(take_once(response).map(ResBody::answer)));
                }
            };
            state.set(next);
        }
    }
}

fn collected_next<S, B, F>(collected: Collected<B>, job: Job<S>) -> State<S, B, F> {
    let Job { service, parts, shared, class, asked, always } = job;
    let counts = &shared.counts;
    let refused = |reason| {
        add(&counts.refused);
        State::Answering { response: Some(Rejection::new(reason).into_response()) }
    };
    match collected {
        Collected::All(body) => {
            // A copy stays here in case the store is down.
            let inline = (service, Request::from_parts(parts.clone(), ReqBody::buffered(body.clone())));
            let submission = submit(shared.queue.clone(), Request::from_parts(parts, body), class, asked);
            State::Storing { submission, inline: Some(Box::new(inline)), shared }
        }
        Collected::TooLarge(_) if always => refused(Reason::TooLarge),
        Collected::TooLarge(body) => {
            add(&counts.inline);
            State::Waking { service, request: Some(Request::from_parts(parts, body)) }
        }
        Collected::Missing => refused(Reason::BodyTimeout),
    }
}

/// Takes what is there exactly once: a future polled after its end panics, as futures may.
pub(crate) fn take_once<T>(value: &mut Option<T>) -> T {
    value.take().expect("polled after completion")
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<ReqBody<B>>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
