//! The hand-offs of places, model-checked: many schedules at random with shuttle, all of a small case with loom.
//!
//! ```text
//! RUSTFLAGS="--cfg forebay_shuttle" CARGO_TARGET_DIR=target/shuttle cargo test --release -p forebay-balance --lib models
//! RUSTFLAGS="--cfg forebay_loom" CARGO_TARGET_DIR=target/loom cargo test --release -p forebay-balance --lib models
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

use forebay_core::{BodyGuard as _, CapacitySignal as _, Class, Outcome, Reservation};

use crate::capacity::{Capacity, Place};
use crate::conduct::Conduct;
use crate::endpoint::Endpoint;
use crate::gpu::GpuTable;
use crate::ledger::{Core, now};
use crate::members::Members;
use crate::permit::{Permit, Who};
use crate::policy::{Picker, Routes, Settings};
use crate::wait::Ticket;

#[cfg(forebay_loom)]
use loom::thread;
#[cfg(forebay_shuttle)]
use shuttle::thread;

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// One endpoint with so many places; it goes with the first.
fn house(places: u32) -> (Members, Arc<Core>) {
    let picker = Picker::new(Settings::default(), Routes::to_one_pool(), 1, 7, now());
    let core = Arc::new(Core::new(picker, ["default".into()].into(), Conduct::default()));
    let members = Members::new(Arc::clone(&core), GpuTable::default(), false, false);
    members.insert(Endpoint::with_service("a", ()).max_concurrency(places)).expect("valid");
    (members, core)
}

fn pick(core: &Arc<Core>, place: Option<Place>) -> Option<Permit> {
    let who = Who { class: Class::P1, key: None, timed: false, counted: true, new: true };
    match place {
        Some(place) => Permit::redeem(core, place, who, &[]).ok(),
        None => Permit::pick(core, who, &[]).ok(),
    }
}

fn open(core: &Arc<Core>) -> u32 {
    core.ledger().picker.places(None).open
}

/// Nothing is left over.
fn idle(core: &Arc<Core>, places: u32) {
    assert_eq!(open(core), places);
    let ledger = core.ledger();
    assert!(ledger.waiting.is_empty());
    assert_eq!((ledger.demand.total().queued, ledger.demand.total().in_flight), (0, 0));
}

/// Who waits, and how often it was woken.
struct Waiting(Ticket, Arc<Count>);

fn wait(core: &Arc<Core>) -> Waiting {
    let waiting = Waiting(Ticket::new(core, Class::P1, true, false, 8).expect("there is room"), Arc::default());
    let _ = waiting.poll_first();
    waiting
}

impl Waiting {
    fn poll(&self) -> Poll<Place> {
        self.0.poll(&mut Context::from_waker(&Waker::from(Arc::clone(&self.1))))
    }

    /// What comes at once is given back at once.
    fn poll_first(&self) -> bool {
        self.poll().is_ready()
    }
}

fn check(model: impl Fn() + Send + Sync + 'static) {
    #[cfg(forebay_loom)]
    loom::model(model);
    #[cfg(forebay_shuttle)]
    {
        let schedules = std::env::var("SHUTTLE_ITERATIONS").ok().map_or(1_000_000, |n| n.parse().expect("a number"));
        shuttle::check_random(model, schedules);
    }
}

#[test]
fn a_place_that_comes_free_goes_to_who_waits_or_stays_open() {
    check(|| {
        let (_members, core) = house(1);
        let held = pick(&core, None).expect("open");
        let other = Arc::clone(&core);
        let releasing = thread::spawn(move || held.finish(Outcome::Success));
        let waiting = Waiting(Ticket::new(&other, Class::P1, true, false, 8).expect("there is room"), Arc::default());
        let early = waiting.poll();
        releasing.join().expect("no panic");
        let place = match early {
            Poll::Ready(place) => place,
            Poll::Pending => {
                assert_eq!(waiting.1.0.load(SeqCst), 1, "it was woken, once");
                let Poll::Ready(place) = waiting.poll() else { panic!("and has its place") };
                place
            }
        };
        drop(pick(&core, Some(place)).expect("its place is there"));
        drop(waiting);
        idle(&core, 1);
    });
}

#[test]
fn a_waiter_that_leaves_at_its_grant_passes_it_on() {
    check(|| {
        let (_members, core) = house(1);
        let held = pick(&core, None).expect("open");
        let (first, second) = (wait(&core), wait(&core));
        let releasing = thread::spawn(move || held.finish(Outcome::Success));
        drop(first);
        releasing.join().expect("no panic");
        let Poll::Ready(place) = second.poll() else { panic!("the place is the second one's") };
        drop(place);
        drop(second);
        idle(&core, 1);
    });
}

#[test]
fn a_reservation_is_redeemed_once_or_given_back() {
    check(|| {
        let (_members, core) = house(1);
        let capacity = Capacity { core: Arc::clone(&core) };
        let reserved: Reservation = capacity.try_reserve(Class::P1).expect("open");
        let (copy, other) = (reserved.clone(), Arc::clone(&core));
        let redeeming = thread::spawn(move || {
            let place = copy.redeem::<Place>()?;
            Some(pick(&other, Some(place)).expect("it was reserved"))
        });
        let second = reserved.redeem::<Place>();
        assert!(pick(&core, None).is_none(), "nobody else has it");
        drop(second);
        drop(redeeming.join().expect("no panic"));
        drop(reserved);
        idle(&core, 1);
    });
}

#[test]
fn who_follows_the_places_is_woken_for_each_that_comes_free() {
    check(|| {
        let (_members, core) = house(1);
        let capacity = Capacity { core: Arc::clone(&core) };
        let held = pick(&core, None).expect("open");
        let woken = Arc::new(Count::default());
        let subscription = capacity.subscribe(&Waker::from(Arc::clone(&woken)));
        let releasing = thread::spawn(move || drop(held));
        let early = capacity.try_reserve(Class::P1);
        releasing.join().expect("no panic");
        assert!(early.is_some() || woken.0.load(SeqCst) > 0, "or it would wait for ever");
        drop((early, subscription));
        idle(&core, 1);
    });
}

/// Three threads that pick, reserve, wait and leave.
#[cfg(forebay_shuttle)]
#[test]
fn whatever_three_threads_do_nothing_is_lost() {
    use shuttle::rand::{Rng as _, thread_rng};
    check(|| {
        let (_members, core) = house(2);
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let core = Arc::clone(&core);
                thread::spawn(move || {
                    for _ in 0..2 {
                        match thread_rng().gen_range(0..4) {
                            0 => drop(pick(&core, None).map(|permit| permit.finish(Outcome::Overload))),
                            1 => drop(Capacity { core: Arc::clone(&core) }.try_reserve(Class::P0)),
                            2 => {
                                let waiting = wait(&core);
                                if let Poll::Ready(place) = waiting.poll() {
                                    drop(pick(&core, Some(place)));
                                }
                            }
                            _ => drop(pick(&core, None)),
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("no panic");
        }
        core.change(|ledger| ledger.picker.clear(0, now()));
        idle(&core, 2);
    });
}
