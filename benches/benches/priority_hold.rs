//! Streams of seconds: is P0 served, and is the order kept?
//!
//! - The grid: the real layer, in virtual time, over 504 cells of fleets of 4 to 512 slots whose exchanges take 1 to 20 s,
//!   at twice to twenty times what fits. `FOREBAY_DRAW=file.svg` draws it.
//! - The fleets: 8 slots x 5 s and 64 slots x 20 s in real time, at twice what fits, through the gateway, HAProxy with
//!   priority classes, and smg with its priority scheduler, one after the other (about 16 minutes with all three). P0's
//!   refused share, its time to the first token and the goodput are held against HAProxy's.
//!
//! `cargo bench -p forebay-benches --bench priority_hold`; with `-- --fleets` only the fleets; with `-- --quick` a tenth of
//! the cells and 20 s of one fleet through the gateway, and nothing is judged.

// How long the benchmark itself takes is real time.
#![allow(clippy::disallowed_methods)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use forebay_benches::priority::fleets::compare;
use forebay_benches::priority::hold::{Arrivals, Cell, Fleet, Outcome, grid, judge, picture, run};
use forebay_benches::{Goal, Report};

/// The output lengths of the trace, over their mean.
fn azure() -> Arc<[f64]> {
    let length = |line: &str| line.split(',').nth(2)?.parse::<f64>().ok();
    let lengths: Vec<f64> = include_str!("../data/azure_conv.csv").lines().skip(1).filter_map(length).collect();
    let mean = lengths.iter().sum::<f64>() / lengths.len() as f64;
    lengths.iter().map(|length| length / mean).collect()
}

/// Runs cells on two threads.
fn run_all(cells: &[Cell], azure: &Arc<[f64]>) -> Vec<(Cell, Outcome)> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(&cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run(cell, azure);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((cell, outcome));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(cell, _)| cell.seed);
    done
}

fn line(cell: &Cell, outcome: &Outcome) -> String {
    let shares: Vec<_> = (0..4).map(|class| format!("{:6.2}", outcome.share(class) * 100.0)).collect();
    format!(
        "{:>3} x {:>2} s {:<8} {:<11} {:>2}x P0 {:.2}{}: served {} %, P0 p99 {:>5.1} hl {:>6.2} s, goodput {:.3}",
        cell.fleet.slots,
        cell.fleet.hold,
        cell.arrivals.name(),
        cell.law.name(),
        cell.load,
        cell.urgent,
        if cell.leave > 0.0 { ", 30 % leave" } else { "" },
        shares.join(" "),
        outcome.p99() / cell.fleet.every(),
        outcome.p99(),
        outcome.goodput
    )
}

/// Prints the cells that miss a goal, and judges all of them.
fn show(report: &mut Report, name: &str, cells: &[(Cell, Outcome)], judges: bool) {
    let (mut inverted, mut refused, mut late, mut idle) = (0, 0, 0, 0);
    for (cell, outcome) in cells {
        let verdict = judge(cell, outcome);
        inverted += u32::from(verdict.inverted);
        refused += u32::from(verdict.refused);
        late += u32::from(verdict.late);
        idle += u32::from(verdict.idle);
        if !judges {
            println!("{}", line(cell, outcome));
        } else if !verdict.holds() {
            let missed = [
                (verdict.inverted, "order"),
                (verdict.refused, "P0 refused"),
                (verdict.late, "P0 late"),
                (verdict.idle, "idle"),
            ];
            let missed: Vec<_> = missed.iter().filter(|(missed, _)| *missed).map(|(_, name)| *name).collect();
            println!("misses {:<12} {}", missed.join(", "), line(cell, outcome));
        }
    }
    let worst = |arrivals: Arrivals, urgent: f64, least: &dyn Fn(&Cell, &Outcome) -> f64| {
        let of = |cell: &Cell| cell.arrivals == arrivals && (cell.urgent - urgent).abs() < 1e-9;
        cells.iter().filter(|(cell, _)| of(cell)).map(|(cell, outcome)| least(cell, outcome)).fold(f64::MIN, f64::max)
    };
    let round = |value: f64| (value * 1e4).round() / 1e4;
    for arrivals in [Arrivals::Poisson, Arrivals::Bursty, Arrivals::OwnBursts] {
        let title = arrivals.name();
        for urgent in [0.2, 0.45, 0.6] {
            if !cells.iter().any(|(cell, _)| cell.arrivals == arrivals) {
                continue;
            }
            let served = 1.0 - worst(arrivals, urgent, &|_, outcome| 1.0 - outcome.share(0));
            let wait = worst(arrivals, urgent, &|cell, outcome| outcome.p99() / cell.fleet.every());
            let goodput = 1.0 - worst(arrivals, urgent, &|_, outcome| 1.0 - outcome.goodput);
            report.figure(
                &format!("{name}, {title}, P0 {urgent}: least served, longest p99 / hl, least goodput"),
                vec![round(served), round(wait), round(goodput)],
            );
            println!(
                "{name}, {title}, P0 at {urgent}: served at least {:.2} %, p99 at most {wait:.1} hl, goodput at least {goodput:.3}",
                served * 100.0
            );
        }
    }
    let count = f64::from(u32::try_from(cells.len()).unwrap_or(u32::MAX));
    report.figure(&format!("{name}: cells"), count);
    if judges {
        report.target(
            &format!("{name}: cells in which a class fares worse than a less urgent one"),
            inverted.into(),
            Goal::AtMost(0.0),
        );
        report.target(
            &format!("{name}: share of cells in which P0 is refused too often"),
            f64::from(refused) / count,
            Goal::AtMost(0.01),
        );
        report.target(&format!("{name}: cells in which P0 waits too long"), late.into(), Goal::AtMost(0.0));
        report.target(&format!("{name}: cells in which slots stand idle"), idle.into(), Goal::AtMost(0.0));
    }
}

/// Runs the grid.
fn grids(report: &mut Report, quick: bool) {
    let azure = azure();
    let pick =
        |cells: Vec<Cell>| -> Vec<Cell> { if quick { cells.into_iter().skip(3).step_by(10).collect() } else { cells } };
    let both = [Arrivals::Poisson, Arrivals::Bursty];
    let all = run_all(&pick(grid(&Fleet::GRID, &both, 1)), &azure);
    show(report, "grid", &all, !quick);
    if let Some(file) = std::env::var_os("FOREBAY_DRAW").map(PathBuf::from).filter(|_| !quick) {
        picture(&file, &all).expect("the drawing can be written");
    }
    let again = run_all(&pick(grid(&Fleet::GRID, &both, 2)), &azure);
    show(report, "grid, other seeds", &again, !quick);
    let outside = run_all(&pick(grid(&Fleet::OUTSIDE, &both, 3)), &azure);
    show(report, "other fleets", &outside, !quick);
    // Harder than any goal: the most urgent by themselves come in bursts.
    let own = grid(&Fleet::GRID, &[Arrivals::OwnBursts], 4).into_iter().filter(|cell| (cell.load - 5.0).abs() < 1e-9);
    let own = run_all(&pick(own.collect()), &azure);
    show(report, "each class in bursts of its own, 5x", &own, false);
}

fn main() {
    let told = |flag: &str| std::env::args().any(|arg| arg == flag);
    let (quick, mut report, begun) = (told("--quick"), Report::default(), Instant::now());
    if !told("--fleets") {
        grids(&mut report, quick);
    }
    compare(&mut report, quick);
    println!("{:.0} s", begun.elapsed().as_secs_f64());
    report.print();
}
