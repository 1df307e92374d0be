//! The life of jobs as a list that is scanned: slow, and plain enough to be believed.

use std::collections::HashMap;

use forebay_offload::policy::{
    Cancelled, Claim, Command, Enqueued, Erased, JobId, JobSpec, JobState, KeyTag, Lost, Machine, OwnerTag, Renewed,
    Reply, Settled, Verdict, backoff_ms,
};

#[derive(Clone, Debug)]
struct Item {
    id: JobId,
    class: usize,
    owner: Option<OwnerTag>,
    state: JobState,
    attempts: u32,
    crashes: u32,
    token: u64,
    settled: u64,
    due: u64,
    run_at: u64,
    expires: u64,
    until: u64,
    bytes: (u64, u64),
    kept: (u64, u64),
    limits: (u32, u32),
}

#[derive(Default)]
pub(crate) struct Naive {
    items: Vec<Item>,
    keys: HashMap<KeyTag, (JobId, KeyTag, u64)>,
    nonces: HashMap<u128, (u64, Vec<JobId>, u64)>,
    credit: [u32; 16],
    epoch: u64,
}

/// What is compared of a reply.
pub(crate) fn digest(reply: &Reply) -> String {
    match reply {
        Reply::Enqueued(Enqueued::New(job)) => format!("new {}", job.id),
        Reply::Enqueued(Enqueued::Existing(job)) => format!("existing {}", job.id),
        Reply::Enqueued(Enqueued::Mismatch) => "mismatch".into(),
        Reply::Enqueued(Enqueued::Gone) => "gone".into(),
        Reply::Enqueued(Enqueued::Full { .. }) => "full".into(),
        Reply::Claimed(claimed) => {
            format!("{:?}", claimed.jobs.iter().map(|job| (job.id, job.token, job.attempts)).collect::<Vec<_>>())
        }
        Reply::Renewed(renewed) => format!("{renewed:?}"),
        Reply::Settled(settled) => format!("{settled:?}"),
        Reply::Cancelled(Cancelled::Done(job)) => format!("cancelled {}", job.id),
        Reply::Cancelled(Cancelled::Ended(job)) => format!("ended {}", job.id),
        Reply::Cancelled(Cancelled::Unknown) => "unknown".into(),
        Reply::Requeued(job) => format!("requeued {:?}", job.map(|job| job.id)),
        Reply::Erased(erased) => format!("{erased:?}"),
        Reply::Swept(swept) => format!("swept {}", swept.more),
        other => format!("{other:?}"),
    }
}

impl Naive {
    pub(crate) fn apply(&mut self, now: u64, command: &Command) -> String {
        match command {
            Command::Enqueue { spec, bounds } => {
                self.enqueue(now, spec, (bounds.backlog, bounds.backlog_per_owner, bounds.stored_bytes))
            }
            Command::Claim(ask) => self.claim(now, ask),
            Command::Renew { id, token, ttl_ms } => match self.lost(*id, *token) {
                Some(lost) => format!("{:?}", Renewed::Lost(lost)),
                None => {
                    let item = self.item(*id).unwrap();
                    item.until = item.until.max(now + ttl_ms);
                    format!("{:?}", Renewed::Until(item.until))
                }
            },
            Command::Settle { id, token, verdict } => self.settle(now, *id, *token, *verdict),
            Command::Cancel { id } => match self.item(*id) {
                None => "unknown".into(),
                Some(item) if item.state == JobState::Cancelled => format!("cancelled {id}"),
                Some(item) if item.state.is_ended() => format!("ended {id}"),
                Some(item) => {
                    item.end(now, JobState::Cancelled);
                    format!("cancelled {id}")
                }
            },
            Command::Requeue { id, target_ms, expires_after_ms } => match self.item(*id) {
                Some(item) if item.state == JobState::Failed => {
                    (item.attempts, item.crashes, item.state) = (0, 0, JobState::Ready);
                    item.expires = now + expires_after_ms;
                    item.due = (now + target_ms).min(item.expires);
                    item.run_at = now;
                    item.bytes.1 = 0;
                    format!("requeued {:?}", Some(id))
                }
                _ => "requeued None".into(),
            },
            Command::Erase { id } => match self.item(*id) {
                Some(item) if !item.state.is_ended() => format!("{:?}", Erased::Live),
                _ => {
                    self.items.retain(|item| item.id != *id);
                    format!("{:?}", Erased::Done)
                }
            },
            Command::Sweep => {
                self.tidy(now);
                self.items.retain(|item| !(item.state.is_ended() && item.until <= now));
                self.keys.retain(|_, (_, _, until)| *until > now);
                "swept false".into()
            }
            Command::LoseLeases => {
                for item in self.items.iter_mut().filter(|item| item.state == JobState::Running) {
                    item.crash(now);
                }
                "swept false".into()
            }
            other => panic!("the model does not know {other:?}"),
        }
    }

