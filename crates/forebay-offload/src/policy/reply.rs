use forebay_core::Class;

use super::{Job, JobId, JobState, KeyTag};

/// The answer to a [`Command`](super::Command).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// To an enqueue.
    Enqueued(Enqueued),
    /// To a claim.
    Claimed(Claimed),
    /// To a renewal.
    Renewed(Renewed),
    /// To a settle.
    Settled(Settled),
    /// To a cancel.
    Cancelled(Cancelled),
    /// To a requeue: the job as it is now; `None` if there is no such failed job.
    Requeued(Option<Job>),
    /// To an erase.
    Erased(Erased),
    /// To a sweep.
    Swept(Swept),
}

/// What became of a new job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the fields say what they are by their names, and times their unit
#[non_exhaustive]
pub enum Enqueued {
    /// It is accepted.
    New(Job),
    /// It was there already, by its id or its key.
    Existing(Job),
    /// Its key stands for another request.
    Mismatch,
    /// Its key stands for a job that is forgotten already; it is not run a second time.
    Gone,
    /// There is no room; worth another try after so many seconds.
    Full { retry_after_s: u64 },
}

/// Jobs for a worker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Claimed {
    /// The jobs, each running now, under its token.
    pub jobs: Vec<Job>,
    /// True if more jobs of the asked classes are ready, with room at this worker or without.
    pub more: bool,
    /// When the next job gets ready by the passing of time, in wall-clock milliseconds.
    pub next_at: Option<u64>,
}

/// Why a lease is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Lost {
    /// The caller cancelled the job.
    Cancelled,
    /// The job has gone on without this holder.
    Taken,
    /// The job is not there.
    Unknown,
}

/// The answer to a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Renewed {
    /// The lease is good until then, in wall-clock milliseconds.
    Until(u64),
    /// The lease is over: stop.
    Lost(Lost),
}

/// The answer to a settle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settled {
    /// It counts; the job is in this state now.
    Done(JobState),
    /// It does not count: somebody else holds the job, or nobody.
    Lost(Lost),
}

/// The answer to a cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cancelled {
    /// The job is cancelled, now or already.
    Done(Job),
    /// The job had ended otherwise.
    Ended(Job),
    /// There is no such job.
    Unknown,
}

/// The answer to an erase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Erased {
    /// The job is forgotten, now or already.
    Done,
    /// The job has not ended.
    Live,
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Swept {
    /// Jobs that changed or went.
    pub moved: u64,
    /// Whether there is more to do at once: a sweep moves a bounded number.
    pub more: bool,
}

/// What a store has to write down after a command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Effects {
    /// Jobs that changed.
    pub saved: Vec<JobId>,
    /// Jobs whose request is not needed any more.
    pub spent: Vec<JobId>,
    /// Jobs that are forgotten, with request and response.
    pub erased: Vec<JobId>,
    /// Keys that changed or went.
    pub keys: Vec<KeyTag>,
    /// Whether a job may be ready that was not: workers should look.
    pub work: bool,
}

impl Effects {
    /// Nothing to write down, but another worker should look: a claim has left ready jobs.
    #[must_use]
    pub fn work_left() -> Self {
        Self { work: true, ..Self::default() }
    }

    /// Says whether there is anything to write down.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.saved.is_empty() && self.spent.is_empty() && self.erased.is_empty() && self.keys.is_empty()
    }
}

/// Counts of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Waiting jobs, ready or scheduled, by class.
    pub waiting: [u64; Class::COUNT],
    /// Running jobs by class.
    pub running: [u64; Class::COUNT],
    /// Jobs ever offered, by class; since the store was opened.
    pub offered: [u64; Class::COUNT],
    /// Jobs ever ended, by class; since the store was opened.
    pub ended: [u64; Class::COUNT],
    /// Jobs refused for want of room, by class; since the store was opened.
    pub refused: [u64; Class::COUNT],
    /// Failed jobs that are kept.
    pub dead: u64,
    /// Bytes of all stored requests and responses.
    pub stored_bytes: u64,
}
