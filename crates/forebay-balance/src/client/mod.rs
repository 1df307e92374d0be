//! The HTTP client behind [`Balance::http`](crate::Balance::http): endpoints, their connections, errors.

mod connections;
mod dns;
mod endpoint;
mod error;
mod headers;
mod idle;
mod orca;
mod outgoing;
mod pages;
mod service;
mod timeouts;
#[cfg(feature = "tls")]
mod tls;
mod url;
mod watch;

pub use connections::UpstreamBody;
pub use dns::Dns;
pub use endpoint::{ClientBody, HttpEndpoint, HttpFuture};
pub use error::{AnswerError, HttpError};
pub use service::{Http, HttpBalance, HttpBalanceBuilder, HttpBalanceFuture, Infallible, InfallibleFuture};
#[cfg(feature = "tls")]
pub use tls::TlsConfig;
pub use url::HttpUrl;

/// Without the feature: an `https://` URL is a problem, so that there is no `Tls`.
#[cfg(not(feature = "tls"))]
mod tls {
    use forebay_core::BoxError;
    use tokio::net::TcpStream;

    use crate::client::error::Kind;

    #[derive(Debug, Clone)]
    pub(crate) enum TlsConfig {}

    #[derive(Debug)]
    pub(crate) enum Tls {}

    impl Tls {
        pub(crate) fn new(_: Option<&TlsConfig>, _host: &str, _http2: bool) -> Result<Self, String> {
            Err("is https: switch on the feature `tls` of forebay-balance for TLS, or use http".to_owned())
        }

        pub(crate) async fn connect(&self, _: TcpStream) -> Result<TcpStream, (Kind, BoxError)> {
            match *self {}
        }
    }
}
