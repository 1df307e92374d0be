use std::fmt;
use std::sync::Arc;

use tower_layer::Layer;

use crate::shared::Shared;
use crate::{Cache, CacheBuilder, Memory};

/// Answers a repeated request from a cache: see the [crate's page](crate).
pub struct CacheLayer<#[cfg(feature = "moka")] M = crate::MokaStore, #[cfg(not(feature = "moka"))] M> {
    pub(crate) shared: Arc<Shared<M>>,
}

#[cfg(feature = "moka")]
impl CacheLayer {
    /// Starts with a [`MokaStore`](crate::MokaStore) of 256 MiB.
    pub fn builder() -> CacheBuilder<crate::MokaStore> {
        CacheBuilder::new(crate::MokaStore::default())
    }
}

impl<M: Memory> CacheLayer<M> {
    /// Starts with this memory.
    pub fn with_memory(memory: M) -> CacheBuilder<M> {
        CacheBuilder::new(memory)
    }
}

impl<M> Clone for CacheLayer<M> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<M> fmt::Debug for CacheLayer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheLayer").finish_non_exhaustive()
    }
}

impl<S, M> Layer<S> for CacheLayer<M> {
    type Service = Cache<S, M>;

    fn layer(&self, inner: S) -> Cache<S, M> {
        Cache { inner, shared: Arc::clone(&self.shared) }
    }
}
