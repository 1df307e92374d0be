use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::config::{ClassConfig, QueueLength};

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
        /// How many can be served within its queue timeout (Little's law).
        servable: usize,
    },
    /// A seat comes free so rarely that a class may wait in vain, and nobody below leaves one free for it.
    SeatsTooRare {
        /// The class.
        class: Cow<'static, str>,
        /// How often a seat comes free when all are taken.
        every: Duration,
        /// How long it may wait.
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
            Self::SeatsTooRare { class, every, queue_timeout } => write!(
                f,
                "class {class:?} may wait {queue_timeout:?}, and a seat comes free only every {every:?}: \
                 give less urgent classes a headroom, or raise the limit"
            ),
        }
    }
}

/// What is doubtful, when a seat is held for `hold` nanoseconds on average.
pub(crate) fn warnings(classes: &[ClassConfig], limit: usize, hold: f64) -> Vec<Warning> {
    let mut found = Vec::new();
    let every = Duration::from_nanos((hold / limit.max(1) as f64) as u64);
    for (i, class) in classes.iter().enumerate() {
        let servable = class.servable(limit, hold).ceil() as usize;
        if let QueueLength::Fixed(length) = class.queue
            && length as f64 > 1.5 * servable as f64
            && length > 1
        {
            found.push(Warning::QueueTooLong { class: class.name.clone(), length, servable });
        }
        let below = &classes[i + 1..];
        let bare = !below.is_empty() && below.iter().all(|class| class.headroom <= 0.0);
        if bare && limit > 0 && every > class.queue_timeout / 4 {
            let (class, queue_timeout) = (class.name.clone(), class.queue_timeout);
            found.push(Warning::SeatsTooRare { class, every, queue_timeout });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PriorityConfig;

    #[test]
    fn r6_both_warnings_appear_where_they_should() {
        let seed = PriorityConfig::seed_table();
        let found = warnings(&seed.classes, seed.seats(), 350e6);
        let long = |name: &str, servable| {
            let (class, length) = (name.to_owned().into(), 1000);
            Warning::QueueTooLong { class, length, servable }
        };
        assert_eq!(found, [long("P0", 72), long("P1", 286)]);
        assert!(found[0].to_string().contains("QueueLength::Auto"));

        let mut slow = PriorityConfig::four_class(4);
        let found = warnings(&slow.classes, 4, 60e9);
        assert_eq!(found.len(), 3, "the last class has nobody below: {found:?}");
        assert!(found[0].to_string().contains("headroom"));
        slow.classes[3].headroom = 0.25;
        assert!(warnings(&slow.classes, 4, 60e9).is_empty());
        assert!(warnings(&PriorityConfig::four_class(64).classes, 64, 350e6).is_empty());
    }
}
