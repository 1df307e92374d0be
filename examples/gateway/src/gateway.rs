use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use forebay_autoscale::{AutoscaleHandle, AutoscaleLayer, Capacity, ScalePolicy, Take};
use forebay_balance::BalanceHandle;
use forebay_cache::{CacheLayer, JsonRoute};
use forebay_core::{Class, ConfigError, Reason};
use forebay_offload::policy::JobClass;
use forebay_offload::redb::RedbStore;
use forebay_offload::{JobQueue, JobRouter, OffloadLayer, Worker};
use forebay_priority::{ByHeader, PriorityHandle, PriorityLayer};
use http::StatusCode;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tower::ServiceBuilder;

use crate::auth::{self, Keys};
use crate::config::{Config, Preset};
use crate::entrance::{Budget, Collector, Entrance, Refused, enter, log};
use crate::problem::problem;
use crate::server;
use crate::upstreams::{self, Upstreams};

/// A gateway: the layers, put together as a configuration says.
#[derive(Debug, Clone)]
pub struct Gateway {
    router: Router,
    priority: PriorityHandle,
    balance: BalanceHandle,
    upstreams: Upstreams,
    autoscale: AutoscaleHandle,
    jobs: Arc<Jobs>,
    draining: Arc<AtomicBool>,
    drain_timeout: Duration,
    /// The limit is that of the upstreams, also after a reload.
    follows: bool,
    uploads: Arc<Budget>,
    refused: Arc<Refused>,
}

/// The job worker, and how to end it.
#[derive(Debug)]
struct Jobs {
    stop: watch::Sender<bool>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

/// The header in which callers may ask for a less urgent class.
const WISH: &str = "x-priority";

impl Gateway {
    /// Builds all layers, opens the job file and starts the job worker, which ends with the last clone of the gateway.
    ///
    /// # Errors
    ///
    /// Every field that is out of range, of the gateway and then of the first layer that has one; or the job file
    /// cannot be opened.
    pub async fn new(config: &Config) -> Result<Self, ConfigError> {
        config.validate()?;
        let (upstreams, balance, backends) = Upstreams::new(config)?;
        let queue = jobs(config).await?;
        let (offload, jobs) = OffloadLayer::builder(queue.clone()).build_with_handle()?;
        let overflow = config.priority.overflow.iter().filter_map(|class| class.parse::<Class>().ok());
        let (priority, prio) = PriorityLayer::builder()
            .config(config.priority.layer(&config.upstreams)?)
            .classify(ByHeader::new(WISH).within(auth::tiers(config)))
            .capacity(backends.capacity())
            .overflow(jobs.overflow(), overflow)
            .build_with_handle()?;
        let replicas = backends.clone();
        let (observe, scale) = AutoscaleLayer::builder()
            .policy(policy(config)?)
            .source("priority", prio.clone(), Take::All)
            .source("offload", queue.clone(), Take::Queued)
            .replicas(move |pool| replicas.replicas(pool))
            .build_with_handle()?;
        // A request's way, from the outside in; a job enters again at the priority layer.
        let inner = ServiceBuilder::new().layer(priority).service(balance.into_infallible());
        let worker = Worker::builder(queue.clone(), inner.clone())
            .concurrency(config.jobs.concurrency)
            .max_share(config.jobs.max_tenant_share)
            .yield_to(prio.clone())
            .build()?;
        let (stop, mut stopped) = watch::channel(false);
        let worker = tokio::spawn(async move {
            // Over when it is said so, or when the last gateway is gone.
            let summary = worker.run(async move { drop(stopped.wait_for(|stopped| *stopped).await) }).await;
            tracing::info!(?summary, "the job worker has ended");
        });
        let cache = cache(config)?;
        let affinity = upstreams::affinity(config)?;
        let stack = ServiceBuilder::new().layer(observe).layer(cache).layer(affinity).layer(offload).service(inner);

        let draining = Arc::new(AtomicBool::new(false));
        let keys = Keys::new(config);
        let uploads = Arc::new(Budget::new(&config.uploads));
        let refused = Arc::<Refused>::default();
        let entrance = Arc::new(Entrance {
            keys,
            priority: prio.clone(),
            max_body_bytes: config.max_body_bytes,
            collector: Collector::new(&config.uploads, Arc::clone(&uploads)),
            answer_timeout: Duration::from_secs(config.answer_timeout_seconds),
            refused: Arc::clone(&refused),
        });
        let ready = State((Arc::clone(&draining), backends.clone()));
        let router = Router::new()
            .nest_service("/jobs", JobRouter::new(queue))
            .route_service("/v1/{*rest}", stack)
            .layer(from_fn_with_state(entrance, enter))
            .route_service("/metrics", scale.metrics_service())
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(move || async move { readyz(&ready.0) }))
            .fallback(|| async { problem(StatusCode::NOT_FOUND, "no-route", "there is nothing at this path") });
        let router = if config.access_log { router.layer(from_fn(log)) } else { router };
        let drain_timeout = Duration::from_secs(config.drain_timeout_seconds);
        let jobs = Arc::new(Jobs { stop, worker: Mutex::new(Some(worker)) });
        let (priority, balance, autoscale) = (prio, backends, scale);
        let follows = config.priority.limit.is_none() && config.priority.preset == Preset::FourClass;
        tell(&priority);
        Ok(Self {
            router,
            priority,
            balance,
            upstreams,
            autoscale,
            jobs,
            draining,
            drain_timeout,
            uploads,
            refused,
            follows,
        })
    }

