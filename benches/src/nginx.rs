use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::{env, fs};

use crate::Server;
use crate::server::{await_listener, free_address, installed};

/// Starts nginx with `least_conn` over `backends` (address, weight) on a free port, with a directory of its own.
///
/// # Panics
///
/// nginx is not installed (`apt-get install nginx-light`), or does not listen within 10 s.
#[must_use]
pub fn nginx(backends: &[(String, u32)]) -> Server {
    nginx_with(backends, "off", "").expect("nginx is missing: apt-get install nginx-light")
}

/// The same, with a value of `proxy_next_upstream` and parameters for each server; `None`: it is not installed.
///
/// # Panics
///
/// It does not listen within 10 s.
#[must_use]
pub fn nginx_with(backends: &[(String, u32)], next_upstream: &str, parameters: &str) -> Option<Server> {
    let binary = installed("nginx")?;
    let free = free_address();
    let folder = env::temp_dir().join(format!("forebay-bench-nginx-{}", free.port()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    let mut upstreams = String::new();
    for (address, weight) in backends {
        writeln!(upstreams, "    server {address} weight={weight} {parameters};").expect("a String takes all");
    }
    let configuration = format!(
        "worker_processes 2;\ndaemon off;\npid nginx.pid;\nerror_log stderr crit;\nevents {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path body;\n  proxy_temp_path proxy;\n  fastcgi_temp_path fcgi;\n  \
         uwsgi_temp_path uwsgi;\n  scgi_temp_path scgi;\n  keepalive_requests 1000000000;\n  upstream models {{\n    \
         least_conn;\n{upstreams}    keepalive 128;\n    keepalive_requests 1000000000;\n  }}\n  server {{\n    listen {free};\n    \
         location / {{\n      proxy_pass http://models;\n      proxy_http_version 1.1;\n      proxy_set_header Connection \
         \"\";\n      proxy_buffering off;\n      proxy_next_upstream {next_upstream};\n    }}\n  }}\n}}\n"
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
    await_listener(free);
    Some(Server::running(child, free.to_string()))
}
