//! `/metrics` in the Prometheus text format, with the names of vLLM (V1 engine) and of NVIDIA's DCGM exporter.

use std::{
    fmt::{Display, Write},
    sync::atomic::Ordering::Relaxed,
};

use http::HeaderValue;

use crate::{engine::Engine, histogram::Histogram, prefix::BLOCK_TOKENS, stats::read};

pub(crate) const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

pub(crate) fn render(engine: &Engine) -> String {
    let mut page = Page { out: String::with_capacity(8192), model: escape(&engine.config.models[0]) };
    vllm(&mut page, engine);
    dcgm(&mut page, engine);
    page.out
}

struct Page {
    out: String,
    model: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "gauge", help);
        let _ = writeln!(self.out, "{name}{{model_name=\"{}\"}} {value:?}", self.model);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        let _ = writeln!(self.out, "{name}{{model_name=\"{}\"}} {value}.0", self.model);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        histogram.render(&mut self.out, name, &self.model);
    }
}

fn vllm(page: &mut Page, engine: &Engine) {
    let (stats, c) = (engine.stats(), &engine.counters);
    let blocks = engine.config.kv_tokens.div_ceil(BLOCK_TOKENS);
    page.head("vllm:cache_config_info", "gauge", "Information of the LLMEngine CacheConfig");
    let caching = if engine.has_prefix_cache() { "True" } else { "False" };
    let _ = writeln!(
        page.out,
        "vllm:cache_config_info{{block_size=\"{BLOCK_TOKENS}\",enable_prefix_caching=\"{caching}\",\
         num_gpu_blocks=\"{blocks}\"}} 1.0"
    );
    let running = "Number of requests in model execution batches.";
    page.gauge("vllm:num_requests_running", running, stats.running as f64);
    page.gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", stats.waiting as f64);
    let usage = stats.kv_tokens_used as f64 / engine.config.kv_tokens as f64;
    page.gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", usage);
    page.counter("vllm:num_preemptions_total", "Cumulative number of preemption from the engine.", 0);
    page.counter("vllm:prompt_tokens_total", "Number of prefill tokens processed.", read(&c.prompt_tokens));
    page.counter("vllm:generation_tokens_total", "Number of generation tokens processed.", stats.tokens_generated);
    let queries = "Prefix cache queries, in terms of number of queried tokens.";
    page.counter("vllm:prefix_cache_queries_total", queries, read(&c.prefix_queries));
    let hits = "Prefix cache hits, in terms of number of cached tokens.";
    page.counter("vllm:prefix_cache_hits_total", hits, read(&c.prefix_hits));
    page.head("vllm:request_success_total", "counter", "Count of successfully processed requests.");
    let ends = [("stop", &c.stopped), ("length", &c.cut_at_length), ("abort", &c.cancelled), ("error", &c.failed)];
    for (reason, count) in ends {
        let (model, count) = (&page.model, read(count));
        let _ = writeln!(
            page.out,
            "vllm:request_success_total{{finished_reason=\"{reason}\",model_name=\"{model}\"}} {count}.0"
        );
    }
    let first = "Histogram of time to first token in seconds.";
    page.histogram("vllm:time_to_first_token_seconds", first, &engine.first_token);
    let queued = "Histogram of time spent in WAITING phase for request.";
    page.histogram("vllm:request_queue_time_seconds", queued, &engine.queued);
    let whole = "Histogram of e2e request latency in seconds.";
    page.histogram("vllm:e2e_request_latency_seconds", whole, &engine.whole);
}

fn dcgm(page: &mut Page, engine: &Engine) {
    let (total, stats) = (engine.config.gpu_memory_mib, engine.stats());
    let pressure = f64::from_bits(engine.memory_pressure.load(Relaxed));
    let used = ((total as f64 * pressure).round() as u64).min(total);
    let busy = if engine.config.instant { 0.0 } else { stats.running as f64 / engine.config.slots as f64 };
    let labels = format!(
        "gpu=\"0\",UUID=\"{}\",device=\"nvidia0\",modelName=\"{}\"",
        escape(&engine.gpu_uuid),
        escape(&engine.config.gpu_model)
    );
    let mut gauge = |name: &str, help: &str, value: &dyn Display| {
        page.head(name, "gauge", help);
        let _ = writeln!(page.out, "{name}{{{labels}}} {value}");
    };
    gauge("DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %).", &((busy * 100.0).round() as u64));
    gauge("DCGM_FI_DEV_FB_USED", "Framebuffer memory used (in MiB).", &used);
    gauge("DCGM_FI_DEV_FB_FREE", "Framebuffer memory free (in MiB).", &(total - used));
    gauge("DCGM_FI_DEV_XID_ERRORS", "Value of the last XID error encountered.", &read(&engine.xid));
}

/// Escapes a label's value (Prometheus text format 0.0.4).
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
