use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use forebay_core::Outcome;
use http::{HeaderMap, StatusCode};

use crate::wait::OnFull;

/// What an answer says about its endpoint.
pub(crate) type Classify = Arc<dyn Fn(StatusCode, &HeaderMap) -> Outcome + Send + Sync>;

/// How an exchange goes, whatever endpoint it goes to.
#[derive(Clone)]
pub(crate) struct Conduct {
    pub(crate) on_full: OnFull,
    /// How long a picked endpoint may take to be ready.
    pub(crate) ready_timeout: Duration,
    pub(crate) classify: Classify,
    /// Whether the answer says who gave it.
    pub(crate) picked: bool,
}

impl Default for Conduct {
    fn default() -> Self {
        Self {
            on_full: OnFull::default(),
            ready_timeout: Duration::from_secs(1),
            classify: Arc::new(Outcome::of_head),
            picked: true,
        }
    }
}

impl fmt::Debug for Conduct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conduct").field("on_full", &self.on_full).finish_non_exhaustive()
    }
}
