//! tower layers for HTTP services whose backends are slow, expensive and easily overloaded.
//!
//! This crate is a roof over the family: each layer behind a feature of its name, none by default, and no logic.
//!
//! | feature | module | what it does |
//! |---|---|---|
//! | `priority` | [`priority`] | who goes next when the backend is full, and who is refused at once |
//!
//! What the layers share (`Class`, `Principal`, `Rejection` …) is always there, as [`core`].

pub use forebay_core as core;
#[cfg(feature = "priority")]
pub use forebay_priority as priority;

/// What most programs import.
pub mod prelude {
    #[cfg(feature = "priority")]
    pub use crate::priority::{PriorityConfig, PriorityHandle, PriorityLayer, Tiers};
    pub use forebay_core::{Class, ConfigError, Deadline, Principal, Reason, Rejection};
}

#[cfg(all(doctest, feature = "priority"))]
#[doc = include_str!("../../../README.md")]
struct Readme;
