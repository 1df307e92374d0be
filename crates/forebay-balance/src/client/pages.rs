//! Metrics pages about an endpoint: fetched, judged, and put together.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use forebay_core::BoxError;
use http_body_util::BodyExt as _;
use tokio::time::timeout;
use tower_service::Service as _;

use super::watch::get;
use crate::client::endpoint::HttpEndpoint;
use crate::metrics;
use crate::policy::{Heard, Load};
use crate::probe::{CloseCause, LoadReport, MetricsProbe, Rule, Verdict};

/// One page about an endpoint, and the rules that judge it.
pub(super) struct Source {
    pub(super) probe: MetricsProbe,
    /// `Some(None)`: its address cannot be used.
    target: Option<Option<HttpEndpoint>>,
    rules: Vec<Box<dyn Rule>>,
    /// The last page said nothing that is known.
    empty: bool,
}

impl Source {
    pub(super) fn new(probe: MetricsProbe) -> Self {
        let rules = (probe.rules)();
        Self { probe, target: None, rules, empty: false }
    }

    pub(super) fn clear(&mut self) {
        for rule in &mut self.rules {
            rule.clear();
        }
    }

    /// Fetches the page. `None`: it was not there.
    pub(super) async fn ask(&mut self, endpoint: &HttpEndpoint) -> Option<LoadReport> {
        let probe = &mut self.probe;
        let target = self.target.get_or_insert_with(|| match &probe.at {
            None => Some(endpoint.clone()),
            Some(url) => {
                for (label, value) in endpoint.rows() {
                    probe.preset = probe.preset.clone().select(label, value);
                }
                HttpEndpoint::beside(endpoint, url)
            }
        });
        let target = target.clone()?;
        match timeout(self.probe.timeout, fetch(&self.probe, target)).await {
            Ok(Ok(report)) => {
                let empty = report == LoadReport::default();
                if empty && !self.empty {
                    let (path, rows) = (&self.probe.path, endpoint.rows());
                    tracing::warn!(
                        path,
                        ?rows,
                        "a metrics page has no row that is known and selected: it says nothing"
                    );
                }
                self.empty = empty;
                return Some(report);
            }
            Ok(Err(error)) => {
                metrics::probe_failed("error");
                tracing::debug!(%error, path = self.probe.path, "a probe failed");
            }
            Err(_) => {
                metrics::probe_failed("timeout");
                tracing::debug!(path = self.probe.path, "a probe took too long");
            }
        }
        None
    }

    /// What the rules say together. Rules are foreign code: one that panics says nothing.
    pub(super) fn judge(&mut self, report: &LoadReport, now: Instant) -> Verdict {
        let one = |rule: &mut Box<dyn Rule>| {
            catch_unwind(AssertUnwindSafe(|| rule.judge(report, now))).unwrap_or_else(|_| {
                tracing::error!("a rule panicked, it is taken to say nothing");
                Verdict::Factor(1.0)
            })
        };
        self.rules.iter_mut().map(one).fold(Verdict::Factor(1.0), Verdict::and)
    }
}

async fn fetch(probe: &MetricsProbe, mut target: HttpEndpoint) -> Result<LoadReport, BoxError> {
    let response = target.call(get(&probe.path)?).await?;
    if !response.status().is_success() {
        return Err(format!("its status is {}", response.status()).into());
    }
    let mut reader = probe.preset.reader();
    let mut body = response.into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        bytes += data.len();
        if bytes > probe.max_bytes {
            return Err(format!("the page is longer than {} bytes", probe.max_bytes).into());
        }
        reader.push(&data)?;
    }
    Ok(reader.finish()?)
}

/// What the pages about one endpoint have said last. Each comes when it comes.
#[derive(Debug, Clone)]
pub(super) struct Pages(Arc<Mutex<Vec<Page>>>);

#[derive(Debug)]
struct Page {
    exporter: bool,
    /// How long what it says holds.
    valid: Duration,
    said: Option<Said>,
}

#[derive(Debug, Clone, Copy)]
struct Said {
    at: Instant,
    verdict: Verdict,
    /// Whether it counts requests.
    counts: bool,
}

