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
        Self { count: self.count + other.count, sum: self.sum.saturating_add(other.sum), min: self.min.min(other.min) }
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
        if streaming {
            self.streams.add(latency_ns)
        } else {
            self.others.add(latency_ns)
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_window_lasts_100_ms_and_has_ten_samples() {
        let mut sampler = Sampler::new();
        assert!((0..100).all(|i| sampler.sample(i * MS, 5 * MS, false).is_none()), "too short");
        let window = sampler.sample(100 * MS, 15 * MS, false).expect("long enough");
        assert_eq!((window.samples, window.completed, window.overloads), (101, 101, 0));
        assert_eq!((window.length, window.min), (Duration::from_millis(100), Duration::from_millis(5)));
        assert_eq!(window.mean, Duration::from_nanos((100 * 5 + 15) * MS / 101));
        assert!((window.throughput() - 1010.0).abs() < 1e-6);
        assert!((1..10).all(|i| sampler.sample((100 + 50 * i) * MS, MS, false).is_none()), "too few");
        assert_eq!(sampler.sample(600 * MS, MS, false).expect("the tenth").samples, 10);
    }

    #[test]
    fn after_a_second_a_window_closes_with_what_it_has() {
        let mut sampler = Sampler::new();
        assert_eq!(sampler.overload(7), None);
        let window = sampler.overload(7 + LONGEST).expect("a second");
        assert_eq!((window.samples, window.completed, window.overloads), (0, 0, 2));
        assert_eq!((window.mean, window.min), (Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn overloads_count_towards_the_ten_but_not_towards_the_throughput() {
        let mut sampler = Sampler::new();
        sampler.sample(0, MS, false);
        assert!((0..8).all(|_| sampler.overload(50 * MS).is_none()));
        let window = sampler.overload(100 * MS).expect("ten in all");
        assert_eq!((window.samples, window.completed, window.overloads), (1, 1, 9));
    }

    #[test]
    fn once_one_answer_in_eight_streams_only_streams_are_samples() {
        let run = |one_in: u64| {
            let mut sampler = Sampler::new();
            let windows = (0..2000)
                .filter_map(|i| sampler.sample(i * MS, if i % one_in == 0 { 90 * MS } else { MS }, i % one_in == 0));
            windows.last().expect("two seconds")
        };
        let mostly_heads = run(9);
        assert!(mostly_heads.samples > 90 && mostly_heads.mean < Duration::from_millis(20), "{mostly_heads:?}");
        let streams = run(8);
        assert!(streams.samples < 20 && streams.mean == Duration::from_millis(90), "{streams:?}");
        assert!(streams.completed > 70, "the others are still answers: {streams:?}");
    }

    #[test]
    fn what_is_in_flight_is_carried_into_the_next_window() {
        let mut sampler = Sampler::new();
        for in_flight in [10, 30, 20] {
            sampler.in_flight(in_flight);
        }
        sampler.sample(0, MS, false);
        let window = sampler.sample(LONGEST, MS, false).expect("a second");
        assert_eq!((window.peak_in_flight, window.mean_in_flight), (30, 20.0));
        let window = sampler.sample(2 * LONGEST, MS, false).expect("another");
        assert_eq!((window.peak_in_flight, window.mean_in_flight), (20, 20.0));
        assert!(Window { limit: 22, ..window.clone() }.limit_binds() && !Window { limit: 23, ..window }.limit_binds());
    }

    #[test]
    fn a_clock_that_stands_still_runs_back_or_over_does_no_harm() {
        let mut sampler = Sampler::new();
        assert!((0..100).all(|_| sampler.sample(LONGEST, u64::MAX, true).is_none()));
        assert_eq!(sampler.sample(0, u64::MAX, true), None);
        let window = sampler.sample(u64::MAX, u64::MAX, true).expect("long enough");
        assert_eq!(window.min, Duration::from_nanos(u64::MAX));
        assert!(window.mean <= window.min);
        assert!(Window::default().throughput().abs() < f64::EPSILON);
    }
}
