//! Requests that belong together, on the same endpoint: sessions, batches, prompts with the same beginning. A model
//! server that has seen the beginning of a prompt has it in its KV cache, and need not compute it again.
//!
//! Two halves that know each other only by what stands in the request extensions. [`AffinityLayer`] finds out what belongs
//! together and says so, by core's [`AffinityKey`](forebay_core::AffinityKey) and [`PrefixBlocks`]. [`rendezvous`],
//! [`bound`] and [`PrefixTable`] say which endpoint that means: pure functions and a table, without a clock.
//!
//! # Finding the key
//!
//! The layer stands outside of all that queues or stores requests, as nothing is read of a body that waits.
//!
//! ```
//! use forebay_balance::affinity::{AffinityLayer, body::Rest};
//! use forebay_core::{AffinityKey, ReqBody};
//! use http::{Request, Response};
//! use http_body_util::{BodyExt as _, Full};
//! use tower::{Layer as _, ServiceExt as _, service_fn};
//!
//! type Body = ReqBody<Rest<Full<bytes::Bytes>>>;
//! async fn answer(request: Request<Body>) -> Result<Response<String>, forebay_core::BoxError> {
//!     assert!(request.extensions().get::<AffinityKey>().is_some());
//!     let body = request.into_body().collect().await?.to_bytes();
//!     assert_eq!(body, r#"{"model":"m","user":"u7"}"#, "as it was sent");
//!     Ok(Response::default())
//! }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), forebay_core::BoxError> {
//! let layer = AffinityLayer::builder().header("x-session-id").session_fields().prompt().build()?;
//! let service = layer.layer(service_fn(answer));
//! let request = Request::post("/v1/chat/completions").header("content-type", "application/json");
//! service.oneshot(request.body(r#"{"model":"m","user":"u7"}"#.into())?).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Of several sources a function of the head ([`key_by`](AffinityLayerBuilder::key_by)) goes before a header, that before a
//! field of the body, and that before the prompt. A key is a hash of the
//! `Principal` in the request extensions, of where the value stands, and of the value: two tenants never share one. It
//! is no secret, as all processes must find the same: a tenant can choose among its own keys, and thereby where its
//! requests go, up to the bound.
//!
//! A prompt is cut into blocks of 2 KiB. The key is the hash of the first *two*: the first alone is often a system prompt
//! that all requests share, so that all would have one key. A prompt of less has no key.
//!
//! # What it does to a body
//!
//! It reads `application/json` (or `+json`) that is not compressed, at most 64 KiB of it, and no further than it needs;
//! a longer body still gives its key if the field or the blocks are in what was read. It hands on a
//! [`ReqBody`](forebay_core::ReqBody), all bytes in order: what was read as one frame, then the rest. Trailers, errors
//! and the length pass as they are.
//!
//! No request fails because of its content. What is no JSON object, is cut in the middle, has bad UTF-8 or is nested
//! more than 64 deep goes on without a key; so does what has not arrived within five seconds. A request that has a key
//! already keeps it, and its body is not read.
//!
//! # Cancellation
//!
//! A request that is dropped while its body is read was never seen inside, and leaves nothing behind.
//!
//! # Which endpoint a key means
//!
//! By rendezvous hashing every key has its own order of the endpoints; the first that is within its
//! [bound](bound::within) gets the request:
//!
//! ```
//! use forebay_balance::affinity::{bound, rendezvous::{Candidate, ranked}};
//! use forebay_core::AffinityKey;
//!
//! let fleet = [Candidate::new("http://10.0.0.1", 3), Candidate::new("http://10.0.0.2", 1)];
//! let in_flight = [16_u64, 0];
//! let key = AffinityKey(42);
//! let fits = |&index: &usize| bound::within(in_flight[index], fleet[index].weight.into(), 4, 16);
//! let mut order = ranked(0, key, &fleet);
//! assert_eq!(order.clone().next(), Some(0));
//! assert_eq!(order.find(fits), Some(1), "the other has 16, which is 1.25 times its share of three quarters of 17");
//! ```
//!
//! Better still is to remember who was sent what, in a [`PrefixTable`]: the balancer does so for requests with
//! [`PrefixBlocks`]. On half an hour of real conversations over eight endpoints 22.5 % of the blocks of prompts were found
//! in a cache so, 19.3 % by the key of two blocks, 6.8 % by load alone (the benchmark `balance_affinity`).

mod blocks;
pub mod body;
pub mod bound;
mod config;
mod find;
pub mod future;
mod key;
mod layer;
pub mod rendezvous;
mod scan;
mod table;
mod text;

pub use blocks::{BLOCK_BYTES, PrefixBlocks};
pub use config::AffinityLayerBuilder;
pub use layer::{Affinity, AffinityHandle, AffinityLayer, AffinitySnapshot};
pub use table::{Matches, PrefixTable};
