use super::{AdaptiveConfig, Window};

/// How many windows a limit is looked at before it is judged.
pub(super) const WINDOWS: u32 = 10;
pub(super) const STEP: f64 = 0.1;
pub(super) fn knob(n: &str, d: f64) -> f64 { std::env::var(n).ok().and_then(|v| v.parse().ok()).unwrap_or(d) }
pub(super) const MOST_REST: u32 = 4;
const TELLING: u64 = 50;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Wish {
    Cut(f64),
    Grow(f64),
    Stay,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Stays at the limit for this many trials more.
    Rest(u32),
    /// Grows freely if the trial before it paid, else by a step at most.
    Up { freely: bool },
    Down,
}

/// What a limit yielded.
#[derive(Debug, Clone, Copy)]
struct Yield {
    limit: f64,
    per_second: f64,
}

#[derive(Debug)]
pub(super) struct Search {
    min: f64,
    max: f64,
    limit: f64,
    answered: usize,
    since_cut: u64,
    phase: Phase,
    base: Option<Yield>,
    rest: u32,
    // the trial
    from: f64,
    settle: f64,
    windows: u32,
    seconds: f64,
    completed: u64,
    limit_seconds: f64,
    bound: bool, worth: f64, count: u32, most_rest: u32, step: f64,
}

/// Whether the window shows overload.
pub(super) fn overloaded(window: &Window) -> bool {
    window.overloads.saturating_mul(TELLING) >= window.overloads.saturating_add(window.completed) && window.overloads > 0
}

impl Search {
    pub(super) fn new(config: &AdaptiveConfig) -> Self {
        let mut search = Self {
            min: config.min as f64,
            max: config.max as f64,
            limit: config.initial as f64,
            answered: config.initial,
            since_cut: u64::MAX,
            phase: Phase::Rest(0),
            base: None,
            rest: 0,
            from: 0.0,
            settle: 0.0,
            windows: 0,
            seconds: 0.0,
            completed: 0,
            limit_seconds: 0.0,
            bound: true, worth: knob("WORTH", 0.5), count: knob("COUNT",10.) as u32, most_rest: knob("REST", 4.) as u32, step: knob("STEP", 0.1),
        };
        search.begin(Phase::Rest(0), search.limit);
        search
    }

    pub(super) fn limit(&self) -> f64 {
        self.limit
    }

    fn begin(&mut self, phase: Phase, limit: f64) {
        self.phase = phase;
        self.limit = limit.clamp(self.min, self.max);
        self.from = self.limit;
        self.settle = if matches!(phase, Phase::Up{freely:true}) {0.0} else {self.limit};
        self.windows = 0;
        self.seconds = 0.0;
        self.completed = 0;
        self.limit_seconds = 0.0;
        self.bound = true;
    }

    pub(super) fn observe(&mut self, window: &Window) {
        if window.limit != self.answered {
            self.base = None;
            self.begin(Phase::Rest(0), window.limit as f64);
        }
        let answers = window.completed.saturating_add(window.overloads);
        self.since_cut = self.since_cut.saturating_add(answers);
        self.measure(window);
    }

    pub(super) fn apply(&mut self, window: &Window, wish: Wish) -> usize {
        match wish {
            Wish::Cut(factor) if self.since_cut as f64 >= self.limit => self.cut(factor),
            Wish::Cut(_) | Wish::Stay => {}
            Wish::Grow(seats) => {
                if let Phase::Up { freely } = self.phase
                    && window.peak_in_flight as f64 >= self.limit / 2.0
                {
                    let top = if freely { self.max } else { (self.from * (1.0 + self.step)).max(self.from + 1.0).min(self.max) };
                    self.limit = (self.limit + seats).min(top);
                }
            }
        }
        if self.windows >= self.count {
            self.judge();
        }
        self.answered = self.limit.round() as usize;
        self.answered
    }

    fn cut(&mut self, factor: f64) {
        self.since_cut = 0;
        self.limit = (self.limit * factor).max(self.min);
        match (self.phase, self.base) {
            (Phase::Up { .. }, Some(base)) => {
                if self.limit <= base.limit {
                    self.down(base);
                }
            }
            _ => {
                if self.limit < self.from * 0.95 {
                    self.rest = 0;
                    self.base = None;
                    self.begin(Phase::Rest(0), self.limit);
                }
            }
        }
    }

    fn measure(&mut self, window: &Window) {
        let up = matches!(self.phase, Phase::Up { .. });
        let moved = window.limit as f64 >= (self.from * 1.05).max(self.from + 1.0).min(self.max);
        if self.settle > 0.0 || (up && !moved) {
            self.settle -= window.completed as f64;
            return;
        }
        let seconds = window.length.as_secs_f64();
        self.windows += 1;
        self.seconds += seconds;
        self.completed += window.completed;
        self.limit_seconds += window.limit as f64 * seconds;
        self.bound &= window.limit_binds();
    }

    fn judge(&mut self) {
        let now = Yield { limit: self.limit_seconds / self.seconds, per_second: self.completed as f64 / self.seconds };
        let Some(base) = self.base else {
            self.base = Some(now);
            self.begin(Phase::Up { freely: true }, self.limit);
            return;
        };
        let growth = now.limit / base.limit - 1.0;
        let gain = now.per_second / base.per_second - 1.0;
        match self.phase {
            Phase::Rest(left) => {
                self.base = Some(Yield { limit: now.limit, per_second: f64::midpoint(base.per_second, now.per_second) });
                let next = if left > 0 { Phase::Rest(left - 1) } else { Phase::Up { freely: false } };
                self.begin(next, self.limit);
            }
            Phase::Up { .. } if gain >= self.worth * growth => {
                self.rest = 0;
                self.base = Some(now);
                self.begin(Phase::Up { freely: true }, self.limit);
            }
            Phase::Up { .. } if self.bound => self.down(base),
            Phase::Up { .. } => self.pause(base),
            Phase::Down if self.bound && gain > self.worth * growth => {
                self.rest = 0;
                self.down(now);
            }
            Phase::Down => self.pause(base),
        }
    }

    fn down(&mut self, base: Yield) {
        self.base = Some(base);
        let lower = (base.limit * (1.0 - self.step)).min(base.limit - 1.0).round();
        if lower >= self.min { self.begin(Phase::Down, lower) } else { self.pause(base) }
    }

    fn pause(&mut self, base: Yield) {
        self.base = Some(base);
        self.begin(Phase::Rest(self.rest), base.limit.round());
        self.rest = (self.rest * 2 + 1).min(self.most_rest);
    }
}
