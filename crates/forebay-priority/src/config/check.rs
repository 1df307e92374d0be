use forebay_core::{Class, ConfigError};

use super::{Cap, ClassConfig, Limit, MOST, Order, PriorityConfig, QueueLength};

/// The largest `patience_seats`.
const MOST_SEATS: u32 = 100_000;

impl PriorityConfig {
    /// The seats at the start.
    pub(crate) fn seats(&self) -> usize {
        match &self.limit {
            Limit::Fixed(seats) => *seats,
            Limit::Sum => self.classes.iter().map(|class| class.cap(0)).sum(),
            Limit::Adaptive(adaptive) => adaptive.initial,
        }
    }

    /// Checks every field.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        for (field, time) in [("expected_hold", self.expected_hold), ("expected_head", self.expected_head)] {
            if time.is_zero() {
                problems.push(format!("{field} is 0: must be more than 0"));
            }
        }
        if self.max_queued.is_some_and(|most| most > MOST) {
            problems.push(format!("max_queued is {}: 0 to {MOST}", self.max_queued.unwrap_or_default()));
        }
        if self.stall.is_some_and(|stall| stall.is_zero()) {
            problems.push("stall is 0: must be more than 0, or none".to_owned());
        }
        if self.max_share.is_some_and(|share| !(share > 0.0 && share <= 1.0)) {
            problems.push(format!("max_share is {}: must be above 0, at most 1", self.max_share.unwrap_or_default()));
        }
        match &self.limit {
            Limit::Fixed(limit) if *limit > MOST => problems.push(format!("limit is {limit}: 0 to {MOST}")),
            Limit::Fixed(_) => {}
            Limit::Sum => {
                for class in self.classes.iter().filter(|class| !matches!(class.max_in_flight, Cap::Seats(_))) {
                    problems.push(format!("class {:?} has a share of seats: with limit Sum give Seats", class.name));
                }
            }
            Limit::Adaptive(adaptive) => adaptive.validate(&mut problems),
        }
        check_classes(&self.classes, &mut problems);
        ConfigError::check(problems)
    }
}

fn check_classes(classes: &[ClassConfig], problems: &mut Vec<String>) {
    if classes.is_empty() || classes.len() > Class::COUNT {
        problems.push(format!("classes has {} entries: 1 to {}", classes.len(), Class::COUNT));
    }
    for (i, class) in classes.iter().enumerate() {
        class.check(problems);
        if classes[..i].iter().any(|other| other.name == class.name) {
            problems.push(format!("classes[{i}].name is {:?}: another class has it", class.name));
        }
    }
    let reserved: f64 = classes.iter().map(|class| class.reserved).sum();
    if reserved > 0.5 + 1e-9 {
        let reserved = (reserved * 1e6).round() / 1e6; // 0.1 + 0.6 is 0.7
        problems.push(format!("reserved is {reserved} in all classes together: at most 0.5"));
    }
}

impl ClassConfig {
    /// Checks all classes together.
    pub(crate) fn check_all(classes: &[Self]) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        check_classes(classes, &mut problems);
        ConfigError::check(problems)
    }

    fn check(&self, problems: &mut Vec<String>) {
        let name = &self.name;
        match self.max_in_flight {
            Cap::Seats(seats) if (1..=MOST).contains(&seats) => {}
            Cap::Seats(seats) => {
                problems.push(format!("class {name:?} max_in_flight is {seats} seats: 1 to {MOST}"));
            }
            Cap::Share(share) if share > 0.0 && share <= 1.0 => {}
            Cap::Share(share) => {
                problems.push(format!("class {name:?} max_in_flight is a share of {share}: above 0, at most 1"));
            }
        }
        match self.queue {
            QueueLength::Fixed(length) if length > MOST => {
                problems.push(format!("class {name:?} queue is {length}: 0 to {MOST}"));
            }
            QueueLength::Auto { max } if !(16..=MOST).contains(&max) => {
                problems.push(format!("class {name:?} queue is Auto with max {max}: 16 to {MOST}"));
            }
            QueueLength::Fixed(_) | QueueLength::Auto { .. } => {}
        }
        if self.patience_seats > MOST_SEATS {
            problems
                .push(format!("class {name:?} patience_seats is {}: must be 0 to {MOST_SEATS}", self.patience_seats));
        }
        if !(0.0..=0.5).contains(&self.reserved) {
            problems.push(format!("class {name:?} reserved is {}: 0 to 0.5", self.reserved));
        }
        if !(0.0..1.0).contains(&self.headroom) {
            problems.push(format!("class {name:?} headroom is {}: 0 to below 1", self.headroom));
        }
        for (field, time) in [("answer_timeout", self.answer_timeout), ("max_hold", self.max_hold)] {
            if time.is_some_and(|time| time.is_zero()) {
                problems.push(format!("class {name:?} {field} is 0: more than 0, or none"));
            }
        }
    }

    /// The most seats it may hold, with this limit.
    pub(crate) fn cap(&self, limit: usize) -> usize {
        match self.max_in_flight {
            Cap::Seats(seats) => seats.min(MOST),
            Cap::Share(share) => ((share * limit as f64).ceil() as usize).clamp(1, MOST),
        }
    }

    /// The most seats that all classes together may hold when this one is given another.
    pub(crate) fn ceiling(&self, limit: usize) -> usize {
        // The smallest share more or less is a rounding error, not a seat.
        (limit as f64 * (1.0 - self.headroom) + 1e-9).floor() as usize
    }

    /// The most that may wait, when requests wait for `patience` nanoseconds and of `seats` each is held for `hold`
    /// nanoseconds on average: Little's law.
    pub(crate) fn queue_length(&self, seats: usize, patience: f64, hold: f64) -> usize {
        match self.queue {
            QueueLength::Fixed(length) => length,
            QueueLength::Auto { max } => (servable(seats, patience, hold).ceil() as usize).clamp(16, max.max(16)),
        }
    }

    /// Returns the longest that a request waits, in nanoseconds, when a seat comes free every `every` nanoseconds.
    pub(crate) fn patience(&self, every: f64) -> f64 {
        (self.queue_timeout.as_secs_f64() * 1e9).max(f64::from(self.patience_seats) * every)
    }

    /// Returns the nanoseconds with waiters after which the newest goes first; `None`: never.
    pub(crate) fn lifo_after(&self, patience: f64, every: f64) -> Option<f64> {
        match self.order {
            Order::Fifo => None,
            Order::AdaptiveLifo { after: Some(after) } => Some(after.as_secs_f64() * 1e9),
            Order::AdaptiveLifo { after: None } => Some((32.0 * every).max(1e9).min(patience)),
        }
    }

    /// The most seats of `seats` that the class may fill, of a limit.
    pub(crate) fn usable(&self, limit: usize, seats: usize) -> usize {
        self.cap(limit).min(self.ceiling(limit)).min(seats)
    }
}

/// Returns how many can be served within `patience`.
pub(crate) fn servable(seats: usize, patience: f64, hold: f64) -> f64 {
    seats as f64 * patience / hold.max(1.0)
}
