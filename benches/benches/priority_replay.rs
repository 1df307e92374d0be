//! Real arrivals, compressed to 0.9, 2 and 5 times the capacity, in virtual time: how many are told "busy", and when the
//! others get their first byte. Beside it a first-in-first-out queue, tuned to what users of such a queue see: one in eight
//! is told "busy", and the others wait for seconds.
//!
//! `cargo bench -p forebay-benches --bench priority_replay`

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use forebay_benches::priority::Random;
use forebay_benches::virtual_time::{LateBody, Work, backend, virtually};
use forebay_benches::{Goal, Report};
use forebay_core::Class;
use forebay_priority::{PriorityConfig, PriorityLayer};
use hdrhistogram::Histogram;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};
use tower::{Layer as _, ServiceExt as _, service_fn};

/// Sequences that the simulated fleet decodes at once, and its pace.
const SEATS: usize = 64;
const PREFILL: f64 = 8000.0;
const DECODE: f64 = 400.0;
const MIX: [f64; 4] = [0.1, 0.2, 0.3, 0.4];

/// A request of a trace: when it comes, in seconds, and what it takes.
#[derive(Clone, Copy)]
struct Arrival {
    at: f64,
    work: Work,
    class: usize,
}

impl Arrival {
    fn new(at: f64, input: f64, output: f64, random: &mut Random) -> Self {
        let work = Work {
            head: Duration::from_secs_f64(0.02 + input / PREFILL),
            body: Duration::from_secs_f64(output / DECODE),
        };
        Self { at, work, class: random.class(MIX) }
    }
}

fn of_csv(text: &str) -> Vec<Arrival> {
    let mut random = Random::new(3);
    let row = |line: &str| {
        let numbers: Vec<f64> = line.split(',').filter_map(|number| number.parse().ok()).collect();
        let [ms, input, output] = numbers[..] else { return None };
        Some(Arrival::new(ms / 1000.0, input, output, &mut random))
    };
    text.lines().skip(1).filter_map(row).collect()
}

/// Two minutes of every client at its own rate and burstiness; lengths of the first trace.
fn of_clients(text: &str, lengths: &[Arrival]) -> Vec<Arrival> {
    let mut random = Random::new(5);
    let mut all = Vec::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let [_, _, law, shape, scale] = fields[..] else { continue };
        let (Ok(shape), Ok(scale)) = (shape.parse(), scale.parse()) else { continue };
        let mut at = 0.0;
        loop {
            at += if law == "Weibull" { random.weibull(shape, scale) } else { random.gamma(shape, scale) };
            if at > 20.0 || all.len() > 80_000 {
                break;
            }
            let work = lengths[(random.unit() * lengths.len() as f64) as usize].work;
            all.push(Arrival { at, work, class: random.class(MIX) });
        }
    }
    all.sort_by(|a, b| a.at.total_cmp(&b.at));
    all
}

/// The same arrivals at `load` times the capacity.
fn compressed(arrivals: &[Arrival], load: f64) -> Vec<Arrival> {
    let seats: f64 = arrivals.iter().map(|arrival| (arrival.work.head + arrival.work.body).as_secs_f64()).sum();
    let (first, last) = (arrivals[0].at, arrivals[arrivals.len() - 1].at);
    let factor = seats / SEATS as f64 / load / (last - first);
    arrivals.iter().map(|arrival| Arrival { at: (arrival.at - first) * factor, ..*arrival }).collect()
}

/// What callers of each class saw.
struct Seen {
    asked: [u64; 4],
    busy: [u64; 4],
    first_byte: [Histogram<u64>; 4],
}

impl Seen {
    fn new() -> Self {
        let histogram = || Histogram::new(3).expect("three digits");
        let first_byte = [histogram(), histogram(), histogram(), histogram()];
        Self { asked: [0; 4], busy: [0; 4], first_byte }
    }

    fn busy_share(&self, classes: std::ops::Range<usize>) -> f64 {
        let sum = |counts: &[u64; 4]| counts[classes.clone()].iter().sum::<u64>() as f64;
        sum(&self.busy) / sum(&self.asked).max(1.0)
    }

    fn p99(&self, classes: std::ops::Range<usize>) -> f64 {
        let mut all: Histogram<u64> = Histogram::new(3).expect("three digits");
        self.first_byte[classes].iter().for_each(|histogram| all.add(histogram).expect("same digits"));
        all.value_at_quantile(0.99) as f64 / 1000.0
    }
}

