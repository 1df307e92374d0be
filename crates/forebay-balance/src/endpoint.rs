use std::fmt;
use std::sync::Arc;

use crate::gpu::GpuTable;

/// The name of an endpoint: for an HTTP endpoint its URL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(Arc<str>);

impl EndpointId {
    /// An endpoint's name.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for EndpointId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The pool of an endpoint that names none, and of a class without a route.
pub(crate) const DEFAULT_POOL: &str = "default";

/// A backend: a service, its weight and its bounds.
#[derive(Debug, Clone)]
#[must_use]
pub struct Endpoint<S> {
    pub(crate) id: EndpointId,
    pub(crate) service: S,
    pub(crate) weight: Option<u16>,
    pub(crate) gpu: Option<String>,
    pub(crate) max_concurrency: Option<u32>,
    pub(crate) pool: Arc<str>,
    pub(crate) group: Option<Arc<str>>,
}

impl<S> Endpoint<S> {
    /// An endpoint of weight 1 that is this service.
    pub fn with_service(id: impl Into<Arc<str>>, service: S) -> Self {
        let (id, pool) = (EndpointId::new(id), DEFAULT_POOL.into());
        Self { id, service, weight: None, gpu: None, max_concurrency: None, pool, group: None }
    }

    /// Its share of the work beside the others, 1 to 65535; 0 drains. Default 1.
    pub const fn weight(mut self, weight: u16) -> Self {
        self.weight = Some(weight);
        self
    }

    /// The GPU that it runs on, such as `"V100"` or `"Tesla V100-SXM2-16GB"`: its weight, unless one is given, is that
    /// of the [`GpuTable`]; a GPU that is not in the table is a problem that `build` reports.
    pub fn gpu(mut self, name: impl Into<String>) -> Self {
        self.gpu = Some(name.into());
        self
    }

    /// The most requests there at once, at least 1. Default: no bound.
    pub const fn max_concurrency(mut self, requests: u32) -> Self {
        self.max_concurrency = Some(requests);
        self
    }

    /// The pool that it belongs to; one that a route names, or the default, `"default"`.
    pub fn pool(mut self, pool: impl Into<Arc<str>>) -> Self {
        self.pool = pool.into();
        self
    }

    /// The group of endpoints that it belongs to, such as the GPUs of one machine: see [`Pin::to_group`](crate::Pin). None
    /// unless set.
    pub fn group(mut self, group: impl Into<Arc<str>>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// With another service.
    #[cfg(feature = "client")]
    pub(crate) fn map<T>(self, service: T) -> Endpoint<T> {
        let Self { id, service: _, weight, gpu, max_concurrency, pool, group } = self;
        Endpoint { id, service, weight, gpu, max_concurrency, pool, group }
    }

    pub(crate) fn base_weight(&self, table: &GpuTable) -> u16 {
        let gpu = || self.gpu.as_deref().and_then(|gpu| table.weight(gpu));
        self.weight.or_else(gpu).unwrap_or(1)
    }

    pub(crate) fn check(&self, table: &GpuTable, problems: &mut Vec<String>) {
        if self.max_concurrency == Some(0) {
            problems.push(format!("endpoint {} max_concurrency is 0: at least 1", self.id));
        }
        if let Some(gpu) = &self.gpu
            && self.weight.is_none()
            && table.weight(gpu).is_none()
        {
            problems.push(format!("endpoint {} gpu {gpu:?} is not in the GPU table: set its weight", self.id));
        }
    }
}
