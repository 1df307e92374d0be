//! GPUs of this machine, read through NVIDIA's management library (NVML), without an exporter.
//!
//! For a balancer beside the GPUs, such as a sidecar: what is read goes through the same [rules](super::Rule), and to the
//! balancer by [`BalanceHandle::report`](crate::BalanceHandle::report).
//!
//! ```no_run
//! use std::time::Duration;
//! use forebay_balance::probe::{GpuMemoryRule, Rule as _, nvml::Gpus};
//!
//! # fn report(handle: &forebay_balance::BalanceHandle) -> Result<(), forebay_balance::probe::nvml::GpuError> {
//! let (gpus, mut rule) = (Gpus::new()?, GpuMemoryRule::default());
//! let report = gpus.read()?; // every few seconds
//! let verdict = rule.judge(&report, std::time::Instant::now());
//! handle.report("http://127.0.0.1:8000", report.requests(), verdict, Duration::from_secs(90));
//! # Ok(())
//! # }
//! ```

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError};
use nvml_wrapper::error::NvmlError;

use super::{GpuReport, LoadReport};

/// The GPUs of this machine.
#[derive(Debug)]
pub struct Gpus {
    nvml: Nvml,
}

/// NVML is not there, or does not answer.
#[derive(Debug, thiserror::Error)]
#[error("the GPUs cannot be read: is NVIDIA's driver, with libnvidia-ml.so.1, installed?")]
pub struct GpuError(#[source] NvmlError);

/// What NVML says of one GPU; what it cannot say is `None`.
#[derive(Debug, Clone, Default)]
struct Device {
    uuid: Option<String>,
    index: u32,
    name: Option<String>,
    /// Used, free and total, in bytes.
    memory: Option<(u64, u64, u64)>,
    processes: Option<u32>,
    uncorrectable_ecc: Option<u64>,
}

impl Gpus {
    /// Opens NVML.
    ///
    /// # Errors
    ///
    /// There is no NVIDIA driver.
    pub fn new() -> Result<Self, GpuError> {
        Nvml::init().map(|nvml| Self { nvml }).map_err(GpuError)
    }

    /// All GPUs now: memory, processes with a compute context, uncorrectable memory errors. A GPU that does not answer is
    /// left out, and so is what one cannot tell; XID errors and remapped rows are not read here.
    ///
    /// It blocks for some milliseconds.
    ///
    /// # Errors
    ///
    /// NVML does not answer at all.
    pub fn read(&self) -> Result<LoadReport, GpuError> {
        let count = self.nvml.device_count().map_err(GpuError)?;
        Ok(report((0..count).filter_map(|index| self.device(index))))
    }

    fn device(&self, index: u32) -> Option<Device> {
        let device = self.nvml.device_by_index(index).ok()?;
        let errors = device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile);
        Some(Device {
            uuid: device.uuid().ok(),
            index,
            name: device.name().ok(),
            memory: device.memory_info().ok().map(|memory| (memory.used, memory.free, memory.total)),
            processes: device.running_compute_processes_count().ok(),
            uncorrectable_ecc: errors.ok(),
        })
    }
}

fn report(devices: impl IntoIterator<Item = Device>) -> LoadReport {
    let gpu = |device: Device| GpuReport {
        uuid: device.uuid,
        index: Some(device.index),
        name: device.name,
        memory_used: device.memory.map(|(used, ..)| used),
        memory_free: device.memory.map(|(_, free, _)| free),
        memory_total: device.memory.map(|(.., total)| total).filter(|total| *total > 0),
        uncorrectable_ecc: device.uncorrectable_ecc,
        processes: device.processes,
        ..GpuReport::default()
    };
    let gpus: Vec<_> = devices.into_iter().map(gpu).collect();
    // Unknown of one is unknown of all: a sum of the others would say idle.
    let processes = gpus.iter().map(|gpu| gpu.processes).sum::<Option<u32>>().filter(|_| !gpus.is_empty());
    LoadReport { processes, gpus, ..LoadReport::default() }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::probe::{CloseCause, GpuFaultRule, GpuMemoryRule, Rule as _, Verdict};

    /// As an H100 with 80 GB says.
    fn h100(free: u64) -> Device {
        let total = 85_520_809_984;
        Device {
            uuid: Some("GPU-6c1f1b1e-0000-0000-0000-000000000000".to_owned()),
            index: 0,
            name: Some("NVIDIA H100 80GB HBM3".to_owned()),
            memory: Some((total - free, free, total)),
            processes: Some(1),
            uncorrectable_ecc: Some(0),
        }
    }

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[test]
    fn recorded_values_become_a_report_and_rules_judge_it() {
        let read = report([h100(40_000_000_000), Device { index: 1, ..h100(1_000_000_000) }]);
        assert_eq!((read.processes, read.gpus.len()), (Some(2), 2));
        assert_eq!(read.requests(), None, "NVML knows of no requests");
        let mut rule = GpuMemoryRule::default();
        assert_eq!(rule.judge(&read, now()), Verdict::Factor(0.5), "the second has 1.2 % free");
        let short = report([h100(100_000_000)]);
        let verdicts: Vec<_> = (0..3).map(|_| rule.judge(&short, now())).collect();
        assert_eq!(verdicts[2], Verdict::Close(CloseCause::GpuMemory));
    }

    #[test]
    fn what_a_gpu_cannot_say_is_unknown() {
        let silent = Device { index: 3, ..Device::default() };
        let read = report([h100(1), silent]);
        assert_eq!((read.processes, read.gpus[1].memory_free), (None, None));
        assert_eq!(report([]).processes, None);
        let broken = Device { memory: Some((0, 0, 0)), ..h100(1) };
        assert_eq!(report([broken]).least_free(), None, "nothing of nothing is no ratio");
    }

    #[test]
    fn new_uncorrectable_errors_close() {
        let mut rule = GpuFaultRule::new();
        let of = |errors| report([Device { uncorrectable_ecc: Some(errors), ..h100(1_000_000_000) }]);
        assert_eq!(rule.judge(&of(4), now()), Verdict::Factor(1.0), "they may be old");
        assert!(matches!(rule.judge(&of(5), now()), Verdict::Close(_)));
    }

    #[test]
    fn without_a_driver_the_error_says_what_to_install() {
        let error = GpuError(NvmlError::DriverNotLoaded);
        assert!(error.to_string().contains("libnvidia-ml.so.1"));
        assert!(std::error::Error::source(&error).is_some());
    }

    /// `cargo test -p forebay-balance --features nvml -- --ignored a_real_gpu`, on a machine with an NVIDIA GPU.
    #[test]
    #[ignore = "needs an NVIDIA GPU: cargo test -p forebay-balance --features nvml -- --ignored a_real_gpu"]
    fn a_real_gpu_says_its_name_and_memory() {
        let read = Gpus::new().expect("NVIDIA's driver").read().expect("NVML answers");
        assert!(!read.gpus.is_empty());
        for gpu in &read.gpus {
            assert!(gpu.name.is_some() && gpu.uuid.is_some());
            assert!(gpu.free_ratio().is_some_and(|free| (0.0..=1.0).contains(&free)), "{gpu:?}");
        }
    }
}
