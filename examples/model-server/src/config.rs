//! How a server behaves, and the builder that checks it.

use std::{fmt, net::SocketAddr, time::Duration};

use crate::Faults;

/// The simulated server; see the crate's page.
#[derive(Clone, Copy, Debug)]
pub struct ModelServer;

impl ModelServer {
    /// Starts a configuration.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }
}

/// How a server behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Names it answers to; the first labels the metrics.
    pub models: Vec<String>,
    /// Requests decoded at the same time.
    pub slots: usize,
    /// Requests that may wait; those beyond get 503.
    pub max_waiting: usize,
    /// Size of the KV cache in tokens; also the longest context.
    pub kv_tokens: u64,
    /// Prompt tokens read per second.
    pub prefill_tokens_per_second: f64,
    /// Output tokens per second of each request.
    pub decode_tokens_per_second: f64,
    /// Whether requests take no time, and neither slot nor KV cache.
    pub instant: bool,
    /// Blocks of 16 prompt tokens remembered, whose prefill is free; 0 is off.
    pub prefix_cache_blocks: usize,
    /// What goes wrong.
    pub faults: Faults,
    /// How long after the start everything but metrics and statistics is answered 503.
    pub slow_start: Duration,
    /// Share of GPU memory in use, 0 to 1.
    pub memory_pressure: f64,
    /// GPU memory in MiB.
    pub gpu_memory_mib: u64,
    /// Name of the GPU.
    pub gpu_model: String,
    /// UUID of the GPU; made from the address by default.
    pub gpu_uuid: Option<String>,
    /// Largest request body in bytes.
    pub max_body_bytes: usize,
    /// Length of embeddings when the request does not say.
    pub embedding_dimensions: u32,
    /// How long running answers may go on after the shutdown signal.
    pub shutdown_grace: Duration,
    /// Whether method, path and status of each request go to stderr; never a prompt.
    pub log_requests: bool,
}

/// Checks and makes a [`Config`]; made by [`ModelServer::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ConfigBuilder {
    config: Config,
}

