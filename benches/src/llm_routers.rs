use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Server;
use crate::server::{free_address, installed};

/// Starts sglang-router over the backends at `addresses`, which it cannot give weights; `None`: it is not installed, or
/// does not route within 20 s.
///
/// # Panics
///
/// It is installed, and cannot be started.
#[must_use]
pub fn sglang_router(addresses: &[String]) -> Option<Server> {
    let command = module("sglang_router").or_else(|| {
        let mut command = Command::new(installed("sglang-router")?);
        command.arg("launch");
        Some(command)
    })?;
    start(command, addresses)
}

/// The same with vllm-router.
///
/// # Panics
///
/// It is installed, and cannot be started.
#[must_use]
pub fn vllm_router(addresses: &[String]) -> Option<Server> {
    let command = module("vllm_router").or_else(|| installed("vllm-router").map(Command::new))?;
    start(command, addresses)
}

/// The router as a module of the Python on the path.
fn module(name: &str) -> Option<Command> {
    let python = installed("python3")?;
    let quiet = |command: &mut Command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|it| it.success())
    };
    if !quiet(Command::new(&python).args(["-c", &format!("import {name}.launch_router")])) {
        return None;
    }
    let mut command = Command::new(python);
    command.args(["-m", &format!("{name}.launch_router")]);
    Some(command)
}

/// Both take the same options. Of their policies, `power_of_two` is the nearest to the least connections.
fn start(mut command: Command, addresses: &[String]) -> Option<Server> {
    let [free, metrics] = [free_address(), free_address()];
    command.args(["--host", "127.0.0.1", "--port", &free.port().to_string()]);
    command.args(["--prometheus-host", "127.0.0.1", "--prometheus-port", &metrics.port().to_string()]);
    command.args(["--policy", "power_of_two", "--worker-startup-check-interval", "1", "--worker-urls"]);
    command.args(addresses.iter().map(|address| format!("http://{address}")));
    once_it_routes(spawn(command, free), free)
}

/// Starts a router that will listen on `free`.
pub(crate) fn spawn(mut command: Command, free: SocketAddr) -> Server {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Server::running(child.expect("an installed router starts"), free.to_string())
}

/// Waits until a router routes a chat; `None`, and the router is ended, if it does not within 20 s.
pub(crate) fn once_it_routes(server: Server, address: SocketAddr) -> Option<Server> {
    const BODY: &str = "{\"model\":\"sim-7b\",\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":\"?\"}]}";
    let started = Instant::now();
    while post(address, "/v1/chat/completions", BODY).ok() != Some(200) {
        if started.elapsed() > Duration::from_secs(20) {
            eprintln!("the router on {address} routes nothing within 20 s, and is left out");
            return None;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Some(server)
}

/// Posts JSON and returns the status of the answer.
pub(crate) fn post(address: SocketAddr, path: &str, body: &str) -> std::io::Result<u16> {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n");
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(stream, "{head}content-length: {length}\r\n\r\n{body}")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    let digits = status.strip_prefix(b"HTTP/1.1 ").and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    digits.ok_or_else(|| std::io::Error::other("not HTTP/1.1"))
}
