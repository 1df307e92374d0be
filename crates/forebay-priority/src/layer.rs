use std::sync::Arc;

use forebay_core::ConfigError;
use http::HeaderName;
use tower_layer::Layer;

use crate::classify::Classify;
use crate::config::PriorityConfig;
use crate::handle::PriorityHandle;
use crate::policy::Scheduler;
use crate::service::Priority;
use crate::shared::Shared;

/// Lets requests pass in the order of their priority; see the [crate] page.
///
/// All services of one layer, however many routes and clones, share its seats and queues.
#[derive(Debug, Clone)]
pub struct PriorityLayer {
    shared: Arc<Shared>,
}

impl PriorityLayer {
    /// A builder with the preset [`PriorityConfig::four_class`] of 64 seats.
    pub fn builder() -> PriorityBuilder {
        PriorityBuilder { config: PriorityConfig::four_class(64), classify: None, wish_header: None }
    }
}

impl<S> Layer<S> for PriorityLayer {
    type Service = Priority<S>;

    fn layer(&self, inner: S) -> Priority<S> {
        Priority::new(inner, Arc::clone(&self.shared))
    }
}

/// Builds a [`PriorityLayer`].
#[must_use]
pub struct PriorityBuilder {
    config: PriorityConfig,
    classify: Option<Box<dyn Classify>>,
    wish_header: Option<Result<HeaderName, String>>,
}

impl std::fmt::Debug for PriorityBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PriorityBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl PriorityBuilder {
    /// The limit, the classes and their queues.
    pub fn config(mut self, config: impl Into<PriorityConfig>) -> Self {
        self.config = config.into();
        self
    }

    /// Who may be how urgent at most. Without it, every request that bears no `Class` extension may be P2.
    pub fn classify(mut self, classify: impl Classify) -> Self {
        self.classify = Some(Box::new(classify));
        self
    }

    /// A header in which a caller may ask for a less urgent class (`p0` to `p15`): it can never raise one. What is not a
    /// class name, or is given twice with different values, is ignored. The service inside sees the class that holds.
    pub fn wish_header(mut self, name: &str) -> Self {
        self.wish_header = Some(HeaderName::try_from(name).map_err(|_| name.to_owned()));
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// Every field that is out of range, at once.
    pub fn build(self) -> Result<PriorityLayer, ConfigError> {
        self.build_with_handle().map(|(layer, _)| layer)
    }

    /// The layer, and a handle to watch and change it.
    ///
    /// # Errors
    ///
    /// Every field that is out of range, at once.
    pub fn build_with_handle(self) -> Result<(PriorityLayer, PriorityHandle), ConfigError> {
        let mut problems = Vec::new();
        let wish_header = self.wish_header.transpose().unwrap_or_else(|name| {
            problems.push(format!("wish_header is {name:?}: a header field name"));
            None
        });
        let resolved = self.config.resolve().map_err(|error| problems.extend(error.problems().iter().cloned()));
        ConfigError::check(problems)?;
        let Ok((limit, rules)) = resolved else { unreachable!("its problems were returned above") };
        let timeouts = self.config.classes.iter().map(|class| class.queue_timeout).collect();
        let mut shared = Shared::new(Scheduler::new(limit, rules), timeouts, self.config.expected_hold);
        shared.classify = self.classify;
        shared.wish_header = wish_header;
        let shared = Arc::new(shared);
        Ok((PriorityLayer { shared: Arc::clone(&shared) }, PriorityHandle::new(shared)))
    }
}
