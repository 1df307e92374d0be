use std::time::Instant;

use forebay_core::Outcome;

use super::ask::New;
use super::busy::{Busy, Ghosts};
use super::foreign::Foreign;
use super::outlier::{Phase, Record};
use super::pool::Offset;
use super::tree::{self, Key};
use super::weight::{self, Starting, UNIT};
use crate::probe::CloseCause;

/// No bound.
const UNBOUNDED: u64 = u64::MAX;

/// The most of our own requests, and of what weighs on besides, that still make a difference: half of what a key holds.
const MOST: i64 = tree::CLOSED / 2 - 1;

/// What health checks say of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// It is not checked.
    Unchecked,
    /// Not one check has succeeded yet.
    New,
    /// So many failures running.
    Up { failed: u8 },
    /// So many successes running.
    Down { passed: u8 },
}

/// Why an endpoint gets requests or not; what a snapshot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointState {
    /// It gets requests.
    Up,
    /// No health check has succeeded yet.
    New,
    /// Health checks fail.
    Down,
    /// It failed too often and is left out for a while.
    Ejected,
    /// Ejected before: one request tries it.
    Probation,
    /// A rule closed it.
    Closed(CloseCause),
    /// It asked for a pause (`Retry-After`).
    Paused,
    /// It has the weight 0, or was removed and still has requests.
    Draining,
}

/// One endpoint. What a pick and a good end go by comes first, in one line of the cache.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(crate) struct Slot {
    pub(crate) own: u32,
    /// The weight in use, in 1/256.
    pub(crate) weight: u32,
    /// Its own requests up to which it takes one more: 0 if it may not be picked at all.
    limit: u64,
    /// What it has to do apart from them, as a [`Key`] counts it.
    burden: i64,
    pub(super) last_pick: u64,
    pub(crate) picks: u64,
    pub(crate) pool: usize,
    pub(super) leaf: u32,
    /// Successes that are not yet in `outcomes` and `record`.
    fresh: u32,
    /// Whether it may be picked at all.
    pub(super) open: bool,
    /// Whether a pick is nothing but a pick, and a success nothing but a success: nobody waits for it to prove itself, or
    /// to be gone.
    pub(super) plain: bool,
    pub(crate) removed: bool,
    /// It has left its pool, and waits to be another endpoint's.
    pub(super) gone: bool,
    /// By [`Outcome`]; without the fresh ones.
    outcomes: [u64; 4],
    pub(super) record: Record,
    pub(crate) base: u16,
    pub(super) id_hash: u64,
    pub(super) group_hash: u64,
    pub(crate) max_concurrency: Option<u32>,
    pub(super) foreign: Foreign,
    /// What the foreign load counts as now, in 1/256 requests.
    pub(super) foreign_units: u64,
    /// How much more of others' requests it has than its share, in 1/256 requests; only that makes a difference.
    pub(super) surplus: i64,
    /// What of that stays from answer to answer.
    pub(super) lasting_surplus: f64,
    pub(super) ghosts: Ghosts,
    pub(super) check: Check,
    pub(super) busy: Busy,
    /// How often an operator has cleared it.
    clears: u32,
    pub(super) starting: Option<Starting>,
    /// Of probes, 0 to 1.
    pub(super) factor: f32,
    pub(super) closed: Option<CloseCause>,
    /// When it last said what it has to do.
    pub(crate) heard: Option<Instant>,
    /// How long what the probes said holds.
    pub(super) judged_until: Option<Instant>,
    /// When time alone changes it next.
    pub(super) due: Option<Instant>,
}

impl Slot {
    pub(super) const fn new(pool: usize, leaf: u32) -> Self {
        Self {
            own: 0,
            weight: 0,
            limit: 0,
            burden: 0,
            last_pick: 0,
            picks: 0,
            pool,
            leaf,
            fresh: 0,
            open: false,
            plain: false,
            removed: false,
            gone: false,
            outcomes: [0; 4],
            record: Record::new(),
            base: 0,
            id_hash: 0,
            group_hash: 0,
            max_concurrency: None,
            foreign: Foreign::Unasked,
            foreign_units: 0,
            surplus: 0,
            lasting_surplus: 0.0,
            ghosts: Ghosts::new(),
            check: Check::Unchecked,
            busy: Busy::new(),
            clears: 0,
            starting: None,
            factor: 1.0,
            closed: None,
            heard: None,
            judged_until: None,
            due: None,
        }
    }