    /// Checks a configuration as far as that goes without opening the job file.
    ///
    /// # Errors
    ///
    /// Every field that is out of range, of the gateway and then of the first layer that has one.
    pub fn check(config: &Config) -> Result<(), ConfigError> {
        config.validate()?;
        upstreams::build(config)?;
        Self::warnings(config)?;
        cache(config)?;
        policy(config).map(drop)
    }

    /// Returns what is doubtful in the settings of the priority layer before anything has been measured; a running gateway
    /// logs it.
    ///
    /// # Errors
    ///
    /// Every field of `[priority]` that is out of range.
    pub fn warnings(config: &Config) -> Result<Vec<String>, ConfigError> {
        let layer = config.priority.layer(&config.upstreams)?;
        let (_, handle) = PriorityLayer::builder().config(layer).build_with_handle()?;
        Ok(handle.warnings().iter().map(ToString::to_string).collect())
    }

    /// The routes, for a server of your own or for a test.
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

    /// Returns how many bytes of request bodies the gateway holds in memory at present.
    #[must_use]
    pub fn upload_bytes(&self) -> u64 {
        self.uploads.held()
    }

    /// Returns how many request bodies were refused for a reason: `TooLarge`, `BodyBroken`, `BodyTimeout` or `BufferFull`.
    #[must_use]
    pub fn uploads_refused(&self, reason: Reason) -> u64 {
        self.refused.of(reason)
    }

    /// Makes the backends those of another configuration, without losing a request: new ones come in, those that are gone
    /// finish what they have. All other settings stay as they are until a restart.
    ///
    /// # Errors
    ///
    /// Every field that is out of range, or that cannot be changed in this way; then nothing has changed.
    pub fn reload(&self, config: &Config) -> Result<(), ConfigError> {
        config.validate()?;
        self.upstreams.reload(config)?;
        if self.follows {
            self.priority.set_limit(config.priority.seats(&config.upstreams));
        }
        Ok(())
    }

    /// Serves until `shutdown`, then drains: refuses newcomers, finishes what runs, at most for the drain timeout.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send + 'static) {
        let (stop, stopped) = watch::channel(false);
        let ended = move || {
            let mut stopped = stopped.clone();
            async move {
                let _ = stopped.wait_for(|stopped| *stopped).await; // an error: the sender is gone, so it is over too
            }
        };
        let observed = tokio::spawn(self.autoscale.run(ended()));
        let (draining, priority) = (Arc::clone(&self.draining), self.priority.clone());
        let jobs = Arc::clone(&self.jobs);
        let drain = async move {
            shutdown.await;
            jobs.stop.send_replace(true); // no job is claimed any more; those that run go on
            draining.store(true, Ordering::Release);
            drop(priority.drain()); // it has begun; its end is seen by the connections
            let _ = stop.send(true);
        };
        let late = async {
            ended().await;
            tokio::time::sleep(self.drain_timeout).await;
        };
        let worker = self.jobs.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        let served = async {
            server::serve(listener, self.router.clone(), drain).await;
            if let Some(worker) = worker {
                let _ = worker.await; // a panic in it was logged by the runtime
            }
        };
        tokio::select! {
            () = served => {}
            () = late => tracing::warn!("the drain timeout is over: exchanges that still ran are cut"),
        }
        observed.abort();
    }
}

/// Logs what the priority layer is set to.
fn tell(priority: &PriorityHandle) {
    let limit = priority.snapshot().limit;
    tracing::info!(limit, "the seats of all classes together");
    for class in priority.classes() {
        tracing::info!(
            class = %class.name,
            queue_timeout = ?class.queue_timeout,
            patience_seats = class.patience_seats,
            reserved = class.reserved,
            headroom = class.headroom,
            max_hold = ?class.max_hold,
            "a class waits for the longer of queue_timeout and patience_seats x hold / seats"
        );
    }
}

/// The memory cache for answers that are the same each time.
fn cache(config: &Config) -> Result<CacheLayer, ConfigError> {
    let fresh = Duration::from_secs(config.cache.fresh_seconds);
    CacheLayer::builder()
        .max_bytes(config.cache.max_bytes)
        .json(JsonRoute::openai_chat("/v1/chat/completions").fresh_for(fresh))
        .json(JsonRoute::openai_completions("/v1/completions").fresh_for(fresh))
        .json(JsonRoute::openai_embeddings("/v1/embeddings").fresh_for(fresh))
        .build()
}

/// The durable job queue, in its file.
async fn jobs(config: &Config) -> Result<JobQueue, ConfigError> {
    let file = &config.jobs.file;
    let problem = |error: &dyn std::fmt::Display| ConfigError::new([format!("jobs.file {}: {error}", file.display())]);
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| problem(&error))?;
    }
    let store = RedbStore::open(file).await.map_err(|error| problem(&error))?;
    let mut queue = JobQueue::builder(store, "gateway").path("/jobs");
    for (class, seconds) in &config.jobs.attempt_timeout_seconds {
        if let Ok(class) = class.parse::<Class>() {
            let mut settings = JobClass::of(class);
            settings.attempt_timeout = Duration::from_secs(*seconds);
            queue = queue.class(class, settings);
        }
    }
    queue.build()
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
    } else if backends.places().endpoints == 0 {
        (StatusCode::SERVICE_UNAVAILABLE, "no upstream\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}
