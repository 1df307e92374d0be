use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use forebay_core::Class;
use forebay_priority::{Priority, PriorityBody, PriorityConfig, PriorityLayer};
use http::{Request, Response};
use http_body::{Body, Frame};
use tokio::time::Instant;
use tower::{Layer as _, Service};

use super::{Arrivals, Cell};
use crate::priority::Random;
use crate::virtual_time::virtually;

/// The fate of the requests of a cell.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Requests of each class whose end is known and whose caller has not left.
    pub offered: [u64; 4],
    /// Those that were served.
    pub served: [u64; 4],
    /// The waits of P0, in seconds, in ascending order.
    pub waits: Vec<f32>,
    /// Slots in use, on average, over the slots.
    pub goodput: f64,
}

impl Outcome {
    /// The share of a class that was served.
    #[must_use]
    pub fn share(&self, class: usize) -> f64 {
        self.served[class] as f64 / self.offered[class].max(1) as f64
    }

    /// The 99th percentile of P0's waits, in seconds.
    #[must_use]
    pub fn p99(&self) -> f64 {
        let at = (self.waits.len() * 99 / 100).min(self.waits.len().saturating_sub(1));
        self.waits.get(at).map_or(0.0, |&wait| f64::from(wait))
    }
}

/// Answers at once with a body that goes on until it is ended.
#[derive(Debug, Clone)]
struct Slots;

/// A body that has nothing to send, and ends when it is polled again.
#[derive(Debug, Default)]
struct TwicePolled {
    polled: bool,
}

impl Body for TwicePolled {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if std::mem::replace(&mut self.polled, true) { Poll::Ready(None) } else { Poll::Pending }
    }
}

impl Service<Request<()>> for Slots {
    type Response = Response<TwicePolled>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        std::future::ready(Ok(Response::new(TwicePolled::default())))
    }
}

type Answer = PriorityBody<TwicePolled>;
type Call = Pin<Box<<Priority<Slots> as Service<Request<()>>>::Future>>;

/// The waiters that were woken, and who looks after them.
#[derive(Debug, Default)]
struct Woken(Mutex<Vec<u32>>);

#[derive(Debug)]
struct Bell {
    index: u32,
    woken: Arc<Woken>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.0.lock().unwrap_or_else(PoisonError::into_inner).push(self.index);
    }
}

/// A request that waits.
struct Waiter {
    call: Call,
    class: usize,
    since: f64,
    counts: bool,
}

/// The next thing to happen; of several at the same time, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    End(u32),
    Leave(u32, u64),
    Arrive(u8),
}

struct Run {
    cell: Cell,
    service: Priority<Slots>,
    random: Random,
    azure: Arc<[f64]>,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    woken: Arc<Woken>,
    bells: Vec<Waker>,
    waiters: Vec<Option<Waiter>>,
    generations: Vec<u64>,
    free: Vec<u32>,
    bodies: Vec<Option<Answer>>,
    idle: Vec<u32>,
    /// Counts from here on.
    warm: f64,
    now: f64,
    outcome: Outcome,
    busy: f64,
    busy_since: f64,
}

/// Requests of P0 that are counted in a cell, at least.
const URGENT_REQUESTS: f64 = 20_000.0;

/// Runs a cell through the layer with the preset of four classes; `azure` has the lengths of [`Law::Azure`](super::Law).
#[must_use]
pub fn run(cell: Cell, azure: &Arc<[f64]>) -> Outcome {
    virtually(async {
        let config = PriorityConfig::four_class(cell.fleet.slots)
            .expected_hold(Duration::from_secs_f64(cell.fleet.hold))
            .expected_head(Duration::from_millis(1));
        let layer = PriorityLayer::builder().config(config).build().expect("a preset");
        let (warm, capacity) = (5.0 * cell.fleet.hold + 200.0 * cell.fleet.every(), 1.0 / cell.fleet.every());
        let end = warm + URGENT_REQUESTS * 1.03 / (cell.urgent * capacity);
        let mut run = Run {
            cell,
            service: layer.layer(Slots),
            random: Random::new(cell.seed),
            azure: Arc::clone(azure),
            events: BinaryHeap::new(),
            woken: Arc::default(),
            bells: Vec::new(),
            waiters: Vec::new(),
            generations: Vec::new(),
            free: Vec::new(),
            bodies: Vec::new(),
            idle: Vec::new(),
            warm,
            now: 0.0,
            outcome: Outcome { offered: [0; 4], served: [0; 4], waits: Vec::new(), goodput: 0.0 },
            busy: 0.0,
            busy_since: 0.0,
        };
        run.fill();
        match cell.arrivals {
            Arrivals::Poisson | Arrivals::Bursty => run.next_arrival(None),
            Arrivals::OwnBursts => (0..4).for_each(|class| run.next_arrival(Some(class))),
        }
        run.drive(end).await;
        run.outcome.goodput = run.busy / (cell.fleet.slots as f64 * (run.now - warm));
        run.outcome.waits.sort_by(f32::total_cmp);
        run.outcome
    })
}

impl Run {
    async fn drive(&mut self, end: f64) {
        let start = Instant::now();
        let mut at = 0;
        while let Some(Reverse((nanos, event))) = self.events.pop() {
            if nanos > at {
                tokio::time::advance(Duration::from_nanos(nanos - at)).await;
                at = nanos;
                debug_assert_eq!(start.elapsed().as_nanos() as u64, at);
                self.pass(nanos as f64 / 1e9);
                self.poll_woken(); // those whose time is up
            }
            if self.now >= end {
                return;
            }
            match event {
                Event::Arrive(class) => self.arrive(usize::from(class)),
                Event::End(seat) => self.end(seat),
                Event::Leave(index, generation) => self.leave(index, generation),
            }
            self.poll_woken();
        }
    }

