//! What servers say about themselves: their metrics pages, read into a [`LoadReport`], and rules that judge it.
//!
//! All of it is pure: bytes and times come in as arguments, nothing is fetched here. A metrics page is fed to a
//! [`Reader`] as it arrives. What a page does not say, or says in a way that cannot be true, is unknown and stays
//! `None`: it is never taken for zero, so a server that tells nothing does not look idle.
//!
//! ```
//! use forebay_balance::probe::Preset;
//!
//! # fn main() -> Result<(), forebay_balance::probe::ParseError> {
//! let mut reader = Preset::vllm().reader();
//! reader.push(b"vllm:num_requests_running{model_name=\"m\",engine=\"0\"} 3.0\n")?;
//! reader.push(b"vllm:num_requests_running{model_name=\"m\",engine=\"1\"} 4.0\n")?;
//! reader.push(b"vllm:kv_cache_usage_perc{model_name=\"m\",engine=\"0\"} 0.5\n")?;
//! let report = reader.finish()?;
//!
//! assert_eq!(report.running, Some(7), "engines add up");
//! assert_eq!(report.kv_used, Some(0.5));
//! assert_eq!(report.waiting, None, "it did not say");
//! # Ok(())
//! # }
//! ```
//!
//! One exporter often speaks for many: [`Preset::select`] takes only the rows of a model, a GPU or a pod.
//!
//! ```
//! use forebay_balance::probe::Preset;
//!
//! # fn main() -> Result<(), forebay_balance::probe::ParseError> {
//! let page = b"DCGM_FI_DEV_FB_FREE{gpu=\"0\",UUID=\"GPU-a\"} 512
//! DCGM_FI_DEV_FB_FREE{gpu=\"1\",UUID=\"GPU-b\"} 80000
//! ";
//! let report = Preset::dcgm().select("gpu", "0").read(page)?;
//! assert_eq!(report.gpus.len(), 1);
//! assert_eq!(report.gpus[0].memory_free, Some(512 << 20), "in bytes, whatever the exporter counts in");
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "client")]
mod fetch;
#[cfg(feature = "client")]
mod json;
#[cfg(feature = "nvml")]
pub mod nvml;
#[cfg(feature = "client")]
pub(crate) mod orca;
mod preset;
mod reader;
mod report;
mod rules;
mod text;

#[cfg(feature = "client")]
pub use fetch::MetricsProbe;
pub use preset::Preset;
pub use reader::Reader;
pub use report::{GpuReport, LoadReport};
pub use rules::{CloseCause, GpuFault, GpuFaultRule, GpuMemoryRule, KvCacheRule, Rule, Verdict};
pub use text::{MAX_BYTES, MAX_LINE_BYTES, ParseError, Parser, Sample, Sink};
