//! What a layer costs that has nothing to do: forebay and its peers around a service that answers at once, with places
//! to spare, a clone for each request, and the body read to its end.
//!
//! `least` is no peer but a yardstick: what any layer pays that may wait in its future and holds its place to the end of the
//! body ([`Least`]), and decides nothing.
//!
//! "Readers unwatched" is the layer without a `stall`: to be able to take a body away from a reader that has stopped costs a
//! box for each.
//!
//! `cargo bench -p forebay-benches --bench priority_overhead`

use std::hint::black_box;

use bytes::Bytes;
use forebay_benches::priority::{Echo, Least, classed};
use forebay_benches::{Goal, Report, allocations, rounds};
use forebay_core::Class;
use forebay_priority::{PriorityConfig, PriorityLayer};
use http::{Extensions, Request, Response};
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::runtime::{Builder, Runtime};
use tower::limit::ConcurrencyLimitLayer;
use tower::{Layer as _, Service, ServiceExt as _};
use tower_resilience_bulkhead::BulkheadLayer;

const COUNT: usize = 2000;
const ROUNDS: usize = 400;
const PLACES: usize = 1000;

/// `count` requests one after another.
fn through<S, R>(runtime: &Runtime, service: &S, count: usize, request: fn() -> Request<()>)
where
    S: Service<Request<()>, Response = Response<R>, Error: std::fmt::Debug> + Clone,
    R: Body<Data = Bytes, Error: std::fmt::Debug>,
{
    runtime.block_on(async {
        for _ in 0..count {
            let response = service.clone().oneshot(request()).await.expect("it answers");
            black_box(response.into_body().collect().await.expect("a whole body"));
        }
    });
}

fn bears_class() -> Request<()> {
    classed(Class::P1)
}

fn main() {
    let mut report = Report::default();
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    let bare = Echo;
    let layer = |config: PriorityConfig| PriorityLayer::builder().config(config).build().expect("valid").layer(Echo);
    let mut trusting = PriorityConfig::four_class(PLACES);
    trusting.stall = None;
    let (ours, trusting) = (layer(PriorityConfig::four_class(PLACES)), layer(trusting));
    let limit = ConcurrencyLimitLayer::new(PLACES).layer(Echo);
    let least = Least::new(Echo, PLACES);
    let bulkhead = BulkheadLayer::builder().max_concurrent_calls(PLACES).build().expect("valid").layer(Echo);

    let times = rounds(
        ROUNDS,
        COUNT,
        &mut [
            &mut || through(&runtime, &bare, COUNT, bears_class),
            &mut || through(&runtime, &ours, COUNT, bears_class),
            &mut || through(&runtime, &limit, COUNT, bears_class),
            &mut || through(&runtime, &bulkhead, COUNT, bears_class),
            &mut || through(&runtime, &least, COUNT, bears_class),
            &mut || through(&runtime, &trusting, COUNT, bears_class),
        ],
    );
    let counts = |request: fn() -> Request<()>| {
        [
            allocations(|| through(&runtime, &bare, COUNT, request)),
            allocations(|| through(&runtime, &ours, COUNT, request)),
            allocations(|| through(&runtime, &limit, COUNT, request)),
            allocations(|| through(&runtime, &bulkhead, COUNT, request)),
            allocations(|| through(&runtime, &least, COUNT, request)),
            allocations(|| through(&runtime, &trusting, COUNT, request)),
        ]
        .map(|count| count as f64 / COUNT as f64)
    };
    let (with, without) = (counts(bears_class), counts(|| Request::new(())));
    let first = allocations(|| {
        let mut extensions = Extensions::new();
        extensions.insert(Class::P1);
        black_box(extensions);
    });

    println!("{:<26} {:>8} {:>8} {:>12} {:>22}", "", "ns", "above", "allocations", "without a Class first");
    let names = ["bare", "forebay", "ConcurrencyLimit", "bulkhead", "least", "forebay, readers unwatched"];
    for (at, name) in names.into_iter().enumerate() {
        let (ns, above) = (times[at], times[at] - times[0]);
        let [with, without] = [with, without].map(|counts| counts[at] - counts[0]);
        println!("{name:<26} {ns:>8.1} {above:>8.1} {with:>12.2} {without:>22.2}");
        report.figure(&format!("{name}: ns per request"), (ns * 10.0).round() / 10.0);
        report.figure(&format!("{name}: ns above bare"), (above * 10.0).round() / 10.0);
        report.figure(&format!("{name}: allocations above bare"), with);
        report.figure(&format!("{name}: allocations above bare, no Class in the request"), without);
    }
    // Moved into `oneshot`, out of it, and on to whoever awaits it.
    let size = |bytes: usize, name: &str| format!("{name} {bytes}");
    let sizes = [
        size(size_of_val(&ours.clone().call(bears_class())), "forebay"),
        size(size_of_val(&bulkhead.clone().call(bears_class())), "bulkhead (boxed)"),
    ];
    println!("bytes of the response future: {}", sizes.join(", "));
    println!("the first entry of http::Extensions: {first} allocations\n");
    report.figure("allocations of the first entry of http::Extensions", first);
    let above = |at: usize| times[at] - times[0];
    report.figure("CPU above bare, ours / least", above(1) / above(4));
    report.figure("CPU above bare, least / ConcurrencyLimit", above(4) / above(2));
    report.target("CPU above bare, ours / ConcurrencyLimit", above(1) / above(2), Goal::AtMost(2.0));
    report.target("CPU above bare, ours / bulkhead", above(1) / above(3), Goal::AtMost(0.5));
    report.figure("CPU above bare, readers unwatched / ConcurrencyLimit", above(5) / above(2));
    report.target("own allocations a request", with[1] - with[0], Goal::AtMost(0.0));
    report.target("own allocations a request, readers unwatched", with[5] - with[0], Goal::AtMost(0.0));
    report.print();
}
