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
//! # Places, reserved before an endpoint is chosen
//!
//! [`BalanceHandle::capacity`] is the balancer's [`CapacitySignal`](forebay_core::CapacitySignal): a layer that keeps
//! requests in order, such as priority, reserves a place with each grant and sends the reservation along in the
//! extensions of the request. So requests wait where order is kept, none is refused here because others came first, and
//! each binds to the endpoint that is best at its pick, not at its grant.
//!
//! ```
//! use forebay_balance::{Balance, Endpoint};
//! use forebay_core::{CapacitySignal as _, Class};
//! # use http::{Request, Response};
//! # use tower_service::Service as _;
//! # async fn answer(_: Request<()>) -> Result<Response<axum::body::Body>, std::convert::Infallible> {
//! #     Ok(Response::default())
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let balance = Balance::builder()
//!     .endpoint(Endpoint::with_service("only", tower::service_fn(answer)).max_concurrency(1))
//!     .build();
//! # let mut balance: Balance<_> = balance?;
//! let capacity = balance.handle().capacity();
//!
//! let place = capacity.try_reserve(Class::P0).expect("one is free");
//! assert!(capacity.try_reserve(Class::P0).is_none());
//! assert_eq!(balance.call(Request::new(())).await?.status(), 429, "it is reserved");
//!
//! let mut request = Request::new(());
//! request.extensions_mut().insert(place);
//! assert_eq!(balance.call(request).await?.status(), 200);
//! assert_eq!(capacity.places(None).open, 1, "the exchange is over");
//! # Ok(())
//! # }
//! ```
//!
//! # What servers say about themselves
//!
//! [`probe`] reads metrics pages (vLLM, SGLang, TensorRT-LLM, Triton, TGI, llama.cpp, DCGM, nvidia_gpu_exporter) into
//! a [`LoadReport`](probe::LoadReport): requests running and waiting, KV cache, GPU memory, faults and processes. What
//! a page does not say is unknown, never zero. Rules judge the reports: no free GPU memory, a GPU fault or a full KV
//! cache slow an endpoint or close it. The balancer does not fetch pages or ask rules yet; that is up to the caller.
//!
//! # What is refused, and what fails
//!
//! All endpoints full, or what they have free is reserved: 429 `at-capacity`. All drained: 503 `no-endpoint`. The
//! `Deadline` in the request extensions passed before the head: 504, and the upstream is dropped. An upstream that
//! gives no answer is the service's error; `into_infallible` makes it a 502 or 504.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `client` | `Balance::http()`: an HTTP/1.1 and HTTP/2 client as the endpoints |
//!
//! # Limits
//!
//! The list of endpoints is fixed. Health checks, ejection, fetching of metrics, live weights, affinity, pools, discovery
//! and TLS to the backends are not there yet. Without pools a reservation's class makes no difference. A request without
//! a reservation that finds no place is refused at once: none waits here. A place reserved is kept for as long as its
//! holder likes, and is not kept if an endpoint is drained or its bound lowered.

mod alarm;
mod builder;
mod capacity;
#[cfg(feature = "client")]
pub mod client;
mod core;
mod discover;
mod endpoint;
mod fleet;
pub mod future;
mod gpu;
mod handle;
#[cfg(feature = "client")]
mod health;
mod members;
mod permit;
mod policy;
pub mod probe;
mod rate;
mod redial;
mod service;
mod wait;
mod wakers;

pub use builder::BalanceBuilder;
pub use capacity::Capacity;
#[cfg(feature = "client")]
pub use client::{Dns, HttpBalance, HttpEndpoint};
pub use discover::Change;
pub use endpoint::{Endpoint, EndpointId};
pub use fleet::{Ask, Fleet, Pick, PickError};
pub use future::Picked;
pub use gpu::GpuTable;
pub use handle::{BalanceHandle, EndpointSnapshot, PoolSnapshot};
#[cfg(feature = "client")]
pub use health::HttpCheck;
pub use permit::Permit;
pub use policy::{EndpointState, Offset, Outlier, PickReason, Policy, SlowStart};
#[cfg(feature = "client")]
pub use probe::MetricsProbe;
pub use redial::{NoRedial, Redial, RedialMode, RedialPolicy, Undispatched};
pub use service::{Balance, BalanceBody};
pub use wait::OnFull;
