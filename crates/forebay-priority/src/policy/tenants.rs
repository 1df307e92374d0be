use std::collections::HashMap;

use super::scheduler::Scheduler;
use super::slab::Entry;

/// The tenant of a request that has none, or whose seats are not counted.
pub(super) const NOBODY: u64 = 0;

/// The seats of each tenant that holds some, counted where one may hold a share of them at most. No more entries than
/// there are seats.
#[derive(Debug, Default)]
pub(super) struct Tenants {
    share: Option<f64>,
    held: HashMap<u64, usize>,
}

impl Tenants {
    pub(super) fn new(share: Option<f64>) -> Self {
        Self { share, held: HashMap::new() }
    }

    /// Returns true if the seats of each tenant are counted.
    pub(super) const fn bounded(&self) -> bool {
        self.share.is_some()
    }

    /// The tenant to be counted.
    pub(super) fn of(&self, tenant: Option<u64>) -> u64 {
        match (self.share, tenant) {
            (Some(_), Some(tenant)) => tenant.max(1),
            _ => NOBODY,
        }
    }

    /// Returns true if the tenant may have `cost` seats more, of `seats`; one that holds none always may.
    pub(super) fn fits(&self, tenant: u64, cost: u32, seats: usize) -> bool {
        let (Some(share), true) = (self.share, tenant != NOBODY) else { return true };
        let most = (share * seats as f64).ceil() as usize;
        self.held.get(&tenant).is_none_or(|held| held + cost as usize <= most)
    }

    pub(super) fn take(&mut self, tenant: u64, cost: u32) {
        if tenant != NOBODY {
            *self.held.entry(tenant).or_default() += cost as usize;
        }
    }

    pub(super) fn give(&mut self, tenant: u64, cost: u32) {
        if let Some(held) = self.held.get_mut(&tenant) {
            *held = held.saturating_sub(cost as usize);
            if *held == 0 {
                self.held.remove(&tenant);
            }
        }
    }
}

impl<T, P> Scheduler<T, P> {
    /// Returns true if the tenant of a waiter may have the seats that it waits for.
    pub(super) fn fits_tenant(&self, entry: &Entry<T, P>) -> bool {
        self.tenants.fits(entry.tenant, entry.cost, self.seats())
    }
}
