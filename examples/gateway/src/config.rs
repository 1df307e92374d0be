use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use forebay_core::{Class, ConfigError};
use serde::{Deserialize, Serialize};

use crate::gpu_exporter::{GpuExporter, check_rows};

mod priority;
mod uploads;

pub use priority::{Adaptive, ClassSettings, Preset, Priority, Seats, SeatsError};
pub use uploads::Uploads;

/// The whole configuration of a gateway: TOML, then environment variables over it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The largest request body, in bytes; beyond it 413.
    pub max_body_bytes: u64,
    /// How long a request may take from its arrival to the head of its answer, in seconds; beyond it 504.
    pub answer_timeout_seconds: u64,
    /// Whether to log each request (to stderr): method, path, status, class, time; no prompts, no keys.
    pub access_log: bool,
    /// How long running exchanges may go on after SIGTERM, in seconds.
    pub drain_timeout_seconds: u64,
    /// How request bodies are received.
    pub uploads: Uploads,
    /// How many exchanges may run at the backends at once.
    pub priority: Priority,
    /// The response cache.
    pub cache: Cache,
    /// The balancer.
    pub balance: Balancer,
    /// The job queue behind `Prefer: respond-async`.
    pub jobs: Jobs,
    /// What the autoscaler is told.
    pub autoscale: Autoscale,
    /// The most urgent class of each tier, by the tier's name.
    pub tiers: BTreeMap<String, String>,
    /// The API keys that are let in. None: everybody is, as class P2.
    pub keys: Vec<Key>,
    /// The backends.
    pub upstreams: Vec<Upstream>,
}

/// Settings of the balancer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Balancer {
    /// How long a backend may be silent within an answer that has begun, in seconds; then the answer breaks off.
    pub idle_timeout_seconds: u64,
    /// The path of a health check, such as `/health`; none: a backend that is listed is up. With it a backend gets
    /// nothing before its first success.
    pub health_path: Option<String>,
    /// The path of a metrics page of each backend, such as `/metrics` of vLLM, SGLang, TensorRT-LLM, Triton, TGI or
    /// llama.cpp: load that others bring and full KV caches then count. None: only what the gateway itself sends there.
    pub metrics_path: Option<String>,
    /// The exporter of the backends' GPUs, dcgm-exporter or nvidia_gpu_exporter; each backend takes its own rows of the
    /// page, see `gpu_rows`. None: GPUs are known only by what `metrics_path` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_exporter: Option<GpuExporter>,
    /// Whether requests with the same `session_id`, `user` or `prompt_cache_key` in their JSON go to one backend, as long
    /// as that has no more than its share. Those with the same `x-session-id` header always do.
    pub affinity_by_session: bool,
    /// Whether prompts with the same beginning (blocks of 2 KiB) go to the backend that was sent most of it, and so likely has
    /// it in its KV cache.
    pub affinity_by_prompt: bool,
    /// What requests of one session stay at from the first on, until a minute after the last: an `endpoint` or a `group`.
    /// None: they move when backends come and go, or one has more than its share.
    pub pin: Option<PinTo>,
    /// The pools of a class (`p0` to `p15`), in order. A class without a route uses `"default"`.
    pub routes: BTreeMap<String, Vec<String>>,
}

/// What requests of one session stay at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum PinTo {
    /// One backend.
    Endpoint,
    /// The backends of one group.
    Group,
}

/// Settings of the response cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Cache {
    /// The size of the memory tier, in bytes, at least 4 MiB.
    pub max_bytes: u64,
    /// How long a chat, completion or embedding answer stays fresh, in seconds.
    pub fresh_seconds: u64,
}

/// Settings of the job queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Jobs {
    /// The file that keeps the jobs; its folder is made if it is missing.
    pub file: PathBuf,
    /// How many jobs run at once.
    pub concurrency: usize,
    /// The part of these that the jobs of one tenant may hold, above 0 to 1; rounded up. Jobs of callers without a key
    /// count as those of one tenant.
    pub max_tenant_share: f64,
    /// How long an attempt at a job of a class (`p0` to `p15`) may take, in seconds. Default: 600 for `p0` to `p2`, 1800
    /// for all others.
    pub attempt_timeout_seconds: BTreeMap<String, u64>,
}

/// Settings of the autoscale layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Autoscale {
    /// Requests that one replica serves at once.
    pub slots_per_replica: u32,
    /// The fewest replicas.
    pub min_replicas: u32,
    /// The most replicas.
    pub max_replicas: u32,
}

/// An API key, and whose it is.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Key {
    /// The tenant, as which it counts everywhere behind: two keys of one tenant share cache and jobs.
    pub tenant: String,
    /// The tier, one of `tiers`.
    pub tier: String,
    /// The key itself, 8 to 512 visible ASCII characters.
    pub key: String,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("tenant", &self.tenant).field("tier", &self.tier).finish_non_exhaustive()
    }
}

