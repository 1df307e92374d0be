use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use forebay_core::{Class, ConfigError};
use forebay_priority::adaptive::{AdaptiveConfig, Algorithm};
use forebay_priority::{Limit, PriorityConfig, QueueLength};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Upstream;

/// Seats where neither `limit` nor each upstream's `max_concurrency` says how many there are.
const SEATS: usize = 64;

/// Settings of the priority layer: a preset, and what differs from it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Priority {
    /// The settings to start from.
    pub preset: Preset,
    /// The seats of all classes together, or `"adaptive"`. None: what the upstreams can serve at once if each says its
    /// `max_concurrency`, else 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Seats>,
    /// The bounds of an adaptive limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<Adaptive>,
    /// The mean time for which an exchange holds its seat, until that has been measured. None: that of the preset, 0.35 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_hold_seconds: Option<f64>,
    /// The most requests that wait, of all classes together. None: the sum of their queues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queued: Option<usize>,
    /// After how long a client that reads nothing of its answer loses its seat, once another request waits; 0: never.
    /// None: that of the preset, 15 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall_seconds: Option<f64>,
    /// The least that a client must read while it is behind, in bytes a second. None: that of the preset, 256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_read_rate: Option<u32>,
    /// The share of the seats that one tenant may hold, above 0 to 1. None: free seats go to any tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_share: Option<f64>,
    /// The classes whose refused requests become jobs (202 and a `Location`, instead of 429): for callers who know what
    /// to do with one. Default: none.
    pub overflow: Vec<String>,
    /// Settings of single classes, by name: `p0` (most urgent) to `p3`.
    pub classes: BTreeMap<String, ClassSettings>,
}

/// A preset of the priority layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Preset {
    /// Four classes that share the limit and wait as long as seats need to come free.
    #[default]
    FourClass,
    /// Four classes with seats of their own (50, 100, 300, 500) and fixed timeouts (0.5, 1, 3, 10 s).
    ReferenceTable,
}

/// The seats of all classes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Seats {
    /// So many, 0 to 1,000,000; 0 pauses.
    Fixed(usize),
    /// Found by measuring.
    Adaptive,
}

/// The bounds of an adaptive limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Adaptive {
    /// The seats at the start.
    pub initial: usize,
    /// The fewest seats.
    pub min: usize,
    /// The most seats.
    pub max: usize,
    /// The time to the first byte that is still good, in seconds. None: what is normal is learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_seconds: Option<f64>,
}

impl Default for Adaptive {
    fn default() -> Self {
        let AdaptiveConfig { initial, min, max, .. } = AdaptiveConfig::default();
        Self { initial, min, max, target_seconds: None }
    }
}

/// Settings of a class that differ from the preset.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ClassSettings {
    /// The least time for which a request may wait in the queue, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_timeout_seconds: Option<f64>,
    /// The seats that must have come free before a request gives up waiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience_seats: Option<u32>,
    /// The most requests that wait. None: as many as can be served in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<usize>,
    /// The share of the seats that the class gets at least after P0, while its requests wait: 0 to 0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved: Option<f64>,
    /// The share of the seats that the class leaves free for others: 0 to below 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headroom: Option<f64>,
    /// The longest that a seat may be held while another request waits, in seconds. None: as long as it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_hold_seconds: Option<f64>,
}