impl Pages {
    pub(super) fn of(probes: &[MetricsProbe]) -> Self {
        let page = |probe: &MetricsProbe| Page { exporter: probe.gpu_exporter, valid: probe.valid(), said: None };
        Self(Arc::new(Mutex::new(probes.iter().map(page).collect())))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Page>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One page was there; what all of them say now.
    pub(super) fn say(
        &self,
        page: usize,
        requests: Option<u32>,
        own_sent: u32,
        verdict: Verdict,
        now: Instant,
    ) -> Heard {
        let mut pages = self.lock();
        pages[page].said = Some(Said { at: now, verdict, counts: requests.is_some() });
        let others = || pages.iter().enumerate().filter(|(other, _)| *other != page).map(|(_, other)| other);
        let counts = |other: &Page| other.left(now).is_some() && other.said.is_some_and(|said| said.counts);
        let load = match requests {
            // A server knows better than an exporter beside it, which only sees processes.
            Some(_) if pages[page].exporter && others().any(|other| !other.exporter && counts(other)) => Load::Unsaid,
            Some(requests) => Load::Requests { requests, own_sent },
            None if pages[page].exporter || others().any(counts) => Load::Unsaid,
            None => Load::Unknown,
        };
        let verdict = pages.iter().map(|page| page.verdict(now)).fold(Verdict::Factor(1.0), Verdict::and);
        let valid = pages.iter().filter_map(|page| page.left(now)).min().unwrap_or_default();
        Heard { load, verdict, valid }
    }

    /// An operator has cleared the endpoint.
    pub(super) fn clear(&self) {
        for said in self.lock().iter_mut().filter_map(|page| page.said.as_mut()) {
            said.verdict = Verdict::Factor(1.0);
        }
    }
}

impl Page {
    /// How long what it said still holds.
    fn left(&self, now: Instant) -> Option<Duration> {
        let said = self.said?;
        (said.at + self.valid).checked_duration_since(now).filter(|left| !left.is_zero())
    }

    fn verdict(&self, now: Instant) -> Verdict {
        match (self.said, self.left(now)) {
            (Some(said), Some(_)) => said.verdict,
            // A broken GPU is not well because nobody looks.
            (Some(Said { verdict: verdict @ Verdict::Close(CloseCause::GpuFault(_)), .. }), None) => verdict,
            _ => Verdict::Factor(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::now;

    #[test]
    fn r19_a_server_knows_its_requests_better_than_an_exporter_beside_it() {
        let probes =
            [MetricsProbe::vllm("/metrics"), MetricsProbe::nvidia_gpu_exporter("http://{host}:9835", "/metrics")];
        let (pages, start) = (Pages::of(&probes), now());
        let say = |page, requests, after| {
            pages.say(page, requests, 0, Verdict::Factor(1.0), start + Duration::from_millis(after)).load
        };
        assert!(matches!(say(1, Some(3), 0), Load::Requests { requests: 3, .. }), "nobody knows better");
        assert!(matches!(say(0, None, 100), Load::Unsaid), "processes are better than nothing");
        assert!(matches!(say(0, Some(7), 200), Load::Requests { requests: 7, .. }));
        assert!(matches!(say(1, Some(3), 300), Load::Unsaid));
        assert!(matches!(say(1, Some(3), 1800), Load::Requests { requests: 3, .. }), "what the server said is old");
        assert!(matches!(say(0, None, 100_000), Load::Unknown), "so is what the exporter said");
    }

    #[test]
    fn what_is_old_is_not_judged_but_a_broken_gpu_stays_broken() {
        let pages = Pages::of(&[MetricsProbe::vllm("/metrics"), MetricsProbe::dcgm("http://{host}:9400", "/metrics")]);
        let start = now();
        let say = |page, verdict, after| pages.say(page, None, 0, verdict, start + Duration::from_secs(after)).verdict;
        let fault = Verdict::Close(CloseCause::GpuFault(crate::probe::GpuFault::RowRemapFailure));
        assert_eq!(say(0, Verdict::Factor(0.5), 0), Verdict::Factor(0.5));
        assert_eq!(say(1, fault, 1), fault);
        assert_eq!(say(0, Verdict::Factor(1.0), 200), fault);
        pages.clear();
        assert_eq!(say(0, Verdict::Factor(0.5), 201), Verdict::Factor(0.5));
    }
}
