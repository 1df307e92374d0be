use std::time::{Duration, Instant};

/// When an endpoint that fails is left out for a while.
///
/// After [`consecutive_errors`](Self::consecutive_errors) in a row, or when at least [`error_ratio`](Self::error_ratio)
/// of [`min_requests`](Self::min_requests) or more in the last [`window`](Self::window) failed, an endpoint is ejected:
/// for [`base`](Self::base), twice as long each further time, [`max`](Self::max) at most, and up to a tenth longer at
/// random. Then one request tries it; if that succeeds, the endpoint comes back with a slow start. Each healthy spell as
/// long as the last ejection makes the next one shorter by one step.
///
/// At most half of a pool is ejected at a time, never the last endpoint. A busy endpoint is not a broken one: see the
/// crate page. The shape is that of Envoy's outlier detection.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Outlier {
    /// Errors in a row, at least 1. Default 5.
    pub consecutive_errors: u32,
    /// The failing part, more than 0 to 1. Default 0.5.
    pub error_ratio: f32,
    /// Fewer exchanges than these tell nothing, at least 1. Default 20.
    pub min_requests: u32,
    /// How far back exchanges count, in ten steps; at least 10 ms. Default 10 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub window: Duration,
    /// The first ejection. Default 5 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub base: Duration,
    /// The longest ejection, at least `base`. Default 300 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub max: Duration,
}

impl Default for Outlier {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            consecutive_errors: 5,
            error_ratio: 0.5,
            min_requests: 20,
            window: seconds(10),
            base: seconds(5),
            max: seconds(300),
        }
    }
}

impl Outlier {
    pub(crate) fn check(&self, problems: &mut Vec<String>) {
        if self.consecutive_errors == 0 {
            problems.push("outlier.consecutive_errors is 0: at least 1".to_owned());
        }
        if !(self.error_ratio > 0.0 && self.error_ratio <= 1.0) {
            problems.push(format!("outlier.error_ratio is {}: more than 0, at most 1", self.error_ratio));
        }
        if self.min_requests == 0 {
            problems.push("outlier.min_requests is 0: at least 1".to_owned());
        }
        if self.window < Duration::from_millis(10) {
            problems.push(format!("outlier.window is {:?}: at least 10ms", self.window));
        }
        if self.base.is_zero() || self.max < self.base {
            let (base, max) = (self.base, self.max);
            problems.push(format!("outlier.base is {base:?}, outlier.max {max:?}: more than 0, and no more than max"));
        }
    }

    fn duration(&self, level: u32) -> Duration {
        self.base.saturating_mul(1_u32.checked_shl(level).unwrap_or(u32::MAX)).min(self.max)
    }
}

/// Why an endpoint is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EjectCause {
    ConsecutiveErrors,
    ErrorRatio,
    /// The request that tried it failed.
    Trial,
}

impl EjectCause {
    pub(crate) const ALL: [Self; 3] = [Self::ConsecutiveErrors, Self::ErrorRatio, Self::Trial];

    /// Its name in metrics.
    #[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "only numbers have names"))]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveErrors => "consecutive_errors",
            Self::ErrorRatio => "error_ratio",
            Self::Trial => "trial",
        }
    }
}

/// Whether an endpoint takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Up,
    /// `None`: until it is cleared.
    Ejected {
        until: Option<Instant>,
    },
    /// One request tries it: the ticket of its pick, once it is under way.
    Probation {
        trial: Option<u64>,
    },
}

const STEPS: usize = 10;

/// What an endpoint has answered lately.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) phase: Phase,
    consecutive: u32,
    /// Successes that are in no step yet: they belong to the newest.
    untold: u64,
    /// Successes and errors by step of the window; `at` is the newest step.
    steps: [(u32, u32); STEPS],
    at: u64,
    /// How often it was ejected without a healthy spell in between.
    level: u32,
    /// How long the last ejection was meant to last, and since when it has been back.
    last: Duration,
    back_since: Option<Instant>,
}

