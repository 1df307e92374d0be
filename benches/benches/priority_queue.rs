//! What it costs to wait: into the queue, the hand over and the wake, beside tower's `Buffer` and
//! async-priority-limiter; what it costs to leave a long queue; and what it costs to be refused.
//!
//! `cargo bench -p forebay-benches --bench priority_queue`

// Real time is what is measured here; no test pauses it.
#![allow(clippy::disallowed_methods)]

use std::fmt::Debug;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use async_priority_limiter::Limiter;
use forebay_benches::priority::{Echo, Random, classed};
use forebay_benches::{Goal, Report, median, rounds};
use forebay_core::Class;
use forebay_priority::{
    Acquire, Admission, Ask, ClassConfig, Limit, PriorityConfig, PriorityHandle, PriorityLayer, QueueLength,
};
use http::{Request, Response};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tower::buffer::Buffer;
use tower::{Layer as _, Service, ServiceExt as _};

/// Requests at once.
const CROWD: usize = 1000;
const ROUNDS: usize = 200;
/// A long queue, with room for a few more.
const LONG: usize = 999_900;

fn priority(queue: usize) -> (PriorityLayer, PriorityHandle) {
    let class = ClassConfig::new("one", Duration::from_secs(3600)).queue(QueueLength::Fixed(queue));
    let config = PriorityConfig::four_class(1).classes(vec![class]).limit(Limit::Fixed(1));
    PriorityLayer::builder().config(config).build_with_handle().expect("valid")
}

/// A crowd of tasks that each send a request through a clone.
async fn crowd<S>(service: &S, queued: impl AsyncFnOnce())
where
    S: Service<Request<()>, Response: Send, Error: Debug + Send, Future: Send> + Clone + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for _ in 0..CROWD {
        let service = service.clone();
        tasks.spawn(async move { black_box(service.oneshot(classed(Class::P0)).await.expect("answered")) });
    }
    queued().await;
    while tasks.join_next().await.is_some() {}
}

fn hand_over(report: &mut Report, runtime: &Runtime) {
    let (layer, handle) = priority(CROWD);
    let ours = layer.layer(Echo);
    let (buffer, limiter) = runtime.block_on(async {
        // As many places as requests, so that nobody waits before the queue.
        (Buffer::new(Echo, CROWD), Limiter::new::<u8>(1))
    });
    let times = rounds(
        ROUNDS,
        CROWD,
        &mut [
            &mut || runtime.block_on(crowd(&Echo, async || {})),
            &mut || {
                runtime.block_on(async {
                    let held = handle.admission().acquire(Ask::new(Class::P0)).await.expect("nobody else is here");
                    crowd(&ours, async || {
                        while handle.snapshot().classes[0].queued < CROWD {
                            tokio::task::yield_now().await;
                        }
                        drop(held);
                    })
                    .await;
                });
            },
            &mut || runtime.block_on(crowd(&buffer, async || {})),
            &mut || {
                runtime.block_on(async {
                    let mut answers = Vec::with_capacity(CROWD);
                    // Its only worker is busy until all are queued, as our only seat is held.
                    let queued = Arc::new(Notify::new());
                    let held = Arc::clone(&queued);
                    let first = limiter
                        .queue(
                            async move {
                                held.notified().await;
                                Response::default()
                            },
                            0,
                        )
                        .await;
                    for _ in 0..CROWD {
                        let job = async { Echo.oneshot(classed(Class::P0)).await.expect("answered") };
                        answers.push(tokio::spawn(limiter.queue(job, 0).await));
                    }
                    queued.notify_one();
                    first.await;
                    for answer in answers {
                        black_box(answer.await.expect("no panic"));
                    }
                });
            },
        ],
    );
    println!("{:<32} {:>9} {:>9}", "a crowd of 1000 requests", "ns each", "above");
    for (name, ns) in ["bare tasks", "forebay", "tower Buffer", "async-priority-limiter"].into_iter().zip(&times) {
        println!("{name:<32} {ns:>9.0} {:>9.0}", ns - times[0]);
        report.figure(&format!("queue, hand over, wake: {name}: ns"), ns.round());
    }
    let above = |at: usize| times[at] - times[0];
    report.target("queue, hand over, wake: ours / tower Buffer", above(1) / above(2), Goal::AtMost(1.5));
    report.target("queue, hand over, wake: ours / async-priority-limiter", above(1) / above(3), Goal::AtMost(0.2));
}

