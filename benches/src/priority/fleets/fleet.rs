use std::path::Path;
use std::process::Command;

use crate::Server;
use crate::priority::Random;

/// Tokens that a request gets in a second.
const TOKENS_A_SECOND: f64 = 20.0;
/// The load over the capacity.
const LOAD: f64 = 2.0;
/// The share of each class of the requests.
const SHARES: [f64; 4] = [0.1, 0.2, 0.3, 0.4];

/// Model servers on this machine, the load that comes to them, and how long it is watched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fleet {
    /// Model servers, each a process.
    pub(super) servers: u32,
    /// Requests that a server serves at once.
    pub(super) slots: u32,
    /// Mean seconds for which a request holds a slot.
    pub(super) hold: f64,
    /// Seconds of load before anything counts.
    pub(super) warm: f64,
    /// Seconds in which arrivals, and slots in use, count.
    pub(super) measured: f64,
    /// Seconds of further load, at most, in which the fate of those that count shows.
    pub(super) settle: f64,
}

/// A request of the load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// Seconds from the start of the load.
    pub(super) at: f64,
    /// The class, 0 to 3.
    pub(super) class: usize,
    /// The tokens of the answer.
    pub(super) tokens: u64,
}

impl Fleet {
    /// The fleets that are judged.
    pub(super) const JUDGED: [Self; 2] = [
        Self { servers: 2, slots: 4, hold: 5.0, warm: 15.0, measured: 90.0, settle: 35.0 },
        Self { servers: 8, slots: 8, hold: 20.0, warm: 40.0, measured: 110.0, settle: 35.0 },
    ];
    /// A short run that shows that all of it works.
    pub(super) const SMOKE: Self = Self { servers: 2, slots: 4, hold: 5.0, warm: 5.0, measured: 13.0, settle: 2.0 };

    /// Returns the slots of all servers.
    pub(super) fn all_slots(&self) -> f64 {
        f64::from(self.servers * self.slots)
    }

    /// Returns the name under which the fleet is reported.
    pub(super) fn name(&self) -> String {
        format!("{} slots x {} s", self.all_slots(), self.hold)
    }

    /// Starts the model servers. A prefill takes no time, so that a slot is held for the tokens only.
    pub(super) fn start(&self, binary: &Path) -> Vec<Server> {
        let flags = format!(
            "--slots {} --prefill-tokens-per-second 1e9 --decode-tokens-per-second {TOKENS_A_SECOND}",
            self.slots
        );
        (0..self.servers).map(|_| Server::start(Command::new(binary).args(flags.split(' ')))).collect()
    }

    /// Returns the requests, which are the same in every run: Poisson arrivals, exponential lengths.
    pub(super) fn arrivals(&self) -> Vec<Arrival> {
        let (mut random, mut at, mut arrivals) = (Random::new(1), 0.0, Vec::new());
        let every = self.hold / (self.all_slots() * LOAD);
        loop {
            at += random.exponential(every);
            if at >= self.warm + self.measured + self.settle {
                return arrivals;
            }
            let class = random.class(SHARES);
            // The first token comes at once and adds nothing to the hold.
            let tokens = 1 + random.exponential(self.hold * TOKENS_A_SECOND).round() as u64;
            arrivals.push(Arrival { at, class, tokens });
        }
    }

    /// Returns the seconds for which an answer of so many tokens holds its slot.
    pub(super) fn seconds(&self, tokens: u64) -> f64 {
        (tokens - 1) as f64 / TOKENS_A_SECOND
    }

    /// Returns true if a request that arrives then counts.
    pub(super) fn counts(&self, at: f64) -> bool {
        (self.warm..self.warm + self.measured).contains(&at)
    }
}
