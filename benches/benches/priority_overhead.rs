//! What the layer costs where nobody waits: CPU time and allocations of an exchange above the bare service, beside tower's
//! `ConcurrencyLimit` and tower-resilience's bulkhead, all in turns on one thread.
//!
//! `cargo bench -p forebay-benches --bench priority_overhead`

use std::convert::Infallible;
use std::hint::black_box;

use bytes::Bytes;
use forebay_benches::{Goal, Report, allocations, thread_cpu_time};
use forebay_core::{Class, Counted};
use forebay_priority::{ByHeader, PriorityConfig, PriorityLayer};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tower::limit::ConcurrencyLimitLayer;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};
use tower_resilience_bulkhead::BulkheadLayer;

const EACH: u32 = 500_000;
const ROUNDS: usize = 9;

/// A request as authentication leaves it, with a `Class`; with `Counted` too, so that no entry of ours is its first.
fn request() -> Request<()> {
    let mut request = Request::new(());
    request.extensions_mut().insert(Class::P1);
    request.extensions_mut().insert(Counted);
    request
}

/// One exchange: a clone of the service, its call, its body to the end.
async fn exchange<S, B>(service: &S, request: Request<()>)
where
    S: Service<Request<()>, Response = Response<B>> + Clone,
    B: http_body::Body,
{
    if let Ok(response) = service.clone().oneshot(request).await {
        black_box(response.into_body().collect().await.is_ok());
    }
}

/// CPU nanoseconds of an exchange.
async fn time<S, B>(service: &S, request: impl Fn() -> Request<()>) -> f64
where
    S: Service<Request<()>, Response = Response<B>> + Clone,
    B: http_body::Body,
{
    let before = thread_cpu_time();
    for _ in 0..EACH {
        exchange(service, request()).await;
    }
    (thread_cpu_time() - before).as_nanos() as f64 / f64::from(EACH)
}

fn count<S, B>(service: &S, request: Request<()>) -> u64
where
    S: Service<Request<()>, Response = Response<B>> + Clone,
    B: http_body::Body,
{
    let mut task = Box::pin(exchange(service, request));
    let mut poll = || {
        let done = task.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready();
        assert!(done, "nobody waits here");
    };
    allocations(&mut poll)
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn main() {
    let bare = service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello"))))
    });
    let config = || PriorityConfig::four_class(64);
    let ours = PriorityLayer::builder().config(config()).build().expect("a preset").layer(bare);
    let by_header = PriorityLayer::builder().config(config()).classify(ByHeader::new("x-priority")).build();
    let by_header = by_header.expect("valid").layer(bare);
    let tower = ConcurrencyLimitLayer::new(64).layer(bare);
    let bulkhead = BulkheadLayer::builder().max_concurrent_calls(64).build().expect("valid").layer(bare);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let plain = || Request::new(());
    let mut rounds = [const { Vec::new() }; 6];
    runtime.block_on(async {
        for _ in 0..=ROUNDS {
            rounds[0].push(time(&bare, request).await);
            rounds[1].push(time(&ours, request).await);
            rounds[2].push(time(&tower, request).await);
            rounds[3].push(time(&bulkhead, request).await);
            rounds[4].push(time(&bare, plain).await);
            rounds[5].push(time(&by_header, plain).await);
        }
    });
    let [bare_ns, ours_ns, tower_ns, bulkhead_ns, plain_ns, header_ns] = rounds.map(|mut rounds| {
        rounds.remove(0); // warm-up
        median(rounds)
    });
    let above = |ns: f64| ns - bare_ns;
    let _entered = runtime.enter();
    let own = count(&ours, request()) - count(&bare, request());
    let first = count(&by_header, plain()) - count(&bare, plain());
    let peers = [count(&tower, request()), count(&bulkhead, request())].map(|n| n - count(&bare, request()));

    println!("CPU ns above the bare service's {bare_ns:.0}, and allocations:");
    println!("forebay                       {:>6.0}  {own}", above(ours_ns));
    println!(
        "forebay, class by header      {:>6.0}  {first} (the first entry of http::Extensions)",
        header_ns - plain_ns
    );
    println!("tower ConcurrencyLimit        {:>6.0}  {}", above(tower_ns), peers[0]);
    println!("tower-resilience-bulkhead     {:>6.0}  {}\n", above(bulkhead_ns), peers[1]);
    let mut report = Report::default();
    for (name, value) in [
        ("bare_ns", bare_ns),
        ("forebay_ns_above", above(ours_ns)),
        ("forebay_by_header_ns_above", header_ns - plain_ns),
        ("concurrency_limit_ns_above", above(tower_ns)),
        ("bulkhead_ns_above", above(bulkhead_ns)),
    ] {
        report.figure(name, value.round());
    }
    report.figure("forebay_by_header_allocations", first);
    report.figure("peers_allocations", peers.to_vec());
    report.target("CPU above bare / tower ConcurrencyLimit", above(ours_ns) / above(tower_ns), Goal::AtMost(1.0));
    report.target("CPU above bare / tower-resilience-bulkhead", above(ours_ns) / above(bulkhead_ns), Goal::AtMost(0.3));
    report.target("allocations of our own", own as f64, Goal::AtMost(0.0));
    report.print();
}
