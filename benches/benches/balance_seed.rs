//! How good the picks are, in virtual time, with fixed seeds: the load that a fleet of unequal endpoints carries while
//! waits stay short, beside plain round robin; waits beside those of one central queue; shares beside the weights; several
//! gateways beside one; and how many exchanges an endpoint draws that fails at once.
//!
//! The model: each endpoint has slots of one speed and a queue before them, first come first served; a request takes a
//! slot for a lognormal time (sigma 1, 100 ms on average), the same at any endpoint. So weights 8:8:4:4:2:2:1:1 are as
//! many slots. Requests come independently of each other, in an open loop. "early": the balancer knows weights only,
//! binds a request as it comes, and it waits at its endpoint. "late": it knows the slots too (`max_concurrency`), and
//! requests wait in its own queue. Times are in mean service times.
//!
//! `cargo bench -p forebay-benches --bench balance_seed`

use std::time::Duration;

use forebay_balance::{Offset, Outlier, Policy};
use forebay_benches::balance::{
    Arrivals, Bounds, Central, Forebay, Gateways, Random, RoundRobin, Router, Tally, UniformP2c, drawn_by_a_black_hole,
    simulate,
};
use forebay_benches::virtual_time::virtually;
use forebay_benches::{Goal, Report};
use forebay_core::Outcome;

const SEED_SLOTS: [u32; 8] = [8, 8, 4, 4, 2, 2, 1, 1];
const SLOTS: [u32; 8] = [32, 32, 16, 16, 8, 8, 4, 4];

