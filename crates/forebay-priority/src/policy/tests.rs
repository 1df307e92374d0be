//! The scheduler beside a naive model that keeps one sorted list, decision by decision.

use proptest::prelude::*;

use super::*;
use forebay_core::Reason;

#[derive(Debug, Clone)]
enum Op {
    Offer(usize),
    Poll(usize),
    Cancel(usize),
    Expire(usize),
    Release(usize),
    Limit(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..3_usize).prop_map(Op::Offer),
        2 => (0..40_usize).prop_map(Op::Poll),
        1 => (0..40_usize).prop_map(Op::Cancel),
        1 => (0..40_usize).prop_map(Op::Expire),
        3 => (0..3_usize).prop_map(Op::Release),
        1 => (0..5_usize).prop_map(Op::Limit),
    ]
}

const RULES: [ClassRule; 3] = [
    ClassRule { max_in_flight: 2, queue: 3 },
    ClassRule { max_in_flight: 4, queue: 0 },
    ClassRule { max_in_flight: 3, queue: 4 },
];

/// Requests in order of arrival, with a state each.
#[derive(Default)]
struct Model {
    requests: Vec<(usize, &'static str)>,
    limit: usize,
}

impl Model {
    fn count(&self, class: Option<usize>, state: &str) -> usize {
        let holds = |s: &str| if state == "seat" { s == "granted" || s == "running" } else { s == state };
        self.requests.iter().filter(|(c, s)| class.is_none_or(|class| class == *c) && holds(s)).count()
    }

    fn room(&self, class: usize) -> bool {
        self.count(None, "seat") < self.limit && self.count(Some(class), "seat") < RULES[class].max_in_flight
    }

    fn dispatch(&mut self) -> Vec<usize> {
        let mut granted = Vec::new();
        while let Some(id) = (0..3)
            .filter(|class| self.room(*class))
            .find_map(|class| self.requests.iter().position(|request| *request == (class, "waiting")))
        {
            self.requests[id].1 = "granted";
            granted.push(id);
        }
        granted
    }
}

proptest! {
    #[test]
    fn every_decision_is_the_naive_one(ops in prop::collection::vec(op(), 0..200)) {
        let mut model = Model { limit: 3, ..Model::default() };
        let mut scheduler = Scheduler::new(3, RULES);
        let mut tickets: Vec<Option<Ticket>> = Vec::new();
        for op in ops {
            match op {
                Op::Offer(class) => {
                    let id = model.requests.len();
                    let expected = if model.room(class) && model.count(Some(class), "waiting") == 0 {
                        "running"
                    } else if model.limit == 0 && RULES[class].queue == 0 {
                        "no capacity"
                    } else if model.count(Some(class), "waiting") >= RULES[class].queue {
                        "full"
                    } else {
                        "waiting"
                    };
                    model.requests.push((class, expected));
                    let (got, ticket) = match scheduler.offer(class, || id) {
                        Offer::Admitted => ("running", None),
                        Offer::Queued(ticket) => ("waiting", Some(ticket)),
                        Offer::Refused(Reason::NoCapacity) => ("no capacity", None),
                        Offer::Refused(reason) => { prop_assert_eq!(reason, Reason::QueueFull); ("full", None) }
                    };
                    tickets.push(ticket);
                    prop_assert_eq!(got, expected);
                }
                Op::Poll(id) => if let Some(ticket) = tickets.get(id).copied().flatten() {
                    let expected = match model.requests[id].1 {
                        "waiting" => Polled::Waiting,
                        "granted" => { model.requests[id].1 = "running"; Polled::Granted }
                        _ => Polled::Gone,
                    };
                    prop_assert_eq!(scheduler.poll(ticket), expected);
                },
                Op::Cancel(id) => if let Some(ticket) = tickets.get(id).copied().flatten() {
                    if matches!(model.requests[id].1, "waiting" | "granted") { model.requests[id].1 = "gone"; }
                    scheduler.cancel(ticket);
                },
                Op::Expire(id) => if let Some(ticket) = tickets.get(id).copied().flatten() {
                    let waits = model.requests[id].1 == "waiting";
                    if waits { model.requests[id].1 = "expired"; }
                    prop_assert_eq!(scheduler.refuse_waiter(ticket).is_some(), waits);
                },
                Op::Release(class) => if let Some(id) = model.requests.iter().position(|r| *r == (class, "running")) {
                    model.requests[id].1 = "done";
                    scheduler.release(class);
                },
                Op::Limit(limit) => { model.limit = limit; scheduler.set_limit(limit); }
            }
            let granted: Vec<usize> = std::iter::from_fn(|| scheduler.dispatch()).collect();
            prop_assert_eq!(granted, model.dispatch());
            for (class, counts) in scheduler.counts().enumerate() {
                prop_assert_eq!(counts.queued, model.count(Some(class), "waiting"));
                prop_assert_eq!(counts.in_flight, model.count(Some(class), "seat"));
                let left = counts.admitted + counts.refused + counts.cancelled;
                prop_assert_eq!(counts.offered, left + counts.queued as u64);
            }
        }
        prop_assert!(scheduler.len_slab() <= 7 + 9, "the slab grows with the queues only");
    }
}

#[test]
fn a_waiter_that_the_last_seat_passes_by_keeps_its_place() {
    let mut scheduler = Scheduler::new(1, RULES);
    assert_eq!(scheduler.offer(2, || 0), Offer::Admitted);
    let Offer::Queued(batch) = scheduler.offer(2, || 1) else { panic!("full house") };
    let Offer::Queued(urgent) = scheduler.offer(0, || 2) else { panic!("full house") };
    scheduler.release(2);
    assert_eq!(scheduler.dispatch(), Some(2), "P0 goes first");
    assert_eq!(scheduler.poll(batch), Polled::Waiting);
    assert_eq!(scheduler.cancel(urgent), None, "its waker was taken by the grant");
    assert_eq!(scheduler.dispatch(), Some(1), "the seat of the one who left goes on");
}
