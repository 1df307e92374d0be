use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::priority::Random;

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

/// An open loop: requests come independently of each other, whatever becomes of those before.
#[derive(Debug, Clone)]
pub struct OpenLoad {
    /// How many a second, on average.
    pub per_second: f64,
    /// How long they come; those under way then are waited for.
    pub time: Duration,
    /// The JSON body of each request.
    pub body: String,
    /// The path.
    pub path: &'static str,
    /// Of the times between them.
    pub seed: u64,
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

    /// The share of the requests that failed, in percent.
    #[must_use]
    pub fn error_percent(&self) -> f64 {
        100.0 * self.errors as f64 / (self.done + self.errors).max(1) as f64
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

fn request(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// Runs `load` against `target`.
pub async fn run(load: &Load, target: &Target) -> Measured {
    let request = request(load.path, &load.body);
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

/// Offers `load` to `target`, until the last answer; its connections are used again. No answer within 20 s is an error.
pub async fn offer(load: &OpenLoad, target: &Target) -> Measured {
    let request: Arc<str> = request(load.path, &load.body).into();
    let idle = Arc::new(Mutex::new(Vec::new()));
    let cpu = crate::cpu_time(target.pid);
    let (started, mut random) = (tokio::time::Instant::now(), Random::new(load.seed));
    let mut next = Duration::ZERO;
    let mut exchanges = JoinSet::new();
    loop {
        next += Duration::from_secs_f64(random.exponential(1.0 / load.per_second));
        if next >= load.time {
            break;
        }
        tokio::time::sleep_until(started + next).await;
        let (request, idle, address) = (Arc::clone(&request), Arc::clone(&idle), target.address.clone());
        exchanges.spawn(async move {
            let begun = Instant::now();
            let mut connection = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let (mut buffer, wait) = (Vec::new(), Duration::from_secs(20));
            let exchange = exchange(&mut connection, &address, request.as_bytes(), &mut buffer);
            let whole = matches!(tokio::time::timeout(wait, exchange).await, Ok(Ok(())));
            if let Some(connection) = connection.filter(|_| whole) {
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            }
            whole.then(|| begun.elapsed())
        });
    }
    let (mut done, mut errors, mut latency) = (0, 0, histogram());
    while let Some(took) = exchanges.join_next().await {
        match took.expect("an exchange does not panic") {
            Some(took) => {
                done += 1;
                latency.saturating_record(took.as_micros() as u64);
            }
            None => errors += 1,
        }
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
