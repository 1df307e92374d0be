//! Time that passes only when everybody waits, random numbers that are the same in every run, and a backend that answers
//! with a head after a while and holds its seat until the end of its body.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use forebay_core::BoxError;
use http::{Request, Response};
use http_body::{Body, Frame};
use tokio::time::{Sleep, sleep};

/// Runs `work` in virtual time, on one thread.
///
/// # Panics
///
/// No runtime can be built.
pub fn virtually<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(work)
}

/// Random numbers (Steele, Lea and Flood, OOPSLA 2014: SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Exponential with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// Weibull with this shape and scale.
    pub fn weibull(&mut self, shape: f64, scale: f64) -> f64 {
        scale * self.exponential(1.0).powf(1.0 / shape)
    }

    /// Gamma with this shape and scale (Marsaglia and Tsang, ACM Transactions on Mathematical Software 26, 2000).
    pub fn gamma(&mut self, shape: f64, scale: f64) -> f64 {
        if shape < 1.0 {
            return self.gamma(shape + 1.0, scale) * self.unit().max(f64::MIN_POSITIVE).powf(1.0 / shape);
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            // Box and Muller, 1958.
            let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
            let x = radius * (std::f64::consts::TAU * self.unit()).cos();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && (1.0 - self.unit()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v * scale;
            }
        }
    }

    /// One of four classes, with these shares.
    pub fn class(&mut self, shares: [f64; 4]) -> usize {
        let dice = self.unit();
        (0..3).find(|&class| dice < shares[..=class].iter().sum()).unwrap_or(3)
    }
}

/// How a backend answers one request: a request extension.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// From the grant to the head.
    pub head: Duration,
    /// From the head to the end of the body.
    pub body: Duration,
}

/// Answers as the [`Work`] of the request says.
///
/// # Panics
///
/// The request has none.
pub async fn backend(request: Request<()>) -> Result<Response<LateBody>, Infallible> {
    let work = *request.extensions().get::<Work>().expect("set by the load");
    sleep(work.head).await;
    let body = LateBody { end: Box::pin(sleep(work.body)), done: false, held: None };
    let response = Response::builder().header("content-type", "text/event-stream").body(body);
    Ok(response.expect("a plain head"))
}

/// A body that begins at once and ends late.
#[derive(Debug)]
pub struct LateBody {
    end: Pin<Box<Sleep>>,
    done: bool,
    held: Option<Box<dyn Any + Send>>,
}

impl LateBody {
    /// Nothing at all.
    #[must_use]
    pub fn empty() -> Self {
        Self { end: Box::pin(sleep(Duration::ZERO)), done: true, held: None }
    }

    /// Drops `guard` when the body is dropped.
    #[must_use]
    pub fn holding(mut self, guard: impl Any + Send) -> Self {
        self.held = Some(Box::new(guard));
        self
    }
}

impl Body for LateBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !std::mem::replace(&mut self.done, true) {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"data: first\n\n")))));
        }
        ready!(self.end.as_mut().poll(cx));
        self.held = None;
        Poll::Ready(None)
    }
}
