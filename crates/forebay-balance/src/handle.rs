use std::sync::{Arc, Weak};
use std::time::Duration;

use forebay_core::{Demand, DemandSource, Outcome, Places, ReplicaState};

use crate::capacity::Capacity;
use crate::endpoint::EndpointId;
use crate::ledger::{Core, Ledger, now};
use crate::members::Members;
use crate::policy::{Check, EndpointState, Heard, Load, New, Slot};
use crate::probe::Verdict;

/// Watches and changes a running [`Balance`](crate::Balance).
#[derive(Clone)]
pub struct BalanceHandle {
    members: Arc<Members>,
}

impl std::fmt::Debug for BalanceHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BalanceHandle").field("pools", &self.core().pools).finish_non_exhaustive()
    }
}

/// An endpoint at one instant.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EndpointSnapshot {
    /// Its name.
    pub id: EndpointId,
    /// Its pool.
    pub pool: Arc<str>,
    /// Why it gets requests or not.
    pub state: EndpointState,
    /// Its weight as it was set, 0 to 65535; 0: it drains.
    pub weight: u16,
    /// The weight in use: with slow start and what probes say.
    pub effective_weight: f64,
    /// The most requests there at once; `None`: no bound.
    pub max_concurrency: Option<u32>,
    /// Requests there now, to the end of their bodies.
    pub in_flight: u32,
    /// What it is taken to have to do, in requests: ours, others', and fast failures that weigh on.
    pub load: f64,
    /// How long ago a probe, or [`BalanceHandle::report`], last said what it has to do; `None`: never.
    pub probe_age: Option<Duration>,
    /// Requests it was picked for since the start.
    pub picks: u64,
    /// Exchanges that ended well.
    pub success: u64,
    /// Exchanges that it refused as too busy (429, 503, 529).
    pub overload: u64,
    /// Exchanges that failed.
    pub error: u64,
    /// Exchanges that nobody waited for.
    pub cancelled: u64,
}

/// A pool at one instant.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PoolSnapshot {
    /// Its name.
    pub pool: Arc<str>,
    /// The part of its weight that is healthy, 0 to 1; 1 if it has no endpoint.
    pub available: f64,
    /// Whether health is ignored there, as too little is left.
    pub panic: bool,
    /// Places that are open; `None`: any number.
    pub open: Option<u64>,
    /// Places that are reserved and not yet used.
    pub reserved: u64,
    /// Places in use: our requests there, to the end of their bodies.
    pub used: u64,
}

impl BalanceHandle {
    pub(crate) const fn new(members: Arc<Members>) -> Self {
        Self { members }
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn labels(&self) -> &crate::metrics::Labels {
        &self.core().labels
    }

    fn core(&self) -> &Arc<Core> {
        &self.members.core
    }

    /// What keeps nothing alive.
    pub(crate) fn downgrade(&self) -> Weak<Members> {
        Arc::downgrade(&self.members)
    }

    /// The endpoints now, in the order in which they came; those that are being removed are left out.
    #[must_use]
    pub fn snapshot(&self) -> Vec<EndpointSnapshot> {
        let now = now();
        let mut ledger = self.core().ledger();
        ledger.picker.advance(now);
        let slots = ledger.endpoints().map(|(index, node)| (&node.id, ledger.picker.slot(index)));
        let snapshot = |(id, slot): (&EndpointId, &Slot)| EndpointSnapshot {
            id: id.clone(),
            pool: Arc::clone(&self.core().pools[slot.pool]),
            state: slot.state(),
            weight: slot.base,
            effective_weight: f64::from(slot.weight) / 256.0,
            max_concurrency: slot.max_concurrency,
            in_flight: slot.own,
            load: slot.load_units() as f64 / 256.0,
            probe_age: slot.heard.map(|heard| now.saturating_duration_since(heard)),
            picks: slot.picks,
            success: slot.ended(Outcome::Success),
            overload: slot.ended(Outcome::Overload),
            error: slot.ended(Outcome::Error),
            cancelled: slot.ended(Outcome::Cancelled),
        };
        slots.map(snapshot).collect()
    }

    /// The pools now.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolSnapshot> {
        let ledger = self.core().ledger();
        let pools = ledger.picker.pools().iter().zip(&self.core().pools);
        let snapshot = |(pool, name): (&crate::policy::Pool, &Arc<str>)| PoolSnapshot {
            pool: Arc::clone(name),
            available: if pool.known == 0 { 1.0 } else { pool.healthy as f64 / pool.known as f64 },
            panic: pool.panic,
            open: pool.is_bounded().then(|| pool.open()),
            reserved: pool.reserved,
            used: pool.own,
        };
        pools.map(snapshot).collect()
    }

