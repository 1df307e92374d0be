//! tower layers for HTTP services whose backends are slow, expensive and easily overloaded.
//!
//! This crate is a roof over the family: each layer behind a feature of its name, none by default, and no logic.
//!
//! | feature | module | what it does |
//! |---|---|---|
//! | `priority` | [`priority`] | who goes next when the backend is full, and who is refused at once |
//! | `cache` | [`cache`] | the same answer again, without the backend |
//! | `offload` | [`offload`] | 202 now, the answer later, from a durable job |
//! | `balance` | [`balance`] | the right backend for the next request |
//! | `autoscale` | [`autoscale`] | how many replicas are needed |
//!
//! What the layers share (`Class`, `Principal`, `Rejection` …) is always there, as [`core`].

#[cfg(feature = "autoscale")]
pub use forebay_autoscale as autoscale;
#[cfg(feature = "balance")]
pub use forebay_balance as balance;
#[cfg(feature = "cache")]
pub use forebay_cache as cache;
pub use forebay_core as core;
#[cfg(feature = "offload")]
pub use forebay_offload as offload;
#[cfg(feature = "priority")]
pub use forebay_priority as priority;

/// What most programs import.
pub mod prelude {
    #[cfg(feature = "autoscale")]
    pub use crate::autoscale::{AutoscaleHandle, AutoscaleLayer, ScalePolicy, Take};
    #[cfg(feature = "balance")]
    pub use crate::balance::{Balance, BalanceHandle, Endpoint};
    #[cfg(feature = "cache")]
    pub use crate::cache::{CacheHandle, CacheLayer, JsonRoute};
    #[cfg(feature = "offload")]
    pub use crate::offload::{JobQueue, JobRouter, OffloadLayer, Worker};
    #[cfg(feature = "priority")]
    pub use crate::priority::{ByHeader, PriorityConfig, PriorityHandle, PriorityLayer, Tiers};
    pub use forebay_core::{Class, ConfigError, Deadline, Principal, Reason, Rejection};
}

#[cfg(all(doctest, feature = "priority"))]
#[doc = include_str!("../../../README.md")]
struct Readme;
