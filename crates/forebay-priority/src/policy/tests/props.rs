//! The scheduler beside a naive model, decision by decision. More cases: `PROPTEST_CASES=1000000 cargo test --release -p
//! forebay-priority every_decision`.

use std::time::Duration;

use proptest::prelude::*;

use super::model::{Model, State};
use crate::config::{Cap, ClassConfig, Limit, OnFull, Order, PriorityConfig, QueueLength};
use crate::policy::estimate::Average;
use crate::policy::{Ask, Effects, Offer, Polled, Room, Scheduler, Taken, Tick, Ticket};

#[derive(Debug, Clone)]
enum Op {
    Offer {
        class: usize,
        cost: u32,
        deadline: Option<u64>,
        tenant: Option<u64>,
    },
    Poll(usize),
    Cancel(usize),
    Expire(usize),
    Release(usize),
    Resize(usize, u32),
    Raise(usize, usize),
    /// Takes a seat, and gives one back, of what is lent.
    Borrow(usize),
    Return(usize),
    Limit(usize),
    Places(Option<usize>),
    Open(usize, bool),
    Advance(u64),
    Reap,
    Drain,
}

fn op() -> impl Strategy<Value = Op> {
    let offer = (0..4_usize, 1..4_u32, proptest::option::weighted(0.3, 0..3_000_u64), proptest::option::of(0..4_u64));
    prop_oneof![
        12 => offer.prop_map(|(class, cost, deadline, tenant)| {
            let tenant = tenant.map(|tenant| tenant.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            Op::Offer { class, cost: if cost == 3 { 2 } else { 1 }, deadline, tenant }
        }),
        6 => (0..60_usize).prop_map(Op::Poll),
        2 => (0..60_usize).prop_map(Op::Cancel),
        2 => (0..60_usize).prop_map(Op::Expire),
        8 => (0..60_usize).prop_map(Op::Release),
        2 => (0..60_usize, 1..4_u32).prop_map(|(id, cost)| Op::Resize(id, cost)),
        2 => (0..60_usize, 0..4_usize).prop_map(|(id, class)| Op::Raise(id, class)),
        4 => (0..4_usize).prop_map(Op::Borrow),
        4 => (0..60_usize).prop_map(Op::Return),
        1 => (0..6_usize).prop_map(Op::Limit),
        1 => prop::option::of(0..6_usize).prop_map(Op::Places),
        1 => (0..4_usize, prop::bool::weighted(0.7)).prop_map(|(class, open)| Op::Open(class, open)),
        4 => (0..900_u64).prop_map(Op::Advance),
        1 => Just(Op::Reap),
        1 => prop::bool::weighted(0.05).prop_map(|drain| if drain { Op::Drain } else { Op::Reap }),
    ]
}

/// With a `max_hold` and a headroom, or without: either keeps the scheduler from lending its seats.
fn config(hold: bool, headroom: bool) -> impl Strategy<Value = PriorityConfig> {
    let lengths = prop::array::uniform4(0..5_usize);
    let reserved = prop::array::uniform4(prop_oneof![Just(0.0), Just(0.1), Just(0.125)]);
    let house = (1..6_usize, prop::bool::ANY, prop::option::of(0..9_usize));
    let order = prop_oneof![
        Just(Order::Fifo),
        Just(Order::AdaptiveLifo { after: None }),
        Just(Order::AdaptiveLifo { after: Some(Duration::from_millis(800)) }),
    ];
    let share = if hold { prop::option::weighted(0.3, Just(0.5)).boxed() } else { Just(None).boxed() };
    // Of a table in which the less urgent wait longer, or shorter; whose times grow with the hold, or do not.
    let waits = (prop::bool::ANY, prop::bool::ANY, order, share);
    (lengths, reserved, house, waits).prop_map(move |(lengths, reserved, (limit, evict, most), waits)| {
        let (rising, growing, order, share) = waits;
        let class = |i: usize| {
            let timeouts = [400, 700, 1500, 3000];
            let timeout = timeouts[if rising { i } else { 3 - i }];
            let mut class = ClassConfig::new(format!("c{i}"), Duration::from_millis(timeout))
                .queue(if i == 3 && growing { QueueLength::Auto { max: 20 } } else { QueueLength::Fixed(lengths[i]) })
                .patience_seats(if growing { [32, 16, 8, 4][i] } else { 0 })
                .reserved(reserved[i])
                .order(order);
            match i {
                1 => class.max_in_flight = Cap::Share(0.5),
                2 if hold => class.max_hold = Some(Duration::from_secs(1)),
                3 if headroom => class.headroom = 0.3,
                _ => {}
            }
            class
        };
        let mut config = PriorityConfig::four_class(0)
            .limit(Limit::Fixed(limit))
            .classes((0..4).map(class).collect())
            .on_full(if evict { OnFull::EvictLower } else { OnFull::Reject })
            .expected_hold(Duration::from_millis(100));
        config.max_queued = most;
        config.max_share = share;
        config
    })
}

/// A scheduler and its model, side by side.
struct Pair {
    real: Scheduler<usize, usize>,
    model: Model,
    now: Tick,
    tickets: Vec<Option<Ticket>>,
    seats: Vec<Option<Taken>>,
    lends: bool,
}

/// What is expected of a hold; what is measured is forgotten, as estimates have tests of their own.
const HOLD: u64 = 100_000_000;

impl Pair {
    fn new(config: &PriorityConfig, lends: bool) -> Self {
        let (mut real, mut model) = (Scheduler::new(config), Model::new(config));
        real.pin_hold(HOLD, lends);
        model.ages = !lends;
        Self { real, model, now: Tick::ZERO, tickets: Vec::new(), seats: Vec::new(), lends }
    }

    /// Settles both to the end. Estimates are kept cold: they have tests of their own.
    fn settle(&mut self, mut effects: Effects<usize>) {
        let open = self.model.open.clone();
        let mut reserve = |class: usize| open[class].then_some(class);
        loop {
            let more = effects.more();
            let _ = effects.into_waiters().count();
            effects = Effects::new();
            self.real.settle(self.now, &mut reserve, &mut effects);
            if !more && !effects.more() {
                break;
            }
        }
        self.model.settle(self.now);
        self.forget();
    }

    fn forget(&mut self) {
        self.real.pin_hold(HOLD, self.lends);
        for class in &mut self.real.classes {
            (class.hold, class.head) = (Average::expecting(HOLD), Average::expecting(HOLD));
        }
    }

    fn polled(&mut self, id: usize, polled: &Polled<usize>) -> State {
        match *polled {
            Polled::Waiting => State::Waiting,
            Polled::Granted(taken, place) => {
                assert_eq!(place, usize::from(taken.class), "the place that was reserved for it");
                self.seats[id] = Some(taken);
                State::Granted
            }
            Polled::Refused(reason) => State::Refused(reason),
            Polled::Gone => State::Gone,
        }
    }

    fn apply(&mut self, op: &Op) {
        let now = self.now;
        let mut effects = Effects::new();
        self.real.advance(now);
        self.model.advance(now);
        match *op {
            Op::Offer { class, cost, deadline, tenant } => {
                let deadline = deadline.map_or(Tick::NEVER, |millis| now.after(Duration::from_millis(millis)));
                let mut ask = Ask { class, cost, deadline, tenant };
                ask.cost = self.real.affordable(&ask);
                let open = self.model.open.clone();
                let mut reserve = |class: usize| open[class].then_some(class);
                let id = self.tickets.len();
                let told = self.real.offer(now, &ask, || id, &mut reserve, &mut effects);
                self.tickets.push(None);
                self.seats.push(None);
                let told = match told {
                    Offer::Admitted(taken, place) => {
                        assert_eq!(place, class);
                        self.seats[id] = Some(taken);
                        State::Running
                    }
                    Offer::Queued(ticket) => {
                        self.tickets[id] = Some(ticket);
                        State::Waiting
                    }
                    Offer::Refused(reason) => State::Refused(reason),
                };
                assert_eq!(told, self.model.offer(now, ask), "what {ask:?} is told");
            }
            Op::Poll(id) | Op::Expire(id) => {
                let Some(ticket) = self.tickets.get(id).copied().flatten() else { return };
                let running = self.seats[id].is_some();
                let (polled, expected) = if matches!(op, Op::Poll(_)) {
                    (self.real.poll(ticket), self.model.poll(id))
                } else {
                    (self.real.expire(now, ticket), self.model.expire(now, id))
                };
                let told = self.polled(id, &polled);
                // A spent ticket tells nothing of what became of its seat.
                let spent = running || matches!(expected, State::Running | State::Revoked);
                assert_eq!(told, if spent { State::Gone } else { expected });
            }
            Op::Cancel(id) => {
                let Some(ticket) = self.tickets.get(id).copied().flatten() else { return };
                let alone = self.real.cancels_alone(ticket);
                let _ = self.real.cancel(ticket);
                if alone {
                    let mut others = Effects::new();
                    self.real.settle(now, &mut |class| Some(class), &mut others);
                    assert!(others.is_empty() && !others.more(), "nobody else is concerned");
                }
                if self.seats[id].is_none() {
                    self.model.cancel(id);
                }
            }
            Op::Release(id) => {
                let Some(taken) = self.seats.get_mut(id).and_then(Option::take) else { return };
                self.real.release(taken, Some(now), true);
                self.forget();
                self.model.release(now, id);
                self.tickets[id] = None;
            }
            Op::Resize(id, cost) => {
                let Some(Some(taken)) = self.seats.get_mut(id) else { return };
                self.real.resize(now, taken, cost);
                self.model.resize(now, id, cost);
            }
            Op::Raise(id, class) => {
                let Some(ticket) = self.tickets.get(id).copied().flatten() else { return };
                let raised = self.real.raise(now, ticket, class);
                assert_eq!(raised, self.seats[id].is_none() && self.model.raise(now, id, class));
            }
            Op::Borrow(class) => self.borrow(class),
            Op::Return(id) => {
                let taken = self.seats.get(id).copied().flatten().filter(Taken::is_plain);
                let Some((taken, left)) =
                    taken.and_then(|taken| Some((taken, self.real.lend().give(usize::from(taken.class))?)))
                else {
                    return;
                };
                self.seats[id] = None;
                self.tickets[id] = None;
                self.real.take_back(left);
                self.real.count_lent(usize::from(taken.class), 0, 1);
                self.model.release(now, id);
            }
            Op::Limit(limit) => {
                self.real.set_limit(limit);
                self.model.limit = limit;
            }
            Op::Places(places) => {
                let places = places.unwrap_or(usize::MAX);
                self.real.set_places(places);
                self.model.places = places;
            }
            Op::Open(class, open) => self.model.open[class] = open,
            Op::Advance(millis) => self.now = now.after(Duration::from_millis(millis)),
            Op::Reap => {
                self.real.reap(now);
                self.model.reap(now);
            }
            Op::Drain => {
                self.real.drain(false);
                self.model.draining = true;
            }
        }
        self.settle(effects);
    }

    /// A seat out of what is lent, if there is one: then the model, asked in the common way, gives it too.
    fn borrow(&mut self, class: usize) {
        let lent = self.real.lend();
        let Some(left) = lent.take(class) else { return };
        assert_eq!(left.give(class), Some(lent));
        self.real.take_back(left);
        self.real.count_lent(class, 1, 0);
        // Lent seats need no place at the backends.
        let closed = !std::mem::replace(&mut self.model.open[class], true);
        let ask = Ask { class, cost: 1, deadline: Tick::NEVER, tenant: None };
        assert_eq!(self.model.offer(self.now, ask), State::Running, "it is the model's decision too");
        self.model.open[class] = !closed;
        self.tickets.push(None);
        self.seats.push(Some(Taken::bare(class as u8, 1, Tick::NEVER)));
    }

    fn check(&mut self) {
        let lent = self.real.lend();
        assert!(lent == Room::CROWDED || self.model.waiting() == 0);
        if lent.is_open() {
            self.real.take_back(lent); // changes nothing, as the counts below say
        }
        for (class, counts) in self.real.counts().enumerate() {
            assert_eq!(counts.waiting, self.model.waiters(class).len(), "waiting in class {class}");
            assert_eq!(counts.in_flight, self.model.held(Some(class)), "seats of class {class}");
            let left = counts.admitted + counts.refused + counts.cancelled;
            assert_eq!(counts.offered, left + counts.waiting as u64);
        }
        assert_eq!(self.real.in_flight(), self.model.held(None));
        let revoked = self.model.requests.iter().filter(|request| request.state == State::Revoked).count();
        assert_eq!(self.real.revoked(), revoked);
        for (id, request) in self.model.requests.iter().enumerate() {
            if let Some(taken) = &self.seats[id] {
                assert_eq!(self.real.is_revoked(taken), request.state == State::Revoked);
            }
        }
    }
}

fn compare(config: &PriorityConfig, lends: bool, ops: &[Op]) {
    let mut pair = Pair::new(config, lends);
    for op in ops {
        pair.apply(op);
        pair.check();
    }
    // Whatever has happened: once all have gone, nothing is left.
    for id in 0..pair.tickets.len() {
        pair.apply(&Op::Cancel(id));
        pair.apply(&Op::Release(id));
    }
    pair.check();
    assert!(pair.real.is_idle());
    assert!(pair.real.slab_len() <= pair.tickets.len());
}

proptest! {
    #[test]
    fn every_decision_is_the_naive_one(config in config(true, true), ops in prop::collection::vec(op(), 0..120)) {
        compare(&config, false, &ops);
    }

    #[test]
    fn every_decision_is_the_naive_one_also_of_lent_seats(
        config in prop_oneof![3 => config(false, false), 1 => config(false, true)], ops in prop::collection::vec(op(), 0..120)
    ) {
        compare(&config, true, &ops);
    }
}
