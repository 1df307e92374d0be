use super::cuts::{Cuts, Turn};
use super::search::{Search, Wish};
use super::{AdaptiveConfig, LimitAlgorithm, Window};

/// A latency of up to this many times the long-term one is no sign of a queue.
const TOLERANCE: f64 = 1.5;
/// How much of what the gradient asks for is done at once.
const SMOOTHING: f64 = 0.2;
/// The gradient never asks for less than half the limit; nor does an overload ask for more.
const STEEPEST: f64 = 0.5;
/// The long-term latency is an exponential mean over so many windows.
const MEMORY: f64 = 600.0;
/// How much of the long-term latency is forgotten in a window in which it is out of date: twice the present one.
const FORGET: f64 = 0.05;

/// Compares the latency of now with its long-term mean: once answers take 1.5 times as long, a queue is building up at
/// the backend, and the limit falls; until then it may grow by a fifth of its root per window.
///
/// After Gradient2 of Netflix's concurrency-limits, from which it departs where that one drifts: growth has to pay, a
/// cut has to help, and a cut is made once per turn of the limit, not once per window. The [module](super) says why.
#[derive(Debug)]
pub struct Gradient2 {
    search: Search,
    turn: Turn,
    cuts: Cuts,
    /// Seconds; 0 before the first window.
    long: f64,
    /// How many windows `long` is the mean of, up to what makes it exponential over [`MEMORY`].
    windows: f64,
    /// The last turn had a good latency.
    good: bool,
}

impl Gradient2 {
    /// The algorithm at its start, within the bounds of `config`.
    #[must_use]
    pub fn new(config: &AdaptiveConfig) -> Self {
        Self {
            search: Search::new(config),
            turn: Turn::default(),
            cuts: Cuts::default(),
            long: 0.0,
            windows: 0.0,
            good: true,
        }
    }

    fn remember(&mut self, window: &Window) {
        if window.samples == 0 {
            return;
        }
        let short = window.mean.as_secs_f64();
        // A plain mean at first, then exponential with the usual weight of 2 / (n + 1).
        self.windows = (self.windows + 1.0).min(f64::midpoint(MEMORY, 1.0));
        self.long += (short - self.long) / self.windows;
        if self.long > 2.0 * short {
            self.long *= 1.0 - FORGET;
        }
    }

    fn wish(&mut self, window: &Window) -> Wish {
        let limit = self.search.limit();
        if Search::overloaded(window) {
            return Wish::Cut(1.0 - SMOOTHING * (1.0 - STEEPEST));
        }
        if let Some(short) = self.turn.add(window) {
            let gradient = (TOLERANCE * self.long / short).clamp(STEEPEST, 1.0);
            self.good = gradient >= 1.0;
            if self.good {
                self.cuts.calm();
            } else if self.cuts.futile(limit, short) {
                self.long = short; // no queue of our making: this is how long it takes now
                self.good = true;
            } else {
                return Wish::Cut(1.0 - SMOOTHING * (1.0 - gradient));
            }
        }
        if self.good && window.samples > 0 { Wish::Grow(SMOOTHING * limit.sqrt()) } else { Wish::Stay }
    }
}

impl LimitAlgorithm for Gradient2 {
    fn update(&mut self, window: &Window) -> usize {
        self.search.observe(window);
        self.remember(window);
        let wish = self.wish(window);
        self.search.apply(window, wish)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A window of a limit in full use, as long as a turn.
    fn window(limit: usize, mean_ms: u64) -> Window {
        Window {
            length: Duration::from_millis(100),
            samples: 100,
            completed: 100,
            mean: Duration::from_millis(mean_ms),
            peak_in_flight: limit,
            mean_in_flight: limit as f64,
            limit,
            ..Window::default()
        }
    }

    fn settled(limit: usize) -> Gradient2 {
        let mut algorithm = Gradient2::new(&AdaptiveConfig { initial: limit, ..AdaptiveConfig::default() });
        assert_eq!(algorithm.update(&window(limit, 50)), limit);
        algorithm
    }

    #[test]
    fn a_latency_within_the_tolerance_is_no_reason_to_cut() {
        assert_eq!(settled(50).update(&window(50, 74)), 50);
    }

    #[test]
    fn beyond_it_the_limit_falls_by_a_fifth_of_what_the_gradient_asks() {
        let mut algorithm = settled(50);
        let now = algorithm.update(&window(50, 125)); // long is 87.5 of the first two: not yet
        assert_eq!(now, 50);
        let mut algorithm = settled(50);
        algorithm.windows = 300.0;
        assert_eq!(algorithm.update(&window(50, 125)), 46); // gradient 0.602: 50 x (1 - 0.2 x 0.398)
        let mut algorithm = settled(50);
        algorithm.windows = 300.0;
        assert_eq!(algorithm.update(&window(50, 5000)), 45, "never by more than a tenth");
    }

    #[test]
    fn an_overload_costs_a_tenth() {
        let refused = Window { overloads: 10, ..window(50, 50) };
        assert_eq!(settled(50).update(&refused), 45);
    }

    #[test]
    fn a_long_term_latency_out_of_date_is_forgotten_fast() {
        let mut algorithm = settled(50);
        (algorithm.windows, algorithm.long) = (300.0, 10.0);
        let windows = (1..).find(|_| {
            let limit = algorithm.search.limit().round() as usize;
            algorithm.update(&window(limit, 50));
            algorithm.long <= 0.1
        });
        assert!(windows.is_some_and(|n| n < 100), "{windows:?}"); // by the mean alone it takes 1500
    }
}
