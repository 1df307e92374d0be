//! Ours beside the proxies that are installed, over the same model servers: the balancer alone (`Balance::http()` behind
//! axum), the whole gateway, nginx `least_conn`, HAProxy `leastconn`, sglang-router and vllm-router `power_of_two` (they
//! have no weights). Each is a process of its own; they take turns.
//!
//! - `zero_service_time`: four servers that answer at once, 32 clients in a closed loop.
//! - `unequal`: streams (SSE) over servers with 8, 4, 2 and 2 slots, and weights like them; `equal`: 4, 4, 4 and 4.
//!   `closed`: 24 clients for the 16 slots. `open`: requests come at 98 % of the ideal rate, independently of each other
//!   and for all proxies at the same times; the rate counts until the last answer. Ideal: one server with all slots,
//!   asked without a proxy, in the same turns.
//!
//! `cargo bench -p forebay-benches --bench balance_proxy`

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use forebay_benches::balance::{Proxy, balancer, in_turns, serve_if_told};
use forebay_benches::{
    Goal, Load, Measured, OpenLoad, Report, Server, Target, build, haproxy, nginx_with, offer, run, sglang_router,
    vllm_router,
};
use serde_json::Value;

const PATH: &str = "/v1/chat/completions";
const CLIENTS: usize = 24;
const OURS: [&str; 2] = ["forebay", "gateway"];
/// No proxy at all.
const IDEAL: &str = "ideal";

type Results = Vec<Option<Measured>>;

fn models(slots: &[u32], flags: impl Fn(u32) -> String) -> Vec<(Server, u32)> {
    let binary = build("forebay-model-server");
    let start = |&slots: &u32| (Server::start(Command::new(&binary).args(flags(slots).split(' '))), slots);
    slots.iter().map(start).collect()
}

/// The gateway before these servers, without an access log, as the others have none.
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

fn proxies(fleet: &[(Server, u32)]) -> Vec<Proxy> {
    let backends: Vec<_> = fleet.iter().map(|(server, weight)| (server.address.clone(), *weight)).collect();
    let addresses: Vec<_> = backends.iter().map(|(address, _)| address.clone()).collect();
    vec![
        Proxy::process(OURS[0], Some(balancer(&backends))),
        Proxy::process(OURS[1], Some(gateway(&backends))),
        Proxy::process("nginx", nginx_with(&backends, "off", "")),
        Proxy::process("HAProxy", haproxy(&backends)),
        Proxy::process("sglang-router", sglang_router(&addresses)),
        Proxy::process("vllm-router", vllm_router(&addresses)),
    ]
}

async fn closed_loop(proxies: &[Proxy], rounds: usize, load: &Load) -> Results {
    let warm = Load { time: Duration::from_millis(300), ..load.clone() };
    in_turns(proxies, 1, async |_, target| run(&warm, target).await).await;
    in_turns(proxies, rounds, async |_, target| run(load, target).await).await
}

async fn open_loop(proxies: &[Proxy], rounds: usize, per_second: f64, load: &Load) -> Results {
    let offered = async |round: usize, target: &Target| {
        let (time, body, seed) = (load.time, load.body.clone(), 1 + round as u64);
        offer(&OpenLoad { per_second, time, body, path: load.path, seed }, target).await
    };
    in_turns(proxies, rounds, offered).await
}

fn show(report: &mut Report, kind: &str, proxies: &[Proxy], results: &Results) {
    println!(
        "\n{kind}\n{:<14} {:>10} {:>10} {:>10} {:>14} {:>8}",
        "", "answers/s", "p50 us", "p99 us", "CPU us/answer", "errors"
    );
    for (proxy, result) in proxies.iter().zip(results) {
        let name = proxy.name;
        let mut figure = |what: &str, value: Option<Value>| report.figure(&format!("{kind}_{name}_{what}"), value);
        let at = |quantile| result.as_ref().map(|it| it.latency.value_at_quantile(quantile));
        let tenths = |value: f64| Value::from((value * 10.0).round() / 10.0);
        figure("answers_per_second", result.as_ref().map(|it| tenths(it.rate())));
        figure("p50_us", at(0.5).map(Value::from));
        figure("p99_us", at(0.99).map(Value::from));
        figure("cpu_us_per_answer", result.as_ref().map(|it| tenths(it.cpu_per_request())));
        figure("errors", result.as_ref().map(|it| Value::from(it.errors)));
        match (result, at(0.5), at(0.99)) {
            (Some(it), Some(p50), Some(p99)) => {
                let (rate, cpu, errors) = (it.rate(), it.cpu_per_request(), it.errors);
                println!("{name:<14} {rate:>10.1} {p50:>10} {p99:>10} {cpu:>14.1} {errors:>8}");
            }
            _ => println!("{name:<14} not installed"),
        }
    }
}