impl Priority {
    /// The configuration of the layer, before these upstreams.
    ///
    /// # Errors
    ///
    /// Every field that is not the name of a class, or no time, at once; the layer itself checks the rest.
    pub(crate) fn layer(&self, upstreams: &[Upstream]) -> Result<PriorityConfig, ConfigError> {
        let mut problems = Vec::new();
        let mut config = match self.preset {
            Preset::FourClass => PriorityConfig::four_class(self.seats(upstreams)),
            Preset::ReferenceTable => PriorityConfig::reference_table(),
        };
        let mut time = |field: &str, seconds: f64| {
            Duration::try_from_secs_f64(seconds).unwrap_or_else(|_| {
                problems.push(format!("priority.{field} is {seconds}: must be a number of seconds, 0 or more"));
                Duration::ZERO
            })
        };
        match self.limit {
            Some(Seats::Adaptive) => {
                let Adaptive { initial, min, max, target_seconds } = self.adaptive.clone().unwrap_or_default();
                let mut adaptive = AdaptiveConfig::default();
                (adaptive.initial, adaptive.min, adaptive.max) = (initial, min, max);
                if let Some(target) = target_seconds {
                    adaptive.algorithm = Algorithm::Aimd { target: time("adaptive.target_seconds", target) };
                }
                config.limit = Limit::Adaptive(adaptive);
            }
            Some(Seats::Fixed(seats)) => config.limit = Limit::Fixed(seats),
            None => {}
        }
        if let Some(seconds) = self.expected_hold_seconds {
            config.expected_hold = time("expected_hold_seconds", seconds);
        }
        if let Some(seconds) = self.stall_seconds {
            config.stall = Some(time("stall_seconds", seconds)).filter(|stall| !stall.is_zero());
        }
        config.min_read_rate = self.min_read_rate.unwrap_or(config.min_read_rate);
        config.max_share = self.max_share;
        config.max_queued = self.max_queued;
        for (name, settings) in &self.classes {
            let class = name.parse::<Class>().ok().and_then(|class| config.classes.get_mut(class.index()));
            let Some(class) = class else { continue }; // named below
            if let Some(seconds) = settings.queue_timeout_seconds {
                class.queue_timeout = time(&format!("classes.{name}.queue_timeout_seconds"), seconds);
            }
            if let Some(seconds) = settings.max_hold_seconds {
                class.max_hold = Some(time(&format!("classes.{name}.max_hold_seconds"), seconds));
            }
            if let Some(length) = settings.queue {
                class.queue = QueueLength::Fixed(length);
            }
            class.patience_seats = settings.patience_seats.unwrap_or(class.patience_seats);
            class.reserved = settings.reserved.unwrap_or(class.reserved);
            class.headroom = settings.headroom.unwrap_or(class.headroom);
        }
        self.check_names(config.classes.len(), &mut problems);
        ConfigError::check(problems)?;
        Ok(config)
    }

    fn check_names(&self, classes: usize, problems: &mut Vec<String>) {
        for class in self.overflow.iter().filter(|class| class.parse::<Class>().is_err()) {
            problems.push(format!("priority.overflow has {class:?}: p0 (most urgent) to p15"));
        }
        let there = |name: &str| name.parse::<Class>().is_ok_and(|class| class.index() < classes);
        for name in self.classes.keys().filter(|name| !there(name)) {
            problems.push(format!("priority.classes has {name:?}: must be p0 (most urgent) to p{}", classes - 1));
        }
        if self.adaptive.is_some() && self.limit != Some(Seats::Adaptive) {
            problems.push("priority.adaptive is set, but priority.limit is not \"adaptive\"".to_owned());
        }
    }

    /// The seats of a fixed limit.
    pub(crate) fn seats(&self, upstreams: &[Upstream]) -> usize {
        let slots =
            |upstream: &Upstream| upstream.max_concurrency.filter(|_| !upstream.dns).map(|slots| slots as usize);
        match self.limit {
            Some(Seats::Fixed(seats)) => seats,
            _ => upstreams.iter().map(slots).sum::<Option<usize>>().filter(|&all| all > 0).unwrap_or(SEATS),
        }
    }

    /// The same settings with every value in its place, as `config` has them.
    pub(crate) fn in_force(&self, config: &PriorityConfig) -> Self {
        let limit = match &config.limit {
            Limit::Fixed(seats) => Some(Seats::Fixed(*seats)),
            Limit::Adaptive(_) => Some(Seats::Adaptive),
            _ => None, // the sum of what the classes have
        };
        let adaptive = (limit == Some(Seats::Adaptive)).then(|| self.adaptive.clone().unwrap_or_default());
        let settings = |(index, class): (usize, &forebay_priority::ClassConfig)| {
            let queue = match class.queue {
                QueueLength::Fixed(length) => Some(length),
                _ => None,
            };
            let settings = ClassSettings {
                queue_timeout_seconds: Some(class.queue_timeout.as_secs_f64()),
                patience_seats: Some(class.patience_seats),
                queue,
                reserved: Some(class.reserved),
                headroom: Some(class.headroom),
                max_hold_seconds: class.max_hold.map(|hold| hold.as_secs_f64()),
            };
            (format!("p{index}"), settings)
        };
        Self {
            preset: self.preset,
            limit,
            adaptive,
            expected_hold_seconds: Some(config.expected_hold.as_secs_f64()),
            max_queued: config.max_queued,
            stall_seconds: Some(config.stall.unwrap_or_default().as_secs_f64()),
            min_read_rate: Some(config.min_read_rate),
            max_share: config.max_share,
            overflow: self.overflow.clone(),
            classes: config.classes.iter().enumerate().map(settings).collect(),
        }
    }
}

impl FromStr for Seats {
    type Err = SeatsError;

    fn from_str(text: &str) -> Result<Self, SeatsError> {
        if text == "adaptive" { Ok(Self::Adaptive) } else { text.parse().map(Self::Fixed).map_err(|_| SeatsError) }
    }
}

