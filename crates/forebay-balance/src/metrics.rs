//! Numbers for the `metrics` facade, prefix `forebay_balance_`. Labels are endpoints (256 names at a time, all further are
//! `other`), pools, and words of our own: never a tenant.
//!
//! What happens is counted as it happens. Load, weights, places and the age of probes are said by
//! [`BalanceHandle::record`], which also frees the names of endpoints that are gone. An endpoint that came while all names
//! were in use is `other` until it is inserted again; `other` adds loads up, and has the mean weight and the largest age.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forebay_core::{Outcome, Reason};
use metrics::{Counter, Gauge, Histogram, Unit, counter, gauge, histogram};

use crate::endpoint::EndpointId;
use crate::handle::{BalanceHandle, EndpointSnapshot};
use crate::policy::{EjectCause, PickReason};

/// Whether the time of every exchange is wanted.
pub(crate) const TIMED: bool = true;

/// The most endpoints with a label of their own.
const MAX_ENDPOINTS: usize = 256;
/// The label of all others.
const OTHER: &str = "other";

/// Says what each number means and its unit; repeat it for a recorder that is installed later.
pub fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_gauge!("forebay_balance_in_flight_requests", Unit::Count, "Our requests there now, to the body's end.");
    describe_gauge!("forebay_balance_load_requests", Unit::Count, "Requests there: ours, others', fast failures.");
    describe_gauge!("forebay_balance_weight_ratio", Unit::Count, "The weight in use over the configured one.");
    describe_gauge!("forebay_balance_probe_age_seconds", Unit::Seconds, "Since a probe of it was answered.");
    describe_gauge!("forebay_balance_available_ratio", Unit::Count, "The healthy part of a pool's weight, 0 to 1.");
    describe_gauge!("forebay_balance_places", Unit::Count, "Places of a pool, by state.");
    describe_counter!("forebay_balance_picks_total", Unit::Count, "Picks, by reason.");
    describe_counter!("forebay_balance_outcomes_total", Unit::Count, "Exchanges that ended, by endpoint and outcome.");
    describe_counter!("forebay_balance_refused_total", Unit::Count, "Refused requests, by reason.");
    describe_counter!("forebay_balance_ejections_total", Unit::Count, "Endpoints that were left out for errors.");
    describe_counter!(
        "forebay_balance_redials_total",
        Unit::Count,
        "Requests sent elsewhere, as they were not processed."
    );
    describe_counter!("forebay_balance_probe_failures_total", Unit::Count, "Metrics pages not read, by kind.");
    describe_histogram!("forebay_balance_wait_seconds", Unit::Seconds, "Waits for a place.");
    describe_histogram!("forebay_balance_head_seconds", Unit::Seconds, "From the pick to the answer's head.");
}

/// The labels of endpoints that are in use, and whether an age of a probe was said under each.
#[derive(Debug, Default)]
pub(crate) struct Labels(Mutex<HashMap<EndpointId, bool>>);

impl Labels {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<EndpointId, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, id: &EndpointId) -> String {
        let mut known = self.lock();
        if known.contains_key(id) || known.len() < MAX_ENDPOINTS {
            known.entry(id.clone()).or_default();
            id.to_string()
        } else {
            OTHER.to_owned()
        }
    }

    /// The numbers of an endpoint.
    pub(crate) fn meter(&self, id: &EndpointId) -> Meter {
        let endpoint = self.of(id);
        let outcome =
            |outcome| counter!("forebay_balance_outcomes_total", "endpoint" => endpoint.clone(), "outcome" => outcome);
        Meter {
            in_flight: gauge!("forebay_balance_in_flight_requests", "endpoint" => endpoint.clone()),
            outcomes: ["success", "overload", "error", "cancelled"].map(outcome),
            head: histogram!("forebay_balance_head_seconds"),
            picks: PickReason::ALL.map(|reason| counter!("forebay_balance_picks_total", "reason" => reason.as_str())),
        }
    }
}

/// The numbers of an endpoint, resolved when it is inserted: install the recorder before.
pub(crate) struct Meter {
    in_flight: Gauge,
    /// By outcome.
    outcomes: [Counter; 4],
    head: Histogram,
    picks: [Counter; PickReason::ALL.len()],
}

