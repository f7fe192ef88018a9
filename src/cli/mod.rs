//! The command line.

mod demo;
mod logger;
mod run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::build::Diagnostics;
use crate::config;
use crate::gateway::Gateway;
use crate::server::listener::{self, AdminSpec, ListenerSpec};
use run::Settings;

/// An API gateway: one binary, one TOML file.
///
/// Start with `portcullis demo`, which runs the gateway in front of three built-in services and prints requests to
/// try. Then write a file of your own, look it over with `portcullis check FILE`, and run it.
#[derive(Parser)]
#[command(name = "portcullis", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway. SIGTERM lets requests under way end, SIGINT stops at once.
    Run {
        /// The configuration file
        #[arg(short, long, value_name = "FILE", default_value = "/etc/portcullis/portcullis.toml")]
        config: PathBuf,
    },
    /// Look a configuration over and print every mistake in it; exits with 1 if there is one.
    Check {
        /// The configuration file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Run the demo: three small services and the gateway in front of them.
    Demo,
}

/// Everything that a configuration says, compiled.
struct Plan {
    gateway: Gateway,
    listeners: Vec<ListenerSpec>,
    admin: Option<AdminSpec>,
    settings: Settings,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    logger::install();
    // Before Pingora installs another.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let result = match arguments.command {
        Command::Run { config } => load(&config).and_then(|plan| run::run(plan, &[])),
        Command::Check { file } => check(&file),
        Command::Demo => demo::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{}", message.trim_end());
            ExitCode::FAILURE
        }
    }
}

fn check(file: &Path) -> Result<(), String> {
    let plan = load(file)?;
    println!(
        "{} is fine: {} routes, {} upstreams, {} listeners",
        file.display(),
        plan.gateway.routes(),
        plan.gateway.pools().count(),
        plan.listeners.len()
    );
    Ok(())
}

/// Loads and compiles a file; prints warnings, fails with every mistake.
fn load(file: &Path) -> Result<Plan, String> {
    let loaded = config::load(file).map_err(|diagnostics| diagnostics.to_string())?;
    let (plan, diagnostics) = compile(&loaded);
    match plan {
        Some(plan) => {
            eprint!("{diagnostics}");
            Ok(plan)
        }
        None => Err(diagnostics.to_string()),
    }
}

fn compile(loaded: &config::Loaded) -> (Option<Plan>, Diagnostics) {
    let mut build = loaded.build();
    let gateway = Gateway::compile(&mut build);
    let listeners = listener::compile(&mut build);
    let admin = listener::compile_admin(&mut build);
    let settings = Settings::compile(&mut build);
    let diagnostics = build.diagnostics();
    if diagnostics.errors() > 0 {
        return (None, diagnostics);
    }
    let plan = (|| Some(Plan { gateway: gateway?, listeners: listeners?, admin: admin?, settings: settings? }))();
    (plan, diagnostics)
}
