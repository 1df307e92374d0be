//! Health checks and probes: each endpoint is watched for as long as it is there.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Weak};
use std::time::Duration;

use forebay_core::BoxError;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use tokio::time::{sleep, timeout};
use tower_service::Service as _;

use super::pages::{Pages, Source};
use crate::client::endpoint::HttpEndpoint;
use crate::driver::Job;
use crate::health::HttpCheck;
use crate::ledger::now;
use crate::members::AnyNode;
use crate::probe::{LoadReport, MetricsProbe, orca};

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
        let pages = Pages::of(&self.probes);
        for (page, probe) in self.probes.iter().enumerate() {
            let (at, probe, pages) = (at.clone(), probe.clone(), pages.clone());
            jobs.push(Box::pin(async move {
                let _ =
                    if probe.orca { at.listen(probe, page, pages).await } else { at.probe(probe, page, pages).await };
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

    /// Asks for one page, whatever becomes of the others: one that hangs makes none of them late.
    async fn probe(self, probe: MetricsProbe, page: usize, pages: Pages) -> Option<()> {
        let interval = probe.interval;
        let mut source = Source::new(probe);
        let mut clears = 0;
        loop {
            let service = self.service()?;
            let own_sent = self.own()?;
            let report = source.ask(&service).await;
            drop(service);
            self.hear(&mut source, report, own_sent, (page, &pages), &mut clears)?;
            sleep(jitter(interval)).await;
        }
    }

    /// Listens to the reports that come with answers, to one in each interval.
    async fn listen(self, probe: MetricsProbe, page: usize, pages: Pages) -> Option<()> {
        let interval = probe.interval;
        let mut source = Source::new(probe);
        let mut clears = 0;
        let mut reports = self.service()?.reports().listen();
        loop {
            reports.changed().await.ok()?;
            let report = orca::read(reports.borrow_and_update().as_bytes());
            let own = self.own()?;
            self.hear(&mut source, report, own, (page, &pages), &mut clears)?;
            sleep(jitter(interval)).await;
            reports.mark_unchanged(); // what came meanwhile is old: how many of ours were there then is not known now
        }
    }

    /// How many of our own are in flight there.
    fn own(&self) -> Option<u32> {
        Some(self.node.upgrade()?.core.ledger().picker.slot(self.index).own)
    }

    /// Judges what a page says, and tells the picker. What no page has said anew is not judged again: it holds as long as
    /// it would have.
    fn hear(
        &self,
        source: &mut Source,
        report: Option<LoadReport>,
        own_sent: u32,
        (page, pages): (usize, &Pages),
        clears: &mut u32,
    ) -> Option<()> {
        let cleared = self.node.upgrade()?.core.ledger().picker.slot(self.index).clears();
        if std::mem::replace(clears, cleared) != cleared {
            source.clear();
            pages.clear();
        }
        let Some(report) = report else { return Some(()) };
        let now = now();
        let verdict = source.judge(&report, now);
        let heard = pages.say(page, source.probe.requests(&report), own_sent, verdict, now);
        self.tell(|picker| picker.heard(self.index, &heard, now))
    }
}

/// A request for a page, or a check.
pub(super) fn get(path: &str) -> Result<Request<super::ClientBody>, http::Error> {
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    Request::get(path).header(header::ACCEPT_ENCODING, "identity").body(body)
}

/// A fifth less to a fifth more, so that gateways do not ask in step.
fn jitter(time: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) as f64 / u64::MAX as f64;
    time.mul_f64(0.8 + 0.4 * random)
}
