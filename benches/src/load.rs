use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Where the load goes.
#[derive(Debug, Clone)]
pub struct Target {
    /// `127.0.0.1:port`.
    pub address: String,
    /// The process whose CPU time counts.
    pub pid: u32,
}

/// A closed loop: every connection asks again as soon as it has its answer.
#[derive(Debug, Clone)]
pub struct Load {
    /// Connections.
    pub connections: usize,
    /// How long.
    pub time: Duration,
    /// The JSON body of each request.
    pub body: String,
    /// The path.
    pub path: &'static str,
}

/// What came out of a load.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Answers with status 200, whole.
    pub done: u64,
    /// All others, and broken connections.
    pub errors: u64,
    /// How long it took.
    pub wall: Duration,
    /// CPU time of the target.
    pub cpu: Duration,
    /// Latencies in microseconds.
    pub latency: Histogram<u64>,
}

impl Measured {
    /// Answers a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.wall.as_secs_f64()
    }

    /// CPU time of the target for each answer, in microseconds.
    #[must_use]
    pub fn cpu_per_request(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.done.max(1) as f64
    }

    /// Adds another run of the same target.
    pub fn add(&mut self, other: &Self) {
        self.done += other.done;
        self.errors += other.errors;
        self.wall += other.wall;
        self.cpu += other.cpu;
        self.latency.add(&other.latency).expect("equal bounds");
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("fixed, legal bounds")
}

/// Runs `load` against `target`.
pub async fn run(load: &Load, target: &Target) -> Measured {
    let request = format!(
        "POST {} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{}",
        load.path,
        load.body.len(),
        load.body
    );
    let cpu = crate::cpu_time(target.pid);
    let started = Instant::now();
    let ends = started + load.time;
    let clients: Vec<_> =
        (0..load.connections).map(|_| tokio::spawn(client(target.address.clone(), request.clone(), ends))).collect();
    let (mut done, mut errors, mut latency) = (0, 0, histogram());
    for client in clients {
        let (ok, bad, times) = client.await.expect("a client does not panic");
        done += ok;
        errors += bad;
        latency.add(&times).expect("equal bounds");
    }
    Measured { done, errors, wall: started.elapsed(), cpu: crate::cpu_time(target.pid).saturating_sub(cpu), latency }
}

async fn client(address: String, request: String, ends: Instant) -> (u64, u64, Histogram<u64>) {
    let (mut done, mut errors, mut latency) = (0, 0, histogram());
    let mut connection = None;
    let mut buffer = Vec::with_capacity(64 << 10);
    while Instant::now() < ends {
        let begun = Instant::now();
        match exchange(&mut connection, &address, request.as_bytes(), &mut buffer).await {
            Ok(()) => {
                done += 1;
                latency.saturating_record(begun.elapsed().as_micros() as u64);
            }
            Err(_) => {
                errors += 1;
                connection = None;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    (done, errors, latency)
}

/// One request and its whole answer, by Content-Length or chunked; an error for any status but 200.
async fn exchange(
    connection: &mut Option<TcpStream>,
    address: &str,
    request: &[u8],
    buffer: &mut Vec<u8>,
) -> std::io::Result<()> {
    let stream = match connection {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            connection.insert(stream)
        }
    };
    stream.write_all(request).await?;
    buffer.clear();
    let bad = |why| std::io::Error::other(why);
    let mut head = None;
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(bad("closed"));
        }
        if head.is_none()
            && let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n")
        {
            let text = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
            if !text.starts_with("http/1.1 200") {
                return Err(bad("status"));
            }
            let length: Option<usize> =
                text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            head = Some((end + 4, length));
        }
        let whole = match head {
            Some((start, Some(length))) => buffer.len() >= start + length,
            Some((_, None)) => buffer.ends_with(b"\r\n0\r\n\r\n"),
            None => false,
        };
        if whole {
            return Ok(());
        }
    }
}
