use std::time::Duration;

/// A window closes once it is this old and has [`ENOUGH`] answers.
const SHORTEST: u64 = 100_000_000;
/// A window closes with the first answer after this, whatever it holds.
const LONGEST: u64 = 1_000_000_000;
const ENOUGH: u64 = 10;
/// Once one answer in this many streams, only streams are samples.
const STREAM_SHARE: u64 = 8;
/// The share of streams is taken over about this many answers.
const MEMORY: u64 = 256;

/// What an algorithm sees: how the backend answered in the last 100 ms to 1 s.
///
/// Only to be read, or to be made from [`Window::default`] in a test of one's own algorithm.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Window {
    /// How long it lasted.
    pub length: Duration,
    /// How many answers the latencies are of: the streams, if one answer in 8 streams, otherwise all.
    pub samples: u64,
    /// Mean time from dispatch to the first byte; 0 without samples.
    pub mean: Duration,
    /// The shortest time to the first byte; 0 without samples.
    pub min: Duration,
    /// How many exchanges were answered, sampled or not, without the overloads.
    pub completed: u64,
    /// How many exchanges ended in a sign of overload: status 429, 503 or 529, or no connection.
    pub overloads: u64,
    /// The most exchanges in flight at once; above the limit for a while after the limit fell.
    pub peak_in_flight: usize,
    /// Exchanges in flight, the mean of all reports.
    pub mean_in_flight: f64,
    /// The limit in force when the window closed.
    pub limit: usize,
}

impl Window {
    /// Answers per second, without the overloads.
    #[must_use]
    pub fn throughput(&self) -> f64 {
        if self.length.is_zero() { 0.0 } else { self.completed as f64 / self.length.as_secs_f64() }
    }

    /// Whether the limit, rather than the load, decided how much was in flight: on average nine tenths of it.
    #[must_use]
    pub fn limit_binds(&self) -> bool {
        self.mean_in_flight >= 0.9 * self.limit as f64
    }
}

/// Latencies of one kind of answer.
#[derive(Debug, Clone, Copy)]
struct Tally {
    count: u64,
    sum: u64,
    min: u64,
}

impl Tally {
    const EMPTY: Self = Self { count: 0, sum: 0, min: u64::MAX };

    fn add(&mut self, latency_ns: u64) {
        self.count += 1;
        self.sum = self.sum.saturating_add(latency_ns);
        self.min = self.min.min(latency_ns);
    }

    fn plus(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            sum: self.sum.saturating_add(other.sum),
            min: self.min.min(other.min),
        }
    }
}

/// Gathers answers into windows. Each call is O(1); time is what the caller says, in ns from any fixed start, and one
/// that runs backwards counts as standing still.
#[derive(Debug)]
pub(crate) struct Sampler {
    /// When the window in the making began: the first event, then the close of the one before.
    start: Option<u64>,
    streams: Tally,
    others: Tally,
    overloads: u64,
    peak: usize,
    /// Sum and number of the reports of how much is in flight, and the last of them.
    in_flight: (u64, u64, usize),
    /// Recent answers, and how many of them streamed: both are halved as they pass [`MEMORY`].
    recent: (u64, u64),
}

impl Sampler {
    pub(crate) fn new() -> Self {
        Self {
            start: None,
            streams: Tally::EMPTY,
            others: Tally::EMPTY,
            overloads: 0,
            peak: 0,
            in_flight: (0, 0, 0),
            recent: (0, 0),
        }
    }

    /// An answer, `latency_ns` after its dispatch. The window that this closes, if it closes one.
    pub(crate) fn sample(&mut self, now_ns: u64, latency_ns: u64, streaming: bool) -> Option<Window> {
        self.recent.0 += 1;
        self.recent.1 += u64::from(streaming);
        if self.recent.0 >= MEMORY {
            self.recent = (self.recent.0 / 2, self.recent.1 / 2);
        }
        if streaming { self.streams.add(latency_ns) } else { self.others.add(latency_ns) }
        self.close(now_ns)
    }

    /// A refusal or failure that says that the backend has too much to do.
    pub(crate) fn overload(&mut self, now_ns: u64) -> Option<Window> {
        self.overloads += 1;
        self.close(now_ns)
    }

    /// How many exchanges are in flight now.
    pub(crate) fn in_flight(&mut self, now_in_flight: usize) {
        self.peak = self.peak.max(now_in_flight);
        let (sum, count, _) = self.in_flight;
        self.in_flight = (sum.saturating_add(now_in_flight as u64), count + 1, now_in_flight);
    }

    /// The answers that are samples.
    fn tally(&self) -> Tally {
        let (recent, streamed) = self.recent;
        if streamed > 0 && streamed * STREAM_SHARE >= recent { self.streams } else { self.streams.plus(self.others) }
    }

    fn close(&mut self, now_ns: u64) -> Option<Window> {
        let length = now_ns.saturating_sub(*self.start.get_or_insert(now_ns));
        let tally = self.tally();
        let enough = tally.count + self.overloads >= ENOUGH;
        if length < SHORTEST || (!enough && length < LONGEST) {
            return None;
        }
        let (sum, reports, last) = self.in_flight;
        let window = Window {
            length: Duration::from_nanos(length),
            samples: tally.count,
            mean: Duration::from_nanos(tally.sum.checked_div(tally.count).unwrap_or(0)),
            min: Duration::from_nanos(if tally.count == 0 { 0 } else { tally.min }),
            completed: self.streams.count + self.others.count,
            overloads: self.overloads,
            peak_in_flight: self.peak,
            mean_in_flight: if reports == 0 { last as f64 } else { sum as f64 / reports as f64 },
            limit: 0,
        };
        *self = Self { start: Some(now_ns), peak: last, in_flight: (0, 0, last), recent: self.recent, ..Self::new() };
        Some(window)
    }
}
