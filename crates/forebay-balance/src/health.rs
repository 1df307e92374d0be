use std::time::Duration;

/// An HTTP health check: `GET` of a path of each endpoint.
///
/// Without checks an endpoint takes requests as soon as it is there. With them it gets none before its first success
/// (servers of large models load for minutes), then until [`down`](Self::down) failures running, and again after
/// [`up`](Self::up) successes running. A check fails that has another status, or no answer in time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[must_use]
pub struct HttpCheck {
    pub(crate) path: String,
    pub(crate) statuses: std::ops::RangeInclusive<u16>,
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub(crate) interval: Duration,
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub(crate) timeout: Duration,
    pub(crate) up: u8,
    pub(crate) down: u8,
}

impl Default for HttpCheck {
    /// A check of `/health`.
    fn default() -> Self {
        Self::new("/health")
    }
}

impl HttpCheck {
    /// A check of this path, such as `/health`, behind the path of the endpoint's URL.
    pub fn new(path: impl Into<String>) -> Self {
        let seconds = Duration::from_secs;
        Self { path: path.into(), statuses: 200..=299, interval: seconds(5), timeout: seconds(1), up: 2, down: 3 }
    }

    /// The statuses that are good. Default 200 to 299.
    pub const fn statuses(mut self, statuses: std::ops::RangeInclusive<u16>) -> Self {
        self.statuses = statuses;
        self
    }

    /// How long after a check the next one begins, give or take a fifth. Default 5 s.
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How long an answer may take. Default 1 s.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many successes running bring an endpoint back, at least 1. Default 2.
    pub const fn up(mut self, successes: u8) -> Self {
        self.up = successes;
        self
    }

    /// How many failures running take it out, at least 1. Default 3.
    pub const fn down(mut self, failures: u8) -> Self {
        self.down = failures;
        self
    }

    pub(crate) fn check(&self, problems: &mut Vec<String>) {
        check_path("health.path", &self.path, problems);
        for (name, time) in [("interval", self.interval), ("timeout", self.timeout)] {
            if time.is_zero() {
                problems.push(format!("health.{name} is 0: more than 0"));
            }
        }
        for (name, count) in [("up", self.up), ("down", self.down)] {
            if count == 0 {
                problems.push(format!("health.{name} is 0: at least 1"));
            }
        }
        if self.statuses.is_empty() {
            problems.push(format!("health.statuses is {:?}: not empty", self.statuses));
        }
    }
}

pub(crate) fn check_path(name: &str, path: &str, problems: &mut Vec<String>) {
    if !path.starts_with('/') || path.parse::<http::uri::PathAndQuery>().is_err() {
        problems.push(format!("{name} is {path:?}: a path such as \"/health\""));
    }
}
