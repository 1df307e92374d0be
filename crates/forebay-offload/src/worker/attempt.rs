use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use forebay_core::{BoxError, Offloaded, Reason, Rejection, ReqBody};
use http::{HeaderValue, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::{sync::watch, time::timeout};
use tower_service::Service;

use super::{
    builder::Settings,
    context::JobContext,
    leases::Stop,
    verdict::{Decision, Exchange, retry_after_ms},
};
use crate::{
    headers::{IDEMPOTENCY_KEY, JOB_ATTEMPT, JOB_ID, JOB_TOKEN, strip_response},
    policy::{Cause, Job, Verdict},
    queue::JobQueue,
    random,
    store::{Leased, StoredRequest, StoredResponse},
};

/// What an attempt has come to.
pub(super) enum End {
    /// The store has to be told.
    Settle(Verdict, Option<StoredResponse>),
    /// It is not ours any more: there is nothing to tell.
    Lost,
}

/// Runs one attempt to its end: the answer, a panic, the timeout, or the word to stop.
pub(super) async fn attempt<S, R>(
    service: S,
    leased: Leased,
    mut stop: watch::Receiver<Option<Stop>>,
    queue: &JobQueue,
    settings: &Arc<Settings>,
) -> End
where
    S: Service<Request<ReqBody>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let Leased { job, request } = leased;
    let request = replay(&job, request, JobContext::new(job, stop.clone()));
    let attempt_timeout = Duration::from_millis(job.timeout_ms);
    let ran = timeout(attempt_timeout, caught(exchange(service, request, queue, settings)));
    tokio::select! {
        biased;
        why = stop.wait_for(Option::is_some) => match why.map(|why| *why) {
            Ok(Some(Stop::Drained)) => End::Settle(Verdict::Release { after_ms: 0 }, None),
            _ => End::Lost,
        },
        ran = ran => match ran {
            Ok(Some((verdict, response))) => End::Settle(verdict, response),
            Ok(None) => End::Settle(Verdict::Crash, None),
            Err(_) => End::Settle(verdict((settings.decide.0)(&Exchange::TimedOut), None, 0, 0), None),
        },
    }
}

/// Makes the request that the client sent, with what a job adds.
fn replay(job: &Job, stored: StoredRequest, context: JobContext) -> Request<ReqBody> {
    let mut request = Request::new(ReqBody::buffered(stored.body));
    *request.method_mut() = stored.method;
    *request.uri_mut() = stored.uri;
    *request.version_mut() = stored.version;
    *request.headers_mut() = stored.headers;
    let id = job.id.to_string();
    let headers = request.headers_mut();
    if !headers.contains_key(IDEMPOTENCY_KEY)
        && let Ok(key) = HeaderValue::from_str(&format!("\"{id}\""))
    {
        headers.insert(IDEMPOTENCY_KEY, key);
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(JOB_ID, id);
    }
    headers.insert(JOB_ATTEMPT, HeaderValue::from(job.attempts));
    headers.insert(JOB_TOKEN, HeaderValue::from(job.token));
    let extensions = request.extensions_mut();
    extensions.insert(job.class);
    extensions.insert(Offloaded);
    extensions.insert(context);
    if let Some(principal) = stored.principal {
        extensions.insert(principal);
    }
    if let Some(affinity) = stored.affinity {
        extensions.insert(affinity);
    }
    request
}

async fn exchange<S, R>(
    mut service: S,
    request: Request<ReqBody>,
    queue: &JobQueue,
    settings: &Settings,
) -> (Verdict, Option<StoredResponse>)
where
    S: Service<Request<ReqBody>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let decide = |exchange: &Exchange<'_>| (settings.decide.0)(exchange);
    let response = match service.call(request).await {
        Ok(response) => response,
        Err(error) => return (verdict(decide(&Exchange::Failed(&error.into())), None, 0, 0), None),
    };
    if let Some(rejection) = response.extensions().get::<Rejection>()
        && rejection.reason != Reason::DeadlineExceeded
    {
        // The backend never saw it. Without a hint it waits a second, or an idle worker would spin.
        let after = rejection.retry_after.unwrap_or(Duration::from_secs(1));
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        return (Verdict::Release { after_ms }, None);
    }
    let config = queue.config();
    let (mut head, body) = response.into_parts();
    let decision = decide(&Exchange::Head(&head));
    let status = Some(head.status.as_u16());
    let after_ms = retry_after_ms(head.status, &head.headers, queue.store().now_ms());
    match Limited::new(body, config.max_result).collect().await {
        Ok(body) => {
            strip_response(&mut head.headers, &config.keep_headers);
            let body = body.to_bytes();
            let response = StoredResponse { status: head.status, headers: head.headers, body };
            (verdict(decision, status, response.bytes(), after_ms), Some(response))
        }
        Err(error) if error.is::<LengthLimitError>() => {
            let verdict = match decision {
                Decision::Done => Verdict::Fail { http_status: status, bytes: 0, cause: Cause::TooLarge },
                other => verdict(other, status, 0, after_ms),
            };
            (verdict, None)
        }
        Err(error) => {
            tracing::debug!(%error, "the response body broke off");
            (verdict(decide(&Exchange::Failed(&error)), status, 0, after_ms), None)
        }
    }
}

/// Without a status there is no answer that could count: `Done` is then a failure.
fn verdict(decision: Decision, http_status: Option<u16>, bytes: u64, after_ms: u64) -> Verdict {
    match (decision, http_status) {
        (Decision::Done, Some(http_status)) => Verdict::Complete { http_status, bytes },
        (Decision::Retry, _) => Verdict::Retry { http_status, bytes, after_ms, jitter: random::jitter() },
        (Decision::Fail, _) | (Decision::Done, None) => Verdict::Fail { http_status, bytes, cause: Cause::Refused },
    }
}

/// Turns a panic into `None`: the job may be at fault, the worker goes on. What panicked is dropped, never used again.
async fn caught<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}
