//! Places can be reserved before an endpoint is chosen, nobody else gets them, and whoever waits for one is woken.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use forebay_balance::{Balance, BalanceBody, BalanceHandle, Capacity, Endpoint, OnFull, Picked, Redial, Undispatched};
use forebay_core::testing::{Scripted, Step, cut_after};
use forebay_core::{CapacitySignal as _, Class, DemandSource as _, Places, Reason, Rejection, Reservation};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tower::Service;

/// Answers at once, or refuses at once, unseen.
#[derive(Debug, Clone, Default)]
struct Backend {
    refuses: Arc<AtomicBool>,
}

#[derive(Debug, thiserror::Error)]
#[error("refused")]
struct Refused(Option<Box<Request<()>>>);

impl Undispatched<Request<()>> for Refused {
    fn take_request(&mut self) -> Option<Request<()>> {
        self.0.take().map(|request| *request)
    }
}

impl Service<Request<()>> for Backend {
    type Response = Response<Scripted>;
    type Error = Refused;
    type Future = std::future::Ready<Result<Response<Scripted>, Refused>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refused>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        std::future::ready(if self.refuses.load(SeqCst) {
            Err(Refused(Some(Box::new(request))))
        } else {
            Ok(Response::new(Scripted::new([Step::Data("a".into()), Step::Pending, Step::Data("b".into())])))
        })
    }
}

type Answer = Result<Response<BalanceBody<Scripted>>, Refused>;

struct Fleet {
    balance: Balance<Backend, Redial>,
    handle: BalanceHandle,
    capacity: Capacity,
    refuses: Vec<Arc<AtomicBool>>,
}

/// Endpoints named by their index, with these weights and bounds.
fn fleet(endpoints: &[(u16, Option<u32>)]) -> Fleet {
    let mut builder = Balance::<Backend, Redial>::builder_with_redial().on_full(OnFull::Reject).outlier(None);
    let mut refuses = Vec::new();
    for (index, (weight, max)) in endpoints.iter().enumerate() {
        let backend = Backend::default();
        refuses.push(Arc::clone(&backend.refuses));
        let endpoint = Endpoint::with_service(index.to_string(), backend).weight(*weight);
        builder = builder.endpoint(match max {
            Some(max) => endpoint.max_concurrency(*max),
            None => endpoint,
        });
    }
    let balance = builder.build().expect("valid");
    let handle = balance.handle();
    Fleet { balance, capacity: handle.capacity(), handle, refuses }
}

impl Fleet {
    fn reserve(&self) -> Option<Reservation> {
        self.capacity.try_reserve(Class::P0)
    }

    /// The answer to a request, which is there at the first poll; its place is held until it is dropped.
    fn call(&self, reserved: Option<Reservation>) -> Answer {
        let mut request = Request::new(());
        if let Some(reserved) = reserved {
            request.extensions_mut().insert(reserved);
        }
        let future = pin!(self.balance.clone().call(request));
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => answer,
            Poll::Pending => panic!("a backend that answers at once"),
        }
    }

    fn open(&self) -> u32 {
        self.capacity.places(None).open
    }

    fn in_flight(&self) -> u32 {
        self.handle.snapshot().iter().map(|endpoint| endpoint.in_flight).sum()
    }
}

