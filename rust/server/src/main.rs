//! The sidecar as a program of its own: the same as `barograph serve`, without Python.

use std::path::PathBuf;
use std::process::ExitCode;

use barograph_server::config::Overrides;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Watches machine-learning models in production.
#[derive(Parser)]
#[command(version, name = "barograph-server")]
struct Options {
    /// A TOML file; without one everything has a default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where requests come in, such as 127.0.0.1:7464 or `unix:/path`; can be repeated.
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// Where health is asked, and metrics if allowed, without a token.
    #[arg(long, value_name = "ADDRESS")]
    health_listen: Option<String>,
    /// The folder of everything that lasts.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A file that holds the administrator's token (or the environment's `BAROGRAPH_TOKEN`).
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Where datagrams of `DogStatsD` come in.
    #[arg(long, value_name = "ADDRESS")]
    statsd: Option<String>,
    /// Send a test alert to every sink, and end.
    #[arg(long)]
    test_alert: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let overrides = Overrides {
        config: options.config,
        listen: options.listen,
        health_listen: options.health_listen,
        data: options.data,
        token_file: options.token_file,
        statsd: options.statsd,
        test_alert: options.test_alert,
    };
    match barograph_server::serve::run(&overrides) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("barograph-server: {error}");
            ExitCode::from(2)
        }
    }
}
