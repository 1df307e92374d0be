//! What is known about a server at one moment.

/// More requests at one server than this cannot be true.
const MAX_COUNT: u32 = 1_000_000;

/// More memory in one device than this, 16 TiB, cannot be true.
const MAX_MEMORY: f64 = (1u64 << 44) as f64;

/// How far a ratio may lie outside of 0 to 1 and still be a matter of rounding.
const ROUNDING: f64 = 0.001;

/// What a server says about its load and its GPUs. `None` is unknown, never zero.
///
/// Made by a [`Reader`](super::Reader), or by hand from [`Default`], where nothing is known.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct LoadReport {
    /// Requests being worked on, of all engines together.
    pub running: Option<u32>,
    /// Requests that wait at the server, of all engines together.
    pub waiting: Option<u32>,
    /// Processes with a compute context on the GPUs, counted once for each GPU that they use.
    pub processes: Option<u32>,
    /// The part of the KV cache in use, 0 to 1, of the engine where it is the largest.
    pub kv_used: Option<f32>,
    /// The devices, in the order in which they were first mentioned.
    pub gpus: Vec<GpuReport>,
}

impl LoadReport {
    /// Running and waiting requests together; unknown if either is.
    #[must_use]
    pub fn requests(&self) -> Option<u32> {
        Some(self.running?.saturating_add(self.waiting?))
    }

    /// The free part of memory, 0 to 1, of the GPU where it is the smallest.
    #[must_use]
    pub fn least_free(&self) -> Option<f32> {
        self.gpus.iter().filter_map(GpuReport::free_ratio).reduce(f32::min)
    }
}

/// What is known about one device: a GPU, or a MIG instance of one. `None` is unknown, never zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GpuReport {
    /// As the exporter writes it, with or without `GPU-`; with a MIG instance, that of its GPU.
    pub uuid: Option<String>,
    /// The number of the GPU in its machine.
    pub index: Option<u32>,
    /// The model, such as `NVIDIA H100 80GB HBM3`.
    pub name: Option<String>,
    /// The MIG instance (`GPU_I_ID`), if it is one.
    pub mig: Option<String>,
    /// The profile of the MIG instance, such as `1g.10gb`.
    pub mig_profile: Option<String>,
    /// Bytes in use.
    pub memory_used: Option<u64>,
    /// Bytes free.
    pub memory_free: Option<u64>,
    /// Bytes in all, of which the driver reserves a part.
    pub memory_total: Option<u64>,
    /// The last XID error, 0 if there was none. The exporter keeps it: an old one says nothing about now.
    pub xid: Option<u32>,
    /// Whether a memory row could not be remapped.
    pub row_remap_failure: Option<bool>,
    /// Uncorrectable memory errors so far.
    pub uncorrectable_ecc: Option<u64>,
    /// Processes with a compute context.
    pub processes: Option<u32>,
}

impl GpuReport {
    /// The free part of the memory, 0 to 1. If the total is unknown it is what is used and free, which leaves out what
    /// the driver reserves; if what is free is unknown it is the total less what is used.
    #[must_use]
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a ratio of at most 2^44")]
    pub fn free_ratio(&self) -> Option<f32> {
        let (free, total) = match (self.memory_used, self.memory_free, self.memory_total) {
            (_, Some(free), Some(total)) => (free, total),
            (Some(used), Some(free), None) => (free, used + free),
            (Some(used), None, Some(total)) => (total.saturating_sub(used), total),
            _ => return None,
        };
        (total > 0).then(|| (free as f64 / total as f64).min(1.0) as f32)
    }
}

/// A number of requests or processes; a part of one counts as one.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range, checked")]
pub(super) fn count(value: f64) -> Option<u32> {
    (0.0..=f64::from(MAX_COUNT)).contains(&value).then(|| value.ceil() as u32)
}

/// The sum, unless a part of it is unknown or it cannot be true.
pub(super) fn sum(counts: impl IntoIterator<Item = Option<u32>>) -> Option<u32> {
    counts.into_iter().try_fold(0u32, |sum, count| sum.checked_add(count?).filter(|sum| *sum <= MAX_COUNT))
}

/// A part of a whole, 0 to 1.
#[expect(clippy::cast_possible_truncation, reason = "a ratio")]
pub(super) fn ratio(value: f64) -> Option<f32> {
    (-ROUNDING..=1.0 + ROUNDING).contains(&value).then(|| value.clamp(0.0, 1.0) as f32)
}

/// Bytes, of which the exporter counts `unit` at a time.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range, checked")]
pub(super) fn memory(value: f64, unit: u32) -> Option<u64> {
    let bytes = value * f64::from(unit);
    (0.0..=MAX_MEMORY).contains(&bytes).then_some(bytes as u64)
}

/// A whole number up to `most`: neither NaN nor one of DCGM's blanks, which all are 2^31 - 16 or more.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range, checked")]
pub(super) fn whole(value: f64, most: u32) -> Option<u32> {
    ((0.0..=f64::from(most)).contains(&value) && value.fract() == 0.0).then_some(value as u32)
}
