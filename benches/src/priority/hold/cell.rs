use super::{Arrivals, Law};

/// Model servers, as one: requests at once, and how long one takes on average, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fleet {
    /// Requests that are served at once.
    pub slots: usize,
    /// The mean length of an exchange, in seconds.
    pub hold: f64,
}

impl Fleet {
    /// The fleets of the grid.
    pub const GRID: [Self; 7] = [
        Self::new(4, 5.0),
        Self::new(8, 1.0),
        Self::new(8, 5.0),
        Self::new(32, 20.0),
        Self::new(64, 5.0),
        Self::new(64, 20.0),
        Self::new(512, 20.0),
    ];
    /// Fleets outside of it, to see that nothing is fitted to those.
    pub const OUTSIDE: [Self; 2] = [Self::new(6, 12.0), Self::new(200, 3.0)];

    const fn new(slots: usize, hold: f64) -> Self {
        Self { slots, hold }
    }

    /// Seconds between two slots that come free.
    #[must_use]
    pub fn every(self) -> f64 {
        self.hold / self.slots as f64
    }
}

/// One experiment.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    /// The model servers.
    pub fleet: Fleet,
    /// The way in which requests follow each other.
    pub arrivals: Arrivals,
    /// The scatter of the lengths of exchanges.
    pub law: Law,
    /// All demand over the capacity.
    pub load: f64,
    /// The demand of P0 over the capacity; the other classes share the rest 2:3:4.
    pub urgent: f64,
    /// The share of waiting callers that leave before their turn.
    pub leave: f64,
    /// The start of the random numbers.
    pub seed: u64,
}

impl Cell {
    /// The demand of each class over the capacity.
    #[must_use]
    pub fn demand(&self) -> [f64; 4] {
        let rest = self.load - self.urgent;
        [self.urgent, rest * 2.0 / 9.0, rest * 3.0 / 9.0, rest * 4.0 / 9.0]
    }
}

/// Loads over the capacity.
pub(super) const LOADS: [f64; 3] = [2.0, 5.0, 20.0];
/// Demands of P0 over the capacity.
pub(super) const URGENT: [f64; 3] = [0.2, 0.45, 0.6];

/// All cells of these fleets.
#[must_use]
pub fn grid(fleets: &[Fleet], arrivals: &[Arrivals], seed: u64) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &fleet in fleets {
        for &arrivals in arrivals {
            for law in Law::ALL {
                for load in LOADS {
                    for urgent in URGENT {
                        let left = arrivals == Arrivals::Poisson
                            && (fleet.slots, load, urgent) == (8, 5.0, 0.45)
                            && (fleet.hold - 5.0).abs() < 1e-9;
                        let leave = if left { 0.3 } else { 0.0 };
                        let seed = seed.wrapping_mul(1_000_003).wrapping_add(cells.len() as u64);
                        cells.push(Cell { fleet, arrivals, law, load, urgent, leave, seed });
                    }
                }
            }
        }
    }
    cells
}
