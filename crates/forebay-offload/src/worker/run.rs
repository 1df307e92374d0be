use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    mem,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use forebay_core::{BoxError, ReqBody};
use http::{Request, Response};
use http_body::Body;
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep, timeout},
};
use tower_service::Service;

use super::{
    builder::Worker,
    job::{Tally, run_job},
    leases::{Leases, Stop},
    slots::{Holder, Slots},
};
use crate::{
    policy::{Claim, Verdict},
    random,
    store::{LeaseRef, Leased, LeasedJobs, Settle, StoreError},
};

/// The longest a worker sleeps without looking for jobs.
const POLL: Duration = Duration::from_secs(1);
/// How often a closed gate is looked at.
const GATE_POLL: Duration = Duration::from_millis(100);
/// The pauses after store errors: doubled from the first to the last.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// How long a claim may take before it is asked again; and a worker's last words.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a worker has done, in attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WorkerSummary {
    /// Ended with an answer that counts.
    pub completed: u64,
    /// Ended for good without one.
    pub failed: u64,
    /// Will be tried again.
    pub retried: u64,
    /// Given back: refused before the backend saw them, or the worker drained.
    pub released: u64,
    /// Panicked.
    pub crashed: u64,
    /// Cancelled, or taken by another worker, or the store could not be told in time.
    pub lost: u64,
}

impl<S, R> Worker<S>
where
    S: Service<Request<ReqBody>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    /// Runs jobs until `shutdown` resolves, then finishes those that run.
    ///
    /// Waits for work, polls the service ready, and only then claims as many jobs as there are ready instances, of
    /// classes and owners that have [slots left](crate#how-the-slots-are-shared). No error of the store or the service
    /// ends it. What still runs after the drain timeout is given back without counting as an attempt.
    ///
    /// # Cancel safety
    /// Dropped early, its running jobs are dropped too; their leases end, and each counts a crash.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> WorkerSummary {
        let leases = Leases::new(self.queue.clone(), self.settings.lease);
        let run = Run {
            slots: self.settings.slots(),
            worker: self,
            leases: Arc::clone(&leases),
            tasks: JoinSet::new(),
            holders: HashMap::new(),
            summary: WorkerSummary::default(),
            nonce: random::nonce(),
            unsure: None,
            pause: PAUSES.0,
        };
        let shutdown = pin!(shutdown);
        tokio::select! {
            summary = run.work(shutdown) => summary,
            never = leases.keep() => match never {},
        }
    }
}

struct Run<S> {
    worker: Worker<S>,
    leases: Arc<Leases>,
    tasks: JoinSet<Tally>,
    slots: Slots,
    /// The slot of each task.
    holders: HashMap<Id, Holder>,
    summary: WorkerSummary,
    /// Of the next claim; the same again after an error, for the claim may have been heard.
    nonce: u128,
    /// When the claim of this nonce was asked first, if its outcome is unknown.
    unsure: Option<Instant>,
    /// After the next store error.
    pause: Duration,
}

