use std::time::Duration;

use forebay_core::Class;

/// What is special about one job; all else comes from its class.
///
/// Given to [`JobQueue::enqueue`](crate::JobQueue::enqueue), or left in the request extensions by a layer outside.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct JobOptions {
    pub(crate) class: Option<Class>,
    pub(crate) key: Option<String>,
    pub(crate) delay: Option<Duration>,
    pub(crate) expires_after: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) attempts: Option<u32>,
    pub(crate) result_kept: Option<Duration>,
}

impl JobOptions {
    /// Makes options without anything special.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the class, instead of the one in the request extensions.
    #[must_use]
    pub const fn class(mut self, class: Class) -> Self {
        self.class = Some(class);
        self
    }

    /// Sets the idempotency key: the same key of the same principal is the same job.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets how long the job waits before it may start.
    #[must_use]
    pub const fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// Sets after how long the job is not started any more.
    #[must_use]
    pub const fn expires_after(mut self, after: Duration) -> Self {
        self.expires_after = Some(after);
        self
    }

    /// Sets how long an attempt may take.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets how many attempts the job may have; 0 counts as 1.
    #[must_use]
    pub const fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts);
        self
    }

    /// Sets how long the ended job and its result are kept.
    #[must_use]
    pub const fn result_kept(mut self, kept: Duration) -> Self {
        self.result_kept = Some(kept);
        self
    }
}
