use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
};

use forebay_core::Class;

use super::{
    Changed, JobStore, LeaseRef, Leased, LeasedJobs, NewJob, Settle, StoreError, StoredRequest, StoredResponse,
    Watchers, lock,
};
use crate::{
    clock::Clock,
    policy::{
        Cancelled, Claim, Command, Effects, Enqueued, Erased, Job, JobId, Machine, Renewed, Reply, Settled, Stats,
        Swept,
    },
    random,
};

/// Keeps jobs in memory: fast, and gone with the process.
///
/// For tests, and where a lost job is only a request to be sent again. Clones share the jobs.
#[derive(Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    clock: Clock,
    queues: Mutex<HashMap<String, Queue>>,
}

struct Queue {
    machine: Machine,
    requests: HashMap<JobId, StoredRequest>,
    responses: HashMap<JobId, StoredResponse>,
    watchers: Arc<Watchers>,
    /// What the watchers are told once the lock is free.
    untold: Vec<Effects>,
    secret: [u8; 32],
}

impl MemoryStore {
    /// Makes an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn queue<T>(&self, name: &str, work: impl FnOnce(&mut Queue, u64) -> T) -> T {
        let now = self.shared.clock.now_ms();
        let mut queues = lock(&self.shared.queues);
        let queue = match queues.get_mut(name) {
            Some(queue) => queue,
            None => queues.entry(name.to_owned()).or_insert_with(Queue::new),
        };
        let result = work(queue, now);
        let untold = std::mem::take(&mut queue.untold);
        let watchers = Arc::clone(&queue.watchers);
        drop(queues); // wakers run outside the lock
        for effects in &untold {
            watchers.tell(effects);
        }
        result
    }

    fn apply(&self, name: &str, command: Command) -> Reply {
        self.queue(name, |queue, now| queue.apply(now, command))
    }
}

impl Queue {
    fn new() -> Self {
        Self {
            machine: Machine::new(),
            requests: HashMap::new(),
            responses: HashMap::new(),
            watchers: Arc::default(),
            untold: Vec::new(),
            secret: random::secret(),
        }
    }

    fn apply(&mut self, now: u64, command: Command) -> Reply {
        let (reply, effects) = self.machine.apply(now, command);
        self.forget(&effects);
        self.untold.push(effects);
        reply
    }

    fn forget(&mut self, effects: &Effects) {
        for id in &effects.spent {
            self.requests.remove(id);
        }
        for id in &effects.erased {
            self.requests.remove(id);
            self.responses.remove(id);
        }
    }

    fn enqueue(&mut self, now: u64, job: &NewJob) -> Option<Enqueued> {
        let id = job.spec.id;
        let known = self.machine.job(id).is_some();
        let command = Command::Enqueue { spec: job.spec.clone(), bounds: job.bounds };
        if !known {
            self.requests.insert(id, job.request.clone());
        }
        let Reply::Enqueued(reply) = self.apply(now, command) else { return None };
        if !known && !matches!(reply, Enqueued::New(_)) {
            self.requests.remove(&id);
        }
        Some(reply)
    }

    fn settle(&mut self, now: u64, end: &Settle) -> Option<Settled> {
        let LeaseRef { id, token } = end.lease;
        let holds = self.machine.job(id).is_some_and(|job| !job.state.is_ended());
        let Reply::Settled(reply) = self.apply(now, Command::Settle { id, token, verdict: end.verdict }) else {
            return None;
        };
        if let Settled::Done(state) = reply
            && holds
            && state.is_ended()
            && let Some(response) = &end.response
        {
            self.responses.insert(id, response.clone());
        }
        Some(reply)
    }
}

impl JobStore for MemoryStore {
    async fn enqueue(&self, queue: &str, jobs: &[NewJob]) -> Result<Vec<Enqueued>, StoreError> {
        Ok(self.queue(queue, |queue, now| jobs.iter().filter_map(|job| queue.enqueue(now, job)).collect()))
    }

