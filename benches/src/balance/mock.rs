use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use http::StatusCode;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::priority::Random;
use crate::virtual_time::LateBody;

/// A backend on a real socket, in this process: works on so many requests at once, lets some more wait, and answers 503
/// to all others at once. `POST /stream` begins an answer at once that would end after a minute.
#[derive(Debug, Clone)]
pub struct Mock {
    /// `127.0.0.1:port`.
    pub address: String,
    /// How many requests it works on at once.
    pub slots: u32,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    seats: Semaphore,
    /// How many may be here, those that wait included.
    room: usize,
    /// How long a request takes on average, and how unequal they are.
    mean: Duration,
    sigma: f64,
    random: Mutex<Random>,
    here: AtomicUsize,
}

impl Mock {
    /// Requests take a lognormal time.
    ///
    /// # Panics
    ///
    /// There is no free port.
    pub async fn start(slots: u32, queue: u32, mean: Duration, sigma: f64) -> Self {
        Self::listen(slots, (slots + queue) as usize, mean, sigma).await
    }

    /// Answers 503 at once, always.
    ///
    /// # Panics
    ///
    /// There is no free port.
    pub async fn broken(slots: u32) -> Self {
        Self::listen(slots, 0, Duration::ZERO, 0.0).await
    }

    async fn listen(slots: u32, room: usize, mean: Duration, sigma: f64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let seats = Semaphore::new(slots as usize);
        let random = Mutex::new(Random::new(u64::from(slots)));
        let inner = Arc::new(Inner { seats, room, mean, sigma, random, here: AtomicUsize::new(0) });
        let app = Router::new().route("/stream", post(stream)).fallback(work).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, slots, inner }
    }

    /// How many requests are here: waiting, worked on or being answered.
    #[must_use]
    pub fn here(&self) -> usize {
        self.inner.here.load(Ordering::Relaxed)
    }
}

/// A request that is here until this is dropped.
struct Here(Arc<Inner>);

impl Here {
    /// `None`: there is no room.
    fn enter(inner: &Arc<Inner>) -> Option<Self> {
        let before = inner.here.fetch_add(1, Ordering::Relaxed);
        let here = Self(Arc::clone(inner));
        (before < inner.room).then_some(here)
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.0.here.fetch_sub(1, Ordering::Relaxed);
    }
}

fn full() -> Response {
    let mut response = Response::new(Body::from("no room"));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

async fn work(State(inner): State<Arc<Inner>>, _: Bytes) -> Response {
    let Some(_here) = Here::enter(&inner) else { return full() };
    let _seat = inner.seats.acquire().await.expect("never closed");
    let times = inner.random.lock().unwrap_or_else(PoisonError::into_inner).lognormal(inner.sigma);
    sleep(inner.mean.mul_f64(times)).await;
    Response::new(Body::from("{\"answer\":\"so that no water goes over the top\"}"))
}

async fn stream(State(inner): State<Arc<Inner>>, _: Bytes) -> Response {
    let Some(here) = Here::enter(&inner) else { return full() };
    Response::new(Body::new(LateBody::lasting(Duration::from_secs(60)).holding(here)))
}
