use std::sync::Arc;
use std::time::{Duration, SystemTime};

use forebay_core::{BodyGuard, Class, Outcome};
use http::{HeaderMap, StatusCode, header};

use crate::affinity::PrefixBlocks;
use crate::capacity::Place;
use crate::endpoint::EndpointId;
use crate::ledger::{Core, now};
use crate::members::AnyNode;
use crate::metrics;
use crate::policy::{self, Ended, PickError, PickReason, Time};

/// How many seconds an endpoint that answers 429 without `Retry-After` and has nothing to do is left alone.
const QUOTA_PAUSE: u32 = 1;

/// A place at an endpoint, from the pick to the end of the response body. Dropped unfinished it counts as cancelled.
#[derive(Debug)]
pub struct Permit {
    /// Its endpoint.
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

/// For whom a place is taken.
#[derive(Debug)]
pub(crate) struct Who {
    pub(crate) class: Class,
    pub(crate) key: Option<u64>,
    pub(crate) prefix: Option<PrefixBlocks>,
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

    fn prefix(&self) -> &[u64] {
        self.prefix.as_ref().map_or(&[], PrefixBlocks::hashes)
    }
}

impl Permit {
    /// Takes a place: by right of one that was reserved, or one that nobody has reserved.
    #[inline]
    pub(crate) fn pick(core: &Arc<Core>, reserved: Option<Place>, who: &Who) -> Result<Self, PickError> {
        let claim = reserved.as_ref().map(Place::claim);
        let ask = policy::Ask { class: who.class, claim, key: who.key, prefix: who.prefix() };
        if let Some(place) = reserved {
            place.use_up();
        }
        // As `change` does, but the permit is written once, where it stays: a copy of it costs as much as the pick.
        let mut ledger = core.ledger();
        if who.counted {
            ledger.demand[who.class].offered += u64::from(who.new);
        }
        let picked = match ledger.picker.pick(ask, &[], who.time()) {
            Ok(picked) => picked,
            Err(error) => {
                core.changed(ledger);
                return Err(error);
            }
        };
        if who.counted {
            ledger.demand[who.class].in_flight += 1;
        }
        let node = ledger.node(picked.index);
        core.changed(ledger);
        node.meter.picked(picked.reason);
        Ok(Self {
            node,
            picked,
            outcome: Outcome::Cancelled,
            failed: false,
            pause: None,
            counted: who.counted.then_some(who.class),
        })
    }

    /// Moves to another endpoint than those tried, as one exchange that goes on: it was sent to this one in vain.
    pub(crate) fn elsewhere(mut self, who: &Who, tried: &[usize]) -> Result<Self, PickError> {
        let now = now();
        let core = Arc::clone(&self.node.core);
        let (node, picked) = core.change(|ledger| {
            let picked = ledger.picker.shift(&self.picked, (who.class, who.prefix()), tried, now)?;
            ledger.picker.learn(&self.picked, &self.ended(), &mut now.into());
            Ok((ledger.node(picked.index), picked))
        })?;
        self.node.meter.ended(self.outcome);
        node.meter.picked(picked.reason);
        (self.node, self.picked, self.outcome) = (node, picked, Outcome::Cancelled);
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

    pub(crate) const fn index(&self) -> usize {
        self.picked.index
    }

    /// Why it was picked.
    #[must_use]
    pub const fn reason(&self) -> PickReason {
        self.picked.reason
    }

    pub(crate) fn pool(&self) -> &Arc<str> {
        &self.node.core.pools[self.picked.claim.pool()]
    }

    fn ended(&self) -> Ended {
        Ended { outcome: self.outcome, pause: self.pause.map(|seconds| Duration::from_secs(seconds.into())) }
    }

    /// The head is here; if it is a failure, that stands.
    pub(crate) fn head(&mut self, status: StatusCode, headers: &HeaderMap, outcome: Outcome) {
        if metrics::TIMED
            && let Some(started) = self.picked.started
        {
            self.node.meter.head(now().saturating_duration_since(started));
        }
        match outcome {
            Outcome::Success if self.picked.timed => {
                self.node.core.change(|ledger| ledger.picker.headed(&self.picked, now()));
            }
            Outcome::Success => {}
            _ => (self.outcome, self.failed) = (outcome, true),
        }
        if outcome == Outcome::Overload {
            let quota = (status == StatusCode::TOO_MANY_REQUESTS).then_some(QUOTA_PAUSE);
            self.pause = retry_after(headers).or(quota);
        }
    }

    /// It was given up at its deadline, before the head was there: an error if others' heads came far sooner, or else it had
    /// too little time.
    pub(crate) fn give_up(&mut self) {
        let late = self.node.core.ledger().picker.is_late(&self.picked, now());
        if late {
            self.fail();
        }
    }

    /// It was turned away, as the endpoint is busy.
    pub(crate) const fn overload(&mut self) {
        self.outcome = Outcome::Overload;
    }

    /// It failed.
    pub(crate) const fn fail(&mut self) {
        self.outcome = Outcome::Error;
    }
}

impl BodyGuard for Permit {
    fn finish(mut self, outcome: Outcome) {
        if !self.failed {
            self.outcome = outcome;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let ended = self.ended();
        self.node.meter.ended(ended.outcome);
        self.node.core.change(|ledger| {
            if let Some(class) = self.counted {
                let demand = &mut ledger.demand[class];
                demand.in_flight -= 1;
                demand.done += u64::from(ended.outcome != Outcome::Cancelled);
            }
            let now = ledger.picker.release(&self.picked, &ended, Time::by(now));
            if ended.outcome != Outcome::Cancelled {
                ledger.releases.event(now);
            }
        });
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
