use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{Bounds, Forebay, Router};
use crate::priority::Random;

/// Several of ours in front of the same endpoints, none of which sees the others' requests but in what endpoints say.
/// Each request comes to any of them.
#[derive(Debug)]
pub struct Gateways {
    gateways: Vec<Forebay>,
    /// Which of them a request came to.
    came_to: HashMap<usize, usize>,
    /// The requests at each endpoint, of all gateways.
    at: Vec<u32>,
    dice: Random,
    /// How often each asks each endpoint; `None`: never.
    every: Option<Duration>,
    since: Instant,
    asked: u128,
}

impl Gateways {
    /// So many of them, with these weights. With `every` each asks each endpoint that often, in turns: at one instant one
    /// gateway asks one endpoint. What it hears is on average half as old as `every`.
    #[must_use]
    pub fn new(count: usize, slots: &[u32], every: Option<Duration>) -> Self {
        Self {
            gateways: (0..count).map(|_| Forebay::new(slots, Bounds::None, |builder| builder)).collect(),
            came_to: HashMap::new(),
            at: vec![0; slots.len()],
            dice: Random::new(13),
            every,
            since: Instant::now(),
            asked: 0,
        }
    }

    /// Catches up with the probes that were due. Since the one before nothing has changed, so they may be late.
    fn ask(&mut self) {
        let Some(every) = self.every else { return };
        let pairs = (self.gateways.len() * self.at.len()) as u128;
        let due = self.since.elapsed().as_nanos() * pairs / every.as_nanos();
        // More than all of them would only repeat what was said.
        for turn in self.asked.max(due.saturating_sub(pairs))..due {
            let turn = (turn % pairs) as usize;
            let (gateway, endpoint) = (turn % self.gateways.len(), turn / self.gateways.len());
            self.gateways[gateway].report(endpoint, self.at[endpoint]);
        }
        self.asked = due;
    }
}

impl Router for Gateways {
    fn arrive(&mut self, request: usize) -> Option<usize> {
        self.ask();
        let gateway = (self.dice.unit() * self.gateways.len() as f64) as usize;
        let endpoint = self.gateways[gateway].arrive(request)?;
        self.came_to.insert(request, gateway);
        self.at[endpoint] += 1;
        Some(endpoint)
    }

    fn over(&mut self, request: usize, endpoint: usize) {
        self.ask();
        self.at[endpoint] -= 1;
        if let Some(gateway) = self.came_to.remove(&request) {
            self.gateways[gateway].over(request, endpoint);
        }
    }

    fn next(&mut self) -> Option<(usize, usize)> {
        None // bound as they come
    }
}
