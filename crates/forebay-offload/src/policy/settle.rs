use super::{Cause, Effects, Job, JobId, JobState, Lost, Machine, Renewed, Settled, Verdict, backoff_ms};

impl Machine {
    /// Running => Running, with a later end of the lease. O(log n); not written down, as a reopened store counts all
    /// leases as lost.
    pub(super) fn renew(&mut self, id: JobId, token: u64, ttl_ms: u64) -> Renewed {
        if let Some(lost) = self.lost(id, token) {
            return Renewed::Lost(lost);
        }
        let Some(mut job) = self.take(id) else { return Renewed::Lost(Lost::Unknown) };
        job.until = job.until.max(self.now.saturating_add(ttl_ms));
        self.place(job);
        Renewed::Until(job.until)
    }

    /// Running => Completed | Failed | Scheduled | Ready. O(log n).
    pub(super) fn settle(&mut self, id: JobId, token: u64, verdict: Verdict, effects: &mut Effects) -> Settled {
        if let Some(lost) = self.lost(id, token) {
            // The winner may say it twice.
            return match self.jobs.get(&id) {
                Some(job) if token != 0 && job.settled == token && job.token == token => Settled::Done(job.state),
                _ => Settled::Lost(lost),
            };
        }
        let Some(mut job) = self.take(id) else { return Settled::Lost(Lost::Unknown) };
        job.settled = token;
        let job = match verdict {
            Verdict::Complete { http_status, bytes } => {
                let job = self.answered(job, Some(http_status), bytes);
                self.end(job, JobState::Completed, effects)
            }
            Verdict::Fail { http_status, bytes, cause } => {
                let job = self.answered(job, http_status, bytes);
                self.fail(job, cause, effects)
            }
            Verdict::Retry { http_status, bytes, after_ms, jitter } => {
                job.http_status = http_status.or(job.http_status);
                let run_at = self.now.saturating_add(backoff_ms(job.attempts, after_ms, jitter));
                match hopeless(&job, run_at) {
                    Some(cause) => {
                        let job = self.answered(job, http_status, bytes);
                        self.fail(job, cause, effects)
                    }
                    None => self.wait(job, run_at, effects),
                }
            }
            Verdict::Release { after_ms } => {
                job.attempts = job.attempts.saturating_sub(1);
                let run_at = self.now.saturating_add(after_ms);
                self.wait(job, run_at, effects)
            }
            Verdict::Crash => self.crashed(job, effects),
        };
        Settled::Done(job.state)
    }

    /// Running => Ready after the first crash, Scheduled after a later one, Failed past what the job survives.
    pub(super) fn crashed(&mut self, mut job: Job, effects: &mut Effects) -> Job {
        job.crashes = job.crashes.saturating_add(1);
        if job.crashes > job.max_crashes {
            return self.fail(job, Cause::Crashes, effects);
        }
        // The low bits of an id are random enough to spread jobs that crashed together.
        #[allow(clippy::cast_possible_truncation)]
        let jitter = job.id.as_u128() as u32;
        let pause = if job.crashes == 1 { 0 } else { backoff_ms(job.crashes - 1, 0, jitter) };
        let run_at = self.now.saturating_add(pause);
        match hopeless(&job, run_at) {
            Some(cause) => self.fail(job, cause, effects),
            None => self.wait(job, run_at, effects),
        }
    }

    fn fail(&mut self, mut job: Job, cause: Cause, effects: &mut Effects) -> Job {
        job.cause = Some(cause);
        self.end(job, JobState::Failed, effects)
    }

    const fn answered(&mut self, mut job: Job, http_status: Option<u16>, bytes: u64) -> Job {
        if http_status.is_some() {
            job.http_status = http_status;
        }
        job.response_bytes = bytes;
        self.stats.stored_bytes += bytes;
        job
    }

    /// Says why this token does not hold the job, if it does not.
    fn lost(&self, id: JobId, token: u64) -> Option<Lost> {
        match self.jobs.get(&id) {
            None => Some(Lost::Unknown),
            Some(job) if job.state == JobState::Cancelled => Some(Lost::Cancelled),
            Some(job) if job.state != JobState::Running || job.token != token => Some(Lost::Taken),
            Some(_) => None,
        }
    }
}

fn hopeless(job: &Job, run_at: u64) -> Option<Cause> {
    if job.attempts >= job.max_attempts {
        Some(Cause::Attempts)
    } else if run_at >= job.expires {
        Some(Cause::TooLate)
    } else {
        None
    }
}
