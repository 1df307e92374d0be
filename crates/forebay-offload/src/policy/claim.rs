use forebay_core::Class;

use super::{Claim, Claimed, Effects, Job, JobId, JobState, Machine, machine::Answered};

/// Jobs in one answer, at most.
const MAX_JOBS: u32 = 256;
/// Credit that a class may save up, in thousandths of a job.
const MAX_CREDIT: u32 = 8_000;

impl Machine {
    /// Ready => Running, for up to `max` jobs, most urgent class first, a share for the others. O(k log n).
    pub(super) fn claim(&mut self, ask: &Claim, effects: &mut Effects) -> Claimed {
        if let Some(answered) = self.nonces.get(&ask.nonce) {
            return self.again(answered, ask);
        }
        self.tidy(effects);
        let plan = self.plan(ask);
        let mut jobs = Vec::new();
        if plan.iter().any(|&n| n > 0) {
            self.epoch += 1;
            for (class, &count) in plan.iter().enumerate() {
                for _ in 0..count {
                    let Some(&(_, id)) = self.ready[class].first() else { break };
                    jobs.extend(self.lease(id, ask.ttl_ms, effects));
                }
            }
            let ids = jobs.iter().map(|job| job.id).collect();
            self.nonces.insert(ask.nonce, Answered { token: self.epoch, ids });
            self.nonce_ends.insert((self.now.saturating_add(ask.ttl_ms), ask.nonce));
        }
        self.claimed(jobs, ask)
    }

    fn lease(&mut self, id: JobId, ttl_ms: u64, effects: &mut Effects) -> Option<Job> {
        let mut job = self.take(id)?;
        job.state = JobState::Running;
        job.attempts = job.attempts.saturating_add(1);
        job.token = self.epoch;
        job.started = Some(self.now);
        job.until = self.now.saturating_add(ttl_ms);
        effects.saved.push(id);
        self.place(job);
        Some(job)
    }

    fn again(&self, answered: &Answered, ask: &Claim) -> Claimed {
        let held = |id: &JobId| {
            self.jobs.get(id).filter(|job| job.state == JobState::Running && job.token == answered.token).copied()
        };
        self.claimed(answered.ids.iter().filter_map(held).collect(), ask)
    }

    fn claimed(&self, jobs: Vec<Job>, ask: &Claim) -> Claimed {
        let more = (0..Class::COUNT).any(|class| ask.classes[class] && !self.ready[class].is_empty());
        let next = [&self.scheduled, &self.leases].into_iter().filter_map(|index| Some(index.first()?.0)).min();
        Claimed { jobs, more, next_at: next }
    }

    /// Says how many jobs of each class a claim gets.
    ///
    /// Each class saves credit for its share of the places, and loses it when it has nothing waiting. Credit is spent
    /// first, most urgent class first; the rest goes strictly by class, and what a class gets that way is paid from
    /// its credit too. Integers throughout, so that other implementations can be compared exactly.
    fn plan(&mut self, ask: &Claim) -> [u32; Class::COUNT] {
        let max = ask.max.min(MAX_JOBS);
        let mut left = max;
        let mut plan = [0; Class::COUNT];
        let waiting = |machine: &Self, class: usize| u32::try_from(machine.ready[class].len()).unwrap_or(u32::MAX);
        for class in (0..Class::COUNT).filter(|&class| ask.classes[class]) {
            let ready = waiting(self, class);
            let credit = &mut self.credit[class];
            *credit = if ready == 0 { 0 } else { (*credit + ask.shares[class].min(1_000) * max).min(MAX_CREDIT) };
            plan[class] = (*credit / 1_000).min(ready).min(left);
            *credit -= 1_000 * plan[class];
            left -= plan[class];
        }
        for class in (0..Class::COUNT).filter(|&class| ask.classes[class]) {
            let more = (waiting(self, class) - plan[class]).min(left);
            self.credit[class] = self.credit[class].saturating_sub(1_000 * more);
            plan[class] += more;
            left -= more;
        }
        plan
    }
}