    /// Whether it belongs to the pool for good: it was not drained.
    pub(super) const fn stays(&self) -> bool {
        self.base > 0 && !self.removed
    }

    /// Whether it is healthy, whatever its bounds say.
    pub(crate) const fn healthy(&self) -> bool {
        self.stays()
            && matches!(self.check, Check::Unchecked | Check::Up { .. })
            && !matches!(self.record.phase, Phase::Ejected { .. })
            && self.closed.is_none()
    }

    #[cfg(feature = "client")]
    pub(crate) const fn clears(&self) -> u32 {
        self.clears
    }

    pub(crate) const fn check(&self) -> Check {
        self.check
    }

    /// What it was last inserted as or changed to.
    pub(crate) fn as_new(&self) -> New {
        New {
            pool: self.pool,
            weight: self.base,
            max_concurrency: self.max_concurrency,
            checked: self.check != Check::Unchecked,
            probed: self.foreign != Foreign::Unasked,
            id_hash: self.id_hash,
            group_hash: self.group_hash,
        }
    }

    pub(crate) const fn state(&self) -> EndpointState {
        if !self.stays() {
            return EndpointState::Draining;
        }
        match (self.check, self.record.phase, self.closed) {
            (Check::New, ..) => EndpointState::New,
            (Check::Down { .. }, ..) => EndpointState::Down,
            (_, Phase::Ejected { .. }, _) => EndpointState::Ejected,
            (_, _, Some(cause)) => EndpointState::Closed(cause),
            _ if self.busy.paused_until.is_some() => EndpointState::Paused,
            (_, Phase::Probation { .. }, _) => EndpointState::Probation,
            _ => EndpointState::Up,
        }
    }

    /// Whether it is open and its limit. In a panic health does not count, drain and bounds do.
    #[inline(never)]
    fn bind(&mut self, panic: bool) {
        self.open =
            (self.healthy() || panic && self.stays() && self.check != Check::New) && self.busy.paused_until.is_none();
        let trial = match self.record.phase {
            Phase::Probation { trial } if !panic => Some(self.own + u32::from(trial.is_none())),
            _ => None,
        };
        let bounds = [self.max_concurrency, self.busy.cap(), trial];
        let bound = bounds.into_iter().flatten().min().filter(|bound| *bound < u32::MAX);
        let foreign = self.foreign_units / u64::from(UNIT);
        self.limit = match bound {
            _ if !self.open => 0,
            Some(bound) => u64::from(bound).saturating_sub(foreign),
            None => UNBOUNDED,
        };
    }

    /// One request more or less, and what follows from that.
    #[inline]
    pub(super) fn occupy(&mut self, more: bool, panic: bool) {
        debug_assert!(more || self.own > 0);
        self.own = if more { self.own.saturating_add(1) } else { self.own.saturating_sub(1) };
        if !self.plain && matches!(self.record.phase, Phase::Probation { .. }) {
            self.bind(panic);
        }
    }

    /// What follows from all the rest.
    pub(super) fn derive(&mut self, panic: bool, offset: Offset, now: Instant) {
        match self.foreign {
            Foreign::Unasked => (self.foreign_units, self.surplus, self.lasting_surplus) = (0, 0, 0.0),
            Foreign::Unknown => (self.surplus, self.lasting_surplus) = (0, 0.0), // it has its share
            Foreign::Reported { requests, .. } => self.foreign_units = u64::from(requests) * u64::from(UNIT),
        }
        self.bind(panic);
        let ghosts = i64::from(self.ghosts.count()) * i64::from(UNIT);
        self.burden = (2 * (ghosts + self.surplus) + offset.units()).clamp(-MOST, MOST);
        let starting = self.starting.map_or(1.0, |starting| starting.factor(now));
        if starting >= 1.0 {
            self.starting = None;
        }
        self.weight = weight::effective(self.base, starting * self.factor);
        let proven = self.record.phase == Phase::Up && self.busy.cap().is_none() && self.starting.is_none();
        self.plain = proven && !self.removed;
        let due = [
            self.ghosts.due(),
            self.busy.due(),
            self.foreign.due(),
            self.starting.map(|starting| starting.due),
            self.judged_until,
            if let Phase::Ejected { until } = self.record.phase { until } else { None },
        ];
        self.due = due.into_iter().flatten().min();
    }

