//! Token streams: 200 at once through a limit of 8. Of five clients one leaves in the middle and one reads slowly. How
//! many streams are alive at once, in virtual time?
//!
//! `cargo bench -p forebay-benches --bench priority_streams`

use std::convert::Infallible;
use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use forebay_benches::priority::{Frames, Live, classed};
use forebay_benches::{Goal, Report};
use forebay_core::Class;
use forebay_priority::{ClassConfig, Limit, PriorityConfig, PriorityLayer, QueueLength};
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt as _;
use little_loadshedder::{LoadShedLayer, LoadShedResponse};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower::limit::ConcurrencyLimitLayer;
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_resilience_bulkhead::BulkheadLayer;

const LIMIT: usize = 8;
const REQUESTS: usize = 200;
const FRAMES: usize = 20;
const PACE: Duration = Duration::from_millis(10);

fn server(
    live: &Live,
) -> impl Service<Request<()>, Response = Response<Frames>, Error = Infallible, Future: Send> + Clone + Send + use<> {
    let live = live.clone();
    service_fn(move |_| {
        let mut response = Response::new(Frames::new(FRAMES, PACE, &live));
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/event-stream"));
        std::future::ready(Ok(response))
    })
}

/// All clients at once; how many had all that they wanted.
async fn clients<S, R>(service: S) -> usize
where
    S: Service<Request<()>, Response = Response<R>, Error: Debug, Future: Send> + Clone + Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
{
    let mut clients = JoinSet::new();
    for client in 0..REQUESTS {
        let service = service.clone();
        clients.spawn(async move {
            let Ok(response) = service.oneshot(classed(Class::P0)).await else { return 0 };
            let mut body = Box::pin(response.into_body());
            let wants = if client % 5 == 1 { FRAMES / 2 } else { FRAMES };
            for seen in 0..wants {
                if client % 5 == 2 {
                    sleep(PACE * 5).await;
                }
                if !matches!(body.frame().await, Some(Ok(_))) {
                    println!("cut after {seen} frames");
                    return 0;
                }
            }
            // Who wants no more leaves; the others see the end.
            usize::from(wants < FRAMES || body.frame().await.is_none())
        });
    }
    let mut served = 0;
    while let Some(done) = clients.join_next().await {
        served += done.expect("no panic");
    }
    served
}

/// Runs `clients` in virtual time: the most streams alive, and how many clients were served.
fn run<F: Future<Output = usize>>(make: impl FnOnce(&Live) -> F) -> (usize, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let live = Live::default();
    let served = runtime.expect("a runtime").block_on(async { make(&live).await });
    (live.peak(), served)
}

fn main() {
    let mut report = Report::default();
    let rows = [
        (
            "forebay",
            run(|live| {
                let class = ClassConfig::new("streams", Duration::from_secs(60)).queue(QueueLength::Fixed(REQUESTS));
                let config = PriorityConfig::four_class(LIMIT).classes(vec![class]).limit(Limit::Fixed(LIMIT));
                let layer = PriorityLayer::builder().config(config).build_with_handle().expect("valid").0;
                clients(layer.layer(server(live)))
            }),
        ),
        ("ConcurrencyLimit", run(|live| clients(ConcurrencyLimitLayer::new(LIMIT).layer(server(live))))),
        (
            "LoadShed + ConcurrencyLimit",
            run(|live| clients(ServiceBuilder::new().load_shed().concurrency_limit(LIMIT).service(server(live)))),
        ),
        (
            "tower-resilience-bulkhead",
            run(|live| {
                let layer = BulkheadLayer::builder().max_concurrent_calls(LIMIT).build().expect("valid");
                clients(layer.layer(server(live)))
            }),
        ),
        (
            "tower-resilience-adaptive",
            run(|live| {
                let limit = tower_resilience_adaptive::Aimd::builder().initial_limit(LIMIT).max_limit(LIMIT);
                let layer = tower_resilience_adaptive::AdaptiveLimiterLayer::new(limit.build().expect("valid"));
                clients(layer.layer(server(live)))
            }),
        ),
        (
            "tower-acc",
            run(|live| {
                let limit = tower_acc::Aimd::builder().initial_limit(LIMIT).min_limit(1).max_limit(LIMIT).build();
                clients(tower_acc::ConcurrencyLimitLayer::new(limit).layer(server(live)))
            }),
        ),
        (
            "little-loadshedder",
            run(|live| {
                // It begins with a limit of 1.
                let service = LoadShedLayer::new(0.1, Duration::from_secs(10)).layer(server(live));
                clients(service.map_response(|answer| match answer {
                    LoadShedResponse::Inner(response) => response.map(http_body_util::Either::Left),
                    LoadShedResponse::Overload => {
                        Response::new(http_body_util::Either::Right(http_body_util::Empty::new()))
                    }
                }))
            }),
        ),
    ];
    println!("{:<28} {:>10} {:>14} {:>8}", "limit 8, 200 streams", "peak live", "peak / limit", "served");
    for (name, (peak, served)) in rows {
        let ratio = peak as f64 / LIMIT as f64;
        println!("{name:<28} {peak:>10} {ratio:>14.2} {served:>8}");
        report.figure(&format!("{name}: peak live bodies / limit"), ratio);
        report.figure(&format!("{name}: clients served"), served);
    }
    println!();
    let (peak, served) = rows[0].1;
    report.target("peak live bodies / limit, at most", peak as f64 / LIMIT as f64, Goal::AtMost(1.0));
    report.target("peak live bodies / limit, at least (no seat idle)", peak as f64 / LIMIT as f64, Goal::AtLeast(1.0));
    report.target("clients served", served as f64, Goal::AtLeast(REQUESTS as f64));
    report.print();
}
