//! Which names mean what, for the servers and exporters that we know.

#[cfg(feature = "client")]
use super::json::Document;
use super::{LoadReport, ParseError, Reader};

/// What a sample tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Running,
    Waiting,
    KvUsed,
    /// Memory, counted in units of so many bytes.
    MemoryUsed(u32),
    MemoryFree(u32),
    MemoryTotal(u32),
    Xid,
    RowRemapFailure,
    UncorrectableEcc,
    /// A row for each process, told apart by `pid`.
    Process,
    Processes,
    /// 0: the exporter could not count the processes.
    ProcessesKnown,
    /// Only the labels tell something.
    Device,
    DeviceIndex,
}

impl Signal {
    /// Whether it is about requests; other signals are about devices.
    pub(super) fn is_load(self) -> bool {
        matches!(self, Self::Running | Self::Waiting | Self::KvUsed)
    }
}

/// A name, the label that a row must carry if the name alone does not tell, and what it means.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meaning {
    pub(super) name: &'static str,
    pub(super) only: Option<(&'static str, &'static str)>,
    pub(super) signal: Signal,
}

const fn is(name: &'static str, signal: Signal) -> Meaning {
    Meaning { name, only: None, signal }
}

const fn only(name: &'static str, label: &'static str, value: &'static str, signal: Signal) -> Meaning {
    Meaning { name, only: Some((label, value)), signal }
}

const MIB: u32 = 1 << 20;

const VLLM: &[Meaning] = &[
    is("vllm:num_requests_running", Signal::Running),
    is("vllm:num_requests_waiting", Signal::Waiting),
    is("vllm:kv_cache_usage_perc", Signal::KvUsed),
    is("vllm:gpu_cache_usage_perc", Signal::KvUsed), // of older ones
];

const SGLANG: &[Meaning] = &[
    is("sglang:num_running_reqs", Signal::Running),
    is("sglang:num_queue_reqs", Signal::Waiting),
    is("sglang:token_usage", Signal::KvUsed),
];

const TENSORRT_LLM: &[Meaning] = &[
    is("trtllm_num_requests_running", Signal::Running),
    is("trtllm_num_requests_waiting", Signal::Waiting),
    is("trtllm_kv_cache_utilization", Signal::KvUsed),
];

/// What waits in the server and what waits in its LLM backend are two queues.
const TRITON: &[Meaning] = &[
    is("nv_inference_pending_request_count", Signal::Waiting),
    only("nv_trt_llm_request_metrics", "request_type", "scheduled", Signal::Running),
    only("nv_trt_llm_request_metrics", "request_type", "waiting", Signal::Waiting),
    only("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type", "fraction", Signal::KvUsed),
    is("nv_gpu_memory_used_bytes", Signal::MemoryUsed(1)),
    is("nv_gpu_memory_total_bytes", Signal::MemoryTotal(1)),
];

const TGI: &[Meaning] = &[is("tgi_batch_current_size", Signal::Running), is("tgi_queue_size", Signal::Waiting)];

const LLAMA_CPP: &[Meaning] = &[
    is("llamacpp:requests_processing", Signal::Running),
    is("llamacpp:requests_deferred", Signal::Waiting),
    is("llamacpp:kv_cache_usage_ratio", Signal::KvUsed), // of older ones
];

const DCGM: &[Meaning] = &[
    is("DCGM_FI_DEV_FB_USED", Signal::MemoryUsed(MIB)),
    is("DCGM_FI_DEV_FB_FREE", Signal::MemoryFree(MIB)),
    is("DCGM_FI_DEV_FB_TOTAL", Signal::MemoryTotal(MIB)),
    is("DCGM_FI_DEV_XID_ERRORS", Signal::Xid),
    is("DCGM_FI_DEV_ROW_REMAP_FAILURE", Signal::RowRemapFailure),
    is("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", Signal::UncorrectableEcc),
    is("DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", Signal::UncorrectableEcc),
    // gpu-monitoring-tools, before it became dcgm-exporter 2.0
    is("dcgm_fb_used", Signal::MemoryUsed(MIB)),
    is("dcgm_fb_free", Signal::MemoryFree(MIB)),
    is("dcgm_xid_errors", Signal::Xid),
    is("dcgm_ecc_dbe_volatile_total", Signal::UncorrectableEcc),
    is("dcgm_ecc_dbe_aggregate_total", Signal::UncorrectableEcc),
];

