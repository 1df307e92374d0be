use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use forebay_core::{Never, Principal, Reason, Rejection, ResBody};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use tower_service::Service;

use crate::{
    access,
    headers::PREFERENCE_APPLIED,
    policy::{Cancelled, Cause, Erased, Job, JobId, JobState},
    prefer::Preferences,
    queue::{JobQueue, QueueError},
    route::{self, Route},
    status,
    store::StoreErrorKind,
};

/// Serves status, result and cancellation of a queue's jobs, to their owners only.
///
/// | request | answer |
/// |---|---|
/// | `GET /{id}` | the status document |
/// | `GET /{id}/result` | the stored answer, exactly; 202 while there is none; a problem if there will be none |
/// | `DELETE /{id}` | a live job is cancelled (200), an ended one forgotten (204) |
/// | `POST /{id}/cancel` | the job is cancelled (200); 409 if it had ended otherwise |
///
/// The document's `state` is `scheduled`, `queued`, `running`, `completed`, `failed`, `cancelled` or `expired`; its
/// `links.result` is where the answer will be.
///
/// Both `GET`s wait for the job's end with `Prefer: wait=N`, up to a minute. A job is visible to the `Principal` in the
/// request extensions that it was made with; one made without needs the `?token=` of its `Location`. All else is 404,
/// as if the job were not there.
///
/// Mount it at the queue's path: `Router::nest_service("/jobs", JobRouter::new(queue))` in axum, or any other way, with
/// or without the path stripped.
#[derive(Debug, Clone)]
pub struct JobRouter {
    queue: JobQueue,
}

impl JobRouter {
    /// Makes a router over this queue.
    #[must_use]
    pub const fn new(queue: JobQueue) -> Self {
        Self { queue }
    }
}

impl<B> Service<Request<B>> for JobRouter {
    type Response = Response<ResBody<Never>>;
    type Error = Infallible;
    type Future = RouterFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> RouterFuture {
        let route = Route::of(request.method(), request.uri().path(), &self.queue.config().path);
        let visit = Visit {
            principal: request.extensions().get::<Principal>().cloned(),
            token: route::token(request.uri().query()).map(str::to_owned),
            wait: wait_of(request.headers()).map(|wait| wait.min(self.queue.config().max_wait)),
            queue: self.queue.clone(),
        };
        RouterFuture { answer: Box::pin(async move { visit.answer(route).await }) }
    }
}

/// Resolves to the answer of a [`JobRouter`].
#[must_use = "futures do nothing unless polled"]
pub struct RouterFuture {
    answer: Pin<Box<dyn Future<Output = Response<Bytes>> + Send>>,
}

impl Future for RouterFuture {
    type Output = Result<Response<ResBody<Never>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.answer.as_mut().poll(cx).map(|answer| Ok(answer.map(ResBody::answer)))
    }
}

impl fmt::Debug for RouterFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouterFuture").finish_non_exhaustive()
    }
}

/// One request to the router.
struct Visit {
    queue: JobQueue,
    principal: Option<Principal>,
    token: Option<String>,
    wait: Option<Duration>,
}

impl Visit {
    async fn answer(&self, route: Route) -> Response<Bytes> {
        let answer = match route {
            Route::Status(id) => self.status(id).await,
            Route::Result(id) => self.result(id).await,
            Route::Delete(id) => self.delete(id).await,
            Route::Cancel(id) => self.cancel(id).await,
            Route::WrongMethod(allowed) => {
                let mut response =
                    status::problem(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "see the Allow field");
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
                return response;
            }
            Route::Nothing => return not_found(),
        };
        answer.unwrap_or_else(|error| {
            tracing::warn!(%error, "the job store failed");
            Rejection::new(Reason::StoreUnavailable).into_response()
        })
    }

    async fn status(&self, id: JobId) -> Result<Response<Bytes>, QueueError> {
        let Some(job) = self.visible_and_ended(id).await? else { return Ok(not_found()) };
        let mut response = self.document(StatusCode::OK, &job).await?;
        if !job.state.is_ended() {
            self.come_back(&job, &mut response);
        }
        Ok(self.waited(response))
    }

