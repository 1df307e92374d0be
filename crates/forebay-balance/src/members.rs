use std::any::Any;
use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use forebay_core::ConfigError;
use tokio::sync::watch;

use crate::affinity::rendezvous::id_hash;
use crate::discover::Change;
use crate::endpoint::{Endpoint, EndpointId};
use crate::gpu::GpuTable;
use crate::ledger::{Core, Member, now};
use crate::metrics::Meter;
use crate::policy::New;

/// An endpoint's service, of a type that is not said, and what each of its permits needs: one count of references for
/// all.
pub(crate) struct AnyNode {
    pub(crate) core: Arc<Core>,
    pub(crate) id: EndpointId,
    pub(crate) meter: Meter,
    /// In a box of its own, so that a reference to the node is one word and the rest of it is at a known place.
    service: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for AnyNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
    }
}

impl AnyNode {
    /// A clone of its service.
    pub(crate) fn service<S: Clone + 'static>(&self) -> S {
        self.service.downcast_ref::<S>().expect("a balancer's endpoints are of one type").clone()
    }
}

/// The endpoints, as they are added, changed and removed: one change at a time. Their nodes are in the ledger, and go
/// with this.
pub(crate) struct Members {
    pub(crate) core: Arc<Core>,
    changing: Mutex<()>,
    /// Tells the driver that endpoints came or went; and, dropped, that it is over.
    pub(crate) changed: watch::Sender<()>,
    pub(crate) gpus: GpuTable,
    pub(crate) checked: bool,
    pub(crate) probed: bool,
}

impl Drop for Members {
    /// Nodes and core hold each other; permits that are out hold on to theirs, and find no other endpoint any more.
    fn drop(&mut self) {
        let nodes = self.core.change(|ledger| {
            let indices: Vec<usize> = ledger.endpoints().map(|(index, _)| index).collect();
            indices.into_iter().for_each(|index| ledger.picker.remove(index, now()));
            std::mem::take(&mut ledger.nodes)
        });
        drop(nodes);
    }
}

impl Members {
    pub(crate) fn new(core: Arc<Core>, gpus: GpuTable, checked: bool, probed: bool) -> Self {
        Self { core, changing: Mutex::default(), changed: watch::Sender::default(), gpus, checked, probed }
    }

    /// Adds an endpoint, or changes the one of its name in place: its counters and what is in flight there stay.
    ///
    /// # Errors
    ///
    /// A field that is out of range, or a pool that no route names.
    pub(crate) fn insert<S: Send + Sync + 'static>(&self, endpoint: Endpoint<S>) -> Result<(), ConfigError> {
        let core = &self.core;
        ConfigError::check(check([&endpoint], &core.pools, &self.gpus))?;
        let pool = core.pools.iter().position(|pool| *pool == endpoint.pool);
        let new = New {
            pool: pool.unwrap_or_default(), // it is there, as was checked
            weight: endpoint.base_weight(&self.gpus),
            max_concurrency: endpoint.max_concurrency,
            checked: self.checked,
            probed: self.probed,
            id_hash: id_hash(endpoint.id.as_str()),
            group_hash: id_hash(endpoint.group.as_deref().unwrap_or(endpoint.id.as_str())),
        };
        let meter = core.labels.meter(&endpoint.id);
        let service = Box::new(endpoint.service);
        let member = Member::new(Arc::new(AnyNode { core: Arc::clone(core), id: endpoint.id, meter, service }));
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = core.change(|ledger| ledger.insert(new, member, now()));
        drop(changing);
        drop(old); // foreign code, outside the locks
        self.changed.send_replace(());
        Ok(())
    }

    /// As discovery says.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub(crate) fn apply<S: Send + Sync + 'static>(&self, change: Change<S>) -> Result<(), ConfigError> {
        match change {
            Change::Insert(endpoint) => self.insert(endpoint),
            Change::Remove(id) => {
                self.remove(id.as_str());
                Ok(())
            }
        }
    }

    /// Removes an endpoint: no more picks, what is in flight goes on. False: there is none of this name.
    pub(crate) fn remove(&self, id: &str) -> bool {
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let removed = self.core.change(|ledger| {
            let index = ledger.index_of(id)?;
            ledger.picker.remove(index, now());
            Some(())
        });
        drop(changing);
        self.changed.send_replace(());
        removed.is_some()
    }

    /// Makes the endpoints those of the list, all others are removed.
    ///
    /// # Errors
    ///
    /// Every problem of every endpoint, at once; then nothing is changed.
    pub(crate) fn replace<S: Send + Sync + 'static>(&self, endpoints: Vec<Endpoint<S>>) -> Result<(), ConfigError> {
        ConfigError::check(check(&endpoints, &self.core.pools, &self.gpus))?;
        let listed: HashSet<EndpointId> = endpoints.iter().map(|endpoint| endpoint.id.clone()).collect();
        let gone: Vec<_> = self.core.ledger().by_id.keys().filter(|id| !listed.contains(*id)).cloned().collect();
        for endpoint in endpoints {
            self.insert(endpoint)?;
        }
        for id in gone {
            self.remove(id.as_str());
        }
        Ok(())
    }
}

/// What is wrong with endpoints for these pools.
pub(crate) fn check<'a, S: 'a>(
    endpoints: impl IntoIterator<Item = &'a Endpoint<S>>,
    pools: &[Arc<str>],
    gpus: &GpuTable,
) -> Vec<String> {
    let (mut problems, mut seen) = (Vec::new(), HashSet::new());
    for endpoint in endpoints {
        endpoint.check(gpus, &mut problems);
        let Endpoint { id, pool, .. } = endpoint;
        if !pools.contains(pool) {
            problems.push(format!("endpoint {id} pool {pool:?} is in no route: one of {pools:?}"));
        }
        if !seen.insert(id) {
            problems.push(format!("endpoint {id} is in the list twice: once"));
        }
    }
    problems
}
