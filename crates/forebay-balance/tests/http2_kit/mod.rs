//! A server's side of HTTP/2, frame by frame, for what no proper server does.

#![allow(dead_code)] // each test uses a part

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::http_kit::soon;

// RFC 9113, 6: kinds of frames, and their flags.
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const ACK: u8 = 1;

// RFC 9113, 7: error codes.
pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const INTERNAL_ERROR: u32 = 2;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// `:status 200`, by its index in HPACK's table.
pub(crate) const STATUS_200: &[u8] = &[0x88];

/// `grpc-status: 0`, as a literal.
pub(crate) const GRPC_STATUS: &[u8] = b"\x00\x0bgrpc-status\x010";

/// The server's side of a connection, frame by frame.
pub(crate) struct Connection(TcpStream);

impl Connection {
    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        let _ = self.0.write_all(&frame).await; // who has left gets nothing
    }

    /// The next frame that is not about the connection itself: its kind, its stream, its payload. None: it is closed.
    pub(crate) async fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            match (head[3], head[4] & ACK) {
                (SETTINGS, 0) => self.send(SETTINGS, ACK, 0, &[]).await,
                (PING, 0) => self.send(PING, ACK, 0, &payload).await,
                (DATA | HEADERS | RST_STREAM, _) => return Some((head[3], stream, payload)),
                _ => {}
            }
        }
    }

    /// The stream of the next request.
    pub(crate) async fn request(&mut self) -> Option<u32> {
        loop {
            if let (HEADERS, stream, _) = self.next().await? {
                return Some(stream);
            }
        }
    }

    /// The code of the next reset and its stream.
    pub(crate) async fn reset(&mut self) -> Option<(u32, u32)> {
        loop {
            if let (RST_STREAM, stream, code) = self.next().await? {
                return Some((stream, u32::from_be_bytes(code.try_into().expect("four bytes"))));
            }
        }
    }

    pub(crate) async fn head(&mut self, stream: u32) {
        self.send(HEADERS, END_HEADERS, stream, STATUS_200).await;
    }

    pub(crate) async fn answer(&mut self, stream: u32) {
        self.head(stream).await;
        self.send(DATA, END_STREAM, stream, b"ok").await;
    }

    pub(crate) async fn answer_all(&mut self) {
        while let Some(stream) = self.request().await {
            self.answer(stream).await;
        }
    }

    pub(crate) async fn cancel(&mut self, stream: u32, code: u32) {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    pub(crate) async fn go_away(&mut self, last: u32, code: u32) {
        self.send(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat()).await;
    }
}

/// A server that does this on each connection; the number counts from 0.
pub(crate) async fn server<F>(
    serve: impl Fn(Connection, usize) -> F + Send + Sync + 'static,
) -> (String, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut preface = [0; 24];
            if stream.read_exact(&mut preface).await.is_ok() {
                assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
                stream.set_nodelay(true).expect("a socket");
                let mut connection = Connection(stream);
                connection.send(SETTINGS, 0, 0, &[]).await;
                tokio::spawn(serve(connection, count.fetch_add(1, SeqCst)));
            }
        }
    });
    (url, connections)
}

/// A server that answers all, and counts connections.
pub(crate) async fn good() -> (String, Arc<AtomicUsize>) {
    server(|mut connection, _| async move { connection.answer_all().await }).await
}

pub(crate) async fn text<B: Body<Data = Bytes>>(response: Response<B>) -> Bytes
where
    B::Error: std::fmt::Debug,
{
    soon(response.into_body().collect()).await.expect("a whole body").to_bytes()
}
