use std::time::Duration;

use super::{Cap, ClassConfig, Limit, OnFull, Order, PriorityConfig, QueueLength, ReleaseOn};

const CLASSES: [(&str, u64); 4] = [("P0", 500), ("P1", 1000), ("P2", 3000), ("P3", 10_000)];
const EXPECTED: Duration = Duration::from_millis(350);

impl PriorityConfig {
    /// Four classes with queue timeouts of 0.5, 1, 3 and 10 s that share `limit` seats, each allowed to fill them all;
    /// P1 to P3 have 5 % each for sure.
    #[must_use]
    pub fn four_class(limit: usize) -> Self {
        let class = |(name, millis)| ClassConfig::new(name, Duration::from_millis(millis));
        let mut classes = CLASSES.map(class);
        for class in &mut classes[1..] {
            class.reserved = 0.05;
        }
        Self {
            limit: Limit::Fixed(limit),
            classes: classes.into(),
            on_full: OnFull::default(),
            max_queued: None,
            release: ReleaseOn::default(),
            expected_hold: EXPECTED,
            expected_head: EXPECTED,
        }
    }

    /// Four classes with seats of their own, 50, 100, 300 and 500, queues of 1000 in order of arrival, and queue timeouts
    /// of 0.5, 1, 3 and 10 s: for a service whose classes have been given fixed shares.
    ///
    /// [`four_class`](Self::four_class) is the better default: a seat that one class does not use serves another, and
    /// its queues hold only what can still be served in time.
    #[must_use]
    pub fn seed_table() -> Self {
        let mut config = Self { limit: Limit::Sum, ..Self::four_class(0) };
        for (class, seats) in config.classes.iter_mut().zip([50, 100, 300, 500]) {
            class.max_in_flight = Cap::Seats(seats);
            class.queue = QueueLength::Fixed(1000);
            class.reserved = 0.0;
            class.order = Order::Fifo;
        }
        config
    }
}
