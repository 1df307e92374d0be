//! From samples to a report.

use std::collections::{BTreeMap, BTreeSet, HashMap};

#[cfg(feature = "client")]
use super::json::{Document, JsonReader};
use super::{
    GpuReport, LoadReport, ParseError, Parser, Sample, Sink,
    preset::{Meaning, Signal},
    report::{count, memory, ratio, sum, whole},
};

/// XIDs are far below this: <https://docs.nvidia.com/deploy/xid-errors/>.
const MAX_XID: u32 = 65_535;

/// More errors than this cannot be true, but may be a blank: DCGM's smallest is 2^31 - 16.
const MAX_ERRORS: u32 = 1_000_000_000;

/// Reads one metrics page into a [`LoadReport`]; made by [`Preset::reader`](super::Preset::reader).
///
/// Counts of several engines add up; if one of them is NaN, negative or more than a million, the sum is unknown. Ratios
/// take the maximum of those that lie within 0 to 1. Of a device that is described twice the worse counts: more in use,
/// less free.
#[derive(Debug)]
pub struct Reader {
    format: Format,
}

#[derive(Debug)]
enum Format {
    Text(Parser<Collector>),
    #[cfg(feature = "client")]
    Json(JsonReader),
}

impl Reader {
    pub(super) fn new(meanings: Vec<Meaning>, selectors: Vec<(String, String)>) -> Self {
        let collector = Collector { meanings, selectors, ..Collector::default() };
        Self { format: Format::Text(Parser::new(collector)) }
    }

    #[cfg(feature = "client")]
    pub(super) const fn json(document: Document, selects: bool) -> Self {
        Self { format: Format::Json(JsonReader::new(document, selects)) }
    }

    /// Reads the next part of the page, cut anywhere.
    ///
    /// # Errors
    ///
    /// [`ParseError`] once the page cannot be metrics or is too long; the rest of it need not be fetched.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), ParseError> {
        match &mut self.format {
            Format::Text(parser) => parser.push(chunk),
            #[cfg(feature = "client")]
            Format::Json(reader) => reader.push(chunk),
        }
    }

    /// Ends the page. A page without any of the names that the preset knows gives a report where nothing is known.
    ///
    /// # Errors
    ///
    /// [`ParseError`] if the page was not metrics, or not the JSON of its preset, or too long.
    pub fn finish(self) -> Result<LoadReport, ParseError> {
        match self.format {
            Format::Text(parser) => Ok(parser.finish()?.into_report()),
            #[cfg(feature = "client")]
            Format::Json(reader) => reader.finish(),
        }
    }
}

#[derive(Debug, Default)]
struct Collector {
    meanings: Vec<Meaning>,
    selectors: Vec<(String, String)>,
    running: Counts,
    waiting: Counts,
    kv_used: Option<f32>,
    devices: Vec<Device>,
    by_key: HashMap<String, usize>,
    processes_unknown: bool,
}

/// A count by engine, which is a name with all labels that tell engines apart.
#[derive(Debug, Default)]
struct Counts {
    engines: BTreeMap<String, (Option<u32>, bool)>,
}

#[derive(Debug, Default)]
struct Device {
    gpu: GpuReport,
    pids: BTreeSet<String>,
}

impl Sink for Collector {
    fn wants(&self, name: &str) -> bool {
        self.meanings.iter().any(|meaning| meaning.name == name)
    }

    fn sample(&mut self, sample: &Sample<'_>) {
        let told = |meaning: &&Meaning| {
            meaning.name == sample.name && meaning.only.is_none_or(|(label, value)| sample.label(label) == Some(value))
        };
        let Some(signal) = self.meanings.iter().find(told).map(|meaning| meaning.signal) else { return };
        if signal == Signal::ProcessesKnown {
            self.processes_unknown = sample.value != 1.0; // it has no labels to select by
        } else if self.selects(sample, signal) {
            match signal {
                Signal::Running => self.running.add(sample),
                Signal::Waiting => self.waiting.add(sample),
                Signal::KvUsed => most(&mut self.kv_used, ratio(sample.value)),
                _ => self.device(sample).tell(signal, sample),
            }
        }
    }
}

impl Collector {
    /// Whether the row is about this endpoint. Devices are chosen at the end, when all is known about them.
    fn selects(&self, sample: &Sample<'_>, signal: Signal) -> bool {
        self.selectors.iter().all(|(label, _)| match &**label {
            "gpu" | "UUID" | "GPU_I_ID" => true,
            "model" => !signal.is_load() || self.is_one_of(label, first(sample, &["model_name", "model"])),
            "pod" => self.is_one_of(label, first(sample, &["exported_pod", "pod", "pod_name"])),
            label => self.is_one_of(label, sample.label(label)),
        })
    }

    fn selects_device(&self, gpu: &GpuReport) -> bool {
        let index = gpu.index.map(|index| index.to_string());
        self.selectors.iter().all(|(label, _)| match &**label {
            "gpu" => self.is_one_of(label, index.as_deref()),
            "UUID" => gpu.uuid.as_deref().is_some_and(|uuid| {
                self.selectors.iter().any(|(other, value)| other == label && bare(value) == bare(uuid))
            }),
            "GPU_I_ID" => self.is_one_of(label, gpu.mig.as_deref()),
            _ => true,
        })
    }

    fn is_one_of(&self, label: &str, found: Option<&str>) -> bool {
        self.selectors.iter().any(|(other, value)| other == label && Some(&**value) == found)
    }

