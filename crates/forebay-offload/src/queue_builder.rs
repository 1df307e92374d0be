use std::{fmt, time::Duration};

use forebay_core::{Class, ConfigError};
use http::HeaderName;

use crate::{config::OffloadConfig, policy::JobClass, queue::JobQueue, store::DynStore};

/// Collects the settings of a [`JobQueue`].
#[must_use = "a builder does nothing until built"]
pub struct JobQueueBuilder {
    store: Box<dyn DynStore>,
    name: String,
    config: OffloadConfig,
}

impl JobQueueBuilder {
    pub(crate) fn new(store: Box<dyn DynStore>, name: String) -> Self {
        Self { store, name, config: OffloadConfig::default() }
    }

    /// Sets all settings at once.
    pub fn config(mut self, config: OffloadConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets where the router is mounted: `/jobs` unless set.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.config.path = path.into();
        self
    }

    /// Sets what a class means.
    pub fn class(mut self, class: Class, settings: JobClass) -> Self {
        self.config.classes[class.index()] = settings;
        self
    }

    /// Sets the largest request body that becomes a job, in bytes: 1 MiB unless set.
    pub const fn max_request_body(mut self, bytes: usize) -> Self {
        self.config.max_request_body = bytes;
        self
    }

    /// Sets the largest response body that is kept, in bytes: 16 MiB unless set.
    pub const fn max_result(mut self, bytes: usize) -> Self {
        self.config.max_result = bytes;
        self
    }

    /// Sets what all stored requests and responses may take together, in bytes: 16 GiB unless set.
    pub const fn max_stored_bytes(mut self, bytes: u64) -> Self {
        self.config.max_stored_bytes = bytes;
        self
    }

    /// Sets how long a request body may take to arrive: 30 s unless set.
    pub const fn body_timeout(mut self, timeout: Duration) -> Self {
        self.config.body_timeout = timeout;
        self
    }

    /// Adds header fields that are stored although they are not by default, such as `authorization`.
    pub fn keep_headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.config.keep_headers.extend(names);
        self
    }

    /// Makes the queue.
    ///
    /// # Errors
    /// When settings are out of their range; the error names all of them.
    pub fn build(self) -> Result<JobQueue, ConfigError> {
        let Self { store, name, config } = self;
        let mut problems = config.problems();
        if name.is_empty() || name.len() > 100 || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            problems.push(format!("name = {name:?}: must be 1 to 100 visible ASCII characters"));
        }
        ConfigError::check(problems)?;
        Ok(JobQueue::over(store, name, config))
    }
}

impl fmt::Debug for JobQueueBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobQueueBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}
