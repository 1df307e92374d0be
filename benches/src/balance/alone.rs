use std::net::SocketAddr;
use std::process::Command;

use axum::serve::ListenerExt as _;
use forebay_balance::{Balance, Endpoint};
use tokio::net::TcpListener;

use crate::Server;

const ALONE: &str = "--balancer-alone";

/// Starts this very program again as nothing but `Balance::http()` behind axum, over `backends` (address, weight). It
/// must call [`serve_if_told`] before all else.
///
/// # Panics
///
/// It cannot be started.
#[must_use]
pub fn balancer(backends: &[(String, u32)]) -> Server {
    let program = std::env::current_exe().expect("this program");
    let backends = backends.iter().map(|(address, weight)| format!("{address}={weight}"));
    Server::start(Command::new(program).arg(ALONE).args(backends))
}

/// Where this program was started by [`balancer`]: serves, for ever.
///
/// # Panics
///
/// There is no free port, or the arguments are not those of [`balancer`].
pub async fn serve_if_told() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(ALONE) {
        return;
    }
    let builder = arguments.fold(Balance::http(), |builder, backend| {
        let (address, weight) = backend.split_once('=').expect("address=weight");
        let endpoint = Endpoint::new(format!("http://{address}")).weight(weight.parse().expect("a weight"));
        builder.endpoint(endpoint)
    });
    let app = axum::Router::new().fallback_service(builder.build().expect("valid").into_infallible());
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
    println!("http://{}", listener.local_addr().expect("bound"));
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("a connection")); // as the other proxies
    axum::serve(listener, app).await.expect("serves for ever");
}
