//! The clients' connections.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tower::Layer as _;

/// The most requests of one HTTP/2 connection at once.
const STREAMS: u32 = 200;
/// How many bytes of an HTTP/2 request's body may come that nobody has read yet, as while it waits in the queue.
const STREAM_WINDOW: u32 = 128 << 10;
/// Those of a whole connection: so that uploads that wait, of which there are many, keep out no other body. With hyper's
/// default of 1 MiB, one that is less urgent stops all of them.
const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;
/// How long an HTTP/1 client may take for the head of a request, or be idle between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// The longest head of an HTTP/1 request, in bytes, and half of the largest read buffer of a connection. With hyper's
/// default of 408 KiB, a few hundred connections that send bodies take more memory than all that is kept of these bodies.
const MAX_HEAD: usize = 72 << 10;
/// How many bytes of an answer the system takes that it cannot send yet, as the client does not read.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 16 << 10;

/// Serves until `shutdown`, then lets the exchanges that run end.
pub(crate) async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD);
    server
        .http2()
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let running = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_gone(&error) => continue,
            Err(error) => {
                // There are no more files: later, there may be.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true); // each token goes at once
        report_room_early(&stream);
        let service = TowerToHyperService::new(Extension(ConnectInfo(peer)).layer(router.clone()));
        let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = running.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke off");
            }
        });
    }
    drop(listener);
    running.shutdown().await;
}

/// Asks the system to report room for more of an answer once little of it is left to be sent. By default it does so when
/// a third of its send buffer, of up to 4 MiB, has been read: until then a slow client looks like one that has stopped.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn report_room_early(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT);
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
const fn report_room_early(_: &TcpStream) {}

/// Whether the error is that of one connection, which its client has left before it was accepted: nobody else waits for that.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
