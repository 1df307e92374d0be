//! The gateway of the forebay family, as a library: what the binary, the tests and the benchmarks share.
//!
//! `/v1/*` goes through authentication, the autoscale signal, the cache, the job offload, the priority queues and the balancer to the model servers;
//! `/jobs/*`, `/metrics`, `/healthz` and `/readyz` are answered here.

mod args;
mod auth;
mod config;
mod demo;
mod entrance;
mod gateway;
mod gpu_exporter;
mod problem;
mod server;
mod upstreams;

use forebay_autoscale::manifests::Generator;
use forebay_core::ConfigError;

pub use args::{Args, Command};
pub use auth::{AuthError, Keys, tiers};
pub use config::{
    Adaptive, Autoscale, Balancer, Cache, ClassSettings, Config, Jobs, Key, PinTo, Preset, Priority, Seats, SeatsError,
    Uploads, Upstream,
};
pub use demo::Demo;
pub use gateway::Gateway;
pub use gpu_exporter::{GpuExporter, GpuExporterKind};

/// The manifests of the `hpa` command: the one by queue length, then the better one by demand.
///
/// # Errors
///
/// The replicas or slots of the configuration are out of range.
pub fn hpa(config: &Config) -> Result<String, ConfigError> {
    let generator = Generator::new("forebay-model-server");
    let (queue, demand) = (generator.seed_hpa()?, generator.demand_hpa(&gateway::policy(config)?)?);
    Ok(format!(
        "# By queue length. With an empty queue it goes to minReplicas whatever the load; prefer the second one.\n{queue}\n---\n# \
         By demand: queued and in flight.\n{demand}"
    ))
}
