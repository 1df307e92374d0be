use crate::priority::Random;

/// The scatter of the lengths of exchanges around their mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// Exponential.
    Exponential,
    /// All of the same length.
    Fixed,
    /// Lognormal, with a coefficient of variation of 1.5.
    Lognormal,
    /// Output lengths of the Azure LLM inference trace (conversations, 2023).
    Azure,
}

impl Law {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Exponential, Self::Fixed, Self::Lognormal, Self::Azure];

    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exponential => "exponential",
            Self::Fixed => "fixed",
            Self::Lognormal => "lognormal",
            Self::Azure => "azure",
        }
    }

    /// Draws a length whose mean is `mean`; `azure` has lengths whose mean is 1.
    pub fn draw(self, mean: f64, random: &mut Random, azure: &[f64]) -> f64 {
        match self {
            Self::Exponential => random.exponential(mean),
            Self::Fixed => mean,
            // The sigma of a coefficient of variation of 1.5: sqrt(ln(1 + 1.5^2)).
            Self::Lognormal => mean * random.lognormal(1.085_658),
            Self::Azure => mean * azure[(random.unit() * azure.len() as f64) as usize],
        }
    }
}

/// The way in which requests follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrivals {
    /// Independently of each other.
    Poisson,
    /// In bursts of all classes: the coefficient of variation of the time between two is 3 (gamma).
    Bursty,
    /// The same for each class by itself, so that the most urgent come in bursts of their own.
    OwnBursts,
}

impl Arrivals {
    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Poisson => "Poisson",
            Self::Bursty => "CV 3",
            Self::OwnBursts => "own CV 3",
        }
    }

    /// Draws the time between two requests, whose mean is `mean`.
    pub fn draw(self, mean: f64, random: &mut Random) -> f64 {
        match self {
            Self::Poisson => random.exponential(mean),
            Self::Bursty | Self::OwnBursts => random.gamma(1.0 / 9.0, 9.0 * mean),
        }
    }
}