impl Default for ConfigBuilder {
    fn default() -> Self {
        let config = Config {
            models: Vec::new(),
            slots: 8,
            max_waiting: 1024,
            kv_tokens: 131_072,
            prefill_tokens_per_second: 8000.0,
            decode_tokens_per_second: 50.0,
            instant: false,
            prefix_cache_blocks: 0,
            faults: Faults::default(),
            slow_start: Duration::ZERO,
            memory_pressure: 0.5,
            gpu_memory_mib: 81_559,
            gpu_model: "NVIDIA H100 80GB HBM3".to_owned(),
            gpu_uuid: None,
            max_body_bytes: 8 << 20,
            embedding_dimensions: 256,
            shutdown_grace: Duration::from_secs(5),
            log_requests: false,
        };
        Self { config }
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])+ $name:ident: $type:ty;)+) => {
        $($(#[$doc])+ pub fn $name(mut self, $name: $type) -> Self { self.config.$name = $name; self })+
    };
}

impl ConfigBuilder {
    setters! {
        /// Sets how many requests are decoded at the same time, at least 1; default 8.
        slots: usize;
        /// Sets how many requests may wait; default 1024.
        max_waiting: usize;
        /// Sets the size of the KV cache in tokens, at least 1; default 131072.
        kv_tokens: u64;
        /// Sets the prompt tokens read per second, above 0; default 8000.
        prefill_tokens_per_second: f64;
        /// Sets the output tokens per second of each request, above 0; default 50.
        decode_tokens_per_second: f64;
        /// Sets whether requests take no time, slot or KV cache; default no.
        instant: bool;
        /// Sets how many blocks of 16 prompt tokens are remembered, whose prefill is free; default 0, off.
        prefix_cache_blocks: usize;
        /// Sets what goes wrong; default nothing.
        faults: Faults;
        /// Sets how long after the start requests and `/health` are answered 503; default zero.
        slow_start: Duration;
        /// Sets the share of GPU memory in use, 0 to 1; default 0.5.
        memory_pressure: f64;
        /// Sets the GPU memory in MiB; default 81559.
        gpu_memory_mib: u64;
        /// Sets the largest request body in bytes; default 8 MiB.
        max_body_bytes: usize;
        /// Sets the length of embeddings, 1 to 4096, when the request does not say; default 256.
        embedding_dimensions: u32;
        /// Sets how long running answers may go on after the shutdown signal; default 5 s.
        shutdown_grace: Duration;
        /// Sets whether method, path and status of each request go to stderr; default no.
        log_requests: bool;
    }

    /// Adds a name that the server answers to; without one it is `sim-7b`.
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.config.models.push(name.into());
        self
    }

    /// Sets the name of the GPU in the metrics.
    pub fn gpu_model(mut self, name: impl Into<String>) -> Self {
        self.config.gpu_model = name.into();
        self
    }

    /// Sets the UUID of the GPU in the metrics; default: made from the server's address.
    pub fn gpu_uuid(mut self, uuid: impl Into<String>) -> Self {
        self.config.gpu_uuid = Some(uuid.into());
        self
    }

    /// Checks all fields.
    ///
    /// # Errors
    ///
    /// Names every field out of its range, with its value.
    pub fn build(self) -> Result<Config, ConfigError> {
        let mut config = self.config;
        if config.models.is_empty() {
            config.models.push("sim-7b".to_owned());
        }
        let mut problems = Vec::new();
        let mut check = |good: bool, field: &'static str, value: &dyn fmt::Display, range: &'static str| {
            if !good {
                problems.push(format!("{field} is {value}, must be {range}"));
            }
        };
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let rate = |value: f64| value > 0.0 && value.is_finite();
        let shares = config.faults.shares();
        let sum: f64 = shares.iter().map(|(_, share)| share).sum();
        check(config.models.iter().all(|name| !name.is_empty()), "model", &"''", "a name");
        check(config.slots > 0, "slots", &config.slots, "at least 1");
        check(config.kv_tokens > 0, "kv_tokens", &config.kv_tokens, "at least 1");
        let (prefill, decode) = (config.prefill_tokens_per_second, config.decode_tokens_per_second);
        check(rate(prefill), "prefill_tokens_per_second", &prefill, "a number above 0");
        check(rate(decode), "decode_tokens_per_second", &decode, "a number above 0");
        for (field, value) in shares {
            check(share(value), field, &value, "from 0 to 1");
        }
        check(sum <= 1.0 + 1e-9 || sum.is_nan(), "the sum of the fault shares", &sum, "at most 1");
        check(share(config.memory_pressure), "memory_pressure", &config.memory_pressure, "from 0 to 1");
        let dimensions = config.embedding_dimensions;
        check((1..=4096).contains(&dimensions), "embedding_dimensions", &dimensions, "from 1 to 4096");
        if problems.is_empty() { Ok(config) } else { Err(ConfigError { problems }) }
    }
}

/// A configuration that cannot be: every bad field, its value and its range.
#[derive(Debug, thiserror::Error)]
#[error("{}", problems.join("; "))]
pub struct ConfigError {
    problems: Vec<String>,
}

/// Makes a UUID that differs between servers on one machine and stays the same for one address.
pub(crate) fn gpu_uuid(config: &Config, address: SocketAddr) -> String {
    config.gpu_uuid.clone().unwrap_or_else(|| {
        let hash = crate::answer::Hash::new().part(address.to_string().as_bytes()).finish();
        format!("GPU-{:08x}-{:04x}-{:04x}-0000-000000000000", hash >> 32, hash >> 16 & 0xffff, hash & 0xffff)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bad_fields_are_named_at_once() {
        let faults = Faults { error_share: 2.0, ..Faults::default() };
        let builder = ModelServer::builder().slots(0).decode_tokens_per_second(f64::NAN).faults(faults);
        let error = builder.build().unwrap_err().to_string();
        for part in ["slots is 0", "decode_tokens_per_second is NaN", "error_share is 2, must be from 0 to 1", "sum"] {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(ModelServer::builder().build().unwrap().models, ["sim-7b"]);
    }
}
