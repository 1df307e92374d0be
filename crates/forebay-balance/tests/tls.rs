//! TLS to the endpoints, against real servers: whom we trust, what a failed handshake costs, and that sessions are kept
//! and closed like plain connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use axum::serve::Listener;
use bytes::Bytes;
use forebay_balance::client::{HttpError, HttpUrl, TlsConfig};
use forebay_balance::{Balance, Dns, Endpoint, HttpBalance, MetricsProbe};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::{ServerConfig, WebPkiClientVerifier};
use tokio_rustls::rustls::{DEFAULT_VERSIONS, RootCertStore, SupportedProtocolVersion, version::TLS12};
use tokio_rustls::server::TlsStream;
use tower::ServiceExt as _;

/// Long enough for a slow machine; a test that needs it fails.
const LONG: Duration = Duration::from_secs(20);

/// An authority of a test's own.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

impl Authority {
    fn new() -> Self {
        Self::named("the test's authority")
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a root");
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate for a name, valid to the end of a year, and its key.
    fn issue(&self, name: &str, until: i32) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.not_after = date_time_ymd(until, 12, 31);
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.issuer).expect("a certificate"), key)
    }

    fn trusted(&self) -> TlsConfig {
        TlsConfig::with_root_pem(self.certificate.pem()).platform_roots(false)
    }

    /// A server's side: for a name, valid to the end of a year, with these protocols by ALPN, for everybody.
    fn server(&self, name: &str, until: i32, alpn: &[&str]) -> ServerConfig {
        let (certificate, key) = self.issue(name, until);
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("they belong together");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }

    /// As [`server`](Self::server), for those only who have a certificate of this authority.
    fn server_for_known(&self, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).expect("a root");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
        let (certificate, key) = self.issue("localhost", 2999);
        ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("ring has them")
            .with_client_cert_verifier(verifier.expect("a root"))
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
            )
            .expect("they belong together")
    }
}

