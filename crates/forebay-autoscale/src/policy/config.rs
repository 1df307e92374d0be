use std::ops::RangeInclusive;
use std::time::Duration;

use forebay_core::{Class, ConfigError};

use super::state::LONGEST;

/// What one replica serves at once, in seats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity(u32);

impl Capacity {
    /// So many requests at once, at least 1.
    #[must_use]
    pub const fn slots(slots: u32) -> Self {
        Self(if slots == 0 { 1 } else { slots })
    }

    /// The seats of a replica.
    #[must_use]
    pub const fn seats(self) -> u32 {
        self.0
    }
}

/// How fast `desired` may grow: the larger of both steps a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpLimit {
    /// Replicas a period.
    pub pods: u32,
    /// Percent of what there is, a period.
    pub percent: u32,
    /// 1 s to 30 min.
    pub period: Duration,
}

/// How fast `desired` may shrink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownLimit {
    /// Replicas a period.
    pub pods: u32,
    /// 1 s to 30 min.
    pub period: Duration,
    /// The highest target of this window counts, up to 1 h.
    pub window: Duration,
}

/// How many replicas a demand should get. [`decide`](Self::decide) is pure.
///
/// The default is the seed of this family: 3 to 20 replicas at a utilisation of 0.70, up by the larger of 4 and 100 %
/// in 15 s, down by 1 in 5 min after the highest target of the last 5 min. A replica serves one request at a time until
/// a [`Capacity`] is set.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ScalePolicy {
    /// Never fewer replicas.
    pub min: u32,
    /// Never more replicas.
    pub max: u32,
    /// What a replica serves at once.
    pub capacity: Capacity,
    /// The part of the seats that should be taken, above 0 up to 1.
    pub utilisation: f64,
    /// How fast `desired` may grow.
    pub up: UpLimit,
    /// How fast `desired` may shrink.
    pub down: DownLimit,
    /// How much of a class orders replicas, by index: 1 all of it, 0 none; up to 1000.
    pub share: [f64; Class::COUNT],
}

impl Default for ScalePolicy {
    fn default() -> Self {
        Self {
            min: 3,
            max: 20,
            capacity: Capacity::slots(1),
            utilisation: 0.70,
            up: UpLimit { pods: 4, percent: 100, period: Duration::from_secs(15) },
            down: DownLimit { pods: 1, period: Duration::from_secs(300), window: Duration::from_secs(300) },
            share: [1.0; Class::COUNT],
        }
    }
}

impl ScalePolicy {
    /// Starts from the default.
    pub fn builder() -> ScalePolicyBuilder {
        ScalePolicyBuilder { policy: Self::default() }
    }

    /// Every problem, in the order of the fields.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.min > self.max {
            problems.push(format!("replicas is {}..={}: the first at most the last", self.min, self.max));
        }
        if self.max == 0 || self.max > i32::MAX as u32 {
            problems.push(format!("replicas ends at {}: 1 to {}", self.max, i32::MAX));
        }
        if !(self.utilisation > 0.0 && self.utilisation <= 1.0) {
            problems.push(format!("utilisation is {}: above 0, up to 1", self.utilisation));
        }
        if self.up.pods == 0 && self.up.percent == 0 {
            problems.push("up allows 0 replicas and 0 %: one of them above 0".into());
        }
        if self.down.pods == 0 {
            problems.push("down.pods is 0: 1 or more".into());
        }
        for (name, period) in [("up.period", self.up.period), ("down.period", self.down.period)] {
            if !(Duration::from_secs(1)..=LONGEST / 2).contains(&period) {
                problems.push(format!("{name} is {period:?}: 1 s to 30 min"));
            }
        }
        if self.down.window > LONGEST {
            problems.push(format!("down.window is {:?}: up to 1 h", self.down.window));
        }
        for (class, share) in self.share.iter().enumerate() {
            if !(0.0..=1000.0).contains(share) {
                problems.push(format!("share[{class}] is {share}: 0 to 1000"));
            }
        }
        problems
    }
}

/// Builds a [`ScalePolicy`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ScalePolicyBuilder {
    policy: ScalePolicy,
}

impl ScalePolicyBuilder {
    /// The fewest and the most replicas.
    pub const fn replicas(mut self, bounds: RangeInclusive<u32>) -> Self {
        self.policy.min = *bounds.start();
        self.policy.max = *bounds.end();
        self
    }

    /// What a replica serves at once.
    pub const fn capacity(mut self, capacity: Capacity) -> Self {
        self.policy.capacity = capacity;
        self
    }

    /// The part of the seats that should be taken, above 0 up to 1.
    pub const fn utilisation(mut self, utilisation: f64) -> Self {
        self.policy.utilisation = utilisation;
        self
    }

    /// How fast `desired` may grow.
    pub const fn up(mut self, limit: UpLimit) -> Self {
        self.policy.up = limit;
        self
    }

    /// How fast `desired` may shrink.
    pub const fn down(mut self, limit: DownLimit) -> Self {
        self.policy.down = limit;
        self
    }

    /// How much of this class orders replicas: 1 all of it, 0 none; up to 1000.
    pub const fn share(mut self, class: Class, share: f64) -> Self {
        self.policy.share[class.index()] = share;
        self
    }

    /// The policy.
    ///
    /// # Errors
    ///
    /// Every value that is out of its range, at once.
    pub fn build(self) -> Result<ScalePolicy, ConfigError> {
        ConfigError::check(self.policy.problems())?;
        Ok(self.policy)
    }
}
