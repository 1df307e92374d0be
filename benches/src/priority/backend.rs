use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tower::Service;

use super::Random;

/// How many requests the backend works on at once; the rest wait in its own queue, first come, first served.
pub const SEATS: usize = 50;
/// How long it takes for one, on average.
pub const HOLD: Duration = Duration::from_millis(50);

/// An extension of requests: how long the backend takes for this one.
#[derive(Debug, Clone, Copy)]
pub struct Hold(pub Duration);

impl Hold {
    /// [`HOLD`], a fifth more or less, in whole milliseconds: tokio's timer has no finer ones.
    pub const fn random(random: &mut Random) -> Self {
        Self(Duration::from_millis(40 + random.bits() % 21))
    }
}

/// An extension of responses: the time that the backend has spent on it.
#[derive(Debug, Clone, Copy)]
pub struct Spent(pub Duration);

/// Answers 1000 requests a second at most, whatever is asked of it.
#[derive(Debug, Clone)]
pub struct Backend {
    seats: Arc<Semaphore>,
    spent: Arc<AtomicU64>,
}

impl Default for Backend {
    fn default() -> Self {
        Self { seats: Arc::new(Semaphore::new(SEATS)), spent: Arc::default() }
    }
}

impl Backend {
    /// All the time that it has spent on requests, those included that were cut off.
    #[must_use]
    pub fn spent(&self) -> Duration {
        Duration::from_nanos(self.spent.load(Ordering::Relaxed))
    }
}

struct Busy {
    since: Instant,
    spent: Arc<AtomicU64>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.spent.fetch_add(self.since.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Service<Request<()>> for Backend {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let (seats, spent) = (Arc::clone(&self.seats), Arc::clone(&self.spent));
        let hold = request.extensions().get::<Hold>().map_or(HOLD, |hold| hold.0);
        Box::pin(async move {
            let _seat = seats.acquire_owned().await.expect("never closed");
            let busy = Busy { since: Instant::now(), spent };
            sleep(hold).await;
            let mut response = Response::new(Full::new(Bytes::from_static(b"done")));
            response.extensions_mut().insert(Spent(busy.since.elapsed()));
            Ok(response)
        })
    }
}
