use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use crate::{
    policy::{JobId, Lost, Renewed},
    queue::JobQueue,
    store::{LeaseRef, lock},
};

/// How often leases are renewed, all in one call.
const PERIOD: Duration = Duration::from_secs(1);
/// Sweeps in one period, at most; each moves a bounded number of jobs.
const MAX_SWEEPS: usize = 64;

/// Why a running attempt has to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The lease is gone, or must be taken for gone.
    Lost(Lost),
    /// The worker drains: the job is given back.
    Drained,
}

/// The leases that this worker holds.
#[derive(Debug)]
pub(super) struct Leases {
    queue: JobQueue,
    ttl: Duration,
    held: Mutex<HashMap<JobId, Held>>,
}

#[derive(Debug)]
struct Held {
    token: u64,
    /// When this worker has to stop unless renewed, on its own monotonic clock.
    until: Instant,
    stop: watch::Sender<Option<Stop>>,
}

/// One held lease; gone from the table on drop.
#[derive(Debug)]
pub(super) struct Lease {
    leases: Arc<Leases>,
    pub(super) lease: LeaseRef,
}

impl Leases {
    pub(super) fn new(queue: JobQueue, ttl: Duration) -> Arc<Self> {
        Arc::new(Self { queue, ttl, held: Mutex::default() })
    }

    /// Keeps a lease that was asked for at `asked`.
    pub(super) fn hold(self: &Arc<Self>, lease: LeaseRef, asked: Instant) -> (Lease, watch::Receiver<Option<Stop>>) {
        let (stop, stopped) = watch::channel(None);
        let held = Held { token: lease.token, until: asked + self.trusted(), stop };
        lock(&self.held).insert(lease.id, held);
        (Lease { leases: Arc::clone(self), lease }, stopped)
    }

    /// Stops all attempts.
    pub(super) fn stop_all(&self, why: Stop) {
        self.stop(why, |_, _| true);
    }

    /// Renews all leases each second, and stops the attempts whose lease is lost or cannot be renewed in time.
    /// Lets the store do what is due, too.
    pub(super) async fn keep(&self) -> Infallible {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.renew().await;
            let now = Instant::now();
            self.stop(Stop::Lost(Lost::Taken), |_, held| held.until <= now);
            self.sweep().await;
        }
    }

    async fn sweep(&self) {
        let sweep = async {
            for _ in 0..MAX_SWEEPS {
                match self.queue.store().sweep(self.queue.name()).await {
                    Ok(swept) if swept.more => {}
                    Ok(_) => return,
                    Err(error) => return tracing::warn!(%error, "the queue could not be swept"),
                }
            }
        };
        let _ = timeout(PERIOD, sweep).await; // the rest is due in the next second
    }

    async fn renew(&self) {
        let leases: Vec<LeaseRef> =
            lock(&self.held).iter().map(|(id, held)| LeaseRef { id: *id, token: held.token }).collect();
        if leases.is_empty() {
            return;
        }
        let asked = Instant::now();
        let ttl_ms = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX);
        let renewal = self.queue.store().renew(self.queue.name(), &leases, ttl_ms);
        let replies = match timeout(PERIOD, renewal).await {
            Ok(Ok(replies)) => replies,
            Ok(Err(error)) => return tracing::warn!(%error, "leases could not be renewed"),
            Err(_) => return tracing::warn!("leases could not be renewed in time"),
        };
        for (lease, reply) in leases.iter().zip(replies) {
            match reply {
                Renewed::Until(_) => self.extend(lease, asked + self.trusted()),
                Renewed::Lost(why) => {
                    self.stop(Stop::Lost(why), |id, held| id == lease.id && held.token == lease.token);
                }
            }
        }
    }

    fn extend(&self, lease: &LeaseRef, until: Instant) {
        if let Some(held) = lock(&self.held).get_mut(&lease.id).filter(|held| held.token == lease.token) {
            held.until = until;
        }
    }

    /// Stops the attempts that `which` picks; one that has been told a reason keeps it.
    fn stop(&self, why: Stop, which: impl Fn(JobId, &Held) -> bool) {
        let told: Vec<_> =
            lock(&self.held).iter().filter(|(id, held)| which(**id, held)).map(|(_, held)| held.stop.clone()).collect();
        for stop in told {
            // The lock is free: this may wake the attempt at once.
            stop.send_if_modified(|stop| {
                let first = stop.is_none();
                stop.get_or_insert(why);
                first
            });
        }
    }

    /// How long a lease is relied on: somewhat less than it lasts, as clocks differ.
    fn trusted(&self) -> Duration {
        self.ttl - (self.ttl / 5).min(Duration::from_secs(2))
    }
}

impl Lease {
    /// Says until when the lease is relied on.
    pub(super) fn until(&self) -> Option<Instant> {
        lock(&self.leases.held).get(&self.lease.id).filter(|held| held.token == self.lease.token).map(|held| held.until)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut held = lock(&self.leases.held);
        if held.get(&self.lease.id).is_some_and(|held| held.token == self.lease.token) {
            held.remove(&self.lease.id);
        }
    }
}
