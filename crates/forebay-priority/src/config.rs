use std::borrow::Cow;
use std::time::Duration;

use crate::adaptive::AdaptiveConfig;

mod check;
pub(crate) use check::servable;
mod presets;
#[cfg(test)]
mod tests;

/// The most seats, and the longest queue, that a configuration may ask for.
pub(crate) const MOST: usize = 1_000_000;

/// All settings of a [`PriorityLayer`](crate::PriorityLayer), as plain data.
///
/// Start from a preset and change what differs:
///
/// ```
/// use forebay_priority::PriorityConfig;
/// use std::time::Duration;
///
/// let mut config = PriorityConfig::four_class(64).max_queued(500);
/// config.classes[0].queue_timeout = Duration::from_millis(250);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct PriorityConfig {
    /// How many seats there are, all classes together. An exchange takes one, unless `cost` says otherwise.
    pub limit: Limit,
    /// The classes, most urgent first: 1 to 16. A request of a class beyond them counts as the last one.
    pub classes: Vec<ClassConfig>,
    /// Who goes when a queue is full.
    #[cfg_attr(feature = "serde", serde(default))]
    pub on_full: OnFull,
    /// The most waiters of all classes together; `None`: the sum of their queues.
    #[cfg_attr(feature = "serde", serde(default))]
    pub max_queued: Option<usize>,
    /// When an exchange lets go of its seat.
    #[cfg_attr(feature = "serde", serde(default))]
    pub release: ReleaseOn,
    /// The mean time for which an exchange holds its seat, until that has been measured. Presets: 350 ms.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub expected_hold: Duration,
    /// How long the backend takes to the first byte, on average, until that has been measured. Presets: 350 ms.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub expected_head: Duration,
    /// The time for which a reader may take nothing of its answer before it loses its seat, once another request waits: the body
    /// is dropped, and with it whatever it holds at the backend. `None`: a reader may stop for as long as it likes.
    /// Presets: 15 s.
    ///
    /// Only the time counts in which the reader is behind: while the backend has nothing to send, nobody stalls.
    #[cfg_attr(feature = "serde", serde(default, with = "humantime_serde"))]
    pub stall: Option<Duration>,
    /// The least that a reader must take while it is behind, in bytes a second: one that takes less has used up its
    /// [`stall`](field@Self::stall) sooner or later. 0: any frame will do. Presets: 256.
    ///
    /// The layer sees a frame taken when the server asks for the next one, and servers and kernels buffer: of an answer that
    /// outgrows these buffers (some 170 kB over HTTP/1.1) progress shows in steps of about 128 kB. With a stall of 15 s a
    /// reader of such an answer must take some 14 kB a second, whatever is set here.
    #[cfg_attr(feature = "serde", serde(default))]
    pub min_read_rate: u32,
    /// The share of the seats that one tenant may hold, above 0 to 1, rounded up; requests beyond it wait while others
    /// pass. Requests without a tenant are not bounded. `None`: free seats go to whoever asks for them.
    #[cfg_attr(feature = "serde", serde(default))]
    pub max_share: Option<f64>,
}

/// The settings of one class.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct ClassConfig {
    /// Its name in errors and warnings.
    pub name: Cow<'static, str>,
    /// The most seats that it may hold.
    #[cfg_attr(feature = "serde", serde(default))]
    pub max_in_flight: Cap,
    /// How many may wait.
    #[cfg_attr(feature = "serde", serde(default))]
    pub queue: QueueLength,
    /// The least time for which a request may wait in the queue; the time in service is not limited by it. Zero, with no
    /// `patience_seats`: a request that must wait is refused.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub queue_timeout: Duration,
    /// The seats that must have come free before a request gives up waiting, 0 to 100,000. With exchanges that hold their
    /// seat for long this is more than `queue_timeout`, and then it counts: a request waits for
    /// `max(queue_timeout, patience_seats x hold / seats)`, with the hold as measured. 0: only the timeout counts.
    #[cfg_attr(feature = "serde", serde(default))]
    pub patience_seats: u32,
    /// How long after its arrival the head of the answer must be there; `None`: no limit of this class's own.
    #[cfg_attr(feature = "serde", serde(default, with = "humantime_serde"))]
    pub answer_timeout: Option<Duration>,
    /// How long a seat may be held, body included; then the exchange is cut. `None`: as long as it takes.
    #[cfg_attr(feature = "serde", serde(default, with = "humantime_serde"))]
    pub max_hold: Option<Duration>,
    /// The share of all seats that it gets at least, while it has waiters: 0 to 0.5, all classes together at most 0.5.
    #[cfg_attr(feature = "serde", serde(default))]
    pub reserved: f64,
    /// The share of all seats that it leaves free for others: 0 to below 1. For exchanges that last for minutes.
    #[cfg_attr(feature = "serde", serde(default))]
    pub headroom: f64,
    /// Who goes first within the class.
    #[cfg_attr(feature = "serde", serde(default))]
    pub order: Order,
}

