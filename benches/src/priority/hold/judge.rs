use super::{Arrivals, Cell, Outcome};

/// The goals that a cell misses.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Some class was served less than a less urgent one, by more than a point.
    pub inverted: bool,
    /// P0 was served less than it should be; cells without a goal never miss it.
    pub refused: bool,
    /// P0 waited longer than it should at the 99th percentile.
    pub late: bool,
    /// Slots stood idle.
    pub idle: bool,
}

impl Verdict {
    /// Returns true if all goals are held.
    #[must_use]
    pub const fn holds(&self) -> bool {
        !(self.inverted || self.refused || self.late || self.idle)
    }
}

/// P0's share that is to be served, and the wait at its 99th percentile in units of the time in which a slot comes free.
fn goals(cell: &Cell) -> (Option<f64>, Option<f64>) {
    let column = super::cell::URGENT.iter().position(|&urgent| urgent >= cell.urgent).unwrap_or(2);
    match cell.arrivals {
        Arrivals::Poisson => (Some(0.999), Some([10.0, 18.0, 25.0][column])),
        Arrivals::Bursty | Arrivals::OwnBursts => {
            ([Some(0.999), Some(0.99), None][column], [Some(30.0), Some(40.0), None][column])
        }
    }
}

/// Holds a cell against its goals.
#[must_use]
pub fn judge(cell: &Cell, outcome: &Outcome) -> Verdict {
    let shares: Vec<f64> = (0..4).map(|class| outcome.share(class)).collect();
    let (served, wait) = goals(cell);
    let least = if cell.arrivals == Arrivals::Poisson { 0.99 } else { 0.94 };
    Verdict {
        inverted: shares.windows(2).any(|pair| pair[0] < pair[1] - 0.01),
        refused: served.is_some_and(|goal| shares[0] < goal),
        late: wait.is_some_and(|goal| outcome.p99() / cell.fleet.every() > goal),
        idle: outcome.goodput < least,
    }
}
