//! A pick and its release among N endpoints, beside tower's power of two choices over its own pending-request count: CPU
//! time, on one thread, in turns; and how many heap allocations ours makes.
//!
//! Each pick is released before the next, on both sides. What ours costs with 64 others in flight, and where each endpoint
//! has a `max_concurrency`, and where threads share a fleet, are figures of their own. So is the floor: two locks of a mutex, one for the pick and one for
//! the release, with nothing else done; and a reference that is counted, which ours does without. One pick in about 220 and
//! its release read tokio's clock; tower's pending-request count reads none.
//!
//! `cargo bench -p forebay-benches --bench balance_pick`; with pingora's choice beside it, which needs cmake and builds for
//! minutes: `RUSTFLAGS="--cfg forebay_pingora" CARGO_TARGET_DIR=target/pingora cargo bench ..`. That choice is round robin,
//! as pingora has none by load, and holds no count that has to be released.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Future as _, Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use forebay_balance::{Balance, Endpoint, Fleet, Pick};
use forebay_benches::balance::pingora_choice;
use forebay_benches::{Goal, Report, allocations, thread_cpu_time};
use forebay_core::{Class, Outcome};
use tower::Service;
use tower::balance::p2c;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PendingRequestsDiscover};

/// Some kernels count the CPU time of a thread in steps of 4 ms.
const EACH: u32 = 8_000_000;
const ROUNDS: usize = 7;

/// Answers at once.
#[derive(Clone, Copy)]
struct Echo;

impl Service<u32> for Echo {
    type Response = u32;
    type Error = Infallible;
    type Future = Ready<Result<u32, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, number: u32) -> Self::Future {
        ready(Ok(number))
    }
}

fn fleet(endpoints: usize, bound: Option<u32>) -> Fleet<Echo> {
    let add = |builder: forebay_balance::BalanceBuilder<Echo>, i: usize| {
        let endpoint = Endpoint::with_service(format!("endpoint-{i}"), Echo).weight([3, 2, 1][i % 3]);
        builder.endpoint(bound.into_iter().fold(endpoint, Endpoint::max_concurrency))
    };
    (0..endpoints).fold(Balance::builder(), add).build().expect("valid").fleet()
}

fn ours(fleet: &Fleet<Echo>) {
    let pick = fleet.pick(Class::P1).expect("open");
    black_box(&pick.service);
    pick.finish(Outcome::Success);
}

/// Picks while so many are in flight, and releases the oldest.
fn ours_held(fleet: &Fleet<Echo>, held: &mut VecDeque<Pick<Echo>>) {
    held.push_back(fleet.pick(Class::P1).expect("open"));
    if let Some(oldest) = held.pop_front() {
        oldest.finish(Outcome::Success);
    }
}

type Peer = p2c::Balance<PendingRequestsDiscover<ServiceList<Vec<Echo>>>, u32>;

fn p2c(endpoints: usize) -> Peer {
    p2c::Balance::new(PendingRequestsDiscover::new(
        ServiceList::new(vec![Echo; endpoints]),
        CompleteOnResponse::default(),
    ))
}

fn theirs(balance: &mut Peer) {
    let mut cx = Context::from_waker(Waker::noop());
    while balance.poll_ready(&mut cx).is_pending() {}
    black_box(pin!(balance.call(1)).poll(&mut cx).is_ready());
}

/// As a pick and a release do.
fn read_clocks() {
    black_box((tokio::time::Instant::now(), tokio::time::Instant::now()));
}

/// What a pick and its release cannot do without.
fn two_locks(counts: &Mutex<u64>) {
    let lock = || black_box(counts).lock().unwrap_or_else(PoisonError::into_inner);
    *lock() += 1;
    *lock() -= 1;
}

fn time(mut one: impl FnMut()) -> f64 {
    let before = thread_cpu_time();
    (0..EACH).for_each(|_| one());
    (thread_cpu_time() - before).as_nanos() as f64 / f64::from(EACH)
}