/// The shared limit.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Limit {
    /// The sum of what the classes may hold: no class ever waits for another. Needs [`Cap::Seats`] in all of them.
    Sum,
    /// This many, 0 to 1,000,000; 0 pauses: requests queue, none runs.
    Fixed(usize),
    /// Found by measuring: see [`adaptive`](crate::adaptive).
    Adaptive(AdaptiveConfig),
}

/// The most seats a class may hold.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Cap {
    /// This many seats, 1 to 1,000,000.
    Seats(usize),
    /// This share of the limit, above 0 to 1, rounded up.
    Share(f64),
}

impl Default for Cap {
    /// Every seat there is.
    fn default() -> Self {
        Self::Share(1.0)
    }
}

/// How many requests of a class may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
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

impl Default for QueueLength {
    /// `Auto` up to 1000.
    fn default() -> Self {
        Self::Auto { max: 1000 }
    }
}

/// Who goes first within a class, or among the requests of one tenant where there are tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Order {
    /// First come, first served.
    Fifo,
    /// First come, first served, until the queue has not been empty for `after` and the oldest has waited for half of it:
    /// from then on the newest goes first, until that is over. When not all can be served in time, the newest still can.
    AdaptiveLifo {
        /// `None`: the time in which 32 seats come free, at least 1 s, at most as long as a request of the class may wait.
        #[cfg_attr(feature = "serde", serde(default, with = "humantime_serde"))]
        after: Option<Duration>,
    },
}

impl Default for Order {
    /// Adaptive, after the time in which 32 seats come free.
    fn default() -> Self {
        Self::AdaptiveLifo { after: None }
    }
}

/// Who goes when a queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum OnFull {
    /// With all queues together full, whoever would be served last in the least urgent class below the newcomer; with
    /// only its own class full, whoever would be served last in that one.
    #[default]
    EvictLower,
    /// The newcomer.
    Reject,
}

/// When an exchange lets go of its seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ReleaseOn {
    /// At the end of the response body, however that ends.
    #[default]
    BodyEnd,
    /// With the first data of the response body: for backends that are busy only until they begin to answer.
    FirstFrame,
    /// With the head of the response.
    Headers,
}

impl ClassConfig {
    /// A class that may fill every seat, with a queue of [`QueueLength::Auto`] up to 1000.
    pub fn new(name: impl Into<Cow<'static, str>>, queue_timeout: Duration) -> Self {
        Self {
            name: name.into(),
            max_in_flight: Cap::default(),
            queue: QueueLength::default(),
            queue_timeout,
            patience_seats: 0,
            answer_timeout: None,
            max_hold: None,
            reserved: 0.0,
            headroom: 0.0,
            order: Order::default(),
        }
    }
}

/// Setters with the names of the fields.
macro_rules! setters {
    ($of:ident: $($name:ident: $kind:ty => $value:expr),+ $(,)?) => {
        impl $of {
            $(
                #[doc = concat!("Sets [`", stringify!($name), "`](field@Self::", stringify!($name), ").")]
                #[must_use]
                pub fn $name(mut self, $name: $kind) -> Self {
                    self.$name = $value;
                    self
                }
            )+
        }
    };
}

setters!(PriorityConfig: limit: Limit => limit, classes: Vec<ClassConfig> => classes, on_full: OnFull => on_full,
    max_queued: usize => Some(max_queued), release: ReleaseOn => release, expected_hold: Duration => expected_hold,
    expected_head: Duration => expected_head, stall: Duration => Some(stall), min_read_rate: u32 => min_read_rate,
    max_share: f64 => Some(max_share));
setters!(ClassConfig: max_in_flight: Cap => max_in_flight, queue: QueueLength => queue,
    queue_timeout: Duration => queue_timeout, patience_seats: u32 => patience_seats, answer_timeout: Duration => Some(answer_timeout),
    max_hold: Duration => Some(max_hold), reserved: f64 => reserved, headroom: f64 => headroom, order: Order => order);
