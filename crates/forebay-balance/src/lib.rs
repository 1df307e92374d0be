//! The right backend for the next request: weighted least connections over unequal, slow endpoints.
//!
//! Each request goes to the endpoint with the least work for its power, and counts there until the last byte of its
//! answer, so that token streams weigh for as long as they stream. When the client leaves, the upstream is cancelled. A
//! request that provably never left goes to another endpoint; one that may have been seen never does, whatever came
//! back: nothing runs twice.
//!
//! # In ten lines
//!
//! ```
//! # #[cfg(feature = "client")]
//! # fn main() -> Result<(), forebay_core::ConfigError> {
//! use forebay_balance::{Balance, Endpoint};
//!
//! let (balance, handle) = Balance::http()
//!     .endpoint(Endpoint::new("http://10.0.0.1:8000").gpu("V100").max_concurrency(32)) // weight 3
//!     .endpoint(Endpoint::new("http://10.0.0.2:8000").gpu("T4").max_concurrency(16))   // weight 2
//!     .endpoint(Endpoint::new("http://10.0.0.3:8000").weight(1))
//!     .build_with_handle()?;
//! let app: axum::Router = axum::Router::new().fallback_service(balance.into_infallible());
//! assert_eq!(handle.snapshot()[0].weight, 3);
//! # drop(app);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "client"))]
//! # fn main() {}
//! ```
//!
//! Without the feature `client`, endpoints are any tower service:
//!
//! ```
//! use forebay_balance::{Balance, Endpoint};
//! # async fn answer(_: http::Request<()>) -> Result<http::Response<String>, std::convert::Infallible> {
//! #     Ok(http::Response::new(String::new()))
//! # }
//! # fn main() -> Result<(), forebay_core::ConfigError> {
//! let balance = Balance::builder()
//!     .endpoint(Endpoint::with_service("big", tower::service_fn(answer)).weight(4))
//!     .endpoint(Endpoint::with_service("small", tower::service_fn(answer)))
//!     .build();
//! # let balance: Balance<_> = balance?;
//! # drop(balance);
//! # Ok(())
//! # }
//! ```
//!
//! # What is refused, and what fails
//!
//! All endpoints full: 429 `at-capacity`. All drained: 503 `no-endpoint`. The `Deadline` in the request extensions passed
//! before the head: 504, and the upstream is dropped. An upstream that gives no answer is the service's error;
//! `into_infallible` makes it a 502 or 504.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `client` | `Balance::http()`: an HTTP/1.1 and HTTP/2 client as the endpoints |
//!
//! # Limits
//!
//! The list of endpoints is fixed; a pick takes time in proportion to its length. Health checks, ejection, probes, live
//! weights, affinity, pools, discovery, capacity signals and TLS to the backends are not there yet.

#[cfg(feature = "client")]
pub mod client;
mod endpoint;
pub mod future;
mod handle;
mod permit;
mod policy;
mod redial;
mod service;

#[cfg(feature = "client")]
pub use client::{HttpBalance, HttpEndpoint};
pub use endpoint::{Endpoint, EndpointId};
pub use future::Picked;
pub use handle::{BalanceHandle, EndpointSnapshot};
pub use permit::Permit;
pub use redial::{NoRedial, Redial, RedialPolicy, Undispatched};
pub use service::{Balance, BalanceBody, BalanceBuilder};
