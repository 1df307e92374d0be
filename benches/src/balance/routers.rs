use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use forebay_balance::probe::Verdict;
use forebay_balance::{Balance, BalanceBuilder, BalanceHandle, Endpoint, Fleet, OnFull, Pick, PickError};
use forebay_core::{Class, Outcome};

use super::Router;
use crate::priority::Random as Dice;

/// One queue before all slots: the best that can be had without knowing how long a request will take.
#[derive(Debug)]
pub struct Central {
    free: Vec<u32>,
    waiting: VecDeque<usize>,
}

impl Central {
    /// Before these slots.
    #[must_use]
    pub fn new(slots: &[u32]) -> Self {
        Self { free: slots.to_vec(), waiting: VecDeque::new() }
    }
}

impl Router for Central {
    fn arrive(&mut self, request: usize) -> Option<usize> {
        self.waiting.push_back(request);
        None
    }

    fn over(&mut self, _: usize, endpoint: usize) {
        self.free[endpoint] += 1;
    }

    fn next(&mut self) -> Option<(usize, usize)> {
        let endpoint = self.free.iter().position(|free| *free > 0)?;
        let request = self.waiting.pop_front()?;
        self.free[endpoint] -= 1;
        Some((request, endpoint))
    }
}

/// Each endpoint in turn, whatever its weight.
#[derive(Debug)]
pub struct RoundRobin {
    endpoints: usize,
}

impl RoundRobin {
    /// Among so many.
    #[must_use]
    pub const fn new(endpoints: usize) -> Self {
        Self { endpoints }
    }
}

impl Router for RoundRobin {
    fn arrive(&mut self, request: usize) -> Option<usize> {
        Some(request % self.endpoints)
    }

    fn over(&mut self, _: usize, _: usize) {}

    fn next(&mut self) -> Option<(usize, usize)> {
        None
    }
}

/// Any endpoint, in proportion to the weights.
#[derive(Debug)]
pub struct Random {
    weights: Vec<u32>,
    dice: Dice,
}

impl Random {
    /// With these weights.
    #[must_use]
    pub fn new(weights: &[u32]) -> Self {
        Self { weights: weights.to_vec(), dice: Dice::new(11) }
    }
}

impl Router for Random {
    fn arrive(&mut self, _: usize) -> Option<usize> {
        let mut at = self.dice.unit() * f64::from(self.weights.iter().sum::<u32>());
        self.weights.iter().position(|weight| {
            at -= f64::from(*weight);
            at < 0.0
        })
    }

    fn over(&mut self, _: usize, _: usize) {}

    fn next(&mut self) -> Option<(usize, usize)> {
        None
    }
}

/// The one of two with fewer requests, both drawn alike whatever their weights, as tower's `p2c` does it.
#[derive(Debug)]
pub struct UniformP2c {
    in_flight: Vec<u32>,
    dice: Dice,
}

impl UniformP2c {
    /// Among so many.
    #[must_use]
    pub fn new(endpoints: usize) -> Self {
        Self { in_flight: vec![0; endpoints], dice: Dice::new(12) }
    }
}

impl Router for UniformP2c {
    fn arrive(&mut self, _: usize) -> Option<usize> {
        let all = self.in_flight.len();
        let one = self.dice.bits() as usize % all;
        let other = (one + 1 + self.dice.bits() as usize % (all - 1)) % all;
        let less = if self.in_flight[one] <= self.in_flight[other] { one } else { other };
        self.in_flight[less] += 1;
        Some(less)
    }

    fn over(&mut self, _: usize, endpoint: usize) {
        self.in_flight[endpoint] -= 1;
    }

    fn next(&mut self) -> Option<(usize, usize)> {
        None
    }
}

/// The least `(C + offset) / weight` of all by a plain scan, of equals the least recently picked: the rule of
/// `Policy::LeastConn` without the balancer, for offsets that it does not have.
#[derive(Debug)]
pub struct Scan {
    weights: Vec<u32>,
    /// In eighths of a request.
    offset: u32,
    in_flight: Vec<u32>,
    last_pick: Vec<usize>,
    picks: usize,
}

impl Scan {
    /// With these weights, and an offset in eighths of a request.
    #[must_use]
    pub fn new(weights: &[u32], eighths: u32) -> Self {
        let (in_flight, last_pick) = (vec![0; weights.len()], vec![0; weights.len()]);
        Self { weights: weights.to_vec(), offset: eighths, in_flight, last_pick, picks: 0 }
    }
}

