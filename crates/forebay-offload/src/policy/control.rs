use super::{Cancelled, Effects, Erased, Job, JobId, JobState, Machine};

impl Machine {
    /// Scheduled | Ready | Running => Cancelled; a running job's token is void at once. O(log n).
    pub(super) fn cancel(&mut self, id: JobId, effects: &mut Effects) -> Cancelled {
        match self.jobs.get(&id) {
            None => Cancelled::Unknown,
            Some(job) if job.state == JobState::Cancelled => Cancelled::Done(*job),
            Some(job) if job.state.is_ended() => Cancelled::Ended(*job),
            Some(_) => match self.take(id) {
                Some(mut job) => {
                    job.settled = 0;
                    Cancelled::Done(self.end(job, JobState::Cancelled, effects))
                }
                None => Cancelled::Unknown,
            },
        }
    }

    /// Failed => Ready, as if new, in the name of the same job. O(log n).
    pub(super) fn requeue(
        &mut self,
        id: JobId,
        target_ms: u64,
        expires_after_ms: u64,
        effects: &mut Effects,
    ) -> Option<Job> {
        if self.jobs.get(&id)?.state != JobState::Failed {
            return None;
        }
        let mut job = self.take(id)?;
        job.attempts = 0;
        job.crashes = 0;
        job.cause = None;
        job.http_status = None;
        job.ended = None;
        job.expires = self.now.saturating_add(expires_after_ms);
        job.due = self.now.saturating_add(target_ms).min(job.expires);
        self.stats.stored_bytes -= job.response_bytes;
        job.response_bytes = 0;
        Some(self.wait(job, self.now, effects))
    }

    /// Completed | Failed | Cancelled | Expired => forgotten; its key lives to its own end. O(log n).
    pub(super) fn erase(&mut self, id: JobId, effects: &mut Effects) -> Erased {
        if self.jobs.get(&id).is_some_and(|job| !job.state.is_ended()) {
            return Erased::Live;
        }
        self.forget(id, effects);
        Erased::Done
    }
}
