//! The response future of a cache.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_core::{BoxError, ReqBody, RequestHead};
use http::{Request, Response, StatusCode, header, request};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::body::CacheBody;
use crate::entry::{Entry, Kind, add_length};
use crate::policy::request::MAX_BODY;
use crate::shared::{Control, Fill, Found, Invalidation, Shared};
use crate::{CacheStatus, Forward, Memory};

/// What becomes of the response to a request that goes on.
pub(crate) enum Plan {
    Untouched,
    Pass(Forward),
    Change(Invalidation),
    Fill(Box<Fill>, Forward),
}

/// A question whose body is being read.
struct Reading<S, B> {
    service: S,
    parts: request::Parts,
    body: B,
    first: Bytes,
    more: BytesMut,
    route: usize,
}

impl<S, B> Reading<S, B> {
    fn take(&mut self) -> Bytes {
        if self.more.is_empty() { std::mem::take(&mut self.first) } else { self.more.split().freeze() }
    }
}

pin_project! {
    /// Looks up, calls the service inside if need be, and begins to record.
    pub struct ResponseFuture<S, B, M>
    where
        S: Service<Request<ReqBody<B>>>,
    {
        shared: Arc<Shared<M>>,
        #[pin]
        state: State<S, B, S::Future>,
    }
}

pin_project! {
    // Reading => (Readying | Done), Readying => Calling => Done, Answered => Done
    #[project = StateProj]
    enum State<S, B, F> {
        Reading { reading: Option<Box<Reading<S, B>>> },
        Readying { service: S, going: Option<(Request<ReqBody<B>>, Plan)> },
        Calling { #[pin] future: F, plan: Option<Plan> },
        Answered { answer: Option<(Arc<Entry>, u64, bool)> },
        OnlyIfCached,
        Done,
    }
}

impl<S, B, M> fmt::Debug for ResponseFuture<S, B, M>
where
    S: Service<Request<ReqBody<B>>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl<S, B, M> ResponseFuture<S, B, M>
where
    S: Service<Request<ReqBody<B>>>,
{
    pub(crate) fn forward(shared: Arc<Shared<M>>, service: S, request: Request<ReqBody<B>>, plan: Plan) -> Self {
        Self { shared, state: State::Readying { service, going: Some((request, plan)) } }
    }

    pub(crate) fn read(shared: Arc<Shared<M>>, service: S, request: Request<B>, route: usize) -> Self {
        let (parts, body) = request.into_parts();
        let reading = Reading { service, parts, body, first: Bytes::new(), more: BytesMut::new(), route };
        Self { shared, state: State::Reading { reading: Some(Box::new(reading)) } }
    }

    pub(crate) fn found(shared: Arc<Shared<M>>, service: &S, request: Request<ReqBody<B>>, found: Found) -> Self
    where
        S: Clone,
    {
        let state = match decide(&shared, found) {
            Ok(plan) => State::Readying { service: service.clone(), going: Some((request, plan)) },
            Err(answer) => answer.map_or(State::OnlyIfCached, |answer| State::Answered { answer: Some(answer) }),
        };
        Self { shared, state }
    }
}

/// Counts, and says how it goes on: a plan, an answer, or none (504).
fn decide<M>(shared: &Shared<M>, found: Found) -> Result<Plan, Option<(Arc<Entry>, u64, bool)>> {
    match found {
        Found::Hit { entry, now, head_only } => {
            shared.counts.hits.fetch_add(1, Relaxed);
            Err(Some((entry, now, head_only)))
        }
        Found::Miss { fill, why } => {
            shared.counts.misses.fetch_add(1, Relaxed);
            Ok(Plan::Fill(fill, why))
        }
        Found::OnlyIfCached => {
            shared.counts.misses.fetch_add(1, Relaxed);
            Err(None)
        }
    }
}

impl<S, M, B, R> Future for ResponseFuture<S, B, M>
where
    S: Service<Request<ReqBody<B>>, Response = Response<R>>,
    M: Memory,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<CacheBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let name = &this.shared.name;
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Reading { reading } => {
                    let whole = match reading.as_deref_mut() {
                        Some(reading) => ready!(poll_read(reading, cx)),
                        None => ReadEnd::Broken,
                    };
                    let Some(mut read) = reading.take().filter(|_| whole != ReadEnd::Broken) else {
                        this.state.set(State::Done);
                        return Poll::Ready(Ok(own(name, StatusCode::BAD_REQUEST)));
                    };
                    let body = read.take();
                    let head = RequestHead::from(&read.parts);
                    let found = match this.shared.routes.get(read.route) {
                        Some(route) if whole == ReadEnd::Whole => this.shared.find_json(&head, route, &body),
                        _ => None,
                    };
                    let Reading { service, parts, body: rest, .. } = *read;
                    let plan = match found.map(|found| decide(this.shared, found)) {
                        Some(Ok(plan)) => Ok(plan),
                        Some(Err(answer)) => Err(answer),
                        None => {
                            this.shared.counts.bypassed.fetch_add(1, Relaxed);
                            Ok(Plan::Pass(Forward::Bypass))
                        }
                    };
                    match plan {
                        Ok(plan) => {
                            let body = match whole {
                                ReadEnd::Whole => ReqBody::buffered(body),
                                _ => ReqBody::prefixed(body, rest),
                            };
                            State::Readying { service, going: Some((Request::from_parts(parts, body), plan)) }
                        }
                        Err(None) => State::OnlyIfCached,
                        Err(answer) => State::Answered { answer },
                    }
                }
                StateProj::Readying { service, going } => {
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        if let Some((_, Plan::Change(guard))) = going.take() {
                            guard.nothing_changed(); // it was never called
                        }
                        this.state.set(State::Done);
                        return Poll::Ready(Err(error));
                    }
                    let (request, plan) = going.take().expect("taken only on the way to the next state");
                    State::Calling { future: service.call(request), plan: Some(plan) }
                }
                StateProj::Calling { future, plan } => {
                    let result = ready!(future.poll(cx));
                    let plan = plan.take().expect("taken only on the way to the next state");
                    this.state.set(State::Done);
                    return Poll::Ready(result.map(|response| receive(this.shared, response, plan)));
                }
                StateProj::Answered { answer } => {
                    let (entry, now, head_only) = answer.take().expect("taken only on the way to the next state");
                    this.state.set(State::Done);
                    return Poll::Ready(Ok(replay(name, entry, now, head_only)));
                }
                StateProj::OnlyIfCached => {
                    this.state.set(State::Done);
                    return Poll::Ready(Ok(own(name, StatusCode::GATEWAY_TIMEOUT)));
                }
                StateProj::Done => panic!("polled after it was done"),
            };
            this.state.set(next);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ReadEnd {
    Whole,
    TooLarge,
    Broken,
}

