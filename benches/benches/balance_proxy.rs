//! The gateway beside nginx `least_conn` (weights 3, 2, 1) over the same three model servers: at zero service time, and
//! with streams. Each server is a process of its own; the two proxies take turns.
//!
//! `cargo bench -p forebay-benches --bench balance_proxy`

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use forebay_benches::{Goal, Load, Measured, Report, Server, Target, build, nginx, run};

const ROUNDS: usize = 4;
const WEIGHTS: [u32; 3] = [3, 2, 1];

fn models(flags: impl Fn(u32) -> Vec<String>) -> Vec<(Server, u32)> {
    let binary = build("forebay-model-server");
    WEIGHTS.map(|weight| (Server::start(Command::new(&binary).args(flags(weight))), weight)).into()
}

/// The gateway before these servers, without an access log, as nginx has none.
fn gateway(backends: &[(String, u32)]) -> Server {
    let mut config = "listen = \"127.0.0.1:0\"\naccess_log = false\npriority.limit = 10000\n".to_owned();
    let jobs = std::env::temp_dir().join(format!("forebay-bench-{}.redb", std::process::id()));
    writeln!(config, "jobs.file = {jobs:?}").expect("a String takes all");
    for (address, weight) in backends {
        write!(config, "[[upstreams]]\nurl = \"http://{address}\"\nweight = {weight}\n").expect("a String takes all");
    }
    let file = std::env::temp_dir().join(format!("forebay-bench-{}.toml", std::process::id()));
    std::fs::write(&file, config).expect("a temporary file");
    Server::start(Command::new(build("forebay-gateway")).arg("--config").arg(file))
}

/// Both proxies over one fleet, in turns: (ours, nginx).
async fn compare(fleet: &[(Server, u32)], load: &Load) -> [Measured; 2] {
    let backends: Vec<_> = fleet.iter().map(|(server, weight)| (server.address.clone(), *weight)).collect();
    let servers = [gateway(&backends), nginx(&backends)];
    let targets = servers.each_ref().map(|server| Target { address: server.address.clone(), pid: server.pid() });
    let warm = Load { time: Duration::from_millis(500), ..load.clone() };
    for target in &targets {
        run(&warm, target).await;
    }
    let mut sums: [Option<Measured>; 2] = [None, None];
    for round in 0..ROUNDS * 2 {
        let which = (round + round / 2) % 2; // ours, nginx, nginx, ours, …
        let measured = run(load, &targets[which]).await;
        match &mut sums[which] {
            Some(sum) => sum.add(&measured),
            empty => *empty = Some(measured),
        }
    }
    sums.map(|sum| sum.expect("every target had its rounds"))
}

fn show(report: &mut Report, kind: &str, [ours, nginx]: &[Measured; 2]) {
    println!(
        "\n{kind}\n{:<10} {:>10} {:>10} {:>10} {:>14} {:>8}",
        "", "answers/s", "p50 us", "p99 us", "CPU us/answer", "errors"
    );
    for (name, it) in [("forebay", ours), ("nginx", nginx)] {
        let (p50, p99) = (it.latency.value_at_quantile(0.5), it.latency.value_at_quantile(0.99));
        println!("{name:<10} {:>10.0} {p50:>10} {p99:>10} {:>14.1} {:>8}", it.rate(), it.cpu_per_request(), it.errors);
        report.figure(&format!("{kind}_{name}_answers_per_second"), it.rate().round());
        report.figure(&format!("{kind}_{name}_p50_us"), p50);
        report.figure(&format!("{kind}_{name}_p99_us"), p99);
        report.figure(&format!("{kind}_{name}_cpu_us_per_answer"), (it.cpu_per_request() * 10.0).round() / 10.0);
        report.figure(&format!("{kind}_{name}_errors"), it.errors);
    }
}

#[tokio::main]
async fn main() {
    let mut report = Report::default();
    let prompt = "Why do dams have spillways, and what happens when they are too small for the flood? ".repeat(2);
    let body = |stream: bool| {
        let head = format!("{{\"model\":\"sim-7b\",\"stream\":{stream},\"max_tokens\":32,\"messages\":");
        format!("{head}[{{\"role\":\"user\",\"content\":\"{prompt}\"}}]}}")
    };

    let fleet = models(|_| vec!["--instant".into()]);
    let time = Duration::from_secs(3);
    let path = "/v1/chat/completions";
    let zero = compare(&fleet, &Load { connections: 32, time, body: body(false), path }).await;
    show(&mut report, "zero_service_time", &zero);
    drop(fleet);

    // Streams of 32 tokens at 200 a second; 24 slots for 24 clients.
    let flags = |weight: u32| {
        format!("--slots {} --decode-tokens-per-second 200", weight * 4).split(' ').map(str::to_owned).collect()
    };
    let fleet = models(flags);
    let streams = compare(&fleet, &Load { connections: 24, time, body: body(true), path }).await;
    show(&mut report, "streams", &streams);

    println!();
    let ratio = zero[0].rate() / zero[1].rate();
    report.target("zero service time: answers/s, ours / nginx", ratio, Goal::AtLeast(0.6));
    report.target("zero service time: answers/s, ours / nginx (later goal)", ratio, Goal::AtLeast(0.9));
    let cpu = zero[0].cpu_per_request() / zero[1].cpu_per_request();
    report.target("zero service time: CPU per answer, ours / nginx (later goal)", cpu, Goal::AtMost(1.5));
    report.target("streams: answers/s, ours / nginx", streams[0].rate() / streams[1].rate(), Goal::AtLeast(0.98));
    let errors = zero[0].errors + streams[0].errors;
    report.target("errors of ours", errors as f64, Goal::AtMost(0.0));
    report.print();
}
