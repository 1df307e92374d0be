//! The simulated model server as a process: flags in, its address out, until SIGTERM or SIGINT.

mod args;

use std::{
    error::Error,
    io::{Write, stdout},
    process::ExitCode,
};

use clap::{CommandFactory, Parser, error::ErrorKind};
use forebay_model_server::{Config, serve};
use tokio::{net::TcpListener, runtime::Builder};

use crate::args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    let (address, threads) = (args.address(), args.threads);
    let config = args.config().unwrap_or_else(|error| {
        // The fields are the flags, with other hyphens.
        let message = format!("bad value: {}", error.to_string().replace('_', "-"));
        Args::command().error(ErrorKind::ValueValidation, message).exit()
    });
    let mut builder = Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads.into());
    }
    let result = match builder.enable_all().build() {
        Ok(runtime) => runtime.block_on(run(address, config)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forebay-model-server: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(address: std::net::SocketAddr, config: Config) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let signal = signals()?;
    let server = serve(listener, config, signal)?;
    writeln!(stdout(), "listening on {}", server.url())?;
    stdout().flush()?;
    server.stopped().await?;
    Ok(())
}

/// Ready at the first SIGTERM or SIGINT.
#[cfg(unix)]
fn signals() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Ready at the first Ctrl-C.
#[cfg(not(unix))]
fn signals() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}
