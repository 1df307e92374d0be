//! The response future.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use forebay_core::{AffinityKey, Class, Counted, Deadline, Guarded, Protocol, Reason, Rejection, ResBody};
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tower_service::Service;

use crate::affinity::PrefixBlocks;
use crate::capacity::Place;
use crate::endpoint::EndpointId;
use crate::members::Members;
use crate::metrics;
use crate::permit::{Permit, Who};
use crate::policy::{PickError, PickReason};
use crate::redial::RedialPolicy;
use crate::service::BalanceBody;
use crate::wait::Turn;

/// How often a request that was not processed may be sent to yet another endpoint.
const REDIALS: usize = 2;

/// Which endpoint answered. A response extension, unless [`picked`](crate::BalanceBuilder::picked) says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Picked {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Its pool.
    pub pool: Arc<str>,
    /// Why it was picked.
    pub reason: PickReason,
    /// How many endpoints were tried, at least 1.
    pub tries: u32,
}

pin_project! {
    /// The future of a [`Balance`](crate::Balance): its place is taken from the start if there is one, and goes when it
    /// is dropped.
    pub struct ResponseFuture<S, R, B>
    where
        S: Service<Request<B>>,
    {
        // Dropped before the permit: the work is over before its place is free.
        #[pin]
        step: Step<S::Future>,
        // The endpoints stay for as long as one may be needed.
        members: Arc<Members>,
        request: Option<Request<B>>,
        who: Who,
        protocol: Protocol,
        prefix: Option<PrefixBlocks>,
        permit: Option<Permit>,
        tried: Vec<usize>,
        // Boxed, as most requests have none of these.
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
        Waiting { turn: Box<Turn> },
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

impl<S, R, B> ResponseFuture<S, R, B>
where
    S: Service<Request<B>> + Clone + Send + Sync + 'static,
{
    pub(crate) fn new(members: Arc<Members>, mut request: Request<B>) -> Self {
        let reserved = Place::of(&members.core, request.extensions_mut());
        let redeemer = reserved.is_some();
        let protocol = Protocol::of(request.headers());
        let extensions = request.extensions();
        let deadline = extensions.get::<Deadline>().copied();
        let mut who = Who {
            class: extensions.get::<Class>().copied().unwrap_or_default(),
            key: extensions.get::<AffinityKey>().map(|key| key.0),
            timed: deadline.is_some(),
            counted: extensions.get::<Counted>().is_none(),
            new: true,
        };
        let prefix = extensions.get::<PrefixBlocks>().cloned();
        let blocks = PrefixBlocks::of(&prefix);
        let picked = match reserved {
            Some(place) => Permit::redeem(&members.core, place, who, blocks),
            None => Permit::pick(&members.core, who, blocks),
        };
        who.new = false;
        let mut future = Self {
            members,
            request: Some(request),
            who,
            protocol,
            prefix,
            permit: None,
            tried: Vec::new(),
            deadline: deadline.map(|deadline| Box::pin(sleep_until(Instant::from_std(deadline.instant())))),
            unready: None,
            service: None,
            step: Step::Readying,
            redial: PhantomData,
        };
        match picked {
            Ok(permit) => (future.service, future.permit) = (Some(permit.service()), Some(permit)),
            Err(error) => future.step = refused_or_waiting(&future.members, error, &future.who, deadline, redeemer),
        }
        future
    }
}

fn refused_or_waiting<F>(
    members: &Members,
    error: PickError,
    who: &Who,
    deadline: Option<Deadline>,
    redeemer: bool,
) -> Step<F> {
    let turn = match error {
        PickError::NoEndpoint => None,
        PickError::AtCapacity => Turn::new(&members.core, who.class, who.counted, deadline, redeemer),
    };
    match turn {
        Some(turn) => Step::Waiting { turn: Box::new(turn) },
        None => Step::Refused { reason: error.into() },
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

impl<S, R, B, RB> Future for ResponseFuture<S, R, B>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone + Send + Sync + 'static,
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
                if let (StepProj::Running { .. }, Some(permit)) = (this.step.as_mut().project(), &mut *this.permit) {
                    permit.give_up();
                }
                break Reason::DeadlineExceeded; // the inner future goes with the step, below
            }
            match this.step.as_mut().project() {
                StepProj::Waiting { turn } => {
                    let place = match ready!(Pin::new(&mut **turn).poll(cx)) {
                        Ok(place) => place,
                        Err(reason) => break reason,
                    };
                    // Waiting => Readying, or Waiting at the front if the place is not there any more.
                    match Permit::redeem(&this.members.core, place, *this.who, PrefixBlocks::of(this.prefix)) {
                        Ok(permit) => {
                            (*this.service, *this.permit) = (Some(permit.service()), Some(permit));
                            this.step.set(Step::Readying);
                        }
                        Err(error) => {
                            let deadline = this.deadline.as_ref().map(|at| Deadline::at(at.deadline().into_std()));
                            let next = refused_or_waiting(this.members, error, this.who, deadline, true);
                            this.step.set(next);
                        }
                    }
                }
                StepProj::Readying => {
                    let service = this.service.as_mut().expect("picked with the permit");
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
                            let mut permit = this.permit.take().expect("held until the end");
                            let timeout = this.members.core.conduct.ready_timeout;
                            let unready = this.unready.get_or_insert_with(|| Box::pin(sleep(timeout)));
                            if unready.as_mut().poll(cx).is_pending() {
                                *this.permit = Some(permit);
                                return Poll::Pending;
                            }
                            *this.unready = None;
                            permit.fail();
                            // Readying => Readying elsewhere, or Refused: it never left.
                            this.tried.push(permit.index());
                            if this.tried.len() > REDIALS {
                                break Reason::NoEndpoint;
                            }
                            metrics::redialled("unready");
                            match permit.elsewhere(*this.who, PrefixBlocks::of(this.prefix), this.tried) {
                                Ok(permit) => (*this.service, *this.permit) = (Some(permit.service()), Some(permit)),
                                Err(error) => break error.into(),
                            }
                        }
                    }
                }
                StepProj::Running { future } => match ready!(future.poll(cx)) {
                    Ok(response) => {
                        let conduct = &this.members.core.conduct;
                        let outcome = (conduct.classify)(response.status(), response.headers());
                        let permit = this.permit.as_mut().expect("held until the end");
                        permit.head(response.status(), response.headers(), outcome);
                        let picked = conduct.picked.then(|| Picked {
                            endpoint: permit.endpoint().clone(),
                            pool: Arc::clone(permit.pool()),
                            reason: permit.reason(),
                            tries: this.tried.len() as u32 + 1,
                        });
                        this.step.set(Step::Done);
                        let permit = this.permit.take().expect("it is there");
                        let mut response = response.map(|body| ResBody::passed(Guarded::new(body, permit)));
                        if let Some(picked) = picked {
                            response.extensions_mut().insert(picked);
                        }
                        return Poll::Ready(Ok(response));
                    }
                    Err(mut error) => {
                        let mut permit = this.permit.take().expect("held until the end");
                        if R::is_busy(&error) {
                            permit.overload();
                        } else {
                            permit.fail();
                        }
                        this.tried.push(permit.index());
                        // It is asked first, as a pick that comes to nothing would count as a cancelled exchange.
                        let again = if this.tried.len() <= REDIALS { R::again(&mut error) } else { None };
                        this.step.set(Step::Done);
                        // Running => Readying elsewhere: only if it was not processed, and there is somebody else.
                        if let Some(request) = again
                            && let Ok(permit) = permit.elsewhere(*this.who, PrefixBlocks::of(this.prefix), this.tried)
                        {
                            metrics::redialled("undispatched");
                            (*this.service, *this.permit) = (Some(permit.service()), Some(permit));
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
        let who = &*this.who;
        metrics::refused(refused);
        let mut ledger = this.members.core.ledger();
        if who.counted {
            ledger.demand[who.class].shed += 1;
        }
        let retry_after = ledger.releases.retry_after(ledger.waiting.len());
        drop(ledger);
        let mut rejection = Rejection::new(refused).retry_after(retry_after);
        rejection.class = who.counted.then_some(who.class);
        Poll::Ready(Ok(rejection.into_response_for(*this.protocol).map(ResBody::answer)))
    }
}