/// Accepts TLS connections; those whose handshake fails are dropped.
struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    accepted: Arc<AtomicUsize>,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, from) = self.listener.accept().await.expect("listening");
            if let Ok(stream) = self.acceptor.accept(stream).await {
                self.accepted.fetch_add(1, SeqCst);
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A server that says which HTTP version was spoken.
struct Server {
    port: u16,
    /// Sessions that came about.
    accepted: Arc<AtomicUsize>,
    served: Arc<AtomicUsize>,
}

impl Server {
    async fn start(config: ServerConfig) -> Self {
        let (tls, port) = listen(config).await;
        let (accepted, served) = (Arc::clone(&tls.accepted), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&served);
        let app = axum::Router::new().fallback(move |request: Request<axum::body::Body>| async move {
            count.fetch_add(1, SeqCst);
            format!("{:?} {}", request.version(), request.uri().scheme_str().unwrap_or("none"))
        });
        tokio::spawn(async move { axum::serve(tls, app).await });
        Self { port, accepted, served }
    }

    fn endpoint(&self) -> Endpoint<HttpUrl> {
        Endpoint::new(format!("https://localhost:{}", self.port))
    }

    fn served(&self) -> usize {
        self.served.load(SeqCst)
    }
}

async fn listen(config: ServerConfig) -> (Tls, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    (Tls { listener, acceptor: Arc::new(config).into(), accepted: Arc::default() }, port)
}

async fn read_head(stream: &mut TlsStream<TcpStream>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
}

fn balance(endpoints: impl IntoIterator<Item = Endpoint<HttpUrl>>) -> HttpBalance {
    let builder = Balance::http().connect_timeout(LONG);
    endpoints.into_iter().fold(builder, |builder, endpoint| builder.endpoint(endpoint)).build().expect("valid")
}

fn get() -> Request<Full<Bytes>> {
    Request::get("/").body(Full::default()).expect("valid")
}

async fn text<B: http_body::Body<Data = Bytes>>(response: Response<B>) -> String
where
    B::Error: std::fmt::Debug,
{
    let bytes = response.into_body().collect().await.expect("a whole body").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// That the bad endpoint costs nothing beside a good one, and what the error is without one.
async fn goes_elsewhere(authority: &Authority, bad: Endpoint<HttpUrl>) -> HttpError {
    let good = Server::start(authority.server("localhost", 2999, &[])).await;
    let both = balance([bad.clone().weight(9), good.endpoint().tls(authority.trusted())]);
    assert_eq!(text(both.oneshot(get()).await.expect("served")).await, "HTTP/1.1 none");
    assert_eq!(good.served(), 1);
    let alone = balance([bad]);
    let error = alone.clone().oneshot(get()).await.expect_err("nobody else");
    assert!(error.is_connect(), "{error:?}");
    let problem = alone.into_infallible().oneshot(get()).await.expect("infallible");
    assert_eq!(problem.status(), 502);
    let problem = text(problem).await;
    assert!(!problem.contains("localhost") && !problem.contains("127.0.0.1"), "{problem}");
    error
}

#[tokio::test]
async fn both_protocols_are_agreed_by_alpn_and_sessions_are_kept() {
    let authority = Authority::new();
    let server = Server::start(authority.server("localhost", 2999, &["h2", "http/1.1"])).await;
    for (http2, expected) in [(false, "HTTP/1.1 none"), (true, "HTTP/2.0 https")] {
        let before = server.accepted.load(SeqCst);
        let balance = balance([server.endpoint().http2(http2).tls(authority.trusted())]);
        for _ in 0..10 {
            assert_eq!(text(balance.clone().oneshot(get()).await.expect("served")).await, expected);
        }
        assert_eq!(server.accepted.load(SeqCst) - before, 1, "one session for all");
    }
}

#[tokio::test]
async fn http2_without_an_agreement_is_an_error_that_says_so() {
    let authority = Authority::new();
    for alpn in [&[] as &[&str], &["http/1.1"]] {
        let server = Server::start(authority.server("localhost", 2999, alpn)).await;
        let error = goes_elsewhere(&authority, server.endpoint().http2(true).tls(authority.trusted())).await;
        assert!(error.to_string().contains("HTTP version"), "{error}");
        assert_eq!(server.served(), 0);
    }
}

#[tokio::test]
async fn an_unknown_authority_a_wrong_name_and_an_old_certificate_get_no_request() {
    let (authority, stranger) = (Authority::new(), Authority::named("a stranger"));
    for (issuer, name, until) in
        [(&stranger, "localhost", 2999), (&authority, "other.example", 2999), (&authority, "localhost", 2020)]
    {
        let server = Server::start(issuer.server(name, until, &[])).await;
        let error = goes_elsewhere(&authority, server.endpoint().tls(authority.trusted())).await;
        assert!(error.to_string().contains("TLS"), "{error}");
        assert_eq!(server.served(), 0, "{name} {until}");
    }
    let impostor = Authority::new(); // of the same name
    let server = Server::start(impostor.server("localhost", 2999, &[])).await;
    let own_beside_platform = TlsConfig::with_root_pem(authority.certificate.pem());
    goes_elsewhere(&authority, server.endpoint().tls(own_beside_platform)).await;
    assert_eq!(server.served(), 0);
}

#[tokio::test]
async fn a_server_without_tls_gets_no_request() {
    let authority = Authority::new();
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let app = axum::Router::new().fallback(move || async move { count.fetch_add(1, SeqCst).to_string() });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let endpoint = Endpoint::new(format!("https://localhost:{port}")).tls(authority.trusted());
    goes_elsewhere(&authority, endpoint).await;
    assert_eq!(served.load(SeqCst), 0);
}

#[tokio::test]
async fn a_server_that_never_answers_the_handshake_is_a_504() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port"); // the kernel accepts, nobody reads
    let port = listener.local_addr().expect("bound").port();
    let endpoint = Endpoint::new(format!("https://127.0.0.1:{port}")).tls(Authority::new().trusted());
    let balance = Balance::http().connect_timeout(Duration::from_millis(50)).endpoint(endpoint).build();
    let balance = balance.expect("valid");
    let error = balance.clone().oneshot(get()).await.expect_err("too late");
    assert!(error.is_connect() && error.is_timeout());
    assert_eq!(balance.into_infallible().oneshot(get()).await.expect("infallible").status(), 504);
}

#[tokio::test]
async fn the_name_of_the_url_is_checked_where_the_address_comes_from_dns() {
    let authority = Authority::new();
    let server = Server::start(authority.server("localhost", 2999, &[])).await; // not for 127.0.0.1
    let exporter = Server::start(authority.server("localhost", 2999, &[])).await;
    let (balance, handle) = Balance::http()
        .connect_timeout(LONG)
        .discover(Dns::of(server.endpoint().tls(authority.trusted())))
        .probe(MetricsProbe::vllm("/metrics").at(format!("https://{{host}}:{}", exporter.port)).timeout(LONG))
        .build_with_handle()
        .expect("valid");
    timeout(LONG, async {
        let found = || handle.snapshot().iter().any(|endpoint| endpoint.id.as_str().contains(" at 127.0.0.1:"));
        while !found() || exporter.served() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("localhost has an address, and the server beside it is asked with the same name and roots");
    assert_eq!(text(balance.oneshot(get()).await.expect("served")).await, "HTTP/1.1 none");
    let by_address = format!("https://127.0.0.1:{}", server.port);
    goes_elsewhere(&authority, Endpoint::new(by_address).tls(authority.trusted())).await;
    assert_eq!(server.served(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_mid_stream_closes_the_session() {
    let authority = Authority::new();
    let (mut listener, port) = listen(authority.server("localhost", 2999, &[])).await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await;
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n").await.expect("sent");
        stream.flush().await.expect("sent");
        stream.read_u8().await.is_err() // once the other side is gone
    });
    let balance = balance([Endpoint::new(format!("https://localhost:{port}")).tls(authority.trusted())]);
    let mut body = balance.clone().oneshot(get()).await.expect("a head").into_body();
    body.frame().await.expect("a frame").expect("data");
    assert_eq!(balance.handle().snapshot()[0].in_flight, 1);
    drop(body);
    assert!(timeout(LONG, server).await.expect("it is closed").expect("no panic"));
    assert_eq!(balance.handle().snapshot()[0].cancelled, 1);
}

#[tokio::test]
async fn a_client_that_leaves_during_the_handshake_closes_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    for http2 in [false, true] {
        let endpoint = Endpoint::new(format!("https://127.0.0.1:{port}")).http2(http2).tls(Authority::new().trusted());
        let balance = balance([endpoint]);
        let call = tokio::spawn(balance.clone().oneshot(get()));
        let (mut stream, _) = listener.accept().await.expect("listening");
        stream.read_u8().await.expect("the first byte of a handshake");
        call.abort();
        let end = timeout(LONG, stream.read_to_end(&mut Vec::new())).await;
        end.expect("it is closed").expect("in order");
        assert_eq!(balance.handle().snapshot()[0].in_flight, 0);
    }
}

#[tokio::test]
async fn a_body_without_a_length_is_whole_only_if_the_session_was_closed_in_order() {
    let authority = Authority::new();
    for in_order in [true, false] {
        let (mut listener, port) = listen(authority.server("localhost", 2999, &[])).await;
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await;
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nbody").await.expect("sent");
            if in_order { stream.shutdown().await } else { stream.flush().await }.expect("sent");
        });
        let balance = balance([Endpoint::new(format!("https://localhost:{port}")).tls(authority.trusted())]);
        let body = balance.oneshot(get()).await.expect("a head").into_body();
        assert_eq!(body.collect().await.is_ok(), in_order, "anybody can close a TCP connection");
    }
}

#[tokio::test]
async fn a_server_that_asks_for_our_certificate_gets_it() {
    let authority = Authority::new();
    for versions in [DEFAULT_VERSIONS, &[&TLS12]] {
        let server = Server::start(authority.server_for_known(versions)).await;
        let (certificate, key) = authority.issue("client.example", 2999);
        let known = authority.trusted().client_pem(certificate.pem(), key.serialize_pem());
        let known = balance([server.endpoint().tls(known)]);
        assert_eq!(text(known.oneshot(get()).await.expect("served")).await, "HTTP/1.1 none");
        let unknown = balance([server.endpoint().tls(authority.trusted())]);
        assert_eq!(unknown.into_infallible().oneshot(get()).await.expect("infallible").status(), 502);
        assert_eq!(server.served(), 1);
    }
    let server = Server::start(authority.server_for_known(&[&TLS12])).await;
    goes_elsewhere(&authority, server.endpoint().tls(authority.trusted())).await;
}

#[test]
fn what_cannot_be_used_is_named_at_build() {
    let authority = Authority::new();
    let pem = || authority.certificate.pem();
    let other_key = KeyPair::generate().expect("a key").serialize_pem();
    let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    let no_root = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let bad = [
        ("https://a", TlsConfig::with_root_pem("no PEM"), "tls.root_pem"),
        ("https://b", TlsConfig::with_root_pem(broken), "tls.root_pem"),
        ("https://c", TlsConfig::with_root_pem(no_root), "tls.root_pem"),
        ("https://d", TlsConfig::with_root_pem(pem()).client_pem("", other_key.as_str()), "tls.client_pem"),
        ("https://e", TlsConfig::with_root_pem(pem()).client_pem(pem(), "no key"), "tls.client_pem"),
        ("https://f", TlsConfig::with_root_pem(pem()).client_pem(pem(), other_key.as_str()), "tls.client_pem"),
        ("https://g", TlsConfig::new().platform_roots(false), "tls.platform_roots"),
        ("https://h..i", TlsConfig::with_root_pem(pem()), "host"),
        ("http://j", TlsConfig::with_root_pem(pem()), "tls"),
    ];
    let builder = bad
        .iter()
        .fold(Balance::http(), |builder, (url, tls, _)| builder.endpoint(Endpoint::new(url).tls(tls.clone())));
    let error = builder.build().expect_err("nine problems");
    assert_eq!(error.problems().len(), bad.len(), "{error}");
    for ((url, _, named), problem) in bad.iter().zip(error.problems()) {
        assert!(problem.contains(url) && problem.contains(named), "{problem}");
    }
    let secret = format!("{:?}", TlsConfig::new().client_pem(pem(), other_key.as_str()));
    assert!(!secret.contains("PRIVATE") && secret.contains("client_pem: true"), "{secret}");
}
