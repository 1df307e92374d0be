use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;

use forebay_core::{CapacitySignal, Class, Reason, Rejection, Reservation, Subscription};
use tokio::time::Instant;

use crate::adaptive::Controller;
use crate::body::Revocable;
use crate::gate::{Gate, SAMPLE};
use crate::metrics::Metrics;
use crate::policy::{Ask, Effects, Offer, Readers, Scheduler, Taken, Tick, Ticket, nanos};
use crate::reader::Reader;
use crate::settings::{Settings, Timeouts};
use crate::state::{Locked, State};
use crate::sync::{Mutex, MutexGuard};

pub(crate) type Core = Scheduler<Option<Waker>, Option<Reservation>>;

const SECOND: u64 = 1_000_000_000;

/// Nanoseconds after which the places at the backends are counted again: endpoints come and go in seconds.
const COUNT_AGAIN: u64 = 100_000_000;

/// What became of a newcomer.
pub(crate) enum Offered {
    Admitted(Taken, Option<Reservation>),
    /// It waits since then.
    Queued {
        ticket: Ticket,
        since: Tick,
    },
    /// And the nanoseconds in which those ahead of it will have been served.
    Refused(Reason, f64),
}

/// What all services, futures and bodies of one layer share.
pub(crate) struct Shared {
    state: Mutex<State>,
    gate: Gate,
    start: Instant,
    pub(crate) settings: Settings,
    pub(crate) timeouts: Timeouts,
    capacity: Option<Arc<dyn CapacitySignal>>,
    /// When the places at the backends were counted last.
    counted: AtomicU64,
    subscription: Mutex<Option<Subscription>>,
    adaptive: Option<Mutex<Controller>>,
    /// The answers whose seats may be taken away.
    readers: Mutex<Readers<Arc<dyn Revocable>>>,
    /// How many of each class have lost their seat as their reader had stopped.
    stalled: Box<[AtomicU64]>,
    /// The adaptive limit as it is now: whoever applies it last applies the latest.
    adapted: AtomicUsize,
    pub(crate) metrics: Metrics,
}

impl Shared {
    pub(crate) fn new(
        scheduler: Core,
        settings: Settings,
        capacity: Option<Arc<dyn CapacitySignal>>,
        adaptive: Option<Controller>,
    ) -> Arc<Self> {
        let timeouts = Timeouts::new(scheduler.rules());
        let readers = Mutex::new(Readers::new(settings.stall.map_or(SECOND, nanos)));
        let stalled = (0..timeouts.len()).map(|_| AtomicU64::new(0)).collect();
        let shared = Arc::new(Self {
            metrics: Metrics::new(timeouts.len(), scheduler.limit()),
            state: Mutex::new(State::new(scheduler)),
            gate: Gate::new(),
            start: Instant::now(),
            settings,
            timeouts,
            subscription: Mutex::new(None),
            capacity,
            counted: AtomicU64::new(0),
            adaptive: adaptive.map(Mutex::new),
            adapted: AtomicUsize::new(0),
            readers,
            stalled,
        });
        if let Some(places) = shared.places() {
            shared.lock().scheduler.set_places(places);
        }
        drop(shared.lock()); // opens the gate
        if let Some(capacity) = &shared.capacity {
            let waker = Waker::from(Arc::new(Freed(Arc::downgrade(&shared))));
            let subscription = capacity.subscribe(&waker);
            *shared.subscription.lock().unwrap_or_else(PoisonError::into_inner) = Some(subscription);
        }
        shared
    }

