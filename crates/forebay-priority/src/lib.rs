//! Priority queues for a slow backend: who goes next, and who is told "no" at once.
//!
//! When a backend is full, a plain concurrency limit serves whoever came first, and a load shedder refuses your best
//! customers as often as batch jobs. [`PriorityLayer`] keeps one bounded queue per class, lets the most urgent go
//! first, and refuses what would wait too long with a `429`, a problem document and a `Retry-After`.
//!
//! A seat is held until the response *body* has ended, so that a token stream counts for as long as it streams. No work
//! is done for an answer that comes too late, and the least urgent still get their share.
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
//! # How the class is chosen
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
//! # The order
//!
//! - Waiting P0 goes first, always. After it the order between classes is strict, but for
//!   [`reserved`](field@ClassConfig::reserved): the share of the seats that a class gets at least while its requests wait, in
//!   seat-time, so that fractions of a seat are exact over time. The share is withheld while more of the class is served
//!   than of a more urgent class that waits: no class fares better than a more urgent one. While P0 alone takes all seats,
//!   nobody else is served.
//! - Within a class tenants (by `Principal`, or [`fair_by`](PriorityBuilder::fair_by)) are served in turn, measured by the
//!   time for which they hold seats: one at a hundred times the load of the others does not slow them down. With
//!   [`max_share`](field@PriorityConfig::max_share) one tenant never holds more than a part of the seats.
//! - Of one tenant, the oldest goes first; when not all can be served in time any more, the newest
//!   ([`Order::AdaptiveLifo`]).
//! - A class may leave seats free for the more urgent ones ([`headroom`](field@ClassConfig::headroom)).
//!
//! # How long a request waits
//!
//! A request of class *c* waits for at most `max(queue_timeout, patience_seats x hold / seats)`: the hold is measured, the
//! seats are those of the limit for which the backends have a place. So the same preset is right for exchanges of
//! milliseconds and of minutes:
//!
//! | [`PriorityConfig::four_class`] | P0 | P1 | P2 | P3 |
//! |---|---|---|---|---|
//! | `queue_timeout` | 30 s | 20 s | 10 s | 5 s |
//! | `patience_seats` | 48 | 24 | 20 | 16 |
//! | so on 64 seats, 20 s each (a seat comes free every 0.3 s) | 30 s | 20 s | 10 s | 5 s |
//! | on 8 seats, 20 s each (every 2.5 s) | 120 s | 60 s | 50 s | 40 s |
//!
//! The more urgent a class is, the *longer* it waits: its turn comes first, so its wait is short whatever it is allowed. Where
//! a more urgent class gives up sooner, as in [`PriorityConfig::reference_table`], it is refused more often than the others
//! once seats come free rarely; [`warnings`](PriorityHandle::warnings) says from when on.
//!
//! # Refusals
//!
//! Work that would come too late is never started: a request is refused when its predicted wait is more than twice the
//! time that it has (what its class waits, or its `Deadline` less what the backend takes to the first byte), and again when
//! its turn comes, if it cannot be answered in time any more. A full queue refuses the request that would be served last.
//!
//! | | status | problem type |
//! |---|---|---|
//! | its queue is full, or a more urgent request took its place | 429, `Retry-After` | `queue-full`, `evicted` |
//! | it waited as long as its class may | 429, `Retry-After` | `queue-timeout` |
//! | it cannot be answered before its deadline | 429, `Retry-After` | `deadline-infeasible` |
//! | its deadline has passed | 504 | `deadline-exceeded` |
//! | the limit is 0 | 503, `Retry-After` | `no-capacity` |
//! | the layer drains | 503, `Retry-After` | `shutting-down` |
//!
//! `Retry-After` is the time in which those ahead will have been served, jittered. gRPC callers get `RESOURCE_EXHAUSTED`,
//! `UNAVAILABLE` or `DEADLINE_EXCEEDED` instead, and `grpc-retry-pushback-ms`. With
//! [`overflow`](PriorityBuilder::overflow) a refused request may become a job.
//!
//! # What a request costs
//!
//! One seat, unless [`cost`](PriorityBuilder::cost) says otherwise; [`Seats::after_first_frame`] gives back with the first
//! token what only the reading of a long prompt needs.
//!
//! # Streams, cancellation, timeouts
//!
//! A seat is freed exactly once: at the end of the body, its error or its drop; at the head for answers without a body
//! and for tunnels; when the future is dropped, fails or panics ([`ReleaseOn`] may ask for earlier). The request body is
//! not read while it waits, and a caller who leaves costs nothing: the backend never sees the request. The queue timeout
//! bounds the time in the queue alone; [`answer_timeout`](field@ClassConfig::answer_timeout) and `Deadline` bound the time
//! to the head; after that only [`max_hold`](field@ClassConfig::max_hold) counts. An answer of known length that is whole with
//! its first frame, as a text in memory is, frees its seat with its head.
//!
//! # Callers that stop
//!
//! A client that reads nothing of its answer for [`stall`](field@PriorityConfig::stall) (15 s), or less than
//! [`min_read_rate`](field@PriorityConfig::min_read_rate) (256 bytes a second) while it is behind, loses its seat once
//! another request waits: the body is dropped where it lies, with its connection to the backend, and the client's next
//! read ends with [`SeatRevoked`]. (Servers and kernels buffer, so progress shows in steps: a reader of an answer of more than
//! some 170 kB must take about 14 kB a second.) So a crowd of clients that never read makes an urgent request wait for one stall at most.
//! The time in which the backend has nothing to send does not count. Three neighbours have to do the same for what this
//! layer does not see:
//!
//! - *uploads that never end*: the request body is not read here, so the backend reads it while the seat is held. Collect
//!   bodies before this layer, within a time and a budget, or put tower-http's `RequestBodyTimeoutLayer` outside of it;
//! - *backends that are silent*: give the client of the backend a timeout between frames (`idle_timeout` of
//!   forebay-balance), and requests a `Deadline`;
//! - *answers without an end that are read eagerly*: set [`max_hold`](field@ClassConfig::max_hold).
//!
//! # Live
//!
//! [`PriorityHandle`] shows what is queued and running, changes the limit and the classes under those who wait, drains,
//! and is a `DemandSource` for autoscale. The limit may also be found by measuring ([`adaptive`]), or the backends may be
//! asked ([`capacity`](PriorityBuilder::capacity)): then each grant takes a place there and hands it on as a
//! `Reservation`.
//!
//! # Without HTTP
//!
//! [`Admission`] gives out the same seats as [`Permit`]s; [`AdmissionService`] puts any tower service behind them.
//!
//! # Extensions
//!
//! Reads `Class`, `Principal`, `Deadline`, `Offloaded`, `Raise`; writes `Class`, `Deadline`, `Counted`, `Reservation` and,
//! where it waited, [`QueueWait`] to the request; [`Admitted`] (where it waited) or a `Rejection` to the response.
//!
//! # Features
//!
//! - `metrics`: numbers for the `metrics` facade, see the module of that name
//! - `serde`: the configuration is read and written, times as `500ms`, `10s`
//!
//! # Limits
//!
//! - Over HTTP/2 the unread bodies of requests that wait fill the window of their connection, and then no other body comes
//!   through it. Set the server's connection window to `max_concurrent_streams` times its stream window.
//! - Two of these layers in one stack, or a call that comes back through the layer from inside, can deadlock on each
//!   other's seats: use one, and [`exempt`](PriorityBuilder::exempt) such calls.
//! - Predictions need 32 answers before they are believed; until then only queues and timeouts refuse.
//! - A seat beyond `max_hold`, or of a reader that has stopped, is taken away when another request waits: within a quarter of
//!   the stall after its time is over. To be able to do so costs an allocation for each answer, and three for a stream; with
//!   neither `stall` nor `max_hold` there is none.
//! - P0 that alone wants more than the capacity is refused like any other class, and nothing else is served meanwhile. On four
//!   seats with holds of a minute P0 waits for minutes: nothing takes a seat from work that is under way.
//! - An HTTP/1.1 client that leaves before its request body was read may be noticed only when its time is up.
//! - Not there yet: weighted classes, preemption.

pub mod adaptive;
mod admission;
mod body;
mod classify;
mod config;
mod deadline;
pub mod future;
mod gate;
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
mod reader;
mod seat;
#[cfg(feature = "serde")]
mod serde_class;
mod service;
mod settings;
mod shared;
mod spill;
mod state;
mod sync;
mod tiers;
mod warnings;

pub use admission::{Acquire, Admission, Ask, Seats};
pub use body::{PriorityBody, SeatedBody};
pub use classify::{ByHeader, Classified, Classify, Trust};
pub use config::{Cap, ClassConfig, Limit, OnFull, Order, PriorityConfig, QueueLength, ReleaseOn};
pub use future::{Admitted, QueueWait};
pub use handle::{ClassSnapshot, Drained, PriorityHandle, PrioritySnapshot};
pub use layer::{PriorityBuilder, PriorityLayer};
pub use neutral::{AdmissionService, PriorityError};
pub use permit::Permit;
pub use seat::{Seat, SeatRevoked};
pub use service::Priority;
pub use tiers::{Tier, Tiers};
pub use warnings::Warning;
