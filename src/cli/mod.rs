//! The command line.

mod demo;
mod explain;
mod import;
mod key;
mod logger;
mod notify;
mod rehearse;
mod reload;
mod run;
mod settings;
mod show;
mod state_dir;
mod test;
mod upgrade;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser, Subcommand};

use crate::build::{Build, Diagnostics, Node};
use crate::config::{self, Loaded};
use crate::gateway::Gateway;
use crate::keep::{Fingerprint, Keep};
use crate::server::acme::Acme;
use crate::server::listener::{self, AdminSpec, ListenerSpec};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::traffic::Meter;
use settings::Settings;
use test::Test;

/// An API gateway: one binary, one TOML file.
///
/// Start with `portcullis demo`, which runs the gateway in front of four built-in services and prints requests to
/// try. Then write a file of your own, look it over with `portcullis check FILE`, and run it.
#[derive(Parser)]
#[command(name = "portcullis", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway. SIGHUP reloads, SIGUSR2 upgrades, SIGTERM drains, SIGINT stops.
    Run {
        /// The configuration file
        #[arg(short, long, value_name = "FILE", default_value = "/etc/portcullis/portcullis.toml")]
        config: PathBuf,
        /// Take over from the gateway that runs, once that is sent SIGQUIT
        #[arg(long)]
        upgrade: bool,
    },
    /// Have the running gateway load its configuration again; exits with 1 if that is wrong.
    Reload {
        /// The configuration file, which says where the gateway's admin interface is
        #[arg(short, long, value_name = "FILE", default_value = "/etc/portcullis/portcullis.toml")]
        config: PathBuf,
        /// Read only the file of this API again, whatever the others say by now
        #[arg(long, value_name = "NAME")]
        api: Option<String>,
    },
    /// Have a new process of the installed binary take over, without a lost connection.
    Upgrade {
        /// The configuration file, which says where the gateway's admin interface is
        #[arg(short, long, value_name = "FILE", default_value = "/etc/portcullis/portcullis.toml")]
        config: PathBuf,
    },
    /// Look a configuration over and print every mistake; exits with 1 if there is one.
    Check {
        /// The configuration file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Run the tests of a configuration, its [[test]]; exits with 1 if one fails.
    Test {
        /// The configuration file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Say what the gateway would do with a request, and why.
    Explain(explain::Arguments),
    /// Write a configuration from an OpenAPI document: a route for each of its operations.
    Import(import::Arguments),
    /// Keys of consumers, for [auth.NAME] with api_key or basic.
    Key {
        #[command(subcommand)]
        what: Key,
    },
    /// Run the demo: four small services and the gateway in front of them.
    Demo,
}

#[derive(Subcommand)]
enum Key {
    /// Make a key: print it, to give away, and its hash, for the configuration.
    New,
}

/// Everything that a configuration says, compiled.
struct Plan {
    gateway: Gateway,
    listeners: Vec<Arc<ListenerSpec>>,
    admin: Option<AdminSpec>,
    settings: Settings,
    /// The certificates that the listeners have obtained.
    acme: Arc<Acme>,
    metrics: Arc<Metrics>,
    /// `[server]` and `[admin]`, which hold for as long as the process lives.
    fixed: [Fingerprint; 2],
    /// Certificates and their like.
    files: Vec<PathBuf>,
    /// What the next configuration can keep.
    keep: Keep,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    logger::install();
    // Before Pingora installs another.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let result = match arguments.command {
        Command::Run { config, upgrade } => run::run(&config, upgrade),
        Command::Reload { config, api } => reload::ask(&config, api.as_deref()),
        Command::Upgrade { config } => upgrade::ask(&config),
        Command::Check { file } => check(&file),
        Command::Test { file } => test::command(&file),
        Command::Explain(arguments) => explain::command(arguments),
        Command::Import(arguments) => import::command(&arguments),
        Command::Key { what: Key::New } => key::new(),
        Command::Demo => demo::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            logger::report(log::Level::Error, &message);
            ExitCode::FAILURE
        }
    }
}

/// The command line's definition, from which manual pages and completions of shells are made.
pub fn command() -> clap::Command {
    Arguments::command()
}

fn check(file: &Path) -> Result<(), String> {
    let (loaded, plan) = load(file)?;
    let tests = match loaded.root.get("test").and_then(Node::array) {
        Some(tests) => format!(", {} passed", test::counted(tests.len())),
        None => String::new(),
    };
    println!(
        "{} is fine: {} routes, {} upstreams, {} listeners{tests}",
        file.display(),
        plan.gateway.routes(),
        plan.gateway.pools().count(),
        plan.listeners.len()
    );
    Ok(())
}

/// Loads and compiles a file; prints warnings, fails with every mistake.
fn load(file: &Path) -> Result<(Loaded, Plan), String> {
    let loaded = config::load(file).map_err(|diagnostics| diagnostics.to_string())?;
    let (plan, diagnostics) = compile(&loaded);
    match plan {
        Some(plan) => {
            logger::report(log::Level::Warn, &diagnostics.to_string());
            Ok((loaded, plan))
        }
        None => Err(diagnostics.to_string()),
    }
}

fn compile(loaded: &Loaded) -> (Option<Plan>, Diagnostics) {
    compile_over(None, loaded)
}

/// Compiles, with what can be kept of the configuration before, and holds the result to the file's tests.
fn compile_over(previous: Option<&Keep>, loaded: &Loaded) -> (Option<Plan>, Diagnostics) {
    let mut build = loaded.build().over(previous);
    let plan = plan(&mut build).and_then(|(plan, tests)| {
        let (plan, failed) = test::run(plan, &tests, &mut build);
        failed.is_empty().then_some(plan)
    });
    (plan, build.diagnostics())
}

/// Compiles; the tests are still to be run. `None` after every mistake was reported.
fn plan(build: &mut Build<'_>) -> Option<(Plan, Vec<Test>)> {
    let metrics = build.keep("metrics", Fingerprint::default(), |_| Some(Metrics::new()))?;
    // Where [metrics] has mistakes, they are all that comes of it.
    let meter = Meter::new(metrics.clone(), settings::max_series(build).unwrap_or(0));
    let gateway = Gateway::compile(&meter, build);
    let settings = Settings::compile(build);
    let acme = build.keep("acme", Fingerprint::default(), |_| Some(Acme::new(state_dir(settings.as_ref()))))?;
    let listeners = listener::compile(&acme, &meter, build);
    let admin = listener::compile_admin(build);
    let tests = test::compile(gateway.as_ref(), build);
    let fixed = ["server", "admin"]
        .map(|table| build.node().get(table).map(|node| build.fingerprint(node, &["file"])).unwrap_or_default());
    if build.errors() > 0 {
        return None;
    }
    let (files, keep) = (build.files().to_vec(), build.kept());
    let (gateway, listeners, admin, settings) = (gateway?, listeners?, admin?, settings?);
    Some((Plan { gateway, listeners, admin, settings, acme, metrics, fixed, files, keep }, tests?))
}

/// Where `[server]` has mistakes, they are all that is reported of it.
fn state_dir(settings: Option<&Settings>) -> Option<&Path> {
    settings.map_or(Some(Path::new("")), |settings| settings.state_dir.as_deref())
}