    pub(crate) fn now(&self) -> Tick {
        Tick(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    pub(crate) fn tick(&self, instant: std::time::Instant) -> Tick {
        Tick::ZERO.after(instant.saturating_duration_since(self.start.into_std()))
    }

    /// The instant of a tick; those that an `Instant` cannot hold are 30 years off.
    pub(crate) fn instant(&self, tick: Tick) -> Instant {
        const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
        self.start + Duration::from_nanos(tick.0).min(FAR)
    }

    /// The state, with the gate shut until this is dropped. Only our own code runs under this lock, so a poisoned one is
    /// whole all the same.
    pub(crate) fn lock(&self) -> Locked<'_> {
        // A place at the backends must be looked for, and the adaptive limit learns from each exchange.
        Locked::new(self.queues(), &self.gate, self.capacity.is_none() && self.adaptive.is_none())
    }

    /// The state while the gate is as it was: for who waits and what was measured, as nothing of that is lent; not for
    /// who holds seats.
    pub(crate) fn queues(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place at the backends; takes the signal's own lock only.
    fn reserve(&self, class: usize) -> Option<Option<Reservation>> {
        match &self.capacity {
            Some(capacity) => capacity.try_reserve(Class::new(class as u8)).map(Some),
            None => Some(None),
        }
    }

    /// The places that the backends have, all together; asked of them, outside our lock.
    fn places(&self) -> Option<usize> {
        Some(self.capacity.as_ref()?.places(None).total as usize)
    }

    /// The same, if it was not asked of late.
    fn places_again(&self) -> Option<usize> {
        self.capacity.as_ref()?;
        let now = self.now();
        let last = Tick(self.counted.load(Relaxed));
        if now.since(last) < COUNT_AGAIN {
            return None;
        }
        self.counted.store(now.0, Relaxed);
        self.places()
    }

    /// The least urgent class whose newcomers are answered within `sla`, if they wait for twice as long as is predicted and the
    /// backend takes as long as expected. `None`: none does, or too little has been measured.
    pub(crate) fn keeping(&self, sla: Duration) -> Option<Class> {
        let left = nanos(sla).checked_sub(nanos(self.settings.expected_head))? as f64;
        let state = self.queues();
        let waits = state.scheduler.predicted_waits(self.now()).enumerate();
        let keeps = |(class, wait): (usize, Option<f64>)| wait.filter(|wait| 2.0 * wait <= left).map(|_| class);
        waits.filter_map(keeps).last().map(|class| Class::new(class as u8))
    }

    /// Whether every exchange is timed, and not one in 16 only.
    const fn timed(&self) -> bool {
        self.adaptive.is_some()
    }

    /// A newcomer that comes through the gate, and when, if it is one of those that are timed.
    #[inline]
    pub(crate) fn pass(&self, ask: &Ask) -> Option<Option<Tick>> {
        if ask.cost != 1 || ask.deadline != Tick::NEVER {
            return None;
        }
        self.gate.admit(ask.class).map(|timed| timed.then(|| self.now()))
    }

    /// A newcomer that needs not be timed, while nobody waits. Its cost becomes what its class can have at most.
    pub(crate) fn try_admit(&self, ask: &mut Ask) -> Option<(Taken, Option<Reservation>)> {
        if self.timed() || self.gate.is_crowded() {
            return None;
        }
        let mut state = self.lock();
        state.uncontended = (state.uncontended + 1) % SAMPLE;
        if state.uncontended == 0 {
            return None;
        }
        ask.cost = state.scheduler.affordable(ask);
        state.scheduler.try_admit(ask, &mut |class| self.reserve(class))
    }

    /// A newcomer, whoever waits, and what wakes it. Its cost becomes what its class can have at most.
    pub(crate) fn offer(&self, ask: &mut Ask, waker: &Waker) -> Offered {
        let mut waker = Some(waker.clone()); // cloned, and dropped if it is not needed, outside the lock
        let mut reserve = |class| self.reserve(class);
        let places = self.places_again();
        self.run(self.lock(), |core, now, effects| {
            if let Some(places) = places {
                core.set_places(places);
            }
            ask.cost = core.affordable(ask);
            match core.offer(now, ask, || None, &mut reserve, effects) {
                Offer::Admitted(taken, place) => Offered::Admitted(taken, place),
                Offer::Queued(ticket) => {
                    core.set_waiter(ticket, waker.take());
                    Offered::Queued { ticket, since: now }
                }
                Offer::Refused(reason) => Offered::Refused(reason, core.drain_time(ask.class)),
            }
        })
    }

    /// A waiter has gone, or does not want its seat.
    pub(crate) fn cancel(&self, ticket: Ticket) {
        let mut state = self.lock();
        let held = if state.scheduler.cancels_alone(ticket) {
            let held = state.scheduler.cancel(ticket);
            drop(state);
            held
        } else {
            self.change_locked(state, |core, _| core.cancel(ticket))
        };
        drop(held); // outside the lock
    }

    /// Does something to the scheduler, and then whatever may be done for others. Wakers run outside the lock: they may
    /// come back here.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Core, Tick) -> T) -> T {
        self.change_locked(self.lock(), change)
    }

    fn change_locked<'a, T>(&'a self, state: Locked<'a>, change: impl FnOnce(&mut Core, Tick) -> T) -> T {
        let mut reserve = |class| self.reserve(class);
        self.run(state, |core, now, effects| {
            let result = change(core, now);
            core.settle(now, &mut reserve, effects);
            result
        })
    }