impl Router for Scan {
    fn arrive(&mut self, _: usize) -> Option<usize> {
        let work = |at: usize| u64::from(8 * self.in_flight[at] + self.offset);
        let least = (0..self.weights.len()).min_by(|&a, &b| {
            let (one, other) = (work(a) * u64::from(self.weights[b]), work(b) * u64::from(self.weights[a]));
            one.cmp(&other).then(self.last_pick[a].cmp(&self.last_pick[b]))
        })?;
        self.picks += 1;
        self.last_pick[least] = self.picks;
        self.in_flight[least] += 1;
        Some(least)
    }

    fn over(&mut self, _: usize, endpoint: usize) {
        self.in_flight[endpoint] -= 1;
    }

    fn next(&mut self) -> Option<(usize, usize)> {
        None
    }
}

/// Whether the balancer knows how many slots an endpoint has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bounds {
    /// `max_concurrency` is the slots: requests wait in the balancer and are bound late.
    Slots,
    /// None: requests are bound as they come and wait at the endpoint.
    None,
}

type Waiting = Pin<Box<dyn Future<Output = Result<Pick<usize>, PickError>>>>;

/// Ours, weights in proportion to the slots.
pub struct Forebay {
    fleet: Fleet<usize>,
    handle: BalanceHandle,
    bounds: Bounds,
    waiting: VecDeque<(usize, Waiting)>,
    picks: HashMap<usize, Pick<usize>>,
}

impl fmt::Debug for Forebay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forebay").field("fleet", &self.fleet).finish_non_exhaustive()
    }
}

impl Forebay {
    /// Before these slots, set up by `with`.
    ///
    /// # Panics
    ///
    /// `with` makes no valid balancer.
    #[must_use]
    pub fn new(
        slots: &[u32],
        bounds: Bounds,
        with: impl FnOnce(BalanceBuilder<usize>) -> BalanceBuilder<usize>,
    ) -> Self {
        let forever = Duration::from_secs(1_000_000);
        let mut builder = with(Balance::builder().on_full(OnFull::Wait { len: usize::MAX, timeout: forever }));
        for (index, slots) in slots.iter().enumerate() {
            let weight = u16::try_from(*slots).expect("a weight");
            let endpoint = Endpoint::with_service(index.to_string(), index).weight(weight);
            builder = builder.endpoint(match bounds {
                Bounds::Slots => endpoint.max_concurrency(*slots),
                Bounds::None => endpoint,
            });
        }
        let balance = builder.build().expect("valid");
        let (fleet, handle) = (balance.fleet(), balance.handle());
        Self { fleet, handle, bounds, waiting: VecDeque::new(), picks: HashMap::new() }
    }

    /// A probe says how many requests are at an endpoint, ours among them.
    pub fn report(&self, endpoint: usize, requests: u32) {
        let told =
            self.handle.report(&endpoint.to_string(), Some(requests), Verdict::Factor(1.0), Duration::from_secs(1));
        debug_assert!(told);
    }

    fn keep(&mut self, request: usize, pick: Pick<usize>) -> usize {
        let endpoint = pick.service;
        self.picks.insert(request, pick);
        endpoint
    }
}

impl Router for Forebay {
    fn arrive(&mut self, request: usize) -> Option<usize> {
        if self.bounds == Bounds::None {
            let pick = self.fleet.pick(Class::P1).expect("no endpoint is full");
            return Some(self.keep(request, pick));
        }
        let fleet = self.fleet.clone();
        let mut wait: Waiting = Box::pin(async move { fleet.wait(Class::P1).await });
        match wait.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(pick) => Some(self.keep(request, pick.expect("it waits for long"))),
            Poll::Pending => {
                self.waiting.push_back((request, wait));
                None
            }
        }
    }

    fn over(&mut self, request: usize, _: usize) {
        if let Some(pick) = self.picks.remove(&request) {
            pick.finish(Outcome::Success);
        }
    }

    fn next(&mut self) -> Option<(usize, usize)> {
        // First come first served: if anybody was given a place, the first was.
        let (_, wait) = self.waiting.front_mut()?;
        let Poll::Ready(pick) = wait.as_mut().poll(&mut Context::from_waker(Waker::noop())) else { return None };
        let (request, _) = self.waiting.pop_front()?;
        let endpoint = self.keep(request, pick.expect("it waits for long"));
        Some((request, endpoint))
    }
}
