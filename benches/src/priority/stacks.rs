use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use congestion_limiter::limiter::{DefaultLimiter, Limiter as _, Outcome};
use congestion_limiter::limits::{Aimd, LimitAlgorithm};
use forebay_core::Class;
use forebay_priority::{PriorityConfig, PriorityLayer};
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt as _;
use little_loadshedder::{LoadShedLayer, LoadShedResponse};
use tower::limit::ConcurrencyLimitLayer;
use tower::{Layer, Service, ServiceBuilder, ServiceExt as _};
use tower_resilience_bulkhead::BulkheadLayer;

use super::backend::{Backend, HOLD, SEATS, Spent};

/// Sends a request through a stack: what the backend has spent on its answer, or nothing where it was refused.
pub type Entrance = Box<dyn Fn(Request<()>) -> Pin<Box<dyn Future<Output = Option<Spent>> + Send>>>;

/// Which clock a stack measures by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Tokio's, which can be virtual.
    Tokio,
    /// The system's: it cannot be run in virtual time.
    System,
}

/// Something to put before the backend.
pub struct Stack {
    /// Its name in the tables.
    pub name: &'static str,
    /// Version and settings, as printed.
    pub settings: &'static str,
    /// Its clock.
    pub clock: Clock,
    /// Makes it, within a runtime.
    pub build: fn(&Backend) -> Entrance,
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A clone for each request, as servers do it.
fn through<S, R>(service: S) -> Entrance
where
    S: Service<Request<()>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    R: Body + Send,
    R::Data: Send,
{
    Box::new(move |request| {
        let service = service.clone();
        Box::pin(async move {
            let response = service.oneshot(request).await.ok()?;
            let spent = response.extensions().get::<Spent>().copied()?;
            response.into_body().collect().await.ok()?;
            Some(spent)
        })
    })
}

fn by_class(stacks: [Entrance; 4]) -> Entrance {
    Box::new(move |request| {
        let class = request.extensions().get::<Class>().map_or(3, |class| class.index());
        stacks[class](request)
    })
}

fn bulkheads(backend: &Backend, seats: [usize; 4], wait: [u64; 4]) -> Entrance {
    let one = |class: usize| bulkhead(backend, seats[class], Duration::from_millis(wait[class]));
    by_class([one(0), one(1), one(2), one(3)])
}

fn bulkhead(backend: &Backend, seats: usize, wait: Duration) -> Entrance {
    let layer = BulkheadLayer::builder().max_concurrent_calls(seats).max_wait_duration(wait).build();
    through(layer.expect("valid").layer(backend.clone()))
}

fn congestion<L: LimitAlgorithm + fmt::Debug + Sync + Send + 'static>(backend: &Backend, limit: L) -> Entrance {
    let limiter = Arc::new(DefaultLimiter::new(limit));
    let backend = through(backend.clone());
    Box::new(move |request| {
        let (limiter, answer) = (Arc::clone(&limiter), backend(request));
        Box::pin(async move {
            let token = limiter.try_acquire().await?;
            let spent = answer.await;
            limiter.release(token, Some(Outcome::Success)).await;
            spent
        })
    })
}

/// Ours first; of each peer what did best, at its best-found settings.
#[must_use]
pub fn overload_stacks() -> Vec<Stack> {
    let stack = |name, settings, clock, build| Stack { name, settings, clock, build };
    vec![
        stack("forebay", "PriorityConfig::four_class(50), holds and heads of 50 ms", Clock::Tokio, |backend| {
            let config = PriorityConfig::four_class(SEATS).expected_hold(HOLD).expected_head(HOLD);
            let layer = PriorityLayer::builder().config(config).build_with_handle().expect("valid").0;
            through(layer.layer(backend.clone()))
        }),
        stack("ConcurrencyLimit", "tower 0.5.3, 50", Clock::Tokio, |backend| {
            through(ConcurrencyLimitLayer::new(SEATS).layer(backend.clone()))
        }),
        stack("LoadShed + ConcurrencyLimit", "tower 0.5.3, 50", Clock::Tokio, |backend| {
            through(ServiceBuilder::new().load_shed().concurrency_limit(SEATS).service(backend.clone()))
        }),
        stack("bulkhead, 500 ms", "tower-resilience-bulkhead 0.14, 50, waits 500 ms", Clock::Tokio, |backend| {
            bulkhead(backend, SEATS, Duration::from_millis(500))
        }),
        stack(
            "bulkhead, 430 ms",
            "tower-resilience-bulkhead 0.14, 50, waits 430 ms: as long as P0 can",
            Clock::Tokio,
            |backend| bulkhead(backend, SEATS, Duration::from_millis(430)),
        ),
        stack(
            "bulkheads 5/10/15/20",
            "tower-resilience-bulkhead 0.14, a class each, waits 0.43/0.93/2.93/9.93 s",
            Clock::Tokio,
            |backend| bulkheads(backend, [5, 10, 15, 20], [430, 930, 2930, 9930]),
        ),
        stack("bulkheads 14/12/12/12", "the same, cut so that P0 fits at 2x", Clock::Tokio, |backend| {
            bulkheads(backend, [14, 12, 12, 12], [430, 930, 2930, 9930])
        }),
        stack(
            "congestion-limiter",
            "0.1.0, Aimd from 50, within 10..=200, shed (Gradient panics, Vegas answers less)",
            Clock::Tokio,
            |backend| congestion(backend, Aimd::new(SEATS, 10..=200)),
        ),
        stack(
            "tower-resilience-adaptive",
            "0.14, Gradient2 from 50, within 10..=200, LoadShed before it",
            Clock::System,
            |backend| {
                let builder = tower_resilience_adaptive::Gradient2::builder().initial_limit(SEATS);
                let limit = builder.min_limit(10).max_limit(200).build().expect("valid");
                let layer = tower_resilience_adaptive::AdaptiveLimiterLayer::new(limit);
                through(ServiceBuilder::new().load_shed().layer(layer).service(backend.clone()))
            },
        ),
        stack("tower-acc", "0.1.1, Gradient2 from 50, within 10..=200, LoadShed before it", Clock::System, |backend| {
            let limit = tower_acc::Gradient2::builder().initial_limit(SEATS).min_limit(10).max_limit(200).build();
            let layer = tower_acc::ConcurrencyLimitLayer::new(limit);
            through(ServiceBuilder::new().load_shed().layer(layer).service(backend.clone()))
        }),
        stack("little-loadshedder", "0.2.0, target 400 ms, weight 0.1", Clock::System, |backend| {
            let service = LoadShedLayer::new(0.1, Duration::from_millis(400)).layer(backend.clone());
            through(service.map_response(|answer| match answer {
                LoadShedResponse::Inner(response) => response,
                LoadShedResponse::Overload => Response::default(),
            }))
        }),
    ]
}
