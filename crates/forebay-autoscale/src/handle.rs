use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use forebay_core::{Class, ConfigError, Demand, DemandSource, ReplicaState};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::config::{Replicas, Source};
use crate::policy::ServiceTime;
use crate::{
    ClassCounts, ClusterDemand, Decision, DemandSignal, Format, MetricsService, PolicyState, ScalePolicy, ScaleReason,
    Signal, Take,
};

/// The one pool there is.
pub(crate) const POOL: &str = "default";
const TICK: Duration = Duration::from_secs(1);

/// Reads the demand and the decisions of an [`AutoscaleLayer`](crate::AutoscaleLayer). Clones share them.
#[derive(Clone)]
pub struct AutoscaleHandle {
    shared: Arc<Shared>,
}

impl fmt::Debug for AutoscaleHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AutoscaleHandle").field("decision", &*self.shared.decision.borrow()).finish_non_exhaustive()
    }
}

/// What the layer and its sources know, at one moment.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// What passed this layer, by class.
    pub classes: [ClassCounts; Class::COUNT],
    /// The demand: summed over the sources, or the layer's own without any.
    pub demand: Demand,
    /// The replicas, if known.
    pub replicas: Option<ReplicaState>,
    /// The last decision; `None` before the first tick.
    pub decision: Option<Decision>,
}

pub(crate) struct Shared {
    signal: DemandSignal,
    sources: Vec<Source>,
    replicas: Option<Replicas>,
    state: Mutex<State>,
    decision: watch::Sender<Decision>,
}

struct State {
    policy: ScalePolicy,
    past: PolicyState,
    service_time: ServiceTime,
}

impl Shared {
    pub(crate) fn new(
        signal: DemandSignal,
        sources: Vec<Source>,
        replicas: Option<Replicas>,
        policy: ScalePolicy,
    ) -> Self {
        let (target, reason) = (policy.min, ScaleReason::Initial);
        let first = Decision { target, desired: None, reactive: 0, predicted: None, reason };
        let state = State { policy, past: PolicyState::default(), service_time: ServiceTime::default() };
        Self { signal, sources, replicas, state: Mutex::new(state), decision: watch::Sender::new(first) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state leaves it whole, so a panic in another tick does no harm.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the sources, without a lock of ours.
    fn read(&self) -> ClusterDemand {
        if self.sources.is_empty() {
            return self.signal.demand().into();
        }
        let mut sum = ClusterDemand::default();
        for Source { source, take, .. } in &self.sources {
            let mut demand = source.demand();
            for (class, stored) in demand.classes.iter_mut().zip(&mut sum.stored) {
                match take {
                    Take::All => {}
                    Take::Queued => {
                        class.in_flight = 0;
                        *stored = stored.saturating_add(class.queued);
                    }
                    Take::InFlight => class.queued = 0,
                }
            }
            sum.demand += demand;
        }
        sum
    }

    fn replicas(&self) -> Option<ReplicaState> {
        self.replicas.as_ref().and_then(|replicas| replicas(POOL))
    }

    fn tick(&self, now: Instant) {
        let mut cluster = self.read();
        let replicas = self.replicas();
        let mut state = self.state();
        // Whoever serves knows what is done; a stored queue alone has no service time.
        let (in_flight, done) = self.served(&cluster);
        cluster.service_time = state.service_time.observe(now, in_flight, done);
        let decided = state.policy.decide(now, &state.past, &Signal::Fresh(cluster), replicas);
        let Ok(decision) = decided else { return };
        state.past.record(now, &decision, replicas);
        drop(state);
        self.decision.send_if_modified(|last| std::mem::replace(last, decision) != decision);
    }

    /// Seats in flight and requests done, where requests are served.
    fn served(&self, cluster: &ClusterDemand) -> (u64, u64) {
        let serving = self.sources.iter().find(|source| source.take != Take::Queued);
        let done = match serving {
            Some(source) => source.source.demand().total().done,
            None if self.sources.is_empty() => cluster.demand.total().done,
            None => 0,
        };
        (cluster.demand.total().in_flight, done)
    }
}

impl AutoscaleHandle {
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// The layer's own count, where work that does not come by HTTP can be counted as well.
    #[must_use]
    pub fn signal(&self) -> &DemandSignal {
        &self.shared.signal
    }

    /// The demand now: summed over the sources, or the layer's own without any.
    #[must_use]
    pub fn demand(&self) -> Demand {
        self.shared.read().demand
    }

    /// The decisions, one a change. Before the first tick of [`run`](Self::run) it holds one of
    /// [`ScaleReason::Initial`], which is not to be obeyed.
    #[must_use]
    pub fn decision(&self) -> watch::Receiver<Decision> {
        self.shared.decision.subscribe()
    }

    /// Replaces the policy from the next tick on; what was decided before is remembered.
    ///
    /// # Errors
    ///
    /// Every value that is out of its range; the old policy stays.
    pub fn set_policy(&self, policy: ScalePolicy) -> Result<(), ConfigError> {
        ConfigError::check(policy.problems())?;
        self.shared.state().policy = policy;
        Ok(())
    }

    /// Everything at once, for a dashboard.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let classes = std::array::from_fn(|index| self.shared.signal.counts(Class::new(index as u8)));
        let last = *self.shared.decision.borrow();
        let decision = (last.reason != ScaleReason::Initial).then_some(last);
        Snapshot { classes, demand: self.demand(), replicas: self.shared.replicas(), decision }
    }

    /// Decides once a second until `shutdown` is done. Run it once: nothing is spawned, and without it there are counts
    /// but no decisions. A late tick is not made up for.
    ///
    /// # Cancel safety
    ///
    /// Dropping it stops the decisions, no more.
    pub fn run<F: Future<Output = ()>>(&self, shutdown: F) -> impl Future<Output = ()> + use<F> {
        let shared = Arc::clone(&self.shared);
        async move {
            let mut shutdown = pin!(shutdown);
            let mut ticks = tokio::time::interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            poll_fn(|cx| {
                loop {
                    if shutdown.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(());
                    }
                    std::task::ready!(ticks.poll_tick(cx));
                    shared.tick(tokio::time::Instant::now().into_std());
                }
            })
            .await;
        }
    }

    /// The metrics as text; see [`Format`] for the kinds.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        crate::exposition::render(format, &self.snapshot(), &self.shared.signal)
    }

    /// A service for `GET /metrics`.
    #[must_use]
    pub fn metrics_service(&self) -> MetricsService {
        MetricsService::new(self.clone())
    }
}
