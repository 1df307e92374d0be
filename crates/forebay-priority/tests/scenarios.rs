//! Bad days in virtual time: load steps, flash crowds, an elephant among mice, requests of very unequal length, streams,
//! callers who leave or come back too soon, a backend that dies and returns.

mod common;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use common::{PATIENCE, Random, assert_idle, class, millis};
use forebay_core::testing::{Scripted, Step};
use forebay_core::{Class, Deadline, Principal};
use forebay_priority::{Order, PriorityConfig, PriorityHandle, PriorityLayer};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tower::{Layer as _, ServiceExt as _, service_fn};

/// A request of a scenario.
#[derive(Debug, Clone, Copy)]
struct Ask {
    class: usize,
    tenant: u64,
    hold: Duration,
    /// When the caller leaves, answered or not.
    leaves: Duration,
}

/// What became of it.
#[derive(Debug, Clone, Copy)]
struct Told {
    ask: Ask,
    at: f64,
    took: Duration,
    status: Option<u16>,
}

impl Told {
    fn in_time(&self) -> bool {
        self.status == Some(200) && self.took <= millis(PATIENCE[self.ask.class])
    }
}

fn share(told: &[Told], class: usize, from: f64, to: f64) -> f64 {
    let of: Vec<_> = told.iter().filter(|told| told.ask.class == class && (from..to).contains(&told.at)).collect();
    of.iter().filter(|told| told.in_time()).count() as f64 / of.len().max(1) as f64
}

/// Poisson arrivals at a rate that follows the time, before a backend that is what `hold` says. Nothing is left at the end.
async fn run(
    config: PriorityConfig,
    seconds: f64,
    rate: impl Fn(f64) -> f64,
    mut ask: impl FnMut(f64, &mut Random) -> Ask,
) -> (Vec<Told>, PriorityHandle) {
    let (layer, handle) = PriorityLayer::builder().config(config).build_with_handle().expect("valid");
    let service = layer.layer(service_fn(|request: Request<()>| async move {
        sleep(*request.extensions().get::<Duration>().expect("ours")).await;
        Ok::<_, Infallible>(Response::new(Scripted::new([Step::Data("x".into())])))
    }));
    let (mut random, start, mut at) = (Random(11), Instant::now(), 0.0);
    let mut tasks = tokio::task::JoinSet::new();
    let mut told = Vec::new();
    while at < seconds {
        at += -(1.0 - random.unit()).ln() / rate(at);
        sleep_until(start + Duration::from_secs_f64(at)).await;
        let ask = ask(at, &mut random);
        let mut request = common::request(Class::new(ask.class as u8));
        let extensions = request.extensions_mut();
        extensions.insert(ask.hold);
        extensions.insert(Principal::from_bytes(ask.tenant.to_le_bytes()));
        extensions.insert(Deadline::after(Instant::now().into_std(), millis(PATIENCE[ask.class])));
        let service = service.clone();
        tasks.spawn(async move {
            let begun = Instant::now();
            let exchange = async {
                let response = service.oneshot(request).await.expect("infallible");
                let status = response.status().as_u16();
                response.into_body().collect().await.expect("a body");
                status
            };
            let status = timeout(ask.leaves, exchange).await.ok();
            Told { ask, at, took: begun.elapsed(), status }
        });
        while let Some(done) = tasks.try_join_next() {
            told.push(done.expect("no panic"));
        }
    }
    told.extend(tasks.join_all().await);
    assert_idle(&handle);
    (told, handle)
}

const HOUR: Duration = Duration::from_secs(3600);

/// 50 seats, 40 to 60 ms an answer: 1000/s.
fn ordinary() -> PriorityConfig {
    PriorityConfig::four_class(50).expected_hold(millis(50)).expected_head(millis(50))
}

fn hold(random: &mut Random) -> Duration {
    millis(50).mul_f64(0.8 + 0.4 * random.unit())
}

