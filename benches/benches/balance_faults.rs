//! What proxies make of backends that fail or are full, on real sockets, in turns: one of four answers 503 at once;
//! all are busy; clients leave in the middle of an answer. Ours is `Balance::http()` behind axum, in this process.
//!
//! Backends: slots that each take a request at a time, a queue of 16 before them, 503 to all others. In the first part
//! 24 clients ask again at once (after 1 ms where they were refused), in the second an open loop asks for more or less
//! than the slots can do, lognormal times (sigma 1, 50 ms on average). What must fail there is what fails at one backend
//! with all the slots and all the places to wait, asked without a proxy. Requests are POST. A proxy that sends again after a 503 says so in its name. "late": `max_concurrency` is the
//! slots, and as many requests may wait in the balancer as in all queues of the backends.
//!
//! `cargo bench -p forebay-benches --bench balance_faults`

use std::time::Duration;

use forebay_balance::{Balance, Endpoint, OnFull};
use forebay_benches::balance::{Mock, Proxy, in_turns};
use forebay_benches::{Goal, Load, Measured, OpenLoad, Report, Target, haproxy, nginx_with, offer, run};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

const ROUNDS: usize = 2;
const QUEUE: u32 = 16;
/// How long a request takes in the second part, on average.
const BUSY: Duration = Duration::from_millis(50);
const OURS: [&str; 2] = ["forebay", "forebay late"];

/// No proxy at all.
const CENTRAL: &str = "one backend of all slots";

async fn ours(name: &'static str, fleet: &[Mock], late: bool) -> Proxy {
    let add = |builder: forebay_balance::client::HttpBalanceBuilder, mock: &Mock| {
        let weight = u16::try_from(mock.slots).expect("few slots");
        let endpoint = Endpoint::new(format!("http://{}", mock.address)).weight(weight);
        builder.endpoint(if late { endpoint.max_concurrency(mock.slots) } else { endpoint })
    };
    let mut builder = fleet.iter().fold(Balance::http(), add);
    if late {
        let len = QUEUE as usize * fleet.len();
        builder = builder.on_full(OnFull::Wait { len, timeout: Duration::from_secs(1) });
    }
    let app = axum::Router::new().fallback_service(builder.build().expect("valid").into_infallible());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move { axum::serve(listener, app).await });
    Proxy::here(name, address)
}

async fn proxies(fleet: &[Mock]) -> Vec<Proxy> {
    let backends: Vec<_> = fleet.iter().map(|mock| (mock.address.clone(), mock.slots)).collect();
    let again = "error timeout http_503 non_idempotent";
    vec![
        ours(OURS[0], fleet, false).await,
        ours(OURS[1], fleet, true).await,
        Proxy::process("nginx", nginx_with(&backends, "off", "")),
        Proxy::process("nginx, sends again", nginx_with(&backends, again, "max_fails=3")),
        Proxy::process("nginx, again, max_fails=0", nginx_with(&backends, again, "max_fails=0")),
        Proxy::process("HAProxy", haproxy(&backends)),
    ]
}

fn show(report: &mut Report, kind: &str, proxies: &[Proxy], results: &[Option<Measured>]) {
    println!(
        "\n{kind}\n{:<28} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "", "answered", "failed", "failed, %", "p50 ms", "p99 ms"
    );
    for (proxy, result) in proxies.iter().zip(results) {
        let Some(it) = result else {
            println!("{:<28} not installed", proxy.name);
            report.figure(&format!("{kind}: {}", proxy.name), "not installed");
            continue;
        };
        let [p50, p99] = [0.5, 0.99].map(|quantile| it.latency.value_at_quantile(quantile) as f64 / 1000.0);
        let failed = it.error_percent();
        println!("{:<28} {:>10} {:>10} {failed:>10.2} {p50:>10.1} {p99:>10.1}", proxy.name, it.done, it.errors);
        report.figure(&format!("{kind}: {}: failed, %", proxy.name), (failed * 100.0).round() / 100.0);
        report.figure(&format!("{kind}: {}: p99 of the answered, ms", proxy.name), p99.round());
    }
}

fn failed(proxies: &[Proxy], results: &[Option<Measured>], name: &str) -> f64 {
    let at = proxies.iter().position(|proxy| proxy.name == name);
    at.and_then(|at| results[at].as_ref()).map_or(100.0, Measured::error_percent)
}

