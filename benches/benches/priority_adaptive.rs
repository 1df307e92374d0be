//! The adaptive limit when 30 of 50 slots of the backend are lost, in virtual time, beside the best fixed limit, which is
//! found by trying all: how far off the limit is from ten seconds after the step, and how much is answered.
//!
//! `cargo bench -p forebay-benches --bench priority_adaptive`

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_benches::priority::Random;
use forebay_benches::virtual_time::virtually;
use forebay_benches::{Goal, Report};
use forebay_core::Class;
use forebay_priority::adaptive::{AdaptiveConfig, Algorithm};
use forebay_priority::{Limit, PriorityConfig, PriorityLayer};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};
use tower::{Layer as _, ServiceExt as _, service_fn};

const SLOTS: usize = 50;
const LEFT: usize = 20;
const SERVICE: Duration = Duration::from_millis(50);
/// The step, and the window that counts, in seconds.
const STEP: f64 = 20.0;
const WINDOW: std::ops::Range<f64> = 30.0..40.0;
/// An answer is good within this time: a limit that is too high has the wait at the backend, where order is lost.
const GOOD: Duration = Duration::from_millis(75);

/// Good answers a second, and the mean limit, in the window: 2000 requests a second, all of one class.
fn day(limit: Limit, seed: u64) -> (f64, f64) {
    virtually(async move {
        let mut config = PriorityConfig::four_class(SLOTS).limit(limit).expected_hold(SERVICE).expected_head(SERVICE);
        for class in &mut config.classes {
            class.reserved = 0.0;
        }
        let (layer, handle) = PriorityLayer::builder().config(config).build_with_handle().expect("valid");
        let slots = Arc::new(Semaphore::new(SLOTS));
        let backend = Arc::clone(&slots);
        let service = layer.layer(service_fn(move |request: Request<()>| {
            let (slots, since) = (Arc::clone(&backend), Instant::now());
            async move {
                let slot = slots.acquire_owned().await.expect("never closed");
                sleep(SERVICE.mul_f64(*request.extensions().get::<f64>().expect("set by the load"))).await;
                drop(slot);
                let mut response = Response::new(Full::new(Bytes::from_static(b"done")));
                response.extensions_mut().insert(since.elapsed());
                Ok::<_, Infallible>(response)
            }
        }));
        let (mut random, start, mut at) = (Random::new(seed), Instant::now(), 0.0);
        let (mut good, mut limits, mut looks, mut stepped) = (0_u64, 0, 0, false);
        let mut tasks = tokio::task::JoinSet::new();
        while at < WINDOW.end {
            at += random.exponential(1.0 / 2000.0);
            sleep_until(start + Duration::from_secs_f64(at)).await;
            if at > STEP && !stepped {
                let owed = SLOTS - LEFT - slots.forget_permits(SLOTS - LEFT);
                let slots = Arc::clone(&slots);
                // Those that are in use go when they come free.
                tokio::spawn(async move {
                    if let Ok(taken) = slots.acquire_many(owed as u32).await {
                        taken.forget();
                    }
                });
                stepped = true;
            }
            let mut request = Request::new(());
            request.extensions_mut().insert(Class::P1);
            request.extensions_mut().insert(0.75 + 0.5 * random.unit());
            let service = service.clone();
            tasks.spawn(async move {
                let Ok(response) = service.oneshot(request).await;
                let took = response.extensions().get::<Duration>().copied();
                let _ = response.into_body().collect().await;
                (start.elapsed().as_secs_f64(), took)
            });
            while let Some(done) = tasks.try_join_next() {
                let (when, took) = done.expect("no panic");
                good += u64::from(WINDOW.contains(&when) && took.is_some_and(|took| took <= GOOD));
            }
            if WINDOW.contains(&at) {
                (limits, looks) = (limits + handle.snapshot().limit, looks + 1);
            }
        }
        (good as f64 / (WINDOW.end - WINDOW.start), limits as f64 / f64::from(looks.max(1)))
    })
}

fn main() {
    let mut report = Report::default();
    let fixed: Vec<_> = (10..=30).step_by(2).map(|limit| (limit, day(Limit::Fixed(limit), 1).0)).collect();
    println!("fixed limits, good answers/s after the step: {fixed:?}");
    let &(best, most) = fixed.iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("eleven");
    println!("best fixed limit {best}: {most:.0}/s\n");
    report.figure("best_fixed_limit", best);
    report.figure("best_fixed_good_per_second", most);
    for (name, algorithm) in
        [("gradient2", Algorithm::Gradient2), ("aimd", Algorithm::Aimd { target: Duration::from_millis(75) })]
    {
        let mut config = AdaptiveConfig::default();
        config.algorithm = algorithm;
        let days: Vec<_> = (1..=5).map(|seed| day(Limit::Adaptive(config.clone()), seed)).collect();
        let mean = |of: fn(&(f64, f64)) -> f64| days.iter().map(of).sum::<f64>() / days.len() as f64;
        let (good, limit) = (mean(|day| day.0), mean(|day| day.1));
        println!("{name}: limits {:?}", days.iter().map(|day| day.1.round()).collect::<Vec<_>>());
        report.figure(&format!("{name}_limits"), days.iter().map(|day| day.1).collect::<Vec<_>>());
        report.figure(&format!("{name}_good_per_second"), good);
        let off = (limit / LEFT as f64 - 1.0).abs();
        report.target(&format!("{name}: mean limit off the slots that are left"), off, Goal::AtMost(0.10));
        report.target(&format!("{name}: good answers/s over the best fixed limit's"), good / most, Goal::AtLeast(0.95));
    }
    println!();
    report.print();
}
