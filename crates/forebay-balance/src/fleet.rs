use std::fmt;
use std::sync::Arc;

use forebay_core::{BodyGuard as _, Class, Outcome, Reason};

use crate::endpoint::EndpointId;
use crate::permit::Permit;
use crate::policy;
use crate::service::Shared;

/// The same balancer for work that is no HTTP request: picks an endpoint and counts what runs there. From
/// [`Balance::fleet`](crate::Balance::fleet).
///
/// ```
/// use forebay_balance::{Balance, Endpoint};
/// use forebay_core::{Class, Outcome};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let builder = Balance::builder()
///     .endpoint(Endpoint::with_service("big", "connection 1").weight(2))
///     .endpoint(Endpoint::with_service("small", "connection 2").weight(1));
/// let fleet = builder.build()?.fleet();
/// let picks: Vec<_> = (0..3).map(|_| fleet.pick(Class::P1)).collect::<Result<_, _>>()?;
/// assert_eq!(picks.iter().filter(|pick| pick.endpoint.as_str() == "big").count(), 2);
/// picks.into_iter().for_each(|pick| pick.finish(Outcome::Success));
/// # Ok(())
/// # }
/// ```
pub struct Fleet<S> {
    shared: Arc<Shared<S>>,
}

/// An endpoint that was picked. Its place is held until it is finished or dropped; dropped, it counts as cancelled.
#[derive(Debug)]
#[must_use = "dropped, it gives its place back"]
#[non_exhaustive]
pub struct Pick<S> {
    /// A clone of the endpoint's service.
    pub service: S,
    /// Which endpoint it is.
    pub endpoint: EndpointId,
    /// Its place.
    pub permit: Permit,
}

/// Why nothing was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickError {
    /// Every endpoint has the weight 0.
    #[error("no endpoint may be picked")]
    NoEndpoint,
    /// Every endpoint is full, or what it has free is reserved.
    #[error("every endpoint is full")]
    AtCapacity,
}

impl From<PickError> for Reason {
    fn from(error: PickError) -> Self {
        match error {
            PickError::NoEndpoint => Self::NoEndpoint,
            PickError::AtCapacity => Self::AtCapacity,
        }
    }
}

impl<S> Clone for Fleet<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<S> fmt::Debug for Fleet<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("endpoints", &self.shared.ids).finish_non_exhaustive()
    }
}

impl<S: Clone> Fleet<S> {
    pub(crate) const fn new(shared: Arc<Shared<S>>) -> Self {
        Self { shared }
    }

    /// Picks the endpoint with the least work for its power. O(log endpoints).
    ///
    /// # Errors
    ///
    /// All are full or drained.
    pub fn pick(&self, class: Class) -> Result<Pick<S>, PickError> {
        let permit = Permit::pick(&self.shared.counts, None, Some(class)).map_err(|error| match error {
            policy::PickError::NoEndpoint => PickError::NoEndpoint,
            policy::PickError::AtCapacity => PickError::AtCapacity,
        })?;
        let index = permit.index();
        Ok(Pick { service: self.shared.services[index].clone(), endpoint: self.shared.ids[index].clone(), permit })
    }
}

impl<S> Pick<S> {
    /// Ends the work, and gives the place back.
    pub fn finish(self, outcome: Outcome) {
        self.permit.finish(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Balance, Endpoint};

    #[test]
    fn r8_a_fleet_picks_counts_and_refuses_as_the_service_does() {
        let builder = Balance::builder()
            .endpoint(Endpoint::with_service("a", 'a').weight(2).max_concurrency(2))
            .endpoint(Endpoint::with_service("b", 'b').weight(1).max_concurrency(1));
        let balance = builder.build().expect("valid");
        let (fleet, handle) = (balance.fleet(), balance.handle());
        let picks: Vec<_> = (0..3).map(|_| fleet.pick(Class::P0).expect("a place")).collect();
        assert_eq!(picks.iter().map(|pick| pick.service).collect::<String>(), "aba");
        assert_eq!(fleet.pick(Class::P0).expect_err("full"), PickError::AtCapacity);
        let mut picks = picks.into_iter();
        picks.next().expect("three").finish(Outcome::Success);
        picks.next().expect("three").finish(Outcome::Overload);
        drop(picks); // cancelled
        let counts = handle.snapshot();
        assert!(counts.iter().all(|endpoint| endpoint.in_flight == 0));
        assert_eq!((counts[0].success, counts[1].overload, counts[0].cancelled), (1, 1, 1));
    }
}
