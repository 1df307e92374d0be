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
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use async_priority_limiter::Limiter;
use bytes::Bytes;
use forebay_benches::priority::{Echo, Random, classed};
use forebay_benches::{Goal, Report, median, rounds};
use forebay_core::Class;
use forebay_priority::{
    Acquire, Admission, Ask, ClassConfig, Limit, PriorityConfig, PriorityHandle, PriorityLayer, QueueLength,
};
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt as _;
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

/// A crowd of tasks that each send a request through a clone, and read the answer to its end.
async fn crowd<S, R>(service: &S, queued: impl AsyncFnOnce())
where
    S: Service<Request<()>, Response = Response<R>, Error: Debug + Send, Future: Send> + Clone + Send + 'static,
    R: Body<Data = Bytes, Error: Debug> + Send,
{
    let mut tasks = JoinSet::new();
    for _ in 0..CROWD {
        let service = service.clone();
        tasks.spawn(async move { read(service.oneshot(classed(Class::P0)).await.expect("answered")).await });
    }
    queued().await;
    join(tasks).await;
}

/// As whoever serves a connection does it: our seat lasts until then.
async fn read<R: Body<Data = Bytes, Error: Debug>>(response: Response<R>) {
    black_box(response.into_body().collect().await.expect("a whole body"));
}

async fn join(mut tasks: JoinSet<()>) {
    while let Some(task) = tasks.join_next().await {
        task.expect("no panic");
    }
}

fn hand_over(report: &mut Report, runtime: &Runtime) {
    let (layer, handle) = priority(CROWD);
    let ours = layer.layer(Echo);
    let (buffer, limiter) = runtime.block_on(async {
        // As many places as requests, so that nobody waits before the queue.
        (Buffer::new(Echo, CROWD), Arc::new(Limiter::new::<u8>(1)))
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
                    // Its only worker is busy until all are queued, as our only seat is held.
                    let (free, queued) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
                    let held = Arc::clone(&free);
                    let first = limiter
                        .queue(
                            async move {
                                held.notified().await;
                                Response::default()
                            },
                            0,
                        )
                        .await;
                    let mut tasks = JoinSet::new();
                    for _ in 0..CROWD {
                        let (limiter, queued) = (Arc::clone(&limiter), Arc::clone(&queued));
                        tasks.spawn(async move {
                            let job = async { Echo.oneshot(classed(Class::P0)).await.expect("answered") };
                            let answer = limiter.queue(job, 0).await;
                            queued.fetch_add(1, Relaxed);
                            read(answer.await).await;
                        });
                    }
                    while queued.load(Relaxed) < CROWD {
                        tokio::task::yield_now().await;
                    }
                    free.notify_one();
                    first.await;
                    join(tasks).await;
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

/// Nanoseconds for leaving a queue.
struct Leaving {
    /// From anywhere in it, each being replaced by a newcomer.
    any: f64,
    /// The same after the processor's caches were swept, as they are anyway of a queue that is larger than they are: what
    /// the length itself costs shows beside this.
    swept: f64,
    /// For those who have just come, whose memory is still in the caches.
    newest: f64,
}

/// Leaving a queue of `length`.
fn cancel(runtime: &Runtime, length: usize) -> Leaving {
    const AT_ONCE: usize = 20;
    const SWEPT: usize = 200;
    let _context = runtime.enter();
    let (_layer, handle) = priority(1_000_000);
    let admission = handle.admission();
    let _held = admission.try_acquire(Ask::new(Class::P0)).expect("nobody else is here");
    let mut waiters: Vec<_> = (0..length).map(|_| Some(queue_one(&admission))).collect();
    let (mut random, mut times, mut swept) = (Random::new(3), Vec::new(), Vec::new());
    let mut memory = vec![0_u8; 128 << 20]; // more than any cache
    for round in 0..2000 + SWEPT {
        let mut leave = Vec::with_capacity(AT_ONCE);
        let mut places = Vec::with_capacity(AT_ONCE);
        while leave.len() < AT_ONCE {
            let place = random.bits() as usize % length;
            if let Some(waiter) = waiters[place].take() {
                leave.push(waiter);
                places.push(place);
            }
        }
        if round >= 2000 {
            memory.iter_mut().step_by(64).for_each(|line| *line = line.wrapping_add(1));
        }
        let started = Instant::now();
        drop(leave);
        let took = started.elapsed().as_nanos() as f64 / AT_ONCE as f64;
        if round >= 2000 { &mut swept } else { &mut times }.push(took);
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
    Leaving { any: median(&mut times), swept: median(&mut swept), newest: median(&mut newest) }
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
    println!();
    for (length, text, leaving) in [(100, "10^2", &short), (LONG, "10^6", &long)] {
        let Leaving { any, swept, newest } = leaving;
        println!("leaving a queue of {length}: {any:.0} ns, caches swept {swept:.0} ns, just come {newest:.0} ns");
        report.figure(&format!("cancel among {text}: ns"), any.round());
        report.figure(&format!("cancel among {text}, caches swept: ns"), swept.round());
        report.figure(&format!("cancel among {text}, just come: ns"), newest.round());
    }
    report.figure("cancel among 10^6 / among 10^2, caches swept", long.swept / short.swept);
    report.target("cancel among 10^6 / among 10^2", long.any / short.any, Goal::AtMost(2.0));
    report.print();
}
