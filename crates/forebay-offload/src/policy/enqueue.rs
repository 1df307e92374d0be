use super::{Bounds, Effects, Enqueued, Job, JobSpec, KeyClaim, KeyRecord, Machine};

impl Machine {
    /// none => Scheduled | Ready, or refused. O(log n).
    pub(super) fn enqueue(&mut self, spec: &JobSpec, bounds: Bounds, effects: &mut Effects) -> Enqueued {
        // An enqueue repeated after an unknown outcome finds its own job.
        if let Some(job) = self.jobs.get(&spec.id) {
            return Enqueued::Existing(*job);
        }
        if let Some(known) = spec.key.and_then(|key| self.known(&key)) {
            return known;
        }
        let class = spec.class.index();
        self.stats.offered[class] += 1;
        if !self.has_room(spec, bounds) {
            self.stats.refused[class] += 1;
            return Enqueued::Full { retry_after_s: self.retry_after_s(spec.class) };
        }
        let job = Job::first(spec, self.now);
        self.stats.stored_bytes += spec.bytes;
        if let Some(key) = spec.key {
            self.remember(&key, &job, effects);
        }
        Enqueued::New(self.wait(job, self.now.saturating_add(spec.delay_ms), effects))
    }

    fn has_room(&self, spec: &JobSpec, bounds: Bounds) -> bool {
        let of_owner = spec.owner.and_then(|owner| self.waiting_of.get(&(owner, spec.class))).copied().unwrap_or(0);
        self.stats.waiting[spec.class.index()] < bounds.backlog
            && of_owner < bounds.backlog_per_owner
            && self.stats.stored_bytes.saturating_add(spec.bytes) <= bounds.stored_bytes
    }

    fn known(&self, claim: &KeyClaim) -> Option<Enqueued> {
        let known = self.keys.get(&claim.key).filter(|known| known.until > self.now)?;
        Some(match self.jobs.get(&known.id) {
            _ if known.fingerprint != claim.fingerprint => Enqueued::Mismatch,
            Some(job) => Enqueued::Existing(*job),
            None => Enqueued::Gone,
        })
    }

    fn remember(&mut self, claim: &KeyClaim, job: &Job, effects: &mut Effects) {
        // A key outlives the last start of its job: otherwise the same key could make a second run.
        let until = self.now.saturating_add(claim.kept_ms).max(job.expires);
        let record = KeyRecord { id: job.id, fingerprint: claim.fingerprint, until };
        if let Some(old) = self.keys.insert(claim.key, record) {
            self.key_ends.remove(&(old.until, claim.key));
        }
        self.key_ends.insert((until, claim.key));
        effects.keys.push(claim.key);
    }
}
