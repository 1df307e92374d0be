//! The hand-offs of the shell, model-checked: many schedules at random with shuttle, all of a small case with loom.
//!
//! `tests/models` runs them, beside the naive model of the policy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use forebay_core::{Class, Reservation};

use crate::config::{Limit, PriorityConfig, QueueLength};
use crate::permit::{Permit, Place};
use crate::policy::{Ask, Taken, Tick};
use crate::shared::{Offered, Shared};
use crate::{PriorityHandle, PriorityLayer, Seats};

#[cfg(forebay_loom)]
use loom::thread;
#[cfg(forebay_shuttle)]
use shuttle::thread;

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// What became of an attempt.
enum Held {
    Seat(#[allow(dead_code)] Permit),
    Place(Place, Arc<Count>),
    Nothing,
}

fn house(seats: usize) -> PriorityHandle {
    let mut config = PriorityConfig::four_class(0).limit(Limit::Fixed(seats));
    for class in &mut config.classes {
        (class.queue, class.reserved) = (QueueLength::Fixed(8), 0.0);
    }
    let (_, handle) = PriorityLayer::builder().config(config).build_with_handle().expect("valid");
    handle.admission().shared.lock().scheduler.pin_hold(350_000_000, true); // so that seats are lent
    handle
}

fn seated(shared: Arc<Shared>, taken: Taken, place: Option<Reservation>) -> Permit {
    Permit::new(shared, taken, place, Duration::ZERO, Seats::default())
}

fn arrive(handle: &PriorityHandle, class: Class) -> Held {
    let shared = handle.admission().shared;
    let mut ask = Ask { class: class.index(), cost: 1, deadline: Tick::NEVER, tenant: None };
    if let Some(granted) = shared.pass(&ask) {
        return Held::Seat(Permit::lent(shared, class.index() as u8, granted));
    }
    if let Some((taken, place)) = shared.try_admit(&mut ask) {
        return Held::Seat(seated(shared, taken, place));
    }
    let count = Arc::<Count>::default();
    match shared.offer(&mut ask, &Waker::from(Arc::clone(&count))) {
        Offered::Admitted(taken, place) => Held::Seat(seated(shared, taken, place)),
        // Not polled: it has left its waker with its offer.
        Offered::Queued { ticket, since } => Held::Place(Place::new(shared, &ask, ticket, since), count),
        Offered::Refused(..) => Held::Nothing,
    }
}

/// Polls a place once.
fn wait(mut place: Place, count: Arc<Count>) -> Held {
    let waker = Waker::from(Arc::clone(&count));
    match place.poll(&Context::from_waker(&waker), false) {
        Poll::Ready(Ok((taken, reservation))) => {
            let shared = Arc::clone(place.shared());
            drop(place);
            Held::Seat(seated(shared, taken, reservation))
        }
        Poll::Ready(Err(_)) => Held::Nothing,
        Poll::Pending => Held::Place(place, count),
    }
}

/// Lets everything that is held go, in the order in which it may: whoever still waits must have been woken by then.
fn settle(handle: &PriorityHandle, mut held: Vec<Held>) {
    loop {
        held.retain(|held| !matches!(held, Held::Seat(_) | Held::Nothing)); // seats pass on
        if held.is_empty() {
            break;
        }
        let before = held.len();
        let mut next = Vec::new();
        for held in held {
            match held {
                Held::Place(place, count) if count.0.load(Ordering::SeqCst) > 0 => next.push(wait(place, count)),
                other => next.push(other),
            }
        }
        let stuck = next.iter().filter(|held| matches!(held, Held::Place(..))).count();
        assert!(stuck < before, "a seat is free, somebody waits, and nobody was woken");
        held = next;
    }
    let snapshot = handle.snapshot();
    for class in &snapshot.classes {
        assert_eq!((class.waiting, class.in_flight), (0, 0), "{snapshot:?}");
        assert_eq!(class.offered, class.admitted + class.shed + class.cancelled, "{snapshot:?}");
    }
}

type Act = fn(&PriorityHandle) -> Vec<Held>;

/// A thread for each of `acts` over one house, each of which brings back what it holds.
fn race(seats: usize, acts: &'static [Act]) -> impl Fn() {
    move || {
        let handle = house(seats);
        let running = arrive(&handle, Class::P1);
        let (mine, others) = acts.split_first().expect("somebody acts");
        let spawn = |act: &'static Act| {
            let handle = handle.clone();
            thread::spawn(move || act(&handle))
        };
        let threads: Vec<_> = others.iter().map(spawn).collect();
        let mut held = mine(&handle);
        for thread in threads {
            held.extend(thread.join().expect("no panic"));
        }
        let snapshot = handle.snapshot();
        let in_flight: usize = snapshot.classes.iter().map(|class| class.in_flight).sum();
        assert!(in_flight <= snapshot.limit.max(seats), "{snapshot:?}");
        drop(running);
        settle(&handle, held);
    }
}

