use std::time::{Duration, Instant};

/// A weight of 1 in the units that weights are kept in.
pub(super) const UNIT: u32 = 256;

/// Brings a new or recovered endpoint in step by step: its weight is multiplied by
/// `max(0.1, p^(1/aggression))`, where `p` is the part of the window that has passed (as in Envoy's slow start).
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct SlowStart {
    /// How long it takes, more than 0.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub window: Duration,
    /// 1: linear; above: faster at first; below: slower at first. More than 0. Default 1.
    #[cfg_attr(feature = "serde", serde(default = "linear"))]
    pub aggression: f32,
    /// So many exchanges must have ended well, too: `p = min(t/window, (done + 1)/n)`. Default 0: none.
    #[cfg_attr(feature = "serde", serde(default))]
    pub after_completions: u32,
}

#[cfg(feature = "serde")]
const fn linear() -> f32 {
    1.0
}

impl SlowStart {
    /// A linear start over `window`.
    #[must_use]
    pub const fn new(window: Duration) -> Self {
        Self { window, aggression: 1.0, after_completions: 0 }
    }

    /// Sets [`aggression`](Self::aggression).
    #[must_use]
    pub const fn aggression(mut self, aggression: f32) -> Self {
        self.aggression = aggression;
        self
    }

    /// Sets [`after_completions`](Self::after_completions).
    #[must_use]
    pub const fn after_completions(mut self, exchanges: u32) -> Self {
        self.after_completions = exchanges;
        self
    }

    pub(crate) fn check(&self, problems: &mut Vec<String>) {
        if self.window.is_zero() {
            problems.push("slow_start.window is 0: more than 0".to_owned());
        }
        if !(self.aggression > 0.0 && self.aggression.is_finite()) {
            problems.push(format!("slow_start.aggression is {}: more than 0, finite", self.aggression));
        }
    }
}

/// An endpoint that is starting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Starting {
    config: SlowStart,
    since: Instant,
    done: u32,
    /// When the weight is looked at again.
    pub(super) due: Instant,
}

impl Starting {
    pub(super) fn new(config: SlowStart, now: Instant) -> Self {
        Self { config, since: now, done: 0, due: now + Self::step(&config) }
    }

    fn step(config: &SlowStart) -> Duration {
        (config.window / 64).max(Duration::from_millis(10))
    }

    pub(super) const fn success(&mut self) {
        self.done = self.done.saturating_add(1);
    }

    /// The factor now, 0.1 to 1; 1: it has started.
    pub(super) fn factor(&self, now: Instant) -> f32 {
        let time = now.saturating_duration_since(self.since).as_secs_f64() / self.config.window.as_secs_f64();
        let done = match self.config.after_completions {
            0 => 1.0,
            n => (f64::from(self.done) + 1.0) / f64::from(n),
        };
        let part = time.min(done).clamp(0.0, 1.0);
        (part.powf(1.0 / f64::from(self.config.aggression)) as f32).max(0.1)
    }

    pub(super) fn tick(&mut self, now: Instant) {
        if self.due <= now {
            self.due = now + Self::step(&self.config);
        }
    }
}

/// One step of a factor towards what was judged: at most a quarter up or half down, and not for less than a tenth, so
/// that one bad probe cannot empty a fleet.
pub(super) fn step(from: f32, to: f32) -> f32 {
    let to = if to.is_finite() { to.clamp(0.0, 1.0) } else { 1.0 };
    if (to - from).abs() < 0.1 * from {
        return if to == 1.0 { 1.0 } else { from };
    }
    to.clamp(from * 0.5, from * 1.25).max(1.0 / UNIT as f32)
}

/// The weight in use, in 1/256, at least 1/256 unless it drains.
pub(super) fn effective(base: u16, factor: f32) -> u32 {
    let full = u32::from(base) * UNIT;
    if base == 0 || factor >= 1.0 { full } else { ((full as f32 * factor) as u32).clamp(1, full) }
}
