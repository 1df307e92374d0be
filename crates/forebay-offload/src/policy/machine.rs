use std::collections::{BTreeMap, BTreeSet, HashMap};

use forebay_core::Class;

use super::{Command, Effects, Job, JobId, JobState, KeyTag, OwnerTag, Reply, Stats, rate::Rate, ready::Ready};

/// Failed jobs that a queue keeps; past it the one that would go first goes.
pub(super) const MAX_DEAD: usize = 10_000;

/// The jobs of one queue and their indexes.
#[derive(Debug, Default)]
pub struct Machine {
    pub(super) jobs: HashMap<JobId, Job>,
    /// Ready jobs by owner and by the instant they should have started.
    pub(super) ready: [Ready; Class::COUNT],
    /// Scheduled jobs by their run time.
    pub(super) scheduled: BTreeSet<(u64, JobId)>,
    /// Running jobs by the end of their lease.
    pub(super) leases: BTreeSet<(u64, JobId)>,
    /// Failed jobs by the end of their retention.
    pub(super) dead: BTreeSet<(u64, JobId)>,
    /// Other ended jobs by the end of their retention.
    pub(super) ended: BTreeSet<(u64, JobId)>,
    /// Waiting jobs (ready or scheduled) by their expiry.
    pub(super) expiry: BTreeSet<(u64, JobId)>,
    pub(super) keys: HashMap<KeyTag, KeyRecord>,
    pub(super) key_ends: BTreeSet<(u64, KeyTag)>,
    pub(super) nonces: BTreeMap<u128, Answered>,
    pub(super) nonce_ends: BTreeSet<(u64, u128)>,
    pub(super) waiting_of: HashMap<(OwnerTag, Class), u64>,
    pub(super) credit: [u32; Class::COUNT],
    pub(super) epoch: u64,
    pub(super) stats: Stats,
    pub(super) rate: Rate,
    pub(super) now: u64,
}

/// What a key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRecord {
    /// The job made under the key.
    pub id: JobId,
    /// What the job's request looked like.
    pub fingerprint: KeyTag,
    /// When the key is forgotten, in wall-clock milliseconds.
    pub until: u64,
}

/// A claim that was answered, in case it is asked again.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) token: u64,
    pub(super) ids: Vec<JobId>,
}

impl Machine {
    /// Makes an empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a queue from what was written down; running jobs keep their leases (see [`Command::LoseLeases`]).
    pub fn restore(jobs: impl IntoIterator<Item = Job>, keys: impl IntoIterator<Item = (KeyTag, KeyRecord)>) -> Self {
        let mut machine = Self::new();
        for job in jobs {
            // Tokens grow for each job; the newest in use is a floor for the next.
            machine.epoch = machine.epoch.max(job.token);
            machine.stats.stored_bytes += job.request_bytes + job.response_bytes;
            machine.place(job);
        }
        for (tag, key) in keys {
            machine.key_ends.insert((key.until, tag));
            machine.keys.insert(tag, key);
        }
        machine
    }

    /// Does what the command says, at `now_ms` (wall clock; an earlier time than the last counts as the last).
    pub fn apply(&mut self, now_ms: u64, command: Command) -> (Reply, Effects) {
        self.now = self.now.max(now_ms);
        let mut effects = Effects::default();
        let reply = match command {
            Command::Enqueue { spec, bounds } => Reply::Enqueued(self.enqueue(&spec, bounds, &mut effects)),
            Command::Claim(ask) => Reply::Claimed(self.claim(&ask, &mut effects)),
            Command::Renew { id, token, ttl_ms } => Reply::Renewed(self.renew(id, token, ttl_ms)),
            Command::Settle { id, token, verdict } => Reply::Settled(self.settle(id, token, verdict, &mut effects)),
            Command::Cancel { id } => Reply::Cancelled(self.cancel(id, &mut effects)),
            Command::Requeue { id, target_ms, expires_after_ms } => {
                Reply::Requeued(self.requeue(id, target_ms, expires_after_ms, &mut effects))
            }
            Command::Erase { id } => Reply::Erased(self.erase(id, &mut effects)),
            Command::Sweep => Reply::Swept(self.sweep(&mut effects)),
            Command::LoseLeases => Reply::Swept(self.lose_leases(&mut effects)),
        };
        (reply, effects)
    }

    /// Returns what the index knows of a job.
    #[must_use]
    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    /// Returns what a key stands for.
    #[must_use]
    pub fn key(&self, key: KeyTag) -> Option<&KeyRecord> {
        self.keys.get(&key)
    }

