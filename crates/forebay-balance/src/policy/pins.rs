use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// The most keys that are pinned at once; further ones go by rendezvous alone.
const MAX_PINS: usize = 65_536;

/// Keeps all requests with one [`AffinityKey`](forebay_core::AffinityKey) together from the first on: where that went,
/// the others go, whatever the weights and endpoints are by then. For batches, which must not be torn apart.
///
/// A key is pinned while it has requests in flight and for [`linger`](Self::linger) after the last. If there is no room
/// where it is pinned a request goes elsewhere, as without a pin; if nothing there takes requests any more, the key is
/// pinned anew. At most 65,536 keys are pinned at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[must_use]
pub struct Pin {
    pub(super) to_group: bool,
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub(super) linger: Duration,
}

impl Pin {
    /// To one endpoint.
    pub const fn to_endpoint() -> Self {
        Self { to_group: false, linger: Duration::from_secs(60) }
    }

    /// To the endpoints of one [group](crate::Endpoint::group), such as the GPUs of a machine: the least load decides
    /// inside. An endpoint without a group is a group of its own.
    pub const fn to_group() -> Self {
        Self { to_group: true, linger: Duration::from_secs(60) }
    }

    /// How long it holds after the last request has ended. Default 60 s.
    pub const fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }
}

/// Where the requests of keys go.
#[derive(Debug, Default)]
pub(super) struct Pins {
    held: HashMap<u64, Held>,
    /// Keys that may be over, and when they became idle; a key is here once at most.
    idle: VecDeque<(Instant, u64)>,
}

#[derive(Debug)]
struct Held {
    /// The hash of an endpoint or of a group.
    home: u64,
    requests: u32,
    idle_since: Instant,
    queued: bool,
}

impl Pins {
    /// The home of a key, if it has one.
    pub(super) fn home(&self, key: u64) -> Option<u64> {
        self.held.get(&key).map(|held| held.home)
    }

    /// A request of a key goes to `home`; `anew`: so will the others from now on. False: there is no pin for it.
    pub(super) fn take(&mut self, key: u64, home: u64, anew: bool, now: Instant) -> bool {
        if self.held.len() >= MAX_PINS && !self.held.contains_key(&key) {
            return false;
        }
        let new = Held { home, requests: 0, idle_since: now, queued: false };
        let held = self.held.entry(key).or_insert(new);
        if anew {
            held.home = home;
        }
        held.requests = held.requests.saturating_add(1);
        true
    }

    /// A request of a key has ended.
    pub(super) fn release(&mut self, key: u64, now: Instant) {
        let Some(held) = self.held.get_mut(&key) else { return };
        held.requests = held.requests.saturating_sub(1);
        if held.requests == 0 {
            held.idle_since = held.idle_since.max(now);
            if !std::mem::replace(&mut held.queued, true) {
                self.idle.push_back((now, key));
            }
        }
    }

    /// Whether there is nothing that [`expire`](Self::expire) could let go of.
    pub(super) fn none_idle(&self) -> bool {
        self.idle.is_empty()
    }

    /// Lets go of keys that have been idle for long enough. O(1) over many.
    pub(super) fn expire(&mut self, linger: Duration, now: Instant) {
        while let Some((since, key)) = self.idle.front().copied()
            && now.saturating_duration_since(since) >= linger
        {
            self.idle.pop_front();
            let Some(held) = self.held.get_mut(&key) else { continue };
            if held.requests > 0 {
                held.queued = false; // it comes again when it is idle
            } else if now.saturating_duration_since(held.idle_since) >= linger {
                self.held.remove(&key);
            } else {
                self.idle.push_back((held.idle_since, key));
            }
        }
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.held.len(), self.idle.len())
    }
}