impl<S, R> Run<S>
where
    S: Service<Request<ReqBody>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    async fn work(mut self, mut shutdown: Pin<&mut impl Future<Output = ()>>) -> WorkerSummary {
        let concurrency = self.worker.settings.concurrency;
        loop {
            while let Some(done) = self.tasks.try_join_next_with_id() {
                self.ended(done);
            }
            let free = concurrency - self.tasks.len().min(concurrency);
            let work = self.worker.queue.store().work(self.worker.queue.name());
            let idle = if free == 0 {
                POLL
            } else {
                tokio::select! {
                    biased;
                    () = &mut shutdown => break,
                    ready = self.ready(free) => match ready {
                        Ok(ready) => self.fill(ready).await,
                        Err(idle) => idle,
                    },
                }
            };
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(done) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => self.ended(done),
                // Left alone while full: the wake-up is for a worker that has room.
                () = work, if free > 0 => {}
                () = sleep(idle) => {}
            }
        }
        self.drain().await
    }

    /// Polls instances ready, if there may be work: the first until it is, others as far as they are. `Err` says how
    /// long to sleep instead.
    async fn ready(&self, free: usize) -> Result<Vec<S>, Duration> {
        let Worker { queue, service, settings } = &self.worker;
        let classes = settings.open_classes();
        if !classes.contains(&true) {
            return Err(GATE_POLL);
        }
        let (waiting, room) = (queue.stats().waiting, self.slots.room());
        let open = (0..waiting.len()).filter(|&class| classes[class] && room[class] > 0);
        let waiting: u64 = open.map(|class| waiting[class]).sum();
        // Jobs of a claim that was heard do not wait any more, but are ours.
        let waiting = waiting.max(u64::from(self.unsure.is_some()));
        let wanted = free.min(usize::try_from(waiting).unwrap_or(usize::MAX));
        let mut ready = Vec::with_capacity(wanted.min(256));
        for n in 0..wanted.min(256) {
            let mut instance = service.clone();
            let polled = if n == 0 {
                poll_fn(|cx| instance.poll_ready(cx)).await
            } else {
                match poll_fn(|cx| Poll::Ready(instance.poll_ready(cx))).await {
                    Poll::Ready(polled) => polled,
                    Poll::Pending => break,
                }
            };
            match polled {
                Ok(()) => ready.push(instance),
                Err(error) if ready.is_empty() => {
                    let error: BoxError = error.into();
                    tracing::warn!(%error, "the worker's service is not ready");
                    return Err(PAUSES.1);
                }
                Err(_) => break,
            }
        }
        if ready.is_empty() { Err(POLL) } else { Ok(ready) }
    }

    /// Claims a job for each instance and starts it. Returns how long to sleep unless something happens.
    async fn fill(&mut self, instances: Vec<S>) -> Duration {
        let asked = *self.unsure.get_or_insert_with(Instant::now);
        let mut claimed = match timeout(PATIENCE, self.claim(instances.len())).await {
            Ok(Ok(claimed)) => claimed,
            Ok(Err(error)) => {
                tracing::warn!(%error, "no jobs could be claimed");
                return self.next_pause();
            }
            Err(_) => return self.next_pause(),
        };
        self.pause = PAUSES.0;
        self.nonce = random::nonce();
        self.unsure = None;
        let extra = claimed.jobs.split_off(instances.len().min(claimed.jobs.len()));
        self.give_back(&extra).await;
        let started = claimed.jobs.len();
        // An instance without a job is dropped, with whatever it had reserved.
        for (instance, leased) in instances.into_iter().zip(claimed.jobs) {
            self.start(instance, leased, asked);
        }
        if claimed.more && started > 0 {
            return Duration::ZERO;
        }
        let now = self.worker.queue.store().now_ms();
        let next = claimed.next_at.map_or(POLL, |at| Duration::from_millis(at.saturating_sub(now).max(1)));
        next.min(POLL)
    }

    async fn claim(&self, max: usize) -> Result<LeasedJobs, StoreError> {
        let Worker { queue, settings, .. } = &self.worker;
        let mut ask = Claim::new(self.nonce, u32::try_from(max).unwrap_or(u32::MAX));
        ask.ttl_ms = u64::try_from(settings.lease.as_millis()).unwrap_or(u64::MAX);
        ask.classes = settings.open_classes();
        ask.shares = std::array::from_fn(|class| queue.config().classes[class].share_thousandths);
        self.slots.bound(&mut ask);
        queue.store().claim(queue.name(), &ask).await
    }

    /// Gives back jobs of a repeated claim for which there is no instance any more.
    async fn give_back(&self, extra: &[Leased]) {
        if extra.is_empty() {
            return;
        }
        let queue = &self.worker.queue;
        let ends: Vec<_> =
            extra.iter().map(|leased| Settle::new(&leased.job, Verdict::Release { after_ms: 0 })).collect();
        // If that fails, their leases end.
        let _ = timeout(PATIENCE, queue.store().settle(queue.name(), &ends)).await;
    }

    fn start(&mut self, instance: S, leased: Leased, asked: Instant) {
        let queue = self.worker.queue.clone();
        let settings = Arc::clone(&self.worker.settings);
        let lease = LeaseRef { id: leased.job.id, token: leased.job.token };
        let (lease, stop) = self.leases.hold(lease, asked);
        let holder = self.slots.take(&leased.job);
        let task = self.tasks.spawn(run_job(queue, settings, instance, leased, lease, stop));
        self.holders.insert(task.id(), holder);
    }

    fn next_pause(&mut self) -> Duration {
        let next = (self.pause * 2).min(PAUSES.1);
        mem::replace(&mut self.pause, next)
    }

    async fn drain(mut self) -> WorkerSummary {
        if timeout(self.worker.settings.drain_timeout, self.join()).await.is_err() {
            self.leases.stop_all(Stop::Drained);
            // A store that does not take them back in time finds out by their leases.
            let _ = timeout(PATIENCE, self.join()).await;
        }
        self.summary
    }

    async fn join(&mut self) {
        while let Some(done) = self.tasks.join_next_with_id().await {
            self.ended(done);
        }
    }

    /// Counts what a task has come to, and gives its slot back.
    fn ended(&mut self, done: Result<(Id, Tally), JoinError>) {
        let (id, tally) = done.unwrap_or_else(|error| (error.id(), Tally::Crashed));
        if let Some(holder) = self.holders.remove(&id) {
            self.slots.give_back(holder);
        }
        self.count(tally);
    }

    const fn count(&mut self, tally: Tally) {
        let summary = &mut self.summary;
        let count = match tally {
            Tally::Completed => &mut summary.completed,
            Tally::Failed => &mut summary.failed,
            Tally::Retried => &mut summary.retried,
            Tally::Released => &mut summary.released,
            Tally::Crashed => &mut summary.crashed,
            Tally::Lost => &mut summary.lost,
        };
        *count += 1;
    }
}