impl Meter {
    pub(crate) fn picked(&self, reason: PickReason) {
        self.picks[reason as usize].increment(1);
        self.in_flight.increment(1.0);
    }

    pub(crate) fn head(&self, after: Duration) {
        self.head.record(after.as_secs_f64());
    }

    pub(crate) fn ended(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].increment(1);
        self.in_flight.decrement(1.0);
    }
}

pub(crate) fn refused(reason: Reason) {
    counter!("forebay_balance_refused_total", "reason" => reason.as_str()).increment(1);
}

pub(crate) fn ejected(cause: EjectCause, endpoints: u64) {
    counter!("forebay_balance_ejections_total", "cause" => cause.as_str()).increment(endpoints);
}

pub(crate) fn redialled(cause: &'static str) {
    counter!("forebay_balance_redials_total", "cause" => cause).increment(1);
}

pub(crate) fn waited(time: Duration) {
    histogram!("forebay_balance_wait_seconds").record(time.as_secs_f64());
}

#[cfg(feature = "client")]
pub(crate) fn probe_failed(kind: &'static str) {
    counter!("forebay_balance_probe_failures_total", "kind" => kind).increment(1);
}

impl BalanceHandle {
    /// Sets the gauges that nothing moves by itself (load, weights, age of probes, available part, places); call it before
    /// the numbers are read, or every few seconds. Those of endpoints that are gone become 0. O(endpoints).
    pub fn record(&self) {
        for (label, now) in self.by_label() {
            let label = label.to_string();
            let ratio = if now.weight == 0.0 { 0.0 } else { now.effective_weight / now.weight };
            gauge!("forebay_balance_load_requests", "endpoint" => label.clone()).set(now.load);
            gauge!("forebay_balance_weight_ratio", "endpoint" => label.clone()).set(ratio);
            if let Some(age) = now.probe_age {
                gauge!("forebay_balance_probe_age_seconds", "endpoint" => label).set(age.as_secs_f64());
            }
        }
        for pool in self.pools() {
            let label = pool.pool.to_string();
            gauge!("forebay_balance_available_ratio", "pool" => label.clone()).set(pool.available);
            let open = pool.open.map_or(f64::INFINITY, |open| open as f64);
            for (state, places) in [("open", open), ("reserved", pool.reserved as f64), ("used", pool.used as f64)] {
                gauge!("forebay_balance_places", "pool" => label.clone(), "state" => state).set(places);
            }
        }
    }

    /// What is to be said under each label now. Labels that nobody has any more are there for the last time.
    fn by_label(&self) -> HashMap<EndpointId, Now> {
        // Held while we look: an endpoint that comes meanwhile takes its label after that, so none is freed by mistake.
        let mut known = self.labels().lock();
        let mut labels: HashMap<EndpointId, Now> = known.keys().map(|label| (label.clone(), Now::default())).collect();
        let other = EndpointId::new(OTHER);
        for endpoint in self.snapshot() {
            let label = if known.contains_key(&endpoint.id) { &endpoint.id } else { &other };
            labels.entry(label.clone()).or_default().add(&endpoint);
        }
        for (label, now) in &mut labels {
            let had_age = known.get(label).is_some_and(|had| *had);
            now.probe_age = now.probe_age.or_else(|| had_age.then_some(Duration::ZERO));
        }
        let used = labels.iter().filter(|(_, now)| now.endpoints > 0);
        *known = used.map(|(label, now)| (label.clone(), now.probe_age.is_some())).collect();
        labels
    }
}

/// The endpoints of one label: one, or all others.
#[derive(Debug, Default)]
struct Now {
    endpoints: usize,
    load: f64,
    weight: f64,
    effective_weight: f64,
    probe_age: Option<Duration>,
}

impl Now {
    fn add(&mut self, endpoint: &EndpointSnapshot) {
        self.endpoints += 1;
        self.load += endpoint.load;
        self.weight += f64::from(endpoint.weight);
        // What drains may still have a weight in use.
        self.effective_weight += if endpoint.weight == 0 { 0.0 } else { endpoint.effective_weight };
        self.probe_age = self.probe_age.max(endpoint.probe_age);
    }
}
