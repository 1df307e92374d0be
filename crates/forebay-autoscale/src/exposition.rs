use std::fmt::{Display, Write as _};

use forebay_core::Class;

use crate::handle::POOL;
use crate::signal::BOUNDS;
use crate::{DemandSignal, Early, Snapshot};

/// The text format of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The media type that goes with it.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

struct Page {
    text: String,
    format: Format,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // OpenMetrics names the family of a counter without its suffix.
        let name = match self.format {
            Format::OpenMetrics => name.strip_suffix("_total").unwrap_or(name),
            Format::Text => name,
        };
        let _ = writeln!(self.text, "# HELP forebay_autoscale_{name} {help}\n# TYPE forebay_autoscale_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: impl Display, value: impl Display) {
        let _ = writeln!(self.text, "forebay_autoscale_{name}{{{labels}}} {value}");
    }
}

/// Every family has its HELP and TYPE even while it has no sample; what is unknown has no sample, never a zero.
pub(crate) fn render(format: Format, now: &Snapshot, signal: &DemandSignal) -> String {
    let mut page = Page { text: String::with_capacity(8192), format };
    let of = |class: Class| format!("pool=\"{POOL}\",class=\"{class}\"");
    // P0 to P3 are always there, others once they were seen: 16 at most, and a class that was seen stays.
    let classes: Vec<Class> = (0..Class::COUNT as u8)
        .map(Class::new)
        .filter(|class| {
            let demand = now.demand[*class];
            let seen = demand.queued | demand.in_flight | demand.offered | now.classes[class.index()].arrived;
            *class <= Class::P3 || seen > 0
        })
        .collect();
    for (name, help, value) in [
        (
            "demand_requests",
            "Seats wanted at this gateway: queued and in flight.",
            (|q, f| q.saturating_add(f)) as fn(u64, u64) -> u64,
        ),
        ("queued_requests", "Seats waited for at this gateway.", |queued, _| queued),
        ("in_flight_requests", "Seats taken at this gateway, until the end of the response body.", |_, served| served),
    ] {
        page.family(name, "gauge", help);
        for class in &classes {
            page.sample(name, of(*class), value(now.demand[*class].queued, now.demand[*class].in_flight));
        }
    }
    let total = now.demand.total();
    page.family("cluster_demand_requests", "gauge", "Seats wanted at all gateways together: take max, never sum.");
    page.sample(
        "cluster_demand_requests",
        format_args!("pool=\"{POOL}\""),
        total.queued.saturating_add(total.in_flight),
    );

    page.family("arrived_requests_total", "counter", "Requests that arrived.");
    for class in &classes {
        page.sample("arrived_requests_total", of(*class), now.classes[class.index()].arrived);
    }
    page.family("early_requests_total", "counter", "Requests that cost the backends nothing: cache hits and deferred.");
    for class in &classes {
        for kind in Early::ALL {
            let labels = format!("{},kind=\"{}\"", of(*class), kind.as_str());
            page.sample("early_requests_total", labels, signal.block(*class).earlies(kind));
        }
    }
    page.family("shed_requests_total", "counter", "Requests that were refused.");
    for class in &classes {
        for (reason, count) in signal.block(*class).sheds().filter(|(_, count)| *count > 0) {
            page.sample("shed_requests_total", format_args!("{},reason=\"{reason}\"", of(*class)), count);
        }
    }
    durations(&mut page, &classes, signal);

    let known = now.decision;
    let replicas = now.replicas;
    for (name, help, value) in [
        ("target_replicas", "Replicas that the demand needs, within the bounds.", known.map(|known| known.target)),
        ("desired_replicas", "The target with rate limits applied.", known.and_then(|known| known.desired)),
        ("ready_replicas", "Replicas that serve.", replicas.map(|replicas| replicas.ready)),
        ("starting_replicas", "Replicas that start.", replicas.map(|replicas| replicas.starting)),
    ] {
        page.family(name, "gauge", help);
        if let Some(value) = value {
            page.sample(name, format_args!("pool=\"{POOL}\""), value);
        }
    }
    if format == Format::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

fn durations(page: &mut Page, classes: &[Class], signal: &DemandSignal) {
    const NAME: &str = "request_duration_seconds";
    page.family(NAME, "histogram", "Time from arrival to the end of the response body.");
    for class in classes {
        for (outcome, buckets, sum) in signal.block(*class).durations() {
            let total: u64 = buckets.iter().sum();
            if total == 0 {
                continue;
            }
            let labels = format!("class=\"{class}\",outcome=\"{}\"", outcome.as_str());
            let mut below = 0;
            for (bound, count) in BOUNDS.iter().zip(buckets) {
                below += count;
                // OpenMetrics wants "1.0" where the older format says "1".
                let bound = match page.format {
                    Format::OpenMetrics => format!("{bound:?}"),
                    Format::Text => bound.to_string(),
                };
                page.sample("request_duration_seconds_bucket", format_args!("{labels},le=\"{bound}\""), below);
            }
            page.sample("request_duration_seconds_bucket", format_args!("{labels},le=\"+Inf\""), total);
            page.sample("request_duration_seconds_sum", &labels, sum);
            page.sample("request_duration_seconds_count", &labels, total);
        }
    }
}
