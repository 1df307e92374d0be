use std::fmt;
use std::str::FromStr;

/// The priority class of a request: `P0` is the most urgent. A request extension, set once, outermost.
///
/// Ordered by urgency: the least value is the most urgent, so `a < b` reads "a goes before b". A request without the
/// extension counts as [`Class::P2`], which is also the `Default`.
///
/// ```
/// use forebay_core::Class;
/// assert!(Class::P0 < Class::P3);
/// assert_eq!("p1".parse(), Ok(Class::P1));
/// assert_eq!(Class::new(200).index(), 15); // saturates
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(u8);

impl Class {
    /// Most urgent: a person waits, and is promised an answer.
    pub const P0: Self = Self(0);
    /// Urgent: a person waits.
    pub const P1: Self = Self(1);
    /// Ordinary, and the class of requests that name none.
    pub const P2: Self = Self(2);
    /// Batch: nobody waits.
    pub const P3: Self = Self(3);
    /// How many classes there can be.
    pub const COUNT: usize = 16;

    /// The class with this index, 0 (most urgent) to 15; larger ones saturate at 15.
    #[must_use]
    pub const fn new(index: u8) -> Self {
        if index as usize >= Self::COUNT { Self(Self::COUNT as u8 - 1) } else { Self(index) }
    }

    /// The index of the class, 0 to 15: for tables with a row per class.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The name of the class, `"P0"` to `"P15"`: for metric labels and log fields.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        const NAMES: [&str; Class::COUNT] =
            ["P0", "P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P9", "P10", "P11", "P12", "P13", "P14", "P15"];
        NAMES[self.0 as usize]
    }
}

impl Default for Class {
    fn default() -> Self {
        Self::P2
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no class name: `p0` to `p15`, in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a priority class: write p0 (most urgent) to p15")]
#[non_exhaustive]
pub struct ParseClassError;

impl FromStr for Class {
    type Err = ParseClassError;

    /// Reads `p0` to `p15` or `P0` to `P15`, nothing else: no sign, no space, no leading zero.
    fn from_str(text: &str) -> Result<Self, ParseClassError> {
        let digits = text.strip_prefix(['p', 'P']).ok_or(ParseClassError)?;
        let plain = matches!(digits.as_bytes(), [b'0'..=b'9'] | [b'1', b'0'..=b'5']);
        if !plain {
            return Err(ParseClassError);
        }
        digits.parse().map(Self).map_err(|_| ParseClassError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_and_nothing_else_does() {
        for index in 0..=u8::MAX {
            let class = Class::new(index);
            assert_eq!(class.index(), usize::from(index.min(15)));
            assert_eq!(class.as_str().parse(), Ok(class));
            assert_eq!(class.as_str().to_lowercase().parse(), Ok(class));
        }
        for bad in ["", "p", "0", "p16", "p99", "p-1", "p+1", "p00", "p01", " p0", "p0 ", "p0,p3", "pp0", "p1e1", "٣"]
        {
            assert_eq!(bad.parse::<Class>(), Err(ParseClassError), "{bad:?}");
        }
    }

    #[test]
    fn the_least_class_is_the_most_urgent() {
        assert!(Class::P0 < Class::P1 && Class::P2 < Class::P3);
        assert_eq!(Class::default(), Class::P2);
    }
}
