use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use forebay_core::{AffinityKey, Class, ClassDemand, Demand, DemandSource, Principal};
use http::Request;
use tokio::{
    sync::{OnceCell, Semaphore},
    time::{Instant, timeout_at},
};

use crate::{
    access,
    config::OffloadConfig,
    headers, key,
    options::JobOptions,
    policy::{Bounds, Cancelled, Enqueued, Erased, Job, JobClass, JobId, JobSpec, KeyClaim, OwnerTag, Stats},
    prefer,
    queue_builder::JobQueueBuilder,
    store::{DynStore, JobStore, NewJob, StoreError, StoredRequest, StoredResponse},
};

/// How long a change that the store did not tell of may go unseen by a waiting request.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// A named queue of HTTP requests in a store, with its settings: shared by layer, workers and router, usable alone.
///
/// Its methods are the operator's: they ask for no principal and no token. Clones are the same queue.
#[derive(Clone)]
pub struct JobQueue {
    shared: Arc<Shared>,
}

struct Shared {
    store: Box<dyn DynStore>,
    name: String,
    config: OffloadConfig,
    secret: OnceCell<[u8; 32]>,
    watchers: Semaphore,
}

/// A [`JobQueue`] call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The store could not do it.
    #[error("the job store failed")]
    Store(#[from] StoreError),
    /// The idempotency key is not 1 to 255 visible ASCII characters.
    #[error("invalid idempotency key: expected 1 to 255 visible ASCII characters")]
    KeyInvalid,
    /// The request body is larger than a job's may be.
    #[error("the request body has {bytes} bytes; a job's may have {max}")]
    TooLarge {
        /// What it has.
        bytes: usize,
        /// What it may have.
        max: usize,
    },
}

impl JobQueue {
    /// Starts the settings of the queue of this name in this store.
    pub fn builder(store: impl JobStore, name: impl Into<String>) -> JobQueueBuilder {
        JobQueueBuilder::new(Box::new(store), name.into())
    }

    /// Stores a request as a job; when it returns, the store has confirmed.
    ///
    /// Extensions that count: `Class`, `Principal`, `AffinityKey`. Without class in options or extensions the job is of
    /// the least urgent, P3. Credentials and fields for one connection are not stored.
    ///
    /// # Errors
    /// When the store fails, the key is invalid or the body too large. A full queue is no error but
    /// [`Enqueued::Full`].
    ///
    /// # Cancel safety
    /// Dropped early, the job may or may not exist.
    pub async fn enqueue(&self, request: Request<Bytes>, options: JobOptions) -> Result<Enqueued, QueueError> {
        let job = self.new_job(request, &options)?;
        let replies = self.store().enqueue(self.name(), std::slice::from_ref(&job)).await?;
        replies.into_iter().next().ok_or_else(|| QueueError::Store(no_reply()))
    }

