//! The part that both algorithms share: the limit itself, and the experiments that decide what of a change stays.

use super::trial::{Trial, Yield};
use super::{AdaptiveConfig, Window};

/// How far a trial moves the limit. Each trial costs up to this share of the answers, or adds as much to the latency.
const STEP: f64 = 0.1;
/// How far one trial may grow after one that paid.
const STRIDE: f64 = 0.25;
/// A change of the limit pays if the answers per second follow it by this share: 10 % more limit must bring 3 % more.
///
/// "1 % more answers" would be lost in the noise: over ten windows the rate of a busy server has a standard deviation
/// of 1 to 5 %. A half, the point of the greatest power (Kleinrock), rests at up to 5 % below the knee; 0.3 gives up
/// 3 % at most and still stops a random walk upwards, which 0.2 did not in simulation with exponential service times.
const WORTH: f64 = 0.3;
/// The longest rest between two rounds of trials, in trials; longer where one exchange is more than a [`STEP`].
const MOST_REST: f64 = 4.0;
/// One answer in this many must be an overload for a cut. A backend that refuses what is too much refuses far more; a
/// steady trickle of errors would otherwise walk the limit down to its minimum, at which it would not stop.
const TELLING: u64 = 50;

/// What an algorithm would like after a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Wish {
    /// This share of the limit, below 1.
    Cut(f64),
    /// So many exchanges more.
    Grow(f64),
    Stay,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// At rest, for this many trials more after the present one.
    Rest(u32),
    /// A larger limit is on trial: a step larger, or freely after a trial that paid.
    Up { freely: bool },
    /// A smaller one is.
    Down,
}

/// A limit in search of the knee: the smallest that yields about as much as any.
///
/// ```text
/// Rest => Up             what the limit yields is known
/// Up   => Up, freely     the growth paid
/// Up   => Down           it did not, or the latency took it away, and the limit was in full use
/// Up   => Rest           it did not, as the load had no use for it: back to where it was
/// Down => Down           the smaller limit yields as much
/// Down => Rest           it does not: back to where it was, and a longer rest each time
/// any  => Rest           the algorithm cut deeply: what the new limit yields is not known
/// ```
#[derive(Debug)]
pub(super) struct Search {
    min: f64,
    max: f64,
    limit: f64,
    answered: usize,
    phase: Phase,
    trial: Trial,
    /// What the limit yields that the present trial is measured against.
    base: Option<Yield>,
    /// What the last window made of the trial.
    found: Option<Yield>,
    /// Answers since the last cut.
    since_cut: u64,
    next_rest: u32,
}

impl Search {
    pub(super) fn new(config: &AdaptiveConfig) -> Self {
        let limit = config.initial as f64;
        Self {
            min: config.min as f64,
            max: config.max as f64,
            limit,
            answered: config.initial,
            phase: Phase::Rest(0),
            trial: Trial::of(limit),
            base: None,
            found: None,
            since_cut: u64::MAX,
            next_rest: 0,
        }
    }

    /// The limit, unrounded.
    pub(super) fn limit(&self) -> f64 {
        self.limit
    }

    /// Whether so many of the answers were overloads that the limit must be cut.
    pub(super) fn overloaded(window: &Window) -> bool {
        let answers = window.completed.saturating_add(window.overloads);
        window.overloads > 0 && window.overloads.saturating_mul(TELLING) >= answers
    }

    /// First after each window: what it says about the trial. Then [`apply`](Self::apply).
    pub(super) fn observe(&mut self, window: &Window) {
        if window.limit != self.answered {
            self.start_over(window.limit as f64); // somebody else has set it
        }
        let answers = window.completed.saturating_add(window.overloads);
        self.since_cut = self.since_cut.saturating_add(answers);
        self.found = self.trial.add(window);
    }

    /// The limit from now on, given what the algorithm would like.
    pub(super) fn apply(&mut self, window: &Window, wish: Wish) -> usize {
        match wish {
            // Once per turn: what was in flight at the last cut cannot show its effect.
            Wish::Cut(share) if self.since_cut as f64 >= self.limit => self.cut(share),
            Wish::Grow(seats) if window.peak_in_flight as f64 >= self.limit / 2.0 => self.grow(seats),
            Wish::Cut(_) | Wish::Grow(_) | Wish::Stay => {}
        }
        if let Some(found) = self.found.take() {
            self.judge(found);
        }
        self.answered = self.limit.round() as usize;
        self.answered
    }

