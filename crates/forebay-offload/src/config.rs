use std::time::Duration;

use forebay_core::Class;
use http::HeaderName;

use crate::policy::JobClass;

/// The settings of a queue, shared by its layer, workers and router.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OffloadConfig {
    /// Where the [`JobRouter`](crate::JobRouter) is mounted: an absolute path without a slash at its end.
    pub path: String,
    /// What each class means, by its index.
    pub classes: [JobClass; Class::COUNT],
    /// The largest request body that becomes a job, in bytes.
    pub max_request_body: usize,
    /// How long a request body may take to arrive.
    pub body_timeout: Duration,
    /// The largest response body that is kept, in bytes.
    pub max_result: usize,
    /// What all stored requests and responses may take together, in bytes.
    pub max_stored_bytes: u64,
    /// Header fields that are stored although they are not by default (see [what is not](crate#what-is-not-stored)).
    pub keep_headers: Vec<HeaderName>,
    /// How long an idempotency key is remembered, at least.
    pub key_kept: Duration,
    /// How long a failed job is kept.
    pub dead_kept: Duration,
    /// The longest that a status or result request may wait.
    pub max_wait: Duration,
    /// Requests that may wait at the same time; others are answered at once.
    pub max_watchers: usize,
}

impl Default for OffloadConfig {
    fn default() -> Self {
        Self {
            path: "/jobs".to_owned(),
            classes: std::array::from_fn(|class| JobClass::of(Class::new(u8::try_from(class).unwrap_or(u8::MAX)))),
            max_request_body: 1 << 20,
            body_timeout: Duration::from_secs(30),
            max_result: 16 << 20,
            max_stored_bytes: 16 << 30,
            keep_headers: Vec::new(),
            key_kept: Duration::from_secs(24 * 3_600),
            dead_kept: Duration::from_secs(7 * 24 * 3_600),
            max_wait: Duration::from_secs(60),
            max_watchers: 10_000,
        }
    }
}

impl OffloadConfig {
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let path = &self.path;
        let plain = path.starts_with('/')
            && path.len() > 1
            && !path.ends_with('/')
            && path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'"' | b'<' | b'>'));
        if !plain {
            problems.push(format!("path = {path:?}: must be an absolute path without query and slash at its end"));
        }
        if self.body_timeout.is_zero() {
            problems.push("body_timeout = 0: must be more than zero".to_owned());
        }
        for (index, class) in self.classes.iter().enumerate() {
            if class.attempts == 0 {
                problems.push(format!("classes[{index}].attempts = 0: must be at least 1"));
            }
            if class.share_thousandths > 1_000 {
                problems.push(format!(
                    "classes[{index}].share_thousandths = {}: must be 0 to 1000",
                    class.share_thousandths
                ));
            }
            for (name, value) in [("expires_after", class.expires_after), ("attempt_timeout", class.attempt_timeout)] {
                if value.is_zero() {
                    problems.push(format!("classes[{index}].{name} = 0: must be more than zero"));
                }
            }
        }
        problems
    }
}
