use std::fmt;

use super::window::{Sampler, Window};
use super::{AdaptiveConfig, LimitAlgorithm};

/// Gathers answers, and asks the algorithm for a new limit whenever a window closes.
///
/// To be kept behind a mutex of its own, not the scheduler's: a window that closes runs the algorithm, which may be the
/// user's. Times are ns from any fixed start. Each call is O(1) but for what the algorithm does.
pub(crate) struct Controller {
    sampler: Sampler,
    algorithm: Box<dyn LimitAlgorithm>,
    limit: usize,
    min: usize,
    max: usize,
}

impl Controller {
    /// The configured algorithm; `config` has been validated.
    pub(crate) fn new(config: &AdaptiveConfig) -> Self {
        Self::with_algorithm(config, config.build())
    }

    /// An algorithm of the user's, within the bounds of `config`.
    pub(crate) fn with_algorithm(config: &AdaptiveConfig, algorithm: Box<dyn LimitAlgorithm>) -> Self {
        let AdaptiveConfig { initial: limit, min, max, .. } = *config;
        Self { sampler: Sampler::new(), algorithm, limit, min, max }
    }

    /// The limit in force.
    #[cfg(test)]
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Somebody else has set the limit: the algorithm goes on from there, within its bounds.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit.max(self.min).min(self.max);
    }

    /// So many exchanges are in flight. Before each sample and overload, the answered one included, is enough; after
    /// each dispatch as well is better.
    pub(crate) fn in_flight(&mut self, exchanges: usize) {
        self.sampler.in_flight(exchanges);
    }

    /// The first byte of an answer came, `latency_ns` after its dispatch. The new limit, if it changes.
    pub(crate) fn sample(&mut self, now_ns: u64, latency_ns: u64, streaming: bool) -> Option<usize> {
        let mut window = self.sampler.sample(now_ns, latency_ns, streaming)?;
        self.update(&mut window)
    }

    /// The backend said, or showed, that it has too much to do. The new limit, if it changes.
    pub(crate) fn overload(&mut self, now_ns: u64) -> Option<usize> {
        let mut window = self.sampler.overload(now_ns)?;
        self.update(&mut window)
    }

    fn update(&mut self, window: &mut Window) -> Option<usize> {
        let before = self.limit;
        window.limit = before;
        self.limit = self.algorithm.update(window).max(self.min).min(self.max);
        (self.limit != before).then_some(self.limit)
    }
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller")
            .field("limit", &self.limit)
            .field("min", &self.min)
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for one value after the other.
    struct Script(Vec<usize>);

    impl LimitAlgorithm for Script {
        fn update(&mut self, _: &Window) -> usize {
            self.0.remove(0)
        }
    }

    #[test]
    fn a_closed_window_moves_the_limit_within_its_bounds() {
        let config = AdaptiveConfig { min: 4, max: 100, ..AdaptiveConfig::default() };
        let mut controller = Controller::with_algorithm(&config, Box::new(Script(vec![50, 50, 0, usize::MAX])));
        let mut now = 0;
        let mut window = || {
            for _ in 0..9 {
                assert_eq!(controller.sample(now, 1, false), None);
            }
            now += 100_000_000;
            (controller.sample(now, 1, false), controller.limit())
        };
        assert_eq!(window(), (Some(50), 50));
        assert_eq!(window(), (None, 50), "no change is no news");
        assert_eq!(window(), (Some(4), 4));
        assert_eq!(window(), (Some(100), 100));
    }

    #[test]
    fn a_limit_set_from_outside_is_where_the_algorithm_goes_on() {
        let mut controller = Controller::new(&AdaptiveConfig::default());
        controller.set_limit(200);
        let mut now = 0;
        for _ in 0..30 {
            controller.in_flight(200);
            now += 10_000_000;
            controller.sample(now, 50_000_000, false);
        }
        assert_eq!(controller.limit(), 200);
        controller.set_limit(1);
        assert_eq!(controller.limit(), 2, "the minimum");
    }
}