fn queue_one(admission: &Admission) -> Pin<Box<Acquire>> {
    let mut waiter = Box::pin(admission.acquire(Ask::new(Class::P0)));
    let polled = waiter.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "it must wait");
    waiter
}

/// Nanoseconds for leaving a queue of `length`: from anywhere in it, each being replaced by a newcomer; and for those
/// who have just come, whose memory is still in the processor's cache.
fn cancel(runtime: &Runtime, length: usize) -> (f64, f64) {
    const AT_ONCE: usize = 20;
    let _context = runtime.enter();
    let (_layer, handle) = priority(1_000_000);
    let admission = handle.admission();
    let _held = admission.try_acquire(Ask::new(Class::P0)).expect("nobody else is here");
    let mut waiters: Vec<_> = (0..length).map(|_| Some(queue_one(&admission))).collect();
    let (mut random, mut times) = (Random::new(3), Vec::new());
    for _ in 0..2000 {
        let mut leave = Vec::with_capacity(AT_ONCE);
        let mut places = Vec::with_capacity(AT_ONCE);
        while leave.len() < AT_ONCE {
            let place = random.bits() as usize % length;
            if let Some(waiter) = waiters[place].take() {
                leave.push(waiter);
                places.push(place);
            }
        }
        let started = Instant::now();
        drop(leave);
        times.push(started.elapsed().as_nanos() as f64 / AT_ONCE as f64);
        for place in places {
            waiters[place] = Some(queue_one(&admission));
        }
    }
    assert_eq!(handle.snapshot().classes[0].queued, length, "no zombies");
    let mut newest = Vec::new();
    for _ in 0..2000 {
        let leave: Vec<_> = (0..AT_ONCE).map(|_| queue_one(&admission)).collect();
        let started = Instant::now();
        drop(leave);
        newest.push(started.elapsed().as_nanos() as f64 / AT_ONCE as f64);
    }
    (median(&mut times), median(&mut newest))
}

fn refusal(report: &mut Report, runtime: &Runtime) {
    const COUNT: usize = 1000;
    let _context = runtime.enter();
    let ((_free_layer, free), (_full_layer, full)) = (priority(1000), priority(1000));
    let (free, full) = (free.admission(), full.admission());
    let _held = full.try_acquire(Ask::new(Class::P0)).expect("nobody else is here");
    let _waiters: Vec<_> = (0..1000).map(|_| queue_one(&full)).collect();
    let ask = |admission: &Admission, admitted: bool| {
        for _ in 0..COUNT {
            let acquire = std::pin::pin!(admission.acquire(Ask::new(Class::P0)));
            let Poll::Ready(result) = acquire.poll(&mut Context::from_waker(Waker::noop())) else {
                panic!("it is decided at once");
            };
            assert_eq!(result.is_ok(), admitted);
            drop(black_box(result));
        }
    };
    let times = rounds(400, COUNT, &mut [&mut || ask(&free, true), &mut || ask(&full, false)]);
    println!("\nadmitted and released: {:.0} ns; refused by a full queue: {:.0} ns", times[0], times[1]);
    report.figure("admit and release: ns", times[0].round());
    report.figure("refusal: ns", times[1].round());
    report.target("refusal / uncontended admit and release", times[1] / times[0], Goal::AtMost(2.0));
}

fn main() {
    let mut report = Report::default();
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    hand_over(&mut report, &runtime);
    refusal(&mut report, &runtime);
    let (short, long) = (cancel(&runtime, 100), cancel(&runtime, LONG));
    println!("\nleaving a queue of 100: {:.0} ns, just come {:.0} ns", short.0, short.1);
    println!("leaving a queue of {LONG}: {:.0} ns, just come {:.0} ns", long.0, long.1);
    report.figure("cancel among 10^2: ns", short.0.round());
    report.figure("cancel among 10^2, just come: ns", short.1.round());
    report.figure("cancel among 10^6: ns", long.0.round());
    report.figure("cancel among 10^6, just come: ns", long.1.round());
    report.target("cancel among 10^6 / among 10^2", long.0 / short.0, Goal::AtMost(2.0));
    report.print();
}
