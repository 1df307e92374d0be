use std::{fmt, sync::Arc};

use forebay_core::{Class, ConfigError, RequestHead};
use tower_layer::Layer;

use crate::{
    decide::Policy,
    handle::OffloadHandle,
    queue::JobQueue,
    service::Offload,
    shared::{ClassifyFn, Counts, PolicyFn, Shared},
};

/// Makes [`Offload`] services that share one queue; see the [crate page](crate).
#[derive(Debug, Clone)]
pub struct OffloadLayer {
    shared: Arc<Shared>,
}

impl OffloadLayer {
    /// Makes a layer that turns requests with `Prefer: respond-async` into jobs of this queue.
    #[must_use]
    pub fn new(queue: JobQueue) -> Self {
        Self::builder(queue).finish()
    }

    /// Starts the settings of a layer over this queue.
    pub fn builder(queue: JobQueue) -> OffloadLayerBuilder {
        OffloadLayerBuilder { queue, policy: Box::new(|_| Policy::Prefer), classify: Box::new(|_| None) }
    }
}

impl<S> Layer<S> for OffloadLayer {
    type Service = Offload<S>;

    fn layer(&self, inner: S) -> Offload<S> {
        Offload::new(inner, Arc::clone(&self.shared))
    }
}

/// Collects the settings of an [`OffloadLayer`].
#[must_use = "a builder does nothing until built"]
pub struct OffloadLayerBuilder {
    queue: JobQueue,
    policy: Box<PolicyFn>,
    classify: Box<ClassifyFn>,
}

impl OffloadLayerBuilder {
    /// Sets when a request becomes a job: [`Policy::Prefer`] unless set.
    pub fn policy(self, policy: Policy) -> Self {
        self.policy_fn(move |_| policy)
    }

    /// Sets a function of the request's head that says when it becomes a job.
    pub fn policy_fn(mut self, policy: impl Fn(&RequestHead<'_>) -> Policy + Send + Sync + 'static) -> Self {
        self.policy = Box::new(policy);
        self
    }

    /// Sets a function that finds the class of a job whose request has none in its extensions.
    ///
    /// What it says is trusted when the job runs: it must not read what a client can write.
    pub fn classify(mut self, classify: impl Fn(&RequestHead<'_>) -> Option<Class> + Send + Sync + 'static) -> Self {
        self.classify = Box::new(classify);
        self
    }

    /// Makes the layer.
    ///
    /// # Errors
    /// None so far; all settings that can be wrong are the queue's.
    pub fn build(self) -> Result<OffloadLayer, ConfigError> {
        Ok(self.finish())
    }

    /// Makes the layer and its handle.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_with_handle(self) -> Result<(OffloadLayer, OffloadHandle), ConfigError> {
        let layer = self.finish();
        let handle = OffloadHandle::new(Arc::clone(&layer.shared));
        Ok((layer, handle))
    }

    fn finish(self) -> OffloadLayer {
        let Self { queue, policy, classify } = self;
        let shared = Shared { queue, policy, classify, draining: false.into(), counts: Counts::default() };
        OffloadLayer { shared: Arc::new(shared) }
    }
}

impl fmt::Debug for OffloadLayerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OffloadLayerBuilder").field("queue", &self.queue).finish_non_exhaustive()
    }
}
