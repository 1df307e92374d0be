use std::fmt;

/// A configuration that cannot work. The one error of all builders: it lists every problem at once.
///
/// Each problem names the field, its value and what is allowed:
///
/// ```
/// use forebay_core::ConfigError;
/// let error = ConfigError::new(["limit is 0: 1 to 1000000", "classes[1].queue_timeout is 0 ns: more than 0"]);
/// assert_eq!(error.problems().len(), 2);
/// assert!(error.to_string().contains("limit is 0"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    /// An error with these problems.
    pub fn new(problems: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { problems: problems.into_iter().map(Into::into).collect() }
    }

    /// `Ok` if there are no problems: the last line of a `build`.
    ///
    /// # Errors
    ///
    /// All of them, if there are any.
    pub fn check(problems: Vec<String>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self { problems }) }
    }

    /// The problems, in the order of the fields.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid configuration: {}", self.problems.join("; "))
    }
}

impl std::error::Error for ConfigError {}
