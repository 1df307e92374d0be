use std::collections::VecDeque;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(300);
const GRAIN: Duration = Duration::from_secs(1);
/// Below this many requests in the window the last value stands.
const ENOUGH: u64 = 20;
const SMOOTHING: f64 = 0.1;

/// The mean time that a request is served, by Little's law: the integral of in flight over the requests done, over five
/// minutes, smoothed. One sample a second; O(1).
#[derive(Debug, Default)]
pub(crate) struct ServiceTime {
    samples: VecDeque<Sample>,
    mean: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    in_flight: u64,
    /// Seconds of service up to `at`.
    integral: f64,
    done: u64,
}

impl ServiceTime {
    /// Takes a sample and says the mean, if it is known.
    pub(crate) fn observe(&mut self, now: Instant, in_flight: u64, done: u64) -> Option<Duration> {
        let mut integral = 0.0;
        if let Some(last) = self.samples.back().copied() {
            let passed = now.saturating_duration_since(last.at);
            if done < last.done {
                self.samples.clear(); // a source started again: its counts are a new base
            } else if passed < GRAIN {
                return self.mean();
            }
            integral = last.integral + last.in_flight.midpoint(in_flight) as f64 * passed.as_secs_f64();
        }
        self.samples.push_back(Sample { at: now, in_flight, integral, done });
        while self.samples.front().is_some_and(|old| now.saturating_duration_since(old.at) > WINDOW) {
            self.samples.pop_front();
        }
        if let Some(first) = self.samples.front().filter(|first| done - first.done >= ENOUGH) {
            let fresh = (integral - first.integral) / (done - first.done) as f64;
            self.mean = Some(self.mean.map_or(fresh, |mean| mean + SMOOTHING * (fresh - mean)));
        }
        self.mean()
    }

    fn mean(&self) -> Option<Duration> {
        self.mean.and_then(|mean| Duration::try_from_secs_f64(mean).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_finds_the_mean_and_freezes_without_news() {
        let mut time = ServiceTime::default();
        let start = tokio::time::Instant::now().into_std();
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..5 {
            assert_eq!(time.observe(at(second), 8, second * 4), None, "fewer than 20 done");
        }
        for second in 5..400 {
            time.observe(at(second), 8, second * 4); // 8 at a time, 4 a second: 2 s each
        }
        let known = time.observe(at(400), 8, 1600).expect("enough done");
        assert!(known.abs_diff(Duration::from_secs(2)) < Duration::from_millis(1), "{known:?}");
        assert_eq!(time.observe(at(10_000), 0, 1600), Some(known), "nothing new: the last value stands");
        assert_eq!(time.observe(at(10_001), 1, 3), Some(known), "a restarted source is a new base");
    }
}
