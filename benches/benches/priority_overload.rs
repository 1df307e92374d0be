//! Overload: forebay and its peers before one backend of 50 places and 50 ms, from just below its capacity to twenty
//! times of it. Callers leave when their class's time is up. In virtual time, and in real time at twice the capacity.
//!
//! `cargo bench -p forebay-benches --bench priority_overload`; with `FOREBAY_DRAW=<file.svg>` it draws what it found.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use forebay_benches::priority::{Clock, Line, Load, Stack, Tally, draw, offer, overload_stacks};
use forebay_benches::{Goal, Report};

const WARM: Duration = Duration::from_secs(2);

fn loads() -> [Load; 5] {
    let seconds = |times, seconds| Load::new(times, Duration::from_secs(seconds), WARM);
    // At 20x P0 alone wants no more than 80 % of the capacity.
    let flood = Load { mix: [0.04, 0.26, 0.3, 0.4], ..seconds(20.0, 8) };
    [seconds(0.95, 20), seconds(1.2, 20), seconds(2.0, 20), seconds(5.0, 14), flood]
}

fn run(stack: &Stack, load: Load, paused: bool) -> Tally {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(paused).build().expect("a runtime");
    runtime.block_on(offer(stack, load))
}

/// Every stack on every load, two at a time; by load, then by stack.
fn simulate(stacks: &[&Stack], loads: &[Load]) -> Vec<Vec<Tally>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(vec![vec![Tally::default(); stacks.len()]; loads.len()]));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    // The long ones first.
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    let Some(load) = loads.len().checked_sub(1 + job / stacks.len()) else { break };
                    let stack = job % stacks.len();
                    let tally = run(stacks[stack], loads[load], true);
                    done.lock().unwrap_or_else(PoisonError::into_inner)[load][stack] = tally;
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn table(report: &mut Report, title: &str, rows: &[(&Stack, &Tally)]) {
    println!("\n{title}\n{:<28} {:>7} {:>7} {:>7} {:>7} {:>9} {:>8}", "", "P0", "P1", "P2", "P3", "goodput", "wasted");
    for (stack, tally) in rows {
        print!("{:<28}", stack.name);
        for class in 0..4 {
            print!(" {:>6.2}%", tally.share(class) * 100.0);
        }
        println!(" {:>9.3} {:>7.2}%", tally.goodput(), tally.wasted() * 100.0);
        let short = |value: f64| (value * 1e4).round() / 1e4;
        report.figure(
            &format!("{title}: {}: P0..P3 in time", stack.name),
            (0..4).map(|class| short(tally.share(class))).collect::<Vec<_>>(),
        );
        report.figure(&format!("{title}: {}: goodput", stack.name), short(tally.goodput()));
        report.figure(&format!("{title}: {}: wasted", stack.name), short(tally.wasted()));
    }
}

/// The peer with the most P0 in time; a split cut for P0 at one load is no answer to the others and stands aside.
fn best<'a>(rows: &[(&'a Stack, &'a Tally)]) -> (&'a Stack, f64) {
    let peers = rows[1..].iter().filter(|(stack, _)| !stack.name.starts_with("bulkheads 14"));
    let best = peers.max_by(|(_, a), (_, b)| a.share(0).total_cmp(&b.share(0))).expect("there are peers");
    (best.0, best.1.share(0))
}

fn main() {
    let mut report = Report::default();
    let all = overload_stacks();
    for stack in &all {
        println!("{:<28} {}", stack.name, stack.settings);
    }
    let (stacks, by_system): (Vec<&Stack>, Vec<&Stack>) = all.iter().partition(|stack| stack.clock == Clock::Tokio);
    let names: Vec<_> = by_system.iter().map(|stack| stack.name).collect();
    println!("\nin real time only, as they measure by the system's clock: {}", names.join(", "));

    let loads = loads();
    let found = simulate(&stacks, &loads);
    let mut goals = Vec::new();
    let mut favourite = stacks[2];
    for (load, tallies) in loads.iter().zip(&found) {
        let rows: Vec<_> = stacks.iter().copied().zip(tallies).collect();
        let title = format!("{}x", load.times);
        table(&mut report, &title, &rows);
        let ours = &tallies[0];
        if load.times > 1.0 {
            goals.push((format!("{title}: P0 in time"), ours.share(0), Goal::AtLeast(0.9999)));
            goals.push((format!("{title}: goodput / capacity"), ours.goodput(), Goal::AtLeast(0.97)));
        }
        goals.push((format!("{title}: wasted backend time"), ours.wasted(), Goal::AtMost(0.01)));
        // Below 2x even a blind shedder answers more than half, so that twice as much is more than all.
        if load.times >= 2.0 {
            let (peer, share) = best(&rows);
            goals.push((
                format!("{title}: P0 in time, ours / best peer ({})", peer.name),
                ours.share(0) / share,
                Goal::AtLeast(2.0),
            ));
            if load.times == 2.0 {
                favourite = peer;
            }
        }
    }

    // One at a time; those that have to find their limit first together, and for longer.
    let twice = Load::new(2.0, Duration::from_secs(5), Duration::from_secs(1));
    let longer = Load::new(2.0, Duration::from_secs(10), Duration::from_secs(5));
    let mut real = vec![run(stacks[0], twice, false), run(favourite, twice, false)];
    std::thread::scope(|scope| {
        let runs: Vec<_> = by_system.iter().map(|&stack| scope.spawn(move || run(stack, longer, false))).collect();
        real.extend(runs.into_iter().map(|run| run.join().expect("no panic")));
    });
    let rows: Vec<_> = [stacks[0], favourite].into_iter().chain(by_system).zip(&real).collect();
    table(&mut report, "2x, real time", &rows);
    goals.push(("2x, real time: P0 in time".into(), real[0].share(0), Goal::AtLeast(0.995)));
    let (peer, share) = best(&rows);
    goals.push((
        format!("2x, real time: P0 in time, ours / best peer ({})", peer.name),
        real[0].share(0) / share,
        Goal::AtLeast(2.0),
    ));

    if let Some(file) = std::env::var_os("FOREBAY_DRAW").map(PathBuf::from) {
        let point = |at: usize, load: usize| (loads[load].times, found[load][at].goodput(), found[load][at].share(0));
        let line = |(at, stack): (usize, &&Stack)| Line {
            name: stack.name,
            points: (0..loads.len()).map(|load| point(at, load)).collect(),
        };
        draw(&file, &stacks.iter().enumerate().map(line).collect::<Vec<_>>()).expect("the drawing can be written");
    }
    println!();
    for (name, value, goal) in goals {
        report.target(&name, value, goal);
    }
    report.print();
}
