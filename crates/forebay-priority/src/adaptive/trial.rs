//! What a limit is worth: the answers per second that it yields, once the effects of the one before are over.

use super::Window;

/// A limit is judged by this many windows.
const WINDOWS: u32 = 10;
/// And by so many answers for each exchange that it allows: where an answer takes longer than the ten windows, fewer
/// say nothing about the limit.
const TURNS: f64 = 3.0;

/// What a trial found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Yield {
    /// The limit, the mean over the trial.
    pub(super) limit: f64,
    /// Answers per second.
    pub(super) per_second: f64,
    /// Whether the limit, not the load, decided this.
    pub(super) bound: bool,
    /// Whether the limit was reached at all, in half of the windows.
    pub(super) reached: bool,
}

/// A trial of a limit, or of a growing one.
#[derive(Debug)]
pub(super) struct Trial {
    /// The limit at its begin.
    pub(super) from: f64,
    /// Windows count from this limit on.
    at_least: f64,
    /// So many answers belong to the limit before: those that were in flight when the trial began.
    stale: f64,
    windows: u32,
    seconds: f64,
    completed: f64,
    limit_seconds: f64,
    bound: bool,
    reached: u32,
}

impl Trial {
    /// A trial of `limit`, which is a new one: what is in flight now tells of the one before.
    pub(super) fn of(limit: f64) -> Self {
        Self::growing(limit, 0.0, limit)
    }

    /// A trial of a limit that grows from `from`: windows count once it has reached `at_least` and `stale` answers have
    /// gone by since.
    pub(super) fn growing(from: f64, at_least: f64, stale: f64) -> Self {
        Self {
            from,
            at_least,
            stale,
            windows: 0,
            seconds: 0.0,
            completed: 0.0,
            limit_seconds: 0.0,
            bound: true,
            reached: 0,
        }
    }

    /// Takes a window into account. What was found, if that completes the trial.
    pub(super) fn add(&mut self, window: &Window) -> Option<Yield> {
        let limit = window.limit as f64;
        if limit < self.at_least.round() {
            return None;
        }
        if self.stale > 0.0 {
            self.stale -= window.completed as f64;
            return None;
        }
        let seconds = window.length.as_secs_f64();
        self.windows += 1;
        self.seconds += seconds;
        self.completed += window.completed as f64;
        self.limit_seconds += limit * seconds;
        self.bound &= window.limit_binds();
        self.reached += u32::from(window.peak_in_flight >= window.limit);
        // Where the load decides, the answers are few because the requests are: waiting for more tells nothing.
        if self.windows < WINDOWS || (self.bound && self.completed < TURNS * limit) || self.seconds <= 0.0 {
            return None;
        }
        Some(Yield {
            limit: self.limit_seconds / self.seconds,
            per_second: self.completed / self.seconds,
            bound: self.bound,
            reached: self.reached * 2 >= self.windows,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn window(limit: usize, completed: u64, in_flight: f64) -> Window {
        let length = Duration::from_millis(100);
        Window { length, completed, limit, mean_in_flight: in_flight, ..Window::default() }
    }

    #[test]
    fn what_was_in_flight_before_does_not_count() {
        let mut trial = Trial::of(50.0);
        for _ in 0..2 {
            assert_eq!(trial.add(&window(50, 25, 50.0)), None); // 50 answers to what the old limit let in
        }
        for _ in 0..9 {
            assert_eq!(trial.add(&window(50, 100, 50.0)), None);
        }
        let found = trial.add(&window(50, 100, 50.0)).expect("ten windows");
        assert!((found.limit - 50.0).abs() < 1e-9 && (found.per_second - 1000.0).abs() < 1e-6 && found.bound);
    }

    #[test]
    fn slow_answers_make_a_trial_longer_and_a_lack_of_load_does_not() {
        let windows = |completed, in_flight| {
            let mut trial = Trial::growing(50.0, 50.0, 0.0);
            (1..).find(|_| trial.add(&window(50, completed, in_flight)).is_some())
        };
        assert_eq!(windows(100, 50.0), Some(10));
        assert_eq!(windows(2, 50.0), Some(75));
        assert_eq!(windows(2, 10.0), Some(10));
    }

    #[test]
    fn a_growing_limit_counts_once_it_has_grown() {
        let mut trial = Trial::growing(50.0, 52.5, 0.0);
        assert!((0..100).all(|_| trial.add(&window(51, 100, 51.0)).is_none()));
        assert_eq!((1..).find(|_| trial.add(&window(53, 100, 53.0)).is_some()), Some(10));
    }
}
