use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forebay_balance::affinity::AffinityLayer;
use forebay_balance::client::{HttpBalanceBuilder, HttpUrl};
use forebay_balance::{Balance, BalanceHandle, Dns, Endpoint, HttpBalance, HttpCheck, MetricsProbe, Pin};
use forebay_core::{Class, ConfigError};

use crate::config::{Balancer, Config, PinTo, Upstream};
use crate::gpu_exporter::GpuExporter;

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
        let (health_path, metrics_path, gpu_exporter) = (None, None, None);
        let balance = Balancer { health_path, metrics_path, gpu_exporter, ..config.balance.clone() };
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
    builder = builder.idle_timeout(Duration::from_secs(config.balance.idle_timeout_seconds));
    let Balancer { health_path, metrics_path, routes, .. } = &config.balance;
    if let Some(path) = health_path {
        builder = builder.health(HttpCheck::new(path));
    }
    if let Some(path) = metrics_path {
        builder = builder.probe(MetricsProbe::auto(path));
    }
    if let Some(probe) = config.balance.gpu_exporter.as_ref().and_then(GpuExporter::probe) {
        builder = builder.probe(probe); // one that cannot be used is named by `validate`
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
    for (label, values) in &upstream.gpu_rows {
        endpoint = values.iter().fold(endpoint, |endpoint, value| endpoint.probe_select(label, value));
    }
    match upstream.max_concurrency {
        Some(requests) => endpoint.max_concurrency(requests),
        None => endpoint,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn r20_backends_of_one_machine_have_the_gpus_of_their_rows() {
        const PAGE: &str = "DCGM_FI_DEV_FB_USED{gpu=\"0\"} 8000\nDCGM_FI_DEV_FB_FREE{gpu=\"0\"} 8000\n\
                            DCGM_FI_DEV_FB_USED{gpu=\"1\"} 15840\nDCGM_FI_DEV_FB_FREE{gpu=\"1\"} 160\n";
        let app = axum::Router::new().route("/metrics", axum::routing::get(|| async { PAGE }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move { axum::serve(listener, app).await });
        let backend = |port: u16, gpu: u16| {
            format!("[[upstreams]]\nurl = 'http://127.0.0.1:{port}'\ngpu_rows = {{ gpu = ['{gpu}'] }}\n")
        };
        let text = format!(
            "[balance]\ngpu_exporter = {{ url = 'http://{{host}}:{port}/metrics' }}\n{}{}",
            backend(1, 0),
            backend(2, 1)
        );
        let config = Config::parse(&text).expect("valid");
        config.validate().expect("valid");
        let (_balance, handle) = build(&config).expect("valid");
        let weights = || handle.snapshot().iter().map(|one| one.effective_weight).collect::<Vec<_>>();
        tokio::time::timeout(Duration::from_secs(20), async {
            while weights() != [1.0, 0.5] {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the second has one hundredth of its memory free");
    }
}
