//! The whole of it against a simulated server: it finds the best limit, keeps it, and does not drift.

mod sim;

use std::time::Duration;

use super::controller::Controller;
use super::*;
use sim::{Limiter, Load, MS, SECOND, Scatter, Seen, Server, Sim};

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Gradient2, Algorithm::Aimd { target: Duration::from_millis(75) }];

/// 1000 answers a second.
const SERVER: Server =
    Server { slots: 50, service_ns: 50 * MS, scatter: Scatter::Quarter, first_byte: 1.0, room: usize::MAX, failing: 0 };

/// More than it can do.
const LOADS: [Load; 2] = [Load::Closed(400), Load::Open(2000.0)];

fn adaptive(algorithm: Algorithm, server: Server, load: Load, seed: u64) -> Sim {
    let config = AdaptiveConfig { algorithm, ..AdaptiveConfig::default() };
    Sim::new(Limiter::Adaptive(Controller::new(&config)), server, load, seed)
}

/// The lowest static limit with 99 % of the goodput of the best one.
fn best_static(server: Server, load: Load) -> Seen {
    let seen = |limit| {
        let mut sim = Sim::new(Limiter::Static(limit), server, load, 1);
        sim.run(SECOND);
        sim.run(5 * SECOND)
    };
    let all: Vec<_> = (server.slots * 4 / 5..=server.slots * 3 / 2).map(seen).collect();
    let most = all.iter().map(|seen| seen.goodput).fold(0.0, f64::max);
    *all.iter().find(|seen| seen.goodput >= 0.99 * most).expect("the best one is among them")
}

#[test]
fn after_a_step_to_40_percent_it_is_at_the_best_limit_within_10_seconds() {
    for (algorithm, load, scatter) in cases(&[Scatter::Fixed, Scatter::Quarter]) {
        let after = Server { slots: 20, scatter, ..SERVER };
        let best = best_static(after, load);
        for seed in 1..=3 {
            let mut sim = adaptive(algorithm, Server { scatter, ..SERVER }, load, seed);
            sim.run(30 * SECOND);
            sim.server = after;
            let way = sim.run(10 * SECOND);
            let there = sim.run(10 * SECOND);
            let case = format!("{algorithm:?}, {load:?}, {scatter:?}, seed {seed}: {way:?}, {there:?}, best {best:?}");
            assert!(near(there.limit, best.limit, 0.1), "{case}");
            assert!(way.goodput >= 0.95 * best.goodput, "{case}");
            assert!(there.goodput >= 0.95 * best.goodput, "{case}");
        }
    }
}

#[test]
fn service_times_that_scatter_widely_blur_the_limit_but_cost_few_answers() {
    for (algorithm, load, scatter) in cases(&[Scatter::Exponential]) {
        let after = Server { slots: 20, scatter, ..SERVER };
        let best = best_static(after, load);
        for seed in 1..=3 {
            let mut sim = adaptive(algorithm, Server { scatter, ..SERVER }, load, seed);
            sim.run(30 * SECOND);
            sim.server = after;
            sim.run(10 * SECOND);
            let there = sim.run(30 * SECOND);
            let case = format!("{algorithm:?}, {load:?}, seed {seed}: {there:?}, best {best:?}");
            assert!(there.limit >= 0.9 * best.limit && there.limit <= 2.0 * best.limit, "{case}");
            assert!(there.goodput >= 0.9 * best.goodput, "{case}");
        }
    }
}

#[test]
fn a_slower_service_is_not_taken_for_a_queue() {
    for (algorithm, load, scatter) in cases(&[Scatter::Fixed, Scatter::Quarter]) {
        let after = Server { service_ns: 125 * MS, scatter, ..SERVER }; // 50 slots still, though 400 a second
        let best = best_static(after, load);
        let mut sim = adaptive(algorithm, Server { scatter, ..SERVER }, load, 1);
        sim.run(30 * SECOND);
        sim.server = after;
        let way = sim.run(10 * SECOND);
        let there = sim.run(20 * SECOND);
        let case = format!("{algorithm:?}, {load:?}, {scatter:?}: {way:?}, {there:?}, best {best:?}");
        assert!(near(there.limit, best.limit, 0.1), "{case}");
        assert!(way.goodput >= 0.8 * best.goodput, "{case}");
        assert!(there.goodput >= 0.95 * best.goodput, "{case}");
    }
}

#[test]
fn it_recovers_when_the_capacity_comes_back() {
    for (algorithm, load, scatter) in cases(&[Scatter::Fixed, Scatter::Quarter]) {
        let server = Server { scatter, ..SERVER };
        let best = best_static(server, load);
        let mut sim = adaptive(algorithm, server, load, 1);
        sim.run(20 * SECOND);
        sim.server.slots = 20;
        sim.run(30 * SECOND);
        sim.server.slots = 50;
        sim.run(20 * SECOND);
        let back = sim.run(10 * SECOND);
        let case = format!("{algorithm:?}, {load:?}, {scatter:?}: {back:?}, best {best:?}");
        assert!(near(back.limit, best.limit, 0.1), "{case}");
        assert!(back.goodput >= 0.95 * best.goodput, "{case}");
    }
}

