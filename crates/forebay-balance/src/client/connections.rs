use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::client::ClientBody;
use crate::client::error::{AnswerError, Kind};
use crate::client::idle::Idle;
use crate::client::outgoing::Outgoing;
use crate::client::timeouts::Timeouts;
use crate::client::tls::Tls;
use crate::driver::Job;
use forebay_core::BoxError;

/// The most idle HTTP/1 connections kept to one endpoint; the oldest is closed for a newer one.
const MAX_IDLE: usize = 256;

/// An upstream that is silent for this long is asked whether it is still there,
const SILENCE: Duration = Duration::from_secs(15);
/// and again after each such time,
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// until so many questions went unanswered: then its connection breaks.
const QUESTIONS: u32 = 3;
/// What was sent must have arrived within this time.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// How many bytes of an answer an HTTP/2 upstream may send that nobody has read yet.
const STREAM_WINDOW: u32 = 256 << 10;
/// And of all answers of a connection together: enough for 4096 that nobody reads, so that these hold up no other. Half of
/// what is allowed (RFC 9113, 6.9.1), as some servers may not count to the end.
const CONNECTION_WINDOW: u32 = 1 << 30;

/// The connections to one endpoint: idle HTTP/1 ones, the last used first, and one shared HTTP/2 connection.
#[derive(Debug)]
pub(crate) struct Connections {
    /// `host:port`.
    address: String,
    timeouts: Timeouts,
    tls: Option<Tls>,
    idle: Mutex<Vec<http1::SendRequest<ClientBody>>>,
    /// Held while dialling, so that a crowd dials once.
    shared: tokio::sync::Mutex<Option<http2::SendRequest<Outgoing>>>,
}

/// Bytes to and from an upstream: TCP, or TLS over it.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Connections {
    pub(crate) fn new(address: String, timeouts: Timeouts, tls: Option<Tls>) -> Self {
        Self { address, timeouts, tls, idle: Mutex::default(), shared: tokio::sync::Mutex::default() }
    }

    #[cfg(test)]
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) const fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// A connection that is idle and ready, the last used first. Closed ones on the way go; one whose driver has not yet
    /// seen the end of its last exchange stays for later.
    pub(crate) fn idle(&self) -> Option<http1::SendRequest<ClientBody>> {
        loop {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let index = idle.iter().rposition(|connection| connection.is_ready() || connection.is_closed())?;
            let connection = idle.remove(index);
            drop(idle);
            if !connection.is_closed() {
                return Some(connection);
            }
        }
    }

    fn put(&self, connection: http1::SendRequest<ClientBody>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = (idle.len() >= MAX_IDLE).then(|| idle.remove(0));
        idle.push(connection);
        drop(idle);
        drop(oldest); // outside the lock
    }

    /// A new connection, its TLS session included.
    async fn dial(&self) -> Result<TokioIo<Box<dyn Stream>>, (Kind, BoxError)> {
        match timeout(self.timeouts.connect, self.connect()).await {
            Ok(stream) => stream.map(TokioIo::new),
            Err(late) => Err((Kind::ConnectTimeout, late.into())),
        }
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, (Kind, BoxError)> {
        let stream = TcpStream::connect(&self.address).await.map_err(|error| (Kind::Connect, error.into()))?;
        let _ = stream.set_nodelay(true); // only slower without
        watch(&stream);
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some(tls) => Ok(Box::new(tls.connect(stream).await?)),
        }
    }

    /// A new HTTP/1 connection. Its driver is a task that ends with the connection, that is with its last sender.
    pub(crate) async fn dial_http1(&self) -> Result<http1::SendRequest<ClientBody>, (Kind, BoxError)> {
        let stream = self.dial().await?;
        let handshake = http1::handshake(stream).await;
        let (sender, driver) = handshake.map_err(|error| (Kind::Connect, error.into()))?;
        tokio::spawn(async move {
            let _ = driver.await; // whoever has an exchange on it gets the error
        });
        Ok(sender)
    }

    /// The shared HTTP/2 connection, dialled anew if it has closed, and whether it was.
    pub(crate) async fn http2(self: &Arc<Self>) -> Result<(http2::SendRequest<Outgoing>, bool), (Kind, BoxError)> {
        let mut shared = self.shared.lock().await;
        if let Some(sender) = shared.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok((sender.clone(), false));
        }
        let stream = self.dial().await?;
        let (tasks, frames) = Tasks::new();
        let handshake = http2::Builder::new(tasks)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(stream)
            .await;
        let (sender, driver) = handshake.map_err(|error| (Kind::Connect, error.into()))?;
        let connections = Arc::downgrade(self);
        let requests = async move {
            let _ = driver.await;
            // A request sent at this very moment may be left in the channel; the last sender to go hands it back.
            if let Some(connections) = connections.upgrade() {
                connections.shared.lock().await.take_if(|sender| sender.is_closed());
            }
        };
        let frames = async move {
            if let Ok(frames) = frames.await {
                frames.await;
            }
        };
        tokio::spawn(both(requests, frames));
        *shared = Some(sender.clone());
        Ok((sender, true))
    }
}

