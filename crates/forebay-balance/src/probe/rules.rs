//! What a report means for the endpoint's weight.

use std::{collections::HashMap, time::Instant};

use super::{GpuReport, LoadReport};

/// What a [`Rule`] says about an endpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// Its weight is multiplied by this, 0 to 1. Unknown signals give 1.
    Factor(f32),
    /// It gets no new requests.
    Close(CloseCause),
}

impl Verdict {
    /// What two rules say together: closed if either closes it, or else the product of the factors.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Factor(one), Self::Factor(two)) => Self::Factor(one * two),
            (Self::Close(cause), _) | (_, Self::Close(cause)) => Self::Close(cause),
        }
    }
}

/// Why a [`Rule`] closed an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseCause {
    /// A GPU has next to no free memory.
    GpuMemory,
    /// A GPU is broken.
    GpuFault(GpuFault),
    /// The KV cache is full and requests wait for it.
    KvCache,
    /// A cause of the user's own.
    Other(&'static str),
}

/// What is wrong with a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GpuFault {
    /// An [XID error](https://docs.nvidia.com/deploy/xid-errors/) that a restart or worse must heal.
    Xid(u32),
    /// A memory row that could not be remapped.
    RowRemapFailure,
    /// A new uncorrectable memory error.
    UncorrectableEcc,
}

/// Judges the reports of one endpoint, one after the other, and remembers what it needs to: each endpoint has a rule of
/// its own. A signal that is not there is no reason to close or to slow an endpoint.
pub trait Rule: Send {
    /// Judges a new report, which came at `now`.
    fn judge(&mut self, report: &LoadReport, now: Instant) -> Verdict;

    /// An operator says that the endpoint is well again. Default: nothing is remembered that would matter.
    fn clear(&mut self) {}
}

/// Closes an endpoint whose GPU runs out of memory: less than 2 % free halves its weight, less than 0.5 % in three
/// reports running closes it. Each is undone one point higher, at 3 % and 1.5 %. The worst GPU counts.
///
/// Servers that take their memory at the start (vLLM) leave the same part free all day: how busy they are shows in the
/// KV cache, not here.
#[derive(Debug, Clone, Default)]
pub struct GpuMemoryRule {
    state: Memory,
    /// Reports running with less than [`CLOSE_BELOW`].
    short: u8,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Memory {
    #[default]
    Fine,
    Tight,
    Closed,
}

const TIGHT_BELOW: f32 = 0.02;
const CLOSE_BELOW: f32 = 0.005;
const CLOSE_AFTER: u8 = 3;
const MEMORY_HYSTERESIS: f32 = 0.01;
const TIGHT_FACTOR: f32 = 0.5;

impl GpuMemoryRule {
    /// A rule that has seen nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Rule for GpuMemoryRule {
    fn judge(&mut self, report: &LoadReport, _now: Instant) -> Verdict {
        let Some(free) = report.least_free() else {
            *self = Self::default(); // any => Fine: unknown is not short
            return Verdict::Factor(1.0);
        };
        self.short = if free < CLOSE_BELOW { self.short.saturating_add(1) } else { 0 };
        self.state = match self.state {
            _ if self.short >= CLOSE_AFTER => Memory::Closed, // any => Closed
            Memory::Closed if free < CLOSE_BELOW + MEMORY_HYSTERESIS => Memory::Closed,
            Memory::Fine if free >= TIGHT_BELOW => Memory::Fine,
            Memory::Fine => Memory::Tight, // Fine => Tight
            Memory::Tight | Memory::Closed if free < TIGHT_BELOW + MEMORY_HYSTERESIS => Memory::Tight, // Closed => Tight
            Memory::Tight | Memory::Closed => Memory::Fine, // Tight, Closed => Fine
        };
        match self.state {
            Memory::Fine => Verdict::Factor(1.0),
            Memory::Tight => Verdict::Factor(TIGHT_FACTOR),
            Memory::Closed => Verdict::Close(CloseCause::GpuMemory),
        }
    }
}

/// Slows an endpoint whose KV cache fills up: the factor is 1 up to 80 %, then falls in a line to 0.1 at 95 %. Fuller
/// than that while requests wait closes it, until less than 90 % are in use.
#[derive(Debug, Clone, Default)]
pub struct KvCacheRule {
    closed: bool,
}

const KV_FREE: f32 = 0.80;
const KV_REOPEN: f32 = 0.90;
const KV_FULL: f32 = 0.95;
const KV_FLOOR: f32 = 0.1;

impl KvCacheRule {
    /// A rule that has seen nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Rule for KvCacheRule {
    fn judge(&mut self, report: &LoadReport, _now: Instant) -> Verdict {
        let Some(used) = report.kv_used else {
            self.closed = false; // Closed => Open: unknown is not full
            return Verdict::Factor(1.0);
        };
        self.closed = if self.closed {
            used >= KV_REOPEN // Closed => Open below it
        } else {
            used > KV_FULL && report.waiting.is_some_and(|waiting| waiting > 0) // Open => Closed
        };
        if self.closed {
            return Verdict::Close(CloseCause::KvCache);
        }
        let over = ((used - KV_FREE) / (KV_FULL - KV_FREE)).clamp(0.0, 1.0);
        Verdict::Factor(1.0 - (1.0 - KV_FLOOR) * over)
    }
}

/// Closes an endpoint when one of its GPUs breaks, until it is [cleared](Self::clear).
///
/// Exporters keep the last XID error for as long as they run, so only a *change* to one of the listed errors counts,
/// and likewise only growth of the uncorrectable ECC errors: what the first report of a GPU says may be long past. A
/// row that could not be remapped is a state, and counts at once. A GPU that is not in a report is remembered, since an
/// exporter that restarts tells the same again; of more than 256 the one not heard of for the longest is forgotten.
#[derive(Debug, Clone)]
pub struct GpuFaultRule {
    xids: Vec<u32>,
    fault: Option<GpuFault>,
    seen: HashMap<(String, Option<String>), Seen>,
}

/// The last that was known about a GPU.
#[derive(Debug, Clone)]
struct Seen {
    xid: Option<u32>,
    row_remap_failure: Option<bool>,
    uncorrectable_ecc: Option<u64>,
    at: Instant,
}

/// A double-bit ECC error, a row remapping that could not be recorded, an NVLink error, a GPU off the bus, an
/// uncontained memory error, a GSP that does not answer: <https://docs.nvidia.com/deploy/xid-errors/>.
const FATAL_XIDS: [u32; 6] = [48, 64, 74, 79, 95, 119];

const MAX_SEEN: usize = 256;

impl Default for GpuFaultRule {
    fn default() -> Self {
        Self { xids: FATAL_XIDS.to_vec(), fault: None, seen: HashMap::new() }
    }
}

impl GpuFaultRule {
    /// A rule that has seen nothing yet, for the XID errors 48, 64, 74, 79, 95 and 119.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The XID errors that close an endpoint, in place of those of [`new`](Self::new).
    #[must_use]
    pub fn xids(mut self, xids: impl IntoIterator<Item = u32>) -> Self {
        self.xids = xids.into_iter().collect();
        self
    }

