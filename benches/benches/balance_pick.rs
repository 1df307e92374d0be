//! A pick and its release among N endpoints, beside tower's power of two choices over its own pending-request count: CPU
//! time, on one thread, in turns; and how many heap allocations ours makes.
//!
//! One pick in sixteen and its release read tokio's clock; tower's pending-request count reads none. What two readings
//! cost is a figure of its own, and so is the floor: two locks of a mutex, one for the pick and one for the release, and
//! a reference to the endpoint that is held in between, with nothing else done.
//!
//! `cargo bench -p forebay-benches --bench balance_pick`; with pingora's choice beside it, which needs cmake and builds for
//! minutes: `RUSTFLAGS="--cfg forebay_pingora" CARGO_TARGET_DIR=target/pingora cargo bench ..`. That choice is round robin,
//! as pingora has none by load, and holds no count that has to be released.

use std::convert::Infallible;
use std::future::{Future as _, Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use forebay_balance::{Balance, Endpoint, Fleet};
use forebay_benches::balance::pingora_choice;
use forebay_benches::{Goal, Report, allocations, thread_cpu_time};
use forebay_core::{Class, Outcome};
use tower::Service;
use tower::balance::p2c;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PendingRequestsDiscover};

const EACH: u32 = 4_000_000;
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

fn fleet(endpoints: usize) -> Fleet<Echo> {
    let add = |builder: forebay_balance::BalanceBuilder<Echo>, i: usize| {
        builder.endpoint(Endpoint::with_service(format!("endpoint-{i}"), Echo).weight([3, 2, 1][i % 3]))
    };
    (0..endpoints).fold(Balance::builder(), add).build().expect("valid").fleet()
}

fn ours(fleet: &Fleet<Echo>) {
    let pick = fleet.pick(Class::P1).expect("open");
    black_box(&pick.service);
    pick.finish(Outcome::Success);
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
fn floor(counts: &Mutex<Arc<u64>>) {
    let lock = || black_box(counts).lock().unwrap_or_else(PoisonError::into_inner);
    let held = Arc::clone(&lock());
    drop(lock());
    drop(black_box(held));
}

fn time(mut one: impl FnMut()) -> f64 {
    let before = thread_cpu_time();
    (0..EACH).for_each(|_| one());
    (thread_cpu_time() - before).as_nanos() as f64 / f64::from(EACH)
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn main() {
    let mut report = Report::default();
    println!("CPU ns for a pick and its release\n{:>6} {:>10} {:>10} {:>10}", "N", "forebay", "tower p2c", "pingora");
    let mut worst: (f64, f64) = (0.0, 0.0);
    let mut heap = 0;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _entered = runtime.enter();
    let clock = median((0..ROUNDS).map(|_| time(read_clocks)).collect());
    report.figure("two_readings_of_tokios_clock_ns", clock.round());
    let counts = Mutex::new(Arc::new(0));
    let floor = median((0..ROUNDS).map(|_| time(|| floor(&counts))).collect());
    report.figure("two_locks_and_a_reference_ns", floor.round());
    for endpoints in [2, 8, 64, 512, 4096] {
        let (fleet, mut peer, mut choice) = (fleet(endpoints), p2c(endpoints), pingora_choice(endpoints));
        (0..endpoints).for_each(|_| theirs(&mut peer)); // all of them known and ready
        ours(&fleet);
        heap += allocations(|| ours(&fleet));
        let mut rounds = [Vec::new(), Vec::new()];
        let mut pingora = Vec::new();
        for _ in 0..ROUNDS {
            rounds[0].push(time(|| ours(&fleet)));
            rounds[1].push(time(|| theirs(&mut peer)));
            pingora.extend(choice.as_mut().map(time));
        }
        let [ours_ns, theirs_ns] = rounds.map(median);
        print!("{endpoints:>6} {ours_ns:>10.0} {theirs_ns:>10.0}");
        if pingora.is_empty() {
            println!(" {:>10}", "-");
        } else {
            let pingora_ns = median(pingora);
            println!(" {pingora_ns:>10.0}");
            report.figure(&format!("{endpoints}_pingora_round_robin_ns"), pingora_ns.round());
        }
        report.figure(&format!("{endpoints}_forebay_ns"), ours_ns.round());
        report.figure(&format!("{endpoints}_tower_p2c_ns"), theirs_ns.round());
        worst = (worst.0.max(ours_ns), worst.1.max(ours_ns / theirs_ns));
    }
    println!("two readings of tokio's clock alone: {clock:.0}");
    println!("two locks and a reference alone, without any counting: {floor:.0}\n");
    report.target("CPU ns, at the worst N", worst.0, Goal::AtMost(45.0));
    report.target("CPU over tower p2c, at the worst N", worst.1, Goal::AtMost(0.25));
    report.target("heap allocations", heap as f64, Goal::AtMost(0.0));
    report.print();
}