    /// The places of all pools together. [`watch_places`](Self::watch_places) follows them.
    #[must_use]
    pub fn places(&self) -> Places {
        self.core().ledger().picker.places(None)
    }

    /// Changes a weight from the next pick on; 0 drains: no new requests, those there go on. False: no such endpoint.
    pub fn set_weight(&self, id: &str, weight: u16) -> bool {
        self.update(id, |new| new.weight = weight)
    }

    /// Changes the most requests there at once, from the next pick on; `None`: no bound, `Some(0)`: full until raised.
    /// Those there go on, also when they are more. False: no such endpoint.
    pub fn set_max_concurrency(&self, id: &str, requests: Option<u32>) -> bool {
        self.update(id, |new| new.max_concurrency = requests)
    }

    /// Drains an endpoint: no new requests, those there go on. As a weight of 0. False: no such endpoint.
    pub fn drain(&self, id: &str) -> bool {
        self.set_weight(id, 0)
    }

    /// Drains all endpoints.
    pub fn drain_all(&self) {
        for endpoint in self.snapshot() {
            self.drain(endpoint.id.as_str());
        }
    }

    /// Removes an endpoint: no new requests, and it is gone when those there are over. False: no such endpoint.
    pub fn remove(&self, id: &str) -> bool {
        self.members.remove(id)
    }

    /// Leaves an endpoint out for `time`, or until it is [cleared](Self::clear). False: no such endpoint.
    pub fn eject(&self, id: &str, time: impl Into<Option<Duration>>) -> bool {
        let time = time.into();
        self.change(id, |ledger, index| ledger.picker.eject(index, time, now()))
    }

    /// Brings an endpoint back: out of ejection, and with all forgotten that its answers and its rules said, a GPU fault
    /// among them. Health checks go on. False: no such endpoint.
    pub fn clear(&self, id: &str) -> bool {
        self.change(id, |ledger, index| ledger.picker.clear(index, now()))
    }

    /// Says whether an endpoint is well, for those whose health nobody checks here: at once, whatever was said before.
    /// False: no such endpoint.
    pub fn set_health(&self, id: &str, healthy: bool) -> bool {
        self.change(id, |ledger, index| ledger.picker.set_health(index, healthy, now()))
    }

    /// Says what is known of an endpoint that nobody probes here; it holds for `valid`. `requests` are those that run
    /// and wait there now, ours among them; `None`: unknown, and taken to be as at the others. False: no such endpoint.
    pub fn report(&self, id: &str, requests: Option<u32>, verdict: Verdict, valid: Duration) -> bool {
        self.change(id, |ledger, index| {
            let own_sent = ledger.picker.slot(index).own;
            let load = requests.map_or(Load::Unknown, |requests| Load::Requests { requests, own_sent });
            ledger.picker.heard(index, &Heard { load, verdict, valid }, now());
        })
    }

    fn update(&self, id: &str, update: impl FnOnce(&mut New)) -> bool {
        self.change(id, |ledger, index| {
            let mut new = ledger.picker.slot(index).as_new();
            update(&mut new);
            ledger.picker.update(index, new, now());
        })
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Ledger, usize)) -> bool {
        let found = self.core().change(|ledger| {
            let index = ledger.index_of(id).filter(|index| !ledger.picker.slot(*index).removed)?;
            change(ledger, index);
            ledger.picker.look_again(); // always: who follows the places wants to know of fewer, too
            Some(())
        });
        found.is_some()
    }

    /// Its places, for a layer further out to reserve: priority, in front of it.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        Capacity { core: Arc::clone(self.core()) }
    }

    /// The backends of a pool, as the autoscaler reads them; `None`: there is no such pool.
    #[must_use]
    pub fn replicas(&self, pool: &str) -> Option<ReplicaState> {
        let pool = self.core().pools.iter().position(|name| &**name == pool)?;
        let ledger = self.core().ledger();
        let mut replicas = ReplicaState::default();
        for slot in ledger.endpoints().map(|(index, _)| ledger.picker.slot(index)) {
            if slot.pool == pool {
                replicas.current += 1;
                replicas.ready += u32::from(slot.healthy());
                replicas.starting += u32::from(slot.check() == Check::New);
            }
        }
        Some(replicas)
    }
}

impl DemandSource for BalanceHandle {
    /// By class; requests that bear `Counted` are left out, as priority counts them.
    fn demand(&self) -> Demand {
        self.core().ledger().demand
    }
}
