use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use forebay_core::{Class, ClassDemand, ConfigError, Demand, DemandSource};
use http::Request;

use crate::admission::Admission;
use crate::config::ClassConfig;
use crate::shared::Shared;
use crate::warnings::{Facts, Warning, warnings};

/// Watches and changes a running [`PriorityLayer`](crate::PriorityLayer).
#[derive(Debug, Clone)]
pub struct PriorityHandle {
    shared: Arc<Shared>,
}

/// A layer at one instant.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PrioritySnapshot {
    /// The shared limit, in seats.
    pub limit: usize,
    /// The seats of the limit for which the backends have a place, where they are asked.
    pub seats: usize,
    /// The mean time for which a seat is held, as far as is known.
    pub hold: Duration,
    /// What is wanted of what there is: seats held and waited for, over the limit. Above 1, somebody waits.
    pub saturation: f64,
    /// Exchanges that still run although their seat was taken away after `max_hold`.
    pub revoked_live: usize,
    /// One row a configured class, most urgent first.
    pub classes: Vec<ClassSnapshot>,
}

/// A class at one instant: `offered` is always the sum of `admitted`, `shed`, `cancelled` and `waiting`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ClassSnapshot {
    /// The longest that a request may wait now: its queue timeout, or longer where seats come free rarely.
    pub patience: Duration,
    /// Requests that wait now.
    pub waiting: usize,
    /// Seats that they wait for.
    pub queued: usize,
    /// Seats held now.
    pub in_flight: usize,
    /// Requests that came, since the start.
    pub offered: u64,
    /// Requests that got their seats.
    pub admitted: u64,
    /// Requests that were refused.
    pub shed: u64,
    /// Requests whose caller left before they got a seat.
    pub cancelled: u64,
    /// Exchanges that lost their seat as their reader had stopped ([`stall`](field@crate::PriorityConfig::stall)).
    pub stalled: u64,
    /// Exchanges that lost their seat as they held it for too long ([`max_hold`](field@ClassConfig::max_hold)).
    pub overdue: u64,
}

impl PriorityHandle {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The state now.
    #[must_use]
    pub fn snapshot(&self) -> PrioritySnapshot {
        let state = self.shared.lock().counted();
        let core = &state.scheduler;
        let classes: Vec<_> = core
            .counts()
            .enumerate()
            .map(|(class, counts)| ClassSnapshot {
                patience: core.patience(class),
                waiting: counts.waiting,
                queued: counts.queued,
                in_flight: counts.in_flight,
                offered: counts.offered,
                admitted: counts.admitted,
                shed: counts.refused,
                cancelled: counts.cancelled,
                stalled: self.shared.stalled(class),
                overdue: counts.overdue,
            })
            .collect();
        let (limit, revoked_live, seats) = (core.limit(), core.revoked(), core.seats());
        let hold = Duration::from_nanos(core.mean_hold() as u64);
        drop(state);
        let wanted: usize = classes.iter().map(|class| class.queued + class.in_flight).sum();
        let saturation = match (wanted, limit) {
            (0, _) => 0.0,
            (_, 0) => f64::INFINITY,
            (wanted, limit) => wanted as f64 / limit as f64,
        };
        PrioritySnapshot { limit, seats, hold, saturation, revoked_live, classes }
    }

    /// Changes the shared limit: waiters that now have a seat are woken within this call. 0 pauses. Below what is in
    /// flight it stops grants until enough have ended; nothing is cut. An adaptive limit goes on from there, but for a
    /// pause, which lasts until the next call.
    pub fn set_limit(&self, seats: usize) {
        self.shared.set_limit(seats.min(crate::config::MOST));
        self.warn();
    }

    /// Changes a class; one beyond the configured ones is the last. Waiters feel it within this call: some may go, and
    /// those that no longer have room in a shorter queue are refused.
    ///
    /// # Errors
    ///
    /// Every field that is out of range afterwards, at once; then nothing has changed.
    pub fn update_class(&self, class: Class, change: impl FnOnce(&mut ClassConfig)) -> Result<(), ConfigError> {
        let row = self.shared.timeouts.index(class);
        let mut classes = self.classes();
        change(&mut classes[row]); // a user's code: under no lock
        ClassConfig::check_all(&classes)?;
        let rule = classes.swap_remove(row);
        self.shared.timeouts.set(row, &rule);
        self.shared.change(|core, _| core.set_class(row, rule));
        self.warn();
        Ok(())
    }

    /// The settings of all classes as they are now, most urgent first.
    #[must_use]
    pub fn classes(&self) -> Vec<ClassConfig> {
        self.shared.lock().scheduler.rules().cloned().collect()
    }

    /// What is doubtful in the configuration as it is now; also logged when it is built or changed.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let state = self.shared.lock();
        let rules: Vec<_> = state.scheduler.rules().cloned().collect();
        let core = &state.scheduler;
        let (limit, seats, hold) = (core.limit(), core.seats(), core.mean_hold());
        drop(state);
        warnings(&Facts { classes: &rules, limit, seats, hold, stall: self.shared.settings.stall })
    }

    pub(crate) fn warn(&self) {
        for warning in self.warnings() {
            tracing::warn!(%warning, "priority");
        }
    }

    /// Sets the `Class` of a request, where it has none: the classifier's, or the less urgent one that the caller asks
    /// for; with it the `Principal`, if the classifier knows it, and the `Deadline`. For the authentication outside the
    /// stack, so that every layer inside knows them.
    pub fn mark<B>(&self, request: &mut Request<B>) {
        self.shared.settings.mark(request, &self.shared.timeouts, |sla| self.shared.keeping(sla));
    }

    /// The same queues and seats for work that is no HTTP request.
    #[must_use]
    pub fn admission(&self) -> Admission {
        Admission { shared: Arc::clone(&self.shared) }
    }

    /// Refuses newcomers from now on (503), serves those who wait, and is done when the last body has ended.
    pub fn drain(&self) -> Drained {
        self.shared.change(|core, _| core.drain(false));
        Drained { shared: Arc::clone(&self.shared) }
    }

    /// Refuses newcomers and those who wait (503), and is done when the last body has ended.
    pub fn drain_now(&self) -> Drained {
        self.shared.change(|core, _| core.drain(true));
        Drained { shared: Arc::clone(&self.shared) }
    }
}

impl DemandSource for PriorityHandle {
    fn demand(&self) -> Demand {
        let mut demand = Demand::default();
        let state = self.shared.lock().counted();
        for (row, counts) in state.scheduler.counts().enumerate() {
            demand.classes[row] = ClassDemand {
                queued: counts.queued as u64,
                in_flight: counts.in_flight as u64,
                offered: counts.offered,
                done: counts.done,
                shed: counts.refused,
            };
        }
        demand
    }
}

/// Done when nothing waits and nothing runs. Dropping it does not undo the drain.
#[derive(Debug)]
#[must_use = "the drain has begun; await its end"]
pub struct Drained {
    shared: Arc<Shared>,
}

impl Future for Drained {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.shared.poll_drained(cx.waker()) { Poll::Ready(()) } else { Poll::Pending }
    }
}
