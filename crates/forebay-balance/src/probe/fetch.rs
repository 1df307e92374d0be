use std::sync::Arc;
use std::time::Duration;

use super::{GpuFaultRule, GpuMemoryRule, KvCacheRule, LoadReport, Preset, Rule};
use crate::health::check_path;

/// How long what a GPU exporter said holds: they look every 30 s or less often.
const GPU_VALID: Duration = Duration::from_secs(90);

/// What makes the rules of one endpoint.
type Rules = Arc<dyn Fn() -> Vec<Box<dyn Rule>> + Send + Sync>;

/// Fetches the metrics page of each endpoint, again and again, and lets rules judge it.
///
/// Requests that run or wait there and are not ours join ours when endpoints are compared; the rules multiply the
/// weight, or close the endpoint. What a page does not say, or has not said for three intervals, is unknown, and then
/// taken to be as at the others of the pool.
#[derive(Clone)]
#[must_use]
pub struct MetricsProbe {
    pub(crate) preset: Preset,
    pub(crate) path: String,
    pub(crate) at: Option<String>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) max_bytes: usize,
    pub(crate) baseline: u32,
    pub(crate) rules: Rules,
    pub(crate) gpu_exporter: bool,
    /// It comes with the answers, and is not fetched.
    pub(crate) orca: bool,
}

impl std::fmt::Debug for MetricsProbe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetricsProbe").field("path", &self.path).field("at", &self.at).finish_non_exhaustive()
    }
}

impl MetricsProbe {
    /// Reads the page at this path with a preset. By default the rules are [`KvCacheRule`], [`GpuMemoryRule`] and
    /// [`GpuFaultRule`], which act where a page has their signals.
    pub fn new(preset: Preset, path: impl Into<String>) -> Self {
        Self {
            preset,
            path: path.into(),
            at: None,
            interval: Duration::from_millis(500),
            timeout: Duration::from_secs(1),
            max_bytes: 4 << 20,
            baseline: 1,
            rules: Arc::new(|| {
                vec![
                    Box::new(KvCacheRule::default()),
                    Box::new(GpuMemoryRule::default()),
                    Box::new(GpuFaultRule::new()),
                ]
            }),
            gpu_exporter: false,
            orca: false,
        }
    }

    /// Of vLLM, at this path: `/metrics`.
    pub fn vllm(path: impl Into<String>) -> Self {
        Self::new(Preset::vllm(), path)
    }

    /// Whatever any server that we know says at this path.
    pub fn auto(path: impl Into<String>) -> Self {
        Self::new(Preset::auto(), path)
    }

    /// Of dcgm-exporter, at its own address; choose the rows of each endpoint by
    /// [`Endpoint::probe_select`](crate::Endpoint::probe_select).
    pub fn dcgm(at: impl Into<String>, path: impl Into<String>) -> Self {
        Self { gpu_exporter: true, ..Self::new(Preset::dcgm(), path).at(at) }
    }

    /// Of nvidia_gpu_exporter, at its own address.
    pub fn nvidia_gpu_exporter(at: impl Into<String>, path: impl Into<String>) -> Self {
        Self { gpu_exporter: true, ..Self::new(Preset::nvidia_gpu_exporter(), path).at(at) }
    }

    /// Fetches nothing, but asks for a load report with each request (`endpoint-load-metrics-format: TEXT`) and reads that
    /// of the answer's head (`endpoint-load-metrics`): [ORCA], which vLLM speaks. As text, with or without `TEXT`, or as
    /// `JSON`; of its named metrics `kv_cache_usage_perc` (or `kv_cache_utilization`), `num_requests_waiting` and
    /// `num_requests_running` count. One is judged each [interval](Self::interval), and holds as long as a page. The
    /// client sees neither, unless it asks itself.
    ///
    /// vLLM does not say how many run: for that, add its `/metrics`.
    ///
    /// [ORCA]: https://github.com/grpc/proposal/blob/master/A51-custom-backend-metrics.md
    pub fn orca() -> Self {
        Self { orca: true, ..Self::new(Preset::auto(), "/") }
    }

    /// Asks another server than the endpoint: a base URL, such as `http://10.0.0.1:9400`, or `{host}` in it for the
    /// endpoint's own host: `http://{host}:9400`. Of its rows each endpoint takes those that it
    /// [selects](crate::Endpoint::probe_select).
    pub fn at(mut self, url: impl Into<String>) -> Self {
        self.at = Some(url.into());
        self
    }

    /// How long after an answer the next page is fetched, give or take a fifth. Default 500 ms.
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How long a page may take. Default 1 s.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The longest page in bytes; of a longer one nothing is believed. Default 4 MiB.
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How many processes on the GPUs are the server itself; where a page counts no requests, each process beyond these
    /// is one. Default 1.
    pub const fn baseline(mut self, processes: u32) -> Self {
        self.baseline = processes;
        self
    }

    /// The rules of an endpoint, made anew for each.
    pub fn rules(mut self, rules: impl Fn() -> Vec<Box<dyn Rule>> + Send + Sync + 'static) -> Self {
        self.rules = Arc::new(rules);
        self
    }

    pub(crate) fn check(&self, problems: &mut Vec<String>) {
        check_path("probe.path", &self.path, problems);
        for (name, time) in [("interval", self.interval), ("timeout", self.timeout)] {
            if time.is_zero() {
                problems.push(format!("probe.{name} is 0: more than 0"));
            }
        }
        if self.orca && self.at.is_some() {
            problems.push("probe.at is set for ORCA: its reports come with the answers of the endpoint".to_owned());
        }
        if self.max_bytes == 0 {
            problems.push("probe.max_bytes is 0: more than 0".to_owned());
        }
    }

    /// How long an answer holds: three intervals, a second at least, 90 s of a GPU exporter.
    pub(crate) fn valid(&self) -> Duration {
        let least = if self.gpu_exporter { GPU_VALID } else { Duration::from_secs(1) };
        (self.interval * 3).max(least)
    }

    /// Requests that run and wait by this report, or processes beyond the baseline where it counts none.
    pub(crate) fn requests(&self, report: &LoadReport) -> Option<u32> {
        let processes = || report.processes.map(|processes| processes.saturating_sub(self.baseline));
        if (report.running, report.waiting) == (None, None) { processes() } else { report.requests() }
    }
}
