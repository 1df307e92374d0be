use std::fmt;
use std::net::SocketAddr;

use crate::client::endpoint::HttpEndpoint;
use crate::client::timeouts::Timeouts;
use crate::client::tls::TlsConfig;
use crate::endpoint::Endpoint;

impl Endpoint<HttpUrl> {
    /// An endpoint at a URL such as `http://10.0.0.1:8000` or `http://models/base`; its name is that URL. A request's
    /// path and query go behind the path of the URL. `https://` needs the feature `tls`.
    ///
    /// A URL that cannot be used is reported by `build`, together with all other problems.
    pub fn new(url: impl AsRef<str>) -> Self {
        let url = url.as_ref();
        Self::with_service(
            without_secrets(url),
            HttpUrl {
                url: url.to_owned(),
                http2: false,
                preserve_host: false,
                connect_to: None,
                tls: None,
                rows: Vec::new(),
            },
        )
    }

    /// Whether to speak HTTP/2 to it: from the first byte (prior knowledge), or over TLS if the server agrees by ALPN,
    /// and not at all if it does not. Default: HTTP/1.1.
    ///
    /// All requests to it share one connection. A server that bounds the streams of a connection (nginx: 128) works on no
    /// more at once, and the others wait where no order is kept: give it that number as
    /// [`max_concurrency`](Self::max_concurrency).
    pub fn http2(mut self, http2: bool) -> Self {
        self.service.http2 = http2;
        self
    }

    /// Whether it sees the host that the client asked for, as virtual hosts need. Default: the host of its URL.
    pub fn preserve_host(mut self, preserve: bool) -> Self {
        self.service.preserve_host = preserve;
        self
    }

    /// Takes only rows with this value of a label from pages that speak for many endpoints: those of a probe with an
    /// address of its own ([`MetricsProbe::at`](crate::MetricsProbe::at)), such as a GPU exporter beside the servers. Labels
    /// are those of [`Preset::select`](crate::probe::Preset::select), such as `gpu`, `UUID` or `pod`; called again with the
    /// same label, any of the values will do. Default: all rows.
    ///
    /// ```
    /// # use forebay_balance::{Balance, Endpoint, MetricsProbe};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), forebay_core::ConfigError> {
    /// // Two servers of one machine, the second on two GPUs.
    /// let balance = Balance::http()
    ///     .endpoint(Endpoint::new("http://gpus:8000").probe_select("gpu", "0"))
    ///     .endpoint(Endpoint::new("http://gpus:8001").probe_select("gpu", "1").probe_select("gpu", "2"))
    ///     .probe(MetricsProbe::dcgm("http://{host}:9400", "/metrics"))
    ///     .build()?;
    /// # drop(balance);
    /// # Ok(())
    /// # }
    /// ```
    pub fn probe_select(mut self, label: impl Into<String>, value: impl Into<String>) -> Self {
        self.service.rows.push((label.into(), value.into()));
        self
    }

    pub(crate) fn resolve(self, timeouts: Timeouts) -> Result<Endpoint<HttpEndpoint>, String> {
        let service = HttpEndpoint::new(&self.service, timeouts)?;
        Ok(self.map(service))
    }
}

/// Where an HTTP endpoint is, before its URL is checked.
#[derive(Clone)]
pub struct HttpUrl {
    pub(crate) url: String,
    pub(super) http2: bool,
    pub(super) preserve_host: bool,
    /// The address of the URL's host, if it is known; the port is that of the URL.
    pub(crate) connect_to: Option<SocketAddr>,
    pub(crate) tls: Option<TlsConfig>,
    /// Which rows of shared pages are about it: labels and values.
    pub(super) rows: Vec<(String, String)>,
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpUrl").field(&without_secrets(&self.url)).finish()
    }
}

/// A URL as it may be told in errors and logs. Credentials and a query are refused, but may have been meant.
pub(super) fn without_secrets(url: &str) -> String {
    let (before, query) = url.split_once('?').map_or((url, ""), |(before, _)| (before, "?…"));
    let (scheme, rest) = match before.split_once("://") {
        Some((scheme, _)) if !scheme.contains('@') => before.split_at(scheme.len() + 3),
        _ => ("", before),
    };
    let host = rest.rsplit_once('@').map_or_else(|| rest.to_owned(), |(_, host)| format!("…@{host}"));
    format!("{scheme}{host}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_url_has_no_secret() {
        assert!(!format!("{:?}", Endpoint::new("http://user:secret@a/?token=secret")).contains("secret"));
        for (url, told) in [
            ("http://a:8000/base", "http://a:8000/base"),
            ("http://user:secret@a/base?token=secret", "http://…@a/base?…"),
            ("user:se@cret@a", "…@a"),
            ("secret@http://a", "…@http://a"),
            ("http://user:secret@[::1]:80", "http://…@[::1]:80"),
            ("", ""),
        ] {
            assert_eq!(without_secrets(url), told);
        }
    }
}