    async fn result(&self, id: JobId) -> Result<Response<Bytes>, QueueError> {
        let Some(job) = self.visible_and_ended(id).await? else { return Ok(not_found()) };
        let response = match job.state {
            JobState::Completed => match self.queue.result(id).await {
                Ok(Some(stored)) => {
                    let mut response = Response::new(stored.body);
                    *response.status_mut() = stored.status;
                    *response.headers_mut() = stored.headers;
                    return Ok(response); // exactly as the backend gave it: nothing of ours is added
                }
                Ok(None) => not_found(), // its time was over just now
                Err(QueueError::Store(error)) if error.kind() == StoreErrorKind::Corrupt => failed(Cause::Corrupt),
                Err(error) => return Err(error),
            },
            JobState::Failed => failed(job.cause.unwrap_or(Cause::Refused)),
            JobState::Cancelled => status::problem(StatusCode::GONE, "job-cancelled", "the job was cancelled"),
            JobState::Expired => {
                status::problem(StatusCode::GONE, "job-expired", "the job could not be started in time")
            }
            JobState::Scheduled | JobState::Ready | JobState::Running => {
                let mut response = self.document(StatusCode::ACCEPTED, &job).await?;
                self.come_back(&job, &mut response);
                response
            }
        };
        Ok(self.waited(response))
    }

    async fn delete(&self, id: JobId) -> Result<Response<Bytes>, QueueError> {
        if self.visible(id).await?.is_none() {
            return Ok(not_found());
        }
        match self.queue.erase(id).await? {
            Erased::Done => {
                let mut response = Response::new(Bytes::new());
                *response.status_mut() = StatusCode::NO_CONTENT;
                Ok(response)
            }
            Erased::Live => self.cancel(id).await,
        }
    }

    async fn cancel(&self, id: JobId) -> Result<Response<Bytes>, QueueError> {
        if self.visible(id).await?.is_none() {
            return Ok(not_found());
        }
        match self.queue.cancel(id).await? {
            Cancelled::Done(job) => self.document(StatusCode::OK, &job).await,
            Cancelled::Ended(job) => {
                let detail = format!("the job has ended already: it is {}", job.state.as_str());
                Ok(status::problem(StatusCode::CONFLICT, "job-ended", &detail))
            }
            Cancelled::Unknown => Ok(not_found()),
        }
    }

    async fn visible(&self, id: JobId) -> Result<Option<Job>, QueueError> {
        let Some(job) = self.queue.status(id).await? else { return Ok(None) };
        let secret = self.queue.secret().await?;
        Ok(access::may_see(&job, self.principal.as_ref(), self.token.as_deref(), &secret).then_some(job))
    }

    /// Waits for the end only of what the caller may see: else waiting would tell that it is there.
    async fn visible_and_ended(&self, id: JobId) -> Result<Option<Job>, QueueError> {
        match (self.visible(id).await?, self.wait) {
            (Some(job), Some(wait)) if !job.state.is_ended() => self.queue.wait(id, wait).await,
            (job, _) => Ok(job),
        }
    }

    async fn document(&self, code: StatusCode, job: &Job) -> Result<Response<Bytes>, QueueError> {
        let location = self.queue.location(job).await?;
        Ok(status::json_response(code, &status::document(job, &location)))
    }

    fn come_back(&self, job: &Job, response: &mut Response<Bytes>) {
        let after = self.queue.retry_after(job.class).as_secs();
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after));
    }

    fn waited(&self, mut response: Response<Bytes>) -> Response<Bytes> {
        if let Some(applied) =
            self.wait.and_then(|wait| HeaderValue::from_str(&format!("wait={}", wait.as_secs())).ok())
        {
            response.headers_mut().insert(PREFERENCE_APPLIED, applied);
        }
        response
    }
}

fn wait_of(headers: &HeaderMap) -> Option<Duration> {
    Preferences::of(headers).wait_s.map(Duration::from_secs)
}

fn not_found() -> Response<Bytes> {
    status::problem(StatusCode::NOT_FOUND, "job-not-found", "there is no such job, or it is not yours")
}

fn failed(cause: Cause) -> Response<Bytes> {
    let detail = format!("the job failed: {}", cause.as_str());
    status::problem(StatusCode::BAD_GATEWAY, "job-failed", &detail)
}
