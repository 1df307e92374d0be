use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use forebay_core::{BodyGuard, Class, Outcome};
use http::{HeaderMap, StatusCode, header};

use crate::capacity::Place;
use crate::endpoint::EndpointId;
use crate::ledger::{Core, Ledger, Member, now};
use crate::members::AnyNode;
use crate::metrics;
use crate::policy::{self, Ended, PickError, PickReason, Time};
use crate::sync::MutexGuard;

/// How many seconds an endpoint that answers 429 without `Retry-After` and has nothing to do is left alone.
const QUOTA_PAUSE: u32 = 1;

/// More boxes than these are not kept for an endpoint's exchanges to come.
const MOST_SPARE: usize = 64;

/// A place at an endpoint, from the pick to the end of the response body. Dropped unfinished it counts as cancelled.
#[derive(Debug)]
pub struct Permit {
    /// `None` when it is over. A permit is moved often, and to move a word costs nothing.
    exchange: Option<Box<Exchange>>,
}

/// What is known of an exchange.
#[derive(Debug)]
pub(crate) struct Exchange {
    node: Arc<AnyNode>,
    picked: policy::Picked,
    /// What is known so far; the worst of head and body stands.
    outcome: Outcome,
    failed: bool,
    /// For how long it asked to be left alone, in seconds.
    pause: Option<u32>,
    /// The class that it is counted as, unless it was counted further out.
    counted: Option<Class>,
}

impl Exchange {
    /// For an exchange to come.
    #[cold]
    pub(crate) fn spare(node: &Arc<AnyNode>) -> Box<Self> {
        let (node, picked, outcome, failed) = (Arc::clone(node), policy::Picked::NONE, Outcome::Cancelled, false);
        Box::new(Self { node, picked, outcome, failed, pause: None, counted: None })
    }

    fn ended(&self) -> Ended {
        Ended { outcome: self.outcome, pause: self.pause.map(|seconds| Duration::from_secs(seconds.into())) }
    }
}

/// For whom a place is taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who {
    pub(crate) class: Class,
    pub(crate) key: Option<u64>,
    /// Whether it has a deadline, so that how long it takes is to be known.
    pub(crate) timed: bool,
    /// Whether it is counted here.
    pub(crate) counted: bool,
    /// Whether it asks for the first time.
    pub(crate) new: bool,
}

impl Who {
    /// The time of its pick.
    fn time(&self) -> Time {
        if metrics::TIMED || self.timed { Time::from(now()) } else { Time::by(now) }
    }
}

impl Permit {
    /// Takes a place that nobody has reserved. `prefix`: what its prompt begins with.
    #[inline]
    pub(crate) fn pick(core: &Arc<Core>, who: Who, prefix: &[u64]) -> Result<Self, PickError> {
        if who.timed || who.key.is_some() || !prefix.is_empty() {
            return Self::pick_specially(core, core.ledger(), None, who, prefix);
        }
        let Who { class, counted, new, .. } = who;
        match Self::pick_plainly(core, class, counted, new) {
            Ok(permit) => Ok(permit),
            // Not `who`: it would be laid down in memory for this also where it is not needed.
            Err(ledger) => {
                Self::pick_specially(core, ledger, None, Who { class, key: None, timed: false, counted, new }, &[])
            }
        }
    }