    /// What time alone changes.
    pub(super) fn tick(&mut self, now: Instant) {
        self.ghosts.tick(now);
        self.busy.tick(now);
        self.foreign.tick(now);
        self.record.tick(now);
        if let Some(starting) = &mut self.starting {
            starting.tick(now);
        }
        if self.judged_until.is_some_and(|until| until <= now) {
            self.judged_until = None;
            self.forget_verdict();
        }
    }

    /// Probation: this pick tries it, if nobody does yet.
    pub(super) fn begin_trial(&mut self, ticket: u64) -> bool {
        let begins = self.record.phase == Phase::Probation { trial: None };
        if begins {
            self.record.phase = Phase::Probation { trial: Some(ticket) };
        }
        begins
    }

    /// Probation: the trial told nothing, the next pick is another.
    pub(super) const fn retry_trial(&mut self) {
        if matches!(self.record.phase, Phase::Probation { .. }) {
            self.record.phase = Phase::Probation { trial: None };
        }
    }

    pub(super) fn clear(&mut self) {
        self.clears = self.clears.wrapping_add(1);
        self.count_fresh();
        self.record.clear();
        self.busy = Busy::new();
        self.ghosts = Ghosts::new();
        self.factor = 1.0;
        self.closed = None;
        self.starting = None;
    }

    #[inline]
    pub(crate) const fn is_unbounded(&self) -> bool {
        self.limit == UNBOUNDED
    }

    /// How many more requests it may get where there is a bound, or else 0.
    #[inline]
    pub(super) const fn room(&self) -> u64 {
        if self.is_unbounded() { 0 } else { self.limit.saturating_sub(self.own as u64) }
    }

    #[inline]
    pub(super) const fn takes_more(&self) -> bool {
        self.limit > self.own as u64
    }

    #[inline]
    pub(super) const fn count_pick(&mut self, ticket: u64) {
        self.last_pick = ticket;
        self.picks += 1;
    }

    /// A success of which nothing is to be learned but that it is one.
    #[inline]
    pub(super) const fn succeed(&mut self) {
        self.fresh = self.fresh.saturating_add(1);
    }

    /// Counts how an exchange ended, and the fresh successes before it.
    pub(super) fn count_end(&mut self, outcome: Outcome) {
        self.count_fresh();
        self.outcomes[outcome as usize] += 1;
    }

    fn count_fresh(&mut self) {
        let fresh = std::mem::take(&mut self.fresh);
        self.outcomes[Outcome::Success as usize] += u64::from(fresh);
        self.record.successes(fresh);
    }

    /// How many exchanges ended so.
    pub(crate) fn ended(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize] + if outcome == Outcome::Success { u64::from(self.fresh) } else { 0 }
    }

    /// How it stands beside the others: by ours, ghosts, and what others have there above its share of theirs. What is
    /// shared by weight makes no difference to who has least for its weight.
    #[inline]
    pub(super) fn key(&self) -> Key {
        if !self.takes_more() {
            return Key::closed(self.leaf);
        }
        let work = self.burden + (2 * i64::from(UNIT) * i64::from(self.own)).min(MOST);
        Key::open(self.leaf, work, self.weight, self.last_pick)
    }

    /// Ours, others' and ghosts, in 1/256 requests.
    pub(crate) fn load_units(&self) -> u64 {
        (u64::from(self.own) + u64::from(self.ghosts.count())) * u64::from(UNIT) + self.foreign_units
    }
}
