//! A tower layer that answers a repeated HTTP request from a cache: GET by RFC 9111, and questions in JSON (chat,
//! completions, embeddings) by explicit opt-in, without holding back a stream.
//!
//! # When, and when not
//!
//! For services that want a standards-true HTTP cache, and for LLM gateways that want repeated prompts answered without
//! GPU time. In chat traces one prompt in a hundred repeats whole; the gain is in FAQ, embedding, templated and retry
//! traffic. Answers that ought to differ each time do not belong here.
//!
//! # The smallest example
//!
//! ```
//! # #[cfg(feature = "moka")] {
//! use axum::{Json, Router, routing::post};
//! use forebay_cache::{CacheLayer, JsonRoute};
//!
//! # async fn chat() -> Json<()> { Json(()) }
//! let cache = CacheLayer::builder().json(JsonRoute::openai_chat("/v1/chat/completions")).build()?;
//! let app: Router = Router::new().route("/v1/chat/completions", post(chat)).layer(cache);
//! # }
//! # Ok::<(), forebay_core::ConfigError>(())
//! ```
//!
//! # A customised one
//!
//! The layer stands inside the one that authenticates, which sets [`Principal`](forebay_core::Principal): each tenant has
//! its own answers. Without it JSON answers belong to whoever sends the same credentials.
//!
//! ```
//! # #[cfg(feature = "moka")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use axum::{Router, body::Body, routing::get};
//! use forebay_cache::{CacheLayer, CacheStatus, JsonRoute};
//! use http::Request;
//! use http_body_util::BodyExt as _;
//! use tower::ServiceExt as _;
//!
//! let (cache, handle) = CacheLayer::builder()
//!     .name("gw")
//!     .secret("a secret of all processes")
//!     .max_bytes(1 << 30)
//!     .json(JsonRoute::openai_chat("/v1/chat/completions").fresh_for(Duration::from_secs(600)))
//!     .json(JsonRoute::openai_embeddings("/v1/embeddings"))
//!     .build_with_handle()?;
//! let models = || async { ([("cache-control", "max-age=60")], "[]") };
//! let app: Router = Router::new().route("/v1/models", get(models)).layer(cache);
//!
//! let ask = || Request::get("/v1/models").body(Body::empty());
//! let miss = app.clone().oneshot(ask()?).await?;
//! assert_eq!(miss.headers()["cache-status"], "gw; fwd=uri-miss; stored");
//! miss.into_body().collect().await?; // stored when it has ended
//! let hit = app.oneshot(ask()?).await?;
//! assert_eq!(hit.headers()["age"], "0");
//! assert!(hit.extensions().get::<CacheStatus>().is_some_and(|status| status.hit.is_some()));
//! assert_eq!((handle.snapshot().hits, handle.snapshot().misses), (1, 1));
//! # Ok(()) }
//! # #[cfg(not(feature = "moka"))] fn main() {}
//! ```
//!
//! # What is stored
//!
//! - **GET**: a 200 that RFC 9111 lets a shared cache keep, for as long as it says; there is no default lifetime. An
//!   answer to `Authorization`, `Cookie`, or with `Set-Cookie` needs `public` or `s-maxage`. HEAD is served from a GET
//!   entry. Unsafe methods drop what is stored of their URI, for all partitions. Requests for ranges, and conditional
//!   ones, pass. `Vary` is followed, up to 16 fields.
//! - **JSON**: the answer to a POST of a [`JsonRoute`] that is deterministic (`temperature` 0 or an integer `seed`, unless
//!   [`allow_sampled`](JsonRoute::allow_sampled)). The key is the [canonical](canon) body, less `user`, `metadata`,
//!   `store`, `service_tier` and `prompt_cache_key`; unknown members count. Only complete answers are stored: each choice
//!   ended with `stop`, a stream with `[DONE]`, and no error event. An ambiguous, compressed or large (over 1 MiB) body
//!   passes as it is.
//!
//! # Streaming, cancellation, overload
//!
//! A miss passes each frame on as it comes and records it on the way; a hit gives the same frames in a burst. A client
//! that leaves early, a body that fails or is cut short, and answers over `max_entry` or 65,536 frames store nothing. Refusals
//! ([`Rejection`](forebay_core::Rejection)) and all but 200 are never stored. `Set-Cookie`, `x-request-id` and
//! `x-ratelimit-*` are not repeated. A request body that breaks off while it is read is answered with 400 here.
//!
//! Each response says what happened in `Cache-Status` (RFC 9211) and as [`CacheStatus`] in its extensions; `stored` at
//! its head means that it is being recorded. gRPC, upgrades and CONNECT pass untouched.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `moka` | [`MokaStore`], the memory that [`CacheLayer::builder`] starts with |
//!
//! # Limits
//!
//! Not here yet: one fill for a crowd (each miss goes to the backend), stale answers and revalidation, own 304 and 206,
//! targeted fields (`CDN-Cache-Control`: such answers are not stored), Redis and edge tiers, the GET twin of JSON answers,
//! LRU-K and adaptive eviction, similar inputs, warming, purge by key or tag, quotas of tenants, metrics, `serde`. A
//! request body on a JSON route is read without a timeout; request trailers on it that no `Trailer` announces are
//! dropped. HTTP/1.1 over TLS names no scheme, so its entries are those of `http`.

mod config;
mod entry;
mod handle;
mod layer;
mod memory;
#[cfg(feature = "moka")]
mod moka;
mod policy;
mod service;
mod shared;
mod status;

pub mod body;
pub mod canon;
pub mod future;

#[cfg(feature = "moka")]
pub use self::moka::MokaStore;
pub use config::{CacheBuilder, JsonRoute};
pub use entry::Entry;
pub use handle::{CacheHandle, CacheSnapshot};
pub use layer::CacheLayer;
pub use memory::Memory;
pub use policy::key::Key;
pub use service::Cache;
pub use status::{CacheStatus, Forward, Hit};