const RACES: [(&str, usize, &[Act]); 10] = [
    ("admit/enqueue", 2, &[|house| vec![arrive(house, Class::P0)], |house| vec![arrive(house, Class::P3)]]),
    ("admit/admit", 3, &[|house| vec![arrive(house, Class::P0)], |house| vec![arrive(house, Class::P0)]]),
    (
        "release/look",
        2,
        &[
            |house| {
                drop(arrive(house, Class::P0));
                Vec::new()
            },
            |house| {
                let of = |snapshot: crate::PrioritySnapshot| {
                    snapshot.classes.iter().map(|class| class.in_flight).sum::<usize>()
                };
                assert!((1..=2).contains(&of(house.snapshot())), "the gate is shut and opened again");
                vec![arrive(house, Class::P3)]
            },
        ],
    ),
    (
        "release/enqueue",
        2,
        &[
            |house| {
                drop(arrive(house, Class::P0));
                Vec::new()
            },
            |house| vec![arrive(house, Class::P2)],
        ],
    ),
    (
        "cancel/grant",
        2,
        &[
            |house| {
                let (first, second) = (arrive(house, Class::P0), arrive(house, Class::P1));
                drop(first); // its seat may go to the second, or to the other thread's
                vec![second]
            },
            |house| {
                drop(arrive(house, Class::P0)); // queued or seated, it leaves
                Vec::new()
            },
        ],
    ),
    (
        "expiry/grant",
        1,
        &[
            |house| match arrive(house, Class::P2) {
                Held::Place(mut place, count) => {
                    let waker = Waker::from(Arc::clone(&count));
                    // Its alarm rings: its time is not up, so it waits on, or has just been granted.
                    match place.poll(&Context::from_waker(&waker), true) {
                        Poll::Pending => vec![Held::Place(place, count)],
                        Poll::Ready(Ok((taken, reservation))) => {
                            let shared = Arc::clone(place.shared());
                            vec![Held::Seat(seated(shared, taken, reservation))]
                        }
                        Poll::Ready(Err(_)) => Vec::new(),
                    }
                }
                held => vec![held],
            },
            |house| {
                house.set_limit(2);
                Vec::new()
            },
        ],
    ),
    (
        "raise/grant",
        1,
        &[
            |house| match arrive(house, Class::P3) {
                Held::Place(mut place, count) => {
                    place.raise(Class::P0); // or it has been granted before
                    vec![wait(place, count)]
                }
                held => vec![held],
            },
            |house| {
                let other = arrive(house, Class::P2);
                house.set_limit(2);
                vec![other]
            },
        ],
    ),
    (
        "shrink/release",
        2,
        &[
            |house| {
                drop(arrive(house, Class::P0));
                vec![arrive(house, Class::P1)]
            },
            |house| {
                house.set_limit(1);
                Vec::new()
            },
        ],
    ),
    (
        "drain/enqueue",
        1,
        &[
            |house| vec![arrive(house, Class::P0)],
            |house| {
                drop(house.drain_now());
                Vec::new()
            },
        ],
    ),
    (
        "release/release/enqueue",
        2,
        &[
            |house| {
                drop(arrive(house, Class::P0));
                Vec::new()
            },
            |house| {
                drop(arrive(house, Class::P2));
                Vec::new()
            },
            |house| vec![arrive(house, Class::P0)],
        ],
    ),
];

#[cfg(forebay_shuttle)]
#[test]
fn a_million_schedules() {
    let each: usize = std::env::var("SHUTTLE_ITERATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    for (name, seats, acts) in RACES {
        println!("{name}: {each} schedules");
        shuttle::check_random(race(seats, acts), each);
    }
}

#[cfg(forebay_loom)]
#[test]
fn every_schedule() {
    for (name, seats, acts) in RACES {
        println!("{name}");
        let mut model = loom::model::Builder::new();
        // Three threads have too many schedules for all of them: those in which a thread is interrupted thrice at most.
        model.preemption_bound = (acts.len() > 2).then_some(3);
        model.check(race(seats, acts));
    }
}
