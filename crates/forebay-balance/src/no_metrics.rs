//! The twin of `metrics` without that feature: nothing at all.

use std::time::Duration;

use forebay_core::{Outcome, Reason};

use crate::endpoint::EndpointId;
use crate::policy::{EjectCause, PickReason};

/// Whether the time of every exchange is wanted.
pub(crate) const TIMED: bool = false;

#[derive(Debug)]
pub(crate) struct Labels;

#[allow(clippy::unused_self)] // the signatures are those of its twin
impl Labels {
    pub(crate) const fn new() -> Self {
        Self
    }

    pub(crate) const fn meter(&self, _id: &EndpointId) -> Meter {
        Meter
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Meter;

#[allow(clippy::unused_self)]
impl Meter {
    pub(crate) const fn picked(&self, _reason: PickReason) {}

    pub(crate) const fn head(&self, _after: Duration) {}

    pub(crate) const fn ended(&self, _outcome: Outcome) {}
}

pub(crate) const fn refused(_reason: Reason) {}

pub(crate) const fn ejected(_cause: EjectCause, _endpoints: u64) {}

pub(crate) const fn redialled(_cause: &'static str) {}

pub(crate) const fn waited(_time: Duration) {}

#[cfg(feature = "client")]
pub(crate) const fn probe_failed(_kind: &'static str) {}
