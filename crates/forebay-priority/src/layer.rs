use std::fmt;
use std::hash::{Hash, RandomState};
use std::sync::Arc;

use forebay_core::{CapacitySignal, Class, ConfigError, NoOverflow, RequestHead};
use http::HeaderName;
use tower_layer::Layer;

use crate::adaptive::Controller;
use crate::admission::Seats;
use crate::classify::{Classify, Trust};
use crate::config::{Limit, PriorityConfig};
use crate::handle::PriorityHandle;
use crate::policy::Scheduler;
use crate::service::Priority;
use crate::settings::{Settings, tenant_by};
use crate::shared::Shared;
use crate::spill::Spill;

/// Lets requests pass in the order of their priority; see the [crate] page.
///
/// All services of one layer, however many routes and clones, share its seats and queues.
#[derive(Debug, Clone)]
pub struct PriorityLayer<O = NoOverflow> {
    shared: Arc<Shared>,
    spill: Spill<O>,
}

impl PriorityLayer {
    /// A builder with the preset [`PriorityConfig::four_class`] of 64 seats.
    pub fn builder() -> PriorityBuilder {
        let config = PriorityConfig::four_class(64);
        let settings = Settings {
            classify: None,
            trust: Trust::lower_only(),
            exempt: None,
            cost: None,
            fair_by: None,
            deadline_header: None,
            forward_deadline: None,
            release: config.release,
            expected_head: config.expected_head,
            stall: config.stall,
            min_read_rate: config.min_read_rate,
            hasher: RandomState::new(),
        };
        PriorityBuilder { config, settings, capacity: None, spill: Spill::NONE, problems: Vec::new() }
    }
}

impl<S, O: Clone> Layer<S> for PriorityLayer<O> {
    type Service = Priority<S, O>;

    fn layer(&self, inner: S) -> Priority<S, O> {
        Priority::new(inner, Arc::clone(&self.shared), self.spill.clone())
    }
}

/// Builds a [`PriorityLayer`].
#[must_use]
pub struct PriorityBuilder<O = NoOverflow> {
    config: PriorityConfig,
    settings: Settings,
    capacity: Option<Arc<dyn CapacitySignal>>,
    spill: Spill<O>,
    problems: Vec<String>,
}

impl<O> fmt::Debug for PriorityBuilder<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PriorityBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl<O> PriorityBuilder<O> {
    /// The limit, the classes and their queues.
    pub fn config(mut self, config: impl Into<PriorityConfig>) -> Self {
        self.config = config.into();
        self
    }

    /// Who may be how urgent at most, and who wishes what. Without it, a request that bears no `Class` extension is P2.
    pub fn classify(mut self, classify: impl Classify) -> Self {
        if let Some(problem) = classify.problem() {
            self.problems.push(problem);
        }
        self.settings.classify = Some(Box::new(classify));
        self
    }

    /// Whose wish may raise a class. Default [`Trust::lower_only`]: nobody's.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.settings.trust = trust;
        self
    }

    /// Requests that need no seat: health checks, and calls that come back from inside, which would wait for a seat that
    /// their own caller holds.
    pub fn exempt(mut self, predicate: impl Fn(&RequestHead<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.settings.exempt = Some(Box::new(predicate));
        self
    }

    /// How many seats a request takes. Default: one. More than its class can ever have count as what it can have. Fewer
    /// once the answer has begun: [`Seats::after_first_frame`].
    pub fn cost(mut self, cost: impl Fn(&RequestHead<'_>) -> Seats + Send + Sync + 'static) -> Self {
        self.settings.cost = Some(Box::new(cost));
        self
    }

    /// Between whom a class is shared fairly. Default: its `Principal`s; requests without one are one tenant together.
    pub fn fair_by<K: Hash>(mut self, key: impl Fn(&RequestHead<'_>) -> Option<K> + Send + Sync + 'static) -> Self {
        self.settings.fair_by = Some(tenant_by(key));
        self
    }

    /// A header in which callers say within how many milliseconds they need the answer to begin; it can only shorten
    /// the time. `grpc-timeout` is always read.
    pub fn deadline_header(mut self, name: impl AsRef<str>) -> Self {
        self.settings.deadline_header = self.header("deadline_header", name.as_ref());
        self
    }

    /// A header in which the service inside is told how many milliseconds are left.
    pub fn forward_deadline(mut self, name: impl AsRef<str>) -> Self {
        self.settings.forward_deadline = self.header("forward_deadline", name.as_ref());
        self
    }

    fn header(&mut self, field: &str, name: &str) -> Option<HeaderName> {
        let header = HeaderName::try_from(name).ok();
        if header.is_none() {
            self.problems.push(format!("{field} is {name:?}: a header field name"));
        }
        header
    }

    /// Grants only what the backends have a place for, and hands the place on in the request's extensions: so a request
    /// binds to a backend as late as possible. The limit holds beside it.
    pub fn capacity(mut self, signal: impl CapacitySignal) -> Self {
        self.capacity = Some(Arc::new(signal));
        self
    }

    /// Asks `hook` to answer requests of these classes that would be refused, as a job for example. Not asked for one
    /// whose deadline has passed, nor for one that already is a job.
    pub fn overflow<N>(self, hook: N, classes: impl IntoIterator<Item = Class>) -> PriorityBuilder<N> {
        let Self { config, settings, capacity, spill: _, problems } = self;
        PriorityBuilder { config, settings, capacity, spill: Spill::new(hook, classes), problems }
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// Every field that is out of range, at once.
    pub fn build(self) -> Result<PriorityLayer<O>, ConfigError> {
        self.build_with_handle().map(|(layer, _)| layer)
    }

    /// The layer, and a handle to watch and change it.
    ///
    /// # Errors
    ///
    /// Every field that is out of range, at once.
    pub fn build_with_handle(self) -> Result<(PriorityLayer<O>, PriorityHandle), ConfigError> {
        let Self { config, mut settings, capacity, spill, mut problems } = self;
        if let Err(error) = config.check() {
            problems.extend(error.problems().iter().cloned());
        }
        ConfigError::check(problems)?;
        (settings.release, settings.expected_head) = (config.release, config.expected_head);
        (settings.stall, settings.min_read_rate) = (config.stall, config.min_read_rate);
        let adaptive = match &config.limit {
            Limit::Adaptive(adaptive) => Some(Controller::new(adaptive)),
            Limit::Sum | Limit::Fixed(_) => None,
        };
        let shared = Shared::new(Scheduler::new(&config), settings, capacity, adaptive);
        let handle = PriorityHandle::new(Arc::clone(&shared));
        handle.warn();
        Ok((PriorityLayer { shared, spill }, handle))
    }
}
