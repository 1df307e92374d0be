use std::time::Instant;

/// Runs every one of `works` once a round, each round in another order, and returns the median time of each, in
/// nanoseconds for one of the `count` operations that each work does.
///
/// For works that never wait, on one thread: then time is CPU time, and the median leaves out the rounds in which the
/// thread was interrupted. The first tenth of the rounds warms up.
pub fn rounds(rounds: usize, count: usize, works: &mut [&mut dyn FnMut()]) -> Vec<f64> {
    let mut times = vec![Vec::with_capacity(rounds); works.len()];
    for round in 0..rounds {
        for turn in 0..works.len() {
            let which = (turn + round) % works.len();
            let started = Instant::now();
            works[which]();
            let took = started.elapsed();
            if round >= rounds / 10 {
                times[which].push(took.as_nanos() as f64 / count as f64);
            }
        }
    }
    times.iter_mut().map(|times| median(times)).collect()
}

/// The one in the middle; 0 where there is none.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