#[test]
fn small_and_large_servers_are_found_too() {
    for algorithm in ALGORITHMS {
        for (slots, wait) in [(3, 120), (8, 60), (400, 60)] {
            let server = Server { slots, ..SERVER };
            let mut sim = adaptive(algorithm, server, Load::Closed(2000), 1);
            sim.run(wait * SECOND);
            let seen = sim.run(60 * SECOND);
            let case = format!("{algorithm:?}, {slots} slots: {seen:?}");
            assert!((seen.limit - slots as f64).abs() <= (0.1 * slots as f64).max(1.0), "{case}");
            assert!(seen.goodput >= 0.95 * 20.0 * slots as f64, "{case}");
        }
    }
}

#[test]
fn it_stays_where_it_is_for_an_hour() {
    for algorithm in ALGORITHMS {
        let mut sim = adaptive(algorithm, Server { service_ns: 500 * MS, ..SERVER }, Load::Closed(100), 1);
        sim.run(120 * SECOND);
        let minutes: Vec<_> = (0..60).map(|_| sim.run(60 * SECOND)).collect();
        for (i, seen) in minutes.iter().enumerate() {
            let case = format!("{algorithm:?}, minute {i}: {seen:?}");
            assert!(near(seen.limit, 50.0, 0.2) && seen.highest_limit <= 80 && seen.goodput >= 90.0, "{case}");
        }
        let hour = minutes.iter().map(|seen| seen.limit).sum::<f64>() / 60.0;
        assert!(near(hour, 50.0, 0.1), "{algorithm:?}: {hour}");
    }
}

#[test]
fn a_load_below_the_limit_does_not_let_it_grow_for_ever() {
    for algorithm in ALGORITHMS {
        // 300, 700 and 900 a second keep 15, 35 and 45 of 50 slots busy, at a constant latency.
        for (per_second, highest) in [(300.0, 75), (700.0, 75), (900.0, 90)] {
            let mut sim = adaptive(algorithm, SERVER, Load::Open(per_second), 1);
            sim.run(10 * SECOND);
            let seen = sim.run(300 * SECOND);
            let case = format!("{algorithm:?}, {per_second} a second: {seen:?}");
            assert!(seen.highest_limit <= highest, "{case}");
            assert!(seen.goodput >= 0.99 * per_second, "{case}");
        }
    }
}

#[test]
fn a_backend_without_limits_does_not_let_it_grow_for_ever() {
    for algorithm in ALGORITHMS {
        let mut sim = adaptive(algorithm, Server { slots: 100_000, ..SERVER }, Load::Closed(100), 1);
        sim.run(30 * SECOND);
        let seen = sim.run(120 * SECOND);
        let case = format!("{algorithm:?}: {seen:?}");
        assert!(seen.goodput >= 0.95 * 2000.0, "{case}");
        assert!(seen.highest_limit <= 120, "a limit that is not reached does not pay: {case}");
    }
}

#[test]
fn a_backend_that_refuses_what_is_too_much_is_not_flooded() {
    for algorithm in ALGORITHMS {
        let mut sim = adaptive(algorithm, Server { room: 50, ..SERVER }, Load::Closed(400), 1);
        sim.run(20 * SECOND);
        let seen = sim.run(60 * SECOND);
        let case = format!("{algorithm:?}: {seen:?}");
        assert!(near(seen.limit, 50.0, 0.1) && seen.highest_limit <= 60, "{case}");
        assert!(seen.goodput >= 0.9 * 1000.0, "{case}");
    }
}

#[test]
fn rare_errors_do_not_wear_the_limit_down() {
    for algorithm in ALGORITHMS {
        let mut sim = adaptive(algorithm, Server { failing: 500, ..SERVER }, Load::Closed(400), 1);
        sim.run(20 * SECOND);
        let seen = sim.run(120 * SECOND);
        assert!(near(seen.limit, 50.0, 0.1), "{algorithm:?}: {seen:?}");
    }
}

#[test]
fn a_backend_that_was_down_gets_its_load_back() {
    for algorithm in ALGORITHMS {
        let mut sim = adaptive(algorithm, SERVER, Load::Closed(400), 1);
        sim.run(20 * SECOND);
        sim.server.room = 0;
        sim.run(30 * SECOND);
        assert_eq!(sim.limit(), 2, "{algorithm:?}");
        sim.server.room = usize::MAX;
        sim.run(20 * SECOND);
        let back = sim.run(10 * SECOND);
        assert!(back.goodput >= 0.9 * 1000.0, "{algorithm:?}: {back:?}");
    }
}

#[test]
fn streams_that_hold_their_seat_long_after_the_first_byte_are_limited_by_the_slots() {
    for algorithm in ALGORITHMS {
        // 100 ms to the first token, 5 s to the last: 10 streams a second.
        let server = Server { service_ns: 5 * SECOND, first_byte: 0.02, ..SERVER };
        let algorithm = match algorithm {
            Algorithm::Aimd { .. } => Algorithm::Aimd { target: Duration::from_millis(200) },
            other => other,
        };
        let mut sim = adaptive(algorithm, server, Load::Closed(400), 1);
        sim.run(600 * SECOND);
        let seen = sim.run(600 * SECOND);
        assert!(near(seen.limit, 50.0, 0.15), "{algorithm:?}: {seen:?}");
    }
}

fn cases(scatters: &[Scatter]) -> Vec<(Algorithm, Load, Scatter)> {
    let loads = |algorithm| LOADS.into_iter().map(move |load| (algorithm, load));
    let pairs = ALGORITHMS.into_iter().flat_map(loads);
    pairs.flat_map(|(algorithm, load)| scatters.iter().map(move |scatter| (algorithm, load, *scatter))).collect()
}

fn near(value: f64, wanted: f64, share: f64) -> bool {
    (value - wanted).abs() <= share * wanted
}
