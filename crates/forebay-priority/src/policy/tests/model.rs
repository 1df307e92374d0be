//! The same policy, written down as plainly as can be: one list of requests, searched from end to end each time.

use forebay_core::Reason;

use crate::config::{OnFull, Order, PriorityConfig};
use crate::policy::class::BEGIN;
use crate::policy::flows::{COMMON, account, hand};
use crate::policy::pace::HANGS;
use crate::policy::scheduler::Ask;
use crate::policy::tick::{Tick, nanos};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Waiting,
    /// Has a seat, and does not know it yet.
    Granted,
    Running,
    /// Runs on, its seat taken away.
    Revoked,
    Refused(Reason),
    Gone,
}

#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) state: State,
    ask: Ask,
    arrived: Tick,
    granted: Tick,
    flow: Option<u8>,
    charged: u64,
    /// Its place among all that have joined a queue.
    place: usize,
}

pub(super) struct Model {
    pub(super) config: PriorityConfig,
    pub(super) limit: usize,
    pub(super) requests: Vec<Request>,
    pub(super) draining: bool,
    pub(super) open: Vec<bool>,
    accrued: Tick,
    credits: Vec<f64>,
    owed_cost: Vec<usize>,
    busy_since: Vec<Tick>,
    starts: Vec<Vec<u64>>,
    virtual_now: Vec<u64>,
    joined: usize,
    pub(super) places: usize,
    /// Whether the age of held seats is known: while few exchanges have ended.
    pub(super) ages: bool,
    /// The hold, as it was when the scheduler looked last.
    hold: f64,
    /// The recent share of each class that was served.
    served: Vec<f64>,
}

impl Model {
    pub(super) fn new(config: &PriorityConfig) -> Self {
        let classes = config.classes.len();
        Self {
            config: config.clone(),
            limit: config.seats(),
            requests: Vec::new(),
            draining: false,
            open: vec![true; classes],
            accrued: Tick::ZERO,
            credits: vec![BEGIN; classes],
            owed_cost: vec![1; classes],
            busy_since: vec![Tick::ZERO; classes],
            starts: vec![vec![0; 2049]; classes],
            virtual_now: vec![0; classes],
            joined: 0,
            places: usize::MAX,
            ages: false,
            hold: nanos(config.expected_hold) as f64,
            served: vec![1.0; classes],
        }
    }

    /// The waiters of a class, oldest first.
    pub(super) fn waiters(&self, class: usize) -> Vec<usize> {
        let waits = |request: &Request| request.ask.class == class && request.state == State::Waiting;
        let mut waiters: Vec<_> = (0..self.requests.len()).filter(|&id| waits(&self.requests[id])).collect();
        waiters.sort_by_key(|&id| self.requests[id].place);
        waiters
    }

    pub(super) fn waiting(&self) -> usize {
        self.requests.iter().filter(|request| request.state == State::Waiting).count()
    }

    /// Seats held, by a class or by all.
    pub(super) fn held(&self, class: Option<usize>) -> usize {
        let holds = |request: &&Request| {
            matches!(request.state, State::Granted | State::Running)
                && class.is_none_or(|class| class == request.ask.class)
        };
        self.requests.iter().filter(holds).map(|request| request.ask.cost as usize).sum()
    }

    fn seats(&self) -> usize {
        self.limit.min(self.places)
    }

    fn every(&self) -> f64 {
        self.hold / self.seats().max(1) as f64
    }

    fn patience(&self, class: usize) -> u64 {
        let rule = &self.config.classes[class];
        (rule.queue_timeout.as_secs_f64() * 1e9).max(f64::from(rule.patience_seats) * self.every()) as u64
    }

    /// What is known of the hold: what was expected, or the mean age of what is held.
    fn look(&mut self, now: Tick) {
        let holds = |request: &&Request| matches!(request.state, State::Granted | State::Running | State::Revoked);
        let held: Vec<_> = self.requests.iter().filter(holds).map(|request| u128::from(request.granted.0)).collect();
        let mean = if held.is_empty() || !self.ages {
            0.0
        } else {
            (now.0 as f64 - held.iter().sum::<u128>() as f64 / held.len() as f64).max(0.0)
        };
        self.hold = mean.min(HANGS).max(nanos(self.config.expected_hold) as f64);
    }

    fn refuse(&mut self, id: usize, reason: Reason) {
        self.requests[id].state = State::Refused(reason);
        let class = self.requests[id].ask.class;
        self.served[class] -= self.served[class] / 128.0;
    }

