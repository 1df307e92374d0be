mod sim;
use super::*;
use super::controller::Controller;
use sim::*;
use std::time::Duration;

fn adaptive(config: &AdaptiveConfig) -> Limiter { Limiter::Adaptive(Box::new(Controller::new(config))) }

#[test]
fn explore() {
    for algorithm in [Algorithm::Gradient2, Algorithm::Aimd { target: Duration::from_millis(75) }] {
        let config = AdaptiveConfig { algorithm, ..AdaptiveConfig::default() };
        for scatter in [Scatter::Fixed, Scatter::Quarter, Scatter::Exponential] {
            for (load, name) in [(Load::Closed(400), "closed"), (Load::Open(2000.0), "open2x")] {
                for kind in ["slots", "slow"] {
                let mut rows = vec![];
                for seed in 1..=8 {
                    let mut sim = Sim::seeded(adaptive(&config), 50, 50 * MS, scatter, load, seed);
                    let a = sim.run(30 * SECOND);
                    let a2 = sim.run(10 * SECOND);
                    let _ = a;
                    if kind == "slots" { sim.slots = 20; } else { sim.service_ns = 125 * MS; }
                    let b = sim.run(10 * SECOND);
                    let at = sim.limiter.limit();
                    let c = sim.run(10 * SECOND);
                    if kind == "slots" { sim.slots = 50; } else { sim.service_ns = 50 * MS; }
                    let d = sim.run(15 * SECOND);
                    let e = sim.run(10 * SECOND);
                    rows.push([a2.mean_limit, a2.goodput/1000., a2.close, b.goodput/400., at as f64, c.mean_limit, c.close, c.goodput/400., d.goodput/1000., e.mean_limit, e.goodput/1000., e.close]);
                }
                println!("{algorithm:?} {scatter:?} {name} {kind}");
                for (j, label) in ["A lim","A good","A close","B good","at 10s","C lim","C close","C good","D good","E lim","E good", "E close"].iter().enumerate() {
                    let v: Vec<f64> = rows.iter().map(|r| r[j]).collect();
                    let (lo, hi) = v.iter().fold((f64::MAX, f64::MIN), |(a,b),x| (a.min(*x), b.max(*x)));
                    print!("  {label} {lo:.2}..{hi:.2} ");
                }
                println!();
                }
            }
        }
    }
}
#[test]
fn trace() {
    let config = AdaptiveConfig::default();
    let mut sim = Sim::seeded(adaptive(&config), 50, 50 * MS, Scatter::Fixed, Load::Closed(400), 1);
    sim.run(40 * SECOND);
    sim.service_ns = 125 * MS;
    println!("TRACE");
    sim.run(5 * SECOND);
    println!("END");
}
