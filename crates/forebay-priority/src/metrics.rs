//! Numbers for the `metrics` facade, prefix `forebay_priority_`. Labels are the class and the reason or outcome, no more:
//! never a tenant.
//!
//! `hold_seconds` and `ttfb_seconds` are of all requests that waited and of one in 16 of the others.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use forebay_core::{Class, Reason};
use metrics::{Counter, Gauge, Histogram, Unit, counter, gauge, histogram};

/// How a request ended here.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Admitted,
    Refused,
    Cancelled,
    Overflowed,
}

const OUTCOMES: [&str; 4] = ["admitted", "refused", "cancelled", "overflowed"];

/// Handles that are resolved at first use, when the recorder has been installed.
pub(crate) struct Metrics {
    rows: Box<[Row]>,
    house: OnceLock<House>,
    wanted: AtomicUsize,
    limit: AtomicUsize,
}

struct House {
    limit: Gauge,
    saturation: Gauge,
    exempt: Counter,
}

#[derive(Default)]
struct Row {
    handles: OnceLock<Handles>,
}

struct Handles {
    outcomes: [Counter; 4],
    queue_wait: Histogram,
    hold: Histogram,
    ttfb: Histogram,
    queued: Gauge,
    in_flight: Gauge,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Says what each number means and its unit; repeat it for a recorder that is installed later.
pub fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!("forebay_priority_requests_total", Unit::Count, "Requests, by class and how they ended here.");
    describe_counter!("forebay_priority_shed_total", Unit::Count, "Refused requests, by class and reason.");
    describe_counter!("forebay_priority_revoked_total", Unit::Count, "Seats taken away, by class and reason.");
    describe_histogram!("forebay_priority_queue_wait_seconds", Unit::Seconds, "Time in the queue of those admitted.");
    describe_histogram!("forebay_priority_hold_seconds", Unit::Seconds, "Time that a seat was held.");
    describe_histogram!("forebay_priority_ttfb_seconds", Unit::Seconds, "Time from the grant to the first byte.");
    describe_gauge!("forebay_priority_queued_requests", Unit::Count, "Seats waited for now.");
    describe_gauge!("forebay_priority_in_flight_seats", Unit::Count, "Seats held now.");
    describe_gauge!("forebay_priority_limit_seats", Unit::Count, "Seats there are.");
    describe_gauge!("forebay_priority_saturation_ratio", Unit::Count, "Seats held and waited for, over the limit.");
}

impl Metrics {
    pub(crate) fn new(classes: usize, limit: usize) -> Self {
        let rows = (0..classes).map(|_| Row::default()).collect();
        Self { rows, house: OnceLock::new(), wanted: AtomicUsize::new(0), limit: AtomicUsize::new(limit) }
    }

    fn row(&self, class: usize) -> &Handles {
        self.rows[class].handles.get_or_init(|| {
            let name = Class::new(class as u8).as_str();
            Handles {
                outcomes: OUTCOMES
                    .map(|outcome| counter!("forebay_priority_requests_total", "class" => name, "outcome" => outcome)),
                queue_wait: histogram!("forebay_priority_queue_wait_seconds", "class" => name),
                hold: histogram!("forebay_priority_hold_seconds", "class" => name),
                ttfb: histogram!("forebay_priority_ttfb_seconds", "class" => name),
                queued: gauge!("forebay_priority_queued_requests", "class" => name),
                in_flight: gauge!("forebay_priority_in_flight_seats", "class" => name),
            }
        })
    }

    fn house(&self) -> &House {
        self.house.get_or_init(|| House {
            limit: gauge!("forebay_priority_limit_seats"),
            saturation: gauge!("forebay_priority_saturation_ratio"),
            exempt: counter!("forebay_priority_requests_total", "class" => "none", "outcome" => "exempt"),
        })
    }

    fn count(&self, class: usize, outcome: Outcome) {
        self.row(class).outcomes[outcome as usize].increment(1);
    }

    fn want(&self, change: impl FnOnce(usize) -> usize + Copy) {
        let wanted = self.wanted.fetch_update(Relaxed, Relaxed, |wanted| Some(change(wanted))).map_or(0, change);
        let limit = self.limit.load(Relaxed);
        let house = self.house();
        house.limit.set(limit as f64);
        house.saturation.set(if wanted == 0 { 0.0 } else { wanted as f64 / limit as f64 });
    }

    pub(crate) fn seated(&self, class: usize, seats: u32, waited: Duration) {
        self.count(class, Outcome::Admitted);
        let row = self.row(class);
        row.queue_wait.record(waited.as_secs_f64());
        row.in_flight.increment(f64::from(seats));
        self.want(|wanted| wanted + seats as usize);
    }

    /// `held`: for how long, which is asked here only, as it looks at the clock.
    pub(crate) fn unseated(&self, class: usize, seats: u32, held: impl FnOnce() -> Option<Duration>) {
        let row = self.row(class);
        row.in_flight.decrement(f64::from(seats));
        if let Some(held) = held() {
            row.hold.record(held.as_secs_f64());
        }
        self.want(|wanted| wanted.saturating_sub(seats as usize));
    }

    pub(crate) fn resized(&self, class: usize, before: u32, after: u32) {
        self.row(class).in_flight.increment(f64::from(after) - f64::from(before));
        self.want(|wanted| (wanted + after as usize).saturating_sub(before as usize));
    }

    pub(crate) fn first_byte(&self, class: usize, latency: Duration) {
        self.row(class).ttfb.record(latency.as_secs_f64());
    }

    pub(crate) fn queued(&self, class: usize, seats: u32) {
        self.row(class).queued.increment(f64::from(seats));
        self.want(|wanted| wanted + seats as usize);
    }

    pub(crate) fn unqueued(&self, class: usize, seats: u32) {
        self.row(class).queued.decrement(f64::from(seats));
        self.want(|wanted| wanted.saturating_sub(seats as usize));
    }

    pub(crate) fn cancelled(&self, class: usize) {
        self.count(class, Outcome::Cancelled);
    }

    pub(crate) fn shed(&self, class: usize, reason: Reason) {
        self.count(class, Outcome::Refused);
        let name = Class::new(class as u8).as_str();
        counter!("forebay_priority_shed_total", "class" => name, "reason" => reason.as_str()).increment(1);
    }

    pub(crate) fn revoked(&self, class: usize, reason: &'static str) {
        let name = Class::new(class as u8).as_str();
        counter!("forebay_priority_revoked_total", "class" => name, "reason" => reason).increment(1);
    }

    pub(crate) fn overflowed(&self, class: usize) {
        self.count(class, Outcome::Overflowed);
    }

    pub(crate) fn exempt(&self) {
        self.house().exempt.increment(1);
    }

    pub(crate) fn limit(&self, seats: usize) {
        self.limit.store(seats, Relaxed);
        self.want(|wanted| wanted);
    }
}