    fn run<'a, T>(
        &'a self,
        mut state: Locked<'a>,
        operation: impl FnOnce(&mut Core, Tick, &mut Effects<Option<Waker>>) -> T,
    ) -> T {
        let mut reserve = |class| self.reserve(class);
        let mut effects = Effects::new();
        let now = self.now(); // under the lock, so that ticks never run backwards
        state.scheduler.advance(now);
        let result = operation(&mut state.scheduler, now, &mut effects);
        loop {
            let drained = state.take_drained();
            drop(state);
            let more = effects.more();
            if !effects.is_empty() || !drained.is_empty() {
                wake_all(effects.into_waiters().flatten().chain(drained));
            }
            if !more {
                return result;
            }
            effects = Effects::new();
            state = self.lock();
            let now = self.now();
            state.scheduler.settle(now, &mut reserve, &mut effects);
        }
    }

    /// Whether a reader that has stopped loses its seat.
    pub(crate) const fn watches(&self) -> bool {
        self.settings.stall.is_some()
    }

    /// A reader that has not asked for anything yet.
    pub(crate) fn reader(&self) -> Reader {
        let stall = self.settings.stall.map_or(u64::MAX, nanos);
        Reader::new(self.now(), stall, self.settings.min_read_rate)
    }

    /// Watches an answer until it is [forgotten](Self::forget).
    pub(crate) fn watch(&self, answer: Arc<dyn Revocable>) -> Ticket {
        let look = answer.until();
        self.readers().watch(look, answer)
    }

    /// Ends the watch over an answer.
    pub(crate) fn forget(&self, ticket: Ticket) {
        let answer = self.readers().forget(ticket);
        drop(answer); // outside the lock
    }

    fn readers(&self) -> MutexGuard<'_, Readers<Arc<dyn Revocable>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a waiter is to look for answers that may lose their seat.
    pub(crate) fn next_look(&self) -> Option<Tick> {
        self.readers().next_look(self.now())
    }

    /// Takes seats away that have been held for too long, or whose answer's reader has stopped. A waiter calls it: where
    /// nothing waits, a seat that is held harms nobody.
    pub(crate) fn reclaim(&self) {
        let now = self.now();
        let held = self.queues().scheduler.next_reap();
        if held <= now {
            self.change(|core, now| core.reap(now));
        }
        let over = self.readers().stalled(now, |answer| answer.until());
        for answer in over {
            if let Some(class) = answer.revoke(now) {
                self.stalled[usize::from(class)].fetch_add(1, Relaxed);
                self.metrics.revoked(usize::from(class), "reader-stalled");
                tracing::debug!(class = Class::new(class).as_str(), "a reader has stopped: its seat was taken away");
            }
        }
    }

    /// How many of each class have lost their seat as their reader had stopped.
    pub(crate) fn stalled(&self, class: usize) -> u64 {
        self.stalled[class].load(Relaxed)
    }

    /// Hands back a [plain](Taken::is_plain) seat, if the gate takes it; else [`release`](Self::release) it.
    #[inline]
    pub(crate) fn give_back(&self, class: u8, done: bool) -> bool {
        self.gate.release(usize::from(class), done)
    }

    /// Hands a seat back.
    pub(crate) fn release(&self, taken: Taken, done: bool) {
        let mut state = self.lock();
        if taken.granted().is_none() && state.scheduler.waiting() == 0 && state.drained.is_empty() {
            state.scheduler.release(taken, None, done); // nobody to tell, nothing to measure
            return;
        }
        if !self.change_locked(state, |core, now| core.release(taken, Some(now), done)) {
            self.metrics.revoked(usize::from(taken.class), "max-hold");
        }
    }

    /// A first byte has come, `streamed` or at once with the head: estimates learn from it, and the adaptive limit.
    pub(crate) fn first_byte(&self, taken: &Taken, streamed: bool) -> Option<Duration> {
        let mut state = self.queues();
        let now = self.now();
        let latency = state.scheduler.first_byte(now, taken)?;
        let in_flight = state.scheduler.in_flight(); // where it is adapted, nothing is lent
        drop(state);
        self.adapt(|controller| {
            controller.in_flight(in_flight);
            controller.sample(now.0, latency, streamed)
        });
        Some(Duration::from_nanos(latency))
    }

    /// The backend said that it is busy, or could not be reached.
    pub(crate) fn overloaded(&self) {
        self.adapt(|controller| controller.overload(self.now().0));
    }

    /// A limit by hand: an adaptive one goes on from there.
    pub(crate) fn set_limit(&self, seats: usize) {
        if let Some(adaptive) = &self.adaptive {
            adaptive.lock().unwrap_or_else(PoisonError::into_inner).set_limit(seats);
        }
        self.change(|core, _| core.set_limit(seats));
        self.metrics.limit(seats);
    }

    fn adapt(&self, learn: impl FnOnce(&mut Controller) -> Option<usize>) {
        let Some(adaptive) = &self.adaptive else { return };
        let mut controller = adaptive.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(limit) = learn(&mut controller) else { return };
        self.adapted.store(limit, Relaxed);
        drop(controller);
        let limit = self.change(|core, _| {
            // A pause by hand stays one, whatever is still learned from those that run.
            if core.limit() > 0 {
                core.set_limit(self.adapted.load(Relaxed));
            }
            core.limit()
        });
        self.metrics.limit(limit);
    }

    /// A refusal, with the time in which those ahead will have been served.
    pub(crate) fn reject(&self, class: Class, reason: Reason, waited: Duration) -> Rejection {
        let ahead = self.queues().scheduler.drain_time(self.timeouts.index(class));
        self.reject_behind(ahead, class, reason, waited)
    }

    /// The same, with the nanoseconds in which those ahead will have been served.
    pub(crate) fn reject_behind(&self, ahead: f64, class: Class, reason: Reason, waited: Duration) -> Rejection {
        let after = Duration::from_nanos(ahead.clamp(1e9, 32e9) as u64);
        tracing::debug!(class = class.as_str(), reason = reason.as_str(), ?waited, "refused");
        self.metrics.shed(self.timeouts.index(class), reason);
        Rejection::new(reason).class(class).waited(waited).retry_after(after)
    }

    /// Whether nothing waits and nothing runs; else `waker` is called when that is so.
    pub(crate) fn poll_drained(&self, waker: &Waker) -> bool {
        let mut waker = Some(waker.clone());
        let mut state = self.lock();
        let idle = state.scheduler.is_idle();
        // Bounded by the number of tasks that await a drain.
        if !idle && !state.drained.iter().any(|other| waker.as_ref().is_some_and(|waker| other.will_wake(waker))) {
            state.drained.extend(waker.take());
        }
        drop(state);
        idle
    }
}

/// Wakes them all, also if one of them panics: the others have been granted seats.
fn wake_all(wakers: impl Iterator<Item = Waker>) {
    struct Rest<I: Iterator<Item = Waker>>(I);

    impl<I: Iterator<Item = Waker>> Drop for Rest<I> {
        fn drop(&mut self) {
            self.0.by_ref().for_each(Waker::wake);
        }
    }

    let mut rest = Rest(wakers);
    rest.0.by_ref().for_each(Waker::wake);
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Called when a place at the backends may have come free.
struct Freed(Weak<Shared>);

impl Wake for Freed {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Where nobody waits there is nothing to do: who comes later looks for a place himself.
        if let Some(shared) = self.0.upgrade()
            && shared.lock().scheduler.waiting() > 0
        {
            shared.change(|_, _| ());
        }
    }
}