impl From<usize> for Seats {
    fn from(seats: usize) -> Self {
        Self::Fixed(seats)
    }
}

/// The text is neither a number of seats nor `adaptive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SeatsError;

impl fmt::Display for SeatsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be a number of seats, 0 to 1000000, or \"adaptive\"")
    }
}

impl std::error::Error for SeatsError {}

impl Serialize for Seats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(seats) => serializer.serialize_u64(*seats as u64),
            Self::Adaptive => serializer.serialize_str("adaptive"),
        }
    }
}

impl<'de> Deserialize<'de> for Seats {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Seats(usize),
            Word(String),
        }
        match Either::deserialize(deserializer) {
            Ok(Either::Seats(seats)) => Ok(Self::Fixed(seats)),
            Ok(Either::Word(word)) if word == "adaptive" => Ok(Self::Adaptive),
            _ => Err(serde::de::Error::custom(format!("priority.limit {SeatsError}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn layer(text: &str) -> Result<PriorityConfig, ConfigError> {
        let config = Config::parse(text)?;
        config.priority.layer(&config.upstreams)
    }

    #[test]
    fn without_settings_there_are_as_many_seats_as_the_upstreams_have_slots() {
        let upstream = |slots: &str| format!("[[upstreams]]\nurl = 'http://a'\n{slots}\n");
        let two = format!("{}{}", upstream("max_concurrency = 8"), upstream("max_concurrency = 4"));
        assert_eq!(layer(&two).expect("valid").limit, Limit::Fixed(12));
        let unknown = format!("{}{}", upstream("max_concurrency = 8"), upstream(""));
        assert_eq!(layer(&unknown).expect("valid").limit, Limit::Fixed(64));
        assert_eq!(layer(&format!("priority.limit = 5\n{two}")).expect("valid").limit, Limit::Fixed(5));
        assert_eq!(layer("").expect("valid"), PriorityConfig::four_class(64));
    }

    #[test]
    fn every_setting_arrives_and_is_printed_as_it_is_in_force() {
        let text = "[priority]\nlimit = 'adaptive'\nexpected_hold_seconds = 20\nstall_seconds = 0\nmin_read_rate = 0\n\
                    max_share = 0.25\nmax_queued = 900\n[priority.adaptive]\nmax = 256\ntarget_seconds = 0.5\n\
                    [priority.classes.p0]\nqueue_timeout_seconds = 60\n[priority.classes.p3]\npatience_seats = 4\n\
                    headroom = 0.1\nreserved = 0.02\nmax_hold_seconds = 600\nqueue = 7\n";
        let config = Config::parse(text).expect("valid");
        let built = config.priority.layer(&[]).expect("valid");
        let Limit::Adaptive(adaptive) = &built.limit else { panic!("adaptive") };
        let target = Duration::from_millis(500);
        assert_eq!((adaptive.max, adaptive.algorithm), (256, Algorithm::Aimd { target }));
        assert_eq!((built.stall, built.min_read_rate, built.max_share), (None, 0, Some(0.25)));
        assert_eq!((built.expected_hold, built.max_queued), (Duration::from_secs(20), Some(900)));
        let (urgent, batch) = (&built.classes[0], &built.classes[3]);
        assert_eq!((urgent.queue_timeout, urgent.patience_seats), (Duration::from_secs(60), 48));
        assert_eq!((batch.patience_seats, batch.headroom, batch.reserved), (4, 0.1, 0.02));
        assert_eq!((batch.max_hold, batch.queue), (Some(Duration::from_secs(600)), QueueLength::Fixed(7)));

        let shown = config.priority.in_force(&built);
        assert_eq!(shown.layer(&[]).expect("valid"), built, "what is printed says the same");
        assert_eq!(shown.classes.len(), 4);
    }

    #[test]
    fn problems_name_the_field_and_all_come_at_once() {
        let error = Config::parse("priority.limit = 'some'").expect_err("no number").to_string();
        assert!(error.contains("priority.limit must be a number of seats"), "{error}");
        let text = "[priority]\nstall_seconds = -1\noverflow = ['batch']\n[priority.adaptive]\nmin = 3\n\
                    [priority.classes.p4]\nreserved = 0.1\n[priority.classes.p0]\nqueue_timeout_seconds = inf\n";
        let error = layer(text).expect_err("five problems");
        assert_eq!(error.problems().len(), 5, "{error}");
        assert!(error.to_string().contains("priority.classes has \"p4\": must be p0 (most urgent) to p3"), "{error}");
        assert!(layer("priority.preset = 'table'").is_err());
        assert_eq!(layer("priority.preset = 'reference_table'").expect("a preset").limit, Limit::Sum);
    }
}
