//! The HTTP client behind [`Balance::http`](crate::Balance::http): endpoints, their connections, errors.

mod connections;
mod dns;
mod endpoint;
mod error;
mod headers;
mod service;
mod watch;

pub use connections::UpstreamBody;
pub use dns::Dns;
pub use endpoint::{ClientBody, HttpEndpoint, HttpFuture, HttpUrl};
pub use error::HttpError;
pub use service::{Http, HttpBalance, HttpBalanceBuilder, HttpBalanceFuture, Infallible, InfallibleFuture};