    async fn claim(&self, queue: &str, ask: &Claim) -> Result<LeasedJobs, StoreError> {
        Ok(self.queue(queue, |queue, now| {
            let Reply::Claimed(claimed) = queue.apply(now, Command::Claim(ask.clone())) else {
                return LeasedJobs::default();
            };
            let request = |job: Job| Some(Leased { job, request: queue.requests.get(&job.id)?.clone() });
            if claimed.more && !claimed.jobs.is_empty() {
                queue.untold.push(Effects::work_left());
            }
            let jobs = claimed.jobs.into_iter().filter_map(request).collect();
            LeasedJobs { jobs, more: claimed.more, next_at: claimed.next_at }
        }))
    }

    async fn renew(&self, queue: &str, leases: &[LeaseRef], ttl_ms: u64) -> Result<Vec<Renewed>, StoreError> {
        let renew = |queue: &mut Queue, now, lease: &LeaseRef| {
            let reply = queue.apply(now, Command::Renew { id: lease.id, token: lease.token, ttl_ms });
            if let Reply::Renewed(renewed) = reply { Some(renewed) } else { None }
        };
        Ok(self.queue(queue, |queue, now| leases.iter().filter_map(|lease| renew(queue, now, lease)).collect()))
    }

    async fn settle(&self, queue: &str, ends: &[Settle]) -> Result<Vec<Settled>, StoreError> {
        Ok(self.queue(queue, |queue, now| ends.iter().filter_map(|end| queue.settle(now, end)).collect()))
    }

    async fn cancel(&self, queue: &str, id: JobId) -> Result<Cancelled, StoreError> {
        match self.apply(queue, Command::Cancel { id }) {
            Reply::Cancelled(cancelled) => Ok(cancelled),
            _ => Ok(Cancelled::Unknown),
        }
    }

    async fn requeue(
        &self,
        queue: &str,
        id: JobId,
        target_ms: u64,
        expires_after_ms: u64,
    ) -> Result<Option<Job>, StoreError> {
        Ok(self.queue(queue, |queue, now| {
            match queue.apply(now, Command::Requeue { id, target_ms, expires_after_ms }) {
                Reply::Requeued(Some(job)) => {
                    queue.responses.remove(&id);
                    Some(job)
                }
                _ => None,
            }
        }))
    }

    async fn erase(&self, queue: &str, id: JobId) -> Result<Erased, StoreError> {
        match self.apply(queue, Command::Erase { id }) {
            Reply::Erased(erased) => Ok(erased),
            _ => Ok(Erased::Live),
        }
    }

    async fn sweep(&self, queue: &str) -> Result<Swept, StoreError> {
        match self.apply(queue, Command::Sweep) {
            Reply::Swept(swept) => Ok(swept),
            _ => Ok(Swept::default()),
        }
    }

    async fn get(&self, queue: &str, id: JobId) -> Result<Option<Job>, StoreError> {
        Ok(self.queue(queue, |queue, now| {
            queue.apply(now, Command::Sweep);
            queue.machine.job(id).copied()
        }))
    }

    async fn result(&self, queue: &str, id: JobId) -> Result<Option<StoredResponse>, StoreError> {
        Ok(self.queue(queue, |queue, _| queue.responses.get(&id).cloned()))
    }

    async fn secret(&self, queue: &str) -> Result<[u8; 32], StoreError> {
        Ok(self.queue(queue, |queue, _| queue.secret))
    }

    fn stats(&self, queue: &str) -> Stats {
        self.queue(queue, |queue, _| queue.machine.stats())
    }

    fn retry_after_s(&self, queue: &str, class: Class) -> u64 {
        self.queue(queue, |queue, _| queue.machine.retry_after_s(class))
    }

    fn work(&self, queue: &str) -> Changed {
        self.queue(queue, |queue, _| queue.watchers.work())
    }

    fn changed(&self, queue: &str, id: JobId) -> Changed {
        self.queue(queue, |queue, _| queue.watchers.changed(id))
    }

    fn now_ms(&self) -> u64 {
        self.shared.clock.now_ms()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}
