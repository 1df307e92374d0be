use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::fleet::Arrival;
use super::fleet::Fleet;
use super::proxies::{KEYS, SMG_CLASSES};

/// The fate of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The whole stream came, to its last token.
    Served,
    /// The stream was under way when the load ended.
    Running,
    /// Nothing had come when the load ended.
    Waiting,
    /// The answer was something else than 200, a broken stream, or none.
    Refused,
}

/// A request and its end; all times in seconds since the start of the load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    pub(super) arrival: Arrival,
    /// The time at which the client began to send.
    pub(super) sent: f64,
    /// The time of the first token.
    pub(super) first: Option<f64>,
    /// The time of the last token so far.
    pub(super) last: f64,
    pub(super) fate: Fate,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Sends all `arrivals` to `address` until the fate of those that count is known, then leaves.
pub(super) async fn offer(fleet: Fleet, arrivals: &[Arrival], address: &str) -> Vec<Ended> {
    let start = Instant::now();
    let (leave, left) = watch::channel(false);
    // Every request that counts has a sender until its fate is known.
    let (unsettled, mut settled) = mpsc::channel(1);
    let mut unsettled = Some(unsettled);
    let mut exchanges = JoinSet::new();
    for (index, &arrival) in arrivals.iter().enumerate() {
        if arrival.at > fleet.warm + fleet.measured {
            unsettled = None;
        }
        tokio::select! {
            () = tokio::time::sleep_until(start + Duration::from_secs_f64(arrival.at)) => {}
            _ = settled.recv() => break, // none is left
        }
        let unsettled = unsettled.clone().filter(|_| fleet.counts(arrival.at));
        exchanges.spawn(exchange(start, request(arrival, index, address), arrival, left.clone(), unsettled));
    }
    leave.send_replace(true);
    exchanges.join_all().await
}

/// A chat with a prompt that no other request has, so that no cache answers it.
fn request(arrival: Arrival, index: usize, address: &str) -> Request<Full<Bytes>> {
    let (class, tokens) = (arrival.class, arrival.tokens);
    let body = format!(
        "{{\"model\":\"sim-7b\",\"stream\":true,\"min_tokens\":{tokens},\"max_tokens\":{tokens},\"ignore_eos\":true,\
         \"messages\":[{{\"role\":\"user\",\"content\":\"Question {index}: how high may the water rise?\"}}]}}"
    );
    Request::post("/v1/chat/completions")
        .header("host", address)
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {}", KEYS[class]))
        .header("x-class", class.to_string())
        .header("x-smg-priority", SMG_CLASSES[class])
        .body(Full::from(body))
        .expect("a legal request")
}

async fn exchange(
    start: Instant,
    request: Request<Full<Bytes>>,
    arrival: Arrival,
    mut left: watch::Receiver<bool>,
    unsettled: Option<mpsc::Sender<()>>,
) -> Ended {
    let sent = start.elapsed().as_secs_f64();
    let mut ended = Ended { arrival, sent, first: None, last: sent, fate: Fate::Waiting };
    let leave = async {
        let _ = left.wait_for(|left| *left).await; // an error: the load is gone
    };
    let fate = tokio::select! {
        whole = stream(start, request, &mut ended, unsettled) => {
            Some(if matches!(whole, Ok(true)) { Fate::Served } else { Fate::Refused })
        }
        () = leave => None,
    };
    ended.fate = fate.unwrap_or_else(|| ended.first.map_or(Fate::Waiting, |_| Fate::Running));
    ended
}

/// Reads a stream and notes when its tokens come; true if it came whole.
async fn stream(
    start: Instant,
    request: Request<Full<Bytes>>,
    ended: &mut Ended,
    mut unsettled: Option<mpsc::Sender<()>>,
) -> Result<bool, Error> {
    let address = request.headers()["host"].to_str()?.to_owned();
    let connection = TcpStream::connect(address).await?;
    connection.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(connection)).await?;
    let mut transport = JoinSet::new(); // ends with this stream
    transport.spawn(connection);
    let answer = sender.send_request(request).await?;
    if answer.status() != StatusCode::OK {
        return Ok(false);
    }
    let (mut body, mut events) = (answer.into_body(), Events::default());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if events.read(&data) {
            ended.last = start.elapsed().as_secs_f64();
            ended.first.get_or_insert(ended.last);
            unsettled = None;
        }
    }
    drop(unsettled);
    Ok(events.done && events.tokens >= ended.arrival.tokens)
}

/// The server-sent events of a stream, counted.
#[derive(Debug, Default)]
struct Events {
    tokens: u64,
    done: bool,
    line: Vec<u8>,
}

impl Events {
    /// Reads a piece of the stream, which may end within a line; true if a token ended in it.
    fn read(&mut self, data: &[u8]) -> bool {
        let before = self.tokens;
        for piece in data.split_inclusive(|&byte| byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.tokens += u64::from(self.line.starts_with(b"data: {"));
                self.done |= self.line.starts_with(b"data: [DONE]");
                self.line.clear();
            }
        }
        self.tokens > before
    }
}
