//! The test kit for layers, for dev-dependencies: a contract probe, scripted bodies, and a knife for futures.
//!
//! ```
//! use forebay_core::testing::{Scripted, Spy, Step};
//! use http::{Request, Response};
//! use std::convert::Infallible;
//!
//! #[derive(Clone)]
//! struct Streams;
//! impl tower_service::Service<Request<()>> for Streams {
//!     type Response = Response<Scripted>;
//!     type Error = Infallible;
//!     type Future = std::future::Ready<Result<Self::Response, Infallible>>;
//!     fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
//!         std::task::Poll::Ready(Ok(()))
//!     }
//!     fn call(&mut self, _: Request<()>) -> Self::Future {
//!         std::future::ready(Ok(Response::new(Scripted::new(vec![Step::Data("hello".into())]))))
//!     }
//! }
//!
//! let (spy, seen) = Spy::new(Streams); // put `spy` behind the layer under test …
//! drop(spy.clone());
//! assert_eq!(seen.lock().unwrap().clones, 1); // … and ask what it saw
//! ```

mod cut;
mod scripted;
mod spy;

pub use cut::{CutAfter, cut_after};
pub use scripted::{Scripted, Step};
pub use spy::{Seen, Spy, SpyBody, SpyFuture};