/// One backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Upstream {
    /// Its base, such as `http://10.0.0.1:8000`.
    pub url: String,
    /// Its share of the work beside the others, 1 to 65535; 0 drains it. None: that of its GPU, or 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Its GPU, such as `"V100"` (weight 3), `"T4"` (2) or `"P4"` (1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// Its pool, one that a route of `[balance.routes]` names. None: `"default"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Its group, such as the machine whose GPUs it shares; see `balance.pin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The most exchanges at once; none: no bound but the priority layer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u32>,
    /// Whether to speak HTTP/2 to it (prior knowledge).
    #[serde(default)]
    pub http2: bool,
    /// Whether each address of its name is a backend of its own; the name is looked up every 5 s.
    #[serde(default)]
    pub dns: bool,
    /// Which rows of the page of `balance.gpu_exporter` are about it: values by label, such as `gpu`, `UUID`, `GPU_I_ID`
    /// (MIG), `pod` or `namespace`. Every label must fit, with any of its values. None: all rows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gpu_rows: BTreeMap<String, Vec<String>>,
}

impl Upstream {
    /// A backend at `url` with this weight.
    pub fn new(url: impl Into<String>, weight: u16) -> Self {
        Self {
            url: url.into(),
            weight: Some(weight),
            gpu: None,
            pool: None,
            group: None,
            max_concurrency: None,
            http2: false,
            dns: false,
            gpu_rows: BTreeMap::new(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            max_body_bytes: 8 << 20,
            answer_timeout_seconds: 300,
            access_log: true,
            drain_timeout_seconds: 30,
            uploads: Uploads::default(),
            priority: Priority::default(),
            cache: Cache::default(),
            balance: Balancer::default(),
            jobs: Jobs::default(),
            autoscale: Autoscale::default(),
            tiers: BTreeMap::new(),
            keys: Vec::new(),
            upstreams: Vec::new(),
        }
    }
}

impl Default for Balancer {
    fn default() -> Self {
        Self {
            idle_timeout_seconds: 120,
            health_path: None,
            metrics_path: None,
            gpu_exporter: None,
            affinity_by_session: false,
            affinity_by_prompt: false,
            pin: None,
            routes: BTreeMap::new(),
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self { max_bytes: 256 << 20, fresh_seconds: 3600 }
    }
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            file: ".forebay/jobs.redb".into(),
            concurrency: 16,
            max_tenant_share: 0.5,
            attempt_timeout_seconds: BTreeMap::new(),
        }
    }
}

impl Default for Autoscale {
    fn default() -> Self {
        Self { slots_per_replica: 8, min_replicas: 3, max_replicas: 20 }
    }
}

