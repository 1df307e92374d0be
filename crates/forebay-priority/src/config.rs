use std::borrow::Cow;
use std::time::Duration;

use forebay_core::{Class, ConfigError};

use crate::policy::ClassRule;

/// The most seats, and the longest queue, that a configuration may ask for.
const MOST: usize = 1_000_000;

/// All settings of a [`PriorityLayer`](crate::PriorityLayer), as plain data.
///
/// Start from a preset and change fields:
///
/// ```
/// use forebay_priority::PriorityConfig;
/// use std::time::Duration;
///
/// let mut config = PriorityConfig::four_class(64);
/// config.classes[0].queue_timeout = Duration::from_millis(250);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PriorityConfig {
    /// How many exchanges may run at once, all classes together.
    pub limit: Limit,
    /// The classes, most urgent first: 1 to 16. A request of a class beyond them counts as the last one.
    pub classes: Vec<ClassConfig>,
    /// How long an exchange holds its seat, on average: sizes [`QueueLength::Auto`] and `Retry-After`. Default 350 ms.
    pub expected_hold: Duration,
}

/// The settings of one class.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ClassConfig {
    /// Its name in errors.
    pub name: Cow<'static, str>,
    /// The most seats that it may hold.
    pub max_in_flight: Cap,
    /// How many may wait.
    pub queue: QueueLength,
    /// How long one may wait in the queue; the time in service is not limited by it. Zero: whoever must wait is refused.
    pub queue_timeout: Duration,
}

/// The shared limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// The sum of what the classes may hold: no class ever waits for another. Needs [`Cap::Seats`] in all of them.
    Sum,
    /// This many, 0 to 1,000,000; 0 pauses: requests queue, none runs.
    Fixed(usize),
}

/// The most seats a class may hold.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Cap {
    /// This many seats, 1 to 1,000,000.
    Seats(usize),
    /// This share of the limit, above 0 to 1, rounded up.
    Share(f64),
}

/// How many requests of a class may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueLength {
    /// This many, 0 to 1,000,000; 0: whoever must wait is refused.
    Fixed(usize),
    /// As many as can be served within the queue timeout (Little's law), at least 16, at most `max`: a longer queue only
    /// stores requests until they expire.
    Auto {
        /// The upper bound, 16 to 1,000,000.
        max: usize,
    },
}

impl ClassConfig {
    /// A class that may fill every seat, with a queue of [`QueueLength::Auto`] up to 1000.
    pub fn new(name: impl Into<Cow<'static, str>>, queue_timeout: Duration) -> Self {
        Self {
            name: name.into(),
            max_in_flight: Cap::Share(1.0),
            queue: QueueLength::Auto { max: 1000 },
            queue_timeout,
        }
    }
}

const TIMEOUTS: [(&str, u64); 4] = [("P0", 500), ("P1", 1000), ("P2", 3000), ("P3", 10_000)];

impl PriorityConfig {
    /// Four classes with queue timeouts of 0.5, 1, 3 and 10 s that share `limit` seats, each allowed to fill them all.
    #[must_use]
    pub fn four_class(limit: usize) -> Self {
        let class = |(name, millis)| ClassConfig::new(name, Duration::from_millis(millis));
        Self {
            limit: Limit::Fixed(limit),
            classes: TIMEOUTS.map(class).into(),
            expected_hold: Duration::from_millis(350),
        }
    }

    /// Four classes with seats of their own, 50, 100, 300 and 500, queues of 1000, and queue timeouts of 0.5, 1, 3 and
    /// 10 s: for a service whose classes have been given fixed shares. [`four_class`](Self::four_class) is the better
    /// default, as a seat that one class does not use serves another.
    #[must_use]
    pub fn seed_table() -> Self {
        let mut config = Self { limit: Limit::Sum, ..Self::four_class(0) };
        for (class, seats) in config.classes.iter_mut().zip([50, 100, 300, 500]) {
            class.max_in_flight = Cap::Seats(seats);
            class.queue = QueueLength::Fixed(1000);
        }
        config
    }

