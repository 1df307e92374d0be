//! The right backend for the next request: weighted least connections over unequal, slow endpoints.
//!
//! Each request goes to the endpoint with the least work for its power, and counts there until the last byte of its
//! answer, so that token streams weigh for as long as they stream. When the client leaves, the upstream is cancelled. A
//! request that provably never left, or that an HTTP/2 server says it did not process, goes to another endpoint; one
//! that may have been processed never does, whatever came back: nothing runs twice.
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
//! Who only wants to know how many places are open follows them with [`BalanceHandle::watch_places`].
//!
//! Without a reservation, and with no place, a request waits its turn: up to 1024 of them, up to a second each; see
//! [`OnFull`].
//!
//! # Who is broken, who is busy
//!
//! By default an endpoint that fails five times running, or half of the time, is left out for 5 s, then longer each
//! time; after that one request tries it, and it comes back slowly ([`Outlier`], [`SlowStart`]). Never more than half of a
//! pool is left out, and never the last.
//!
//! *Busy is not broken.* An answer 429, 503 or 529 says how much an endpoint can take: it gets fewer at once, and one more
//! after each success. Only from one that has next to nothing to do and refuses at once is it an error. And failing fast
//! attracts nothing: an error that came faster than work would have weighs on for as long as work would have taken.
//!
//! With [`HttpCheck`] an endpoint gets nothing before its first success, as model servers load for minutes. If more than
//! half of a pool's weight is gone and what is left has no `max_concurrency`, or nothing is left, health is ignored: some
//! answers are better than none.
//!
//! # What servers say about themselves
//!
//! With [`MetricsProbe`] the balancer fetches a metrics page of each endpoint (vLLM, SGLang, TensorRT-LLM, Triton, TGI,
//! llama.cpp, DCGM, nvidia_gpu_exporter; also the JSON of SGLang's `/v1/loads`, vLLM's `/load`, llama.cpp's `/slots`), or
//! reads the load reports that come with answers (ORCA). Requests that run or wait there and are not ours join ours, so
//! that several gateways do not herd; what a page does not say is unknown, never zero, and taken to be as at the others.
//! Rules turn a full KV cache, short GPU memory or a GPU fault into less weight, or close the endpoint. For services that
//! are not HTTP the same is told by [`BalanceHandle::report`] and [`BalanceHandle::set_health`]. [`probe`] has the parser
//! and the rules.
//!
//! ```
//! # #[cfg(feature = "client")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), forebay_core::ConfigError> {
//! use forebay_balance::{Balance, Dns, Endpoint, HttpCheck, MetricsProbe};
//! use forebay_core::Class;
//!
//! let (balance, handle) = Balance::http()
//!     .discover(Dns::new("http://models.default.svc:8000"))                               // each address of the name
//!     .endpoint(Endpoint::new("http://gold:8000").pool("dedicated").max_concurrency(8))
//!     .route(Class::P0, ["dedicated", "default"])                                         // a pool of its own
//!     .health(HttpCheck::new("/health"))
//!     .probe(MetricsProbe::vllm("/metrics"))
//!     .build_with_handle()?;
//! assert_eq!(handle.pools().len(), 2);
//! # drop(balance);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "client"))]
//! # fn main() {}
//! ```
//!
//! # Pools
//!
//! An endpoint is in one pool, `"default"` unless it says otherwise. A class goes to the pools of its route, the first
//! that has a place; nobody else enters, but who may [borrow](BalanceBuilder::borrow). The class is that of the request's
//! extensions: no header raises it.
//!
//! # Affinity
//!
//! Requests with the same [`AffinityKey`](forebay_core::AffinityKey) in their extensions go to the same endpoint, by
//! weighted rendezvous hashing, as long as that has no more than 1.25 times its share; then to the next. [`affinity`]
//! finds the key: in a header, a JSON field, the beginning of the prompt, or by a function of yours. A request with
//! [`PrefixBlocks`](affinity::PrefixBlocks) in its extensions, which the layer sets where it looks at prompts, goes to the
//! endpoint that was sent the longest part of the same prompt, in the same bound. With [`Pin`] a key stays where its first
//! request went, at one endpoint or one group of GPUs, for as long as it has requests and a while after: for batches.
//!
//! # Endpoints that come and go
//!
//! [`Balance::insert`], [`remove`](Balance::remove) and [`replace`](Balance::replace) change them live, and so do streams
//! of [`Change`]s, DNS names ([`Dns`]) and tower's `Discover`. What is in flight stays where it is to its end.
//!
//! Discovery, checks and probes run in the background, in one [`Driver`]: `build` spawns it on the current tokio runtime,
//! and [`build_parts`](BalanceBuilder::build_parts) hands it out.
//!
//! # What is refused, and what fails
//!
//! All endpoints full, or what they have free is reserved, and the wait was in vain: 429 `at-capacity`. None takes
//! requests: 503 `no-endpoint`. The `Deadline` in the request extensions passed before the head: 504, and the upstream is
//! dropped. An upstream that gives no answer is the service's error; `into_infallible` makes it a 502 or 504.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `client` | `Balance::http()`: an HTTP/1.1 and HTTP/2 client as the endpoints; health checks, probes, DNS |
//! | `metrics` | numbers for the `metrics` facade: `metrics::describe`, [`BalanceHandle`]`::record` |
//! | `nvml` | the GPUs of this machine as a load report: `probe::nvml` |
//! | `serde` | `Serialize` and `Deserialize` for [`Outlier`], [`SlowStart`], [`OnFull`], [`Pin`], `HttpCheck` and the like |
//! | `tls` | `https://` endpoints: rustls with ring, the platform's roots or your own, certificates of ours |
//! | `tower` | tower's `Discover` as a source of endpoints |
//!
//! # Limits
//!
//! TLS to the backends looks at no revocation lists. A place reserved is
//! kept for as long as its holder likes, and is not kept if an endpoint is closed or its bound lowered. Where places are
//! without a bound, a reservation says nothing. Affinity looks at every endpoint of the pool: O(endpoints).

pub mod affinity;
mod alarm;
mod builder;
mod capacity;
#[cfg(feature = "client")]
pub mod client;
mod conduct;
mod discover;
mod driver;
mod endpoint;
mod fleet;
pub mod future;
mod gpu;
mod handle;
#[cfg(feature = "client")]
mod health;
mod ledger;
mod members;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(not(feature = "metrics"))]
#[path = "no_metrics.rs"]
mod metrics;
#[cfg(all(test, any(forebay_loom, forebay_shuttle)))]
mod models;
mod options;
mod permit;
mod places;
mod policy;
pub mod probe;
mod rate;
mod redial;
mod service;
mod sync;
mod wait;
mod wakers;

pub use builder::BalanceBuilder;
pub use capacity::Capacity;
#[cfg(feature = "client")]
pub use client::{Dns, HttpBalance, HttpEndpoint};
pub use discover::Change;
pub use driver::Driver;
pub use endpoint::{Endpoint, EndpointId};
pub use fleet::{Ask, Fleet, Pick, PickError};
pub use future::Picked;
pub use gpu::GpuTable;
pub use handle::{BalanceHandle, EndpointSnapshot, PoolSnapshot};
#[cfg(feature = "client")]
pub use health::HttpCheck;
pub use permit::Permit;
pub use places::PlacesWatch;
pub use policy::{EndpointState, Offset, Outlier, PickReason, Pin, Policy, SlowStart};
#[cfg(feature = "client")]
pub use probe::MetricsProbe;
pub use redial::{NoRedial, Redial, RedialMode, RedialPolicy, Undispatched};
pub use service::{Balance, BalanceBody};
pub use wait::OnFull;
