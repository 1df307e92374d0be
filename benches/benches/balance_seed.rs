//! How good the picks are, in virtual time, with fixed seeds: the load that a fleet of unequal endpoints carries while
//! waits stay short, beside plain round robin; waits and shares beside one central queue; and how many exchanges an
//! endpoint draws that fails at once.
//!
//! The model: each endpoint has slots of one speed and a queue before them, first come first served; a request takes a
//! slot for a lognormal time (sigma 1, 100 ms on average), the same at any endpoint. So weights 8:8:4:4:2:2:1:1 are as
//! many slots. Requests come independently of each other, in an open loop. "early": the balancer knows weights only,
//! binds a request as it comes, and it waits at its endpoint. "late": it knows the slots too (`max_concurrency`), and
//! requests wait in its own queue. Times are in mean service times.
//!
//! `cargo bench -p forebay-benches --bench balance_seed`

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use forebay_balance::{Balance, Endpoint, Offset, Outlier, Policy};
use forebay_benches::balance::{
    Arrivals, Bounds, Central, Forebay, Random, RoundRobin, Router, Tally, UniformP2c, simulate,
};
use forebay_benches::priority::Random as Dice;
use forebay_benches::virtual_time::virtually;
use forebay_benches::{Goal, Report};
use forebay_core::{Class, Outcome};
use tokio::time::advance;

const SEED_SLOTS: [u32; 8] = [8, 8, 4, 4, 2, 2, 1, 1];
const SLOTS: [u32; 8] = [32, 32, 16, 16, 8, 8, 4, 4];

fn run(slots: &[u32], arrivals: &Arrivals, router: impl FnOnce() -> Box<dyn Router>) -> Tally {
    virtually(async { simulate(slots, arrivals, &mut *router()).await })
}

/// For each bound of the p99 wait: the highest load, in percent, up to which it holds. Loads are in tenths of a percent.
fn highest_loads(loads: impl Iterator<Item = u32>, bounds: &[f64], router: fn() -> Box<dyn Router>) -> Vec<f64> {
    let mut best = vec![None; bounds.len()];
    let mut broken = vec![false; bounds.len()];
    for load in loads {
        let load = f64::from(load) / 1000.0;
        let wait = run(&SEED_SLOTS, &Arrivals::new(200_000, load, &SEED_SLOTS, 1), router).p99_wait();
        for (at, bound) in bounds.iter().enumerate() {
            broken[at] |= wait > *bound;
            if !broken[at] {
                best[at] = Some(load * 100.0);
            }
        }
        if broken.iter().all(|broken| *broken) {
            break;
        }
    }
    best.into_iter().map(|best| best.unwrap_or(0.0)).collect()
}

fn rate_at_bounded_wait(report: &mut Report) {
    let bounds = [1.0, 4.0, 16.0, 64.0];
    let turns = highest_loads((30..=300).step_by(5), &bounds, || Box::new(RoundRobin::new(SEED_SLOTS.len())));
    let early =
        highest_loads((700..=990).step_by(10), &bounds, || Box::new(Forebay::new(&SEED_SLOTS, Bounds::None, |b| b)));
    let late =
        highest_loads((700..=990).step_by(10), &bounds, || Box::new(Forebay::new(&SEED_SLOTS, Bounds::Slots, |b| b)));
    println!(
        "slots 8:8:4:4:2:2:1:1: the highest load, in % of what all slots can do, at which p99 of the wait is at most"
    );
    println!(
        "{:<10} {:>12} {:>16} {:>15} {:>8} {:>8}",
        "bound", "round robin", "forebay early", "forebay late", "", ""
    );
    for (at, bound) in bounds.into_iter().enumerate() {
        let (turn, early, late) = (turns[at], early[at], late[at]);
        println!("{bound:<10} {turn:>12.1} {early:>16.1} {late:>15.1} {:>7.2}x {:>7.2}x", early / turn, late / turn);
        report.figure(&format!("load_percent_at_p99_wait_{bound}_round_robin"), turn);
        report.figure(&format!("load_percent_at_p99_wait_{bound}_early"), early);
        report.figure(&format!("load_percent_at_p99_wait_{bound}_late"), late);
    }
    println!();
    let worst = |ours: &[f64]| ours.iter().zip(&turns).map(|(ours, turn)| ours / turn).fold(f64::INFINITY, f64::min);
    report.target(
        "rate at bounded wait, ours early / round robin, at the worst bound",
        worst(&early),
        Goal::AtLeast(3.2),
    );
    report.target(
        "rate at bounded wait, ours late / round robin, at the worst bound",
        worst(&late),
        Goal::AtLeast(3.2),
    );
}