/// Which endpoint answered, or why none did.
fn outcome(answer: &Answer) -> Result<usize, Option<Reason>> {
    let response = answer.as_ref().map_err(|_| None)?;
    match response.extensions().get::<Picked>() {
        Some(picked) => Ok(picked.endpoint.as_str().parse().expect("an index")),
        None => Err(response.extensions().get::<Rejection>().map(|rejection| rejection.reason)),
    }
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl Woken {
    fn take(&self) -> usize {
        self.0.swap(0, SeqCst)
    }
}

#[test]
fn as_many_can_be_reserved_as_there_are_places() {
    let fleet = fleet(&[(3, Some(2)), (1, Some(1)), (0, Some(9))]);
    assert_eq!(fleet.capacity.places(Some(Class::P3)), Places { endpoints: 2, weight: 4, total: 3, open: 3 });
    let held = fleet.call(None);
    let mut reserved: Vec<_> = std::iter::from_fn(|| fleet.reserve()).collect();
    assert_eq!((reserved.len(), fleet.open()), (2, 0));
    drop(held);
    assert_eq!(fleet.open(), 1);
    reserved.extend(fleet.reserve());
    assert!(reserved.len() == 3 && fleet.reserve().is_none());
    assert_eq!(fleet.in_flight(), 0, "a reserved place is at no endpoint");
    drop(reserved);
    assert_eq!(fleet.capacity.places(None), Places { endpoints: 2, weight: 4, total: 3, open: 3 });
}

#[test]
fn an_endpoint_without_a_bound_has_any_number_of_places() {
    let fleet = fleet(&[(1, Some(1)), (1, None)]);
    let reserved: Vec<_> = (0..1000).map(|_| fleet.reserve().expect("any number")).collect();
    assert_eq!(fleet.capacity.places(None), Places { endpoints: 2, weight: 2, total: u32::MAX, open: u32::MAX });
    assert!(fleet.handle.set_weight("1", 0));
    assert!(fleet.reserve().is_none(), "what is left is promised many times over");
    assert_eq!(outcome(&fleet.call(None)), Err(Some(Reason::AtCapacity)));
    assert!(fleet.handle.set_weight("0", 0));
    assert_eq!(fleet.capacity.places(None), Places::default());
    for reserved in reserved {
        assert_eq!(outcome(&fleet.call(Some(reserved))), Err(Some(Reason::NoEndpoint)), "refused, and used up");
    }
    assert!(fleet.handle.set_weight("0", 1));
    assert_eq!(fleet.open(), 1);
}

#[test]
fn who_has_not_reserved_gets_only_what_is_not_reserved() {
    let fleet = fleet(&[(2, Some(2)), (1, Some(2))]);
    let reserved: Vec<_> = (0..3).map(|_| fleet.reserve().expect("free")).collect();
    let mut held = vec![fleet.call(None)];
    assert!(outcome(&held[0]).is_ok());
    for reserved in reserved {
        assert_eq!(outcome(&fleet.call(None)), Err(Some(Reason::AtCapacity)));
        held.push(fleet.call(Some(reserved)));
        assert!(outcome(&held[held.len() - 1]).is_ok(), "never refused because of others");
    }
    assert_eq!((fleet.in_flight(), fleet.open()), (4, 0));
    drop(held);
    assert_eq!((fleet.in_flight(), fleet.open()), (0, 4));
}

#[test]
fn a_reservation_pays_for_one_pick_however_often_it_is_shown() {
    let fleet = fleet(&[(1, Some(2))]);
    let reserved = fleet.reserve().expect("free");
    let first = fleet.call(Some(reserved.clone()));
    let second = fleet.call(Some(reserved.clone()));
    let third = fleet.call(Some(reserved));
    assert_eq!((outcome(&first), outcome(&second)), (Ok(0), Ok(0)), "the second as one without");
    assert_eq!(outcome(&third), Err(Some(Reason::AtCapacity)));
    drop((first, second));
    assert_eq!((fleet.in_flight(), fleet.open()), (0, 2));
}

#[test]
fn places_that_come_free_wake_and_those_taken_do_not() {
    let fleet = fleet(&[(1, Some(1)), (1, Some(1))]);
    let (woken, left) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
    let subscription = fleet.capacity.subscribe(&Waker::from(Arc::clone(&woken)));
    drop(fleet.capacity.subscribe(&Waker::from(Arc::clone(&left))));
    assert_eq!(Arc::strong_count(&left), 1, "its waker is gone with it");
    let reserved = fleet.reserve().expect("free");
    let held = fleet.call(None);
    assert_eq!(woken.take(), 0);
    drop(held);
    assert_eq!(woken.take(), 1, "an exchange has ended");
    drop(reserved);
    assert_eq!(woken.take(), 1, "a reservation came to nothing");
    let held = fleet.call(fleet.reserve());
    assert_eq!(woken.take(), 0, "a reserved place was taken");
    drop(held);
    assert_eq!(woken.take(), 1);
    assert!(fleet.handle.set_weight("0", 5) && fleet.handle.set_max_concurrency("0", Some(7)));
    assert_eq!(woken.take(), 2, "settings");
    assert!(!fleet.handle.set_weight("nobody", 5) && !fleet.handle.set_max_concurrency("nobody", None));
    drop(subscription);
    drop(fleet.reserve());
    assert_eq!((woken.take(), left.take()), (0, 0), "unsubscribed");
    assert_eq!(Arc::strong_count(&woken), 1);
}

#[test]
fn bounds_change_from_the_next_pick_on() {
    let fleet = fleet(&[(1, Some(2))]);
    let reserved = (fleet.reserve(), fleet.reserve());
    let held = fleet.call(reserved.0);
    assert!(fleet.handle.set_max_concurrency("0", Some(1)));
    assert_eq!(fleet.handle.snapshot()[0].max_concurrency, Some(1));
    assert_eq!(outcome(&fleet.call(reserved.1)), Err(Some(Reason::AtCapacity)), "the place is no more");
    assert!(fleet.handle.set_max_concurrency("0", Some(0)));
    assert_eq!(fleet.capacity.places(None), Places { endpoints: 1, weight: 1, total: 0, open: 0 });
    drop(held);
    assert_eq!(outcome(&fleet.call(None)), Err(Some(Reason::AtCapacity)));
    assert!(fleet.handle.set_max_concurrency("0", None));
    assert_eq!((outcome(&fleet.call(fleet.reserve())), fleet.open()), (Ok(0), u32::MAX));
}

#[test]
fn sent_again_elsewhere_it_is_counted_once() {
    let fleet = fleet(&[(9, Some(1)), (1, Some(1)), (1, Some(1))]);
    fleet.refuses[0].store(true, SeqCst);
    let woken = Arc::new(Woken::default());
    let _subscription = fleet.capacity.subscribe(&Waker::from(Arc::clone(&woken)));
    let (first, second, third) = (fleet.reserve(), fleet.reserve(), fleet.reserve());
    let held = fleet.call(first);
    assert_eq!(outcome(&held), Ok(1));
    assert_eq!(held.as_ref().expect("served").extensions().get::<Picked>().expect("served").tries, 2);
    assert_eq!(woken.take(), 0, "no place came free: it moved, and nobody got in between");
    assert_eq!((fleet.in_flight(), fleet.open()), (1, 0));
    assert_eq!(outcome(&fleet.call(None)), Err(Some(Reason::AtCapacity)));
    let next = fleet.call(second);
    assert_eq!(outcome(&next), Ok(2), "its place was kept");
    assert_eq!(outcome(&fleet.call(third)), Err(None), "the upstream's error: there is nobody else to ask");
    drop((held, next));
    assert_eq!((fleet.in_flight(), fleet.open()), (0, 3));
    let demand = fleet.handle.demand().total();
    assert_eq!((demand.in_flight, demand.offered, demand.shed), (0, 4, 1));
    assert_eq!(demand.done, 1, "the one that failed; the others were dropped in their bodies");
    assert_eq!(fleet.handle.snapshot()[0].error, 3);
}

#[tokio::test]
async fn dropped_at_every_poll_the_place_is_open_again() {
    for refuses in [false, true] {
        for polls in 0.. {
            let fleet = fleet(&[(2, Some(1)), (1, Some(1))]);
            fleet.refuses[0].store(refuses, SeqCst);
            let mut balance = fleet.balance.clone();
            let mut request = Request::new(());
            request.extensions_mut().insert(fleet.reserve().expect("free"));
            let exchange = async move {
                let response = balance.call(request).await.expect("served");
                response.into_body().collect().await.expect("a good stream")
            };
            let done = cut_after(polls, exchange).await.is_some();
            assert_eq!((fleet.in_flight(), fleet.open()), (0, 2), "cut after {polls} polls");
            if done {
                break;
            }
        }
    }
}

/// An outer balancer whose only endpoint is another one.
#[tokio::test]
async fn a_place_of_a_balancer_further_in_is_left_for_it() {
    let inner = fleet(&[(1, Some(1))]);
    let outer: Balance<_> = Balance::builder()
        .endpoint(Endpoint::with_service("inner", inner.balance.clone()).max_concurrency(1))
        .build()
        .expect("valid");
    let outer_capacity = outer.handle().capacity();
    let mut request = Request::new(());
    request.extensions_mut().insert(inner.reserve().expect("free"));
    let response = outer.clone().call(request).await.expect("served");
    assert_eq!(response.status(), 200, "with one place, and that reserved, nobody else would be let in");
    assert_eq!((inner.open(), outer_capacity.places(None).open), (0, 0));
    drop(response);
    assert_eq!((inner.open(), outer_capacity.places(None).open), (1, 1));
}

/// What a waker may do that has been told of a place: reserve it, look, subscribe anew, end its subscription.
#[test]
fn a_waker_may_call_back() {
    struct Eager {
        capacity: Capacity,
        got: Mutex<Option<Reservation>>,
        subscription: Mutex<Option<forebay_core::Subscription>>,
        itself: OnceLock<Waker>,
    }
    impl Wake for Eager {
        fn wake(self: Arc<Self>) {
            let place = self.capacity.try_reserve(Class::P0);
            assert_eq!(self.capacity.places(None).total, 1);
            let again = self.itself.get().map(|waker| self.capacity.subscribe(waker));
            let old = std::mem::replace(&mut *self.subscription.lock().expect("whole"), again);
            drop(old);
            if place.is_some() {
                *self.got.lock().expect("whole") = place;
            }
        }
    }
    let fleet = fleet(&[(1, Some(1))]);
    let eager = Arc::new(Eager {
        capacity: fleet.capacity.clone(),
        got: Mutex::default(),
        subscription: Mutex::default(),
        itself: OnceLock::new(),
    });
    let waker = Waker::from(Arc::clone(&eager));
    eager.itself.set(waker.clone()).expect("once");
    *eager.subscription.lock().expect("whole") = Some(fleet.capacity.subscribe(&waker));
    drop(fleet.call(None));
    let got = eager.got.lock().expect("whole").take();
    assert!(got.is_some() && fleet.open() == 0, "it had the place before `drop` was back");
    drop(got);
    assert!(eager.got.lock().expect("whole").is_some(), "and again, by its new subscription");
}

/// Four threads share one place and sleep while they have none: a wake-up that is lost leaves one asleep.
#[test]
fn no_wake_up_is_lost() {
    struct Bell(mpsc::Sender<()>);
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(());
        }
    }
    let fleet = fleet(&[(1, Some(1))]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (bell, rings) = mpsc::channel();
                let _subscription = fleet.capacity.subscribe(&Waker::from(Arc::new(Bell(bell))));
                for turn in 0..2000 {
                    let reserved = loop {
                        match fleet.reserve() {
                            Some(reserved) => break reserved,
                            None => rings.recv_timeout(Duration::from_secs(20)).expect("woken"),
                        }
                    };
                    if turn % 2 == 0 {
                        assert_eq!(outcome(&fleet.call(Some(reserved))), Ok(0));
                    }
                }
            });
        }
    });
    assert_eq!((fleet.in_flight(), fleet.open()), (0, 1));
}