/// Has the system watch a connection, as an upstream that vanishes (its power, its network, its address translation) says
/// nothing: whoever waits for a long answer would wait for ever, and the next ones with him. By TCP and not by HTTP/2's
/// PING, as gRPC servers close a connection on which nothing but pings comes.
fn watch(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(SILENCE).with_interval(ASK_AGAIN).with_retries(QUESTIONS);
    let _ = socket.set_tcp_keepalive(&keepalive); // only later without
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
}

/// Runs what hyper makes of an HTTP/2 connection. The first task, which reads and writes its frames, is handed out, to run
/// in that of its requests; the others, bodies and answers, run by themselves.
///
/// hyper starts a stream and then asks whether the connection is fine. A GOAWAY read in between, on another thread,
/// would fail a request that is below its last stream, as if it were above: it would be sent again, though it ran.
#[derive(Clone)]
struct Tasks {
    first: Arc<Mutex<Option<oneshot::Sender<Job>>>>,
}

impl Tasks {
    fn new() -> (Self, oneshot::Receiver<Job>) {
        let (first, frames) = oneshot::channel();
        (Self { first: Arc::new(Mutex::new(Some(first))) }, frames)
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        match first {
            Some(first) => drop(first.send(Box::pin(task))),
            None => drop(tokio::spawn(task)),
        }
    }
}

/// Both to their ends, and never both at the same time.
async fn both(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let mut running = (true, true);
    poll_fn(|cx| {
        running.0 = running.0 && one.as_mut().poll(cx).is_pending();
        running.1 = running.1 && other.as_mut().poll(cx).is_pending();
        if running == (false, false) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

pin_project! {
    /// The body of an upstream's answer. At its end the connection is idle again; dropped before, it is closed, and the
    /// upstream sees that. It fails if the upstream is silent for the idle timeout after its first frame.
    #[derive(Debug)]
    pub struct UpstreamBody {
        #[pin]
        incoming: Idle<Incoming>,
        connection: Option<(http1::SendRequest<ClientBody>, Arc<Connections>)>,
    }
}

impl UpstreamBody {
    pub(crate) fn new(
        incoming: Incoming,
        idle_timeout: Duration,
        connection: Option<(http1::SendRequest<ClientBody>, Arc<Connections>)>,
    ) -> Self {
        let mut body = Self { incoming: Idle::new(incoming, idle_timeout), connection };
        if body.incoming.is_end_stream() {
            reuse(&mut body.connection);
        }
        body
    }
}

fn reuse(connection: &mut Option<(http1::SendRequest<ClientBody>, Arc<Connections>)>) {
    if let Some((sender, connections)) = connection.take()
        && !sender.is_closed()
    {
        connections.put(sender);
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let mut this = self.project();
        let frame = ready!(this.incoming.as_mut().poll_frame(cx));
        match &frame {
            Some(Ok(_)) if !this.incoming.is_end_stream() => {}
            Some(Err(_)) => *this.connection = None,
            Some(Ok(_)) | None => reuse(this.connection),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_system_watches_whether_an_upstream_is_still_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens");
        watch(&stream);
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().expect("an option"));
        assert_eq!(socket.tcp_keepalive_time().expect("an option"), SILENCE);
        assert_eq!(socket.tcp_keepalive_interval().expect("an option"), ASK_AGAIN);
        assert_eq!(socket.tcp_keepalive_retries().expect("an option"), QUESTIONS);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().expect("an option"), Some(UNACKNOWLEDGED));
    }
}
