use std::time::Duration;

use super::cuts::{Cuts, Turn};
use super::search::{Search, Wish};
use super::{AdaptiveConfig, LimitAlgorithm, Window};

/// What is left of the limit after a cut.
const DECREASE: f64 = 0.9;
/// What the limit grows by in a window.
const INCREASE: f64 = 1.0;
/// A target that no limit can meet gives way to this many times the latency that cannot be helped.
const ABOVE: f64 = 1.5;

/// Keeps the mean time to the first byte below a target: one more per window, a tenth less when it is too slow.
///
/// Additive increase, multiplicative decrease (Chiu and Jain, 1989). It departs from them in that growth has to pay, a
/// cut has to help, and a cut is made once per turn of the limit; the [module](super) says why. Where cuts do not bring
/// the latency down, since the backend cannot meet the target at all, the target is put aside until it is met again:
/// a late answer is worth more than none.
#[derive(Debug)]
pub struct Aimd {
    search: Search,
    turn: Turn,
    cuts: Cuts,
    /// Seconds.
    target: f64,
    /// The target, or what stands for it while it cannot be met.
    bearable: f64,
    /// The last turn had a good latency.
    good: bool,
}

impl Aimd {
    /// The algorithm at its start, within the bounds of `config`; its `algorithm` is not looked at.
    #[must_use]
    pub fn new(config: &AdaptiveConfig, target: Duration) -> Self {
        let target = target.as_secs_f64();
        Self {
            search: Search::new(config),
            turn: Turn::default(),
            cuts: Cuts::default(),
            target,
            bearable: target,
            good: true,
        }
    }

    fn wish(&mut self, window: &Window) -> Wish {
        if Search::overloaded(window) {
            return Wish::Cut(DECREASE);
        }
        if let Some(mean) = self.turn.add(window) {
            if mean <= self.target {
                self.bearable = self.target;
            }
            self.good = mean <= self.bearable;
            if self.good {
                self.cuts.calm();
            } else if self.cuts.futile(self.search.limit(), mean) {
                self.bearable = ABOVE * mean;
                self.good = true;
            } else {
                return Wish::Cut(DECREASE);
            }
        }
        if self.good && window.samples > 0 { Wish::Grow(INCREASE) } else { Wish::Stay }
    }
}

impl LimitAlgorithm for Aimd {
    fn update(&mut self, window: &Window) -> usize {
        self.search.observe(window);
        let wish = self.wish(window);
        self.search.apply(window, wish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window of 100 answers, with the limit in full use.
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

    fn at(limit: usize) -> Aimd {
        Aimd::new(&AdaptiveConfig { initial: limit, ..AdaptiveConfig::default() }, Duration::from_millis(75))
    }

    #[test]
    fn above_the_target_or_with_overloads_a_tenth_goes() {
        assert_eq!(at(50).update(&window(50, 75)), 50);
        assert_eq!(at(50).update(&window(50, 76)), 45);
        assert_eq!(at(50).update(&Window { overloads: 10, ..window(50, 10) }), 45);
    }

    #[test]
    fn one_cut_per_turn() {
        let mut algorithm = at(500);
        assert_eq!(algorithm.update(&Window { overloads: 10, ..window(500, 10) }), 450);
        for _ in 0..4 {
            assert_eq!(algorithm.update(&Window { overloads: 10, ..window(450, 10) }), 450);
        }
        assert_eq!(algorithm.update(&Window { overloads: 10, ..window(450, 10) }), 405);
    }

    #[test]
    fn a_target_that_cannot_be_met_is_put_aside_until_it_can() {
        let mut algorithm = at(50);
        let mut limit = 50;
        let mut run = |mean, windows| {
            for _ in 0..windows {
                let turns = Window { completed: 2 * limit as u64, ..window(limit, mean) };
                limit = algorithm.update(&turns);
            }
            (limit, algorithm.bearable)
        };
        let (limit, bearable) = run(200, 100);
        assert!(limit >= 20 && (bearable - 0.3).abs() < 1e-9, "{limit}, {bearable}");
        let (_, bearable) = run(50, 3);
        assert!((bearable - 0.075).abs() < 1e-9, "{bearable}");
    }
}
