use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay_core::{Class, ClassDemand, Demand, DemandSource, Outcome, Reason};

use crate::Ticket;

/// Upper bounds of the duration histogram, in seconds; what is longer falls into one more bucket.
pub(crate) const BOUNDS: [f64; 13] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// The same in milliseconds.
const BOUNDS_MS: [u128; 13] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000];
pub(crate) const BUCKETS: usize = BOUNDS.len() + 1;

pub(crate) const OUTCOMES: [Outcome; 4] = [Outcome::Success, Outcome::Overload, Outcome::Error, Outcome::Cancelled];

/// Reasons by their row; one more takes those that are not in the list.
const SHED_ROWS: usize = Reason::ALL.len() + 1;

/// How a request was answered without work for the backends: it is not part of the offered load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Early {
    /// From a cache: `Cache-Status: …; hit` (RFC 9211).
    Hit,
    /// Deferred: 202, it will come again as a job.
    Deferred,
}

impl Early {
    pub(crate) const ALL: [Self; 2] = [Self::Hit, Self::Deferred];

    /// The lower-case name, the value of the metric label `kind`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Deferred => "deferred",
        }
    }
}

/// Counts the work in front of the backends, per class; without HTTP too. Clones share the counts.
///
/// [`arrive`](Self::arrive) hands out a [`Ticket`]; whatever becomes of the ticket, the gauges come back to zero.
/// Recording is a handful of atomic additions: no lock, no allocation.
///
/// ```
/// use forebay_autoscale::DemandSignal;
/// use forebay_core::{Class, DemandSource as _, Outcome};
///
/// let signal = DemandSignal::new();
/// let mut ticket = signal.arrive(Class::P1, 1);
/// assert_eq!(signal.demand()[Class::P1].queued, 1);
/// ticket.start();
/// assert_eq!(signal.demand()[Class::P1].in_flight, 1);
/// ticket.finish(Outcome::Success);
/// assert_eq!(signal.demand()[Class::P1].done, 1);
/// ```
#[derive(Debug, Clone, Default)]
pub struct DemandSignal {
    blocks: Arc<[Block; Class::COUNT]>,
}

/// What one class has seen at one signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ClassCounts {
    /// Waiting now, in seats.
    pub queued: u64,
    /// Being served now, in seats.
    pub in_flight: u64,
    /// Requests that arrived since the start.
    pub arrived: u64,
    /// Of these, answered by a cache or deferred.
    pub early: u64,
    /// Of these, served to the end, whatever the outcome.
    pub done: u64,
    /// Of these, refused.
    pub shed: u64,
    /// Of these, given up by the caller.
    pub cancelled: u64,
}

impl DemandSignal {
    /// A signal with nothing counted.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts the arrival of a request that takes `work` seats: 1 unless weighted.
    pub fn arrive(&self, class: Class, work: u32) -> Ticket {
        Ticket::new(Arc::clone(&self.blocks), class, work)
    }

    /// What this class has seen. Counts of one instant may tear between the fields; gauges never wrap.
    #[must_use]
    pub fn counts(&self, class: Class) -> ClassCounts {
        let block = &self.blocks[class.index()];
        // Ends before arrivals: a sum of ends read late could exceed the arrivals read early.
        let done = block.done.load(Ordering::Relaxed);
        let cancelled = block.cancelled.load(Ordering::Relaxed);
        let shed = block.shed.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        let early = block.early.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        let queued = gauge(&block.queue_in, &block.queue_out);
        let in_flight = gauge(&block.flight_in, &block.flight_out);
        let arrived = block.arrived.load(Ordering::Relaxed);
        ClassCounts { queued, in_flight, arrived, early, done, shed, cancelled }
    }

    pub(crate) fn block(&self, class: Class) -> &Block {
        &self.blocks[class.index()]
    }
}

impl DemandSource for DemandSignal {
    /// Offered is arrived without early: sheds order replicas, cache hits do not.
    fn demand(&self) -> Demand {
        let mut demand = Demand::default();
        for index in 0..Class::COUNT as u8 {
            let class = Class::new(index);
            let ClassCounts { queued, in_flight, arrived, early, done, shed, .. } = self.counts(class);
            demand[class] = ClassDemand { queued, in_flight, offered: arrived.saturating_sub(early), done, shed };
        }
        demand
    }
}

/// A gauge as two counters that only grow. What left is read first, so what entered is never behind it.
fn gauge(entered: &AtomicU64, left: &AtomicU64) -> u64 {
    let left = left.load(Ordering::Acquire);
    entered.load(Ordering::Relaxed).saturating_sub(left)
}

/// The counts of one class, apart from those of its neighbours in the cache.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Block {
    pub(crate) arrived: AtomicU64,
    pub(crate) done: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) early: [AtomicU64; 2],
    shed: [AtomicU64; SHED_ROWS],
    pub(crate) queue_in: AtomicU64,
    pub(crate) queue_out: AtomicU64,
    pub(crate) flight_in: AtomicU64,
    pub(crate) flight_out: AtomicU64,
    /// A row an outcome.
    durations: [Histogram; 4],
}

impl Block {
    pub(crate) fn shed(&self, reason: Reason) {
        let row = Reason::ALL.iter().position(|known| *known == reason).unwrap_or(Reason::ALL.len());
        add(&self.shed[row], 1);
    }

    pub(crate) fn earlies(&self, kind: Early) -> u64 {
        self.early[kind as usize].load(Ordering::Relaxed)
    }

    /// Each reason with its label and count.
    pub(crate) fn sheds(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let labels = Reason::ALL.iter().map(|reason| reason.as_str()).chain(["other"]);
        labels.zip(self.shed.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    pub(crate) fn duration(&self, outcome: Outcome, took: Duration) {
        let row = OUTCOMES.iter().position(|known| *known == outcome).unwrap_or(0);
        let bucket = BOUNDS_MS.iter().take_while(|bound| took.as_nanos() > **bound * 1_000_000).count();
        add(&self.durations[row].buckets[bucket], 1);
        add(&self.durations[row].micros, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Each outcome with the count of each bucket (not cumulative) and the sum in seconds.
    pub(crate) fn durations(&self) -> impl Iterator<Item = (Outcome, [u64; BUCKETS], f64)> {
        OUTCOMES.into_iter().zip(&self.durations).map(|(outcome, row)| {
            let sum = Duration::from_micros(row.micros.load(Ordering::Relaxed)).as_secs_f64();
            (outcome, std::array::from_fn(|bucket| row.buckets[bucket].load(Ordering::Relaxed)), sum)
        })
    }
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    micros: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// The end of a stay: whoever reads it also sees the beginning.
pub(crate) fn leave(counter: &AtomicU64, seats: u64) {
    counter.fetch_add(seats, Ordering::Release);
}
