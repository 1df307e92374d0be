use std::time::Duration;

use super::{Cap, ClassConfig, Limit, OnFull, Order, PriorityConfig, QueueLength, ReleaseOn};

const EXPECTED: Duration = Duration::from_millis(350);
const STALL: Duration = Duration::from_secs(15);
const MIN_READ_RATE: u32 = 256;

impl PriorityConfig {
    /// Returns four classes that share `limit` seats, each allowed to fill them all: P0 (most urgent) waits longest, for 30 s
    /// or until 48 seats have come free, whichever is more; P1 for 20 s or 24 seats, P2 for 10 s or 20, P3 for 5 s or 16. P1
    /// to P3 have 5 % of the seats each for sure, after P0.
    ///
    /// These times hold for exchanges of milliseconds as well as of minutes: the more urgent a class is, the longer it is
    /// worth waiting for a seat, as its turn comes first.
    #[must_use]
    pub fn four_class(limit: usize) -> Self {
        let class = |(name, seconds, seats)| ClassConfig::new(name, Duration::from_secs(seconds)).patience_seats(seats);
        let mut classes = [("P0", 30, 48), ("P1", 20, 24), ("P2", 10, 20), ("P3", 5, 16)].map(class);
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
            stall: Some(STALL),
            min_read_rate: MIN_READ_RATE,
            max_share: None,
        }
    }

    /// Returns four classes with seats of their own, 50, 100, 300 and 500, queues of 1000 in order of arrival, and queue
    /// timeouts of 0.5, 1, 3 and 10 s: for a service whose classes have been given fixed shares.
    ///
    /// [`four_class`](Self::four_class) is the better default: a seat that one class does not use serves another, its
    /// queues hold only what can still be served in time, and it does not turn round: here the most urgent give up first.
    /// Once a seat of P0 comes free less often than every 15.6 ms (500 ms / 32: exchanges of more than 0.8 s on its 50
    /// seats), P0 is refused more often than the others; [`warnings`](crate::PriorityHandle::warnings) says so.
    #[must_use]
    pub fn reference_table() -> Self {
        let rows = [("P0", 50, 500), ("P1", 100, 1000), ("P2", 300, 3000), ("P3", 500, 10_000)];
        let class = |(name, seats, millis)| {
            ClassConfig::new(name, Duration::from_millis(millis))
                .max_in_flight(Cap::Seats(seats))
                .queue(QueueLength::Fixed(1000))
                .order(Order::Fifo)
        };
        Self { limit: Limit::Sum, classes: rows.map(class).into(), ..Self::four_class(0) }
    }
}
