//! What the tests share.
#![allow(dead_code)] // each test file uses a part

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll},
};

use bytes::Bytes;
use forebay_core::{BoxError, Class, ReqBody};
use forebay_offload::{
    JobQueue, JobQueueBuilder, Worker, WorkerSummary,
    policy::{Cancelled, Claim, Enqueued, Erased, Job, JobId, Renewed, Settled, Stats, Swept},
    store::{
        Changed, JobStore, LeaseRef, LeasedJobs, MemoryStore, NewJob, Settle, StoreError, StoreErrorKind,
        StoredResponse,
    },
};
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use tower::Service;

pub(crate) fn builder(store: impl JobStore) -> JobQueueBuilder {
    JobQueue::builder(store, "test")
}

pub(crate) fn queue(store: impl JobStore) -> JobQueue {
    builder(store).build().unwrap()
}

pub(crate) fn respond_async(uri: &str, body: &'static str) -> Request<Full<Bytes>> {
    Request::post(uri).header("prefer", "respond-async").body(Full::from(body)).unwrap()
}

pub(crate) async fn read<B>(response: Response<B>) -> (StatusCode, String)
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Runs a worker until nothing waits or runs.
pub(crate) async fn run_until_idle<S, R>(queue: &JobQueue, service: S) -> WorkerSummary
where
    S: Service<Request<ReqBody>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let worker = Worker::builder(queue.clone(), service).concurrency(4).build().unwrap();
    let watched = queue.clone();
    worker.run(async move { idle(&watched).await }).await
}

pub(crate) async fn idle(queue: &JobQueue) {
    loop {
        let stats = queue.stats();
        if stats.waiting.iter().chain(&stats.running).sum::<u64>() == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// A body that never says anything.
#[derive(Debug)]
pub(crate) struct Silent;

impl Body for Silent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Pending
    }
}

/// A store that is down.
#[derive(Debug)]
pub(crate) struct Down;

fn down<T>() -> Result<T, StoreError> {
    Err(StoreError::new(StoreErrorKind::Io, "down"))
}

impl JobStore for Down {
    async fn enqueue(&self, _: &str, _: &[NewJob]) -> Result<Vec<Enqueued>, StoreError> {
        down()
    }
    async fn claim(&self, _: &str, _: &Claim) -> Result<LeasedJobs, StoreError> {
        down()
    }
    async fn renew(&self, _: &str, _: &[LeaseRef], _: u64) -> Result<Vec<Renewed>, StoreError> {
        down()
    }
    async fn settle(&self, _: &str, _: &[Settle]) -> Result<Vec<Settled>, StoreError> {
        down()
    }
    async fn cancel(&self, _: &str, _: JobId) -> Result<Cancelled, StoreError> {
        down()
    }
    async fn requeue(&self, _: &str, _: JobId, _: u64, _: u64) -> Result<Option<Job>, StoreError> {
        down()
    }
    async fn erase(&self, _: &str, _: JobId) -> Result<Erased, StoreError> {
        down()
    }
    async fn sweep(&self, _: &str) -> Result<Swept, StoreError> {
        down()
    }
    async fn get(&self, _: &str, _: JobId) -> Result<Option<Job>, StoreError> {
        down()
    }
    async fn result(&self, _: &str, _: JobId) -> Result<Option<StoredResponse>, StoreError> {
        down()
    }
    async fn secret(&self, _: &str) -> Result<[u8; 32], StoreError> {
        Ok([7; 32])
    }
    fn stats(&self, _: &str) -> Stats {
        Stats::default()
    }
    fn retry_after_s(&self, _: &str, _: Class) -> u64 {
        5
    }
    fn work(&self, _: &str) -> Changed {
        Changed::never()
    }
    fn changed(&self, _: &str, _: JobId) -> Changed {
        Changed::never()
    }
    fn now_ms(&self) -> u64 {
        0
    }
}

/// A store in memory whose first answers to each kind of call are lost after the call has taken effect.
#[derive(Debug)]
pub(crate) struct Faulty {
    pub(crate) inner: MemoryStore,
    lost: Mutex<HashMap<&'static str, u32>>,
}

impl Faulty {
    pub(crate) fn new() -> Self {
        Self { inner: MemoryStore::new(), lost: Mutex::default() }
    }

    fn lose<T>(&self, call: &'static str, reply: Result<T, StoreError>) -> Result<T, StoreError> {
        let mut lost = self.lost.lock().unwrap();
        let lost = lost.entry(call).or_default();
        *lost += 1;
        if *lost <= 2 { down() } else { reply }
    }
}

impl JobStore for Faulty {
    async fn enqueue(&self, queue: &str, jobs: &[NewJob]) -> Result<Vec<Enqueued>, StoreError> {
        self.inner.enqueue(queue, jobs).await
    }
    async fn claim(&self, queue: &str, ask: &Claim) -> Result<LeasedJobs, StoreError> {
        let reply = self.inner.claim(queue, ask).await;
        if reply.as_ref().is_ok_and(|claimed| claimed.jobs.is_empty()) { reply } else { self.lose("claim", reply) }
    }
    async fn renew(&self, queue: &str, leases: &[LeaseRef], ttl_ms: u64) -> Result<Vec<Renewed>, StoreError> {
        self.lose("renew", self.inner.renew(queue, leases, ttl_ms).await)
    }
    async fn settle(&self, queue: &str, ends: &[Settle]) -> Result<Vec<Settled>, StoreError> {
        self.lose("settle", self.inner.settle(queue, ends).await)
    }
    async fn cancel(&self, queue: &str, id: JobId) -> Result<Cancelled, StoreError> {
        self.inner.cancel(queue, id).await
    }
    async fn requeue(&self, queue: &str, id: JobId, target: u64, expires: u64) -> Result<Option<Job>, StoreError> {
        self.inner.requeue(queue, id, target, expires).await
    }
    async fn erase(&self, queue: &str, id: JobId) -> Result<Erased, StoreError> {
        self.inner.erase(queue, id).await
    }
    async fn sweep(&self, queue: &str) -> Result<Swept, StoreError> {
        self.lose("sweep", self.inner.sweep(queue).await)
    }
    async fn get(&self, queue: &str, id: JobId) -> Result<Option<Job>, StoreError> {
        self.inner.get(queue, id).await
    }
    async fn result(&self, queue: &str, id: JobId) -> Result<Option<StoredResponse>, StoreError> {
        self.inner.result(queue, id).await
    }
    async fn secret(&self, queue: &str) -> Result<[u8; 32], StoreError> {
        self.inner.secret(queue).await
    }
    fn stats(&self, queue: &str) -> Stats {
        self.inner.stats(queue)
    }
    fn retry_after_s(&self, queue: &str, class: Class) -> u64 {
        self.inner.retry_after_s(queue, class)
    }
    fn work(&self, queue: &str) -> Changed {
        self.inner.work(queue)
    }
    fn changed(&self, queue: &str, id: JobId) -> Changed {
        self.inner.changed(queue, id)
    }
    fn now_ms(&self) -> u64 {
        self.inner.now_ms()
    }
}