    /// Compares every job and every count.
    pub(crate) fn check(&self, machine: &Machine) {
        assert_eq!(machine.jobs().count(), self.items.len());
        let stats = machine.stats();
        for item in &self.items {
            let job = machine.job(item.id).unwrap();
            assert_eq!(job.state, item.state, "{:?}", item.id);
            assert_eq!(
                (job.attempts, job.crashes, job.token, job.due, job.expires),
                (item.attempts, item.crashes, item.token, item.due, item.expires),
                "{:?}",
                item.id
            );
            if item.state == JobState::Scheduled {
                assert_eq!(job.run_at, item.run_at);
            }
            if !item.state.is_waiting() {
                assert_eq!(job.until, item.until);
            }
        }
        for class in 0..16 {
            let count = |which: fn(JobState) -> bool| {
                self.items.iter().filter(|item| item.class == class && which(item.state)).count() as u64
            };
            assert_eq!(stats.waiting[class], count(JobState::is_waiting));
            assert_eq!(stats.running[class], count(|state| state == JobState::Running));
        }
        assert_eq!(stats.dead, self.items.iter().filter(|item| item.state == JobState::Failed).count() as u64);
        assert_eq!(stats.stored_bytes, self.bytes());
    }

    fn bytes(&self) -> u64 {
        self.items.iter().map(|item| item.bytes.0 + item.bytes.1).sum()
    }

    fn item(&mut self, id: JobId) -> Option<&mut Item> {
        self.items.iter_mut().find(|item| item.id == id)
    }

    fn enqueue(&mut self, now: u64, spec: &JobSpec, (all, own, bytes): (u64, u64, u64)) -> String {
        if self.item(spec.id).is_some() {
            return format!("existing {}", spec.id);
        }
        if let Some(key) = &spec.key
            && let Some(&(id, print, until)) = self.keys.get(&key.key)
            && until > now
        {
            return match self.item(id) {
                _ if print != key.fingerprint => "mismatch".into(),
                Some(_) => format!("existing {id}"),
                None => "gone".into(),
            };
        }
        let waiting: Vec<_> = self
            .items
            .iter()
            .filter(|item| item.state.is_waiting() && item.class == spec.class.index())
            .map(|item| item.owner)
            .collect();
        let of_owner = waiting.iter().filter(|owner| owner.is_some() && **owner == spec.owner).count() as u64;
        if waiting.len() as u64 >= all || of_owner >= own || self.bytes() + spec.bytes > bytes {
            return "full".into();
        }
        let expires = now + spec.expires_after_ms;
        if let Some(key) = &spec.key {
            self.keys.insert(key.key, (spec.id, key.fingerprint, (now + key.kept_ms).max(expires)));
        }
        let mut item = Item {
            id: spec.id,
            class: spec.class.index(),
            owner: spec.owner,
            state: JobState::Ready,
            attempts: 0,
            crashes: 0,
            token: 0,
            settled: 0,
            due: (now + spec.target_ms).min(expires),
            run_at: 0,
            expires,
            until: 0,
            bytes: (spec.bytes, 0),
            kept: (spec.kept_ms, spec.dead_kept_ms),
            limits: (spec.max_attempts, spec.max_crashes),
        };
        item.wait(now, now + spec.delay_ms);
        self.items.push(item);
        format!("new {}", spec.id)
    }

    fn claim(&mut self, now: u64, ask: &Claim) -> String {
        if let Some((token, ids, _)) = self.nonces.get(&ask.nonce).cloned() {
            let held: Vec<_> = ids
                .iter()
                .filter_map(|id| {
                    let item = self.items.iter().find(|item| item.id == *id)?;
                    (item.state == JobState::Running && item.token == token).then_some((*id, token, item.attempts))
                })
                .collect();
            return format!("{held:?}");
        }
        self.tidy(now);
        let mut taken = Vec::new();
        for class in (0..16).filter(|&class| ask.classes[class]) {
            if !self.items.iter().any(|item| item.state == JobState::Ready && item.class == class) {
                self.credit[class] = 0;
            } else if self.next(class, ask, &taken).is_some() {
                let more = (0..=class).map(|class| self.room(class, ask, &taken)).min().unwrap().min(ask.max.into());
                self.credit[class] = (self.credit[class] + ask.shares[class] * more as u32).min(8_000);
            }
            while self.credit[class] >= 1_000
                && taken.len() < ask.max as usize
                && let Some(id) = self.next(class, ask, &taken)
            {
                self.credit[class] -= 1_000;
                taken.push(id);
            }
        }
        for class in (0..16).filter(|&class| ask.classes[class]) {
            while taken.len() < ask.max as usize
                && let Some(id) = self.next(class, ask, &taken)
            {
                self.credit[class] = self.credit[class].saturating_sub(1_000);
                taken.push(id);
            }
        }
        if taken.is_empty() {
            return "[]".into();
        }
        self.epoch += 1;
        let token = self.epoch;
        let mut claimed = Vec::new();
        for class in 0..16 {
            for id in &taken {
                let item = self.item(*id).unwrap();
                if item.class == class {
                    item.state = JobState::Running;
                    item.attempts += 1;
                    item.token = token;
                    item.until = now + ask.ttl_ms;
                    claimed.push((*id, token, item.attempts));
                }
            }
        }
        let ids = claimed.iter().map(|(id, _, _)| *id).collect();
        self.nonces.insert(ask.nonce, (token, ids, now + ask.ttl_ms));
        format!("{claimed:?}")
    }

