use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// A gateway for slow, expensive HTTP backends. Without a configuration it starts a demo with three simulated model
/// servers in its own process.
#[derive(Debug, Parser)]
#[command(name = "forebay-gateway", version)]
pub struct Args {
    /// The configuration, a TOML file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the configuration in force, without the keys, and end.
    #[arg(long)]
    pub print_config: bool,
    /// Check the configuration, and end.
    #[arg(long)]
    pub check_config: bool,
    /// Something other than serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Something other than serving.
#[derive(Debug, Clone, Copy, Subcommand)]
#[non_exhaustive]
pub enum Command {
    /// Print Kubernetes manifests of a HorizontalPodAutoscaler.
    Hpa,
}
