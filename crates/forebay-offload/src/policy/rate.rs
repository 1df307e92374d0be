/// How many jobs end a second: an exponentially weighted average over whole seconds, the newest weighing a tenth.
#[derive(Debug, Clone, Default)]
pub(super) struct Rate {
    second: u64,
    ended: u64,
    average: Option<f64>,
}

const WEIGHT: f64 = 0.1;

impl Rate {
    /// Counts one ended job.
    pub(super) fn ended(&mut self, now_ms: u64) {
        self.advance(now_ms);
        self.ended += 1;
    }

    /// Estimates how long a caller should wait for `ahead` jobs to end, in whole seconds from 1 to 60; 5 if nothing is
    /// known yet.
    pub(super) fn wait_s(&self, ahead: u64, now_ms: u64) -> u64 {
        let mut at = self.clone();
        at.advance(now_ms);
        match at.average {
            None => 5,
            // Counts of jobs are far below 2^53.
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Some(rate) => ((ahead as f64 / rate.max(1e-9)).ceil().min(60.0) as u64).max(1),
        }
    }

    fn advance(&mut self, now_ms: u64) {
        let second = now_ms / 1_000;
        if second <= self.second {
            return;
        }
        // Seconds passed since the one that was being counted; the first of them is that one itself.
        let passed = second - self.second;
        self.second = second;
        let ended = std::mem::take(&mut self.ended);
        #[allow(clippy::cast_precision_loss)]
        let latest = ended as f64;
        self.average = match self.average {
            None if ended == 0 => None,
            None => Some(latest),
            Some(average) => Some(average + WEIGHT * (latest - average)),
        }
        .map(|average| average * (1.0 - WEIGHT).powf((passed - 1) as f64));
    }
}

#[cfg(test)]
mod tests {
    use super::Rate;

    #[test]
    fn it_is_unknown_then_steady_then_fades() {
        let mut rate = Rate::default();
        assert_eq!(rate.wait_s(100, 0), 5);
        for second in 1..60 {
            for _ in 0..10 {
                rate.ended(second * 1_000);
            }
        }
        assert_eq!(rate.wait_s(100, 60_000), 10);
        assert_eq!(rate.wait_s(0, 60_000), 1);
        assert_eq!(rate.wait_s(u64::MAX, 60_000), 60);
        assert!(rate.wait_s(100, 70_000) > 20);
        assert_eq!(rate.wait_s(1, u64::MAX), 60);
    }
}
