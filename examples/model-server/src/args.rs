//! The command line.

use std::{net::SocketAddr, time::Duration};

use clap::Parser;
use forebay_model_server::{Config, ConfigError, Faults, ModelServer};

/// A simulated GPU model server with the OpenAI API: not a model, a stand-in for one.
///
/// Its answers are words drawn from a hash of the prompt; its slots, KV cache, pace, metrics and faults are what it is
/// for. The first line on stdout is its address.
#[derive(Debug, Parser)]
#[command(version, allow_negative_numbers = true)]
pub(crate) struct Args {
    /// Address to listen on
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Port to listen on, instead of the one in --listen; 0 picks a free one
    #[arg(long)]
    port: Option<u16>,
    /// Name to answer to; may be repeated, the first labels the metrics [default: sim-7b]
    #[arg(long = "model", value_name = "NAME")]
    models: Vec<String>,
    /// Requests decoded at the same time
    #[arg(long, value_name = "N", default_value_t = 8)]
    slots: usize,
    /// Requests that may wait for a slot; more get 503
    #[arg(long, value_name = "N", default_value_t = 1024)]
    max_waiting: usize,
    /// Size of the KV cache in tokens, and the longest context
    #[arg(long, value_name = "TOKENS", default_value_t = 131_072)]
    kv_tokens: u64,
    /// Prompt tokens read per second
    #[arg(long, value_name = "RATE", default_value_t = 8000.0)]
    prefill_tokens_per_second: f64,
    /// Output tokens per second of each request
    #[arg(long, value_name = "RATE", default_value_t = 50.0)]
    decode_tokens_per_second: f64,
    /// Answer at once: no slots, no KV cache, no waiting
    #[arg(long)]
    instant: bool,
    /// Make the prefill of leading prompt blocks seen before free
    #[arg(long)]
    prefix_cache: bool,
    /// Blocks of 16 tokens that the prefix cache remembers
    #[arg(long, value_name = "N", default_value_t = 4096)]
    prefix_cache_blocks: usize,
    /// Share of requests answered 500, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    error_share: f64,
    /// Share of requests that take a slot and are never answered, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    hang_share: f64,
    /// Share of answers that break off half way, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    truncate_share: f64,
    /// Share of requests answered 200 with something that is not JSON, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    garbage_share: f64,
    /// Seed of the sequence of faults
    #[arg(long, value_name = "N", default_value_t = 0)]
    fault_seed: u64,
    /// Milliseconds after the start during which requests and /health are answered 503
    #[arg(long, value_name = "MS", default_value_t = 0)]
    slow_start_ms: u64,
    /// Share of GPU memory in use, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    memory_pressure: f64,
    /// GPU memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 81_559)]
    gpu_memory_mib: u64,
    /// UUID of the GPU in the metrics [default: made from the address]
    #[arg(long, value_name = "UUID")]
    gpu_uuid: Option<String>,
    /// Largest request body in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20)]
    max_body_bytes: usize,
    /// Length of embeddings when the request does not say, 1 to 4096
    #[arg(long, value_name = "N", default_value_t = 256)]
    embedding_dimensions: u32,
    /// Milliseconds that running answers may go on after SIGTERM
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    shutdown_grace_ms: u64,
    /// Threads that serve [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub(crate) threads: Option<u16>,
    /// Write method, path and status of each request to stderr (never a prompt)
    #[arg(long)]
    log_requests: bool,
}

impl Args {
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.listen.ip(), self.port.unwrap_or_else(|| self.listen.port()))
    }

    pub(crate) fn config(self) -> Result<Config, ConfigError> {
        let faults = Faults {
            error_share: self.error_share,
            hang_share: self.hang_share,
            truncate_share: self.truncate_share,
            garbage_share: self.garbage_share,
            seed: self.fault_seed,
        };
        let mut builder = ModelServer::builder()
            .slots(self.slots)
            .max_waiting(self.max_waiting)
            .kv_tokens(self.kv_tokens)
            .prefill_tokens_per_second(self.prefill_tokens_per_second)
            .decode_tokens_per_second(self.decode_tokens_per_second)
            .instant(self.instant)
            .prefix_cache_blocks(if self.prefix_cache { self.prefix_cache_blocks } else { 0 })
            .faults(faults)
            .slow_start(Duration::from_millis(self.slow_start_ms))
            .memory_pressure(self.memory_pressure)
            .gpu_memory_mib(self.gpu_memory_mib)
            .max_body_bytes(self.max_body_bytes)
            .embedding_dimensions(self.embedding_dimensions)
            .shutdown_grace(Duration::from_millis(self.shutdown_grace_ms))
            .log_requests(self.log_requests);
        for model in self.models {
            builder = builder.model(model);
        }
        if let Some(uuid) = self.gpu_uuid {
            builder = builder.gpu_uuid(uuid);
        }
        builder.build()
    }
}