#[tokio::test(start_paused = true)]
async fn load_steps_never_reach_the_most_urgent() {
    let loads = [500.0, 2000.0, 10_000.0, 500.0];
    let (told, _) = run(
        ordinary(),
        12.0,
        |at| loads[((at / 3.0) as usize).min(3)],
        |_, random| {
            let class = class(random, [0.06, 0.24, 0.3, 0.4]);
            Ask { class, tenant: 0, hold: hold(random), leaves: HOUR }
        },
    )
    .await;
    assert!(share(&told, 0, 0.0, 12.0) >= 0.9999, "{}", share(&told, 0, 0.0, 12.0));
    // Three seconds after the storm everybody is served again.
    for class in 0..4 {
        assert!(share(&told, class, 0.0, 2.9) >= 0.9999, "P{class} before");
        assert!(share(&told, class, 11.0, 12.0) >= 0.999, "P{class} after: {}", share(&told, class, 11.0, 12.0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_flash_crowd_of_the_least_urgent_is_not_felt_above() {
    let (told, _) = run(
        ordinary(),
        6.0,
        |at| if (2.0..2.3).contains(&at) { 30_000.0 } else { 600.0 },
        |at, random| {
            let crowd = (2.0..2.3).contains(&at) && random.unit() < 0.98;
            let class = if crowd { 3 } else { class(random, [0.25; 4]) };
            Ask { class, tenant: u64::from(crowd), hold: hold(random), leaves: HOUR }
        },
    )
    .await;
    for class in 0..3 {
        assert!(share(&told, class, 0.0, 6.0) >= 0.9999, "P{class}: {}", share(&told, class, 0.0, 6.0));
    }
    let others = told.iter().filter(|told| told.ask.class == 3 && told.ask.tenant == 0);
    let (served, all) = others.fold((0, 0), |(served, all), told| (served + usize::from(told.in_time()), all + 1));
    assert!(f64::from(served as u32) >= 0.98 * f64::from(all as u32), "nor by others of its class: {served} of {all}");
}

#[tokio::test(start_paused = true)]
async fn r25_an_elephant_leaves_the_mice_as_they_are() {
    // 40 mice at 10/s each, within capacity; the elephant alone wants four times all there is.
    let day = async |elephant: bool| {
        let rate = move |_: f64| if elephant { 4400.0 } else { 400.0 };
        let (told, _) = run(ordinary(), 8.0, rate, move |_, random| {
            let mouse = !elephant || random.unit() < 400.0 / 4400.0;
            let tenant = if mouse { 1 + (random.unit() * 40.0) as u64 } else { 0 };
            Ask { class: 2, tenant, hold: hold(random), leaves: HOUR }
        })
        .await;
        let mut took: Vec<_> = told.iter().filter(|told| told.ask.tenant > 0 && told.at > 1.0).collect();
        took.sort_by_key(|told| told.took);
        let in_time = took.iter().filter(|told| told.in_time()).count() as f64 / took.len() as f64;
        (took[took.len() * 99 / 100].took, in_time)
    };
    let ((alone, all), (beside, served)) = (day(false).await, day(true).await);
    println!("p99 alone {alone:?}, beside the elephant {beside:?}; in time {all}, {served}");
    assert!(served >= 0.999, "{served} of the mice's requests are in time");
    assert!(beside <= alone.mul_f64(1.2), "p99 {beside:?} beside the elephant, {alone:?} alone");
}

#[tokio::test(start_paused = true)]
async fn r16_very_long_requests_leave_room_for_the_urgent_with_headroom() {
    // One in ten of the batch class takes 5 s; without headroom its seats come free too rarely for P0.
    let mut config = ordinary();
    config.classes[3].headroom = 0.3;
    config.classes[3].order = Order::Fifo;
    let (told, handle) = run(
        config,
        10.0,
        |_| 800.0,
        |_, random| {
            let class = class(random, [0.3, 0.3, 0.3, 0.1]);
            let long = class == 3 && random.unit() < 0.5;
            Ask { class, tenant: 0, hold: if long { millis(5000) } else { millis(10) }, leaves: HOUR }
        },
    )
    .await;
    for class in 0..3 {
        assert!(share(&told, class, 0.0, 10.0) >= 0.9999, "P{class}: {}", share(&told, class, 0.0, 10.0));
    }
    assert_idle(&handle);
}

#[tokio::test(start_paused = true)]
async fn callers_who_leave_cost_nothing() {
    let (told, handle) = run(
        ordinary(),
        5.0,
        |_| 2000.0,
        |_, random| {
            let leaves = if random.unit() < 0.3 { Duration::from_secs_f64(random.unit() * 0.3) } else { HOUR };
            Ask { class: class(random, [0.1, 0.2, 0.3, 0.4]), tenant: 0, hold: hold(random), leaves }
        },
    )
    .await;
    let stayed: Vec<_> = told.iter().filter(|told| told.ask.leaves == HOUR).copied().collect();
    assert!(share(&stayed, 0, 0.0, 5.0) >= 0.9999);
    let snapshot = handle.snapshot();
    assert!(snapshot.classes[3].cancelled > 100, "{snapshot:?}");
}

#[tokio::test(start_paused = true)]
async fn a_retry_storm_burns_out() {
    let (layer, handle) = PriorityLayer::builder().config(ordinary()).build_with_handle().expect("valid");
    let service = layer.layer(service_fn(|_: Request<()>| async {
        sleep(millis(50)).await;
        Ok::<_, Infallible>(Response::new(Scripted::new([])))
    }));
    // 20,000 at once, who come back as they are told to: at 1000/s that takes 20 s at best.
    let start = Instant::now();
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..20_000 {
        let service = service.clone();
        crowd.spawn(async move {
            loop {
                let response = service.clone().oneshot(common::request(Class::P2)).await.expect("infallible");
                if response.status() == 200 {
                    return;
                }
                let after: u64 = response.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
                sleep(Duration::from_secs(after)).await;
            }
        });
    }
    crowd.join_all().await;
    assert!(start.elapsed() < Duration::from_secs(60), "all are served after {:?}", start.elapsed());
    assert_idle(&handle);
}

#[tokio::test(start_paused = true)]
async fn r14_a_backend_that_was_dead_for_30_s_serves_the_urgent_within_a_second() {
    let (told, _) = run(
        ordinary(),
        40.0,
        |_| 900.0,
        |at, random| {
            // Whatever runs while it is dead ends when it is back.
            let dead = (5.0..35.0).contains(&at).then(|| Duration::from_secs_f64(35.0 - at));
            Ask {
                class: class(random, [0.3, 0.3, 0.2, 0.2]),
                tenant: 0,
                hold: dead.unwrap_or_else(|| hold(random)),
                leaves: HOUR,
            }
        },
    )
    .await;
    assert!(share(&told, 0, 36.0, 40.0) >= 0.99, "{}", share(&told, 0, 36.0, 40.0));
    assert!(share(&told, 0, 0.0, 4.4) >= 0.9999);
}

#[tokio::test(start_paused = true)]
async fn r8_no_more_streams_are_alive_than_there_are_seats() {
    let (alive, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (layer, handle) =
        PriorityLayer::builder().config(PriorityConfig::four_class(8)).build_with_handle().expect("valid");
    let (counted, most) = (Arc::clone(&alive), Arc::clone(&peak));
    let service = layer.layer(service_fn(move |_: Request<()>| {
        most.fetch_max(counted.fetch_add(1, SeqCst) + 1, SeqCst);
        let steps = (0..20).flat_map(|_| [Step::Pending, Step::Data("data: token\n\n".into())]);
        let body = Counted { body: Scripted::new(steps), alive: Arc::clone(&counted) };
        async {
            Ok::<_, Infallible>(
                Response::builder().header("content-type", "text/event-stream").body(body).expect("valid"),
            )
        }
    }));
    let mut clients = tokio::task::JoinSet::new();
    for i in 0..200_u64 {
        let service = service.clone();
        clients.spawn(async move {
            let Ok(response) = service.oneshot(common::request(Class::P3)).await;
            let mut body = response.into_body();
            let mut frames = 0;
            while let Some(Ok(_)) = body.frame().await {
                frames += 1;
                sleep(millis(if i % 3 == 0 { 40 } else { 5 })).await; // some read slowly
                if i % 5 == 0 && frames == 3 {
                    return; // some leave
                }
            }
        });
    }
    clients.join_all().await;
    assert_eq!((peak.load(SeqCst), alive.load(SeqCst)), (8, 0));
    assert_idle(&handle);
}

/// A body that is counted as long as it lives.
struct Counted {
    body: Scripted,
    alive: Arc<AtomicUsize>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, SeqCst);
    }
}

impl http_body::Body for Counted {
    type Data = bytes::Bytes;
    type Error = forebay_core::BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(cx)
    }
}