    /// The limit in seats and the rule of each class.
    pub(crate) fn resolve(&self) -> Result<(usize, Vec<ClassRule>), ConfigError> {
        let mut problems = Vec::new();
        if self.classes.is_empty() || self.classes.len() > Class::COUNT {
            problems.push(format!("classes has {} entries: 1 to {}", self.classes.len(), Class::COUNT));
        }
        if self.expected_hold.is_zero() {
            problems.push("expected_hold is 0: more than 0".into());
        }
        let limit = match self.limit {
            Limit::Fixed(limit) if limit > MOST => {
                problems.push(format!("limit is {limit}: 0 to {MOST}"));
                0
            }
            Limit::Fixed(limit) => limit,
            Limit::Sum => self
                .classes
                .iter()
                .map(|class| match class.max_in_flight {
                    Cap::Seats(seats) => seats.min(MOST),
                    Cap::Share(_) => {
                        problems
                            .push(format!("class {:?} has a share of seats: with limit Sum give Seats", class.name));
                        0
                    }
                })
                .sum(),
        };
        let rules = self.classes.iter().map(|class| self.rule(class, limit, &mut problems)).collect();
        for (i, class) in self.classes.iter().enumerate() {
            if self.classes[..i].iter().any(|other| other.name == class.name) {
                problems.push(format!("classes[{i}].name is {:?}: another class has it", class.name));
            }
        }
        ConfigError::check(problems)?;
        Ok((limit, rules))
    }

    fn rule(&self, class: &ClassConfig, limit: usize, problems: &mut Vec<String>) -> ClassRule {
        let name = &class.name;
        let max_in_flight = match class.max_in_flight {
            Cap::Seats(seats) => {
                if seats == 0 || seats > MOST {
                    problems.push(format!("class {name:?} max_in_flight is {seats} seats: 1 to {MOST}"));
                }
                seats
            }
            // A limit that is raised later raises the class with it, so a whole share is no cap at all.
            Cap::Share(1.0) => usize::MAX,
            Cap::Share(share) if share > 0.0 && share < 1.0 => (share * limit as f64).ceil() as usize,
            Cap::Share(share) => {
                problems.push(format!("class {name:?} max_in_flight is a share of {share}: above 0, at most 1"));
                0
            }
        };
        let queue = match class.queue {
            QueueLength::Fixed(length) if length <= MOST => length,
            QueueLength::Auto { max } if (16..=MOST).contains(&max) => {
                let seats = max_in_flight.min(limit) as f64;
                let served = seats * class.queue_timeout.as_secs_f64() / self.expected_hold.as_secs_f64();
                (served.ceil() as usize).clamp(16, max)
            }
            QueueLength::Fixed(length) => {
                problems.push(format!("class {name:?} queue is {length}: 0 to {MOST}"));
                0
            }
            QueueLength::Auto { max } => {
                problems.push(format!("class {name:?} queue is Auto with max {max}: 16 to {MOST}"));
                0
            }
        };
        ClassRule { max_in_flight, queue }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_table_is_literal_and_its_better_form_obeys_little() {
        let (limit, rules) = PriorityConfig::seed_table().resolve().expect("a preset");
        assert_eq!(limit, 950);
        assert_eq!(rules.iter().map(|rule| rule.max_in_flight).collect::<Vec<_>>(), [50, 100, 300, 500]);
        assert!(rules.iter().all(|rule| rule.queue == 1000));
        let (limit, rules) = PriorityConfig::four_class(50).resolve().expect("a preset");
        assert_eq!(limit, 50);
        assert_eq!(rules.iter().map(|rule| rule.queue).collect::<Vec<_>>(), [72, 143, 429, 1000]);
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let mut config = PriorityConfig::four_class(MOST + 1);
        config.expected_hold = Duration::ZERO;
        config.classes[0].max_in_flight = Cap::Seats(0);
        config.classes[1].max_in_flight = Cap::Share(f64::NAN);
        config.classes[2].queue = QueueLength::Fixed(MOST + 1);
        config.classes[3].queue = QueueLength::Auto { max: 0 };
        config.classes[3].name = "P0".into();
        let error = config.resolve().expect_err("seven problems");
        assert_eq!(error.problems().len(), 7, "{error}");
        config.classes.clear();
        assert!(config.resolve().expect_err("no classes").to_string().contains("0 entries"));
        let shares = PriorityConfig { limit: Limit::Sum, ..PriorityConfig::four_class(1) };
        assert_eq!(shares.resolve().expect_err("no seats").problems().len(), 4);
    }
}
