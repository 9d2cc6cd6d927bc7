//! `edit-router`: the router of edit environments.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use edit_router::cli::{Cli, Command};
use edit_router::failure::{Exit, Failure};
use edit_router::settings::Settings;
use edit_router::{commands, function, serve};
use telemetry::Everywhere;
use tracing_subscriber::EnvFilter;

/// How long the last lines of the log may take to be written.
const LOG_TIME_MAX: Duration = Duration::from_secs(2);
/// Set by the runtime of a Lambda.
const RUNTIME_API: &str = "AWS_LAMBDA_RUNTIME_API";

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            // Nobody is left to tell if stderr is gone.
            write!(std::io::stderr(), "{failure}").ok();
            failure.exit.into()
        }
    }
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    match cli.command {
        None if std::env::var_os(RUNTIME_API).is_some() => lambda(),
        None => Err(Failure::new(
            Exit::Usage,
            "it is not said what to do",
            "`edit-router serve --local` runs everything on a laptop; `edit-router --help` says the rest.",
        )),
        Some(Command::Lambda) => lambda(),
        Some(Command::Serve(arguments)) if arguments.place.local => {
            for_people(arguments.verbose);
            many()?.block_on(serve::on_a_laptop(arguments))
        }
        Some(Command::Serve(arguments)) => {
            let settings = Settings::read(&serve::variables())?;
            let (output, writing) = log(&settings)?;
            let ended = many()?.block_on(serve::in_the_cloud(&arguments, settings, output));
            writing.finish(LOG_TIME_MAX);
            ended
        }
        Some(Command::Link(arguments)) => commands::link(&arguments),
        Some(Command::Health(arguments)) => commands::health(&arguments),
        Some(Command::Inspect(arguments)) => one()?.block_on(commands::inspect(&arguments)),
        Some(Command::Sweep(arguments)) => {
            for_people(true);
            one()?.block_on(commands::sweep(&arguments))
        }
    }
}

/// One request at a time is all that a Lambda has, so that one thread is all that it needs.
fn lambda() -> Result<Exit, Failure> {
    let settings = Settings::read(&serve::variables())?;
    let (output, writing) = log(&settings)?;
    let ended = one()?.block_on(function::serve(settings, output));
    writing.finish(LOG_TIME_MAX);
    ended
}

fn log(settings: &Settings) -> Result<(telemetry::Output, telemetry::Writing), Failure> {
    telemetry::start(
        &settings.log_level,
        settings.log_format,
        Everywhere::default(),
    )
    .map_err(|error| Failure::internal("start the log", &error))
}

/// What happens, on stderr, for whoever sits before it.
fn for_people(verbose: bool) {
    let level = if verbose { "info" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

fn many() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime.map_err(|error| Failure::internal("start the runtime", &error))
}

fn one() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.map_err(|error| Failure::internal("start the runtime", &error))
}
