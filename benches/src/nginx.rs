use std::fmt::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use crate::Server;

/// Starts nginx with `least_conn` over `backends` (address, weight) on a free port, with a directory of its own.
///
/// # Panics
///
/// nginx is not installed (`apt-get install nginx-light`), or does not listen within 10 s.
#[must_use]
pub fn nginx(backends: &[(String, u32)]) -> Server {
    let binary = ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| Path::new(path).exists());
    let binary = binary.expect("nginx is missing: apt-get install nginx-light");
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let folder = env::temp_dir().join(format!("forebay-bench-nginx-{}", free.port()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    let mut upstreams = String::new();
    for (address, weight) in backends {
        writeln!(upstreams, "    server {address} weight={weight};").expect("a String takes all");
    }
    let configuration = format!(
        "worker_processes 2;\ndaemon off;\npid nginx.pid;\nerror_log stderr crit;\nevents {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path body;\n  proxy_temp_path proxy;\n  fastcgi_temp_path fcgi;\n  \
         uwsgi_temp_path uwsgi;\n  scgi_temp_path scgi;\n  keepalive_requests 1000000000;\n  upstream models {{\n    \
         least_conn;\n{upstreams}    keepalive 128;\n    keepalive_requests 1000000000;\n  }}\n  server {{\n    listen {free};\n    \
         location / {{\n      proxy_pass http://models;\n      proxy_http_version 1.1;\n      proxy_set_header Connection \
         \"\";\n      proxy_buffering off;\n      proxy_next_upstream off;\n    }}\n  }}\n}}\n"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, configuration).expect("a temporary file");
    let child = Command::new(binary)
        .arg("-p")
        .arg(&folder)
        .arg("-c")
        .arg(&file)
        .stdout(Stdio::null())
        .spawn()
        .expect("nginx starts");
    let started = Instant::now();
    while TcpStream::connect(free).is_err() {
        assert!(started.elapsed() < Duration::from_secs(10), "nginx does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Server::running(child, free.to_string())
}
