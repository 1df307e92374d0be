use std::fmt;
#[cfg(feature = "tower")]
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use forebay_core::{BoxError, Class, ConfigError, Outcome};
use futures_core::Stream;
use http::{HeaderMap, StatusCode};

use crate::discover::{Change, Source, follow, source};
use crate::driver::{Driver, Job, spawned};
use crate::endpoint::Endpoint;
use crate::gpu::GpuTable;
use crate::handle::BalanceHandle;
use crate::members::Members;
use crate::options::{Borrow, Options};
use crate::policy::{Offset, Outlier, Pin, Policy, SlowStart};
use crate::redial::{NoRedial, RedialMode};
use crate::service::Balance;
use crate::wait::OnFull;

/// Builds a [`Balance`]. `R` says what may be sent again, and how endpoints are given.
#[must_use]
pub struct BalanceBuilder<S, R = NoRedial> {
    pub(crate) endpoints: Vec<Endpoint<S>>,
    #[cfg_attr(not(feature = "client"), expect(dead_code, reason = "only that of `Http` holds something"))]
    pub(crate) kind: R,
    pub(crate) options: Options,
    pub(crate) sources: Vec<Source<S>>,
}

impl<S: fmt::Debug, R> fmt::Debug for BalanceBuilder<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { settings, conduct, .. } = &self.options;
        f.debug_struct("BalanceBuilder")
            .field("endpoints", &self.endpoints)
            .field("settings", settings)
            .field("on_full", &conduct.on_full)
            .finish_non_exhaustive()
    }
}

impl<S, R> BalanceBuilder<S, R> {
    pub(crate) fn new(kind: R) -> Self {
        Self { endpoints: Vec::new(), kind, options: Options::new(), sources: Vec::new() }
    }

    /// Adds an endpoint.
    pub fn endpoint(mut self, endpoint: Endpoint<S>) -> Self {
        self.endpoints.push(endpoint);
        self
    }

    /// Adds a source of endpoints, beside those that were given one by one: a stream of changes, which the [`Driver`]
    /// follows until it ends. An error changes nothing. Without any endpoint at first, requests are refused until there are
    /// some.
    pub fn discover<E: Into<BoxError>>(
        mut self,
        changes: impl Stream<Item = Result<Change<S>, E>> + Send + 'static,
    ) -> Self {
        self.sources.push(source(changes));
        self
    }

    /// Adds a tower `Discover` as a source of endpoints, of weight 1 and named by their keys; as
    /// [`discover`](Self::discover).
    #[cfg(feature = "tower")]
    pub fn tower_discover<D>(self, discover: D) -> Self
    where
        D: tower::discover::Discover<Service = S> + Send + 'static,
        D::Key: Display,
        D::Error: Into<BoxError>,
    {
        self.discover(crate::discover::of_tower::OfTower { discover })
    }

    /// Sends a class to these pools: to the first that has an open place, or else to the next. A class without a route
    /// goes to the pool `"default"`.
    pub fn route<P: Into<Arc<str>>>(mut self, class: Class, pools: impl IntoIterator<Item = P>) -> Self {
        self.options.routes.retain(|(routed, _)| *routed != class);
        self.options.routes.push((class, pools.into_iter().map(Into::into).collect()));
        self
    }

    /// Lets a class that has no place in its own pools borrow in another: at most `places` at once, and only while
    /// more than one place stays open there for those whose pool it is. Nothing is preempted.
    pub fn borrow(self, pool: impl Into<Arc<str>>, class: Class, places: u32) -> Self {
        self.borrow_keeping(pool, class, places, 1)
    }

    /// As [`borrow`](Self::borrow), while at least `keep` places stay open.
    pub fn borrow_keeping(mut self, pool: impl Into<Arc<str>>, class: Class, places: u32, keep: u32) -> Self {
        self.options.borrows.push(Borrow { pool: pool.into(), class, at_most: places, keep });
        self
    }

    /// By what an endpoint is chosen. Default [`Policy::LeastConn`].
    pub const fn policy(mut self, policy: Policy) -> Self {
        self.options.settings.policy = policy;
        self
    }