async fn one_is_broken(report: &mut Report) {
    const SLOTS: u32 = 16;
    let mut fleet = vec![Mock::broken(SLOTS).await];
    for _ in 0..3 {
        fleet.push(Mock::start(SLOTS, QUEUE, Duration::from_millis(20), 0.5).await);
    }
    let proxies = proxies(&fleet).await;
    let load = Load { connections: 24, time: Duration::from_millis(1500), body: "{}".into(), path: "/work" };
    let results = in_turns(&proxies, ROUNDS, async |_, target| run(&load, target).await).await;
    show(report, "one of four answers 503 at once", &proxies, &results);
    println!();
    for name in OURS {
        let success = 100.0 - failed(&proxies, &results, name);
        report.target(&format!("one of four answers 503: success of {name}, %"), success, Goal::AtLeast(99.2));
    }
}

async fn busy_fleet() -> Vec<Mock> {
    let mut fleet = Vec::new();
    for slots in [48, 32, 16] {
        fleet.push(Mock::start(slots, QUEUE, BUSY, 1.0).await);
    }
    fleet
}

/// Clients read the first bytes of a long answer and hang up: how many requests still run at the backends.
async fn leavers(report: &mut Report, fleet: &[Mock], proxies: &[Proxy]) {
    println!(
        "\n10 clients left in the middle of an answer: requests that run at the backends before, and 200 ms after"
    );
    let running = || fleet.iter().map(Mock::here).sum::<usize>();
    for proxy in proxies {
        let Some(target) = &proxy.target else {
            println!("{:<28} not installed", proxy.name);
            continue;
        };
        let mut clients = Vec::new();
        for _ in 0..10 {
            let mut client = TcpStream::connect(&target.address).await.expect("it listens");
            client.write_all(b"POST /stream HTTP/1.1\r\nhost: bench\r\ncontent-length: 0\r\n\r\n").await.expect("sent");
            let mut seen = Vec::new();
            let begun = async {
                while !seen.windows(5).any(|five| five == b"first") {
                    client.read_buf(&mut seen).await.expect("an answer");
                }
            };
            timeout(Duration::from_secs(5), begun).await.expect("the answer begins");
            clients.push(client);
        }
        let before = running();
        drop(clients);
        sleep(Duration::from_millis(200)).await;
        let after = running();
        println!("{:<28} {before:>10} {after:>10}", proxy.name);
        report.figure(&format!("leavers: {}: running after 200 ms", proxy.name), after);
        if OURS.contains(&proxy.name) {
            report.target(&format!("leavers: {}: running after 200 ms", proxy.name), after as f64, Goal::AtMost(0.0));
        }
    }
}

async fn all_are_busy(report: &mut Report, fleet: &[Mock], mut proxies: Vec<Proxy>) {
    let slots: u32 = fleet.iter().map(|mock| mock.slots).sum();
    let central = Mock::start(slots, QUEUE * fleet.len() as u32, BUSY, 1.0).await;
    proxies.push(Proxy::here(CENTRAL, central.address));
    for load in [0.9, 1.5] {
        let offered = async |round: usize, target: &Target| {
            let (per_second, time) = (load * f64::from(slots) / BUSY.as_secs_f64(), Duration::from_millis(1500));
            let load = OpenLoad { per_second, time, body: "{}".into(), path: "/work", seed: 1 + round as u64 };
            offer(&load, target).await
        };
        let results = in_turns(&proxies, ROUNDS, offered).await;
        let inherent = failed(&proxies, &results, CENTRAL);
        show(report, &format!("{load}x load"), &proxies, &results);
        println!();
        for name in OURS {
            let above = failed(&proxies, &results, name) - inherent;
            let title = format!("{load}x load: failures of {name} above what must fail, points");
            report.target(&title, above, Goal::AtMost(1.0));
        }
    }
}

#[tokio::main]
async fn main() {
    let mut report = Report::default();
    one_is_broken(&mut report).await;
    let fleet = busy_fleet().await;
    let proxies = proxies(&fleet).await;
    leavers(&mut report, &fleet, &proxies).await;
    all_are_busy(&mut report, &fleet, proxies).await;
    report.print();
}