impl Config {
    /// Reads `file`, then the environment: `FOREBAY_LISTEN`, `FOREBAY_PRIORITY_LIMIT`, `FOREBAY_JOBS_FILE`,
    /// `FOREBAY_DRAIN_TIMEOUT_SECONDS`, and `FOREBAY_UPSTREAMS` (`url=weight,url=weight`).
    ///
    /// # Errors
    ///
    /// The file cannot be read or parsed, or a value is out of range; the text names the file, line, field and range.
    pub fn load(file: Option<&Path>, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut config = match file {
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|error| ConfigError::new([format!("cannot read {}: {error}", file.display())]))?;
                Self::parse(&text).map_err(|error| {
                    ConfigError::new(error.problems().iter().map(|problem| format!("{}: {problem}", file.display())))
                })?
            }
            None => Self::default(),
        };
        config.override_by(env)?;
        Ok(config)
    }

    /// Reads TOML.
    ///
    /// # Errors
    ///
    /// It is no TOML, or has a field that there is not, or a value of the wrong type.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError::new([error.to_string().trim().replace('\n', " ")]))
    }

    fn override_by(&mut self, env: impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        fn set<T: std::str::FromStr>(name: &str, text: Option<String>, field: &mut T, problems: &mut Vec<String>) {
            if let Some(text) = text {
                match text.parse() {
                    Ok(value) => *field = value,
                    Err(_) => problems.push(format!("{name} is {text:?}: not a value of its field")),
                }
            }
        }
        let mut problems = Vec::new();
        let over = |name: &str| env(name);
        set("FOREBAY_LISTEN", over("FOREBAY_LISTEN"), &mut self.listen, &mut problems);
        if let Some(text) = over("FOREBAY_PRIORITY_LIMIT") {
            match text.parse() {
                Ok(seats) => self.priority.limit = Some(seats),
                Err(error) => problems.push(format!("FOREBAY_PRIORITY_LIMIT is {text:?}: {error}")),
            }
        }
        let seconds = &mut self.drain_timeout_seconds;
        set("FOREBAY_DRAIN_TIMEOUT_SECONDS", over("FOREBAY_DRAIN_TIMEOUT_SECONDS"), seconds, &mut problems);
        if let Some(path) = over("FOREBAY_JOBS_FILE") {
            self.jobs.file = path.into();
        }
        if let Some(list) = over("FOREBAY_UPSTREAMS") {
            self.upstreams.clear();
            for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
                let (url, weight) = item.rsplit_once('=').unwrap_or((item, "1"));
                match weight.parse() {
                    Ok(weight) => self.upstreams.push(Upstream::new(url, weight)),
                    Err(_) => {
                        problems.push(format!("FOREBAY_UPSTREAMS has weight {weight:?}: url=weight, weight 1 to 65535"))
                    }
                }
            }
        }
        ConfigError::check(problems)
    }

    /// Checks what no single layer does: keys, tiers and bounds.
    ///
    /// # Errors
    ///
    /// Every field that is out of range, at once.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        if self.max_body_bytes == 0 {
            problems.push("max_body_bytes is 0: at least 1".to_owned());
        }
        self.uploads.check(&mut problems);
        if self.balance.idle_timeout_seconds == 0 {
            problems.push("balance.idle_timeout_seconds is 0: must be at least 1".to_owned());
        }
        if self.answer_timeout_seconds == 0 {
            problems.push("answer_timeout_seconds is 0: at least 1".to_owned());
        }
        if self.upstreams.is_empty() {
            problems.push("upstreams is empty: give at least one [[upstreams]] with a url".to_owned());
        }
        if self.jobs.concurrency == 0 || self.jobs.concurrency > 10_000 {
            problems.push(format!("jobs.concurrency is {}: 1 to 10000", self.jobs.concurrency));
        }
        if !(self.jobs.max_tenant_share > 0.0 && self.jobs.max_tenant_share <= 1.0) {
            let share = self.jobs.max_tenant_share;
            problems.push(format!("jobs.max_tenant_share is {share}: must be above 0, at most 1"));
        }
        for (class, seconds) in &self.jobs.attempt_timeout_seconds {
            if class.parse::<Class>().is_err() {
                problems.push(format!("jobs.attempt_timeout_seconds has {class:?}: p0 (most urgent) to p15"));
            }
            if *seconds == 0 {
                problems.push(format!("jobs.attempt_timeout_seconds.{class} is 0: must be at least 1"));
            }
        }
        if let Err(error) = self.priority.layer(&self.upstreams) {
            problems.extend(error.problems().iter().cloned());
        }
        for class in self.balance.routes.keys().filter(|class| class.parse::<Class>().is_err()) {
            problems.push(format!("balance.routes has {class:?}: p0 (most urgent) to p15"));
        }
        if let Some(exporter) = &self.balance.gpu_exporter {
            exporter.check(&mut problems);
        }
        for (i, upstream) in self.upstreams.iter().enumerate() {
            let there = self.balance.gpu_exporter.is_some();
            check_rows(&format!("upstreams[{i}].gpu_rows"), &upstream.gpu_rows, there, &mut problems);
        }
        for (tier, class) in &self.tiers {
            if class.parse::<Class>().is_err() {
                problems.push(format!("tiers.{tier} is {class:?}: p0 (most urgent) to p15"));
            }
        }
        for (i, key) in self.keys.iter().enumerate() {
            if !self.tiers.contains_key(&key.tier) {
                problems.push(format!("keys[{i}].tier is {:?}: one of the names under [tiers]", key.tier));
            }
            if key.tenant.is_empty() {
                problems.push(format!("keys[{i}].tenant is empty: name the tenant"));
            }
            // The key itself stays out of the message.
            if !(8..=512).contains(&key.key.len()) || !key.key.bytes().all(|byte| byte.is_ascii_graphic()) {
                problems.push(format!("keys[{i}].key is not 8 to 512 visible ASCII characters"));
            }
            if self.keys[..i].iter().any(|other| other.key == key.key) {
                problems.push(format!("keys[{i}].key stands in the list before"));
            }
        }
        ConfigError::check(problems)
    }

    /// The configuration in force as TOML: with every setting of the priority layer, and the keys blanked out.
    ///
    /// # Errors
    ///
    /// A value that TOML cannot hold (a number above i64).
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        let mut shown = self.clone();
        shown.priority = self.priority.in_force(&self.priority.layer(&self.upstreams)?);
        for key in &mut shown.keys {
            key.key = "<hidden>".into();
        }
        toml::to_string(&shown).map_err(|error| ConfigError::new([error.to_string()]))
    }
}

#[cfg(test)]
mod tests;
