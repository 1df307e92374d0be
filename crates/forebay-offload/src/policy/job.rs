use forebay_core::Class;

use super::{JobId, JobSpec, KeyTag, OwnerTag};

/// Where a job is in its life; it is in exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobState {
    /// Waits for its run time: delayed by the caller, or between two attempts.
    Scheduled,
    /// Waits for a worker.
    Ready,
    /// Is leased to a worker.
    Running,
    /// Ended with an answer, whatever its HTTP status.
    Completed,
    /// Ended without an answer that counts; the request is kept and may be requeued.
    Failed,
    /// Ended by its caller.
    Cancelled,
    /// Ended because it did not start in time.
    Expired,
}

impl JobState {
    /// Says whether the job's life is over.
    #[must_use]
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::Expired)
    }

    /// Says whether the job waits for its time or for a worker.
    #[must_use]
    pub const fn is_waiting(self) -> bool {
        matches!(self, Self::Scheduled | Self::Ready)
    }

    /// Returns the word of the status document.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Ready => "queued",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

/// Why a job failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The verdict on an attempt was final.
    Refused,
    /// All attempts were used up.
    Attempts,
    /// The next attempt would have started after the job's expiry.
    TooLate,
    /// Workers died over it too often: a panic or a lost lease each time.
    Crashes,
    /// The response was larger than a result may be.
    TooLarge,
    /// The stored record could not be read.
    Corrupt,
}

impl Cause {
    /// Returns the word of the status document.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Attempts => "attempts-used-up",
            Self::TooLate => "too-late-to-retry",
            Self::Crashes => "too-many-crashes",
            Self::TooLarge => "result-too-large",
            Self::Corrupt => "record-corrupt",
        }
    }
}

/// All that the index knows of a job; times are wall-clock milliseconds since 1970.
///
/// Request and response are not in it: they lie in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// Its priority.
    pub class: Class,
    /// Whose it is; `None` for a caller without a principal, who then holds a capability token.
    pub owner: Option<OwnerTag>,
    /// Its idempotency key.
    pub key: Option<KeyTag>,
    /// Where it is in its life.
    pub state: JobState,
    /// Why it failed, if it did.
    pub cause: Option<Cause>,
    /// HTTP status of its last answer.
    pub http_status: Option<u16>,
    /// Attempts started and not given back.
    pub attempts: u32,
    /// Attempts that ended with a panic or a lost lease.
    pub crashes: u32,
    /// Attempts it may have.
    pub max_attempts: u32,
    /// Crashes it survives.
    pub max_crashes: u32,
    /// Fencing token of its newest claim; 0 before the first.
    pub token: u64,
    /// The last token that settled it: a repeated settle is recognised by it.
    pub settled: u64,
    /// When it was enqueued.
    pub created: u64,
    /// When it should have started: its place in the order of its class, kept across retries.
    pub due: u64,
    /// When it may start.
    pub run_at: u64,
    /// When it no longer starts.
    pub expires: u64,
    /// When its newest attempt started.
    pub started: Option<u64>,
    /// When its life ended.
    pub ended: Option<u64>,
    /// The end of the lease while running; the end of retention once ended.
    pub until: u64,
    /// How long an attempt may take.
    pub timeout_ms: u64,
    /// How long it is kept once ended.
    pub kept_ms: u64,
    /// How long it is kept once failed.
    pub dead_kept_ms: u64,
    /// Bytes of its request in the store.
    pub request_bytes: u64,
    /// Bytes of its response in the store.
    pub response_bytes: u64,
}

impl Job {
    /// Makes a job as it is when it arrives.
    pub(crate) fn first(spec: &JobSpec, now_ms: u64) -> Self {
        let expires = now_ms.saturating_add(spec.expires_after_ms);
        Self {
            id: spec.id,
            class: spec.class,
            owner: spec.owner,
            key: spec.key.map(|key| key.key),
            state: JobState::Ready,
            cause: None,
            http_status: None,
            attempts: 0,
            crashes: 0,
            max_attempts: spec.max_attempts.max(1),
            max_crashes: spec.max_crashes,
            token: 0,
            settled: 0,
            created: now_ms,
            due: now_ms.saturating_add(spec.target_ms).min(expires),
            run_at: now_ms,
            expires,
            started: None,
            ended: None,
            until: 0,
            timeout_ms: spec.timeout_ms,
            kept_ms: spec.kept_ms,
            dead_kept_ms: spec.dead_kept_ms,
            request_bytes: spec.bytes,
            response_bytes: 0,
        }
    }
}
