use std::fmt;
use std::io;
use std::sync::{Arc, LazyLock};

use forebay_core::BoxError;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WantsClientCert;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, AlertDescription, ClientConfig, ConfigBuilder, RootCertStore};

use crate::client::error::Kind;
use crate::client::url::HttpUrl;
use crate::endpoint::Endpoint;

/// Whom an `https://` endpoint must convince, and as whom we come to it.
///
/// Its certificate must be valid for the host of the URL, also where the address comes from [`Dns`](crate::Dns), and be
/// issued by one of the roots. There is no way to switch that off: for a private authority, give its root.
///
/// The default roots are the platform's (`SSL_CERT_FILE` and `SSL_CERT_DIR` count), not a list compiled in: a private
/// authority that was installed on the machine is trusted, and one that was removed is not. They are read once a process,
/// when the first endpoint with them is built.
///
/// TLS 1.3 or 1.2. With [`http2`](Endpoint::http2) the server is asked for HTTP/2 by ALPN and must agree; otherwise for
/// HTTP/1.1. What fails before a session stands, within the connect timeout, has sent no request: it goes to another
/// endpoint. In TLS 1.3 a server looks at our certificate only after that, and its refusal is an error like any other.
/// A body that ends with the connection is whole only if the server closed the session in order (`close_notify`).
///
/// ```no_run
/// use forebay_balance::client::TlsConfig;
/// use forebay_balance::{Balance, Endpoint};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tls = TlsConfig::with_root_pem(std::fs::read("/etc/models/ca.pem")?).platform_roots(false);
/// let balance = Balance::http().endpoint(Endpoint::new("https://models:8443").http2(true).tls(tls)).build()?;
/// # drop(balance);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct TlsConfig {
    platform_roots: bool,
    root_pem: Option<Vec<u8>>,
    client_pem: Option<(Vec<u8>, Vec<u8>)>,
}

impl TlsConfig {
    /// The platform's roots, no certificate of our own.
    pub const fn new() -> Self {
        Self { platform_roots: true, root_pem: None, client_pem: None }
    }

    /// As [`new`](Self::new), and the roots in this PEM, one or more. `build` reports what is no certificate.
    pub fn with_root_pem(pem: impl Into<Vec<u8>>) -> Self {
        Self { root_pem: Some(pem.into()), ..Self::new() }
    }

    /// Whether the platform's roots are trusted. Default: true. Without them there must be others.
    pub const fn platform_roots(mut self, trusted: bool) -> Self {
        self.platform_roots = trusted;
        self
    }

    /// Our own certificate, for servers that ask for one (mTLS): its chain, our certificate first, and its key without a
    /// password, both as PEM. Default: none. `build` reports what cannot be read or does not belong together.
    pub fn client_pem(mut self, chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.client_pem = Some((chain.into(), key.into()));
        self
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, String> {
        let empty = || Arc::new(RootCertStore::empty());
        let mut roots = if self.platform_roots { Arc::clone(&PLATFORM_ROOTS) } else { empty() };
        if let Some(pem) = &self.root_pem {
            let roots = Arc::make_mut(&mut roots);
            for root in certificates("root_pem", pem)? {
                roots.add(root).map_err(|error| format!("root_pem has a certificate that is no root: {error}"))?;
            }
        }
        match (roots.is_empty(), self.platform_roots) {
            (false, _) => Ok(roots),
            (true, true) => Err("platform_roots finds none on this machine: install them, or set root_pem".to_owned()),
            (true, false) => Err("platform_roots is false and root_pem not set: one of them".to_owned()),
        }
    }

    fn client(&self, config: ConfigBuilder<ClientConfig, WantsClientCert>) -> Result<ClientConfig, String> {
        let Some((chain, key)) = &self.client_pem else { return Ok(config.with_no_client_auth()) };
        let chain = certificates("client_pem", chain)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| format!("client_pem has no private key: {error}; PEM, without a password"))?;
        config.with_client_auth_cert(chain, key).map_err(|error| format!("client_pem cannot be used: {error}"))
    }
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig")
            .field("platform_roots", &self.platform_roots)
            .field("root_pem", &self.root_pem.is_some())
            .field("client_pem", &self.client_pem.is_some()) // there is a key in it
            .finish()
    }
}

impl Endpoint<HttpUrl> {
    /// Whom it must convince and as whom we come, for an `https://` URL. Default: [`TlsConfig::new`].
    pub fn tls(mut self, tls: TlsConfig) -> Self {
        self.service.tls = Some(tls);
        self
    }
}

/// TLS sessions with one endpoint.
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// With the server that is called `host`; the error is the end of "endpoint … ".
    pub(crate) fn new(config: Option<&TlsConfig>, host: &str, http2: bool) -> Result<Self, String> {
        let default = TlsConfig::new();
        let config = config.unwrap_or(&default);
        let name = ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']').to_owned())
            .map_err(|_| "has a host that is neither a DNS name nor an address".to_owned())?;
        // The provider is named, as another crate may have switched on a second one.
        let versions = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("tls cannot be used: {error}"))?;
        let built = config.roots().and_then(|roots| config.client(versions.with_root_certificates(roots)));
        let mut config = built.map_err(|problem| format!("tls.{problem}"))?;
        config.alpn_protocols = vec![if http2 { H2.to_vec() } else { b"http/1.1".to_vec() }];
        Ok(Self { config: Arc::new(config), name })
    }

    /// A session over a new connection, in the protocol that was asked for.
    pub(crate) async fn connect(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, (Kind, BoxError)> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(self.name.clone(), stream).await.map_err(|error| {
            tracing::debug!(%error, server = %self.name.to_str(), "no TLS session came about");
            (if is_alpn(&error) { Kind::Alpn } else { Kind::Tls }, error.into())
        })?;
        let asked = self.config.alpn_protocols.iter().any(|asked| asked == H2);
        if asked && stream.get_ref().1.alpn_protocol() != Some(H2) {
            return Err((Kind::Alpn, "the server did not answer h2 by ALPN".into()));
        }
        Ok(stream)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The name of HTTP/2 over TLS in ALPN.
const H2: &[u8] = b"h2";

/// Those that cannot be read are left out, as elsewhere: stores have old ones.
static PLATFORM_ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some of the platform's root certificates cannot be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    Arc::new(roots)
});

fn certificates(field: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(format!("{field} has no certificate: PEM, at least one")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("{field} is no PEM: {error}")),
    }
}

/// Whether the server refused the HTTP version that we asked for.
fn is_alpn(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref());
    matches!(error, Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)))
}
