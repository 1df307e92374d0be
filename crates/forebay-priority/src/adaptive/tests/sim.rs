//! A server of some slots behind a limit, in virtual time: no clock, no threads, the same run every time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::adaptive::controller::Controller;

pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000_000_000;

/// How the service times scatter around their mean.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scatter {
    /// Not at all.
    Fixed,
    /// Up to a quarter more or less, all equally likely.
    Quarter,
    /// Exponential: many short, few long, a standard deviation as large as the mean.
    Exponential,
}

/// What stands behind the limit: slots with a queue, first come, first served.
#[derive(Debug, Clone, Copy)]
pub(super) struct Server {
    pub(super) slots: usize,
    pub(super) service_ns: u64,
    pub(super) scatter: Scatter,
    /// How much of the service it takes to the first byte, 0 to 1.
    pub(super) first_byte: f64,
    /// It refuses what finds this many in the house, after a millisecond.
    pub(super) room: usize,
    /// One request in so many fails like that without a reason.
    pub(super) failing: u64,
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
#[derive(Debug)]
pub(super) enum Limiter {
    Static(usize),
    Adaptive(Controller),
}

/// What was seen in a stretch of time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// First bytes a second that came within four service times of their dispatch.
    pub(super) goodput: f64,
    pub(super) limit: f64,
    pub(super) highest_limit: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    /// The first byte for the request that was dispatched then.
    FirstByte(u64),
    Refused,
    End,
}

#[derive(Debug)]
pub(super) struct Sim {
    pub(super) limiter: Limiter,
    pub(super) server: Server,
    pub(super) load: Load,
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    /// How many wait for the limit.
    waiting: usize,
    in_flight: usize,
    /// When those were dispatched that wait for a slot.
    queue: VecDeque<u64>,
    busy: usize,
    random: u64,
}

impl Sim {
    pub(super) fn new(limiter: Limiter, server: Server, load: Load, seed: u64) -> Self {
        let mut sim = Self {
            limiter,
            server,
            load,
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
            Load::Open(_) => sim.after(0, Event::Arrival),
        }
        sim
    }

    /// Runs on for so long.
    pub(super) fn run(&mut self, length: u64) -> Seen {
        let end = self.now + length;
        let (mut good, mut limit_time, mut highest_limit) = (0_u64, 0.0, 0);
        loop {
            self.dispatch();
            let limit = self.limit();
            let next = self.events.peek().map_or(end, |Reverse((at, _, _))| end.min(*at));
            limit_time += limit as f64 * (next - self.now) as f64;
            highest_limit = limit.max(highest_limit);
            self.now = next;
            if next == end {
                let goodput = good as f64 / length as f64 * SECOND as f64;
                return Seen { goodput, limit: limit_time / length as f64, highest_limit };
            }
            let event = self.events.pop().map(|Reverse((_, _, event))| event).expect("one was peeked");
            if let Event::FirstByte(dispatched) = event {
                good += u64::from(self.now - dispatched <= 4 * self.server.service_ns);
            }
            self.happen(event);
        }
    }

    pub(super) fn limit(&self) -> usize {
        match &self.limiter {
            Limiter::Static(limit) => *limit,
            Limiter::Adaptive(controller) => controller.limit(),
        }
    }

    fn happen(&mut self, event: Event) {
        match (event, self.load) {
            (Event::Arrival, Load::Open(per_second)) => {
                self.waiting += 1;
                let gap = self.exponential() / per_second * SECOND as f64;
                self.after(gap as u64, Event::Arrival);
            }
            (Event::Refused | Event::End, Load::Closed(_)) => self.waiting += 1,
            _ => {}
        }
        if let Limiter::Adaptive(controller) = &mut self.limiter {
            controller.in_flight(self.in_flight);
            match event {
                Event::FirstByte(dispatched) => drop(controller.sample(self.now, self.now - dispatched, false)),
                Event::Refused => drop(controller.overload(self.now)),
                Event::Arrival | Event::End => {}
            }
        }
        if matches!(event, Event::Refused | Event::End) {
            self.in_flight -= 1;
        }
        if event == Event::End {
            self.busy -= 1;
        }
    }

    fn dispatch(&mut self) {
        while self.waiting > 0 && self.in_flight < self.limit() {
            self.waiting -= 1;
            self.in_flight += 1;
            let fails = self.sequence % self.server.failing.max(1) == 1;
            if fails || self.busy + self.queue.len() >= self.server.room {
                self.after(MS, Event::Refused);
            } else {
                self.queue.push_back(self.now);
                self.serve();
            }
        }
        self.serve();
    }

    fn serve(&mut self) {
        while self.busy < self.server.slots
            && let Some(dispatched) = self.queue.pop_front()
        {
            self.busy += 1;
            let mean = self.server.service_ns as f64;
            let time = match self.server.scatter {
                Scatter::Fixed => mean,
                Scatter::Quarter => mean * (0.75 + 0.5 * self.uniform()),
                Scatter::Exponential => mean * self.exponential(),
            };
            self.after((time * self.server.first_byte) as u64, Event::FirstByte(dispatched));
            self.after(time as u64, Event::End);
        }
    }

    fn after(&mut self, ns: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((self.now + ns, self.sequence, event)));
    }

    fn exponential(&mut self) -> f64 {
        -(1.0 - self.uniform()).ln()
    }

    /// From 0 to below 1: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    fn uniform(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
