//! The pure core: how many replicas a demand needs. No clock, no I/O.

mod config;
mod service_time;
mod state;

pub use config::{Capacity, DownLimit, ScalePolicy, ScalePolicyBuilder, UpLimit};
pub(crate) use service_time::ServiceTime;
pub use state::PolicyState;

use std::time::{Duration, Instant};

use forebay_core::{Class, Demand, ReplicaState};

/// A stored queue ([`Take::Queued`](crate::Take)) may drain within this time.
const DRAIN: Duration = Duration::from_secs(300);

/// The demand of all gateways together; here, of this one.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct ClusterDemand {
    /// The sum over the sources, in seats.
    pub demand: Demand,
    /// The part of `queued` that is stored and may drain within five minutes, by class.
    pub stored: [u64; Class::COUNT],
    /// The mean time that one request is served, if known.
    pub service_time: Option<Duration>,
}

impl From<Demand> for ClusterDemand {
    /// Nothing is stored: every queued request orders a seat.
    fn from(demand: Demand) -> Self {
        Self { demand, ..Self::default() }
    }
}

impl ClusterDemand {
    /// Seats in demand, each class by its share: `share · (in_flight + queued · drain)`. O(classes).
    fn seats(&self, share: &[f64; Class::COUNT]) -> f64 {
        let drain = self.service_time.map_or(1.0, |time| (time.as_secs_f64() / DRAIN.as_secs_f64()).min(1.0));
        let classes = self.demand.classes.iter().zip(self.stored).zip(share);
        classes
            .map(|((class, stored), share)| {
                let stored = stored.min(class.queued);
                let at_once = class.in_flight as f64 + (class.queued - stored) as f64;
                if *share == 0.0 { 0.0 } else { share * (at_once + stored as f64 * drain) }
            })
            .sum()
    }
}

/// What is known of the demand.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Signal {
    /// It was read now.
    Fresh(ClusterDemand),
    /// It could not be read now; this was the last. Never lowers a target.
    Held {
        /// The last one read.
        last: ClusterDemand,
        /// How old that is.
        age: Duration,
    },
    /// It could not be read for too long. Never taken for zero.
    Stale {
        /// How old the last one is.
        age: Duration,
    },
}

/// The demand is unknown, so there is no decision: leave the replicas as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the demand signal is stale: {} s old", age.as_secs())]
#[non_exhaustive]
pub struct Stale {
    /// How old the last signal is.
    pub age: Duration,
}

/// How many replicas there should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// What the demand needs, within the bounds: for Kubernetes, whose manifests carry the rate limits.
    pub target: u32,
    /// The target with rate limits applied, for users who start replicas themselves. `None`: the replicas that there
    /// are now are unknown.
    pub desired: Option<u32>,
    /// What the demand needs, without bounds.
    pub reactive: u32,
    /// What the forecast needs; `None`, as there is no forecast.
    pub predicted: Option<u32>,
    /// What settled the target.
    pub reason: ScaleReason,
}

/// What settled a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ScaleReason {
    /// Nothing yet: no tick has run. Its target is the lower bound and means nothing.
    Initial,
    /// The demand.
    Reactive,
    /// The lower bound: the demand needs fewer.
    AtMin,
    /// The upper bound: the demand needs more.
    AtMax,
    /// The last target: the signal is held, and says less.
    Held,
}

impl ScalePolicy {
    /// Decides on a number of replicas. Pure; O(ticks remembered), at most a few thousand.
    ///
    /// `reactive = ceil(D / (C · u))`, saturating at `i32::MAX`, with `D` the seats in demand, `C` the seats of a
    /// replica and `u` the utilisation aimed at; a billionth is forgiven, so that 56 / (8 · 0.7) is 10. A bad share or
    /// utilisation (not a number) gives the upper bound.
    ///
    /// `desired` follows `target`. Up: at most the larger of a number and a percentage above the least `ready +
    /// starting` of the last period, so what is ordered is not ordered twice. Down: not below the highest target of
    /// the window, and at most a number below the most `ready + starting` of the last period.
    ///
    /// # Errors
    ///
    /// When the signal is stale.
    pub fn decide(
        &self,
        now: Instant,
        past: &PolicyState,
        signal: &Signal,
        replicas: Option<ReplicaState>,
    ) -> Result<Decision, Stale> {
        let (demand, held) = match signal {
            Signal::Fresh(demand) => (demand, None),
            Signal::Held { last, .. } => (last, past.last_target()),
            Signal::Stale { age } => return Err(Stale { age: *age }),
        };
        let reactive = replicas_of(demand.seats(&self.share) / (f64::from(self.capacity.seats()) * self.utilisation));
        let bounded = reactive.min(self.max).max(self.min);
        let target = bounded.max(held.unwrap_or(0)).min(self.max.max(self.min));
        let reason = if target > bounded {
            ScaleReason::Held
        } else if reactive > bounded {
            ScaleReason::AtMax
        } else if reactive < bounded {
            ScaleReason::AtMin
        } else {
            ScaleReason::Reactive
        };
        let desired = replicas.map(|replicas| self.limited(now, past, target, replicas));
        Ok(Decision { target, desired, reactive, predicted: None, reason })
    }

    fn limited(&self, now: Instant, past: &PolicyState, target: u32, replicas: ReplicaState) -> u32 {
        let have = replicas.ready.saturating_add(replicas.starting);
        let wanted = past.most_target(now, self.down.window).unwrap_or(0).max(target);
        let desired = if wanted > have {
            let least = past.least_have(now, self.up.period).map_or(have, |least| least.min(have));
            let percent = u64::from(least) * u64::from(self.up.percent) / 100;
            let step = self.up.pods.max(u32::try_from(percent).unwrap_or(u32::MAX));
            // Somebody else may have added more than the limit: that is no reason to go down.
            wanted.min(least.saturating_add(step).max(have))
        } else {
            let most = past.most_have(now, self.down.period).map_or(have, |most| most.max(have));
            wanted.max(most.saturating_sub(self.down.pods)).min(have)
        };
        desired.min(self.max).max(self.min)
    }
}

/// Rounds up and saturates at what Kubernetes can hold; what is not a number counts as too much, never as zero.
fn replicas_of(exact: f64) -> u32 {
    if exact.is_nan() { i32::MAX as u32 } else { (exact * (1.0 - 1e-9)).ceil().clamp(0.0, f64::from(i32::MAX)) as u32 }
}
