
#[derive(Debug)]
pub(super) enum Cuts { None, Began, From(f64, f64) }
impl Cuts {
    pub(super) fn good(&mut self) { *self = Self::None; }
    /// About to cut: whether the cuts so far were futile.
    pub(super) fn futile(&mut self, limit: f64, short: f64) -> bool {
        match *self {
            Self::None => *self = Self::Began,
            Self::Began => *self = Self::From(limit, short),
            Self::From(l, r) if limit <= 0.7 * l => {
                if short > 0.85 * r { *self = Self::None; return true; }
                *self = Self::From(limit, short);
            }
            Self::From(..) => {}
        }
        false
    }
}

/// Joins windows until all seats have turned over once.
#[derive(Debug, Default)]
pub(super) struct Turn { sum: f64, count: u64 }
impl Turn {
    pub(super) fn add(&mut self, window: &super::Window) -> Option<f64> {
        self.sum += window.mean.as_secs_f64() * window.samples as f64;
        self.count += window.samples;
        if self.count == 0 || (self.count as f64) < super::search::knob("FEW", 30.0).max(window.limit as f64) { return None; }
        let mean = (self.sum / self.count as f64).max(1e-9);
        *self = Self::default();
        Some(mean)
    }
}
