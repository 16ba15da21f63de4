//! The command line: a server with its configuration and log, or a command for one that runs elsewhere.

use std::io::Write as _;
use std::process::ExitCode;

use clap::CommandFactory as _;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::{EnvFilter, FilterFn};
use tracing_subscriber::prelude::*;

use ostiary::cli;
use ostiary::config::{self, Command, CommandLine, Config, LogFormat, Look, Misuse, Settings};
use ostiary::domain::secret::{Prefix, Secret};
use ostiary::offline;
use ostiary::server;
use ostiary::service::unserved::Recovered;
use ostiary::world::World;

/// Many small pieces come and go with every call; this allocator gives them out faster than the system's, and gives more
/// of what was used at once back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code of a command line that can't be followed, as `clap` uses it.
const MISUSED: u8 = 2;

fn main() -> ExitCode {
    if let Err(complaint) = cli::refuse_secrets(std::env::args_os()) {
        return complain(&complaint, MISUSED);
    }
    let (line, settings) = match CommandLine::read() {
        Ok(read) => read,
        Err(Misuse::Line(error)) => error.exit(),
        Err(Misuse::Setting(complaint)) => return complain(&complaint, MISUSED),
    };
    match line.command {
        Command::Serve(config) => serve(*config),
        Command::Config(look) => look_at(&look, &settings),
        Command::GenerateRootKey => {
            let secret = Secret::issue(&Prefix::root_key(), World::real(None).random());
            match writeln!(std::io::stdout(), "{}", secret.expose()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => complain(&format!("the new root key could not be written: {error}"), 1),
            }
        }
        Command::Restore(wanted) => unserved(offline::restore(wanted), |restored| {
            writeln!(std::io::stderr(), "{}", restored.warning())?;
            writeln!(std::io::stdout(), "{restored}")
        }),
        Command::Check(wanted) => unserved(offline::check(wanted), |said| write!(std::io::stdout(), "{said}")),
        Command::Recover(wanted) => unserved(offline::recover(wanted), |Recovered { root_key, secret }| {
            let id = root_key.id;
            writeln!(std::io::stderr(), "{id} is a new administrator; its secret is on standard output, this once")?;
            writeln!(std::io::stdout(), "{}", secret.expose())
        }),
        Command::Client(command) => {
            server::keep_out_of_core_dumps();
            let (world, grammar) = (World::real(None), CommandLine::command());
            cli::run(*command, &cli::Surroundings { world: &world, variable: &config::variable, grammar })
        }
    }
}

/// Says what is configured, or whether it can be served.
fn look_at(look: &Look, settings: &Settings) -> ExitCode {
    let said = match look {
        Look::Show(_) => settings.to_string(),
        Look::Check(config) => match server::rehearse(config) {
            Ok(()) => "the configuration is good\n".to_owned(),
            Err(error) => return complain(&error.to_string(), MISUSED),
        },
    };
    match write!(std::io::stdout(), "{said}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("it could not be written: {error}"), 1),
    }
}

/// Does something to a store that no server serves, and prints what there is to say.
fn unserved<T>(
    work: impl Future<Output = Result<T, offline::Refusal>>,
    tell: impl FnOnce(T) -> std::io::Result<()>,
) -> ExitCode {
    server::keep_out_of_core_dumps();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("nothing can be run: {error}"), 1),
    };
    match runtime.block_on(work) {
        Ok(done) => match tell(done) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&format!("it is done, but what came of it could not be written: {error}"), 1),
        },
        Err(refusal @ offline::Refusal::Misfit(_)) => complain(&refusal.to_string(), MISUSED),
        Err(refusal) => complain(&refusal.to_string(), 1),
    }
}

fn serve(config: Config) -> ExitCode {
    if let Err(complaint) = start_log(&config) {
        return complain(&complaint, MISUSED);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("no threads could be started: {error}"), 1),
    };
    server::keep_out_of_core_dumps();
    let outcome = runtime.block_on(async {
        let stop = CancellationToken::new();
        let signals = server::stop_on_signals(stop.clone())?;
        let running = server::start(config, stop).await?;
        let outcome = running.finished().await;
        signals.abort();
        outcome
    });
    // A store that is still being checked is not waited for.
    runtime.shutdown_background();
    match outcome {
        Ok(()) | Err(server::ServeError::Stopped) => ExitCode::SUCCESS,
        Err(error) => complain(&error.to_string(), 1),
    }
}

fn start_log(config: &Config) -> Result<(), String> {
    let filter = EnvFilter::try_new(&config.log_level).map_err(|error| format!("--log-level: {error}"))?;
    // The libraries below would log headers, and with them root keys, if they were asked for details.
    let own = FilterFn::new(|metadata| metadata.target().split("::").next() == Some("ostiary"));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    match config.log_format {
        LogFormat::Text => registry.with(lines.with_ansi(false).with_filter(own)).init(),
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
            registry.with(lines.with_filter(own)).init();
        }
    }
    Ok(())
}

/// Says on standard error what went wrong.
fn complain(complaint: &str, code: u8) -> ExitCode {
    // Nothing can be done if even that fails.
    let _ = writeln!(std::io::stderr(), "ostiary: {complaint}");
    ExitCode::from(code)
}
