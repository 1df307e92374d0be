use std::time::Duration;

use super::{Aimd, Gradient2, LimitAlgorithm};

/// The highest `max` that a configuration may ask for.
const MOST: usize = 1_000_000;

/// The settings of an adaptive limit, as plain data.
///
/// ```
/// use forebay_priority::adaptive::{AdaptiveConfig, Algorithm};
/// use std::time::Duration;
///
/// let mut config = AdaptiveConfig::default();
/// config.max = 256;
/// config.algorithm = Algorithm::Aimd { target: Duration::from_millis(400) };
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct AdaptiveConfig {
    /// The limit until the first window has closed, `min` to `max`. Default 16.
    pub initial: usize,
    /// The limit never falls below this, 1 to `max`. Default 2: with a single exchange at a time nothing is learned of
    /// how the backend bears two.
    pub min: usize,
    /// The limit never rises above this, `min` to 1,000,000. Default 1024.
    pub max: usize,
    /// What moves the limit. Default [`Algorithm::Gradient2`].
    pub algorithm: Algorithm,
}

/// What moves an adaptive limit; see the [module](super) for which to use when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Algorithm {
    /// The latency against its own long-term average: nothing to tune.
    Gradient2,
    /// The latency against a target.
    Aimd {
        /// The mean time to the first byte that is still good, above 0.
        #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
        target: Duration,
    },
}

impl Default for AdaptiveConfig {
    fn default() -> Self {
        Self { initial: 16, min: 2, max: 1024, algorithm: Algorithm::Gradient2 }
    }
}

impl AdaptiveConfig {
    /// The configured algorithm, at its start.
    #[must_use]
    pub fn build(&self) -> Box<dyn LimitAlgorithm> {
        match self.algorithm {
            Algorithm::Gradient2 => Box::new(Gradient2::new(self)),
            Algorithm::Aimd { target } => Box::new(Aimd::new(self, target)),
        }
    }

    /// Adds a sentence for each field that cannot work: the field, its value, and what is allowed.
    pub fn validate(&self, problems: &mut Vec<String>) {
        let Self { initial, min, max, algorithm } = self;
        if *max == 0 || *max > MOST {
            problems.push(format!("adaptive max is {max}: 1 to {MOST}"));
        }
        if *min == 0 || min > max {
            problems.push(format!("adaptive min is {min}: 1 to max, which is {max}"));
        }
        if initial < min || initial > max {
            problems.push(format!("adaptive initial is {initial}: min to max, which are {min} and {max}"));
        }
        if let Algorithm::Aimd { target: Duration::ZERO } = algorithm {
            problems.push("adaptive target is 0 ns: more than 0".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(change: impl FnOnce(&mut AdaptiveConfig)) -> Vec<String> {
        let mut config = AdaptiveConfig::default();
        change(&mut config);
        let mut problems = Vec::new();
        config.validate(&mut problems);
        problems
    }

    #[test]
    fn the_default_and_the_narrowest_bounds_are_good() {
        assert_eq!(problems(|_| {}), Vec::<String>::new());
        assert_eq!(problems(|config| (config.initial, config.min, config.max) = (1, 1, 1)), Vec::<String>::new());
        assert_eq!(problems(|config| config.max = MOST), Vec::<String>::new());
    }

    #[test]
    fn each_bad_field_is_a_sentence() {
        let one = |change: fn(&mut AdaptiveConfig), wanted: &str| assert_eq!(problems(change), [wanted]);
        one(|config| config.min = 0, "adaptive min is 0: 1 to max, which is 1024");
        one(|config| config.max = MOST + 1, "adaptive max is 1000001: 1 to 1000000");
        one(|config| config.initial = 1, "adaptive initial is 1: min to max, which are 2 and 1024");
        one(|config| config.initial = 2000, "adaptive initial is 2000: min to max, which are 2 and 1024");
        one(
            |config| config.algorithm = Algorithm::Aimd { target: Duration::ZERO },
            "adaptive target is 0 ns: more than 0",
        );
    }

    #[test]
    fn all_problems_come_at_once() {
        let found = problems(|config| {
            *config =
                AdaptiveConfig { initial: 5, min: 10, max: 0, algorithm: Algorithm::Aimd { target: Duration::ZERO } };
        });
        assert_eq!(found.len(), 4, "{found:?}");
    }
}
