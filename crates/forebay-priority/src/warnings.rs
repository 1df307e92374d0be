use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::config::{ClassConfig, QueueLength, servable};

/// Something in a configuration that is allowed, and probably not meant.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Warning {
    /// The queue of a class is so long that its last waiters can only expire in it.
    QueueTooLong {
        /// The class.
        class: Cow<'static, str>,
        /// Its queue.
        length: usize,
        /// The number that can be served in time (Little's law).
        servable: usize,
    },
    /// A seat comes free so rarely that many requests of a class give up before their turn.
    SeatsTooRare {
        /// The class.
        class: Cow<'static, str>,
        /// The time between two seats that come free, when all are taken.
        every: Duration,
        /// The longest that a request of the class waits.
        patience: Duration,
    },
    /// A class gives up sooner than a less urgent one: once seats come free rarely, the more urgent is refused more often.
    PatienceRises {
        /// The class.
        class: Cow<'static, str>,
        /// The longest that its requests wait.
        patience: Duration,
        /// The less urgent class, and how long its requests wait.
        than: (Cow<'static, str>, Duration),
        /// From when on that shows: a seat comes free no more often than this.
        from: Duration,
        /// The time between two seats that come free now, when all are taken.
        every: Duration,
    },
    /// A reader that has stopped keeps its seat for longer than a request of the most urgent class waits.
    StallTooLong {
        /// The time for which a reader may take nothing.
        stall: Duration,
        /// The most urgent class.
        class: Cow<'static, str>,
        /// Its queue timeout.
        queue_timeout: Duration,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::QueueTooLong { class, length, servable } => write!(
                f,
                "class {class:?} has a queue of {length}, of which about {servable} can be served in time: \
                 use QueueLength::Auto"
            ),
            Self::SeatsTooRare { class, every, patience } => write!(
                f,
                "class {class:?} waits {patience:?} at most, and a seat comes free only every {every:?}: \
                 set patience_seats, or raise the limit"
            ),
            Self::PatienceRises { class, patience, than: (other, longer), from, every } => write!(
                f,
                "class {class:?} waits {patience:?} at most and the less urgent {other:?} {longer:?}: {class:?} is refused \
                 first when a seat comes free every {from:?} or more rarely (now every {every:?}); let no class wait longer \
                 than a more urgent one"
            ),
            Self::StallTooLong { stall, class, queue_timeout } => write!(
                f,
                "stall is {stall:?}, and class {class:?} has a queue_timeout of {queue_timeout:?}: readers that have stopped \
                 can shut it out; make stall shorter than that"
            ),
        }
    }
}

/// Seats that must come free before the most urgent class gives up, so that hardly any of its requests is refused: at 0.6 of
/// the capacity in its own requests, 1 in 1000 waits for more than 25.
const SURE: f64 = 32.0;
/// The same for any other class, so that it is served at all.
const SOME: f64 = 4.0;

/// The settings of a layer, and what is known of its backends.
pub(crate) struct Facts<'a> {
    pub(crate) classes: &'a [ClassConfig],
    pub(crate) limit: usize,
    /// The seats of the limit for which the backends have a place.
    pub(crate) seats: usize,
    /// The mean time for which a seat is held, in nanoseconds.
    pub(crate) hold: f64,
    pub(crate) stall: Option<Duration>,
}

/// Returns what is doubtful in the settings.
pub(crate) fn warnings(facts: &Facts<'_>) -> Vec<Warning> {
    let Facts { classes, limit, seats, hold, stall } = *facts;
    let mut found = Vec::new();
    let duration = |nanos: f64| Duration::from_nanos(nanos as u64);
    for (i, class) in classes.iter().enumerate() {
        let name = || class.name.clone();
        let usable = class.usable(limit, seats);
        let every = hold / usable.max(1) as f64;
        let patience = class.patience(hold / seats.max(1) as f64);
        let servable = servable(usable, patience, hold).ceil() as usize;
        if let QueueLength::Fixed(length) = class.queue
            && length as f64 > 1.5 * servable as f64
            && length > 1
        {
            found.push(Warning::QueueTooLong { class: name(), length, servable });
        }
        let enough = if i == 0 { SURE } else { SOME };
        if limit > 0 && classes.len() > 1 && patience < enough * every {
            found.push(Warning::SeatsTooRare { class: name(), every: duration(every), patience: duration(patience) });
        }
        let longer = |other: &&ClassConfig| other.queue_timeout > class.queue_timeout;
        if let Some(other) = classes[i + 1..].iter().find(longer)
            && class.patience_seats <= other.patience_seats
        {
            found.push(Warning::PatienceRises {
                class: name(),
                patience: class.queue_timeout,
                than: (other.name.clone(), other.queue_timeout),
                from: class.queue_timeout / SURE as u32,
                every: duration(every),
            });
        }
        if i == 0
            && let Some(stall) = stall
            && stall >= class.queue_timeout
        {
            found.push(Warning::StallTooLong { stall, class: name(), queue_timeout: class.queue_timeout });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PriorityConfig;

    fn of(config: &PriorityConfig, hold: f64) -> Vec<Warning> {
        let (classes, limit) = (&config.classes[..], config.seats());
        warnings(&Facts { classes, limit, seats: limit, hold, stall: config.stall })
    }

    #[test]
    fn a_preset_for_long_holds_is_never_doubtful() {
        for (limit, seconds) in [(64, 0.35), (64, 20.0), (8, 5.3), (4, 60.0), (512, 20.0)] {
            assert_eq!(of(&PriorityConfig::four_class(limit), seconds * 1e9), []);
        }
    }

    #[test]
    fn the_reference_table_holds_too_much_and_turns_round() {
        let found = of(&PriorityConfig::reference_table(), 350e6);
        let long: Vec<_> = found.iter().filter(|one| matches!(one, Warning::QueueTooLong { .. })).collect();
        assert_eq!(long.len(), 2, "{found:?}");
        assert!(long[0].to_string().contains("QueueLength::Auto") && long[0].to_string().contains("about 72"));
        let rises = found.iter().filter(|one| matches!(one, Warning::PatienceRises { .. }));
        let rises: Vec<_> = rises.map(ToString::to_string).collect();
        assert_eq!(rises.len(), 3, "{rises:?}");
        assert!(rises[0].contains("every 15.625ms or more rarely (now every 7ms)"), "{}", rises[0]);
        assert!(found.iter().any(|one| matches!(one, Warning::StallTooLong { .. })));
        assert!(!found.iter().any(|one| matches!(one, Warning::SeatsTooRare { .. })));
        let slow = of(&PriorityConfig::reference_table(), 1e9);
        assert!(slow.iter().any(|one| matches!(one, Warning::SeatsTooRare { class, .. } if class == "P0")), "{slow:?}");
    }

    #[test]
    fn a_seat_must_come_free_often_enough_for_the_time_that_a_class_waits() {
        let mut config = PriorityConfig::four_class(8);
        config.classes.iter_mut().for_each(|class| class.patience_seats = 0);
        assert_eq!(of(&config, 5e9), [], "0.6 s, of 30 s");
        let names = |found: Vec<Warning>| found.iter().map(|one| one.to_string()[..10].to_owned()).collect::<Vec<_>>();
        assert_eq!(names(of(&config, 8e9)), [r#"class "P0""#], "1 s");
        assert_eq!(names(of(&config, 20e9)), [r#"class "P0""#, r#"class "P3""#], "2.5 s");
    }
}