    fn admit(&mut self, class: usize) {
        self.served[class] = 1.0 - (1.0 - self.served[class]) * (127.0 / 128.0);
    }

    fn lifo(&self, class: usize, now: Tick) -> bool {
        let (patience, every) = (self.config.classes[class].patience(self.every()), self.every());
        let after = match self.config.classes[class].order {
            Order::Fifo => return false,
            Order::AdaptiveLifo { after: Some(after) } => nanos(after),
            Order::AdaptiveLifo { after: None } => patience.min((32.0 * every).max(1e9)) as u64,
        };
        let oldest = self.waiters(class).into_iter().map(|id| self.requests[id].arrived).min();
        now >= self.busy_since[class].plus(after) && oldest.is_some_and(|oldest| now > oldest.plus(after / 2))
    }

    /// Whether the tenant of a request may have more seats.
    fn fits_tenant(&self, ask: &Ask) -> bool {
        let (Some(share), Some(_)) = (self.config.max_share, ask.tenant) else { return true };
        let holds = |request: &&Request| {
            matches!(request.state, State::Granted | State::Running) && request.ask.tenant == ask.tenant
        };
        let held: usize = self.requests.iter().filter(holds).map(|request| request.ask.cost as usize).sum();
        held == 0 || held + ask.cost as usize <= (share * self.seats() as f64).ceil() as usize
    }

    fn flow(&self, class: usize, flow: u8) -> Vec<usize> {
        self.waiters(class).into_iter().filter(|&id| self.requests[id].flow == Some(flow)).collect()
    }

    fn flows(&self, class: usize) -> Vec<u8> {
        (0..=COMMON).filter(|&flow| !self.flow(class, flow).is_empty()).collect()
    }

    fn front(&self, class: usize, now: Tick) -> Option<usize> {
        let front = |flow: u8| {
            let waiters = self.flow(class, flow);
            if self.lifo(class, now) { waiters[waiters.len() - 1] } else { waiters[0] }
        };
        let fronts = self.flows(class).into_iter().map(front).filter(|&id| self.fits_tenant(&self.requests[id].ask));
        fronts.min_by_key(|&id| self.start(class, self.requests[id].ask.tenant))
    }

    fn start(&self, class: usize, tenant: Option<u64>) -> u64 {
        let [one, other] = account(tenant).map(|cell| self.starts[class][usize::from(cell)]);
        one.min(other)
    }

    /// Changes the virtual start of a tenant, and of whoever shares its cells.
    fn change_start(&mut self, class: usize, tenant: Option<u64>, change: impl Fn(u64) -> u64) {
        let cells: std::collections::HashSet<u16> = account(tenant).into();
        for cell in cells {
            let start = &mut self.starts[class][usize::from(cell)];
            *start = change(*start);
        }
    }

    fn last(&self, class: usize, now: Tick, newcomer: Option<usize>) -> Option<usize> {
        let joined = |flow: u8| newcomer.is_some_and(|id| self.requests[id].flow == Some(flow));
        let longest = |&flow: &u8| (self.flow(class, flow).len(), joined(flow));
        let flow = self.flows(class).into_iter().max_by_key(longest)?;
        let waiters = self.flow(class, flow);
        if self.lifo(class, now) { waiters.first().copied() } else { waiters.last().copied() }
    }

    fn fits_class(&self, class: usize, cost: u32) -> bool {
        let (rule, cost) = (&self.config.classes[class], cost as usize);
        let own = self.held(Some(class));
        let all = self.held(None);
        let cap = rule.cap(self.limit);
        (own == 0 || cap >= self.limit || own + cost <= cap) && (all == 0 || all < rule.ceiling(self.limit))
    }

    fn fits_house(&self, class: usize, cost: u32) -> bool {
        let all = self.held(None);
        all == 0 || all + cost as usize <= self.config.classes[class].ceiling(self.limit).min(self.limit)
    }

    fn length(&self, class: usize) -> usize {
        let rule = &self.config.classes[class];
        let usable = rule.cap(self.limit).min(rule.ceiling(self.limit)).min(self.seats());
        rule.queue_length(usable, rule.patience(self.every()), self.hold)
    }

    fn over(&self, id: usize, now: Tick) -> Option<Reason> {
        let request = &self.requests[id];
        let patience = self.patience(request.ask.class);
        if request.ask.deadline <= now {
            Some(Reason::DeadlineExceeded)
        } else if request.arrived.plus(patience) <= now {
            Some(Reason::QueueTimeout)
        } else {
            None
        }
    }

