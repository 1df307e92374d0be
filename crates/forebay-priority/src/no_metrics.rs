//! The twin of `metrics` without that feature: nothing at all.

use std::time::Duration;

use forebay_core::Reason;

#[derive(Debug)]
pub(crate) struct Metrics;

#[allow(clippy::unused_self)] // the signatures are those of its twin
impl Metrics {
    pub(crate) const fn new(_classes: usize, _limit: usize) -> Self {
        Self
    }

    pub(crate) const fn seated(&self, _class: usize, _seats: u32, _waited: Duration) {}

    pub(crate) fn unseated(&self, _class: usize, _seats: u32, _held: impl FnOnce() -> Option<Duration>) {}

    pub(crate) const fn resized(&self, _class: usize, _before: u32, _after: u32) {}

    pub(crate) const fn first_byte(&self, _class: usize, _latency: Duration) {}

    pub(crate) const fn queued(&self, _class: usize, _seats: u32) {}

    pub(crate) const fn unqueued(&self, _class: usize, _seats: u32) {}

    pub(crate) const fn cancelled(&self, _class: usize) {}

    pub(crate) const fn shed(&self, _class: usize, _reason: Reason) {}

    pub(crate) const fn revoked(&self, _class: usize, _reason: &'static str) {}

    pub(crate) const fn overflowed(&self, _class: usize) {}

    pub(crate) const fn exempt(&self) {}

    pub(crate) const fn limit(&self, _seats: usize) {}
}
