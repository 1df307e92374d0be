//! Health checks and probes: each endpoint is watched for as long as it is there.

use std::hash::{BuildHasher as _, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use forebay_core::BoxError;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use tokio::time::{sleep, timeout};
use tower_service::Service as _;

use crate::client::endpoint::HttpEndpoint;
use crate::driver::Job;
use crate::health::HttpCheck;
use crate::ledger::now;
use crate::members::AnyNode;
use crate::metrics;
use crate::policy::{Heard, Load};
use crate::probe::{LoadReport, MetricsProbe, Rule, Verdict};

/// What is to be watched at each endpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch {
    pub(crate) check: Option<HttpCheck>,
    pub(crate) probes: Vec<MetricsProbe>,
}

impl Watch {
    /// Whether there is anything.
    pub(crate) fn is_set(&self) -> bool {
        self.check.is_some() || !self.probes.is_empty()
    }

    pub(crate) fn validate(&self, problems: &mut Vec<String>) {
        if let Some(check) = &self.check {
            check.check(problems);
        }
        self.probes.iter().for_each(|probe| probe.check(problems));
    }

    /// What watches an endpoint, until it is gone or replaced.
    pub(crate) fn jobs(&self, index: usize, node: &Arc<AnyNode>) -> Vec<Job> {
        let at = At { index, node: Arc::downgrade(node) };
        let mut jobs: Vec<Job> = Vec::new();
        if let Some(check) = self.check.clone() {
            let check = at.clone().check(check);
            jobs.push(Box::pin(async {
                check.await;
            }));
        }
        if !self.probes.is_empty() {
            let probe = at.probe(self.probes.clone());
            jobs.push(Box::pin(async {
                probe.await;
            }));
        }
        jobs
    }
}

/// An endpoint that is watched.
#[derive(Clone)]
struct At {
    index: usize,
    node: Weak<AnyNode>,
}

impl At {
    /// Its service, if the endpoint is still there.
    fn service(&self) -> Option<HttpEndpoint> {
        let node = self.node.upgrade()?;
        let there = node.core.ledger().has(self.index, &node);
        there.then(|| node.service())
    }

    /// Tells the picker, if the endpoint is still there.
    fn tell(&self, tell: impl FnOnce(&mut crate::policy::Picker)) -> Option<()> {
        let node = self.node.upgrade()?;
        node.core.change(|ledger| ledger.has(self.index, &node).then(|| tell(&mut ledger.picker)))
    }

    async fn check(self, check: HttpCheck) -> Option<()> {
        loop {
            let mut service = self.service()?;
            let answer = async {
                let response = service.call(get(&check.path)?).await?;
                Ok::<_, BoxError>(check.statuses.contains(&response.status().as_u16()))
            };
            let good = matches!(timeout(check.timeout, answer).await, Ok(Ok(true)));
            self.tell(|picker| picker.checked(self.index, good, check.up, check.down, now()))?;
            drop(service);
            sleep(jitter(check.interval)).await;
        }
    }

    async fn probe(self, probes: Vec<MetricsProbe>) -> Option<()> {
        let mut sources: Vec<Source> = probes.into_iter().map(Source::new).collect();
        let interval = sources.iter().map(|source| source.probe.interval).min()?;
        let mut clears = 0;
        loop {
            let service = self.service()?;
            let (mut fresh, mut load) = (false, Load::Unsaid);
            for source in &mut sources {
                let own_sent = self.node.upgrade()?.core.ledger().picker.slot(self.index).own;
                let Some(requests) = source.ask(&service).await else { continue };
                fresh = true;
                // A server knows better than an exporter beside it, which only sees processes.
                load = match (requests, load, source.probe.gpu_exporter) {
                    (Some(_), Load::Requests { .. }, true) => load,
                    (Some(requests), ..) => Load::Requests { requests, own_sent },
                    (None, Load::Unsaid, false) => Load::Unknown,
                    (None, ..) => load,
                };
            }
            drop(service);
            let cleared = self.node.upgrade()?.core.ledger().picker.slot(self.index).clears();
            if std::mem::replace(&mut clears, cleared) != cleared {
                sources.iter_mut().for_each(Source::clear);
            }
            let now = now();
            let verdict = sources.iter().map(|source| source.verdict(now)).fold(Verdict::Factor(1.0), Verdict::and);
            // What no page has said anew is not judged again: it holds as long as it would have.
            if let Some(valid) = sources.iter().filter_map(|source| source.left(now)).min().filter(|_| fresh) {
                let heard = Heard { load, verdict, valid };
                self.tell(|picker| picker.heard(self.index, &heard, now))?;
            }
            sleep(jitter(interval)).await;
        }
    }
}

/// One page about an endpoint, and what its rules made of it last.
struct Source {
    probe: MetricsProbe,
    /// `Some(None)`: its address cannot be used.
    target: Option<Option<HttpEndpoint>>,
    rules: Vec<Box<dyn Rule>>,
    last: Option<(Instant, Verdict)>,
}

impl Source {
    fn new(probe: MetricsProbe) -> Self {
        let rules = (probe.rules)();
        Self { probe, target: None, rules, last: None }
    }

    fn clear(&mut self) {
        for rule in &mut self.rules {
            rule.clear();
        }
        if let Some((_, verdict)) = &mut self.last {
            *verdict = Verdict::Factor(1.0);
        }
    }

    /// Fetches the page; what it says about requests. `None`: it was not there.
    async fn ask(&mut self, endpoint: &HttpEndpoint) -> Option<Option<u32>> {
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
                let now = now();
                let verdict = judge(&mut self.rules, &report, now);
                self.last = Some((now, verdict));
                return Some(self.probe.requests(&report));
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

    /// How long what it said still holds.
    fn left(&self, now: Instant) -> Option<Duration> {
        let (at, _) = self.last.as_ref()?;
        (*at + self.probe.valid()).checked_duration_since(now).filter(|left| !left.is_zero())
    }

    fn verdict(&self, now: Instant) -> Verdict {
        match (&self.last, self.left(now)) {
            (Some((_, verdict)), Some(_)) => *verdict,
            // A broken GPU is not well because nobody looks.
            (Some((_, verdict @ Verdict::Close(crate::probe::CloseCause::GpuFault(_)))), None) => *verdict,
            _ => Verdict::Factor(1.0),
        }
    }
}

/// What the rules say together. Rules are foreign code: one that panics says nothing.
fn judge(rules: &mut [Box<dyn Rule>], report: &LoadReport, now: Instant) -> Verdict {
    let one = |rule: &mut Box<dyn Rule>| {
        catch_unwind(AssertUnwindSafe(|| rule.judge(report, now))).unwrap_or_else(|_| {
            tracing::error!("a rule panicked, it is taken to say nothing");
            Verdict::Factor(1.0)
        })
    };
    rules.iter_mut().map(one).fold(Verdict::Factor(1.0), Verdict::and)
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

fn get(path: &str) -> Result<Request<super::ClientBody>, http::Error> {
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    Request::get(path).header(header::ACCEPT_ENCODING, "identity").body(body)
}

/// A fifth less to a fifth more, so that gateways do not ask in step.
fn jitter(time: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) as f64 / u64::MAX as f64;
    time.mul_f64(0.8 + 0.4 * random)
}