    /// Returns what is known of a job.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn status(&self, id: JobId) -> Result<Option<Job>, QueueError> {
        Ok(self.store().get(self.name(), id).await?)
    }

    /// Returns the stored answer of a job: a completed one's, or the last of a failed one.
    ///
    /// # Errors
    /// When the store fails or the record cannot be read.
    pub async fn result(&self, id: JobId) -> Result<Option<StoredResponse>, QueueError> {
        Ok(self.store().result(self.name(), id).await?)
    }

    /// Waits until a job has ended, at most this long, and returns what is known of it then.
    ///
    /// Where too many wait already, it does not wait.
    ///
    /// # Errors
    /// When the store fails.
    ///
    /// # Cancel safety
    /// Safe: nothing changes.
    pub async fn wait(&self, id: JobId, at_most: Duration) -> Result<Option<Job>, QueueError> {
        let until = Instant::now() + at_most.min(Duration::from_secs(86_400));
        let permit = self.shared.watchers.try_acquire();
        loop {
            // Watched before read: a change in between is seen.
            let changed = self.store().changed(self.name(), id);
            let job = self.status(id).await?;
            if permit.is_err() || job.is_none_or(|job| job.state.is_ended()) || Instant::now() >= until {
                return Ok(job);
            }
            // Told or not, the loop reads again.
            let _ = timeout_at(until.min(Instant::now() + LOOK_AGAIN), changed).await;
        }
    }

    /// Cancels a job that has not ended; a running one is told with its next renewal.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn cancel(&self, id: JobId) -> Result<Cancelled, QueueError> {
        Ok(self.store().cancel(self.name(), id).await?)
    }

    /// Makes a failed job ready again, as if new: `None` if there is no such failed job.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn requeue(&self, id: JobId) -> Result<Option<Job>, QueueError> {
        let Some(job) = self.status(id).await? else { return Ok(None) };
        let class = self.class(job.class);
        let (target, expires) = (millis(class.target), millis(class.expires_after));
        Ok(self.store().requeue(self.name(), id, target, expires).await?)
    }

    /// Forgets an ended job; its idempotency key is remembered to its own end.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn erase(&self, id: JobId) -> Result<Erased, QueueError> {
        Ok(self.store().erase(self.name(), id).await?)
    }

    /// Returns the counts of the queue as this process knows them; does no I/O.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.store().stats(self.name())
    }

    /// Returns the settings.
    #[must_use]
    pub fn config(&self) -> &OffloadConfig {
        &self.shared.config
    }

    /// Returns where the caller finds the job: path and id, and its capability token if it has no principal.
    ///
    /// # Errors
    /// When the store fails to give the queue's secret.
    pub async fn location(&self, job: &Job) -> Result<String, QueueError> {
        let path = &self.config().path;
        Ok(match job.owner {
            Some(_) => format!("{path}/{}", job.id),
            None => format!("{path}/{}?token={}", job.id, access::token(&self.secret().await?, job.id)),
        })
    }

    pub(crate) fn over(store: Box<dyn DynStore>, name: String, config: OffloadConfig) -> Self {
        let watchers = Semaphore::new(config.max_watchers.min(Semaphore::MAX_PERMITS));
        Self { shared: Arc::new(Shared { store, name, config, secret: OnceCell::new(), watchers }) }
    }

    pub(crate) async fn secret(&self) -> Result<[u8; 32], StoreError> {
        self.shared.secret.get_or_try_init(|| self.store().secret(self.name())).await.copied()
    }

    pub(crate) fn store(&self) -> &dyn DynStore {
        &*self.shared.store
    }

    pub(crate) fn name(&self) -> &str {
        &self.shared.name
    }

    pub(crate) fn class(&self, class: Class) -> &JobClass {
        &self.config().classes[class.index()]
    }

    pub(crate) fn retry_after(&self, class: Class) -> Duration {
        Duration::from_secs(self.store().retry_after_s(self.name(), class))
    }

    fn new_job(&self, request: Request<Bytes>, options: &JobOptions) -> Result<NewJob, QueueError> {
        let config = self.config();
        let (mut parts, body) = request.into_parts();
        if body.len() > config.max_request_body {
            return Err(QueueError::TooLarge { bytes: body.len(), max: config.max_request_body });
        }
        let class = options.class.or_else(|| parts.extensions.get().copied()).unwrap_or(Class::P3);
        let principal = parts.extensions.remove::<Principal>();
        let owner = principal.as_ref().map(OwnerTag::of);
        let settings = self.class(class);
        let mut spec = JobSpec::with_class(JobId::random(), class, settings);
        spec.owner = owner;
        spec.dead_kept_ms = millis(config.dead_kept);
        if let Some(key) = &options.key {
            key::check(key).map_err(|_| QueueError::KeyInvalid)?;
            spec.key = Some(KeyClaim {
                key: key::tag(owner, key),
                fingerprint: key::fingerprint(&parts.method, &parts.uri, &parts.headers, &body),
                kept_ms: millis(config.key_kept),
            });
        }
        let overrides = [
            (options.delay, &mut spec.delay_ms),
            (options.expires_after, &mut spec.expires_after_ms),
            (options.timeout, &mut spec.timeout_ms),
            (options.result_kept, &mut spec.kept_ms),
        ];
        for (given, field) in overrides {
            *field = given.map_or(*field, millis);
        }
        spec.max_attempts = options.attempts.unwrap_or(spec.max_attempts).max(1);
        prefer::remove_applied(&mut parts.headers);
        headers::strip_request(&mut parts.headers, &config.keep_headers);
        let request = StoredRequest {
            method: parts.method,
            uri: parts.uri,
            version: parts.version,
            headers: parts.headers,
            body,
            principal,
            affinity: parts.extensions.get::<AffinityKey>().copied(),
        };
        spec.bytes = request.bytes();
        let bounds = Bounds {
            backlog: settings.max_backlog,
            backlog_per_owner: settings.max_backlog.div_ceil(4),
            stored_bytes: config.max_stored_bytes,
        };
        Ok(NewJob { spec, bounds, request })
    }
}

/// Waiting jobs are queued, scheduled ones included; running ones are in flight. A job is one seat.
impl DemandSource for JobQueue {
    fn demand(&self) -> Demand {
        let stats = self.stats();
        let mut demand = Demand::default();
        for (class, of_class) in demand.classes.iter_mut().enumerate() {
            *of_class = ClassDemand {
                queued: stats.waiting[class],
                in_flight: stats.running[class],
                offered: stats.offered[class],
                done: stats.ended[class],
                shed: stats.refused[class],
            };
        }
        demand
    }
}

impl fmt::Debug for JobQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobQueue").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn no_reply() -> StoreError {
    StoreError::new(crate::store::StoreErrorKind::Io, "the store did not answer for each job")
}