fn run(slots: &[u32], arrivals: &Arrivals, router: impl Fn() -> Box<dyn Router>) -> Tally {
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

/// Of one rule, by load: p99 of the response time and of the wait; of all seeds together.
fn measure(traces: &[Vec<Arrivals>], router: fn() -> Box<dyn Router>) -> Vec<[f64; 2]> {
    let of_load = |seeds: &Vec<Arrivals>| {
        let mut all = Tally::default();
        seeds.iter().for_each(|arrivals| all.add(run(&SLOTS, arrivals, router)));
        [all.p99_response(), all.p99_wait()]
    };
    traces.iter().map(of_load).collect()
}

type Row = (&'static str, fn() -> Box<dyn Router>);

fn beside_a_central_queue(report: &mut Report) {
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
    let kinds = ["p99 of the response time", "p99 of the wait"];
    for (kind, title) in kinds.into_iter().enumerate() {
        print!("\nslots 32,32,16,16,8,8,4,4: {title}\n{:<24}", "load, %");
        LOADS.iter().for_each(|load| print!(" {load:>9}"));
        println!();
        for ((name, _), of_loads) in rows.iter().zip(&measured) {
            print!("{name:<24}");
            for (load, figures) in LOADS.iter().zip(of_loads) {
                let figure = figures[kind];
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
    report.target("p99 response, uniform p2c / central queue, 95 % load", worst(8, 4), Goal::AtLeast(10.0));
}

/// By load, how far the shares of the requests are off those of the weights, in percent of what is due, at the weight
/// where they are farthest off. Of two million requests each, so that half a percent is more than chance.
///
/// The error of the offset 1/2 is none of chance. To an endpoint of few slots a request comes at once when the others have
/// grown fuller, but when they grow emptier it stays to its end: so counts there are rounded up for longer than they are
/// rounded down. That matters most where what is due lies half-way between two counts, as 2.6 requests at 65 % load. Ties
/// play no part: there are none between these weights. Ours, 5/8, makes up for most of it. Of held requests it is no
/// apportionment without a bias; that is Webster's alone (Balinski and Young, Fair Representation, 1982).
fn shares(report: &mut Report) {
    let rows: [Row; 5] = [
        ("forebay early", || Box::new(Forebay::new(&SLOTS, Bounds::None, |b| b))),
        ("forebay late", || Box::new(Forebay::new(&SLOTS, Bounds::Slots, |b| b))),
        ("Offset::Zero (nginx)", || Box::new(Forebay::new(&SLOTS, Bounds::None, |b| b.offset(Offset::Zero)))),
        ("Offset::One (LVS)", || Box::new(Forebay::new(&SLOTS, Bounds::None, |b| b.offset(Offset::One)))),
        ("Offset::Half (Webster)", || Box::new(Forebay::new(&SLOTS, Bounds::None, |b| b.offset(Offset::Half)))),
    ];
    let loads: Vec<u32> = (50..=80).step_by(5).collect();
    print!("\nslots 32,32,16,16,8,8,4,4: error of the shares, %\n{:<24}", "load, %");
    loads.iter().for_each(|load| print!(" {load:>7}"));
    println!(" {:>7} {:>7}", "mean", "worst");
    let mut errors = vec![Vec::new(); rows.len()];
    for load in &loads {
        let mut sums = [(); 5].map(|()| Tally::default());
        for seed in SEEDS {
            let arrivals = Arrivals::new(400_000, f64::from(*load) / 100.0, &SLOTS, seed);
            sums.iter_mut().zip(&rows).for_each(|(sum, (_, router))| sum.add(run(&SLOTS, &arrivals, *router)));
        }
        errors.iter_mut().zip(sums).for_each(|(errors, sum)| errors.push(100.0 * sum.share_error(&SLOTS)));
    }
    let mut worst = Vec::new();
    for ((name, _), errors) in rows.iter().zip(&errors) {
        print!("{name:<24}");
        errors.iter().for_each(|error| print!(" {error:>7.2}"));
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        worst.push(errors.iter().copied().fold(0.0, f64::max));
        println!(" {mean:>7.2} {:>7.2}", worst[worst.len() - 1]);
        report.figure(&format!("{name}, 50-80 % load: error of the shares in %, mean of the loads"), mean);
        report.figure(&format!("{name}, 50-80 % load: error of the shares in %, worst load"), worst[worst.len() - 1]);
    }
    println!();
    report.target("error of the shares in %, ours early, worst of 50-80 % load", worst[0], Goal::AtMost(3.5));
    report.target("error of the shares in %, ours late, worst of 50-80 % load", worst[1], Goal::AtMost(3.5));
}

/// Several gateways share the endpoints, and hear of each other's requests only from what the endpoints say, which is up
/// to one interval of the probes old. Times are in mean service times.
fn many_gateways(report: &mut Report) {
    let mean = |count: usize, every: Option<Duration>| {
        let mut all = Tally::default();
        for seed in SEEDS {
            let arrivals = Arrivals::new(100_000, 0.95, &SLOTS, seed);
            all.add(run(&SLOTS, &arrivals, || Box::new(Gateways::new(count, &SLOTS, every))));
        }
        all.mean_response()
    };
    let one = mean(1, None);
    println!("\n95 % load, the mean response time, and over that of one gateway\n{:<28} {one:>7.3}", "one gateway");
    report.figure("one gateway, 95 % load: mean response time", one);
    let blind = mean(12, None);
    println!("{:<28} {blind:>7.3} {:>7.3}", "12, own counts only", blind / one);
    report.figure("12 gateways, 95 % load, own counts only: mean over one gateway's", blind / one);
    let mut over = Vec::new();
    for every in [0.05, 0.1, 0.2, 1.0, 5.0] {
        let mean = mean(12, Some(Arrivals::MEAN.mul_f64(every)));
        println!("{:<28} {mean:>7.3} {:>7.3}", format!("12, probes every {every}"), mean / one);
        report.figure(&format!("12 gateways, 95 % load, probes every {every}: mean over one gateway's"), mean / one);
        over.push(mean / one);
    }
    println!();
    report.target(
        "mean response, 12 gateways with probes every 0.05 / one gateway, 95 % load",
        over[0],
        Goal::AtMost(1.06),
    );
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
            let runs: Vec<_> =
                (0..seeds).map(|seed| virtually(drawn_by_a_black_hole((24, 700), outlier, failure, seed))).collect();
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
    shares(&mut report);
    many_gateways(&mut report);
    black_hole(&mut report);
    report.print();
}
