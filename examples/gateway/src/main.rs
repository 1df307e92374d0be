//! The gateway as a program; see `--help`.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;
use forebay_gateway::{Args, Command, Config, Demo, Gateway, hpa};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).init();
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forebay-gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Error> {
    let mut config = Config::load(args.config.as_deref(), |name| std::env::var(name).ok())?;
    if let Some(Command::Hpa) = args.command {
        print!("{}", hpa(&config)?);
        return Ok(());
    }
    if args.print_config {
        print!("{}", config.to_toml()?);
        for warning in Gateway::warnings(&config)? {
            println!("# warning: {warning}");
        }
        return Ok(());
    }
    if args.check_config {
        Gateway::check(&config)?;
        println!("the configuration is valid");
        return Ok(());
    }
    // Without a configuration and upstreams of the environment: the demo.
    let demo = if args.config.is_none() && config.upstreams.is_empty() {
        let demo = Demo::start(config).await?;
        config = demo.config.clone();
        Some(demo)
    } else {
        None
    };
    let hangup = signal(SignalKind::hangup())?; // before anybody can know that it runs
    let gateway = Gateway::new(&config).await?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}; set `listen` or FOREBAY_LISTEN", config.listen))?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}");
    if let Some(demo) = &demo {
        println!("{}", demo.hints(address));
    }
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("draining");
    };
    let reloads = args.config.map(|file| tokio::spawn(reload(hangup, file, gateway.clone())));
    gateway.serve(listener, shutdown).await;
    if let Some(reloads) = reloads {
        reloads.abort();
    }
    tracing::info!("drained");
    Ok(())
}

/// On SIGHUP: reads the configuration again and changes the backends. A configuration that cannot be used changes
/// nothing.
async fn reload(mut hangup: Signal, file: PathBuf, gateway: Gateway) {
    while hangup.recv().await.is_some() {
        let config = Config::load(Some(&file), |name| std::env::var(name).ok());
        match config.and_then(|config| gateway.reload(&config)) {
            Ok(()) => tracing::info!("the upstreams are those of the configuration now"),
            Err(error) => tracing::error!(%error, "not reloaded, all is as it was"),
        }
    }
}
