//! Where jobs live: the [`JobStore`] trait, and the store in memory.

mod dynamic;
mod error;
mod exchange;
mod memory;
mod watch;

use std::future::Future;

pub(crate) use self::{
    dynamic::DynStore,
    watch::{Watchers, lock},
};
pub use self::{
    error::{StoreError, StoreErrorKind},
    exchange::{StoredRequest, StoredResponse},
    memory::MemoryStore,
    watch::Changed,
};
use crate::policy::{
    Bounds, Cancelled, Claim, Enqueued, Erased, Job, JobId, JobSpec, Renewed, Settled, Stats, Swept, Verdict,
};

/// A new job with the request to be run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewJob {
    /// What the state machine has to know.
    pub spec: JobSpec,
    /// What the queue holds at most.
    pub bounds: Bounds,
    /// What is to be run.
    pub request: StoredRequest,
}

/// A claimed job with its request.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Leased {
    /// The job, running under its token.
    pub job: Job,
    /// What is to be run.
    pub request: StoredRequest,
}

/// The answer to a claim.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LeasedJobs {
    /// The jobs.
    pub jobs: Vec<Leased>,
    /// Whether more are ready.
    pub more: bool,
    /// When the next gets ready by the passing of time, in wall-clock milliseconds of the store.
    pub next_at: Option<u64>,
}

/// A held lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseRef {
    /// The job.
    pub id: JobId,
    /// The token of the claim.
    pub token: u64,
}

/// The end of an attempt.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settle {
    /// The lease under which it ran.
    pub lease: LeaseRef,
    /// What became of it.
    pub verdict: Verdict,
    /// The answer, if there was one; kept if the job ends with it.
    pub response: Option<StoredResponse>,
}

impl NewJob {
    /// Makes a new job of what the state machine has to know, and its request.
    #[must_use]
    pub const fn new(spec: JobSpec, bounds: Bounds, request: StoredRequest) -> Self {
        Self { spec, bounds, request }
    }
}

impl Leased {
    /// Makes a claimed job of its two parts.
    #[must_use]
    pub const fn new(job: Job, request: StoredRequest) -> Self {
        Self { job, request }
    }
}

impl LeaseRef {
    /// Makes the reference to the newest claim of this job.
    #[must_use]
    pub const fn of(job: &Job) -> Self {
        Self { id: job.id, token: job.token }
    }
}

impl Settle {
    /// Makes the end of the newest attempt at this job, without an answer.
    #[must_use]
    pub const fn new(job: &Job, verdict: Verdict) -> Self {
        Self { lease: LeaseRef::of(job), verdict, response: None }
    }

    /// Adds the answer.
    #[must_use]
    pub fn response(mut self, response: StoredResponse) -> Self {
        self.response = Some(response);
        self
    }
}

/// Keeps jobs, of any number of queues, and runs the state machine of [`policy`](crate::policy) over them.
///
/// A call that returns `Ok` is durable at the level the store promises. Every call may be repeated after an error: it
/// then has the same effect as once. A job that cannot be read fails alone; a call does not fail for it.
#[diagnostic::on_unimplemented(note = "`MemoryStore`, and `redb::RedbStore` behind the feature `redb`, are job stores")]
pub trait JobStore: Send + Sync + 'static {
    /// Takes in new jobs; the answers come in their order.
    fn enqueue(&self, queue: &str, jobs: &[NewJob]) -> impl Future<Output = Result<Vec<Enqueued>, StoreError>> + Send;
    /// Leases ready jobs.
    fn claim(&self, queue: &str, ask: &Claim) -> impl Future<Output = Result<LeasedJobs, StoreError>> + Send;
    /// Renews leases; the answers come in their order.
    fn renew(
        &self,
        queue: &str,
        leases: &[LeaseRef],
        ttl_ms: u64,
    ) -> impl Future<Output = Result<Vec<Renewed>, StoreError>> + Send;
    /// Ends attempts; the answers come in their order.
    fn settle(&self, queue: &str, ends: &[Settle]) -> impl Future<Output = Result<Vec<Settled>, StoreError>> + Send;
    /// Cancels a job that has not ended.
    fn cancel(&self, queue: &str, id: JobId) -> impl Future<Output = Result<Cancelled, StoreError>> + Send;
    /// Makes a failed job ready again, as if new: `None` if there is no such failed job.
    fn requeue(
        &self,
        queue: &str,
        id: JobId,
        target_ms: u64,
        expires_after_ms: u64,
    ) -> impl Future<Output = Result<Option<Job>, StoreError>> + Send;
    /// Forgets an ended job.
    fn erase(&self, queue: &str, id: JobId) -> impl Future<Output = Result<Erased, StoreError>> + Send;
    /// Does what is due by the passing of time, a bounded part of it.
    fn sweep(&self, queue: &str) -> impl Future<Output = Result<Swept, StoreError>> + Send;
    /// Returns what the index knows of a job.
    fn get(&self, queue: &str, id: JobId) -> impl Future<Output = Result<Option<Job>, StoreError>> + Send;
    /// Returns the stored answer of a job: a completed one's, or the last of a failed one.
    fn result(&self, queue: &str, id: JobId)
    -> impl Future<Output = Result<Option<StoredResponse>, StoreError>> + Send;
    /// Returns the secret of the queue: 32 random bytes, made when first asked for, the same ever after.
    fn secret(&self, queue: &str) -> impl Future<Output = Result<[u8; 32], StoreError>> + Send;
    /// Returns the counts of the queue as this process knows them; does no I/O.
    fn stats(&self, queue: &str) -> Stats;
    /// Estimates after how many seconds a job of this class is worth asking for, from 1 to 60; does no I/O.
    fn retry_after_s(&self, queue: &str, class: forebay_core::Class) -> u64;
    /// Resolves when a job may be ready; one waiter is woken for each wake-up. What happens from the call of this
    /// method on is seen, not only from the first poll.
    fn work(&self, queue: &str) -> Changed;
    /// Resolves when the job has changed, seen from the call of this method on.
    fn changed(&self, queue: &str, id: JobId) -> Changed;
    /// The wall clock of the store, in milliseconds since 1970; it never goes back.
    fn now_ms(&self) -> u64;
}
