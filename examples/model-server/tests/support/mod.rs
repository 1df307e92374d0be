//! A client with one connection per request, and bounded waiting for what must come true.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{future::pending, net::SocketAddr, time::Duration};

use bytes::Bytes;
use forebay_model_server::{ConfigBuilder, Handle, Stats, serve};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::yield_now,
    time::timeout,
};

/// Longer than anything here takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);
pub(crate) const CHAT: &str = "/v1/chat/completions";

pub(crate) async fn start(builder: ConfigBuilder) -> Handle {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    serve(listener, builder.build().unwrap(), pending()).unwrap()
}

fn request(method: &str, uri: String, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(uri).header("host", "localhost");
    request.header("content-type", "application/json").body(Full::new(body.into())).unwrap()
}

/// Sends over a connection of its own, which closes when the response is dropped.
pub(crate) async fn send(address: SocketAddr, method: &str, path: &str, body: impl Into<Bytes>) -> Response<Incoming> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    timeout(LONG, sender.send_request(request(method, path.to_owned(), body))).await.unwrap().unwrap()
}

pub(crate) async fn send_h2(address: SocketAddr, path: &str, body: impl Into<Bytes>) -> Response<Incoming> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = request("POST", format!("http://{address}{path}"), body);
    timeout(LONG, sender.send_request(request)).await.unwrap().unwrap()
}

pub(crate) async fn body(response: Response<Incoming>) -> Result<Bytes, hyper::Error> {
    timeout(LONG, response.into_body().collect()).await.unwrap().map(http_body_util::Collected::to_bytes)
}

pub(crate) async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(body(response).await.unwrap().to_vec()).unwrap()
}

pub(crate) async fn post(server: &Handle, path: &str, request: &Value) -> (StatusCode, Value) {
    let response = send(server.address(), "POST", path, request.to_string()).await;
    let status = response.status();
    (status, serde_json::from_slice(&body(response).await.unwrap()).unwrap())
}

pub(crate) async fn get(server: &Handle, path: &str) -> (StatusCode, String) {
    let response = send(server.address(), "GET", path, "").await;
    (response.status(), text(response).await)
}

/// A chat; `extra` is merged in.
pub(crate) fn chat(content: &str, extra: Value) -> Value {
    let mut request = json!({"model": "sim-7b", "messages": [{"role": "user", "content": content}]});
    let Value::Object(extra) = extra else { panic!("extra fields are an object") };
    request.as_object_mut().unwrap().extend(extra);
    request
}

/// The events of a stream, which must end with `[DONE]`.
pub(crate) fn events(stream: &str) -> Vec<Value> {
    let mut events: Vec<_> =
        stream.split("\n\n").filter(|e| !e.is_empty()).map(|e| e.strip_prefix("data: ").unwrap()).collect();
    assert_eq!(events.pop(), Some("[DONE]"));
    events.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

/// The text of the first choice of a streamed chat.
pub(crate) fn streamed_text(events: &[Value]) -> String {
    events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect()
}

/// Waits until the numbers are as they should be.
pub(crate) async fn until(server: &Handle, good: impl Fn(Stats) -> bool) -> Stats {
    let wait = async {
        loop {
            let stats = server.stats();
            if good(stats) {
                return stats;
            }
            yield_now().await;
        }
    };
    timeout(LONG, wait).await.unwrap_or_else(|_| panic!("still {:?}", server.stats()))
}