/// What there should be, counted from scratch.
#[derive(Debug)]
struct Model {
    weights: [u16; 4],
    bounds: [Option<u32>; 4],
    in_flight: [u32; 4],
}

impl Model {
    /// Free places, reserved or not; `u32::MAX`: any number.
    fn free(&self) -> u32 {
        let room = |i: usize| match self.bounds[i] {
            _ if self.weights[i] == 0 => 0,
            None => u32::MAX,
            Some(bound) => bound.saturating_sub(self.in_flight[i]),
        };
        (0..4).map(room).fold(0, u32::saturating_add)
    }

    fn open(&self, reserved: usize) -> u32 {
        if self.free() == u32::MAX { u32::MAX } else { self.free().saturating_sub(reserved as u32) }
    }
}

#[test]
fn at_random_it_is_as_counted_from_scratch_and_ends_at_zero() {
    let mut model = Model { weights: [3, 2, 1, 0], bounds: [Some(3), Some(2), Some(1), None], in_flight: [0; 4] };
    let fleet = fleet(&[(3, Some(3)), (2, Some(2)), (1, Some(1)), (0, None)]);
    let woken = Arc::new(Woken::default());
    let _subscription = fleet.capacity.subscribe(&Waker::from(Arc::clone(&woken)));
    let (mut reserved, mut held): (Vec<Reservation>, Vec<(usize, Answer)>) = Default::default();
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13; // xorshift: Marsaglia, 2003
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let (mut kept, mut refused, mut moved) = (0, 0, 0);
    for step in 0..100_000 {
        let (free, open) = (model.free(), model.open(reserved.len()));
        let promised = reserved.len() as u64 <= u64::from(free);
        let mut settings = false;
        match random(16) {
            0..4 => {
                let place = fleet.reserve();
                assert_eq!(place.is_some(), open > 0, "step {step}: {model:?}");
                reserved.extend(place.filter(|_| reserved.len() < 20));
            }
            4 if !reserved.is_empty() => drop(reserved.swap_remove(random(reserved.len()))),
            kind @ 5..11 => {
                let place = if kind < 8 { reserved.pop() } else { None };
                let by_right = place.is_some();
                let refuses = (kind % 3 == 0).then(|| random(4));
                if let Some(index) = refuses {
                    fleet.refuses[index].store(true, SeqCst);
                }
                let answer = fleet.call(place);
                if let Some(index) = refuses {
                    fleet.refuses[index].store(false, SeqCst);
                }
                match outcome(&answer) {
                    Ok(index) => {
                        assert!(if by_right { free > 0 } else { open > 0 }, "step {step}: {model:?}");
                        moved += usize::from(
                            answer.as_ref().expect("served").extensions().get::<Picked>().expect("served").tries > 1,
                        );
                        kept += usize::from(by_right && open == 0);
                        model.in_flight[index] += 1;
                        held.push((index, answer));
                    }
                    Err(None) => assert!(refuses.is_some()),
                    Err(Some(reason)) => {
                        assert!(if by_right { free == 0 } else { open == 0 }, "step {step}: {model:?}");
                        let any = model.weights.iter().any(|weight| *weight > 0);
                        assert_eq!(reason, if any { Reason::AtCapacity } else { Reason::NoEndpoint });
                        assert!(!by_right || !promised, "step {step}: a kept place was refused");
                        refused += 1;
                    }
                }
            }
            11..15 if !held.is_empty() => {
                let (index, answer) = held.swap_remove(random(held.len()));
                drop(answer);
                model.in_flight[index] -= 1;
            }
            15 if random(8) == 0 => {
                settings = true;
                let index = random(4);
                if random(2) == 0 {
                    model.weights[index] = random(4) as u16;
                    assert!(fleet.handle.set_weight(&index.to_string(), model.weights[index]));
                } else {
                    model.bounds[index] = (random(8) > 0).then(|| random(5) as u32);
                    assert!(fleet.handle.set_max_concurrency(&index.to_string(), model.bounds[index]));
                }
            }
            _ => {}
        }
        let places = Places {
            endpoints: model.weights.iter().filter(|weight| **weight > 0).count() as u32,
            weight: model.weights.iter().map(|weight| u64::from(*weight)).sum(),
            total: (0..4)
                .filter(|i| model.weights[*i] > 0)
                .map(|i| model.bounds[i].unwrap_or(u32::MAX))
                .fold(0, u32::saturating_add),
            open: model.open(reserved.len()),
        };
        assert_eq!(fleet.capacity.places(None), places, "step {step}: {model:?}");
        let in_flight: Vec<_> = fleet.handle.snapshot().iter().map(|endpoint| endpoint.in_flight).collect();
        assert_eq!(in_flight, model.in_flight, "step {step}");
        assert!(woken.take() > 0 || places.open <= open, "step {step}: nobody was told of a place");
        let still = reserved.len() as u64 <= u64::from(model.free());
        assert!(settings || !promised || still, "step {step}: more is reserved than free");
    }
    assert!(kept > 100 && refused > 100 && moved > 100, "all of it came up: {kept}, {refused}, {moved}");
    drop((reserved, held));
    assert_eq!(fleet.in_flight(), 0);
    assert_eq!(fleet.handle.demand().total().in_flight, 0);
    assert_eq!(fleet.open(), fleet.capacity.places(None).total);
}
