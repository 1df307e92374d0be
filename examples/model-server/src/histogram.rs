//! A Prometheus histogram of seconds.

use std::{fmt::Write, sync::atomic::AtomicU64, time::Duration};

use crate::stats::{add, read};

/// vLLM's bounds for the time to the first token, in seconds.
pub(crate) const FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
];
/// vLLM's bounds for whole requests and for waiting, in seconds.
pub(crate) const REQUEST: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
];

#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [f64],
    buckets: Vec<AtomicU64>, // not cumulative; the last is above all bounds
    sum_us: AtomicU64,
}

impl Histogram {
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, buckets: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum_us: AtomicU64::new(0) }
    }

    pub(crate) fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        add(&self.buckets[self.bounds.partition_point(|bound| *bound < seconds)], 1);
        if !time.is_zero() {
            add(&self.sum_us, u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        }
    }

    pub(crate) fn render(&self, out: &mut String, name: &str, model: &str) {
        let mut count = 0;
        for (i, bucket) in self.buckets.iter().enumerate() {
            count += read(bucket);
            let bound = self.bounds.get(i).map_or_else(|| "+Inf".to_owned(), |bound| format!("{bound:?}"));
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\",model_name=\"{model}\"}} {count}");
        }
        let _ = writeln!(out, "{name}_count{{model_name=\"{model}\"}} {count}");
        let sum = Duration::from_micros(read(&self.sum_us)).as_secs_f64();
        let _ = writeln!(out, "{name}_sum{{model_name=\"{model}\"}} {sum}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_bounds_inclusive() {
        let histogram = Histogram::new(&[0.5, 1.0]);
        for ms in [0, 500, 501, 1_000, 5_000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let mut out = String::new();
        histogram.render(&mut out, "t", "m");
        let expected = "t_bucket{le=\"0.5\",model_name=\"m\"} 2\nt_bucket{le=\"1.0\",model_name=\"m\"} 4\n\
            t_bucket{le=\"+Inf\",model_name=\"m\"} 5\nt_count{model_name=\"m\"} 5\nt_sum{model_name=\"m\"} 7.001\n";
        assert_eq!(out, expected);
    }
}
