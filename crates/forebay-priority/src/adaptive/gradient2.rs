use super::futile::{Cuts, Turn};
use super::search::{Search, Wish, overloaded};
use super::{AdaptiveConfig, LimitAlgorithm, Window};

const TOLERANCE: f64 = 1.5;
const SMOOTHING: f64 = 0.2;
const MEMORY: f64 = 600.0;

#[derive(Debug)]
pub struct Gradient2 {
    search: Search,
    long: f64,
    windows: f64,
    cuts: Cuts,
    turn: Turn,
    grow: bool,
}

impl Gradient2 {
    pub fn new(config: &AdaptiveConfig) -> Self {
        Self { search: Search::new(config), long: 0.0, windows: 0.0, cuts: Cuts::None, turn: Turn::default(), grow: true }
    }
}

impl LimitAlgorithm for Gradient2 {
    fn update(&mut self, window: &Window) -> usize {
        self.search.observe(window);
        let limit = self.search.limit();
        if window.samples > 0 {
            let mean = window.mean.as_secs_f64().max(1e-9);
            self.windows = (self.windows + 1.0).min((MEMORY + 1.0) / 2.0);
            self.long += (mean - self.long) / self.windows;
            if self.long > 2.0 * mean { self.long *= 0.95; }
        }
        let mut wish = if self.grow { Wish::Grow(SMOOTHING * limit.sqrt()) } else { Wish::Stay };
        if overloaded(window) {
            wish = Wish::Cut(1.0 - SMOOTHING * 0.5)
        } else if let Some(short) = self.turn.add(window) {
            let g = (TOLERANCE * self.long / short).clamp(0.5, 1.0);
            self.grow = g == 1.0;
            if self.grow { self.cuts.good(); }
            else if self.cuts.futile(limit, short) { self.long = short; self.grow = true; }
            else { wish = Wish::Cut(1.0 - SMOOTHING * (1.0 - g)); }
        };
        self.search.apply(window, wish)
    }
}