const LOADS: [u32; 5] = [50, 70, 80, 90, 95];
const SEEDS: [u64; 5] = [1, 2, 3, 4, 5];

/// Of one rule, by load: p99 of the response time and of the wait, and the error of the shares; of all seeds together.
fn measure(traces: &[Vec<Arrivals>], router: fn() -> Box<dyn Router>) -> Vec<[f64; 3]> {
    let of_load = |seeds: &Vec<Arrivals>| {
        let mut all = Tally::default();
        seeds.iter().for_each(|arrivals| all.add(run(&SLOTS, arrivals, router)));
        [all.p99_response(), all.p99_wait(), all.share_error(&SLOTS)]
    };
    traces.iter().map(of_load).collect()
}

fn beside_a_central_queue(report: &mut Report) {
    type Row = (&'static str, fn() -> Box<dyn Router>);
    let rows: [Row; 10] = [
        ("central queue", || Box::new(Central::new(&SLOTS))),
        ("forebay late", || Box::new(Forebay::new(&SLOTS, Bounds::Slots, |b| b))),
        ("forebay early", || Box::new(Forebay::new(&SLOTS, Bounds::None, |b| b))),
        ("Offset::Zero (nginx)", || Box::new(Forebay::new(&SLOTS, Bounds::None, |b| b.offset(Offset::Zero)))),
        ("Offset::One (LVS)", || Box::new(Forebay::new(&SLOTS, Bounds::None, |b| b.offset(Offset::One)))),
        ("Policy::P2c, weighted", || Box::new(Forebay::new(&SLOTS, Bounds::None, |b| b.policy(Policy::P2c)))),
        ("Policy::RoundRobin", || Box::new(Forebay::new(&SLOTS, Bounds::None, |b| b.policy(Policy::RoundRobin)))),
        ("random, weighted", || Box::new(Random::new(&SLOTS))),
        ("p2c uniform (tower)", || Box::new(UniformP2c::new(SLOTS.len()))),
        ("round robin, unweighted", || Box::new(RoundRobin::new(SLOTS.len()))),
    ];
    let trace = |load: u32| {
        SEEDS.map(|seed| Arrivals::new(200_000, f64::from(load) / 100.0, &SLOTS, seed)).into_iter().collect::<Vec<_>>()
    };
    let traces: Vec<_> = LOADS.into_iter().map(trace).collect();
    let measured = rows.map(|(_, router)| measure(&traces, router));
    let kinds = ["p99 of the response time", "p99 of the wait", "error of the shares, %"];
    for (kind, title) in kinds.into_iter().enumerate() {
        print!("\nslots 32,32,16,16,8,8,4,4: {title}\n{:<24}", "load, %");
        LOADS.iter().for_each(|load| print!(" {load:>9}"));
        println!();
        for ((name, _), of_loads) in rows.iter().zip(&measured) {
            print!("{name:<24}");
            for (load, figures) in LOADS.iter().zip(of_loads) {
                let figure = figures[kind] * if kind == 2 { 100.0 } else { 1.0 };
                print!(" {figure:>9.3}");
                report.figure(&format!("{name}, {load} % load: {title}"), (figure * 1000.0).round() / 1000.0);
            }
            println!();
        }
    }
    println!();
    let worst = |row: usize, from: usize| {
        let ratio = |load: usize| measured[row][load][0] / measured[0][load][0];
        (from..LOADS.len()).map(ratio).fold(0.0, f64::max)
    };
    report.target("p99 response, ours late / central queue, 70-95 % load", worst(1, 1), Goal::AtMost(1.01));
    report.target("p99 response, ours early / central queue, 70-95 % load", worst(2, 1), Goal::AtMost(1.01));
    report.target("p99 response, weighted p2c / central queue, 70-95 % load", worst(5, 1), Goal::AtMost(1.03));
    let (late, central) = (measured[1][4][1], measured[0][4][1]);
    report.target("p99 wait, ours late / central queue, 95 % load", late / central, Goal::AtMost(1.01));
    let shares = |row: usize| 100.0 * measured[row][..3].iter().map(|figures| figures[2]).fold(0.0, f64::max);
    report.target("error of the shares in %, ours early, 50-80 % load", shares(2), Goal::AtMost(3.5));
    report.target("error of the shares in %, ours late, 50-80 % load", shares(1), Goal::AtMost(3.5));
    report.target("p99 response, uniform p2c / central queue, 95 % load", worst(8, 4), Goal::AtLeast(10.0));
}

const CLIENTS: usize = 24;
const EXCHANGES: usize = 700;

/// Of 700 exchanges of clients that ask again at once, how many go to the one of eight endpoints that fails within 1 ms.
async fn drawn(outlier: Option<Outlier>, failure: Outcome, seed: u64) -> usize {
    let builder = (0..8).fold(Balance::builder().outlier(outlier), |builder, index: usize| {
        builder.endpoint(Endpoint::with_service(index.to_string(), index))
    });
    let fleet = builder.build().expect("valid").fleet();
    let (mut dice, mut ends, mut now, mut begun, mut bad) = (Dice::new(seed), BinaryHeap::new(), 0, 0, 0);
    let mut picks: Vec<_> = (0..CLIENTS).map(|_| None).collect();
    let mut idle: Vec<usize> = (0..CLIENTS).collect();
    while begun < EXCHANGES {
        while let Some(client) = idle.pop() {
            let pick = fleet.pick(Class::P1).expect("no endpoint is full");
            let fails = pick.service == 0;
            let took = if fails { 0.01 } else { dice.lognormal(1.0) };
            ends.push(Reverse((now + (Arrivals::MEAN.as_nanos() as f64 * took) as u64, client)));
            picks[client] = Some(pick);
            begun += 1;
            bad += usize::from(fails);
        }
        let Some(Reverse((at, client))) = ends.pop() else { break };
        advance(Duration::from_nanos(at - now)).await;
        now = at;
        if let Some(pick) = picks[client].take() {
            let outcome = if pick.service == 0 { failure } else { Outcome::Success };
            pick.finish(outcome);
        }
        idle.push(client);
    }
    bad
}

fn black_hole(report: &mut Report) {
    let never = || {
        let mut outlier = Outlier::default();
        (outlier.consecutive_errors, outlier.min_requests) = (u32::MAX, u32::MAX);
        outlier
    };
    let cases = [("neither hold nor ejection", None), ("hold only", Some(never())), ("both", Some(Outlier::default()))];
    let seeds = 20;
    println!(
        "\none of eight equal endpoints fails within 1 ms, 24 clients: it draws, of 700 exchanges (mean and most of {seeds} runs)"
    );
    println!("{:<28} {:>18} {:>18}", "", "503", "500");
    let mut means = Vec::new();
    for (name, outlier) in cases {
        print!("{name:<28}");
        for (status, failure) in [("503", Outcome::Overload), ("500", Outcome::Error)] {
            let runs: Vec<_> = (0..seeds).map(|seed| virtually(drawn(outlier, failure, seed))).collect();
            let mean = runs.iter().sum::<usize>() as f64 / runs.len() as f64;
            let most = runs.into_iter().max().unwrap_or_default();
            print!(" {mean:>11.1} {most:>6}");
            report.figure(&format!("black hole, {status}, {name}: exchanges drawn of 700"), mean);
            means.push(mean);
        }
        println!();
    }
    println!();
    // Of the 500s: what a 503 says about its endpoint holds also without the hold.
    report.target("drawn by a black hole (500) without hold and ejection", means[1], Goal::AtLeast(600.0));
    report.target("drawn by a black hole (503) with the hold only", means[2], Goal::AtMost(120.0));
    report.target("drawn by a black hole (503) with hold and ejection", means[4], Goal::AtMost(10.0));
    report.target("drawn by a black hole (500) with the hold only", means[3], Goal::AtMost(120.0));
    report.target("drawn by a black hole (500) with hold and ejection", means[5], Goal::AtMost(10.0));
}

fn main() {
    let mut report = Report::default();
    rate_at_bounded_wait(&mut report);
    beside_a_central_queue(&mut report);
    black_hole(&mut report);
    report.print();
}
