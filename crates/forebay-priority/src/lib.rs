//! Priority queues for a slow backend: who goes next, and who is told "no" at once.
//!
//! When a backend is full, a plain concurrency limit serves whoever came first, and a load shedder refuses your best
//! customers as often as batch jobs. [`PriorityLayer`] keeps one bounded queue per class, lets the most urgent go
//! first, and refuses what would wait too long with a `429`, a problem document and a `Retry-After`.
//!
//! A seat is held until the response *body* has ended, so that a token stream counts for as long as it streams.
//!
//! # In ten lines
//!
//! ```
//! use axum::{Router, routing::post};
//! use forebay_core::{Class, RequestHead};
//! use forebay_priority::{PriorityConfig, PriorityLayer};
//!
//! # fn main() -> Result<(), forebay_core::ConfigError> {
//! let (priority, handle) = PriorityLayer::builder()
//!     .config(PriorityConfig::four_class(64)) // 64 exchanges at once
//!     .classify(|head: &RequestHead<'_>| if head.headers.contains_key("x-batch") { Class::P3 } else { Class::P1 })
//!     .build_with_handle()?;
//! let app: Router = Router::new().route("/v1/chat/completions", post(|| async { "hello" })).layer(priority);
//! assert_eq!(handle.snapshot().limit, 64);
//! # drop(app);
//! # Ok(())
//! # }
//! ```
//!
//! # Who is how urgent
//!
//! A [`Class`](forebay_core::Class) in the request extensions, set by your own authentication, is trusted. Otherwise the
//! classifier says how urgent the caller may be at most ([`Tiers`] does it by customer), and the caller may ask for
//! less in a header of your choice. Nobody outside can raise a class.
//!
//! ```
//! use forebay_core::{Class, Principal};
//! use forebay_priority::{ByHeader, PriorityLayer, Tiers};
//!
//! # fn main() -> Result<(), forebay_core::ConfigError> {
//! let tiers = Tiers::new(Class::P3).member(Principal::from_bytes("acme"), Class::P0);
//! let (_priority, handle) = PriorityLayer::builder()
//!     .classify(ByHeader::new("x-priority").within(tiers))
//!     .build_with_handle()?;
//!
//! let mut request = http::Request::new(());
//! request.extensions_mut().insert(Principal::from_bytes("acme")); // by authentication
//! request.headers_mut().insert("x-priority", "p2".parse().unwrap()); // this one is not urgent
//! handle.mark(&mut request);
//! assert_eq!(request.extensions().get::<Class>(), Some(&Class::P2));
//! # Ok(())
//! # }
//! ```
//!
//! # Overload, cancellation, streams
//!
//! Whoever cannot have a seat waits in the queue of its class, up to its queue timeout (`429 queue-timeout`) or its
//! `Deadline` (`504 deadline-exceeded`); a full queue refuses at once (`429 queue-full`). The request body is not read
//! while it waits, and a caller who leaves costs nothing: the backend never sees the request. Between classes the order
//! is strict; within a class it is first come, first served.
//!
//! # Limits
//!
//! Strict order starves the least urgent classes for as long as the more urgent ones fill the backend. Reserved shares,
//! shedding by predicted wait, fairness between tenants, adaptive limits, an overflow hook and metrics are not there
//! yet. Two of these layers in one stack can deadlock on each other's seats: use one.

pub mod adaptive;
mod admission;
mod classify;
mod config;
mod deadline;
pub mod future;
mod handle;
mod layer;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(not(feature = "metrics"))]
#[path = "no_metrics.rs"]
mod metrics;
#[cfg(all(test, any(forebay_loom, forebay_shuttle)))]
mod models;
mod neutral;
mod permit;
mod policy;
mod seat;
#[cfg(feature = "serde")]
mod serde_class;
mod service;
mod settings;
mod shared;
mod spill;
mod sync;
mod tiers;
mod warnings;

pub use admission::{Acquire, Admission, Ask, Seats};
pub use classify::{ByHeader, Classified, Classify, Trust};
pub use config::{Cap, ClassConfig, Limit, OnFull, Order, PriorityConfig, QueueLength, ReleaseOn};
pub use future::{Admitted, QueueWait};
pub use handle::{ClassSnapshot, Drained, PriorityHandle, PrioritySnapshot};
pub use layer::{PriorityBuilder, PriorityLayer};
pub use neutral::{AdmissionService, PriorityError};
pub use permit::Permit;
pub use seat::{Seat, SeatRevoked};
pub use service::{Priority, PriorityBody};
pub use tiers::{Tier, Tiers};
pub use warnings::Warning;