    /// Returns the job of the class that starts next, if the jobs already taken leave room for one.
    fn next(&self, class: usize, ask: &Claim, taken: &[JobId]) -> Option<JobId> {
        if (0..=class).any(|class| self.room(class, ask, taken) == 0) {
            return None;
        }
        let of_owner = |owner: Option<OwnerTag>| {
            let held: u64 = ask.held.iter().filter(|(of, _)| *of == owner).map(|(_, held)| u64::from(*held)).sum();
            held + self.items.iter().filter(|item| taken.contains(&item.id) && item.owner == owner).count() as u64
        };
        let ready = self.items.iter().filter(|item| item.state == JobState::Ready && item.class == class);
        ready
            .filter(|item| !taken.contains(&item.id))
            .filter(|item| item.owner.is_none() || of_owner(item.owner) < u64::from(ask.max_per_owner))
            .map(|item| (item.due, item.id))
            .min()
            .map(|(_, id)| id)
    }

    /// Returns how many more jobs of the class and the less urgent ones together may be taken.
    fn room(&self, class: usize, ask: &Claim, taken: &[JobId]) -> u64 {
        let counted = self.items.iter().filter(|item| taken.contains(&item.id) && item.class >= class).count() as u64;
        u64::from(ask.room[class]).saturating_sub(counted)
    }

    fn settle(&mut self, now: u64, id: JobId, token: u64, verdict: Verdict) -> String {
        if let Some(lost) = self.lost(id, token) {
            return match self.item(id) {
                Some(item) if token != 0 && item.settled == token && item.token == token => {
                    format!("{:?}", Settled::Done(item.state))
                }
                _ => format!("{:?}", Settled::Lost(lost)),
            };
        }
        let item = self.item(id).unwrap();
        item.settled = token;
        match verdict {
            Verdict::Complete { bytes, .. } => {
                item.bytes.1 = bytes;
                item.end(now, JobState::Completed);
            }
            Verdict::Fail { bytes, .. } => {
                item.bytes.1 = bytes;
                item.end(now, JobState::Failed);
            }
            Verdict::Retry { bytes, after_ms, jitter, .. } => {
                let at = now + backoff_ms(item.attempts, after_ms, jitter);
                if item.attempts >= item.limits.0 || at >= item.expires {
                    item.bytes.1 = bytes;
                    item.end(now, JobState::Failed);
                } else {
                    item.wait(now, at);
                }
            }
            Verdict::Release { after_ms } => {
                item.attempts -= 1;
                item.wait(now, now + after_ms);
            }
            _ => item.crash(now),
        }
        format!("{:?}", Settled::Done(item.state))
    }

    fn lost(&self, id: JobId, token: u64) -> Option<Lost> {
        match self.items.iter().find(|item| item.id == id) {
            None => Some(Lost::Unknown),
            Some(item) if item.state == JobState::Cancelled => Some(Lost::Cancelled),
            Some(item) if item.state == JobState::Running && item.token == token => None,
            Some(_) => Some(Lost::Taken),
        }
    }

    fn tidy(&mut self, now: u64) {
        for item in &mut self.items {
            match item.state {
                JobState::Scheduled | JobState::Ready if item.expires <= now => item.end(now, JobState::Expired),
                JobState::Scheduled if item.run_at <= now => item.state = JobState::Ready,
                JobState::Running if item.until <= now => item.crash(now),
                _ => {}
            }
        }
        self.nonces.retain(|_, (_, _, until)| *until > now);
    }
}

impl Item {
    fn wait(&mut self, now: u64, at: u64) {
        self.run_at = at;
        self.state = if at > now { JobState::Scheduled } else { JobState::Ready };
    }

    fn end(&mut self, now: u64, state: JobState) {
        self.state = state;
        self.until = now + if state == JobState::Failed { self.kept.1 } else { self.kept.0 };
        if state != JobState::Failed {
            self.bytes.0 = 0;
        }
        if state == JobState::Cancelled {
            self.settled = 0;
        }
    }

    fn crash(&mut self, now: u64) {
        self.crashes += 1;
        let pause = match self.crashes {
            1 => 0,
            crashes => backoff_ms(crashes - 1, 0, self.id.as_u128() as u32),
        };
        if self.crashes > self.limits.1 || self.attempts >= self.limits.0 || now + pause >= self.expires {
            self.end(now, JobState::Failed);
        } else {
            self.wait(now, now + pause);
        }
    }
}
