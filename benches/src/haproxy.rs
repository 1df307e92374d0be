use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::{env, fs};

use crate::Server;
use crate::server::{await_listener, free_address, installed};

/// Starts HAProxy with `leastconn` over `backends` (address, weight) on a free port; `None`: it is not installed.
///
/// # Panics
///
/// It does not listen within 10 s.
#[must_use]
pub fn haproxy(backends: &[(String, u32)]) -> Option<Server> {
    start_haproxy(|free| {
        let mut configuration = format!(
            "defaults\n  mode http\n  timeout connect 1s\n  timeout client 60s\n  timeout server 60s\n\
             frontend bench\n  bind {free}\n  default_backend models\n\
             backend models\n  balance leastconn\n"
        );
        for (index, (address, weight)) in backends.iter().enumerate() {
            writeln!(configuration, "  server s{index} {address} weight {weight}").expect("a String takes all");
        }
        configuration
    })
}

/// Starts HAProxy with the configuration for a free address; `None`: it is not installed.
pub(crate) fn start_haproxy(configuration: impl FnOnce(SocketAddr) -> String) -> Option<Server> {
    let binary = installed("haproxy")?;
    let free = free_address();
    let file = env::temp_dir().join(format!("forebay-bench-haproxy-{}.cfg", free.port()));
    fs::write(&file, configuration(free)).expect("a temporary file");
    // In the foreground: one process, which is ended by its id.
    let child = Command::new(binary).arg("-db").arg("-q").arg("-f").arg(&file).stdout(Stdio::null()).spawn();
    await_listener(free);
    Some(Server::running(child.expect("haproxy starts"), free.to_string()))
}
