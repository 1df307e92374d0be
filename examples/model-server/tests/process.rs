//! Proves that the binary says where it listens, serves, names bad flags, and ends at SIGTERM.

mod support;

use std::process::Stdio;

use support::{LONG, send};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

fn server(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-model-server"));
    command.args(flags).kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[cfg(unix)]
#[tokio::test]
async fn says_where_it_listens_and_ends_at_sigterm() {
    let mut child = server(&["--port", "0", "--model", "a", "--instant"]).spawn().unwrap();
    let mut line = String::new();
    timeout(LONG, BufReader::new(child.stdout.take().unwrap()).read_line(&mut line)).await.unwrap().unwrap();
    let address = line.trim_end().strip_prefix("listening on http://").unwrap().parse().unwrap();
    assert_eq!(send(address, "GET", "/v1/models/a", "").await.status().as_u16(), 200);
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert!(timeout(LONG, child.wait()).await.unwrap().unwrap().success());
}

#[tokio::test]
async fn bad_flags_are_named() {
    let table = [
        (["--slots", "0"], "slots is 0"),
        (["--error-share", "1.5"], "error-share is 1.5, must be from 0 to 1"),
        (["--decode-tokens-per-second", "-1"], "decode-tokens-per-second is -1"),
        (["--port", "70000"], "--port"),
        (["--nonsense", "1"], "--nonsense"),
    ];
    for (flags, part) in table {
        let output = timeout(LONG, server(&flags).output()).await.unwrap().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(part), "{flags:?}: {stderr}");
    }
}
