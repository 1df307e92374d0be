use super::window::{Sampler, Window};
use super::{AdaptiveConfig, LimitAlgorithm};

/// Gathers answers, and asks the algorithm for the new limit whenever a window closes. Never takes the time.
pub(crate) struct Controller {
    sampler: Sampler,
    algorithm: Box<dyn LimitAlgorithm>,
    limit: usize,
    min: usize,
    max: usize,
}

impl Controller {
    pub(crate) fn new(config: &AdaptiveConfig) -> Self {
        Self::with_algorithm(config, config.build())
    }
    pub(crate) fn with_algorithm(config: &AdaptiveConfig, algorithm: Box<dyn LimitAlgorithm>) -> Self {
        Self { sampler: Sampler::new(), algorithm, limit: config.initial, min: config.min, max: config.max }
    }
    pub(crate) fn limit(&self) -> usize { self.limit }
    pub(crate) fn in_flight(&mut self, n: usize) { self.sampler.in_flight(n); }
    pub(crate) fn sample(&mut self, now_ns: u64, latency_ns: u64, streaming: bool) -> Option<usize> {
        let window = self.sampler.sample(now_ns, latency_ns, streaming)?;
        self.close(window)
    }
    pub(crate) fn overload(&mut self, now_ns: u64) -> Option<usize> {
        let window = self.sampler.overload(now_ns)?;
        self.close(window)
    }
    fn close(&mut self, mut window: Window) -> Option<usize> {
        window.limit = self.limit;
        let limit = self.algorithm.update(&window).max(self.min).min(self.max);
        let changed = limit != self.limit;
        self.limit = limit;
        changed.then_some(limit)
    }
}