fn of<'a>(proxies: &[Proxy], results: &'a Results, name: &str) -> Option<&'a Measured> {
    results[proxies.iter().position(|proxy| proxy.name == name)?].as_ref()
}

/// A goal beside a peer, where that is installed.
fn target(
    report: &mut Report,
    title: &str,
    [ours, theirs]: [Option<&Measured>; 2],
    of: impl Fn(&Measured) -> f64,
    goal: Goal,
) {
    if let (Some(ours), Some(theirs)) = (ours, theirs) {
        report.target(title, of(ours) / of(theirs), goal);
    }
}

fn p99(it: &Measured) -> f64 {
    it.latency.value_at_quantile(0.99) as f64
}

fn no_errors(report: &mut Report, kind: &str, proxies: &[Proxy], results: &Results) {
    let errors: u64 = OURS.iter().filter_map(|name| of(proxies, results, name)).map(|it| it.errors).sum();
    report.target(&format!("{kind}: errors of ours"), errors as f64, Goal::AtMost(0.0));
}

async fn zero_service_time(report: &mut Report, body: String) {
    let fleet = models(&[1; 4], |_| "--instant".to_owned());
    let proxies = proxies(&fleet);
    let load = Load { connections: 32, time: Duration::from_millis(1500), body, path: PATH };
    let results = closed_loop(&proxies, 4, &load).await;
    show(report, "zero_service_time", &proxies, &results);
    println!();
    let beside = |name| [of(&proxies, &results, name), of(&proxies, &results, "nginx")];
    let kind = "zero service time";
    let title = format!("{kind}: CPU per answer, forebay / nginx");
    target(report, &title, beside("forebay"), Measured::cpu_per_request, Goal::AtMost(1.5));
    let title = format!("{kind}: answers/s, forebay / nginx");
    target(report, &title, beside("forebay"), Measured::rate, Goal::AtLeast(0.75));
    let title = format!("{kind}: answers/s, gateway / nginx");
    target(report, &title, beside("gateway"), Measured::rate, Goal::AtLeast(0.6));
    let title = format!("{kind}: CPU per answer, gateway / nginx (later goal)");
    target(report, &title, beside("gateway"), Measured::cpu_per_request, Goal::AtMost(1.5));
    let title = format!("{kind}: answers/s, gateway / nginx (later goal)");
    target(report, &title, beside("gateway"), Measured::rate, Goal::AtLeast(0.9));
    no_errors(report, kind, &proxies, &results);
}

/// Streams of 16 tokens at 200 a second. The prefill takes no time, so that all are equally long.
async fn streams(report: &mut Report, name: &str, slots: &[u32], rounds: usize, body: String) {
    let flags = |slots| format!("--slots {slots} --prefill-tokens-per-second 1e9 --decode-tokens-per-second 200");
    let fleet = models(slots, flags);
    let all = models(&[slots.iter().sum()], flags).swap_remove(0).0;
    let mut proxies = proxies(&fleet);
    proxies.push(Proxy::process(IDEAL, Some(all)));
    let load = Load { connections: CLIENTS, time: Duration::from_millis(1800), body, path: PATH };

    let closed = closed_loop(&proxies, rounds, &load).await;
    show(report, &format!("{name}_closed"), &proxies, &closed);
    let ideal = of(&proxies, &closed, IDEAL).expect("it is always there").rate();
    let open = open_loop(&proxies, rounds, 0.98 * ideal, &load).await;
    show(report, &format!("{name}_open"), &proxies, &open);
    println!();
    for (kind, results) in [("closed", &closed), ("open", &open)] {
        let kind = format!("{name} fleet, {kind} loop");
        for ours in OURS {
            let beside = |name| [of(&proxies, results, ours), of(&proxies, results, name)];
            let title = format!("{kind}: answers/s, {ours} / ideal");
            target(report, &title, beside(IDEAL), Measured::rate, Goal::AtLeast(0.98));
            let title = format!("{kind}: p99, {ours} / HAProxy");
            target(report, &title, beside("HAProxy"), p99, Goal::AtMost(1.03));
        }
        no_errors(report, &kind, &proxies, results);
    }
}

#[tokio::main]
async fn main() {
    serve_if_told().await;
    let mut report = Report::default();
    let prompt = "Why do dams have spillways, and what happens when they are too small for the flood? ".repeat(2);
    let body = |stream: bool| {
        let head = format!("{{\"model\":\"sim-7b\",\"stream\":{stream},\"max_tokens\":16,\"messages\":");
        format!("{head}[{{\"role\":\"user\",\"content\":\"{prompt}\"}}]}}")
    };
    zero_service_time(&mut report, body(false)).await;
    streams(&mut report, "unequal", &[8, 4, 2, 2], 3, body(true)).await;
    streams(&mut report, "equal", &[4, 4, 4, 4], 2, body(true)).await;
    report.print();
}
