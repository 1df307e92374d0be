//! The response future.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use forebay_core::{Class, Counted, Deadline, Guarded, Reason, Rejection, ResBody};
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tower_service::Service;

use crate::capacity::Place;
use crate::endpoint::EndpointId;
use crate::permit::Permit;
use crate::policy::PickError;
use crate::redial::RedialPolicy;
use crate::service::{BalanceBody, Shared};

/// How often a request that never left may be sent to yet another endpoint.
const REDIALS: usize = 2;

/// Which endpoint answered. A response extension.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Picked {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// How many endpoints were tried, at least 1.
    pub tries: u32,
}

pin_project! {
    /// The future of a [`Balance`](crate::Balance): its place is taken from the start, and goes when it is dropped.
    pub struct ResponseFuture<S, R, B>
    where
        S: Service<Request<B>>,
    {
        // Dropped before the permit: the work is over before its place is free.
        #[pin]
        step: Step<S::Future>,
        shared: Arc<Shared<S>>,
        request: Option<Request<B>>,
        class: Option<Class>,
        permit: Option<Permit>,
        tried: Vec<usize>,
        // Boxed, as most requests have neither.
        deadline: Option<Pin<Box<Sleep>>>,
        unready: Option<Pin<Box<Sleep>>>,
        service: Option<S>,
        redial: PhantomData<fn() -> R>,
    }
}

pin_project! {
    #[project = StepProj]
    enum Step<F> {
        Refused { reason: Reason },
        Readying,
        Running { #[pin] future: F },
        Done,
    }
}

impl<S: Service<Request<B>>, R, B> std::fmt::Debug for ResponseFuture<S, R, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").field("tried", &self.tried).finish_non_exhaustive()
    }
}

impl<S: Service<Request<B>> + Clone, R, B> ResponseFuture<S, R, B> {
    pub(crate) fn new(shared: Arc<Shared<S>>, mut request: Request<B>) -> Self {
        let reserved = Place::of(&shared.counts, request.extensions_mut());
        let extensions = request.extensions();
        let counted = extensions.get::<Counted>().is_some();
        let class = (!counted).then(|| extensions.get::<Class>().copied().unwrap_or_default());
        let deadline = extensions.get::<Deadline>().copied();
        if let Some(class) = class {
            shared.counts.ledger().demand[class].offered += 1;
        }
        let mut future = Self {
            shared,
            request: Some(request),
            class,
            permit: None,
            tried: Vec::new(),
            deadline: deadline.map(|deadline| Box::pin(sleep_until(Instant::from_std(deadline.instant())))),
            unready: None,
            service: None,
            step: Step::Readying,
            redial: PhantomData,
        };
        match Permit::pick(&future.shared.counts, reserved, class) {
            Ok(permit) => bind(&future.shared, permit, &mut future.permit, &mut future.service),
            Err(error) => future.step = Step::Refused { reason: error.into() },
        }
        future
    }
}

impl From<PickError> for Reason {
    fn from(error: PickError) -> Self {
        match error {
            PickError::NoEndpoint => Self::NoEndpoint,
            PickError::AtCapacity => Self::AtCapacity,
        }
    }
}

/// Keeps the place and a clone of its service.
fn bind<S: Clone>(shared: &Shared<S>, place: Permit, permit: &mut Option<Permit>, service: &mut Option<S>) {
    let place = permit.insert(place);
    *service = Some(shared.services[place.index()].clone()); // outside the lock: a foreign Clone
}

impl<S, R, B, RB> Future for ResponseFuture<S, R, B>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    R: RedialPolicy<S::Error, Request<B>>,
    RB: Body<Data = Bytes>,
{
    type Output = Result<Response<BalanceBody<RB>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let refused = loop {
            if let StepProj::Refused { reason } = this.step.as_mut().project() {
                break *reason;
            }
            if let Some(deadline) = this.deadline
                && deadline.as_mut().poll(cx).is_ready()
            {
                break Reason::DeadlineExceeded; // the inner future goes with the step, below
            }
            match this.step.as_mut().project() {
                StepProj::Readying => {
                    let service = this.service.as_mut().expect("held while readying");
                    match service.poll_ready(cx) {
                        Poll::Ready(Ok(())) => {
                            let request = this.request.take().expect("taken by a call only");
                            *this.unready = None;
                            // Readying => Running: the very instance that was polled ready.
                            let future = service.call(request);
                            this.step.set(Step::Running { future });
                        }
                        Poll::Ready(Err(error)) => {
                            if let Some(mut permit) = this.permit.take() {
                                permit.fail();
                            }
                            this.step.set(Step::Done);
                            return Poll::Ready(Err(error));
                        }
                        Poll::Pending => {
                            let timeout = this.shared.ready_timeout;
                            let unready = this.unready.get_or_insert_with(|| Box::pin(sleep(timeout)));
                            ready!(unready.as_mut().poll(cx));
                            // Readying => Readying elsewhere, or Refused: it never left.
                            *this.unready = None;
                            let mut permit = this.permit.take().expect("held until the end");
                            permit.fail();
                            this.tried.push(permit.index());
                            if this.tried.len() > REDIALS {
                                break Reason::NoEndpoint;
                            }
                            match permit.elsewhere(this.tried) {
                                Ok(permit) => bind(this.shared, permit, this.permit, this.service),
                                Err(error) => break error.into(),
                            }
                        }
                    }
                }
                StepProj::Running { future } => match ready!(future.poll(cx)) {
                    Ok(response) => {
                        let mut permit = this.permit.take().expect("held until the end");
                        permit.head(response.status());
                        let endpoint = this.shared.ids[permit.index()].clone();
                        let tries = this.tried.len() as u32 + 1;
                        this.step.set(Step::Done);
                        let mut response = response.map(|body| ResBody::passed(Guarded::new(body, permit)));
                        response.extensions_mut().insert(Picked { endpoint, tries });
                        return Poll::Ready(Ok(response));
                    }
                    Err(mut error) => {
                        let mut permit = this.permit.take().expect("held until the end");
                        permit.fail();
                        this.tried.push(permit.index());
                        // It is asked first, as a pick that comes to nothing would count as a cancelled exchange.
                        let again = if this.tried.len() <= REDIALS { R::again(&mut error) } else { None };
                        this.step.set(Step::Done);
                        // Running => Readying elsewhere: only if it never left, and there is somebody else.
                        if let Some(request) = again
                            && let Ok(permit) = permit.elsewhere(this.tried)
                        {
                            bind(this.shared, permit, this.permit, this.service);
                            *this.request = Some(request);
                            this.step.set(Step::Readying);
                            continue;
                        }
                        return Poll::Ready(Err(error));
                    }
                },
                StepProj::Refused { .. } | StepProj::Done => panic!("ResponseFuture polled after it was done"),
            }
        };
        this.step.set(Step::Done);
        *this.permit = None;
        if let Some(class) = this.class {
            this.shared.counts.ledger().demand[*class].shed += 1;
        }
        let mut rejection = Rejection::new(refused).retry_after(Duration::from_secs(1));
        rejection.class = *this.class;
        Poll::Ready(Ok(rejection.into_response().map(ResBody::answer)))
    }
}
