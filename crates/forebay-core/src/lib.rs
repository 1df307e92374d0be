//! The vocabulary that all forebay layers share: small types that travel in request and response *extensions*, bodies
//! that carry a guard to the end of a stream, and the traits through which layers cooperate without knowing each other.
//!
//! You need this crate directly when you write a classifier, an authentication layer, a job overflow hook, or a layer of
//! your own that should work beside the family. There is no I/O here and no runtime.
//!
//! # Who am I, how urgent is it, until when
//!
//! Whatever knows the caller stands outermost and sets three extensions; every layer inside trusts them:
//!
//! ```
//! use std::time::{Duration, Instant};
//! use forebay_core::{Class, Deadline, Principal};
//!
//! let mut request = http::Request::new(());
//! request.extensions_mut().insert(Principal::from_bytes("tenant-42"));
//! request.extensions_mut().insert(Class::P0);
//! let now = Instant::now();
//! request.extensions_mut().insert(Deadline::after(now, Duration::from_secs(5)));
//!
//! // A tenant never shows up in a log by accident.
//! assert_eq!(format!("{:?}", request.extensions().get::<Principal>()), "Some(Principal(..))");
//! ```
//!
//! # A slot that lasts until the stream has ended
//!
//! A response is over when its *body* is: [`Guarded`] carries a guard there, whatever happens on the way.
//!
//! ```
//! use forebay_core::{BodyGuard, Guarded, Outcome};
//! use std::sync::{Arc, atomic::{AtomicUsize, Ordering::SeqCst}};
//!
//! #[derive(Debug)]
//! struct Slot(Arc<AtomicUsize>);
//! impl Drop for Slot {
//!     fn drop(&mut self) { self.0.fetch_sub(1, SeqCst); }
//! }
//! impl BodyGuard for Slot {} // end, error and early drop all run `Drop`
//!
//! let in_flight = Arc::new(AtomicUsize::new(1));
//! let body = Guarded::new(http_body_util::Full::new(bytes::Bytes::from("x")), Slot(in_flight.clone()));
//! assert_eq!(in_flight.load(SeqCst), 1);
//! drop(body);
//! assert_eq!(in_flight.load(SeqCst), 0);
//! ```
//!
//! # A refusal is a response
//!
//! [`Rejection`] renders as RFC 9457 `application/problem+json`, and stays in the response extensions as a promise to
//! the layers outside: the backend never saw this request (a passed deadline excepted), it may run later or elsewhere.
//!
//! ```
//! use forebay_core::{Class, Reason, Rejection};
//! use std::time::Duration;
//!
//! let response = Rejection::new(Reason::QueueFull).class(Class::P3).retry_after(Duration::from_secs(8)).into_response();
//! assert_eq!(response.status(), 429);
//! assert!(response.headers().contains_key("retry-after"));
//! assert_eq!(response.extensions().get::<Rejection>().unwrap().reason, Reason::QueueFull);
//! ```
//!
//! A gRPC client would read no more of that than that something is wrong: [`Rejection::into_response_for`] gives each caller
//! what its [`Protocol`] calls for.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `testing` | the test kit for layers: [`testing::Spy`], [`testing::Scripted`], [`testing::cut_after`] |

mod body;
mod capacity;
mod class;
mod config_error;
mod deadline;
mod demand;
mod head;
mod outcome;
mod overflow;
mod principal;
mod protocol;
mod raise;
mod reason;
mod rejection;
#[cfg(feature = "testing")]
pub mod testing;

pub use body::{BodyGuard, Guarded, Never, ReqBody, ResBody};
pub use capacity::{CapacitySignal, Places, ReplicaState, Reservation, Subscription};
pub use class::{Class, ParseClassError};
pub use config_error::ConfigError;
pub use deadline::Deadline;
pub use demand::{ClassDemand, Counted, Demand, DemandSource};
pub use head::{AffinityKey, RequestHead};
pub use outcome::Outcome;
pub use overflow::{NoOverflow, Offloaded, Overflow};
pub use principal::Principal;
pub use protocol::Protocol;
pub use raise::Raise;
pub use reason::Reason;
pub use rejection::Rejection;

/// The error of our body wrappers; the bodies inside have any error that converts into it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