/// Sends all of them to `service` and notes what becomes of them.
async fn replay<S, B>(arrivals: &[Arrival], service: S) -> Seen
where
    S: tower::Service<Request<()>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = bytes::Bytes, Error = forebay_core::BoxError> + Send + 'static,
{
    let (start, mut seen) = (Instant::now(), Seen::new());
    let mut tasks = tokio::task::JoinSet::new();
    let mut note = |(class, busy, took): (usize, bool, Duration)| {
        if busy {
            seen.busy[class] += 1;
        } else {
            seen.first_byte[class].record(took.as_millis() as u64).expect("it grows");
        }
    };
    let mut asked = [0; 4];
    for arrival in arrivals {
        sleep_until(start + Duration::from_secs_f64(arrival.at)).await;
        let mut request = Request::new(());
        request.extensions_mut().insert(arrival.work);
        request.extensions_mut().insert(Class::new(arrival.class as u8));
        asked[arrival.class] += 1;
        let (service, class) = (service.clone(), arrival.class);
        tasks.spawn(async move {
            let begun = Instant::now();
            let Ok(response) = service.oneshot(request).await;
            let took = begun.elapsed();
            let busy = response.status() != 200;
            let _ = response.into_body().collect().await;
            (class, busy, took)
        });
        while let Some(done) = tasks.try_join_next() {
            note(done.expect("no panic"));
        }
    }
    while let Some(done) = tasks.join_next().await {
        note(done.expect("no panic"));
    }
    seen.asked = asked;
    seen
}

fn ours(arrivals: &[Arrival]) -> Seen {
    virtually(async {
        let mean = arrivals.iter().map(|arrival| arrival.work.head + arrival.work.body).sum::<Duration>();
        let config = PriorityConfig::four_class(SEATS).expected_hold(mean / arrivals.len() as u32);
        let layer = PriorityLayer::builder().config(config).build().expect("a preset");
        replay(arrivals, layer.layer(service_fn(backend))).await
    })
}

/// A semaphore and a bounded queue, in order of arrival; its seats too last to the end of the body.
fn fifo(arrivals: &[Arrival], queue: usize) -> Seen {
    virtually(async {
        let (seats, waiting) = (Arc::new(Semaphore::new(SEATS)), Arc::new(AtomicUsize::new(0)));
        let service = service_fn(move |request: Request<()>| {
            let (seats, waiting) = (Arc::clone(&seats), Arc::clone(&waiting));
            async move {
                if waiting.fetch_add(1, Relaxed) >= queue && seats.available_permits() == 0 {
                    waiting.fetch_sub(1, Relaxed);
                    return Ok(Response::builder().status(429).body(LateBody::empty()).expect("a plain head"));
                }
                let seat = seats.acquire_owned().await.expect("never closed");
                waiting.fetch_sub(1, Relaxed);
                let response = backend(request).await?;
                Ok::<_, Infallible>(response.map(|body| body.holding(seat)))
            }
        });
        replay(arrivals, service).await
    })
}

fn show(report: &mut Report, name: &str, stack: &str, seen: &Seen) {
    let percent = |part: f64| (part * 10_000.0).round() / 100.0;
    let busy: Vec<_> = (0..4).map(|class| percent(seen.busy_share(class..class + 1))).collect();
    let p99: Vec<_> = (0..4).map(|class| seen.p99(class..class + 1)).collect();
    println!("{name:<28} {stack:<8} busy % {busy:?}  first byte p99 s {p99:?}");
    report.figure(&format!("{name} {stack} busy_percent"), busy);
    report.figure(&format!("{name} {stack} first_byte_p99_s"), p99);
}

fn main() {
    let mut report = Report::default();
    let azure = of_csv(include_str!("../data/azure_conv.csv"));
    let mooncake = of_csv(include_str!("../data/mooncake_conversation_first30min.csv"));
    let clients = of_clients(include_str!("../data/servegen_m_small_busiest_10min.csv"), &azure);
    println!("{SEATS} seats; P0..P3 10, 20, 30, 40 %, with the preset of four classes\n");
    for (trace, arrivals) in [("azure", &azure), ("mooncake", &mooncake), ("servegen", &clients)] {
        for load in [0.9, 2.0, 5.0] {
            let arrivals = compressed(arrivals, load);
            let name = format!("{trace} {load}x ({})", arrivals.len());
            show(&mut report, &name, "forebay", &ours(&arrivals));
            show(&mut report, &name, "fifo", &fifo(&arrivals, 200));
        }
    }

    // A day of the system that forebay is to replace: one in eight is told "busy" and the 99th percentile is 8.2 s. The queue that does so on the first
    // trace is found by trying.
    let arrivals = compressed(&azure, 1.16);
    let (queue, before) = (1..40)
        .map(|step| step * 25)
        .map(|queue| (queue, fifo(&arrivals, queue)))
        .find(|(_, seen)| seen.p99(0..4) >= 8.2)
        .expect("some queue is that long");
    println!("\nfirst in, first out, with a queue of {queue}, at 1.16 times the capacity:");
    show(&mut report, "reference", "fifo", &before);
    let after = ours(&arrivals);
    show(&mut report, "reference", "forebay", &after);
    println!();
    report.figure("reference fifo busy", before.busy_share(0..4));
    report.figure("reference fifo p99_s", before.p99(0..4));
    report.figure("reference forebay busy, all classes", after.busy_share(0..4));
    report.target("reference: busy, P0 to P2", after.busy_share(0..3), Goal::AtMost(0.005));
    report.target("reference: first byte p99 of P0 to P2, s", after.p99(0..3), Goal::AtMost(1.8));
    report.print();
}