const NVIDIA_GPU_EXPORTER: &[Meaning] = &[
    is("nvidia_smi_gpu_info", Signal::Device),
    is("nvidia_smi_index", Signal::DeviceIndex),
    is("nvidia_smi_memory_used_bytes", Signal::MemoryUsed(1)),
    is("nvidia_smi_memory_free_bytes", Signal::MemoryFree(1)),
    is("nvidia_smi_memory_total_bytes", Signal::MemoryTotal(1)),
    is("nvidia_smi_remapped_rows_failure", Signal::RowRemapFailure),
    is("nvidia_smi_ecc_errors_uncorrected_volatile_total", Signal::UncorrectableEcc),
    is("nvidia_smi_ecc_errors_uncorrected_aggregate_total", Signal::UncorrectableEcc),
    is("nvidia_smi_compute_app_info", Signal::Process),
    is("nvidia_smi_compute_apps", Signal::Processes),
    is("nvidia_smi_compute_apps_last_collect_success", Signal::ProcessesKnown),
];

/// Knows which names of a metrics page mean what, old and new ones alike, and which rows are about this endpoint.
///
/// The names are those of each project's documentation; those of model servers also stand in the [model server
/// protocol] of the Gateway API inference extension.
///
/// [model server protocol]: https://github.com/kubernetes-sigs/gateway-api-inference-extension/tree/main/docs/proposals/003-model-server-protocol
#[derive(Debug, Clone)]
pub struct Preset {
    meanings: Vec<Meaning>,
    #[cfg(feature = "client")]
    document: Option<Document>,
    selectors: Vec<(String, String)>,
}

impl Preset {
    fn of(tables: &[&[Meaning]]) -> Self {
        Self {
            meanings: tables.concat(),
            #[cfg(feature = "client")]
            document: None,
            selectors: Vec::new(),
        }
    }

    #[cfg(feature = "client")]
    fn json(document: Document) -> Self {
        Self { document: Some(document), ..Self::of(&[]) }
    }

    /// [vLLM](https://docs.vllm.ai/en/latest/usage/metrics/): running, waiting, KV cache.
    #[must_use]
    pub fn vllm() -> Self {
        Self::of(&[VLLM])
    }

    /// [SGLang](https://docs.sglang.ai/references/production_metrics.html), started with `--enable-metrics`: running,
    /// waiting, KV cache. Tensor parallel ranks, which all tell the same, count once, and queues by priority are left
    /// out beside their sum.
    #[must_use]
    pub fn sglang() -> Self {
        Self::of(&[SGLANG])
    }

    /// `trtllm-serve` of [TensorRT-LLM](https://nvidia.github.io/TensorRT-LLM/), under `/prometheus/metrics`: running,
    /// waiting, KV cache.
    #[must_use]
    pub fn tensorrt_llm() -> Self {
        Self::of(&[TENSORRT_LLM])
    }

    /// [Triton](https://github.com/triton-inference-server/server/blob/main/docs/user_guide/metrics.md): pending
    /// requests and GPU memory; with its [LLM backend](https://github.com/triton-inference-server/tensorrtllm_backend)
    /// also running, waiting and KV cache.
    #[must_use]
    pub fn triton() -> Self {
        Self::of(&[TRITON])
    }

    /// [Text Generation Inference](https://huggingface.co/docs/text-generation-inference/reference/metrics): running
    /// (the batch) and waiting.
    #[must_use]
    pub fn tgi() -> Self {
        Self::of(&[TGI])
    }

    /// [llama.cpp](https://github.com/ggml-org/llama.cpp/tree/master/tools/server), started with `--metrics`: running
    /// and waiting, and the KV cache where an older one tells it.
    #[must_use]
    pub fn llama_cpp() -> Self {
        Self::of(&[LLAMA_CPP])
    }

