use std::sync::Arc;

use bytes::Bytes;
use forebay_core::{BoxError, ReqBody};
use http::{Request, Response};
use http_body::Body;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tower_service::Service;

use super::{
    attempt::{End, attempt},
    builder::Settings,
    leases::{Lease, Stop},
    run::PAUSES,
};
use crate::{
    policy::{JobState, Settled, Verdict},
    queue::JobQueue,
    store::{Leased, Settle},
};

/// What an attempt counts as.
#[derive(Clone, Copy)]
pub(super) enum Tally {
    Completed,
    Failed,
    Retried,
    Released,
    Crashed,
    Lost,
}

/// Runs one attempt at a claimed job and tells the store what came of it.
pub(super) async fn run_job<S, R>(
    queue: JobQueue,
    settings: Arc<Settings>,
    instance: S,
    leased: Leased,
    lease: Lease,
    stop: watch::Receiver<Option<Stop>>,
) -> Tally
where
    S: Service<Request<ReqBody>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let (verdict, response) = match attempt(instance, leased, stop.clone(), &queue, &settings).await {
        End::Settle(verdict, response) => (verdict, response),
        End::Lost => return Tally::Lost,
    };
    let end = Settle { lease: lease.lease, verdict, response };
    match settle(&queue, &end, &lease).await {
        None | Some(Settled::Lost(_)) => Tally::Lost,
        Some(Settled::Done(state)) => match (verdict, state) {
            (_, JobState::Completed) => Tally::Completed,
            (Verdict::Crash, _) => Tally::Crashed,
            (_, JobState::Failed) => Tally::Failed,
            (Verdict::Release { .. }, _) => Tally::Released,
            _ => Tally::Retried,
        },
    }
}

/// Tells the store, again and again while the lease is relied on.
async fn settle(queue: &JobQueue, end: &Settle, lease: &Lease) -> Option<Settled> {
    let mut pause = PAUSES.0;
    loop {
        let until = lease.until()?;
        match timeout_at(until, queue.store().settle(queue.name(), std::slice::from_ref(end))).await {
            Ok(Ok(replies)) => return replies.into_iter().next(),
            Ok(Err(error)) if !error.is_retryable() => {
                tracing::error!(%error, "the end of a job could not be stored");
                return None;
            }
            Ok(Err(error)) => tracing::warn!(%error, "the end of a job could not be stored yet"),
            Err(_) => return None,
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
        if Instant::now() >= lease.until()? {
            return None;
        }
    }
}
