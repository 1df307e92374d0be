//! A tower layer that lets any HTTP service **answer later**: `202 Accepted` and a job URL at once, the answer when the
//! backend gets to it.
//!
//! A client that sends `Prefer: respond-async` (RFC 7240) gets a 202 with a `Location`; its request is stored as a job.
//! A [`Worker`] runs it through any tower service, retries it, and stores the answer; a [`JobRouter`] serves status,
//! result and cancellation. Everything else passes untouched, without an allocation and without a call of the store.
//! For gateways before LLM inference, rendering, transcoding: wherever an answer may take longer than a connection
//! should.
//!
//! Not for what needs an answer on the connection (streams to a user, gRPC), nor for effects that must happen exactly
//! once: a job runs **at least once**, and one of its runs is the one that counts. Each run carries the job's id and a
//! fencing token, so that a backend can tell.
//!
//! # In one axum server
//!
//! ```
//! use axum::{Router, body::Body, routing::post};
//! use forebay_offload::{JobQueue, JobRouter, OffloadLayer, Worker, store::MemoryStore};
//! use http::Request;
//! use http_body_util::BodyExt;
//! use tower::ServiceExt;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let queue = JobQueue::builder(MemoryStore::new(), "reports").path("/jobs").build()?;
//! let api = Router::new().route("/v1/report", post(|| async { "a long report" }));
//! let worker = Worker::builder(queue.clone(), api.clone()).concurrency(8).build()?;
//! let app = api.layer(OffloadLayer::new(queue.clone())).nest_service("/jobs", JobRouter::new(queue));
//!
//! // The worker is a future: run it beside the server, with the same shutdown.
//! let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
//! let worker = tokio::spawn(worker.run(async { _ = stopped.await }));
//!
//! let request = Request::post("/v1/report").header("prefer", "respond-async").body(Body::empty())?;
//! let accepted = app.clone().oneshot(request).await?;
//! assert_eq!(accepted.status(), 202);
//!
//! let location = accepted.headers()["location"].to_str()?; // /jobs/0198…?token=…
//! let result = location.replace('?', "/result?");
//! let request = Request::get(result).header("prefer", "wait=10").body(Body::empty())?;
//! let answer = app.oneshot(request).await?;
//! assert_eq!(answer.status(), 200);
//! assert_eq!(answer.into_body().collect().await?.to_bytes(), "a long report");
//!
//! drop(stop);
//! assert_eq!(worker.await?.completed, 1);
//! # Ok(())
//! # }
//! ```
//!
//! With the feature `redb`, `redb::RedbStore::open("jobs.redb").await?` in place of `MemoryStore::new()` keeps the jobs
//! in a file: the 202 is sent when they are on disk, and a `kill -9` loses none.
//!
//! # Which requests become jobs
//!
//! By [`Policy`]: those that ask for it (the default), all, none, or what a function of the head says. A request that
//! cannot be run later passes whatever the policy: CONNECT, HEAD, OPTIONS, TRACE, upgrades, gRPC, and what a worker
//! sends. With `Prefer: respond-async, wait=N` the 202 comes at once: RFC 7240 makes `wait` a bound, not a duty.
//!
//! A body over `max_request_body` (1 MiB) is served inline, under `Policy::Always` refused with 413; one that does not
//! arrive within `body_timeout` (30 s) is refused with 408; a full queue refuses with 429. When the store is down,
//! requests are served inline, but for those with an `Idempotency-Key`, which may have run already: 503.
//!
//! A layer inside that refuses requests may turn them into jobs with [`OffloadHandle::overflow`]:
//!
//! ```
//! use forebay_core::{Class, Overflow, Reason, Rejection, ReqBody};
//! use forebay_offload::{JobQueue, OffloadLayer, policy::JobClass, store::MemoryStore};
//! use http::Request;
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut batch = JobClass::of(Class::P3);
//! batch.expires_after = Duration::from_secs(48 * 3_600);
//! let queue = JobQueue::builder(MemoryStore::new(), "llm").class(Class::P3, batch).build()?;
//! let (layer, handle) = OffloadLayer::builder(queue).build_with_handle()?;
//!
//! // What a priority layer does with its hook when a P3 request finds the queue full:
//! let hook = handle.overflow();
//! let refused = Request::post("/v1/embed").body(ReqBody::<forebay_core::Never>::buffered("{}"))?;
//! let why = Rejection::new(Reason::QueueFull).class(Class::P3);
//! let accepted = hook.overflow(refused, why).await?;
//! assert_eq!(accepted.status(), 202);
//! assert_eq!(handle.snapshot().queue.waiting[Class::P3.index()], 1);
//! # let _ = layer;
//! # Ok(())
//! # }
//! ```
//!
//! # The order of jobs
//!
//! By class, most urgent first; inside a class by the instant they should have started. The classes below P0 have a
//! share of 5 % each, so that none starves. A job's class is the `Class` in its request's extensions (set outside, by
//! authentication), else what the refusing layer said, else `classify`, else P3. See [`policy::JobClass`] for the
//! defaults.
//!
//! # How the slots are shared
//!
//! Of a worker's [`concurrency`](WorkerBuilder::concurrency) slots one owner's jobs hold at most half, rounded up
//! ([`max_share`](WorkerBuilder::max_share); the owner is the `Principal`; jobs without one are not bounded so). P0
//! may hold all slots, and each class together with all less urgent ones an eighth less than the class before it (at
//! least one slot less, but never none): of 16, P1 and below hold at most 14, P2 and below 12, P3 and below 10.
//!
//! So hung jobs of one tenant, or of any number of tenants of less urgent classes, leave a slot to the more urgent jobs
//! of others, which start at once; their own slots come back when their attempts end, at the latest after the
//! [attempt timeout](policy::JobClass::attempt_timeout) of their class. (Both at once, a tenant of P0 and less urgent
//! classes, can fill all slots; a `max_share` of a quarter excludes that.) A job without room waits, and later ones of
//! other owners pass it. A worker knows only what it runs itself: several workers share their slots each on its own.
//!
//! Slots that are kept free stay idle while only less urgent jobs wait. A worker that runs one class gives it all slots
//! ([`classes`](WorkerBuilder::classes)), and `max_share(1.0)` lifts the bound of owners.
//! With few slots less can be kept free: with one, nothing; with two, one for P0.
//!
//! # When a run goes wrong
//!
//! An error, a timeout, 408, 425, 429 and most 5xx are retried with growing, jittered pauses, `Retry-After` heeded; see
//! [`Decision::by_default`] and [`WorkerBuilder::verdict`]. A panic or a lost lease is a crash; a job survives two. A
//! core `Rejection` in the response extensions is no attempt at all: the job goes back. Failed jobs are kept for a week
//! and may be requeued ([`JobQueue::requeue`]).
//!
//! # Who may see a job
//!
//! The `Principal` it was made with. A job made without one has a capability token in its `Location`, 256 bits under a
//! secret that the store keeps; whoever has the URL may see the job. To all others it is not there (404). An
//! `Idempotency-Key` is the identity of a job within its principal; callers without a principal share their keys, and
//! who sends the same key with the very same request is given the same job.
//!
//! # What is not stored
//!
//! `Authorization`, `Cookie`, `Proxy-*`, `Prefer`, `Expect`, fields for one connection, and `Set-Cookie` of responses,
//! unless named by [`keep_headers`](JobQueueBuilder::keep_headers); trailers; extensions other than `Class`,
//! `Principal` and `AffinityKey`. Requests and answers are stored as they are, not encrypted.
//!
//! # Cancellation
//!
//! A client that goes before its 202 may leave a job behind, never the other way round: a 202 is sent after the store
//! has confirmed. A cancelled job's run is dropped with the next renewal of its lease, within a second.
//!
//! # Features
//!
//! - `redb`: `redb::RedbStore`, jobs in one file (needs no server)
//!
//! # Not yet
//!
//! Redis stores; live output (events) and webhooks; making jobs of refusals that come back through this layer (use the
//! hook above), and handing a running request over to a job; listing a caller's jobs; metrics.
#![forbid(unsafe_code)]

mod access;
mod clock;
mod collect;
mod config;
mod decide;
pub mod future;
mod handle;
pub mod headers;
mod key;
mod layer;
mod options;
mod overflow;
pub mod policy;
mod prefer;
mod queue;
mod queue_builder;
mod random;
#[cfg(feature = "redb")]
pub mod redb;
mod route;
mod router;
mod service;
mod shared;
mod status;
pub mod store;
mod submit;
mod worker;

pub use self::{
    config::OffloadConfig,
    decide::Policy,
    handle::{OffloadHandle, OffloadSnapshot},
    layer::{OffloadLayer, OffloadLayerBuilder},
    options::JobOptions,
    overflow::{JobOverflow, OverflowFuture},
    queue::{JobQueue, QueueError},
    queue_builder::JobQueueBuilder,
    router::{JobRouter, RouterFuture},
    service::Offload,
    worker::{Decision, Exchange, JobContext, Worker, WorkerBuilder, WorkerSummary},
};
