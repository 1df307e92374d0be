use std::time::{Duration, Instant};

/// Two exchanges that are timed should be no nearer to each other than this, and no farther than that.
const NEAREST: Duration = Duration::from_millis(8);
const FARTHEST: Duration = Duration::from_millis(64);

/// The most exchanges in a row that are not timed.
const MOST: u32 = 255;

/// How many exchanges of a pool are timed when all is well: reading the clock costs as much as a pick, so where they
/// come fast only one every few milliseconds, and all where they come slowly.
#[derive(Debug, Clone, Default)]
pub(super) struct Timing {
    last: Option<Instant>,
    /// So many are left out after each.
    gap: u32,
}

impl Timing {
    /// One was timed now; how many are not after it.
    pub(super) fn timed(&mut self, now: Instant) -> u32 {
        if let Some(last) = self.last.replace(now) {
            let since = now.saturating_duration_since(last);
            if since < NEAREST {
                self.gap = (2 * self.gap + 1).min(MOST);
            } else if since > FARTHEST {
                self.gap = (f64::from(self.gap) * FARTHEST.as_secs_f64() / since.as_secs_f64()) as u32;
            }
        }
        self.gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_every_few_milliseconds_is_timed_and_all_where_they_come_slowly() {
        let mut now = crate::ledger::now();
        let mut timing = Timing::default();
        let mut exchanges = |every: Duration, many: u32| {
            let (mut timed, mut left) = (0, 0);
            for _ in 0..many {
                now += every;
                if left == 0 {
                    left = timing.timed(now);
                    timed += 1;
                } else {
                    left -= 1;
                }
            }
            timed
        };
        assert_eq!(exchanges(Duration::from_millis(100), 50), 50);
        exchanges(Duration::from_micros(1), 1000);
        assert_eq!(exchanges(Duration::from_micros(1), 256_000), 1000, "255 in a row are not, once it is known");
        let per_second = exchanges(Duration::from_micros(500), 2000);
        assert!((1000 / 64..=1000 / 8).contains(&per_second), "{per_second}");
        assert!(exchanges(Duration::from_secs(1), 300) >= 300 - 255, "all again, after those");
    }
}
