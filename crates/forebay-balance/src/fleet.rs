use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use forebay_core::{AffinityKey, BodyGuard as _, Class, Deadline, Outcome, Reason};

use crate::affinity::PrefixBlocks;
use crate::members::Members;
use crate::permit::{Permit, Who};
use crate::policy;
use crate::wait::Turn;

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
/// assert_eq!(picks.iter().filter(|pick| pick.permit.endpoint().as_str() == "big").count(), 2);
/// picks.into_iter().for_each(|pick| pick.finish(Outcome::Success));
/// # Ok(())
/// # }
/// ```
pub struct Fleet<S> {
    members: Arc<Members>,
    services: PhantomData<fn() -> S>,
}

/// An endpoint that was picked. Its place is held until it is finished or dropped; dropped, it counts as cancelled.
#[derive(Debug)]
#[must_use = "dropped, it gives its place back"]
#[non_exhaustive]
pub struct Pick<S> {
    /// A clone of the endpoint's service.
    pub service: S,
    /// Its place, which also knows [which endpoint](Permit::endpoint) it is and [why](Permit::reason).
    pub permit: Permit,
}

/// Who asks for an endpoint. A [`Class`] alone will do.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Ask {
    /// Its class, which says what pools are open to it. Default P2.
    pub class: Class,
    /// What it belongs to: requests of one key go to one endpoint, as long as that has no more than its share.
    pub affinity: Option<AffinityKey>,
    /// What its prompt begins with: it goes to the endpoint that was sent most of that before, as long as that has no more
    /// than its share.
    pub prefix: Option<PrefixBlocks>,
    /// When the place is of no use any more.
    pub deadline: Option<Deadline>,
}

impl From<Class> for Ask {
    fn from(class: Class) -> Self {
        Self { class, ..Self::default() }
    }
}

impl Ask {
    /// Sets [`affinity`](Self::affinity).
    #[must_use]
    pub fn affinity(mut self, key: AffinityKey) -> Self {
        self.affinity = Some(key);
        self
    }

    /// Sets [`prefix`](Self::prefix).
    #[must_use]
    pub fn prefix(mut self, blocks: PrefixBlocks) -> Self {
        self.prefix = Some(blocks);
        self
    }

    /// Sets [`deadline`](Self::deadline).
    #[must_use]
    pub fn deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = Some(deadline);
        self
    }

    const fn who(&self) -> Who {
        let key = match self.affinity {
            Some(AffinityKey(key)) => Some(key),
            None => None,
        };
        Who { class: self.class, key, timed: false, counted: true, new: true }
    }
}

/// Why nothing was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickError {
    /// Every endpoint is drained, down or ejected.
    #[error("no endpoint may be picked")]
    NoEndpoint,
    /// Every endpoint is full, or what it has free is reserved.
    #[error("every endpoint is full")]
    AtCapacity {
        /// When it may be worth while to come again.
        retry_after: Duration,
    },
    /// Its deadline has passed.
    #[error("the deadline has passed")]
    DeadlineExceeded,
}

impl From<PickError> for Reason {
    fn from(error: PickError) -> Self {
        match error {
            PickError::NoEndpoint => Self::NoEndpoint,
            PickError::AtCapacity { .. } => Self::AtCapacity,
            PickError::DeadlineExceeded => Self::DeadlineExceeded,
        }
    }
}

impl<S> Clone for Fleet<S> {
    fn clone(&self) -> Self {
        Self { members: Arc::clone(&self.members), services: PhantomData }
    }
}

impl<S> fmt::Debug for Fleet<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("pools", &self.members.core.pools).finish_non_exhaustive()
    }
}

impl<S: Clone + Send + Sync + 'static> Fleet<S> {
    pub(crate) const fn new(members: Arc<Members>) -> Self {
        Self { members, services: PhantomData }
    }

    /// Picks the endpoint with the least work for its power, at once. O(log endpoints).
    ///
    /// # Errors
    ///
    /// All are full, or none takes requests.
    #[inline]
    pub fn pick(&self, ask: impl Into<Ask>) -> Result<Pick<S>, PickError> {
        let ask = ask.into();
        let who = ask.who();
        let Ask { prefix, .. } = ask; // the rest is not kept until the pick is over
        match Permit::pick(&self.members.core, who, PrefixBlocks::of(&prefix)) {
            Ok(permit) => Ok(Pick { service: permit.service(), permit }),
            Err(error) => Err(self.refusal(who.class, error)),
        }
    }

    /// As [`pick`](Self::pick), but waits for a place, in the order of coming, where
    /// [`on_full`](crate::BalanceBuilder::on_full) says so.
    ///
    /// # Errors
    ///
    /// As `pick`; also if too many wait, or it waited too long.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it leaves the queue, and a place that it was given goes to the next.
    pub async fn wait(&self, ask: impl Into<Ask>) -> Result<Pick<S>, PickError> {
        let ask = ask.into();
        let (deadline, prefix) = (ask.deadline, PrefixBlocks::of(&ask.prefix));
        let mut who = ask.who();
        let mut refused = match Permit::pick(&self.members.core, who, prefix) {
            Ok(permit) => return Ok(Pick { service: permit.service(), permit }),
            Err(error) => error,
        };
        let mut redeemer = false;
        while refused == policy::PickError::AtCapacity {
            who.new = false;
            let Some(turn) = Turn::new(&self.members.core, who.class, true, deadline, redeemer) else { break };
            let place = match turn.await {
                Ok(place) => place,
                Err(Reason::DeadlineExceeded) => {
                    self.members.core.ledger().demand[who.class].shed += 1;
                    return Err(PickError::DeadlineExceeded);
                }
                Err(_) => break,
            };
            match Permit::redeem(&self.members.core, place, who, prefix) {
                Ok(permit) => return Ok(Pick { service: permit.service(), permit }),
                Err(error) => (refused, redeemer) = (error, true),
            }
        }
        Err(self.refusal(who.class, refused))
    }

    #[cold]
    fn refusal(&self, class: Class, error: policy::PickError) -> PickError {
        let mut ledger = self.members.core.ledger();
        ledger.demand[class].shed += 1;
        match error {
            policy::PickError::NoEndpoint => PickError::NoEndpoint,
            policy::PickError::AtCapacity => {
                PickError::AtCapacity { retry_after: ledger.releases.retry_after(ledger.waiting.len()) }
            }
        }
    }
}

impl<S> Pick<S> {
    /// Ends the work, and gives the place back.
    #[inline]
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
        assert!(matches!(fleet.pick(Class::P0).expect_err("full"), PickError::AtCapacity { .. }));
        let mut picks = picks.into_iter();
        picks.next().expect("three").finish(Outcome::Success);
        picks.next().expect("three").finish(Outcome::Overload);
        drop(picks); // cancelled
        let counts = handle.snapshot();
        assert!(counts.iter().all(|endpoint| endpoint.in_flight == 0));
        let demand = forebay_core::DemandSource::demand(&handle).total();
        assert_eq!((demand.offered, demand.shed, demand.done, demand.in_flight), (4, 1, 2, 0));
        assert_eq!((counts[0].success, counts[1].overload, counts[0].cancelled), (1, 1, 1));
    }
}
