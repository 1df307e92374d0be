use serde::{Deserialize, Serialize};

/// Settings for request bodies on their way in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Uploads {
    /// How much of a request body is read before its request queues, in bytes. The rest of a longer one streams to the
    /// backend.
    pub collect_max_bytes: u64,
    /// The memory for what was read of all request bodies together, in bytes; beyond it 503.
    pub max_total_bytes: u64,
    /// The part of `max_total_bytes` that one caller may hold, in percent, 1 to 100. A caller is a tenant, or without
    /// keys an address.
    pub max_caller_percent: u8,
    /// How long the part that is read first may take as a whole, and after it each wait for more, in seconds; beyond it
    /// 408.
    pub body_timeout_seconds: u64,
    /// The least speed of the part that streams; slower than that for `body_timeout_seconds`: 408.
    pub min_bytes_per_second: u64,
}

impl Default for Uploads {
    fn default() -> Self {
        Self {
            collect_max_bytes: 1 << 20,
            max_total_bytes: 64 << 20,
            max_caller_percent: 25,
            body_timeout_seconds: 15,
            min_bytes_per_second: 16 << 10,
        }
    }
}

impl Uploads {
    /// The most bytes that one caller may hold.
    pub(crate) fn max_caller_bytes(&self) -> u64 {
        let bytes = u128::from(self.max_total_bytes) * u128::from(self.max_caller_percent.min(100)) / 100;
        u64::try_from(bytes).unwrap_or(u64::MAX) // never more than `max_total_bytes`
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        if !(1..=100).contains(&self.max_caller_percent) {
            problems.push(format!("uploads.max_caller_percent is {}: must be 1 to 100", self.max_caller_percent));
        }
        let (collect, most) = (self.collect_max_bytes, self.max_caller_bytes());
        if most == 0 {
            problems.push(format!(
                "uploads.max_total_bytes is {}: must be large enough for one caller's percentage of it to be 1 byte",
                self.max_total_bytes
            ));
        } else if !(1..=most).contains(&collect) {
            problems
                .push(format!("uploads.collect_max_bytes is {collect}: must be 1 to {most}, as one caller may hold"));
        }
        if self.body_timeout_seconds == 0 {
            problems.push("uploads.body_timeout_seconds is 0: must be at least 1".to_owned());
        }
        if self.min_bytes_per_second == 0 {
            problems.push("uploads.min_bytes_per_second is 0: must be at least 1".to_owned());
        }
    }
}
