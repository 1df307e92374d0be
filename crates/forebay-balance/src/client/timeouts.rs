use std::time::Duration;

/// The times that an endpoint is given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// The time for a connection to come about.
    pub(crate) connect: Duration,
    /// Between two frames of an answer's body.
    pub(crate) idle: Duration,
}

impl Timeouts {
    pub(crate) fn validate(self, problems: &mut Vec<String>) {
        for (name, timeout) in [("connect_timeout", self.connect), ("idle_timeout", self.idle)] {
            if timeout.is_zero() {
                problems.push(format!("{name} is 0: must be more than 0"));
            }
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(1), idle: Duration::from_secs(120) }
    }
}