    /// What most ask for: any place. Nothing follows from taking it. `Err`: there is more to do.
    #[inline(never)]
    fn pick_plainly(core: &Core, class: Class, counted: bool, new: bool) -> Result<Self, MutexGuard<'_, Ledger>> {
        let now = metrics::TIMED.then(now);
        let mut ledger = core.ledger();
        let Some(picked) = ledger.picker.pick_plainly(class, now) else { return Err(ledger) };
        let counted = counted.then_some(class);
        let spare = ledger.begin(picked.index, counted, new);
        drop(ledger);
        Ok(Self::new(spare, picked, counted))
    }

    /// Takes a place by right of one that was reserved.
    pub(crate) fn redeem(core: &Arc<Core>, place: Place, who: Who, prefix: &[u64]) -> Result<Self, PickError> {
        let claim = place.use_up();
        Self::pick_specially(core, core.ledger(), Some(claim), who, prefix)
    }

    #[inline(never)]
    fn pick_specially(
        core: &Arc<Core>,
        mut ledger: MutexGuard<'_, Ledger>,
        claim: Option<policy::Claim>,
        who: Who,
        prefix: &[u64],
    ) -> Result<Self, PickError> {
        let ask = policy::Ask { class: who.class, claim, key: who.key, prefix };
        let counted = who.counted.then_some(who.class);
        let picked = ledger.picker.pick(ask, &[], who.time());
        let begun = picked.map(|picked| (ledger.begin(picked.index, counted, who.new), picked));
        if begun.is_err() {
            ledger.demand[who.class].offered += u64::from(who.new && who.counted);
        }
        core.changed(ledger);
        let (spare, picked) = begun?;
        Ok(Self::new(spare, picked, counted))
    }

    #[inline(always)]
    fn new(mut exchange: Box<Exchange>, picked: policy::Picked, counted: Option<Class>) -> Self {
        (exchange.picked, exchange.counted) = (picked, counted);
        (exchange.outcome, exchange.failed, exchange.pause) = (Outcome::Cancelled, false, None);
        exchange.node.meter.picked(picked.reason);
        Self { exchange: Some(exchange) }
    }

    const fn exchange(&self) -> &Exchange {
        match &self.exchange {
            Some(exchange) => exchange,
            None => panic!("it is there until the permit is dropped"),
        }
    }

    fn exchange_mut(&mut self) -> &mut Exchange {
        self.exchange.as_mut().expect("as above")
    }

    /// Moves to another endpoint than those tried, as one exchange that goes on: it was sent to this one in vain.
    pub(crate) fn elsewhere(mut self, who: Who, prefix: &[u64], tried: &[usize]) -> Result<Self, PickError> {
        let now = now();
        let exchange = self.exchange_mut();
        let (node, picked) = exchange.node.core.change(|ledger| {
            let picked = ledger.picker.shift(&exchange.picked, (who.class, prefix), tried, now)?;
            ledger.picker.learn(&exchange.picked, &exchange.ended(), &mut now.into());
            Ok((Arc::clone(&ledger.member(picked.index).node), picked))
        })?;
        exchange.node.meter.ended(exchange.outcome);
        node.meter.picked(picked.reason);
        (exchange.node, exchange.picked, exchange.outcome) = (node, picked, Outcome::Cancelled);
        Ok(self)
    }

    /// The endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &EndpointId {
        &self.exchange().node.id
    }

    /// A clone of its service.
    pub(crate) fn service<S: Clone + 'static>(&self) -> S {
        self.exchange().node.service()
    }

    pub(crate) fn index(&self) -> usize {
        self.exchange().picked.index
    }

    /// Why it was picked.
    #[must_use]
    pub const fn reason(&self) -> PickReason {
        self.exchange().picked.reason
    }

    pub(crate) fn pool(&self) -> &Arc<str> {
        let exchange = self.exchange();
        &exchange.node.core.pools[exchange.picked.claim.pool()]
    }

    /// The head is here; if it is a failure, that stands.
    pub(crate) fn head(&mut self, status: StatusCode, headers: &HeaderMap, outcome: Outcome) {
        let exchange = self.exchange_mut();
        if metrics::TIMED
            && let Some(started) = exchange.picked.started
        {
            exchange.node.meter.head(now().saturating_duration_since(started));
        }
        match outcome {
            Outcome::Success if exchange.picked.timed => {
                exchange.node.core.change(|ledger| ledger.picker.headed(&exchange.picked, now()));
            }
            Outcome::Success => {}
            _ => (exchange.outcome, exchange.failed) = (outcome, true),
        }
        if outcome == Outcome::Overload {
            let quota = (status == StatusCode::TOO_MANY_REQUESTS).then_some(QUOTA_PAUSE);
            exchange.pause = retry_after(headers).or(quota);
        }
    }

    /// It was given up at its deadline, before the head was there: an error if others' heads came far sooner, or else it had
    /// too little time.
    pub(crate) fn give_up(&mut self) {
        let exchange = self.exchange();
        let late = exchange.node.core.ledger().picker.is_late(&exchange.picked, now());
        if late {
            self.fail();
        }
    }

    /// It was turned away, as the endpoint is busy.
    pub(crate) fn overload(&mut self) {
        self.exchange_mut().outcome = Outcome::Overload;
    }

    /// It failed.
    pub(crate) fn fail(&mut self) {
        self.exchange_mut().outcome = Outcome::Error;
    }
}