    pub(super) fn advance(&mut self, now: Tick) {
        self.look(now);
        if self.waiting() > 0 {
            self.accrue(now);
        }
    }

    fn accrue(&mut self, now: Tick) {
        let passed = now.since(self.accrued) as f64;
        if passed == 0.0 {
            return; // also no bound: a limit that was there for no time leaves no trace
        }
        self.accrued = now;
        for class in 0..self.credits.len() {
            let share = self.config.classes[class].reserved * self.seats() as f64;
            if share > 0.0 {
                let seats = (share.ceil() as usize).max(self.owed_cost[class]);
                let held = self.held(Some(class)).min(seats) as f64;
                let credit = self.credits[class] + (share - held) * passed;
                self.credits[class] = credit.clamp(-(seats as f64) * 1e9, share * 1e9);
            }
        }
    }

    fn owed(&self, class: usize) -> bool {
        let share = self.config.classes[class].reserved * self.seats() as f64;
        let seats = (share.ceil() as usize).max(self.owed_cost[class]);
        let ahead = |urgent| self.waiters(urgent).is_empty() || self.served[class] <= self.served[urgent] + 0.01;
        let due = self.config.classes[class].reserved > 0.0 && self.credits[class] >= 0.0;
        due && self.held(Some(class)) < seats && (0..class).all(ahead)
    }

    /// Grants and refuses until nothing more can be done.
    pub(super) fn settle(&mut self, now: Tick) {
        if self.waiting() == 0 {
            return;
        }
        self.look(now);
        self.accrue(now);
        while self.held(None) < self.limit
            && let Some((id, owed)) = self.next(now)
        {
            let request = &mut self.requests[id];
            let (class, tenant, cost) = (request.ask.class, request.ask.tenant, request.ask.cost);
            let charged = self.hold as u64 * u64::from(cost);
            (request.state, request.granted, request.charged) = (State::Granted, now, charged);
            self.virtual_now[class] = self.virtual_now[class].max(self.start(class, tenant));
            self.change_start(class, tenant, |start| start + charged);
            self.admit(class);
            if owed {
                self.owed_cost[class] = cost as usize;
            }
        }
    }