    /// What is added to the load before it is divided by the weight. Default [`Offset::FiveEighths`].
    pub const fn offset(mut self, offset: Offset) -> Self {
        self.options.settings.offset = offset;
        self
    }

    /// When failing endpoints are left out; `None`: never, and failing fast then attracts requests. What overload answers
    /// say holds either way. Default
    /// [`Outlier::default`].
    pub fn outlier(mut self, outlier: impl Into<Option<Outlier>>) -> Self {
        self.options.settings.outlier = outlier.into();
        self
    }

    /// Brings new endpoints in slowly, and also sets how those come back that were ejected. Default: new ones at once,
    /// those ejected linearly over 30 s.
    pub fn slow_start(mut self, slow_start: impl Into<Option<SlowStart>>) -> Self {
        self.options.settings.slow_start = slow_start.into();
        self
    }

    /// Keeps the requests of one affinity key together from the first on. Default: they go by rendezvous hashing, which
    /// moves a key when endpoints come and go, or one has more than its share.
    pub fn pin(mut self, pin: impl Into<Option<Pin>>) -> Self {
        self.options.settings.pin = pin.into();
        self
    }

    /// Below this part of a pool's weight, 0 to 1, health is ignored there, unless all that is left has a
    /// `max_concurrency`. Default 0.5; at 0 it is ignored only where nothing is left.
    pub const fn panic(mut self, threshold: f64) -> Self {
        self.options.settings.panic_threshold = threshold;
        self
    }

    /// What a request meets that finds no place and has reserved none. Default: up to 1024 wait for up to 1 s.
    pub const fn on_full(mut self, on_full: OnFull) -> Self {
        self.options.conduct.on_full = on_full;
        self
    }

    /// The weights of GPUs. Default [`GpuTable::seed`].
    pub fn gpu_table(mut self, table: GpuTable) -> Self {
        self.options.gpus = table;
        self
    }

    /// What an answer says about its endpoint, by status and header fields. Default [`Outcome::of_head`].
    pub fn classify(mut self, classify: impl Fn(StatusCode, &HeaderMap) -> Outcome + Send + Sync + 'static) -> Self {
        self.options.conduct.classify = Arc::new(classify);
        self
    }

    /// Whether each answer of an endpoint says which one it was, by [`Picked`](crate::Picked) in its extensions. Default
    /// yes; the first extension of a response costs three heap allocations.
    pub const fn picked(mut self, picked: bool) -> Self {
        self.options.conduct.picked = picked;
        self
    }

    /// How long a picked endpoint may take to be ready before the request goes elsewhere. Default 1 s.
    pub const fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.options.conduct.ready_timeout = timeout;
        self
    }
}

impl<S: Send + Sync + 'static, R: RedialMode> BalanceBuilder<S, R> {
    /// The balancer. With discovery it needs a tokio runtime, where its [`Driver`] then runs.
    ///
    /// # Errors
    ///
    /// Every field that is out of range, at once.
    pub fn build(self) -> Result<Balance<S, R>, ConfigError> {
        self.build_with_handle().map(|(balance, _)| balance)
    }

    /// The balancer, and a handle to watch and change it.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_with_handle(self) -> Result<(Balance<S, R>, BalanceHandle), ConfigError> {
        spawned(!self.sources.is_empty(), |problems| self.parts(problems))
    }

    /// As [`build_with_handle`](Self::build_with_handle), outside a runtime too: what runs in the background is handed out
    /// instead, to be spawned.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_parts(self) -> Result<(Balance<S, R>, BalanceHandle, Driver), ConfigError> {
        self.parts(Vec::new())
    }

    fn parts(self, problems: Vec<String>) -> Result<(Balance<S, R>, BalanceHandle, Driver), ConfigError> {
        let balance: Balance<S, R> = self.options.build(self.endpoints, !self.sources.is_empty(), problems)?;
        let job = |source| -> Job { Box::pin(follow(source, Arc::downgrade(&balance.members), Members::apply)) };
        let driver = Driver::new(&balance.members, self.sources.into_iter().map(job).collect(), None);
        let handle = balance.handle();
        Ok((balance, handle, driver))
    }
}
