use std::sync::{Arc, Mutex, PoisonError};

use forebay_balance::affinity::AffinityLayer;
use forebay_balance::client::{HttpBalanceBuilder, HttpUrl};
use forebay_balance::{Balance, BalanceHandle, Dns, Endpoint, HttpBalance, HttpCheck, MetricsProbe, Pin};
use forebay_core::{Class, ConfigError};

use crate::config::{Balancer, Config, PinTo, Upstream};

/// The backends of a running gateway, which can be changed.
#[derive(Debug, Clone)]
pub(crate) struct Upstreams {
    balance: HttpBalance,
    settings: Balancer,
    now: Arc<Mutex<Vec<Upstream>>>,
}

impl Upstreams {
    pub(crate) fn new(config: &Config) -> Result<(Self, HttpBalance, BalanceHandle), ConfigError> {
        let (balance, handle) = build(config)?;
        let (settings, now) = (config.balance.clone(), Arc::new(Mutex::new(config.upstreams.clone())));
        Ok((Self { balance: balance.clone(), settings, now }, balance, handle))
    }

    /// Makes the backends those of another configuration: new ones come in, those that are gone drain, those that are
    /// as they were keep their connections. On an error nothing has changed.
    pub(crate) fn reload(&self, config: &Config) -> Result<(), ConfigError> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let named = |list: &[Upstream]| -> Vec<Upstream> { list.iter().filter(|one| one.dns).cloned().collect() };
        let mut problems = Vec::new();
        if named(&now) != named(&config.upstreams) {
            problems.push("upstreams with dns have changed: a reload cannot do that, restart".to_owned());
        }
        if self.settings != config.balance {
            problems.push("balance has changed: a reload cannot do that, restart".to_owned());
        }
        ConfigError::check(problems)?;
        // Checks the rest, and is dropped: without what would ask the backends at once.
        let (health_path, metrics_path) = (None, None);
        let balance = Balancer { health_path, metrics_path, ..config.balance.clone() };
        build(&Config { balance, ..config.clone() })?;
        for upstream in config.upstreams.iter().filter(|upstream| !now.contains(upstream)) {
            self.balance.insert(endpoint(upstream))?;
        }
        for gone in now.iter().filter(|old| !old.dns && config.upstreams.iter().all(|new| new.url != old.url)) {
            self.balance.remove(&gone.url);
        }
        now.clone_from(&config.upstreams);
        Ok(())
    }
}

/// A balancer as a configuration says.
pub(crate) fn build(config: &Config) -> Result<(HttpBalance, BalanceHandle), ConfigError> {
    let add = |builder: HttpBalanceBuilder, upstream: &Upstream| {
        let endpoint = endpoint(upstream);
        if upstream.dns { builder.discover(Dns::of(endpoint)) } else { builder.endpoint(endpoint) }
    };
    let mut builder = config.upstreams.iter().fold(Balance::http(), add);
    let Balancer { health_path, metrics_path, routes, .. } = &config.balance;
    if let Some(path) = health_path {
        builder = builder.health(HttpCheck::new(path));
    }
    if let Some(path) = metrics_path {
        builder = builder.probe(MetricsProbe::auto(path));
    }
    if let Some(pin) = config.balance.pin {
        builder = builder.pin(match pin {
            PinTo::Endpoint => Pin::to_endpoint(),
            PinTo::Group => Pin::to_group(),
        });
    }
    for (class, pools) in routes {
        if let Ok(class) = class.parse::<Class>() {
            builder = builder.route(class, pools.iter().map(String::as_str)); // others are named by `validate`
        }
    }
    builder.build_with_handle()
}

/// Finds out which requests belong together.
pub(crate) fn affinity(config: &Config) -> Result<AffinityLayer, ConfigError> {
    let mut affinity = AffinityLayer::builder().header("x-session-id");
    if config.balance.affinity_by_session {
        affinity = affinity.session_fields();
    }
    if config.balance.affinity_by_prompt {
        affinity = affinity.prompt();
    }
    affinity.build()
}

fn endpoint(upstream: &Upstream) -> Endpoint<HttpUrl> {
    let mut endpoint = Endpoint::new(&upstream.url).http2(upstream.http2);
    if let Some(weight) = upstream.weight {
        endpoint = endpoint.weight(weight);
    }
    if let Some(gpu) = &upstream.gpu {
        endpoint = endpoint.gpu(gpu);
    }
    if let Some(pool) = &upstream.pool {
        endpoint = endpoint.pool(pool.as_str());
    }
    if let Some(group) = &upstream.group {
        endpoint = endpoint.group(group.as_str());
    }
    match upstream.max_concurrency {
        Some(requests) => endpoint.max_concurrency(requests),
        None => endpoint,
    }
}