    /// [dcgm-exporter](https://github.com/NVIDIA/dcgm-exporter): memory, XID errors, remapped rows, ECC. Its list of
    /// counters must contain them; by default those of remapped rows and XID errors are there, ECC is not.
    #[must_use]
    pub fn dcgm() -> Self {
        Self::of(&[DCGM])
    }

    /// [nvidia_gpu_exporter](https://github.com/utkuozdemir/nvidia_gpu_exporter): memory, remapped rows, ECC and
    /// processes.
    #[must_use]
    pub fn nvidia_gpu_exporter() -> Self {
        Self::of(&[NVIDIA_GPU_EXPORTER])
    }

    /// Whatever any of them would find: what is not there stays unknown.
    #[must_use]
    pub fn auto() -> Self {
        Self::of(&[VLLM, SGLANG, TENSORRT_LLM, TRITON, TGI, LLAMA_CPP, DCGM, NVIDIA_GPU_EXPORTER])
    }

    /// `/v1/loads` of [SGLang](https://docs.sglang.io), which needs no `--enable-metrics`: running, waiting and KV cache
    /// as JSON. `/v1/loads?include=core` is the shortest. Data parallel ranks add up; while one of them has not reported
    /// since the start, nothing is known. With the feature `client`.
    #[cfg(feature = "client")]
    #[must_use]
    pub fn sglang_loads() -> Self {
        Self::json(Document::SglangLoads)
    }

    /// `/load` of [vLLM](https://docs.vllm.ai), started with `--enable-server-load-tracking`: all requests that it has,
    /// as JSON, which count as running. It says 0 also if started without, so 0 is unknown here: `/metrics` says more.
    /// Of several API servers (`--api-server-count`) one answers, for itself. With the feature `client`.
    #[cfg(feature = "client")]
    #[must_use]
    pub fn vllm_load() -> Self {
        Self::json(Document::VllmLoad)
    }

    /// `/slots` of [llama.cpp](https://github.com/ggml-org/llama.cpp/tree/master/tools/server), which needs no
    /// `--metrics`: the busy slots, as JSON, which count as running. What waits beyond them it does not say, and counts
    /// for nothing. With the feature `client`.
    #[cfg(feature = "client")]
    #[must_use]
    pub fn llama_cpp_slots() -> Self {
        Self::json(Document::LlamaCppSlots)
    }

    /// Takes only rows where the label has this value; called again with the same label, any of the values will do.
    ///
    /// A few labels are known under several names. `model` (also `model_name`) chooses among requests, and leaves GPUs
    /// alone; `gpu` (the index), `UUID` (with or without `GPU-`) and `GPU_I_ID` (the MIG instance) choose devices, and
    /// leave requests alone. Every other label, such as `pod` (`exported_pod` before `pod`, which then is the
    /// exporter's own) or `namespace`, chooses among all rows. A row that does not carry the label is not taken: it may
    /// be about others; so of a JSON document, which has no labels, only a choice among devices takes anything.
    #[must_use]
    pub fn select(mut self, label: impl Into<String>, value: impl Into<String>) -> Self {
        self.selectors.push((label.into(), value.into()));
        self
    }

    /// A reader for one page.
    #[must_use]
    pub fn reader(&self) -> Reader {
        #[cfg(feature = "client")]
        if let Some(document) = self.document {
            let devices = |(label, _): &(String, String)| ["gpu", "UUID", "GPU_I_ID"].contains(&&**label);
            return Reader::json(document, !self.selectors.iter().all(devices));
        }
        Reader::new(self.meanings.clone(), self.selectors.clone())
    }

    /// Reads a whole page.
    ///
    /// # Errors
    ///
    /// [`ParseError`] if the page is not metrics, or not the JSON of this preset, or too long.
    pub fn read(&self, page: &[u8]) -> Result<LoadReport, ParseError> {
        let mut reader = self.reader();
        reader.push(page)?;
        reader.finish()
    }
}
