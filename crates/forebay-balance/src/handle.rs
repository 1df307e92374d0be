use std::sync::Arc;

use forebay_core::{Demand, DemandSource, Outcome, ReplicaState};

use crate::capacity::Capacity;
use crate::endpoint::EndpointId;
use crate::permit::Counts;
use crate::policy::Slot;

/// Watches and changes a running [`Balance`](crate::Balance).
#[derive(Debug, Clone)]
pub struct BalanceHandle {
    pub(crate) counts: Arc<Counts>,
    pub(crate) ids: Arc<[EndpointId]>,
}

/// An endpoint at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointSnapshot {
    /// Its name.
    pub id: EndpointId,
    /// Its weight, 0 to 65535; 0: it drains.
    pub weight: u16,
    /// The most requests there at once; `None`: no bound.
    pub max_concurrency: Option<u32>,
    /// Requests there now, to the end of their bodies.
    pub in_flight: u32,
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

impl BalanceHandle {
    /// The endpoints now, in the order of the list.
    #[must_use]
    pub fn snapshot(&self) -> Vec<EndpointSnapshot> {
        let ledger = self.counts.ledger();
        let (slots, outcomes) = (ledger.picker.slots().to_vec(), ledger.outcomes.clone());
        drop(ledger);
        let of = |index: usize, outcome: Outcome| outcomes[index][outcome as usize];
        let snapshot = |(index, slot): (usize, Slot)| EndpointSnapshot {
            id: self.ids[index].clone(),
            weight: slot.weight,
            max_concurrency: slot.max_concurrency,
            in_flight: slot.in_flight,
            picks: slot.picks,
            success: of(index, Outcome::Success),
            overload: of(index, Outcome::Overload),
            error: of(index, Outcome::Error),
            cancelled: of(index, Outcome::Cancelled),
        };
        slots.into_iter().enumerate().map(snapshot).collect()
    }

    /// Changes a weight from the next pick on; 0 drains: no new requests, those there go on. False: no such endpoint.
    pub fn set_weight(&self, id: &str, weight: u16) -> bool {
        self.change(id, |slot| slot.weight = weight)
    }

    /// Changes the most requests there at once, from the next pick on; `None`: no bound, `Some(0)`: full until raised.
    /// Those there go on, also when they are more. False: no such endpoint.
    pub fn set_max_concurrency(&self, id: &str, requests: Option<u32>) -> bool {
        self.change(id, |slot| slot.max_concurrency = requests)
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Slot)) -> bool {
        let Some(index) = self.ids.iter().position(|known| known.as_str() == id) else { return false };
        self.counts.ledger().picker.change(index, change);
        self.counts.wakers.wake(); // always: who follows the places wants to know of fewer, too
        true
    }

    /// Its places, for a layer further out to reserve: priority, in front of it.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        Capacity { counts: Arc::clone(&self.counts) }
    }

    /// The backends of a pool, as the autoscaler reads them: there is one, `"default"`; any other is unknown.
    #[must_use]
    pub fn replicas(&self, pool: &str) -> Option<ReplicaState> {
        let ledger = self.counts.ledger();
        let picker = &ledger.picker;
        let ready = picker.slots().iter().filter(|slot| slot.weight > 0).count() as u32;
        (pool == "default").then_some(ReplicaState { ready, starting: 0, current: picker.slots().len() as u32 })
    }
}

impl DemandSource for BalanceHandle {
    /// By class; requests that bear `Counted` are left out, as priority counts them.
    fn demand(&self) -> Demand {
        self.counts.ledger().demand
    }
}
