use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::{env, fs, process};

use super::fleet::Fleet;
use crate::Server;
use crate::haproxy::start_haproxy;
use crate::llm_routers::{once_it_routes, post, spawn};
use crate::server::{await_listener, free_address, installed};

/// A proxy that can stand before the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proxy {
    /// The gateway of this workspace, with tiers, keys and the slots of each upstream; all else by default.
    Gateway,
    /// HAProxy with a priority class from a header, and the slots of each server.
    Haproxy,
    /// smg with its priority scheduler.
    Smg,
}

/// The key and the header values of each class: every request has all of them, whatever proxy it meets.
pub(super) const KEYS: [&str; 4] = ["bench-key-p0", "bench-key-p1", "bench-key-p2", "bench-key-p3"];
/// The classes of smg, from the most urgent.
pub(super) const SMG_CLASSES: [&str; 4] = ["system", "interactive", "default", "bulk"];

impl Proxy {
    pub(super) const ALL: [Self; 3] = [Self::Gateway, Self::Haproxy, Self::Smg];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Haproxy => "HAProxy",
            Self::Smg => "smg",
        }
    }

    /// Returns a sentence that says how to install the proxy, if it is missing.
    pub(super) fn missing(self) -> Option<&'static str> {
        match self {
            Self::Gateway => None,
            Self::Haproxy => installed("haproxy").is_none().then_some(
                "HAProxy is not installed, so its rows and all targets are left out: apt-get install haproxy (2.6 or later).",
            ),
            Self::Smg => installed("smg").is_none().then_some(
                "smg is not installed, so its rows are left out: python3 -m venv V && V/bin/pip install smg, then put V/bin on the PATH.",
            ),
        }
    }

    /// Starts the proxy before `servers`; `None` if it is not installed or does not route.
    pub(super) fn start(self, fleet: &Fleet, servers: &[Server], gateway_binary: &Path) -> Option<Server> {
        match self {
            Self::Gateway => Some(gateway(fleet, servers, gateway_binary)),
            Self::Haproxy => haproxy(fleet, servers),
            Self::Smg => smg(fleet, servers),
        }
    }
}

fn temporary(name: &str) -> std::path::PathBuf {
    env::temp_dir().join(format!("forebay-bench-fleets-{}-{name}", process::id()))
}

/// The access log is off, as the others write none.
fn gateway(fleet: &Fleet, servers: &[Server], binary: &Path) -> Server {
    let mut text = "listen = \"127.0.0.1:0\"\naccess_log = false\n".to_owned();
    let jobs = temporary("jobs.redb");
    write!(text, "jobs.file = {jobs:?}\n[tiers]\np0 = \"p0\"\np1 = \"p1\"\np2 = \"p2\"\np3 = \"p3\"\n")
        .expect("a String");
    for (class, key) in KEYS.iter().enumerate() {
        write!(text, "[[keys]]\ntenant = \"tenant-{class}\"\ntier = \"p{class}\"\nkey = \"{key}\"\n")
            .expect("a String");
    }
    for server in servers {
        let (address, slots) = (&server.address, fleet.slots);
        write!(text, "[[upstreams]]\nurl = \"http://{address}\"\nmax_concurrency = {slots}\n").expect("a String");
    }
    let file = temporary("gateway.toml");
    fs::write(&file, text).expect("a temporary file");
    Server::start(Command::new(binary).arg("--config").arg(file))
}

/// Without `http-no-delay` it holds the first tokens of a stream back for 200 ms.
fn haproxy(fleet: &Fleet, servers: &[Server]) -> Option<Server> {
    start_haproxy(|free| {
        let mut text = format!(
            "global\n  maxconn 8000\ndefaults\n  mode http\n  option http-no-delay\n  maxconn 8000\n  timeout connect 5s\n  timeout client 600s\n  \
             timeout server 600s\n  timeout queue 30s\nfrontend bench\n  bind {free}\n  default_backend models\n\
             backend models\n  balance leastconn\n  http-request set-priority-class req.hdr_val(x-class)\n"
        );
        for (index, server) in servers.iter().enumerate() {
            writeln!(text, "  server s{index} {} maxconn {}", server.address, fleet.slots).expect("a String");
        }
        text
    })
}

/// Reservations and the promotion of long waiters are off: by default the former are for fleets of hundreds of slots, and the
/// latter breaks the order. The queues are as patient as HAProxy's. A worker that does not say how many requests it
/// serves at once counts for 64, unless it is registered with a label.
fn smg(fleet: &Fleet, servers: &[Server]) -> Option<Server> {
    let mut text = "classes:\n".to_owned();
    for class in SMG_CLASSES {
        writeln!(
            text,
            "  {class}: {{reserved_floor: 0, reserved_per_slot: 0, queue_size: 1000, queue_timeout_secs: 30, \
             starvation_threshold_secs: 30, can_preempt: false}}"
        )
        .expect("a String");
    }
    let file = temporary("smg.yaml");
    fs::write(&file, text).expect("a temporary file");
    let [free, metrics] = [free_address(), free_address()];
    let mut command = Command::new(installed("smg")?);
    command.args(["launch", "--host", "127.0.0.1", "--port", &free.port().to_string()]);
    command.args(["--prometheus-host", "127.0.0.1", "--prometheus-port", &metrics.port().to_string()]);
    command.args(["--log-level", "error", "--policy", "least_load", "--priority-scheduler-enabled"]);
    command.args(["--priority-scheduler-default-max-class", "system", "--priority-scheduler-config"]).arg(file);
    let server = spawn(command, free);
    await_listener(free);
    for Server { address, .. } in servers {
        let slots = fleet.slots;
        let worker = format!("{{\"url\":\"http://{address}\",\"labels\":{{\"max_running_requests\":\"{slots}\"}}}}");
        if post(free, "/workers", &worker).ok() != Some(202) {
            eprintln!("smg does not take the worker {worker}, and is left out");
            return None;
        }
    }
    once_it_routes(server, free)
}
