use std::fmt;
use std::sync::Arc;

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

/// A backend: a service, its weight and its bounds.
#[derive(Debug, Clone)]
#[must_use]
pub struct Endpoint<S> {
    pub(crate) id: EndpointId,
    pub(crate) service: S,
    pub(crate) weight: u16,
    pub(crate) max_concurrency: Option<u32>,
}

impl<S> Endpoint<S> {
    /// An endpoint of weight 1 that is this service.
    pub fn with_service(id: impl Into<Arc<str>>, service: S) -> Self {
        Self { id: EndpointId::new(id), service, weight: 1, max_concurrency: None }
    }

    /// Its share of the work beside the others, 1 to 65535; 0 drains. Default 1.
    pub const fn weight(mut self, weight: u16) -> Self {
        self.weight = weight;
        self
    }

    /// The weight of a GPU: V100 3, T4 2, P4 1, found in names such as `"Tesla V100-SXM2-16GB"`; any other leaves the
    /// weight as it is.
    pub fn gpu(self, name: &str) -> Self {
        const TABLE: [(&str, u16); 3] = [("V100", 3), ("T4", 2), ("P4", 1)];
        let name = name.to_ascii_uppercase();
        match TABLE.iter().find(|(gpu, _)| name.contains(gpu)) {
            Some((_, weight)) => self.weight(*weight),
            None => self,
        }
    }

    /// The most requests there at once, at least 1. Default: no bound.
    pub const fn max_concurrency(mut self, requests: u32) -> Self {
        self.max_concurrency = Some(requests);
        self
    }
}
