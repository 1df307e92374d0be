use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use forebay_core::{Class, Demand};

use crate::alarm::Alarm;
use crate::conduct::Conduct;
use crate::endpoint::EndpointId;
use crate::members::AnyNode;
use crate::metrics::{self, Labels};
use crate::permit::Exchange;
use crate::policy::{EjectCause, New, Picker};
use crate::rate::Rate;
use crate::sync::{Mutex, MutexGuard};
use crate::wait::Waiter;
use crate::wakers::Wakers;

mod shelf;

fn lock(ledger: &'static Mutex<Ledger>) -> MutexGuard<'static, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Now, by the clock that tests can pause.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What is counted and who waits. Nothing in it depends on the service.
#[derive(Debug)]
pub(crate) struct Core {
    /// Not freed but used again for another core, once this one is gone: see [`shelf`].
    ledger: &'static Mutex<Ledger>,
    pub(crate) wakers: Wakers,
    pub(crate) conduct: Conduct,
    /// In the order of the picker's.
    pub(crate) pools: Box<[Arc<str>]>,
    pub(crate) labels: Labels,
}

/// What is behind the one lock, as it changes together.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) picker: Picker,
    /// By the picker's index. Their services are foreign code: neither cloned nor dropped under the lock.
    pub(crate) nodes: Vec<Option<Member>>,
    pub(crate) by_id: HashMap<EndpointId, usize>,
    pub(crate) demand: Demand,
    /// Who waits for a place, first come first served.
    pub(crate) waiting: VecDeque<Arc<Waiter>>,
    /// Of each class.
    waiting_of: [usize; Class::COUNT],
    pub(crate) releases: Rate,
    pub(crate) alarm: Alarm,
}

/// An endpoint.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) node: Arc<AnyNode>,
    /// Boxes of exchanges that are over, for those to come; they hold on to the node, too.
    #[expect(clippy::vec_box, reason = "it is the boxes that are kept")]
    pub(crate) spare: Vec<Box<Exchange>>,
}

impl Member {
    /// With a spare box: the first exchange there allocates nothing either, and what each needs is in one place.
    pub(crate) fn new(node: Arc<AnyNode>) -> Self {
        let spare = vec![Exchange::spare(&node)];
        Self { node, spare }
    }
}

impl Core {
    pub(crate) fn new(picker: Picker, pools: Box<[Arc<str>]>, conduct: Conduct) -> Self {
        Self {
            ledger: shelf::take(Ledger::new(picker)),
            wakers: Wakers::default(),
            conduct,
            pools,
            labels: Labels::new(),
        }
    }

    /// Only our own code runs under this lock, so a poisoned one is whole all the same.
    #[inline]
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(self.ledger)
    }

    /// For who puts what keeps this core alive into the ledger. Nobody may drop that before the guard: the core takes the
    /// lock as it goes.
    #[inline]
    pub(crate) fn ledger_for_good(&self) -> MutexGuard<'static, Ledger> {
        lock(self.ledger)
    }

    /// Changes what is counted. Places that came free go to those who wait here; then, outside the lock, these are
    /// woken, and, if places are left, the subscribers.
    #[inline]
    pub(crate) fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut ledger = self.ledger();
        let result = change(&mut ledger);
        self.changed(ledger);
        result
    }

    /// Does what follows from a change, and ends it.
    #[inline]
    pub(crate) fn changed(self: &Arc<Self>, mut ledger: MutexGuard<'_, Ledger>) {
        if self.is_unsettled(&mut ledger) {
            self.settle(ledger); // seldom
        }
    }

    /// Whether a change has an effect on anybody else. Places that have come free have none where nobody waits for them:
    /// whoever begins to wait looks for himself, under the lock.
    #[inline]
    pub(crate) fn is_unsettled(&self, ledger: &mut Ledger) -> bool {
        !ledger.picker.is_settled() && self.is_waited_for(ledger)
    }

    /// Whether that is so by now, and somebody waits if it is only places that came free.
    #[inline(never)]
    fn is_waited_for(&self, ledger: &mut Ledger) -> bool {
        if ledger.waiting.is_empty() && self.wakers.is_empty() {
            ledger.picker.take_opened();
        }
        !ledger.picker.is_settled()
    }

    #[inline(never)]
    fn settle(self: &Arc<Self>, mut ledger: MutexGuard<'_, Ledger>) {
        let opened = ledger.picker.take_opened();
        let granted = if opened { ledger.grant(self) } else { Vec::new() };
        let gone = ledger.forget_gone();
        let ejected = ledger.picker.take_ejected();
        let alarm = self.set_alarm(&mut ledger);
        drop(ledger);
        drop(gone);
        if let Some(alarm) = alarm {
            alarm.start(self);
        }
        for (cause, endpoints) in EjectCause::ALL.into_iter().zip(ejected).filter(|(_, endpoints)| *endpoints > 0) {
            metrics::ejected(cause, endpoints);
        }
        for waiter in granted {
            waiter.wake();
        }
        if opened {
            self.wakers.wake();
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        shelf::put_back(self.ledger); // by nobody else: what refers to the ledger holds on to the core
    }
}

