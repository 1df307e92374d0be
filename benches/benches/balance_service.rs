//! A whole call through `Balance`, until the end of the answer's body, beside tower's power of two choices behind its
//! `Buffer` over the same services: CPU time of the thread, which never waits, in turns; and heap allocations.
//!
//! The services answer at once, so what is left is the balancers' own. tower's `Balance` is no `Clone`; the `Buffer`, a
//! task and a channel, is how requests from many connections reach it. Both count a request until its body has ended
//! (ours) or its head is there (tower's `CompleteOnResponse`, the default).
//!
//! tower's answers do not say which endpoint gave them, and ours need not: `picked(false)`. With `Picked`, the default, an
//! answer has an extension, whose map, table and value are allocated; that is a row of its own.
//!
//! `cargo bench -p forebay-benches --bench balance_service`

use std::fmt::Debug;
use std::hint::black_box;

use bytes::Bytes;
use forebay_balance::{Balance, Endpoint};
use forebay_benches::priority::Echo;
use forebay_benches::{Goal, Report, allocations, rounds};
use forebay_core::Class;
use http::{Extensions, Request, Response};
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::runtime::{Builder, Runtime};
use tower::balance::p2c;
use tower::buffer::Buffer;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PendingRequestsDiscover};
use tower::{Service, ServiceExt as _};

const NAMES: [&str; 4] = ["the service alone", "forebay Balance", "the same, with Picked", "tower p2c + Buffer"];
const ENDPOINTS: usize = 8;
const COUNT: usize = 2000;
const ROUNDS: usize = 200;
/// Requests at once, where there are many.
const CROWD: usize = 50;

async fn one<S, R>(service: S)
where
    S: Service<Request<()>, Response = Response<R>, Error: Debug>,
    R: Body<Data = Bytes, Error: Debug>,
{
    let response = service.oneshot(Request::new(())).await.expect("it answers");
    black_box(response.into_body().collect().await.expect("a whole body"));
}

/// One after another, each through a clone.
fn alone<S, R>(runtime: &Runtime, service: &S)
where
    S: Service<Request<()>, Response = Response<R>, Error: Debug> + Clone,
    R: Body<Data = Bytes, Error: Debug>,
{
    runtime.block_on(async {
        for _ in 0..COUNT {
            one(service.clone()).await;
        }
    });
}

/// In crowds of tasks.
fn crowded<S, R>(runtime: &Runtime, service: &S)
where
    S: Service<Request<()>, Response = Response<R>, Error: Debug, Future: Send> + Clone + Send + 'static,
    R: Body<Data = Bytes, Error: Debug> + Send + 'static,
{
    runtime.block_on(async {
        for _ in 0..COUNT / CROWD {
            let tasks: [_; CROWD] = std::array::from_fn(|_| tokio::spawn(one(service.clone())));
            for task in tasks {
                task.await.expect("no panic");
            }
        }
    });
}

fn ours(picked: bool) -> Balance<Echo> {
    let add = |builder: forebay_balance::BalanceBuilder<Echo>, i: usize| {
        builder.endpoint(Endpoint::with_service(format!("endpoint-{i}"), Echo).weight([3, 2, 1][i % 3]))
    };
    (0..ENDPOINTS).fold(Balance::builder().picked(picked), add).build().expect("valid")
}

fn main() {
    let mut report = Report::default();
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    let (ours, said, p2c) = runtime.block_on(async {
        let services = ServiceList::new(vec![Echo; ENDPOINTS]);
        let balance = p2c::Balance::new(PendingRequestsDiscover::new(services, CompleteOnResponse::default()));
        (ours(false), ours(true), Buffer::new(balance, CROWD))
    });
    let kinds = [
        rounds(
            ROUNDS,
            COUNT,
            &mut [
                &mut || alone(&runtime, &Echo),
                &mut || alone(&runtime, &ours),
                &mut || alone(&runtime, &said),
                &mut || alone(&runtime, &p2c),
            ],
        ),
        rounds(
            ROUNDS,
            COUNT,
            &mut [
                &mut || crowded(&runtime, &Echo),
                &mut || crowded(&runtime, &ours),
                &mut || crowded(&runtime, &said),
                &mut || crowded(&runtime, &p2c),
            ],
        ),
    ];
    let heap = [
        allocations(|| alone(&runtime, &Echo)),
        allocations(|| alone(&runtime, &ours)),
        allocations(|| alone(&runtime, &said)),
        allocations(|| alone(&runtime, &p2c)),
    ]
    .map(|count| count as f64 / COUNT as f64);

    println!(
        "{:<22} {:>10} {:>8} {:>14} {:>8} {:>12}",
        "", "alone, ns", "above", "50 tasks, ns", "above", "allocations"
    );
    for (at, name) in NAMES.into_iter().enumerate() {
        let [alone, crowd] = [0, 1].map(|kind| (kinds[kind][at], kinds[kind][at] - kinds[kind][0]));
        let allocations = heap[at] - heap[0];
        println!(
            "{name:<22} {:>10.0} {:>8.0} {:>14.0} {:>8.0} {allocations:>12.2}",
            alone.0, alone.1, crowd.0, crowd.1
        );
        report.figure(&format!("{name}, one after another: ns an exchange"), alone.0.round());
        report.figure(&format!("{name}, {CROWD} tasks at once: ns an exchange"), crowd.0.round());
        report.figure(&format!("{name}: allocations above the service's own"), allocations);
    }
    let first = allocations(|| {
        let mut extensions = Extensions::new();
        extensions.insert(Class::P1);
        black_box(extensions);
    });
    println!("the first entry of http::Extensions, as is `Picked` in the answer: {first} allocations\n");
    report.figure("allocations of the first entry of http::Extensions", first);
    let whole = |kind: usize| kinds[kind][1] / kinds[kind][3];
    let above = |kind: usize| (kinds[kind][1] - kinds[kind][0]) / (kinds[kind][3] - kinds[kind][0]);
    report.target("CPU of a whole exchange, one after another, ours / tower", whole(0), Goal::AtMost(0.333));
    report.target("CPU of a whole exchange, 50 tasks at once, ours / tower", whole(1), Goal::AtMost(0.333));
    report.target("CPU above the service, one after another, ours / tower", above(0), Goal::AtMost(0.333));
    report.target("CPU above the service, 50 tasks at once, ours / tower", above(1), Goal::AtMost(0.333));
    report.target("own allocations an exchange", heap[1] - heap[0], Goal::AtMost(0.0));
    report.print();
}
