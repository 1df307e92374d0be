//! Tells an autoscaler how many replicas are needed.
//!
//! [`AutoscaleLayer`] counts the work in front of slow, expensive backends: each request, by class, from its call to the
//! end of its response body. [`AutoscaleHandle`] turns that into a number of replicas and shows both to Prometheus.
//!
//! CPU and the length of a queue are poor signals for such services. A GPU server is busy at 5 % CPU, and an empty queue
//! says nothing about a fleet that is just full. The signal here is **demand = queued + in flight**, and the number of
//! replicas is what serves it at 70 % utilisation. Where a request costs the backends microseconds, CPU will do, and you
//! do not need this crate.
//!
//! # Alone, in axum
//!
//! ```
//! use axum::{Router, body::Body, http::Request, routing::post};
//! use forebay_autoscale::{AutoscaleLayer, Capacity, Format, ScalePolicy};
//! use tower::ServiceExt as _;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (autoscale, handle) = AutoscaleLayer::builder()
//!     .capacity(Capacity::slots(8)) // requests that a replica serves at once
//!     .policy(ScalePolicy::builder().replicas(3..=20).build()?)
//!     .build_with_handle()?;
//! let app: Router = Router::new()
//!     .route("/v1/chat", post(|| async { "hello" }))
//!     .layer(autoscale)
//!     .route_service("/metrics", handle.metrics_service());
//!
//! app.oneshot(Request::post("/v1/chat").body(Body::empty())?).await?;
//! assert!(handle.render(Format::Text).contains(r#"arrived_requests_total{pool="default",class="P2"} 1"#));
//!
//! // Decisions are made once a second in a future of yours; nothing is spawned behind your back.
//! let mut decisions = handle.decision();
//! let ticking = tokio::spawn(handle.run(std::future::pending()));
//! decisions.changed().await?;
//! assert_eq!(decisions.borrow().target, 3);
//! # ticking.abort();
//! # Ok(())
//! # }
//! ```
//!
//! # With layers that queue
//!
//! Layers further in know better what waits and what is served. Attach their handles as sources; the layer's own count
//! is then no demand any more. One source may say what is in flight, or requests would count twice.
//!
//! ```
//! use forebay_autoscale::{AutoscaleLayer, Capacity, DemandSignal, Take};
//! use forebay_core::{Class, ReplicaState};
//!
//! let (queue, jobs) = (DemandSignal::new(), DemandSignal::new()); // stand-ins for two handles
//! let (_layer, handle) = AutoscaleLayer::builder()
//!     .source("priority", queue.clone(), Take::All) // queued and in flight
//!     .source("offload", jobs.clone(), Take::Queued) // a started job is counted by priority
//!     .replicas(|_pool| Some(ReplicaState { ready: 3, starting: 0, current: 3 })) // `None` is unknown, never zero
//!     .capacity(Capacity::slots(8))
//!     .build_with_handle()?;
//! let _waits = queue.arrive(Class::P0, 1);
//! let _stored = jobs.arrive(Class::P3, 1);
//! assert_eq!(handle.demand().total().queued, 2);
//! # Ok::<_, forebay_core::ConfigError>(())
//! ```
//!
//! # Overload, cancellation, streaming
//!
//! The layer refuses nothing and never changes the error of the service inside. A refusal further in (a
//! [`Rejection`](forebay_core::Rejection) in the response extensions) counts as shed and stays in the offered load:
//! refusals order replicas. A cache hit (`Cache-Status`, RFC 9211) or a 202 does not. A dropped future or body counts as
//! cancelled, and the gauges return to zero. A stream counts until its last frame.
//!
//! # Decisions
//!
//! [`ScalePolicy::decide`] is pure. [`Decision::target`] is for Kubernetes, whose manifests carry the rate limits;
//! [`Decision::desired`] has them applied, for whoever starts replicas. Stored work ([`Take::Queued`]) may drain within
//! five minutes and orders fewer seats, by the mean service time that Little's law gives.
//!
//! # Metrics
//!
//! All are `forebay_autoscale_…`: gauges `demand_requests`, `queued_requests`, `in_flight_requests` `{pool, class}`,
//! which sum over gateways; `cluster_demand_requests`, `target_replicas`, `desired_replicas`, `ready_replicas`,
//! `starting_replicas` `{pool}`; counters `arrived_requests_total` `{pool, class}`, `early_requests_total` `{…, kind}`,
//! `shed_requests_total` `{…, reason}`; histogram `request_duration_seconds` `{class, outcome}`. What is unknown is absent.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `manifests` | `manifests::Generator`: HorizontalPodAutoscalers as text |
//!
//! # Limits
//!
//! One pool, `"default"`, and one gateway: `cluster_demand_requests` is the demand of this one. There is no forecast
//! ([`Decision::predicted`] is `None`), no hook for what counts as early, no learned capacity or cold start (so replicas
//! that never get ready are not noticed), no shadow mode, no KEDA scaler, no `external.metrics.k8s.io` API, no exchange
//! between gateways, no replay, no `metrics` facade, no serde. Of the manifests only the two HPAs exist.

mod config;
mod exposition;
pub mod future;
mod handle;
mod layer;
#[cfg(feature = "manifests")]
pub mod manifests;
mod metrics_service;
mod policy;
mod service;
mod signal;
mod ticket;

pub use config::{AutoscaleBuilder, Take};
pub use exposition::Format;
pub use handle::{AutoscaleHandle, Snapshot};
pub use layer::AutoscaleLayer;
pub use metrics_service::MetricsService;
pub use policy::{
    Capacity, ClusterDemand, Decision, DownLimit, PolicyState, ScalePolicy, ScalePolicyBuilder, ScaleReason, Signal,
    Stale, UpLimit,
};
pub use service::Autoscale;
pub use signal::{ClassCounts, DemandSignal, Early};
pub use ticket::Ticket;