/// CPU time of a pick and its release where so many threads share a fleet.
fn shared(fleet: &Fleet<Echo>, threads: u32) -> f64 {
    let one = || {
        let before = thread_cpu_time();
        (0..EACH / 4 / threads).for_each(|_| ours(fleet));
        (thread_cpu_time() - before).as_nanos() as f64
    };
    let all: f64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    all / f64::from(EACH / 4)
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn main() {
    let mut report = Report::default();
    println!("CPU ns for a pick and its release");
    println!("{:>6} {:>10} {:>10} {:>10} {:>10} {:>10}", "N", "forebay", "64 held", "bounded", "tower p2c", "pingora");
    let mut worst: (f64, f64) = (0.0, 0.0);
    let mut heap = 0;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _entered = runtime.enter();
    let alone = |mut one: Box<dyn FnMut()>| median((0..ROUNDS).map(|_| time(&mut one)).collect());
    let counts = Mutex::new(0);
    let locks = alone(Box::new(move || two_locks(&counts)));
    let counted = Arc::new(());
    let reference = alone(Box::new(move || drop(black_box(Arc::clone(black_box(&counted))))));
    let clock = alone(Box::new(read_clocks));
    report.figure("two_locks_ns", locks.round());
    report.figure("a_counted_reference_ns", reference.round());
    report.figure("two_readings_of_tokios_clock_ns", clock.round());
    for endpoints in [2, 8, 64, 512, 4096] {
        let [fleet, bounded] = [None, Some(1000)].map(|bound| fleet(endpoints, bound));
        let (mut peer, mut choice) = (p2c(endpoints), pingora_choice(endpoints));
        (0..endpoints).for_each(|_| theirs(&mut peer)); // all of them known and ready
        (0..2 * endpoints).for_each(|_| ours(&fleet)); // and there were exchanges before
        heap += allocations(|| ours(&fleet));
        let mut rounds = [const { Vec::new() }; 4];
        let mut pingora = Vec::new();
        for _ in 0..ROUNDS {
            rounds[0].push(time(|| ours(&fleet)));
            rounds[1].push(time(|| theirs(&mut peer)));
            let mut held = (0..64).map(|_| fleet.pick(Class::P1).expect("open")).collect();
            rounds[2].push(time(|| ours_held(&fleet, &mut held)));
            rounds[3].push(time(|| ours(&bounded)));
            pingora.extend(choice.as_mut().map(time));
        }
        let [ours_ns, theirs_ns, held_ns, bounded_ns] = rounds.map(median);
        print!("{endpoints:>6} {ours_ns:>10.0} {held_ns:>10.0} {bounded_ns:>10.0} {theirs_ns:>10.0}");
        if pingora.is_empty() {
            println!(" {:>10}", "-");
        } else {
            let pingora_ns = median(pingora);
            println!(" {pingora_ns:>10.0}");
            report.figure(&format!("{endpoints}_pingora_round_robin_ns"), pingora_ns.round());
        }
        report.figure(&format!("{endpoints}_forebay_ns"), ours_ns.round());
        report.figure(&format!("{endpoints}_forebay_64_held_ns"), held_ns.round());
        report.figure(&format!("{endpoints}_forebay_bounded_ns"), bounded_ns.round());
        report.figure(&format!("{endpoints}_tower_p2c_ns"), theirs_ns.round());
        worst = (worst.0.max(ours_ns), worst.1.max(ours_ns / theirs_ns));
    }
    let fleet = fleet(64, None);
    print!("64 endpoints, shared by threads:");
    for threads in [1, 2, 4, 16] {
        let ns = median((0..ROUNDS).map(|_| shared(&fleet, threads)).collect());
        print!(" {threads}: {ns:.0}");
        report.figure(&format!("64_forebay_{threads}_threads_ns"), ns.round());
    }
    println!();
    println!(
        "two locks alone: {locks:.0}, a counted reference: {reference:.0}, two readings of the clock: {clock:.0}\n"
    );
    report.target("CPU ns, at the worst N", worst.0, Goal::AtMost(45.0));
    report.target("CPU over tower p2c, at the worst N", worst.1, Goal::AtMost(0.25));
    report.target("heap allocations", heap as f64, Goal::AtMost(0.0));
    report.print();
}