impl Ledger {
    fn new(picker: Picker) -> Self {
        Self {
            picker,
            nodes: Vec::new(),
            by_id: HashMap::new(),
            demand: Demand::default(),
            waiting: VecDeque::new(),
            waiting_of: [0; Class::COUNT],
            releases: Rate::default(),
            alarm: Alarm::default(),
        }
    }

    /// Reserves what is open for those who wait, as far as it goes. O(1) for each that gets a place where all wait for the
    /// same pools; O(waiting) where classes differ.
    fn grant(&mut self, core: &Arc<Core>) -> Vec<Arc<Waiter>> {
        let mut granted = Vec::new();
        let mut in_vain = [false; Class::COUNT];
        let mut at = 0;
        while let Some(waiter) = self.waiting.get(at) {
            let class = waiter.class;
            let claim = if in_vain[class.index()] { None } else { self.picker.reserve(class) };
            if let Some(claim) = claim {
                if let Some(waiter) = self.waiting.remove(at) {
                    self.waiting_of[class.index()] -= 1;
                    waiter.grant(core, claim);
                    granted.push(waiter);
                }
                continue;
            }
            in_vain[class.index()] = true;
            if self.waiting_of.iter().zip(in_vain).all(|(waiting, in_vain)| *waiting == 0 || in_vain) {
                break; // nobody who waits has a place
            }
            at += 1;
        }
        granted
    }

    /// Joins the queue, at its end or its front.
    pub(crate) fn join(&mut self, waiter: &Arc<Waiter>, front: bool) {
        self.waiting_of[waiter.class.index()] += 1;
        if front {
            self.waiting.push_front(Arc::clone(waiter));
        } else {
            self.waiting.push_back(Arc::clone(waiter));
        }
    }

    /// Leaves the queue, if it is still there. O(waiting).
    pub(crate) fn leave(&mut self, waiter: &Arc<Waiter>) {
        if let Some(at) = self.waiting.iter().position(|other| Arc::ptr_eq(other, waiter)) {
            self.waiting.remove(at);
            self.waiting_of[waiter.class.index()] -= 1;
        }
    }

    /// Adds an endpoint, or changes the one of its name; what is to be dropped outside the lock.
    pub(crate) fn insert(&mut self, new: New, member: Member, now: Instant) -> Vec<Member> {
        let id = &member.node.id;
        let known = self.index_of(id.as_str());
        let stays = known.filter(|index| self.picker.slot(*index).pool == new.pool);
        let mut old = Vec::new();
        if let Some(other) = known.filter(|_| stays.is_none()) {
            // It moves to another pool: what is in flight ends where it is, under no name.
            self.by_id.remove(id);
            self.picker.remove(other, now);
            old = self.forget_gone(); // its index may be the new one's
        }
        let index = match stays {
            Some(index) => {
                self.picker.update(index, new, now);
                index
            }
            None => self.picker.insert(new, now),
        };
        if self.nodes.len() <= index {
            self.nodes.resize_with(index + 1, || None);
        }
        self.by_id.insert(id.clone(), index);
        old.extend(self.nodes[index].replace(member));
        old
    }

    fn forget_gone(&mut self) -> Vec<Member> {
        let mut nodes = Vec::new();
        for index in self.picker.take_gone() {
            // With the balancer all nodes are gone; the permits that are left end later.
            if let Some(member) = self.nodes.get_mut(index).and_then(Option::take) {
                if self.by_id.get(&member.node.id) == Some(&index) {
                    self.by_id.remove(&member.node.id);
                }
                nodes.push(member);
            }
        }
        nodes
    }

    /// What was picked.
    #[inline]
    pub(crate) fn member(&mut self, index: usize) -> &mut Member {
        self.nodes[index].as_mut().expect("a node stays as long as its endpoint can be picked")
    }

    /// Whether an endpoint is there and this is its node.
    #[cfg(feature = "client")]
    pub(crate) fn has(&self, index: usize, node: &Arc<AnyNode>) -> bool {
        let there = self.nodes.get(index).and_then(Option::as_ref).is_some_and(|there| Arc::ptr_eq(&there.node, node));
        there && !self.picker.slot(index).removed
    }

    /// The endpoints with their indices, those that are being removed left out.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = (usize, &Arc<AnyNode>)> {
        let nodes = self.nodes.iter().enumerate().filter_map(|(index, node)| Some((index, &node.as_ref()?.node)));
        nodes.filter(|(index, _)| !self.picker.slot(*index).removed)
    }

    /// The endpoint of a name, also if it is being removed.
    pub(crate) fn index_of(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }
}
