use std::{fmt, sync::Arc, time::Duration};

use forebay_core::{Class, ConfigError, DemandSource};

use super::{
    slots::Slots,
    verdict::{Decide, Decision, Exchange},
};
use crate::queue::JobQueue;

/// Runs the jobs of a queue through a service: see [`run`](Self::run).
#[derive(Debug)]
#[must_use = "a worker does nothing until run"]
pub struct Worker<S> {
    pub(super) queue: JobQueue,
    pub(super) service: S,
    pub(super) settings: Arc<Settings>,
}

#[derive(Debug)]
pub(super) struct Settings {
    pub(super) concurrency: usize,
    pub(super) max_share: f64,
    pub(super) lease: Duration,
    pub(super) drain_timeout: Duration,
    pub(super) classes: [bool; Class::COUNT],
    pub(super) decide: Decide,
    pub(super) gate: Option<Gate>,
}

pub(super) struct Gate(pub(super) Box<dyn DemandSource>);

impl<S> Worker<S> {
    /// Starts the settings of a worker that sends the queue's requests through this service.
    ///
    /// The service may be any that takes `Request<ReqBody>`: an axum `Router`, a stack of layers, a client.
    pub fn builder(queue: JobQueue, service: S) -> WorkerBuilder<S> {
        WorkerBuilder {
            queue,
            service,
            settings: Settings {
                concurrency: 1,
                max_share: 0.5,
                lease: Duration::from_secs(10),
                drain_timeout: Duration::from_secs(30),
                classes: [true; Class::COUNT],
                decide: Decide(Box::new(Decision::by_default)),
                gate: None,
            },
        }
    }
}

/// Collects the settings of a [`Worker`].
#[derive(Debug)]
#[must_use = "a builder does nothing until built"]
pub struct WorkerBuilder<S> {
    queue: JobQueue,
    service: S,
    settings: Settings,
}

impl<S> WorkerBuilder<S> {
    /// Sets how many jobs run at the same time: 1 unless set.
    ///
    /// Not all slots are for every job, see [how they are shared](crate#how-the-slots-are-shared). A worker with one
    /// slot can keep none free.
    pub const fn concurrency(mut self, jobs: usize) -> Self {
        self.settings.concurrency = jobs;
        self
    }

    /// Sets the part of the slots that the jobs of one owner may hold, above 0 to 1: half unless set, rounded up.
    ///
    /// The owner is the request's `Principal`; jobs without one are not bounded. Where all jobs are of one
    /// tenant, 1 is right.
    pub const fn max_share(mut self, share: f64) -> Self {
        self.settings.max_share = share;
        self
    }

    /// Sets how long a job stays with a worker that has died: 10 s unless set, renewed each second while it lives.
    pub const fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }

    /// Sets how long running jobs may go on after the shutdown: 30 s unless set; then they are given back.
    pub const fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.settings.drain_timeout = timeout;
        self
    }

    /// Sets which classes are run: all unless set. The most urgent of them may hold all slots.
    pub fn classes(mut self, classes: impl IntoIterator<Item = Class>) -> Self {
        self.settings.classes = [false; Class::COUNT];
        for class in classes {
            self.settings.classes[class.index()] = true;
        }
        self
    }

    /// Sets what is to become of a job, by how an attempt went: [`Decision::by_default`] unless set.
    ///
    /// A core `Rejection` in the response extensions is not asked about: it is no attempt.
    pub fn verdict(mut self, decide: impl Fn(&Exchange<'_>) -> Decision + Send + Sync + 'static) -> Self {
        self.settings.decide = Decide(Box::new(decide));
        self
    }

    /// Makes jobs wait for requests: a job of class c is claimed only while this source queues nothing of class c or
    /// above.
    pub fn yield_to(mut self, source: impl DemandSource) -> Self {
        self.settings.gate = Some(Gate(Box::new(source)));
        self
    }

    /// Makes the worker.
    ///
    /// # Errors
    /// When settings are out of their range; the error names all of them.
    pub fn build(self) -> Result<Worker<S>, ConfigError> {
        let Self { queue, service, settings } = self;
        let mut problems = Vec::new();
        if settings.concurrency == 0 {
            problems.push("concurrency = 0: must be at least 1".to_owned());
        }
        if !(settings.max_share > 0.0 && settings.max_share <= 1.0) {
            problems.push(format!("max_share = {}: must be above 0, at most 1", settings.max_share));
        }
        if !(Duration::from_secs(3)..=Duration::from_secs(3_600)).contains(&settings.lease) {
            problems.push(format!("lease = {:?}: must be 3 s to 1 h", settings.lease));
        }
        if !settings.classes.contains(&true) {
            problems.push("classes = []: must name at least one".to_owned());
        }
        ConfigError::check(problems)?;
        Ok(Worker { queue, service, settings: Arc::new(settings) })
    }
}

impl Settings {
    /// Makes the slots of the worker, all free.
    pub(super) fn slots(&self) -> Slots {
        // Whole numbers far below 2^53; a product such as 100 * 0.07 may be a little above the whole number it stands for.
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let per_owner = (self.concurrency as f64 * self.max_share - 1e-6).ceil() as usize;
        Slots::new(self.concurrency, per_owner.max(1), &self.classes)
    }

    /// Says which classes may be claimed now.
    pub(super) fn open_classes(&self) -> [bool; Class::COUNT] {
        let Some(Gate(source)) = &self.gate else { return self.classes };
        let demand = source.demand();
        let busy = demand.classes.iter().position(|class| class.queued > 0).unwrap_or(Class::COUNT);
        std::array::from_fn(|class| self.classes[class] && class < busy)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate(..)")
    }
}
