use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use forebay_core::{BodyGuard, Class, Outcome};
use http::{HeaderMap, StatusCode, header};

use crate::capacity::Place;
use crate::endpoint::EndpointId;
use crate::ledger::{Core, Ledger, now};
use crate::members::AnyNode;
use crate::metrics;
use crate::policy::{self, Ended, PickError, PickReason, Time};

/// How many seconds an endpoint that answers 429 without `Retry-After` and has nothing to do is left alone.
const QUOTA_PAUSE: u32 = 1;

/// More boxes than these are not kept for exchanges to come.
const MOST_SPARE: usize = 1024;

/// A place at an endpoint, from the pick to the end of the response body. Dropped unfinished it counts as cancelled.
#[derive(Debug)]
pub struct Permit {
    /// Its endpoint.
    node: Arc<AnyNode>,
    /// `None` when it is over. A permit is moved often, and to move two words costs nothing.
    exchange: Option<Box<Exchange>>,
}

/// What is known of an exchange.
#[derive(Debug)]
pub(crate) struct Exchange {
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
    /// Takes a place: by right of one that was reserved, or one that nobody has reserved. `prefix`: what its prompt begins
    /// with.
    #[inline(never)]
    pub(crate) fn pick(core: &Arc<Core>, reserved: Option<Place>, who: Who, prefix: &[u64]) -> Result<Self, PickError> {
        let claim = reserved.map(Place::use_up);
        let mut ledger = core.ledger();
        let mut time = who.time();
        let permit = if claim.is_none()
            && who.key.is_none()
            && prefix.is_empty()
            && let Some(picked) = ledger.picker.pick_plainly(who.class, &mut time)
        {
            Ok(Self::new(&mut ledger, picked, who))
        } else {
            Self::pick_specially(&mut ledger, claim, who, prefix, time)
        };
        core.changed(ledger);
        if let Ok(Self { node, exchange: Some(exchange) }) = &permit {
            node.meter.picked(exchange.picked.reason);
        }
        permit
    }

    #[inline(never)]
    fn pick_specially(
        ledger: &mut Ledger,
        claim: Option<policy::Claim>,
        who: Who,
        prefix: &[u64],
        time: Time,
    ) -> Result<Self, PickError> {
        let ask = policy::Ask { class: who.class, claim, key: who.key, prefix };
        match ledger.picker.pick(ask, &[], time) {
            Ok(picked) => Ok(Self::new(ledger, picked, who)),
            Err(error) => {
                ledger.demand[who.class].offered += u64::from(who.new && who.counted);
                Err(error)
            }
        }
    }

    #[inline(always)]
    fn new(ledger: &mut Ledger, picked: policy::Picked, who: Who) -> Self {
        if who.counted {
            let demand = &mut ledger.demand[who.class];
            demand.offered += u64::from(who.new);
            demand.in_flight += 1;
        }
        let node = ledger.node(picked.index);
        let counted = who.counted.then_some(who.class);
        let exchange = Exchange { picked, outcome: Outcome::Cancelled, failed: false, pause: None, counted };
        Self { node, exchange: Some(ledger.spare.fill(exchange)) }
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
        let exchange = self.exchange();
        let (node, picked) = self.node.core.change(|ledger| {
            let picked = ledger.picker.shift(&exchange.picked, (who.class, prefix), tried, now)?;
            ledger.picker.learn(&exchange.picked, &exchange.ended(), &mut now.into());
            Ok((ledger.node(picked.index), picked))
        })?;
        self.node.meter.ended(exchange.outcome);
        node.meter.picked(picked.reason);
        self.node = node;
        let exchange = self.exchange_mut();
        (exchange.picked, exchange.outcome) = (picked, Outcome::Cancelled);
        Ok(self)
    }

    /// The endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &EndpointId {
        &self.node.id
    }

    /// A clone of its service.
    pub(crate) fn service<S: Clone + 'static>(&self) -> S {
        self.node.service()
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
        &self.node.core.pools[self.exchange().picked.claim.pool()]
    }

    /// The head is here; if it is a failure, that stands.
    pub(crate) fn head(&mut self, status: StatusCode, headers: &HeaderMap, outcome: Outcome) {
        let Some(exchange) = &mut self.exchange else { return };
        if metrics::TIMED
            && let Some(started) = exchange.picked.started
        {
            self.node.meter.head(now().saturating_duration_since(started));
        }
        match outcome {
            Outcome::Success if exchange.picked.timed => {
                self.node.core.change(|ledger| ledger.picker.headed(&exchange.picked, now()));
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
        let late = self.node.core.ledger().picker.is_late(&self.exchange().picked, now());
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
            end(&self.node, exchange);
        }
    }
}

#[inline(never)]
fn end(node: &AnyNode, exchange: Box<Exchange>) {
    node.meter.ended(exchange.outcome);
    node.core.change(|ledger| {
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
        ledger.spare.keep(exchange);
    });
}

impl Ledger {
    #[inline(never)]
    fn release(&mut self, exchange: &Exchange) -> Option<Instant> {
        self.picker.release(&exchange.picked, &exchange.ended(), Time::by(now))
    }
}

/// Boxes of exchanges that are over, for those to come: as long as no more are in flight than were before, nothing is
/// allocated.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "it is the boxes that are kept")]
pub(crate) struct Spare(Vec<Box<Exchange>>);

impl Spare {
    fn fill(&mut self, exchange: Exchange) -> Box<Exchange> {
        match self.0.pop() {
            Some(mut spare) => {
                *spare = exchange;
                spare
            }
            None => Box::new(exchange),
        }
    }

    fn keep(&mut self, exchange: Box<Exchange>) {
        if self.0.len() < MOST_SPARE {
            self.0.push(exchange);
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
