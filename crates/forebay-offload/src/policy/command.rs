use forebay_core::Class;

use super::{Cause, JobId, KeyTag, OwnerTag};

/// A new job as the machine needs it; durations in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobSpec {
    /// Its name, made by the caller.
    pub id: JobId,
    /// Its priority.
    pub class: Class,
    /// Whose it is.
    pub owner: Option<OwnerTag>,
    /// Its identity among the owner's jobs, if the caller gave one.
    pub key: Option<KeyClaim>,
    /// How long it waits before it may start.
    pub delay_ms: u64,
    /// After how long it should have started.
    pub target_ms: u64,
    /// After how long it no longer starts.
    pub expires_after_ms: u64,
    /// How long an attempt may take.
    pub timeout_ms: u64,
    /// How long it is kept once ended.
    pub kept_ms: u64,
    /// How long it is kept once failed.
    pub dead_kept_ms: u64,
    /// Attempts it may have, at least 1.
    pub max_attempts: u32,
    /// Crashes it survives.
    pub max_crashes: u32,
    /// Bytes of its stored request.
    pub bytes: u64,
}

impl JobSpec {
    /// Makes the specification of a job with the defaults of its class.
    #[must_use]
    pub fn new(id: JobId, class: Class) -> Self {
        Self::with_class(id, class, &super::JobClass::of(class))
    }

    /// Makes the specification of a job with the given settings of its class.
    #[must_use]
    pub fn with_class(id: JobId, class: Class, settings: &super::JobClass) -> Self {
        let ms = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Self {
            id,
            class,
            owner: None,
            key: None,
            delay_ms: 0,
            target_ms: ms(settings.target),
            expires_after_ms: ms(settings.expires_after),
            timeout_ms: ms(settings.attempt_timeout),
            kept_ms: ms(settings.result_kept),
            dead_kept_ms: 7 * 24 * 3_600_000,
            max_attempts: settings.attempts.max(1),
            max_crashes: 2,
            bytes: 0,
        }
    }
}

/// An idempotency key with what was sent under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyClaim {
    /// The key within its owner.
    pub key: KeyTag,
    /// What the key stands for: the same key with another fingerprint is a mistake.
    pub fingerprint: KeyTag,
    /// How long the key is remembered.
    pub kept_ms: u64,
}

/// What a queue holds at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Waiting jobs of the class.
    pub backlog: u64,
    /// Waiting jobs of the class with the same owner.
    pub backlog_per_owner: u64,
    /// Bytes of all requests and responses in the store.
    pub stored_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { backlog: u64::MAX, backlog_per_owner: u64::MAX, stored_bytes: u64::MAX }
    }
}

/// A worker's question for jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claim {
    /// Names this question: asked again, it gets the same jobs, as far as they are still held.
    pub nonce: u128,
    /// How many jobs, at most 256.
    pub max: u32,
    /// How long the lease of each lasts unless renewed.
    pub ttl_ms: u64,
    /// Which classes are asked for.
    pub classes: [bool; Class::COUNT],
    /// The part of each class in all claimed places, in thousandths.
    pub shares: [u32; Class::COUNT],
    /// The most jobs of each class and all less urgent ones together.
    pub room: [u32; Class::COUNT],
    /// The most jobs that an owner may have at the worker, those in `held` included; jobs without an owner are not bounded.
    pub max_per_owner: u32,
    /// The jobs that each owner has at the worker already; owners that are not named have none.
    pub held: Vec<(Option<OwnerTag>, u32)>,
}

impl Claim {
    /// Asks for `max` jobs of any class and owner, for 10 s, without shares.
    #[must_use]
    pub const fn new(nonce: u128, max: u32) -> Self {
        Self {
            nonce,
            max,
            ttl_ms: 10_000,
            classes: [true; Class::COUNT],
            shares: [0; Class::COUNT],
            room: [u32::MAX; Class::COUNT],
            max_per_owner: u32::MAX,
            held: Vec::new(),
        }
    }
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the fields say what they are by their names, and times their unit
#[non_exhaustive]
pub enum Verdict {
    /// The answer counts; it takes so many bytes.
    Complete { http_status: u16, bytes: u64 },
    /// Worth another attempt, not before `after_ms`; `jitter` is random and spreads the pause.
    Retry { http_status: Option<u16>, bytes: u64, after_ms: u64, jitter: u32 },
    /// Not worth another attempt.
    Fail { http_status: Option<u16>, bytes: u64, cause: Cause },
    /// It never reached the backend: no attempt; ready again after `after_ms`.
    Release { after_ms: u64 },
    /// The worker panicked.
    Crash,
}

/// Something that happens to a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the fields say what they are by their names, and times their unit
#[non_exhaustive]
pub enum Command {
    /// A job arrives; answered by [`Reply::Enqueued`](super::Reply::Enqueued).
    Enqueue { spec: JobSpec, bounds: Bounds },
    /// A worker asks for jobs; answered by [`Reply::Claimed`](super::Reply::Claimed).
    Claim(Claim),
    /// A worker is still at it; answered by [`Reply::Renewed`](super::Reply::Renewed).
    Renew { id: JobId, token: u64, ttl_ms: u64 },
    /// An attempt is over; answered by [`Reply::Settled`](super::Reply::Settled).
    Settle { id: JobId, token: u64, verdict: Verdict },
    /// The caller no longer wants the job; answered by [`Reply::Cancelled`](super::Reply::Cancelled).
    Cancel { id: JobId },
    /// A failed job is tried anew; answered by [`Reply::Requeued`](super::Reply::Requeued).
    Requeue { id: JobId, target_ms: u64, expires_after_ms: u64 },
    /// An ended job is forgotten; answered by [`Reply::Erased`](super::Reply::Erased).
    Erase { id: JobId },
    /// Time has passed; answered by [`Reply::Swept`](super::Reply::Swept).
    Sweep,
    /// All workers are gone: every lease counts as lost; answered by [`Reply::Swept`](super::Reply::Swept).
    LoseLeases,
}
