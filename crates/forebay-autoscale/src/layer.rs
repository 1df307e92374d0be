use tower_layer::Layer;

use crate::{Autoscale, AutoscaleBuilder, DemandSignal};

/// Counts the requests that pass, per class, and passes every one on at once. See the [crate] page.
#[derive(Debug, Clone)]
pub struct AutoscaleLayer {
    signal: DemandSignal,
}

impl AutoscaleLayer {
    /// Starts the configuration.
    pub fn builder() -> AutoscaleBuilder {
        AutoscaleBuilder::default()
    }

    pub(crate) fn new(signal: DemandSignal) -> Self {
        Self { signal }
    }
}

impl<S> Layer<S> for AutoscaleLayer {
    type Service = Autoscale<S>;

    fn layer(&self, inner: S) -> Autoscale<S> {
        Autoscale::new(inner, self.signal.clone())
    }
}