impl BodyGuard for Permit {
    #[inline]
    fn finish(mut self, outcome: Outcome) {
        let exchange = self.exchange_mut();
        if !exchange.failed {
            exchange.outcome = outcome;
        }
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            end(exchange);
        }
    }
}

#[inline(never)]
fn end(exchange: Box<Exchange>) {
    exchange.node.meter.ended(exchange.outcome);
    let mut ledger = exchange.node.core.ledger_for_good();
    let done = exchange.outcome != Outcome::Cancelled;
    if let Some(class) = exchange.counted {
        let demand = &mut ledger.demand[class];
        demand.in_flight -= 1;
        demand.done += u64::from(done);
    }
    let plain = exchange.outcome == Outcome::Success && ledger.picker.release_plainly(&exchange.picked);
    let now = if plain { None } else { ledger.release(&exchange) };
    if done {
        ledger.releases.event(now);
    }
    if exchange.node.core.is_unsettled(&mut ledger) {
        return end_and_settle(exchange, ledger);
    }
    let over = ledger.keep(exchange);
    drop(ledger);
    drop(over); // foreign code, outside the lock
}

#[inline(never)]
fn end_and_settle(exchange: Box<Exchange>, mut ledger: MutexGuard<'_, Ledger>) {
    let core = Arc::clone(&exchange.node.core);
    let over = ledger.keep(exchange);
    core.changed(ledger);
    drop(over);
}

impl Ledger {
    /// Counts a request that was picked for; a box for its exchange.
    #[inline]
    fn begin(&mut self, index: usize, counted: Option<Class>, new: bool) -> Box<Exchange> {
        if let Some(class) = counted {
            let demand = &mut self.demand[class];
            demand.offered += u64::from(new);
            demand.in_flight += 1;
        }
        let Member { node, spare } = self.member(index);
        spare.pop().unwrap_or_else(|| Exchange::spare(node))
    }

    #[inline(never)]
    fn release(&mut self, exchange: &Exchange) -> Option<Instant> {
        self.picker.release(&exchange.picked, &exchange.ended(), Time::by(now))
    }

    /// Keeps the box of an exchange that is over, for another there: as long as no more are in flight at an endpoint than
    /// were before, nothing is allocated and no references are counted, which would cost as much as a lock. What is not kept
    /// is to be dropped outside the lock.
    #[inline]
    fn keep(&mut self, exchange: Box<Exchange>) -> Option<Box<Exchange>> {
        match self.nodes.get_mut(exchange.picked.index) {
            Some(Some(Member { node, spare })) if spare.len() < MOST_SPARE && Arc::ptr_eq(node, &exchange.node) => {
                spare.push(exchange);
                None
            }
            _ => Some(exchange),
        }
    }
}

/// How many seconds from now `Retry-After` says, as a number or as a date (RFC 9110, 10.2.3). A date is taken beside the
/// answer's own `Date`, as clocks differ.
fn retry_after(headers: &HeaderMap) -> Option<u32> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let value = text(header::RETRY_AFTER)?;
    let seconds = value.parse::<u64>().ok().or_else(|| {
        let date = |text| httpdate::parse_http_date(text).ok();
        let said = text(header::DATE).and_then(date).unwrap_or_else(SystemTime::now);
        Some(date(value)?.duration_since(said).unwrap_or_default().as_secs())
    })?;
    Some(u32::try_from(seconds).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r25_retry_after_is_a_number_of_seconds_or_a_date() {
        let asked = |value: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, value.parse().expect("a value"));
            if let Some(date) = date {
                headers.insert(header::DATE, date.parse().expect("a value"));
            }
            retry_after(&headers)
        };
        assert_eq!(asked(" 120 ", None), Some(120));
        assert_eq!(asked("99999999999", None), Some(u32::MAX));
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(asked("Sun, 06 Nov 1994 08:50:07 GMT", date), Some(30), "whatever our clock says");
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:07 GMT", date), Some(0), "it has passed");
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT", None), Some(0), "long ago by our clock");
        for bad in ["", "-1", "1.5", "soon", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(asked(bad, date), None, "{bad}");
        }
    }
}
