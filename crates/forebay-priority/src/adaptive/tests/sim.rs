//! A server of some slots behind a limit, in virtual time: no clock, no threads, the same run every time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::adaptive::controller::Controller;

pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000_000_000;

/// How the service times scatter around their mean.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scatter {
    /// Up to a quarter more or less, all equally likely.
    Quarter,
    /// None at all.
    Fixed,
    /// Exponential: many short, few long.
    Exponential,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Load {
    /// This many callers, each with its next request as soon as it has its answer.
    Closed(usize),
    /// So many requests a second at random (Poisson), however slow the answers are.
    Open(f64),
}

/// Who says how much may be in flight.
pub(super) enum Limiter {
    Static(usize),
    Adaptive(Box<Controller>),
}

impl Limiter {
    pub(super) fn limit(&self) -> usize {
        match self {
            Self::Static(limit) => *limit,
            Self::Adaptive(controller) => controller.limit(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    /// The request that was dispatched at this time is answered.
    Answer { dispatched: u64, refused: bool },
}

/// What a stretch of time looked like.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) answers: u64,
    /// Answers within three service times of their dispatch, per second.
    pub(super) goodput: f64,
    pub(super) mean_limit: f64,
    pub(super) least_limit: usize,
    pub(super) highest_limit: usize,
    /// Share of the time at which the limit was within a tenth of the number of slots.
    pub(super) close: f64,
    pub(super) mean_latency: f64,
}

pub(super) struct Sim {
    pub(super) limiter: Limiter,
    pub(super) slots: usize,
    pub(super) service_ns: u64,
    pub(super) scatter: Scatter,
    pub(super) load: Load,
    /// The server refuses with an overload what exceeds this many in the house.
    pub(super) room: usize,
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    waiting: usize,
    in_flight: usize,
    queue: VecDeque<u64>,
    busy: usize,
    random: u64,
}

impl Sim {
    pub(super) fn new(limiter: Limiter, slots: usize, service_ns: u64, scatter: Scatter, load: Load) -> Self {
        Self::seeded(limiter, slots, service_ns, scatter, load, 1)
    }
    pub(super) fn seeded(limiter: Limiter, slots: usize, service_ns: u64, scatter: Scatter, load: Load, seed: u64) -> Self {
        let mut sim = Self {
            limiter,
            slots,
            service_ns,
            scatter,
            load,
            room: usize::MAX,
            now: 0,
            events: BinaryHeap::new(),
            sequence: 0,
            waiting: 0,
            in_flight: 0,
            queue: VecDeque::new(),
            busy: 0,
            random: seed,
        };
        match load {
            Load::Closed(callers) => sim.waiting = callers,
            Load::Open(_) => sim.at(0, Event::Arrival),
        }
        sim
    }

    /// Runs on for so long, and says what was seen in that time.
    pub(super) fn run(&mut self, length: u64) -> Seen {
        let (end, from) = (self.now.saturating_add(length), self.now);
        let mut seen = Seen { least_limit: usize::MAX, ..Seen::default() };
        let (mut good, mut latency_sum) = (0_u64, 0_u64);
        let (mut limit_time, mut close_time) = (0.0, 0.0);
        loop {
            self.dispatch();
            let next = self.events.peek().map_or(end, |Reverse((at, _, _))| (*at).min(end));
            let (limit, span) = (self.limiter.limit(), (next - self.now) as f64);
            limit_time += limit as f64 * span;
            let (lo, hi) = (0.9 * self.slots as f64, 1.1 * self.slots as f64);
            if (lo..=hi).contains(&(limit as f64)) { close_time += span; }
            seen.least_limit = seen.least_limit.min(limit);
            seen.highest_limit = seen.highest_limit.max(limit);
            self.now = next;
            if next == end {
                break;
            }
            let Some(Reverse((_, _, event))) = self.events.pop() else { break };
            match event {
                Event::Arrival => self.arrive(),
                Event::Answer { dispatched, refused } => {
                    let latency = self.now - dispatched;
                    if !refused {
                        seen.answers += 1;
                        latency_sum += latency;
                        good += u64::from(latency <= 3 * self.service_ns);
                    }
                    self.answer(latency, refused);
                }
            }
        }
        let whole = (end - from) as f64;
        seen.goodput = good as f64 / whole * SECOND as f64;
        seen.mean_limit = limit_time / whole;
        seen.close = close_time / whole;
        seen.mean_latency = latency_sum as f64 / seen.answers.max(1) as f64;
        seen
    }

    fn arrive(&mut self) {
        self.waiting += 1;
        if let Load::Open(per_second) = self.load {
            let gap = -(1.0 - self.uniform()).ln() / per_second * SECOND as f64;
            self.at(gap as u64, Event::Arrival);
        }
    }

    fn dispatch(&mut self) {
        while self.waiting > 0 && self.in_flight < self.limiter.limit() {
            self.waiting -= 1;
            self.in_flight += 1;
            if self.busy + self.queue.len() >= self.room {
                self.at(MS, Event::Answer { dispatched: self.now, refused: true });
            } else {
                self.queue.push_back(self.now);
            }
            if let Limiter::Adaptive(controller) = &mut self.limiter {
                controller.in_flight(self.in_flight);
            }
        }
        while self.busy < self.slots
            && let Some(dispatched) = self.queue.pop_front()
        {
            self.busy += 1;
            let time = self.service_time();
            self.at(time, Event::Answer { dispatched, refused: false });
        }
    }

    fn answer(&mut self, latency: u64, refused: bool) {
        if let Limiter::Adaptive(controller) = &mut self.limiter {
            controller.in_flight(self.in_flight);
            if refused { controller.overload(self.now) } else { controller.sample(self.now, latency, false) };
        }
        self.in_flight -= 1;
        if !refused {
            self.busy -= 1;
        }
        if matches!(self.load, Load::Closed(_)) {
            self.waiting += 1;
        }
    }

    fn service_time(&mut self) -> u64 {
        let mean = self.service_ns as f64;
        let time = match self.scatter {
            Scatter::Fixed => mean,
            Scatter::Quarter => mean * (0.75 + 0.5 * self.uniform()),
            Scatter::Exponential => -(1.0 - self.uniform()).ln() * mean,
        };
        time as u64
    }

    fn at(&mut self, after: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((self.now + after, self.sequence, event)));
    }

    /// From 0 to below 1 (Steele, Lea and Flood, OOPSLA 2014: SplitMix64).
    fn uniform(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
