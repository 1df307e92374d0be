use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use forebay_core::ConfigError;

use crate::affinity::rendezvous::id_hash;
use crate::endpoint::{Endpoint, EndpointId};
use crate::gpu::GpuTable;
use crate::ledger::{Core, now};
use crate::metrics::Meter;
use crate::policy::New;

/// An endpoint's service.
#[derive(Debug)]
pub(crate) struct Node<S> {
    pub(crate) id: EndpointId,
    pub(crate) service: S,
    pub(crate) meter: Meter,
}

/// What is done for each new endpoint, outside all locks but that of the changes.
type StartWatch<S> = Box<dyn Fn(usize, &Arc<Node<S>>) + Send + Sync>;

/// The services behind the picker's indices. Read without a lock, as each request does; changed one at a time.
pub(crate) struct Members<S> {
    nodes: ArcSwap<Vec<Option<Arc<Node<S>>>>>,
    changing: Mutex<()>,
    /// Begins to watch a new endpoint.
    watch: OnceLock<StartWatch<S>>,
    pub(crate) gpus: GpuTable,
    pub(crate) checked: bool,
    pub(crate) probed: bool,
}

impl<S> Members<S> {
    pub(crate) fn new(gpus: GpuTable, checked: bool, probed: bool) -> Self {
        Self { nodes: ArcSwap::default(), changing: Mutex::default(), watch: OnceLock::new(), gpus, checked, probed }
    }

    /// The endpoint at an index that is held; `None`: it was removed after its pick.
    pub(crate) fn get(&self, index: usize) -> Option<(EndpointId, S, Meter)>
    where
        S: Clone,
    {
        let nodes = self.nodes.load();
        let node = nodes.get(index)?.as_ref()?;
        Some((node.id.clone(), node.service.clone(), node.meter.clone()))
    }

    /// Has all endpoints watched, those that are there and those to come.
    #[cfg(feature = "client")]
    pub(crate) fn watch(&self, watch: impl Fn(usize, &Arc<Node<S>>) + Send + Sync + 'static) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, node) in self.all() {
            watch(index, &node);
        }
        let _ = self.watch.set(Box::new(watch)); // it is called once
    }

    /// All, by index.
    pub(crate) fn all(&self) -> Vec<(usize, Arc<Node<S>>)> {
        let nodes = self.nodes.load();
        nodes.iter().enumerate().filter_map(|(index, node)| Some((index, Arc::clone(node.as_ref()?)))).collect()
    }

    /// Adds an endpoint, or changes the one of its name in place: its counters and what is in flight there stay.
    ///
    /// # Errors
    ///
    /// A field that is out of range, or a pool that no route names.
    pub(crate) fn insert(&self, core: &Arc<Core>, endpoint: Endpoint<S>) -> Result<usize, ConfigError> {
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
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let (id, now) = (endpoint.id, now());
        let index = core.change(|ledger| {
            let known = ledger.by_id.get(&id).copied();
            let stays = known.filter(|index| ledger.picker.slot(*index).pool == new.pool);
            if let Some(other) = known.filter(|_| stays.is_none()) {
                // It moves to another pool: what is in flight ends where it is, under no name.
                ledger.by_id.remove(&id);
                ledger.picker.remove(other, now);
            }
            // Not to be picked before its service is there, nor gone by then.
            let index = match stays {
                Some(index) => ledger.picker.revive(index, now),
                None => ledger.picker.insert(New { weight: 0, ..new }, now),
            };
            if ledger.ids.len() <= index {
                ledger.ids.resize(index + 1, None);
            }
            ledger.ids[index] = Some(id.clone());
            ledger.by_id.insert(id.clone(), index);
            index
        });
        let node = Arc::new(Node { meter: core.labels.meter(&id), id, service: endpoint.service });
        self.set(index, Some(Arc::clone(&node)));
        core.change(|ledger| ledger.picker.update(index, new, now));
        if let Some(watch) = self.watch.get() {
            watch(index, &node);
        }
        Ok(index)
    }

    /// Removes an endpoint: no more picks, what is in flight goes on. False: there is none of this name.
    pub(crate) fn remove(&self, core: &Arc<Core>, id: &str) -> bool {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let removed = core.change(|ledger| {
            let index = ledger.index_of(id)?;
            ledger.picker.remove(index, now());
            Some(index)
        });
        if let Some(index) = removed {
            self.set(index, None);
        }
        removed.is_some()
    }

    fn set(&self, index: usize, node: Option<Arc<Node<S>>>) {
        let mut nodes = Vec::clone(&self.nodes.load());
        if nodes.len() <= index {
            nodes.resize_with(index + 1, || None);
        }
        nodes[index] = node;
        self.nodes.store(Arc::new(nodes));
    }

    /// Makes the endpoints those of the list, all others are removed.
    ///
    /// # Errors
    ///
    /// Every problem of every endpoint, at once; then nothing is changed.
    pub(crate) fn replace(&self, core: &Arc<Core>, endpoints: Vec<Endpoint<S>>) -> Result<(), ConfigError> {
        ConfigError::check(check(&endpoints, &core.pools, &self.gpus))?;
        let listed: HashSet<EndpointId> = endpoints.iter().map(|endpoint| endpoint.id.clone()).collect();
        let gone: Vec<_> = core.ledger().by_id.keys().filter(|id| !listed.contains(*id)).cloned().collect();
        for endpoint in endpoints {
            self.insert(core, endpoint)?;
        }
        for id in gone {
            self.remove(core, id.as_str());
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
