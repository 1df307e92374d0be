use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use forebay_autoscale::{AutoscaleHandle, AutoscaleLayer, Capacity, ScalePolicy, Take};
use forebay_balance::{Balance, BalanceHandle, Endpoint};
use forebay_core::ConfigError;
use forebay_priority::{PriorityConfig, PriorityHandle, PriorityLayer};
use http::StatusCode;
use tokio::net::TcpListener;
use tower::ServiceBuilder;

use crate::auth::{self, Keys};
use crate::config::Config;
use crate::entrance::{Entrance, authenticate, bound, log};
use crate::problem::problem;

/// A gateway: the layers, put together as a configuration says.
#[derive(Debug, Clone)]
pub struct Gateway {
    router: Router,
    priority: PriorityHandle,
    balance: BalanceHandle,
    autoscale: AutoscaleHandle,
    draining: Arc<AtomicBool>,
    drain_timeout: Duration,
}

/// The preset for tenants without a wish; callers may ask for less with this header.
const WISH: &str = "x-priority";

impl Gateway {
    /// Builds all layers.
    ///
    /// # Errors
    ///
    /// Every field that is out of range, of the gateway and then of the first layer that has one.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        config.validate()?;
        let (balance, backends) = config
            .upstreams
            .iter()
            .fold(Balance::http(), |builder, upstream| {
                let endpoint = Endpoint::new(&upstream.url).weight(upstream.weight).http2(upstream.http2);
                builder.endpoint(match upstream.max_concurrency {
                    Some(requests) => endpoint.max_concurrency(requests),
                    None => endpoint,
                })
            })
            .build_with_handle()?;
        let (priority, prio) = PriorityLayer::builder()
            .config(PriorityConfig::four_class(config.priority.limit))
            .classify(auth::tiers(config))
            .wish_header(WISH)
            .build_with_handle()?;
        let replicas = backends.clone();
        let (observe, scale) = AutoscaleLayer::builder()
            .policy(policy(config)?)
            .source("priority", prio.clone(), Take::All)
            .replicas(move |pool| replicas.replicas(pool))
            .build_with_handle()?;
        // A request's way, from the outside in.
        let stack = ServiceBuilder::new().layer(observe).layer(priority).service(balance.into_infallible());

        let draining = Arc::new(AtomicBool::new(false));
        let keys = Keys::new(config);
        let entrance = Arc::new(Entrance {
            keys,
            priority: prio.clone(),
            max_body_bytes: config.max_body_bytes,
            answer_timeout: Duration::from_secs(config.answer_timeout_seconds),
        });
        let ready = State((Arc::clone(&draining), backends.clone()));
        let router = Router::new()
            .route_service("/v1/{*rest}", stack)
            .layer(from_fn_with_state(Arc::clone(&entrance), bound))
            .layer(from_fn_with_state(entrance, authenticate))
            .route_service("/metrics", scale.metrics_service())
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(move || async move { readyz(&ready.0) }))
            .fallback(|| async { problem(StatusCode::NOT_FOUND, "no-route", "there is nothing at this path") });
        let router = if config.access_log { router.layer(from_fn(log)) } else { router };
        let drain_timeout = Duration::from_secs(config.drain_timeout_seconds);
        Ok(Self { router, priority: prio, balance: backends, autoscale: scale, draining, drain_timeout })
    }

    /// The routes, for a server of your own or for a test.
    #[must_use]
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// The handle of the priority layer.
    #[must_use]
    pub const fn priority(&self) -> &PriorityHandle {
        &self.priority
    }

    /// The handle of the balancer.
    #[must_use]
    pub const fn balance(&self) -> &BalanceHandle {
        &self.balance
    }

    /// Serves until `shutdown`, then drains: refuses newcomers, finishes what runs, at most for the drain timeout.
    ///
    /// # Errors
    ///
    /// The listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let ended = move || {
            let mut stopped = stopped.clone();
            async move {
                let _ = stopped.wait_for(|stopped| *stopped).await; // an error: the sender is gone, so it is over too
            }
        };
        let observed = tokio::spawn(self.autoscale.run(ended()));
        let (draining, priority) = (Arc::clone(&self.draining), self.priority.clone());
        let drain = async move {
            shutdown.await;
            draining.store(true, Ordering::Release);
            drop(priority.drain()); // it has begun; its end is seen by the connections
            let _ = stop.send(true);
        };
        let late = async {
            ended().await;
            tokio::time::sleep(self.drain_timeout).await;
        };
        tokio::select! {
            served = axum::serve(listener, self.router.clone()).with_graceful_shutdown(drain).into_future() => served?,
            () = late => tracing::warn!("the drain timeout is over: exchanges that still ran are cut"),
        }
        observed.abort();
        Ok(())
    }
}

/// The scaling policy of a configuration.
pub(crate) fn policy(config: &Config) -> Result<ScalePolicy, ConfigError> {
    let autoscale = &config.autoscale;
    ScalePolicy::builder()
        .replicas(autoscale.min_replicas..=autoscale.max_replicas)
        .capacity(Capacity::slots(autoscale.slots_per_replica))
        .build()
}

fn readyz((draining, backends): &(Arc<AtomicBool>, BalanceHandle)) -> (StatusCode, &'static str) {
    if draining.load(Ordering::Acquire) {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else if backends.replicas("default").is_none_or(|replicas| replicas.ready == 0) {
        (StatusCode::SERVICE_UNAVAILABLE, "no upstream\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}