    /// Moves on, and accounts for the slots in use.
    fn pass(&mut self, now: f64) {
        let held = (self.bodies.len() - self.idle.len()) as f64;
        self.busy += held * (now - self.busy_since.max(self.warm)).max(0.0);
        (self.now, self.busy_since) = (now, now);
    }

    fn at(&mut self, after: f64, event: Event) {
        self.events.push(Reverse((((self.now + after) * 1e9) as u64, event)));
    }

    /// Fills all slots with exchanges that are under way, each of them somewhere.
    fn fill(&mut self) {
        for _ in 0..self.cell.fleet.slots {
            let waker = self.slot().1;
            let mut call = Box::pin(self.service.call(Request::new(())));
            let Poll::Ready(Ok(answer)) = call.as_mut().poll(&mut Context::from_waker(&waker)) else { continue };
            let hold = self.cell.law.draw(self.cell.fleet.hold, &mut self.random, &self.azure);
            let left = hold * self.random.unit();
            self.begin(left, answer);
        }
    }

    /// The next request of a class, or of all of them.
    fn next_arrival(&mut self, class: Option<usize>) {
        let demand = self.cell.demand();
        let mean = self.cell.fleet.every() / class.map_or(self.cell.load, |class| demand[class]);
        let after = self.cell.arrivals.draw(mean, &mut self.random);
        let class = class.unwrap_or_else(|| self.random.class(demand.map(|demand| demand / self.cell.load)));
        self.at(after, Event::Arrive(class as u8));
    }

    fn arrive(&mut self, class: usize) {
        self.next_arrival((self.cell.arrivals == Arrivals::OwnBursts).then_some(class));
        let mut request = Request::new(());
        request.extensions_mut().insert(Class::new(class as u8));
        let mut call = Box::pin(self.service.call(request));
        let (index, waker) = self.slot();
        let counts = self.now >= self.warm;
        match call.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(Ok(answer)) => {
                self.free.push(index);
                self.settled(class, self.now, counts, answer);
            }
            Poll::Pending => {
                self.waiters[index as usize] = Some(Waiter { call, class, since: self.now, counts });
                if self.random.unit() < self.cell.leave {
                    let after = self.random.exponential(4.0 * self.cell.fleet.every());
                    self.at(after, Event::Leave(index, self.generations[index as usize]));
                }
            }
        }
    }

    /// A place for a waiter, and what wakes it.
    fn slot(&mut self) -> (u32, Waker) {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = self.waiters.len() as u32;
            self.waiters.push(None);
            self.generations.push(0);
            self.bells.push(Waker::from(Arc::new(Bell { index, woken: Arc::clone(&self.woken) })));
            index
        });
        (index, self.bells[index as usize].clone())
    }

    fn settled(&mut self, class: usize, since: f64, counts: bool, answer: Response<Answer>) {
        let served = answer.status() == 200;
        if counts {
            self.outcome.offered[class] += 1;
            self.outcome.served[class] += u64::from(served);
            if served && class == 0 {
                self.outcome.waits.push((self.now - since) as f32);
            }
        }
        if served {
            let hold = self.cell.law.draw(self.cell.fleet.hold, &mut self.random, &self.azure);
            self.begin(hold, answer);
        }
    }

    /// An exchange holds a slot from now on, for so long.
    fn begin(&mut self, hold: f64, answer: Response<Answer>) {
        let seat = self.idle.pop().unwrap_or_else(|| {
            self.bodies.push(None);
            self.bodies.len() as u32 - 1
        });
        let mut body = answer.into_body();
        // Its reader is there, and waits for the backend.
        let polled = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending(), "it goes on");
        self.bodies[seat as usize] = Some(body);
        self.at(hold, Event::End(seat));
    }

    /// An exchange comes to its end: its seat goes to a waiter, which is woken.
    fn end(&mut self, seat: u32) {
        if let Some(mut body) = self.bodies[seat as usize].take() {
            let polled = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(polled, Poll::Ready(None)), "it ends");
            self.idle.push(seat);
        }
    }

    fn leave(&mut self, index: u32, generation: u64) {
        if self.generations[index as usize] == generation && self.waiters[index as usize].take().is_some() {
            self.retire(index);
        }
    }

    fn retire(&mut self, index: u32) {
        self.generations[index as usize] += 1;
        self.free.push(index);
    }

    fn poll_woken(&mut self) {
        loop {
            let woken = std::mem::take(&mut *self.woken.0.lock().unwrap_or_else(PoisonError::into_inner));
            if woken.is_empty() {
                return;
            }
            for index in woken {
                let waker = self.bells[index as usize].clone();
                let Some(waiter) = &mut self.waiters[index as usize] else { continue };
                if let Poll::Ready(answer) = waiter.call.as_mut().poll(&mut Context::from_waker(&waker)) {
                    let Waiter { class, since, counts, .. } = self.waiters[index as usize].take().expect("polled");
                    self.retire(index);
                    let Ok(answer) = answer;
                    self.settled(class, since, counts, answer);
                }
            }
        }
    }
}