    fn grow(&mut self, seats: f64) {
        let from = self.trial.from;
        let most = match self.phase {
            Phase::Up { freely: true } => (from * (1.0 + STRIDE)).max(from + 4.0),
            Phase::Up { freely: false } => (from * (1.0 + STEP)).max(from + 1.0),
            Phase::Rest(_) | Phase::Down => return,
        };
        self.limit = (self.limit + seats).min(most).min(self.max);
    }

    fn cut(&mut self, share: f64) {
        self.since_cut = 0;
        self.limit = (self.limit * share).max(self.min);
        match (self.phase, self.base) {
            (Phase::Up { .. }, Some(base)) if self.limit > base.limit => {} // some of the growth is left: go on
            (Phase::Up { .. }, Some(base)) => self.down(base),
            _ if self.limit < 0.95 * self.trial.from => self.start_over(self.limit),
            _ => {} // the trial stands: it takes the mean of the limit
        }
    }

    fn start_over(&mut self, limit: f64) {
        self.base = None;
        self.next_rest = 0;
        self.begin(Phase::Rest(0), limit);
    }

    fn begin(&mut self, phase: Phase, limit: f64) {
        let limit = limit.clamp(self.min, self.max);
        self.found = None;
        self.limit = limit;
        self.phase = phase;
        let grown = (limit * (1.0 + STEP / 2.0)).max(limit + 1.0).min(self.max);
        self.trial = match phase {
            Phase::Rest(_) | Phase::Down => Trial::of(limit),
            Phase::Up { freely: false } => Trial::growing(limit, grown, limit),
            Phase::Up { freely: true } => Trial::growing(limit, grown, 0.0), // goes on where the one before ended
        };
    }

    fn judge(&mut self, found: Yield) {
        let Some(base) = self.base else {
            self.base = Some(found);
            return self.begin(Phase::Up { freely: true }, self.limit);
        };
        let growth = found.limit / base.limit - 1.0;
        let gain = found.per_second / base.per_second.max(f64::MIN_POSITIVE) - 1.0;
        match self.phase {
            Phase::Rest(left) => {
                let per_second = f64::midpoint(base.per_second, found.per_second);
                self.base = Some(Yield { per_second, ..found });
                let next = left.checked_sub(1).map_or(Phase::Up { freely: false }, Phase::Rest);
                self.begin(next, self.limit);
            }
            Phase::Up { .. } if found.reached && growth > 0.0 && gain >= WORTH * growth => {
                self.next_rest = 0;
                self.base = Some(found);
                self.begin(Phase::Up { freely: true }, self.limit);
            }
            Phase::Up { .. } if found.bound => self.down(base),
            Phase::Down if found.bound && gain > WORTH * growth => {
                self.next_rest = 0;
                self.down(found);
            }
            Phase::Up { .. } | Phase::Down => self.rest(base),
        }
    }

    /// Tries a step less than `base`, if that is allowed.
    fn down(&mut self, base: Yield) {
        let lower = (base.limit * (1.0 - STEP)).min(base.limit - 1.0).round();
        if lower < self.min {
            return self.rest(base);
        }
        self.base = Some(base);
        self.begin(Phase::Down, lower);
    }