    fn next(&mut self, now: Tick) -> Option<(usize, bool)> {
        'again: loop {
            let mut order = vec![(0, false)];
            order.extend((1..self.open.len()).map(|class| (class, true)));
            order.extend((1..self.open.len()).map(|class| (class, false)));
            for (class, owed) in order {
                if owed && !self.owed(class) {
                    continue;
                }
                let Some(id) = self.front(class, now) else { continue };
                // In the very instant in which its time ends, it may still go.
                let past = self.over(id, Tick(now.0.saturating_sub(1))).is_some();
                if let Some(reason) = self.over(id, now).filter(|_| past) {
                    self.refuse(id, reason);
                    continue 'again;
                }
                let cost = self.requests[id].ask.cost;
                if !self.fits_class(class, cost) {
                    continue;
                }
                if !self.fits_house(class, cost) {
                    return None;
                }
                if self.open[class] {
                    return Some((id, owed));
                }
            }
            return None;
        }
    }

    /// A newcomer: what it is told.
    pub(super) fn offer(&mut self, now: Tick, ask: Ask) -> State {
        let (id, class) = (self.requests.len(), ask.class);
        let mut request =
            Request { state: State::Gone, ask, arrived: now, granted: now, flow: None, charged: 0, place: 0 };
        if self.draining || ask.deadline <= now {
            let reason = if self.draining { Reason::ShuttingDown } else { Reason::DeadlineExceeded };
            self.requests.push(request);
            self.refuse(id, reason);
            return State::Refused(reason);
        }
        let free = self.held(None) < self.limit && self.fits_class(class, ask.cost) && self.fits_house(class, ask.cost);
        if self.waiting() == 0 && free && self.fits_tenant(&ask) && self.open[class] {
            self.admit(class);
            request.state = State::Running;
            self.requests.push(request);
            return State::Running;
        }
        let flow = ask.tenant.map_or(COMMON, |tenant| {
            let hand = hand(tenant).into_iter();
            let key = |flow: &u8| self.flow(class, *flow).len();
            hand.min_by_key(key).expect("six")
        });
        while let Some(&oldest) = self.flow(class, flow).first()
            && let Some(reason) = self.over(oldest, now)
        {
            self.refuse(oldest, reason);
        }
        if self.waiting() == 0 {
            self.accrued = now;
        }
        (request.state, request.flow) = (State::Waiting, Some(flow));
        request.place = self.join(now, class, ask.tenant);
        self.requests.push(request);
        self.settle(now);
        if self.requests[id].state == State::Granted {
            self.requests[id].state = State::Running;
        }
        if self.requests[id].state == State::Waiting {
            self.make_room(now, id);
        }
        self.requests[id].state
    }

    /// What happens to a class when somebody joins its queue: the place there.
    fn join(&mut self, now: Tick, class: usize, tenant: Option<u64>) -> usize {
        if self.waiters(class).is_empty() {
            self.busy_since[class] = now;
        }
        let virtual_now = self.virtual_now[class];
        self.change_start(class, tenant, |start| start.max(virtual_now));
        self.joined += 1;
        self.joined
    }

    /// Whether a waiter has moved up.
    pub(super) fn raise(&mut self, now: Tick, id: usize, class: usize) -> bool {
        let request = &self.requests[id];
        let (tenant, cost, from) = (request.ask.tenant, request.ask.cost as usize, request.ask.class);
        let rule = &self.config.classes[class];
        let most = rule.cap(self.limit).min(rule.ceiling(self.limit).min(self.limit)).max(1);
        let fits = self.limit == 0 || cost <= most;
        let raised = request.state == State::Waiting && class < from && fits;
        if !raised || self.waiters(class).len() >= self.length(class) {
            return false;
        }
        let place = self.join(now, class, tenant);
        let request = &mut self.requests[id];
        (request.ask.class, request.arrived, request.place) = (class, now, place);
        true
    }

    fn make_room(&mut self, now: Tick, id: usize) {
        let class = self.requests[id].ask.class;
        let full = if self.limit == 0 { Reason::NoCapacity } else { Reason::QueueFull };
        let evict = |model: &mut Self, class: usize| {
            let last = model.last(class, now, Some(id)).expect("it is not empty");
            if last == id || model.config.on_full == OnFull::Reject {
                model.refuse(id, full);
            } else {
                model.refuse(last, Reason::Evicted);
            }
        };
        if self.waiters(class).len() > self.length(class) {
            evict(self, class);
        }
        if self.requests[id].state == State::Waiting && self.waiting() > self.config.max_queued.unwrap_or(usize::MAX) {
            let below = (class + 1..self.open.len()).rev().find(|&below| !self.waiters(below).is_empty());
            evict(self, below.unwrap_or(class));
        }
    }

    pub(super) fn poll(&mut self, id: usize) -> State {
        let told = self.requests[id].state;
        match told {
            State::Granted => self.requests[id].state = State::Running,
            State::Refused(_) => self.requests[id].state = State::Gone,
            _ => {}
        }
        told
    }

    pub(super) fn expire(&mut self, now: Tick, id: usize) -> State {
        if self.requests[id].state == State::Waiting
            && let Some(reason) = self.over(id, now)
        {
            self.refuse(id, reason);
        }
        self.poll(id)
    }

    pub(super) fn cancel(&mut self, id: usize) {
        if self.requests[id].state == State::Granted {
            self.correct(id, 0);
        }
        if matches!(self.requests[id].state, State::Waiting | State::Granted | State::Refused(_)) {
            self.requests[id].state = State::Gone;
        }
    }

    pub(super) fn release(&mut self, now: Tick, id: usize) {
        let request = &self.requests[id];
        self.correct(id, now.since(request.granted) * u64::from(request.ask.cost));
        self.requests[id].state = State::Gone;
    }

    pub(super) fn resize(&mut self, now: Tick, id: usize, cost: u32) {
        let request = &mut self.requests[id];
        if request.state != State::Running {
            return; // its seats were taken away
        }
        let (before, time) = (std::mem::replace(&mut request.ask.cost, cost), now.since(request.granted));
        if request.flow.is_some() {
            let (class, tenant) = (request.ask.class, request.ask.tenant);
            let seat_time = |seats: u32| time * u64::from(seats);
            self.change_start(class, tenant, |start| (start + seat_time(before)).saturating_sub(seat_time(cost)));
        }
    }

    fn correct(&mut self, id: usize, actual: u64) {
        let request = &self.requests[id];
        if request.flow.is_some() {
            let (class, tenant, charged) = (request.ask.class, request.ask.tenant, request.charged);
            self.change_start(class, tenant, |start| (start + actual).saturating_sub(charged));
        }
    }

    pub(super) fn reap(&mut self, now: Tick) {
        for request in &mut self.requests {
            let most = self.config.classes[request.ask.class].max_hold;
            if request.state == State::Running && most.is_some_and(|most| request.granted.after(most) <= now) {
                request.state = State::Revoked;
            }
        }
    }
}