fn poll_read<S, B>(reading: &mut Reading<S, B>, cx: &mut Context<'_>) -> Poll<ReadEnd>
where
    B: Body<Data = Bytes> + Unpin,
{
    loop {
        match ready!(Pin::new(&mut reading.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue }; // trailers that nobody announced
                if reading.first.is_empty() {
                    reading.first = data; // one frame is the common case: no copy
                } else {
                    if reading.more.is_empty() {
                        reading.more.extend_from_slice(&reading.first);
                    }
                    reading.more.extend_from_slice(&data);
                }
                if reading.first.len().max(reading.more.len()) > MAX_BODY {
                    return Poll::Ready(ReadEnd::TooLarge);
                }
            }
            Some(Err(_)) => return Poll::Ready(ReadEnd::Broken),
            None => return Poll::Ready(ReadEnd::Whole),
        }
    }
}

fn receive<M: Memory, R: Body>(shared: &Arc<Shared<M>>, response: Response<R>, plan: Plan) -> Response<CacheBody<R>> {
    let (mut parts, body) = response.into_parts();
    let mut recording = None;
    let why = match plan {
        Plan::Untouched => return Response::from_parts(parts, CacheBody::passed(body)),
        Plan::Pass(why) => why,
        Plan::Change(guard) => {
            if parts.status.is_client_error() || parts.status.is_server_error() {
                guard.nothing_changed();
            }
            Forward::Method
        }
        Plan::Fill(fill, why) => {
            recording = shared.record(fill, &parts);
            why
        }
    };
    let status = CacheStatus::forward(why, recording.is_some());
    status.write(&shared.name, &mut parts.headers);
    parts.extensions.insert(status);
    let body = match recording {
        Some(recording) => {
            let control: Arc<dyn Control> = Arc::<Shared<M>>::clone(shared);
            CacheBody::recorded(body, control, recording)
        }
        None => CacheBody::passed(body),
    };
    Response::from_parts(parts, body)
}

/// A stored answer; `Age` and `Content-Length` are of now.
fn replay<R>(name: &str, entry: Arc<Entry>, now: u64, head_only: bool) -> Response<CacheBody<R>> {
    let mut response = Response::new(CacheBody::empty());
    if let Kind::Answer(answer) = &entry.kind {
        let headers = response.headers_mut();
        headers.clone_from(&answer.headers);
        headers.insert(header::AGE, (answer.freshness.age(now) / 1000).into());
        add_length(headers, answer.frames.body.len(), answer.trailers.is_some());
        let status = CacheStatus::hit(Duration::from_millis(answer.freshness.left(now)));
        status.write(name, headers);
        response.extensions_mut().insert(status);
    }
    if head_only { response } else { response.map(|_: CacheBody<R>| CacheBody::replay(entry)) }
}

/// An answer of our own, without a body.
fn own<R>(name: &str, code: StatusCode) -> Response<CacheBody<R>> {
    let mut response = Response::new(CacheBody::empty());
    *response.status_mut() = code;
    CacheStatus::answered().write(name, response.headers_mut());
    response.extensions_mut().insert(CacheStatus::answered());
    response
}
