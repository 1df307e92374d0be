
use std::time::Duration;
use super::futile::{Cuts, Turn};
use super::search::{Search, Wish, overloaded};
use super::{AdaptiveConfig, LimitAlgorithm, Window};

#[derive(Debug)]
pub struct Aimd { search: Search, target: f64, raised: f64, cuts: Cuts, turn: Turn, grow: bool }
impl Aimd {
    pub fn new(config: &AdaptiveConfig, target: Duration) -> Self { let target = target.as_secs_f64(); Self { search: Search::new(config), target, raised: target, cuts: Cuts::None, turn: Turn::default(), grow: true } }
}
impl LimitAlgorithm for Aimd {
    fn update(&mut self, window: &Window) -> usize {
        self.search.observe(window);
        let mut wish = if self.grow { Wish::Grow(1.0) } else { Wish::Stay };
        if overloaded(window) { wish = Wish::Cut(0.9) }
        else if let Some(mean) = self.turn.add(window) {
            if mean <= self.target { self.raised = self.target; }
            self.grow = mean <= self.raised;
            if self.grow { self.cuts.good(); }
            else if self.cuts.futile(self.search.limit(), mean) { self.raised = mean * 1.5; self.grow = true; }
            else { wish = Wish::Cut(0.9); }
        }
        self.search.apply(window, wish)
    }
}