    /// Opens the endpoint again. What its GPUs said so far does not close it a second time.
    pub fn clear(&mut self) {
        self.fault = None;
    }

    /// What a GPU says that is new and bad.
    fn look(&mut self, gpu: &GpuReport, now: Instant) -> Option<GpuFault> {
        let id = gpu.uuid.clone().unwrap_or_else(|| gpu.index.map_or_else(String::new, |index| index.to_string()));
        let key = (id, gpu.mig.clone());
        if self.seen.len() >= MAX_SEEN && !self.seen.contains_key(&key) {
            let oldest = self.seen.iter().min_by_key(|(_, seen)| seen.at).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.seen.remove(&key));
        }
        let last = self.seen.entry(key).or_insert_with(|| Seen {
            xid: None,
            row_remap_failure: None,
            uncorrectable_ecc: None,
            at: now,
        });
        last.at = now;
        // Each is remembered, whichever of them is the fault; what is unknown now does not make the last one forgotten.
        let xid = gpu.xid.and_then(|xid| last.xid.replace(xid).filter(|last| *last != xid).map(|_| xid));
        let failed = gpu.row_remap_failure.is_some_and(|now| now && last.row_remap_failure != Some(true));
        last.row_remap_failure = gpu.row_remap_failure.or(last.row_remap_failure);
        let grown =
            gpu.uncorrectable_ecc.is_some_and(|now| last.uncorrectable_ecc.replace(now).is_some_and(|last| now > last));

        xid.filter(|xid| self.xids.contains(xid))
            .map(GpuFault::Xid)
            .or_else(|| failed.then_some(GpuFault::RowRemapFailure))
            .or_else(|| grown.then_some(GpuFault::UncorrectableEcc))
    }
}

impl Rule for GpuFaultRule {
    fn judge(&mut self, report: &LoadReport, now: Instant) -> Verdict {
        for gpu in &report.gpus {
            let fault = self.look(gpu, now);
            self.fault = self.fault.or(fault); // Open => Closed; only `clear` leads back
        }
        self.fault.map_or(Verdict::Factor(1.0), |fault| Verdict::Close(CloseCause::GpuFault(fault)))
    }

    fn clear(&mut self) {
        Self::clear(self);
    }
}
