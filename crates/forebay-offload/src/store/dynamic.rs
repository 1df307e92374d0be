use std::{future::Future, pin::Pin};

use forebay_core::Class;

use super::{Changed, JobStore, LeaseRef, LeasedJobs, NewJob, Settle, StoreError, StoredResponse};
use crate::policy::{Cancelled, Claim, Enqueued, Erased, Job, JobId, Renewed, Settled, Stats, Swept};

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A [`JobStore`] with boxed futures: calls are I/O, and the types of layers stay short.
pub(crate) trait DynStore: Send + Sync {
    fn enqueue<'a>(&'a self, queue: &'a str, jobs: &'a [NewJob]) -> Answer<'a, Vec<Enqueued>>;
    fn claim<'a>(&'a self, queue: &'a str, ask: &'a Claim) -> Answer<'a, LeasedJobs>;
    fn renew<'a>(&'a self, queue: &'a str, leases: &'a [LeaseRef], ttl_ms: u64) -> Answer<'a, Vec<Renewed>>;
    fn settle<'a>(&'a self, queue: &'a str, ends: &'a [Settle]) -> Answer<'a, Vec<Settled>>;
    fn cancel<'a>(&'a self, queue: &'a str, id: JobId) -> Answer<'a, Cancelled>;
    fn requeue<'a>(&'a self, queue: &'a str, id: JobId, target_ms: u64, expires_ms: u64) -> Answer<'a, Option<Job>>;
    fn erase<'a>(&'a self, queue: &'a str, id: JobId) -> Answer<'a, Erased>;
    fn sweep<'a>(&'a self, queue: &'a str) -> Answer<'a, Swept>;
    fn get<'a>(&'a self, queue: &'a str, id: JobId) -> Answer<'a, Option<Job>>;
    fn result<'a>(&'a self, queue: &'a str, id: JobId) -> Answer<'a, Option<StoredResponse>>;
    fn secret<'a>(&'a self, queue: &'a str) -> Answer<'a, [u8; 32]>;
    fn stats(&self, queue: &str) -> Stats;
    fn retry_after_s(&self, queue: &str, class: Class) -> u64;
    fn work(&self, queue: &str) -> Changed;
    fn changed(&self, queue: &str, id: JobId) -> Changed;
    fn now_ms(&self) -> u64;
}

impl<T: JobStore> DynStore for T {
    fn enqueue<'a>(&'a self, queue: &'a str, jobs: &'a [NewJob]) -> Answer<'a, Vec<Enqueued>> {
        Box::pin(JobStore::enqueue(self, queue, jobs))
    }
    fn claim<'a>(&'a self, queue: &'a str, ask: &'a Claim) -> Answer<'a, LeasedJobs> {
        Box::pin(JobStore::claim(self, queue, ask))
    }
    fn renew<'a>(&'a self, queue: &'a str, leases: &'a [LeaseRef], ttl_ms: u64) -> Answer<'a, Vec<Renewed>> {
        Box::pin(JobStore::renew(self, queue, leases, ttl_ms))
    }
    fn settle<'a>(&'a self, queue: &'a str, ends: &'a [Settle]) -> Answer<'a, Vec<Settled>> {
        Box::pin(JobStore::settle(self, queue, ends))
    }
    fn cancel<'a>(&'a self, queue: &'a str, id: JobId) -> Answer<'a, Cancelled> {
        Box::pin(JobStore::cancel(self, queue, id))
    }
    fn requeue<'a>(&'a self, queue: &'a str, id: JobId, target_ms: u64, expires_ms: u64) -> Answer<'a, Option<Job>> {
        Box::pin(JobStore::requeue(self, queue, id, target_ms, expires_ms))
    }
    fn erase<'a>(&'a self, queue: &'a str, id: JobId) -> Answer<'a, Erased> {
        Box::pin(JobStore::erase(self, queue, id))
    }
    fn sweep<'a>(&'a self, queue: &'a str) -> Answer<'a, Swept> {
        Box::pin(JobStore::sweep(self, queue))
    }
    fn get<'a>(&'a self, queue: &'a str, id: JobId) -> Answer<'a, Option<Job>> {
        Box::pin(JobStore::get(self, queue, id))
    }
    fn result<'a>(&'a self, queue: &'a str, id: JobId) -> Answer<'a, Option<StoredResponse>> {
        Box::pin(JobStore::result(self, queue, id))
    }
    fn secret<'a>(&'a self, queue: &'a str) -> Answer<'a, [u8; 32]> {
        Box::pin(JobStore::secret(self, queue))
    }
    fn stats(&self, queue: &str) -> Stats {
        JobStore::stats(self, queue)
    }
    fn retry_after_s(&self, queue: &str, class: Class) -> u64 {
        JobStore::retry_after_s(self, queue, class)
    }
    fn work(&self, queue: &str) -> Changed {
        JobStore::work(self, queue)
    }
    fn changed(&self, queue: &str, id: JobId) -> Changed {
        JobStore::changed(self, queue, id)
    }
    fn now_ms(&self) -> u64 {
        JobStore::now_ms(self)
    }
}