    /// The device of a row. One without a UUID is known by its machine and index.
    fn device(&mut self, sample: &Sample<'_>) -> &mut Device {
        let uuid = first(sample, &["UUID", "uuid", "gpu_uuid"]);
        let index = first(sample, &["gpu", "index"]);
        let mig = sample.label("GPU_I_ID").filter(|mig| !mig.is_empty());
        let mut key = uuid.map_or_else(
            || format!("{}/{}", sample.label("Hostname").unwrap_or_default(), index.unwrap_or_default()),
            |uuid| bare(uuid).to_owned(),
        );
        key.push('/');
        key.push_str(mig.unwrap_or_default());
        let at = *self.by_key.entry(key).or_insert(self.devices.len());
        if at == self.devices.len() {
            self.devices.push(Device::default());
        }
        let device = &mut self.devices[at];
        let gpu = &mut device.gpu;
        let keep = |field: &mut Option<String>, found: Option<&str>| {
            if field.is_none() {
                *field = found.map(ToOwned::to_owned);
            }
        };
        keep(&mut gpu.uuid, uuid);
        keep(&mut gpu.name, first(sample, &["modelName", "name"]));
        keep(&mut gpu.mig, mig);
        keep(&mut gpu.mig_profile, sample.label("GPU_I_PROFILE").filter(|profile| !profile.is_empty()));
        gpu.index = gpu.index.or_else(|| index?.parse().ok());
        device
    }

    fn into_report(mut self) -> LoadReport {
        let devices = std::mem::take(&mut self.devices).into_iter();
        let gpus: Vec<_> = devices
            .map(|device| device.into_gpu(self.processes_unknown))
            .filter(|gpu| self.selects_device(gpu))
            .collect();
        let processes: Vec<_> = gpus.iter().map(|gpu| gpu.processes).filter(Option::is_some).collect();
        LoadReport {
            running: self.running.total(),
            waiting: self.waiting.total(),
            processes: if processes.is_empty() { None } else { sum(processes) },
            kv_used: self.kv_used,
            gpus,
        }
    }
}

impl Counts {
    fn add(&mut self, sample: &Sample<'_>) {
        // SGLang tells its queues by priority, beside their sum, where the label is empty.
        if sample.label("priority").is_some_and(|priority| !priority.is_empty()) {
            return;
        }
        // The ranks of one engine all tell the same: the labels that tell them apart are left out of the key.
        let mut labels: Vec<_> =
            sample.labels.iter().filter(|(name, _)| !["tp_rank", "pp_rank", "moe_ep_rank"].contains(name)).collect();
        labels.sort_unstable();
        let key = format!("{}{labels:?}", sample.name);
        let (count, ranked) = (count(sample.value), sample.label("dp_rank").is_some_and(|rank| !rank.is_empty()));
        self.engines
            .entry(key)
            .and_modify(|(known, _)| *known = known.zip(count).map(|(one, other)| one.max(other)))
            .or_insert((count, ranked));
    }

    /// Beside data parallel ranks (`dp_rank`), which are engines, a row without one is their sum.
    fn total(&self) -> Option<u32> {
        if self.engines.is_empty() {
            return None;
        }
        let any_ranked = self.engines.values().any(|(_, ranked)| *ranked);
        sum(self.engines.values().filter(|(_, ranked)| *ranked || !any_ranked).map(|(count, _)| *count))
    }
}

impl Device {
    fn tell(&mut self, signal: Signal, sample: &Sample<'_>) {
        let (gpu, value) = (&mut self.gpu, sample.value);
        match signal {
            Signal::MemoryUsed(unit) => most(&mut gpu.memory_used, memory(value, unit)),
            Signal::MemoryFree(unit) => {
                let free = memory(value, unit);
                gpu.memory_free =
                    gpu.memory_free.map_or(free, |known| Some(free.map_or(known, |free| free.min(known))));
            }
            Signal::MemoryTotal(unit) => most(&mut gpu.memory_total, memory(value, unit)),
            Signal::Xid => gpu.xid = whole(value, MAX_XID).or(gpu.xid),
            Signal::RowRemapFailure => most(&mut gpu.row_remap_failure, whole(value, 1).map(|failed| failed == 1)),
            Signal::UncorrectableEcc => most(&mut gpu.uncorrectable_ecc, whole(value, MAX_ERRORS).map(u64::from)),
            Signal::Process if value == 1.0 => {
                self.pids.insert(sample.label("pid").unwrap_or_default().to_owned());
            }
            Signal::Processes => most(&mut gpu.processes, count(value)),
            Signal::DeviceIndex => gpu.index = gpu.index.or_else(|| whole(value, MAX_XID)),
            _ => {}
        }
    }

    /// That no process has a row is known only where they are also counted.
    fn into_gpu(mut self, processes_unknown: bool) -> GpuReport {
        if processes_unknown {
            self.gpu.processes = None;
        } else if !self.pids.is_empty() {
            most(&mut self.gpu.processes, u32::try_from(self.pids.len()).ok());
        }
        self.gpu
    }
}

/// The larger of what is known.
fn most<T: PartialOrd>(known: &mut Option<T>, told: Option<T>) {
    if told > *known {
        *known = told; // None is less than any
    }
}

/// A UUID as all exporters would write it.
fn bare(uuid: &str) -> &str {
    uuid.strip_prefix("GPU-").unwrap_or(uuid)
}

/// The value of the first of these labels that is there and not empty.
fn first<'a>(sample: &'a Sample<'_>, labels: &[&str]) -> Option<&'a str> {
    labels.iter().filter_map(|label| sample.label(label)).find(|value| !value.is_empty())
}
