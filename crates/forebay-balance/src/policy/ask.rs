//! What the picker is told, asked, and answers.

use std::time::Instant;

use forebay_core::Class;

use super::Outlier;
use super::pins::Pin;
use super::pool::{Offset, Policy};
use super::weight::SlowStart;

/// What a [`Picker`] goes by.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) policy: Policy,
    pub(crate) offset: Offset,
    /// `None`: nobody is ejected, and failing fast attracts.
    pub(crate) outlier: Option<Outlier>,
    pub(crate) slow_start: Option<SlowStart>,
    pub(crate) pin: Option<Pin>,
    /// Below this part of the weight health is ignored, 0 to 1.
    pub(crate) panic_threshold: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            offset: Offset::default(),
            outlier: Some(Outlier::default()),
            slow_start: None,
            pin: None,
            panic_threshold: 0.5,
        }
    }
}

/// How an endpoint comes in, or what it is changed to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct New {
    pub(crate) pool: usize,
    pub(crate) weight: u16,
    pub(crate) max_concurrency: Option<u32>,
    /// It gets nothing before a health check has succeeded.
    pub(crate) checked: bool,
    /// It will be asked for its load.
    pub(crate) probed: bool,
    /// Of its name, for affinity.
    pub(crate) id_hash: u64,
    /// Of its group, or else of its name.
    pub(crate) group_hash: u64,
}

/// By what right a place is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pool: u32,
    /// The class that borrows it, if it is in a pool of others.
    pub(crate) guest: Option<Class>,
}

impl Claim {
    pub(super) const fn new(pool: usize, guest: Option<Class>) -> Self {
        Self { pool: pool as u32, guest } // far fewer pools than u32 has numbers
    }

    pub(crate) const fn pool(&self) -> usize {
        self.pool as usize
    }
}

/// Why an endpoint was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PickReason {
    /// By the [`Policy`].
    Load,
    /// By its [`AffinityKey`](forebay_core::AffinityKey).
    Affinity,
    /// In a later pool of its route, as those before had no place.
    Spill,
    /// As a guest in a pool of others.
    Borrow,
    /// As another endpoint did not get it.
    Redial,
}

impl PickReason {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Load, Self::Affinity, Self::Spill, Self::Borrow, Self::Redial];

    /// Its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Affinity => "affinity",
            Self::Spill => "spill",
            Self::Borrow => "borrow",
            Self::Redial => "redial",
        }
    }
}

/// Who asks for an endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ask<'a> {
    pub(crate) class: Class,
    pub(crate) claim: Option<Claim>,
    /// Requests with the same key belong together.
    pub(crate) key: Option<u64>,
    /// The blocks that its prompt begins with: who has seen them last is best.
    pub(crate) prefix: &'a [u64],
}

/// What was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Picked {
    pub(crate) index: usize,
    pub(crate) claim: Claim,
    /// The number of the pick.
    pub(crate) ticket: u64,
    /// When that was, if a clock was read for it.
    pub(crate) started: Option<Instant>,
    /// It tries an endpoint that was ejected.
    pub(crate) trial: bool,
    /// How long it takes is wanted also if it succeeds.
    pub(crate) timed: bool,
    pub(crate) reason: PickReason,
    /// What it belongs to, and whether it is pinned by that.
    pub(super) key: Option<u64>,
    pub(super) pinned: bool,
}

impl Picked {
    /// Nothing yet.
    pub(crate) const NONE: Self = Self::plain(0, Claim::new(0, None), 0, None);

    /// By the policy, in the first pool of its class, of an endpoint that has nothing to prove.
    #[inline]
    pub(super) const fn plain(index: usize, claim: Claim, ticket: u64, started: Option<Instant>) -> Self {
        let (trial, timed, pinned) = (false, false, false);
        Self { index, claim, ticket, started, trial, timed, reason: PickReason::Load, key: None, pinned }
    }

    /// The key that it is pinned by.
    pub(super) fn pinned(&self) -> Option<u64> {
        self.key.filter(|_| self.pinned)
    }
}