impl Record {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::Up,
            consecutive: 0,
            untold: 0,
            steps: [(0, 0); STEPS],
            at: 0,
            level: 0,
            last: Duration::ZERO,
            back_since: None,
        }
    }

    /// So many successes. When it is known when they were, [`step`](Self::step) was told before.
    pub(super) const fn successes(&mut self, many: u32) {
        if many > 0 {
            self.consecutive = 0;
            self.untold += many as u64;
        }
    }

    /// Goes on to the step of the window that `since` (the time since a fixed instant) lies in, cleared if it is a new
    /// one. Successes until then count for the newest before, as of most the time is not known.
    pub(super) fn step(&mut self, config: &Outlier, since: Duration) -> &mut (u32, u32) {
        let untold = u32::try_from(std::mem::take(&mut self.untold)).unwrap_or(u32::MAX);
        let newest = &mut self.steps[(self.at % STEPS as u64) as usize].0;
        *newest = newest.saturating_add(untold);
        // In microseconds, as u64 divides fast: enough for half a million years.
        let micros = |time: Duration| time.as_secs().saturating_mul(1_000_000) + u64::from(time.subsec_micros());
        let now = (micros(since) / (micros(config.window) / STEPS as u64).max(1)).max(self.at);
        if now != self.at {
            if now - self.at >= STEPS as u64 {
                self.steps = [(0, 0); STEPS];
            }
            for old in (self.at + 1..=now).take(STEPS) {
                self.steps[(old % STEPS as u64) as usize] = (0, 0);
            }
            self.at = now;
        }
        &mut self.steps[(now % STEPS as u64) as usize]
    }

    /// An error; why it is time to eject it, if it is.
    pub(super) fn error(&mut self, config: &Outlier, since: Duration) -> Option<EjectCause> {
        self.consecutive = self.consecutive.saturating_add(1);
        let step = self.step(config, since);
        step.1 = step.1.saturating_add(1);
        let (good, bad) =
            self.steps.iter().fold((0_u64, 0_u64), |sum, step| (sum.0 + u64::from(step.0), sum.1 + u64::from(step.1)));
        let ratio = bad as f64 >= f64::from(config.error_ratio) * (good + bad) as f64;
        if self.consecutive >= config.consecutive_errors {
            Some(EjectCause::ConsecutiveErrors)
        } else {
            (good + bad >= u64::from(config.min_requests) && ratio).then_some(EjectCause::ErrorRatio)
        }
    }

    /// Up, Probation => Ejected; `stretch` lengthens it, 0 to 1 for up to a tenth.
    pub(super) fn eject(&mut self, config: &Outlier, now: Instant, stretch: f64) {
        if let Some(back) = self.back_since.take() {
            let spells = now.saturating_duration_since(back).as_nanos() / self.last.as_nanos().max(1);
            self.level = self.level.saturating_sub(u32::try_from(spells).unwrap_or(u32::MAX));
        }
        self.last = config.duration(self.level);
        self.level = (self.level + 1).min(31);
        let until = now.checked_add(self.last + self.last.mul_f64(0.1 * stretch));
        self.phase = Phase::Ejected { until };
        self.forget();
    }

    /// Ejected => Probation.
    pub(super) fn tick(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Ejected { until: Some(until) } if until <= now) {
            self.phase = Phase::Probation { trial: None };
        }
    }

    /// Probation => Up, the trial was answered.
    pub(super) fn passed(&mut self, now: Instant) {
        self.phase = Phase::Up;
        self.back_since = Some(now);
        self.forget();
    }

    /// Any => Up, as if nothing had been.
    pub(super) fn clear(&mut self) {
        *self = Self { at: self.at, ..Self::new() };
    }

    fn forget(&mut self) {
        self.consecutive = 0;
        self.untold = 0;
        self.steps = [(0, 0); STEPS];
    }
}