    /// Goes back to `base`.
    fn rest(&mut self, base: Yield) {
        self.base = Some(base);
        self.begin(Phase::Rest(self.next_rest), base.limit.round());
        let most = MOST_REST * (1.0 / (STEP * self.limit)).max(1.0);
        self.next_rest = (self.next_rest * 2 + 1).min(most as u32);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// A limit in full use at a backend that answers `per_second` a second at most, and 20 for each in flight.
    fn window(limit: usize, most: f64) -> Window {
        Window {
            length: Duration::from_millis(100),
            completed: (most.min(20.0 * limit as f64) / 10.0) as u64,
            peak_in_flight: limit,
            mean_in_flight: limit as f64,
            limit,
            ..Window::default()
        }
    }

    fn search(initial: usize) -> Search {
        Search::new(&AdaptiveConfig { initial, max: 200, ..AdaptiveConfig::default() })
    }

    /// The limits of so many windows.
    fn run(search: &mut Search, windows: usize, look: impl Fn(usize) -> Window) -> Vec<usize> {
        let step = |_| {
            let window = look(search.answered);
            search.observe(&window);
            search.apply(&window, Wish::Grow(1.0))
        };
        (0..windows).map(step).collect()
    }

    #[test]
    fn growth_that_pays_goes_on_up_to_the_maximum() {
        let limits = run(&mut search(16), 600, |limit| window(limit, f64::INFINITY));
        assert_eq!(limits.iter().max(), Some(&200));
        assert!(limits[500..].iter().all(|limit| *limit >= 180), "{limits:?}");
    }

    #[test]
    fn growth_that_brings_nothing_is_undone() {
        let limits = run(&mut search(50), 1000, |limit| window(limit, 1000.0));
        assert!(limits[100..].iter().all(|limit| (44..=60).contains(limit)), "{limits:?}");
    }

    #[test]
    fn a_limit_beyond_the_knee_comes_down_to_it() {
        let limits = run(&mut search(150), 1000, |limit| window(limit, 1000.0));
        assert!(limits[400..].iter().all(|limit| (44..=60).contains(limit)), "{limits:?}");
    }

    #[test]
    fn no_growth_while_less_than_half_of_it_is_in_use() {
        let idle = |limit| Window { peak_in_flight: 7, mean_in_flight: 3.0, ..window(limit, 60.0) };
        assert!(run(&mut search(16), 1000, idle).iter().all(|limit| *limit == 16));
    }

    #[test]
    fn a_load_that_does_not_reach_the_limit_moves_it_neither_up_nor_down() {
        let load = |limit: usize| Window { peak_in_flight: 16, mean_in_flight: 12.0, ..window(limit, 240.0) };
        let limits = run(&mut search(20), 1000, load);
        assert!(limits.iter().all(|limit| (20..=25).contains(limit)), "{limits:?}");
    }

    #[test]
    fn a_limit_set_by_somebody_else_is_where_it_goes_on() {
        let mut search = search(16);
        run(&mut search, 50, |limit| window(limit, f64::INFINITY));
        let set = window(100, f64::INFINITY);
        search.observe(&set);
        assert_eq!(search.apply(&set, Wish::Grow(1.0)), 100);
    }

    #[test]
    fn one_error_in_many_answers_is_no_overload() {
        let of = |overloads, completed| Search::overloaded(&Window { overloads, completed, ..Window::default() });
        assert!(!of(0, 0) && !of(1, 50) && of(1, 49) && of(1, 0) && of(u64::MAX, u64::MAX));
    }

    fn any_window() -> impl Strategy<Value = Window> {
        let counts = (any::<u16>(), any::<u16>(), any::<u16>());
        (counts, prop::option::of(0_u64..2_000_000_000), 0_usize..300, any::<bool>()).prop_map(
            |((completed, overloads, peak), length, limit, huge)| Window {
                length: length.map_or(Duration::MAX, Duration::from_nanos),
                completed: if huge { u64::MAX } else { completed.into() },
                overloads: (overloads / 1000).into(),
                peak_in_flight: peak.into(),
                mean_in_flight: peak.into(),
                limit,
                ..Window::default()
            },
        )
    }

    proptest! {
        #[test]
        fn whatever_comes_the_limit_stays_within_its_bounds(
            windows in prop::collection::vec((any_window(), prop::option::of(0.0..1.0), 0.0..50.0), 0..200),
            follow: bool,
        ) {
            let mut search = search(16);
            for (mut window, cut, grow) in windows {
                if follow {
                    window.limit = search.answered;
                }
                search.observe(&window);
                let limit = search.apply(&window, cut.map_or(Wish::Grow(grow), Wish::Cut));
                prop_assert!((2..=200).contains(&limit), "{limit}");
            }
        }
    }
}
