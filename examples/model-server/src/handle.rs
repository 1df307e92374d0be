//! A running server, from outside.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use tokio::{sync::watch, task::JoinHandle};

use crate::{Config, Faults, Stats, engine::Engine};

/// A running server. Dropping it does not stop the server; [`stop`](Self::stop) or the shutdown future does.
#[derive(Debug)]
pub struct Handle {
    pub(crate) address: SocketAddr,
    pub(crate) engine: Arc<Engine>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) task: JoinHandle<io::Result<()>>,
}

impl Handle {
    /// Returns the address that it listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns `http://` and the address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns its configuration, as it was at the start.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.engine.config
    }

    /// Returns its numbers now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Returns what `/metrics` answers now.
    #[must_use]
    pub fn metrics(&self) -> String {
        crate::metrics::render(&self.engine)
    }

    /// Has other shares of the requests to come go wrong; shares out of range count as the nearest bound.
    pub fn faults(&self, faults: Faults) {
        self.engine.faults.replace(faults);
    }

    /// Changes the share of GPU memory in use, 0 to 1; out of range counts as the nearest bound.
    pub fn memory_pressure(&self, share: f64) {
        let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
        self.engine.memory_pressure.store(share.to_bits(), Relaxed);
    }

    /// Changes the last XID error of the GPU in the metrics; 0 is none.
    pub fn xid(&self, code: u64) {
        self.engine.xid.store(code, Relaxed);
    }

    /// Stops the server: running answers may go on for the grace time, then they are cut.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the server stops, whether or not this is polled to its end.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        let _ = self.task.await; // a panic in it was reported where it happened
    }

    /// Waits until the shutdown future has stopped the server.
    ///
    /// # Errors
    ///
    /// If the server's task panicked.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it leaves the server as it is.
    pub async fn stopped(self) -> io::Result<()> {
        self.task.await.map_err(io::Error::other)?
    }
}
