use super::{Effects, JobId, JobState, Machine, Swept};
use std::collections::BTreeSet;

/// Jobs of each kind that one command moves because their time has come.
const MAX_DUE: usize = 256;
/// Lost leases that one command takes back.
const MAX_LOST: usize = 64;

impl Machine {
    /// Does what is due at this time, a bounded part of it, and forgets what was kept long enough.
    pub(super) fn sweep(&mut self, effects: &mut Effects) -> Swept {
        let mut swept = self.tidy(effects);
        for index in [|m: &Self| &m.ended, |m: &Self| &m.dead] as [fn(&Self) -> &BTreeSet<(u64, JobId)>; 2] {
            let (over, more) = due(index(self), self.now, MAX_DUE);
            swept.add(over.len(), more);
            for id in over {
                self.forget(id, effects);
            }
        }
        let mut keys = 0;
        while keys < MAX_DUE
            && let Some(&(until, key)) = self.key_ends.first()
            && until <= self.now
        {
            self.key_ends.pop_first();
            self.keys.remove(&key);
            effects.keys.push(key);
            keys += 1;
        }
        swept.more |= keys == MAX_DUE;
        swept
    }

    /// Scheduled => Ready, Running => lost, waiting => Expired, where the time has come.
    pub(super) fn tidy(&mut self, effects: &mut Effects) -> Swept {
        let mut swept = Swept::default();
        let (over, more) = due(&self.expiry, self.now, MAX_DUE);
        swept.add(over.len(), more);
        for id in over {
            if let Some(job) = self.take(id) {
                self.end(job, JobState::Expired, effects);
            }
        }
        let (over, more) = due(&self.scheduled, self.now, MAX_DUE);
        swept.add(over.len(), more);
        for id in over {
            if let Some(job) = self.take(id) {
                let run_at = job.run_at;
                self.wait(job, run_at, effects);
            }
        }
        let (over, more) = due(&self.leases, self.now, MAX_LOST);
        swept.add(over.len(), more);
        for id in over {
            if let Some(job) = self.take(id) {
                self.crashed(job, effects);
            }
        }
        while let Some(&(until, nonce)) = self.nonce_ends.first()
            && until <= self.now
        {
            self.nonce_ends.pop_first();
            self.nonces.remove(&nonce);
        }
        swept
    }

    /// Running => as after a crash, for all running jobs: whoever ran them is gone. O(k log n), k not bounded.
    pub(super) fn lose_leases(&mut self, effects: &mut Effects) -> Swept {
        let mut swept = Swept::default();
        for (_, id) in std::mem::take(&mut self.leases) {
            swept.moved += 1;
            if let Some(job) = self.take(id) {
                self.crashed(job, effects);
            }
        }
        swept
    }
}

impl Swept {
    const fn add(&mut self, moved: usize, more: bool) {
        self.moved += moved as u64;
        self.more |= more;
    }
}

fn due(index: &BTreeSet<(u64, JobId)>, now: u64, max: usize) -> (Vec<JobId>, bool) {
    let mut over = index.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id);
    let ids = over.by_ref().take(max).collect();
    (ids, over.next().is_some())
}
