use std::fmt;

use tokio::sync::watch;

use crate::policy::{Job, JobId};

/// Says to a handler that its request is a job: left by the worker in the request extensions.
#[derive(Clone)]
pub struct JobContext {
    job: Job,
    stop: watch::Receiver<Option<super::leases::Stop>>,
}

impl JobContext {
    pub(super) const fn new(job: Job, stop: watch::Receiver<Option<super::leases::Stop>>) -> Self {
        Self { job, stop }
    }

    /// Returns the job's id: the same in each attempt, good as a key for effects that must happen once.
    #[must_use]
    pub const fn id(&self) -> JobId {
        self.job.id
    }

    /// Returns the number of the attempt, from 1.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.job.attempts
    }

    /// Returns the fencing token: it grows with each attempt, so that a backend can refuse an older one.
    #[must_use]
    pub const fn token(&self) -> u64 {
        self.job.token
    }

    /// Returns when the job no longer starts, in wall-clock milliseconds since 1970.
    #[must_use]
    pub const fn expires_ms(&self) -> u64 {
        self.job.expires
    }

    /// Says whether the attempt counts no more: cancelled, or the lease is lost. The worker drops the handler's future
    /// then; this is for what the handler has spawned.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.stop.borrow().is_some() || self.stop.has_changed().is_err()
    }

    /// Resolves when the attempt counts no more, its regular end included.
    ///
    /// # Cancel safety
    /// Safe: nothing changes.
    pub async fn cancelled(&self) {
        // An error means that the attempt is over.
        let _ = self.stop.clone().wait_for(Option::is_some).await;
    }
}

impl fmt::Debug for JobContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobContext")
            .field("id", &self.job.id)
            .field("attempt", &self.job.attempts)
            .field("token", &self.job.token)
            .finish_non_exhaustive()
    }
}
