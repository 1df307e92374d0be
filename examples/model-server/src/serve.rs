//! Accepts connections, HTTP/1.1 and HTTP/2 without TLS alike.

use std::{io, sync::Arc, time::Duration};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{Config, Handle, engine::Engine, routes};

/// Serves connections from `listener` in a task of its own, until `shutdown` is ready or the handle stops it.
///
/// # Errors
///
/// If the listener has no local address.
///
/// # Panics
///
/// Outside a tokio runtime with I/O and time.
pub fn serve(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<Handle> {
    let address = listener.local_addr()?;
    let engine = Arc::new(Engine::new(config, address));
    let (stop, stopping) = watch::channel(false);
    let task = tokio::spawn(accept(listener, Arc::clone(&engine), stopping, shutdown));
    Ok(Handle { address, engine, stop, task })
}

async fn accept(
    listener: TcpListener,
    engine: Arc<Engine>,
    mut stopping: watch::Receiver<bool>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let (drain, draining) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    let mut has_handle = true;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&engine), draining.clone()));
                }
                Err(_) => sleep(Duration::from_millis(20)).await, // out of descriptors, most likely: they come back
            },
            Some(_) = connections.join_next() => {}
            () = &mut shutdown => break,
            changed = stopping.changed(), if has_handle => match changed {
                Ok(()) => break,
                Err(_) => has_handle = false,
            },
        }
    }
    drop(listener);
    drain.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(engine.config.shutdown_grace, all).await.is_err() {
        connections.shutdown().await;
    }
    Ok(())
}

/// Serves one connection. It owns its requests: when the client leaves, hyper drops them.
async fn connection(stream: TcpStream, engine: Arc<Engine>, mut draining: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true); // or small events wait for acknowledgements
    let builder = auto::Builder::new(TokioExecutor::new());
    let service = service_fn(move |request| routes::answer(Arc::clone(&engine), request));
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => return, // broken connections are the client's affair
        _ = draining.wait_for(|drain| *drain) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
