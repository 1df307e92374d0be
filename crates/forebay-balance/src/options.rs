use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use forebay_core::{Class, ConfigError};

use crate::conduct::Conduct;
use crate::endpoint::{DEFAULT_POOL, Endpoint};
use crate::gpu::GpuTable;
use crate::ledger::{Core, now};
use crate::members::{Members, check};
use crate::policy::{Guest, Picker, Route, Routes, Settings};
use crate::service::Balance;
use crate::wait::OnFull;

/// All that does not depend on the service.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) settings: Settings,
    pub(crate) conduct: Conduct,
    pub(crate) gpus: GpuTable,
    pub(crate) routes: Vec<(Class, Vec<Arc<str>>)>,
    pub(crate) borrows: Vec<Borrow>,
    /// Endpoints get nothing before a health check has succeeded.
    pub(crate) checked: bool,
    /// Endpoints are asked for their load.
    pub(crate) probed: bool,
}

/// A class may have places in a pool that is not on its route.
#[derive(Clone)]
pub(crate) struct Borrow {
    pub(crate) pool: Arc<str>,
    pub(crate) class: Class,
    pub(crate) at_most: u32,
    pub(crate) keep: u32,
}

impl Options {
    pub(crate) fn new() -> Self {
        Self {
            settings: Settings::default(),
            conduct: Conduct::default(),
            gpus: GpuTable::seed(),
            routes: Vec::new(),
            borrows: Vec::new(),
            checked: false,
            probed: false,
        }
    }

    /// Builds it of endpoints that are ready to use; `problems`: what is wrong with the others.
    pub(crate) fn build<S: Send + Sync + 'static, R>(
        self,
        endpoints: Vec<Endpoint<S>>,
        may_be_empty: bool,
        mut problems: Vec<String>,
    ) -> Result<Balance<S, R>, ConfigError> {
        if endpoints.is_empty() && !may_be_empty && problems.is_empty() {
            problems.push("endpoints is empty: at least one".to_owned());
        }
        self.check(&mut problems);
        let pools = self.pools();
        let routes = self.routes(&pools, &mut problems);
        problems.extend(check(&endpoints, &pools, &self.gpus));
        ConfigError::check(problems)?;
        let seed = RandomState::new().hash_one(0);
        let picker = Picker::new(self.settings, routes, pools.len(), seed, now());
        let core = Arc::new(Core::new(picker, pools.into(), self.conduct));
        let members = Members::new(core, self.gpus, self.checked, self.probed);
        for endpoint in endpoints {
            members.insert(endpoint)?;
        }
        Ok(Balance::of(Arc::new(members)))
    }

    fn check(&self, problems: &mut Vec<String>) {
        if self.conduct.ready_timeout.is_zero() {
            problems.push("ready_timeout is 0: more than 0".to_owned());
        }
        let panic = self.settings.panic_threshold;
        if !(0.0..=1.0).contains(&panic) {
            problems.push(format!("panic is {panic}: 0 to 1"));
        }
        if let Some(outlier) = &self.settings.outlier {
            outlier.check(problems);
        }
        if let Some(slow_start) = &self.settings.slow_start {
            slow_start.check(problems);
        }
        if let OnFull::Wait { len, timeout } = self.conduct.on_full
            && (len == 0 || timeout.is_zero())
        {
            problems.push(format!("on_full waits with len {len}, timeout {timeout:?}: more than 0, or OnFull::Reject"));
        }
    }

    /// `"default"`, and all that a route or a loan names.
    fn pools(&self) -> Vec<Arc<str>> {
        let mut pools: Vec<Arc<str>> = vec![DEFAULT_POOL.into()];
        let routed = self.routes.iter().flat_map(|(_, pools)| pools);
        for pool in routed.chain(self.borrows.iter().map(|borrow| &borrow.pool)) {
            if !pools.contains(pool) {
                pools.push(Arc::clone(pool));
            }
        }
        pools
    }

    fn routes(&self, pools: &[Arc<str>], problems: &mut Vec<String>) -> Routes {
        let index = |name: &Arc<str>| pools.iter().position(|pool| pool == name).unwrap_or_default();
        let mut routes = Routes::to_one_pool();
        for (class, names) in &self.routes {
            if names.is_empty() {
                problems.push(format!("route of {class:?} is empty: at least one pool"));
            }
            let mut route = Route::default();
            for name in names {
                if route.pools.contains(&index(name)) {
                    problems.push(format!("route of {class:?} names {name:?} twice: once"));
                }
                route.pools.push(index(name));
            }
            routes.0[class.index()] = route;
        }
        for borrow in &self.borrows {
            let Borrow { pool, class, at_most, keep } = borrow;
            let route = &mut routes.0[class.index()];
            if *at_most == 0 {
                problems.push(format!("borrow of {class:?} in {pool:?} is 0 places: at least 1"));
            }
            if route.pools.contains(&index(pool)) {
                problems.push(format!("borrow of {class:?} in {pool:?}: its route goes there already"));
            }
            route.guests.push(Guest { pool: index(pool), at_most: *at_most, keep: u64::from(*keep) });
        }
        routes
    }
}
