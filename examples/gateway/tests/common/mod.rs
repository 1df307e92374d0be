//! The gateway as a process.

#![allow(dead_code)] // each test uses a part

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};

pub(crate) type Http = Client<HttpConnector, Full<Bytes>>;

/// It is killed without notice when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) url: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill(); // SIGKILL
        let _ = self.child.wait();
    }
}

pub(crate) fn gateway(config: &Path) -> Process {
    let mut child = Command::new(env!("CARGO_BIN_EXE_forebay-gateway"))
        .arg("--config")
        .arg(config)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the gateway starts");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("its first line");
    let url = line.trim().strip_prefix("listening on ").expect("its address").to_owned();
    Process { child, url }
}

impl Process {
    /// Sends it a signal, such as `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.expect("kill is there").success());
    }
}

pub(crate) async fn ask(http: &Http, request: Request<Full<Bytes>>) -> Response<Bytes> {
    let (head, body) = http.request(request).await.expect("an answer").into_parts();
    Response::from_parts(head, body.collect().await.expect("a whole body").to_bytes())
}
