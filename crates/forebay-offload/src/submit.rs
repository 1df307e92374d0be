//! From a collected request to its 202, or to the reason why not.

use std::{future::Future, pin::Pin, time::Duration};

use bytes::Bytes;
use forebay_core::{Class, Principal, Reason, Rejection};
use http::{HeaderValue, Request, Response, StatusCode, header};

use crate::{
    headers::{IDEMPOTENT_REPLAYED, PREFER, PREFERENCE_APPLIED},
    key,
    options::JobOptions,
    policy::{Enqueued, Job, JobState},
    queue::{JobQueue, QueueError},
    status,
    store::StoreError,
};

/// What became of a request that was to be a job.
#[derive(Debug)]
pub(crate) enum Submitted {
    /// There is a job: the 202, or the stored answer of a key.
    Answered(Response<Bytes>),
    /// It is refused.
    Refused(Rejection),
    /// The store is down: serve it inline.
    Unavailable,
}

pub(crate) type Submission = Pin<Box<dyn Future<Output = Submitted> + Send>>;

/// Enqueues a request. `class` is what it falls back to without class in options and extensions; `asked` says whether
/// the client asked for it.
pub(crate) fn submit(queue: JobQueue, request: Request<Bytes>, class: Option<Class>, asked: bool) -> Submission {
    Box::pin(async move {
        let (parts, body) = request.into_parts();
        let mut options = parts.extensions.get::<JobOptions>().cloned().unwrap_or_default();
        let class = options.class.or_else(|| parts.extensions.get().copied()).or(class).unwrap_or(Class::P3);
        options.class = Some(class);
        if options.key.is_none() {
            match key::read(&parts.headers) {
                Ok(key) => options.key = key,
                Err(key::KeyInvalid) => return Submitted::Refused(Rejection::new(Reason::KeyInvalid).class(class)),
            }
        }
        let keyed = options.key.is_some();
        // Asked for before the job exists: a job whose location cannot be told would be lost to its client.
        if parts.extensions.get::<Principal>().is_none()
            && let Err(error) = queue.secret().await
        {
            return unavailable(&error, keyed, class);
        }
        match queue.enqueue(Request::from_parts(parts, body), options).await {
            Ok(Enqueued::New(job)) => accepted(&queue, &job, asked).await,
            Ok(Enqueued::Existing(job)) if job.state == JobState::Completed => replayed(&queue, &job).await,
            Ok(Enqueued::Existing(job)) => accepted(&queue, &job, asked).await,
            Ok(Enqueued::Mismatch) => Submitted::Refused(Rejection::new(Reason::KeyMismatch).class(class)),
            Ok(Enqueued::Gone) => Submitted::Answered(status::problem(
                StatusCode::GONE,
                "job-expired",
                "the job of this idempotency key has ended and its result is no longer kept",
            )),
            Ok(Enqueued::Full { retry_after_s }) => Submitted::Refused(
                Rejection::new(Reason::QueueFull).class(class).retry_after(Duration::from_secs(retry_after_s)),
            ),
            Err(QueueError::TooLarge { .. }) => Submitted::Refused(Rejection::new(Reason::TooLarge).class(class)),
            Err(QueueError::KeyInvalid) => Submitted::Refused(Rejection::new(Reason::KeyInvalid).class(class)),
            Err(QueueError::Store(error)) => unavailable(&error, keyed, class),
        }
    })
}

fn unavailable(error: &StoreError, keyed: bool, class: Class) -> Submitted {
    tracing::warn!(%error, "the job store failed: the request is not stored");
    // A request with a key may have run already: never run it blindly.
    if keyed {
        Submitted::Refused(Rejection::new(Reason::StoreUnavailable).class(class))
    } else {
        Submitted::Unavailable
    }
}

async fn accepted(queue: &JobQueue, job: &Job, asked: bool) -> Submitted {
    // The secret is known by now; should it not be, the client must still not be served a second time.
    let Ok(location) = queue.location(job).await else {
        return Submitted::Refused(Rejection::new(Reason::StoreUnavailable).class(job.class));
    };
    let mut response = status::json_response(StatusCode::ACCEPTED, &status::document(job, &location));
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(header::LOCATION, location);
    }
    headers.insert(header::RETRY_AFTER, HeaderValue::from(queue.retry_after(job.class).as_secs()));
    headers.insert(header::VARY, HeaderValue::from(PREFER));
    if asked {
        headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static("respond-async"));
    }
    Submitted::Answered(response)
}

async fn replayed(queue: &JobQueue, job: &Job) -> Submitted {
    match queue.result(job.id).await {
        Ok(Some(stored)) => {
            let mut response = Response::new(stored.body);
            *response.status_mut() = stored.status;
            *response.headers_mut() = stored.headers;
            response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
            Submitted::Answered(response)
        }
        // It has ended between the two calls, or cannot be read: its own URL says which.
        Ok(None) | Err(_) => accepted(queue, job, false).await,
    }
}
