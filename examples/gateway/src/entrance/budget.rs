//! The memory for request bodies, and whose it is.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::ConnectInfo;
use forebay_core::Principal;
use http::Extensions;

use crate::config::Uploads;

/// The party that memory is counted for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Caller {
    Tenant(Principal),
    /// An address; of IPv6 the first 64 bits, as a host may have all the addresses behind them.
    Peer(IpAddr),
    /// A caller of which nothing is known; only the bound for all together holds.
    Unknown,
}

impl Caller {
    pub(super) fn of(extensions: &Extensions) -> Self {
        if let Some(principal) = extensions.get::<Principal>() {
            return Self::Tenant(principal.clone());
        }
        match extensions.get::<ConnectInfo<SocketAddr>>() {
            Some(ConnectInfo(address)) => Self::Peer(match address.ip().to_canonical() {
                IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
                ip => ip,
            }),
            None => Self::Unknown,
        }
    }
}

/// The bytes of request bodies that are in memory, bounded for all together and for each caller.
#[derive(Debug)]
pub(crate) struct Budget {
    max_total: u64,
    max_caller: u64,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    total: u64,
    /// Callers that hold nothing are not in it.
    callers: HashMap<Caller, u64>,
}

impl Budget {
    pub(crate) fn new(settings: &Uploads) -> Self {
        Self::of(settings.max_total_bytes, settings.max_caller_bytes())
    }

    fn of(max_total: u64, max_caller: u64) -> Self {
        Self { max_total, max_caller, held: Mutex::default() }
    }

    /// The bytes that are held now.
    pub(crate) fn held(&self) -> u64 {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// There is no room for more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Bytes held for one caller, given back on drop.
#[derive(Debug)]
pub(super) struct Charge {
    budget: Arc<Budget>,
    caller: Caller,
    bytes: u64,
}

impl Charge {
    /// A charge of nothing.
    pub(super) const fn new(budget: Arc<Budget>, caller: Caller) -> Self {
        Self { budget, caller, bytes: 0 }
    }

    /// Makes it a charge of `bytes`. If there is no room for so many, it stays as it is.
    pub(super) fn set(&mut self, bytes: u64) -> Result<(), Full> {
        if bytes == self.bytes {
            return Ok(());
        }
        let Budget { max_total, max_caller, .. } = *self.budget;
        let mut held = self.budget.lock();
        let own = held.callers.get(&self.caller).copied().unwrap_or_default();
        // What is held is never less than this charge.
        let total = (held.total - self.bytes).checked_add(bytes).ok_or(Full)?;
        let own = (own - self.bytes).checked_add(bytes).ok_or(Full)?;
        let max_own = if self.caller == Caller::Unknown { max_total } else { max_caller };
        if bytes > self.bytes && (total > max_total || own > max_own) {
            return Err(Full);
        }
        held.total = total;
        match own {
            0 => drop(held.callers.remove(&self.caller)),
            own => match held.callers.get_mut(&self.caller) {
                Some(held) => *held = own,
                None => drop(held.callers.insert(self.caller.clone(), own)),
            },
        }
        drop(held);
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let _ = self.set(0); // less always fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Caller {
        Caller::Tenant(Principal::from_bytes(name))
    }

    #[test]
    fn a_caller_cannot_take_the_share_of_another() {
        let budget = Arc::new(Budget::of(100, 25));
        let mut charges: Vec<_> = (0..3).map(|_| Charge::new(Arc::clone(&budget), tenant("a"))).collect();
        assert_eq!(charges[0].set(20), Ok(()));
        assert_eq!(charges[1].set(5), Ok(()));
        assert_eq!(charges[2].set(1), Err(Full));
        assert_eq!(charges[1].set(6), Err(Full));
        let mut other = Charge::new(Arc::clone(&budget), tenant("b"));
        assert_eq!((other.set(25), budget.held()), (Ok(()), 50));
        drop(charges.remove(0));
        assert_eq!((charges[1].set(20), budget.held()), (Ok(()), 50));
        drop((charges, other));
        assert_eq!(budget.held(), 0);
        assert!(budget.lock().callers.is_empty(), "callers without bytes are forgotten");
    }

    #[test]
    fn all_together_are_bounded() {
        let budget = Arc::new(Budget::of(100, 60));
        let charge = |caller, bytes| {
            let mut charge = Charge::new(Arc::clone(&budget), caller);
            charge.set(bytes).map(|()| charge)
        };
        let first = charge(tenant("a"), 60).expect("room");
        assert!(charge(tenant("b"), 41).is_err() && charge(Caller::Unknown, u64::MAX).is_err());
        let second = charge(Caller::Unknown, 40).expect("room");
        assert!(charge(tenant("c"), 1).is_err());
        drop(first);
        let third = charge(Caller::Unknown, 60).expect("a caller that is not known is bounded by the total only");
        drop((second, third));
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_caller_is_its_tenant_or_its_address() {
        let of = |address: &str| {
            let mut extensions = Extensions::new();
            extensions.insert(ConnectInfo::<SocketAddr>(address.parse().expect("an address")));
            Caller::of(&extensions)
        };
        assert_eq!(of("10.0.0.1:1"), of("[::ffff:10.0.0.1]:2"));
        assert_ne!(of("10.0.0.1:1"), of("10.0.0.2:1"));
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::ffff:0:0:1]:1"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8:0:1::1]:1"));
        assert_eq!(Caller::of(&Extensions::new()), Caller::Unknown);
    }
}