    /// Returns all jobs, in no order.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// Returns the counts of the queue.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// Estimates after how many seconds a job of this class is worth asking for: 1 to 60, 5 if nothing is known.
    #[must_use]
    pub fn retry_after_s(&self, class: Class) -> u64 {
        let ahead = self.stats.waiting[..=class.index()].iter().sum();
        self.rate.wait_s(ahead, self.now)
    }

    /// Puts a job into the index of its state and counts it. O(log n).
    pub(super) fn place(&mut self, job: Job) {
        let class = job.class.index();
        match job.state {
            JobState::Ready => self.ready[class].insert(&job),
            JobState::Scheduled => _ = self.scheduled.insert((job.run_at, job.id)),
            JobState::Running => _ = self.leases.insert((job.until, job.id)),
            JobState::Failed => _ = self.dead.insert((job.until, job.id)),
            JobState::Completed | JobState::Cancelled | JobState::Expired => {
                self.ended.insert((job.until, job.id));
            }
        }
        if job.state.is_waiting() {
            self.expiry.insert((job.expires, job.id));
            self.stats.waiting[class] += 1;
            if let Some(owner) = job.owner {
                *self.waiting_of.entry((owner, job.class)).or_default() += 1;
            }
        }
        self.stats.running[class] += u64::from(job.state == JobState::Running);
        self.stats.dead += u64::from(job.state == JobState::Failed);
        self.jobs.insert(job.id, job);
    }

    /// Takes a job out of the index of its state; the inverse of `place`. O(log n).
    pub(super) fn take(&mut self, id: JobId) -> Option<Job> {
        let job = self.jobs.remove(&id)?;
        let class = job.class.index();
        match job.state {
            JobState::Ready => self.ready[class].remove(&job),
            JobState::Scheduled => _ = self.scheduled.remove(&(job.run_at, id)),
            JobState::Running => _ = self.leases.remove(&(job.until, id)),
            JobState::Failed => _ = self.dead.remove(&(job.until, id)),
            JobState::Completed | JobState::Cancelled | JobState::Expired => {
                self.ended.remove(&(job.until, id));
            }
        }
        if job.state.is_waiting() {
            self.expiry.remove(&(job.expires, id));
            self.stats.waiting[class] -= 1;
            self.leave_owner(&job);
        }
        self.stats.running[class] -= u64::from(job.state == JobState::Running);
        self.stats.dead -= u64::from(job.state == JobState::Failed);
        Some(job)
    }

    fn leave_owner(&mut self, job: &Job) {
        let Some(owner) = job.owner else { return };
        if let Some(count) = self.waiting_of.get_mut(&(owner, job.class)) {
            *count -= 1;
            if *count == 0 {
                self.waiting_of.remove(&(owner, job.class));
            }
        }
    }

    /// Ends the life of a job that was taken out, and puts it back. Ended jobs never change again.
    pub(super) fn end(&mut self, mut job: Job, state: JobState, effects: &mut Effects) -> Job {
        job.state = state;
        job.ended = Some(self.now);
        let kept = if state == JobState::Failed { job.dead_kept_ms } else { job.kept_ms };
        job.until = self.now.saturating_add(kept);
        if state != JobState::Failed {
            // Only a failed job can run again.
            self.stats.stored_bytes -= job.request_bytes;
            job.request_bytes = 0;
            effects.spent.push(job.id);
        }
        self.stats.ended[job.class.index()] += 1;
        self.rate.ended(self.now);
        effects.saved.push(job.id);
        self.place(job);
        if self.dead.len() > MAX_DEAD
            && let Some(&(_, oldest)) = self.dead.first()
        {
            self.forget(oldest, effects);
        }
        job
    }

    /// Lets a job that was taken out wait until `run_at`, and puts it back.
    pub(super) fn wait(&mut self, mut job: Job, run_at: u64, effects: &mut Effects) -> Job {
        job.run_at = run_at;
        job.state = if run_at > self.now { JobState::Scheduled } else { JobState::Ready };
        job.until = 0;
        effects.work |= job.state == JobState::Ready;
        effects.saved.push(job.id);
        self.place(job);
        job
    }

    /// Forgets a job with all that belongs to it.
    pub(super) fn forget(&mut self, id: JobId, effects: &mut Effects) {
        if let Some(job) = self.take(id) {
            self.stats.stored_bytes -= job.request_bytes + job.response_bytes;
            effects.erased.push(id);
        }
    }
}
