use std::fmt;

use forebay_core::{ConfigError, DemandSource, ReplicaState};

use crate::handle::Shared;
use crate::{AutoscaleHandle, AutoscaleLayer, Capacity, DemandSignal, ScalePolicy};

/// What a source contributes to the demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Take {
    /// Queued and in flight.
    All,
    /// Queued only, stored work: it may drain within five minutes, and orders fewer seats accordingly.
    Queued,
    /// In flight only.
    InFlight,
}

pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) source: Box<dyn DemandSource>,
    pub(crate) take: Take,
}

pub(crate) type Replicas = Box<dyn Fn(&str) -> Option<ReplicaState> + Send + Sync>;

/// Configures an [`AutoscaleLayer`].
#[derive(Default)]
#[must_use]
pub struct AutoscaleBuilder {
    sources: Vec<Source>,
    replicas: Option<Replicas>,
    capacity: Option<Capacity>,
    policy: ScalePolicy,
}

impl fmt::Debug for AutoscaleBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources: Vec<_> = self.sources.iter().map(|source| (&source.name, source.take)).collect();
        f.debug_struct("AutoscaleBuilder")
            .field("sources", &sources)
            .field("capacity", &self.capacity)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl AutoscaleBuilder {
    /// Adds a stage that knows its demand: the handle of an inner layer. With one, the layer's own count is no demand.
    pub fn source(mut self, name: impl Into<String>, source: impl DemandSource, take: Take) -> Self {
        self.sources.push(Source { name: name.into(), source: Box::new(source), take });
        self
    }

    /// Where the replicas of a pool (here `"default"`) are known; `None` means unknown, not zero.
    pub fn replicas(mut self, replicas: impl Fn(&str) -> Option<ReplicaState> + Send + Sync + 'static) -> Self {
        self.replicas = Some(Box::new(replicas));
        self
    }

    /// What a replica serves at once; overrides that of the policy.
    pub const fn capacity(mut self, capacity: Capacity) -> Self {
        self.capacity = Some(capacity);
        self
    }

    /// How many replicas a demand gets.
    pub fn policy(mut self, policy: ScalePolicy) -> Self {
        self.policy = policy;
        self
    }

    /// The layer alone: it counts, but nobody asks.
    ///
    /// # Errors
    ///
    /// As [`build_with_handle`](Self::build_with_handle).
    pub fn build(self) -> Result<AutoscaleLayer, ConfigError> {
        self.build_with_handle().map(|(layer, _)| layer)
    }

    /// The layer and its handle. Spawns nothing.
    ///
    /// # Errors
    ///
    /// Every problem at once: a policy out of its ranges, two sources of one name, in-flight from two sources.
    pub fn build_with_handle(mut self) -> Result<(AutoscaleLayer, AutoscaleHandle), ConfigError> {
        if let Some(capacity) = self.capacity {
            self.policy.capacity = capacity;
        }
        let mut problems = self.policy.problems();
        for (index, source) in self.sources.iter().enumerate() {
            if self.sources[..index].iter().any(|earlier| earlier.name == source.name) {
                problems.push(format!("source {:?} is there twice: a name a source", source.name));
            }
        }
        let served = self.sources.iter().filter(|source| source.take != Take::Queued);
        let served: Vec<_> = served.map(|source| source.name.as_str()).collect();
        if served.len() > 1 {
            problems.push(format!("in-flight comes from {}: one source, or requests count twice", served.join(", ")));
        }
        ConfigError::check(problems)?;
        let signal = DemandSignal::new();
        let shared = Shared::new(signal.clone(), self.sources, self.replicas, self.policy);
        Ok((AutoscaleLayer::new(signal), AutoscaleHandle::new(shared)))
    }
}
