//! `edit-agent`: the daemon of an edit environment, and the developer's way to run one on a laptop.
//!
//! The way of an instruction through the rooms: [`door`] (or a queue) → [`pipeline`] → [`change_set`] → [`work_tree`],
//! which the [`site`] renders → [`draft`] → the remote → its receipt. [`dev`] builds the rooms; [`send`] is a producer.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;

mod activity;
mod change_set;
mod cli;
mod content;
mod control_group;
mod crash;
mod dev;
mod door;
mod draft;
mod environment;
mod events;
mod failure;
mod health;
mod idle;
mod isolation;
mod kinds;
mod lease;
mod log;
mod loops;
mod metrics;
mod pipeline;
mod pulse;
mod random;
mod run;
mod send;
mod site;
mod supervision;
mod system;
mod verify;
mod words;
mod work_tree;

use cli::{Cli, Command};
use failure::{Exit, Failure, chain};
use telemetry::Everywhere;

/// How long the last lines of the log may take to be written.
const LOG_TIME_MAX: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let is_first = std::process::id() == 1;
    let wanted = supervision::wanted(&arguments, is_first, |name| std::env::var_os(name));
    let ended = match wanted {
        Some(wanted) => supervision::supervise(wanted),
        None => run(Cli::parse()).map(ExitCode::from),
    };
    match ended {
        Ok(code) => code,
        Err(failure) => {
            // Nobody is left to tell if stderr is gone.
            write!(std::io::stderr(), "{failure}").ok();
            failure.exit.into()
        }
    }
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    // What is done for children comes first: nothing of ours is begun in a process that becomes theirs.
    match &cli.command {
        Command::Confine(arguments) => return Err(isolation::confine::confine(arguments)),
        Command::Attempt(arguments) => return isolation::attempt::attempt(arguments),
        Command::End(arguments) => return isolation::ending::end(arguments),
        Command::Health(arguments) => return health::ask(arguments),
        _ => {}
    }
    system::name_authorities();
    if !matches!(cli.command, Command::Run(_) | Command::Daemon(_)) {
        start_log(cli.verbose);
    }
    match cli.command {
        Command::Init(arguments) => cli::explain_init(arguments),
        Command::Health(_) | Command::Confine(_) | Command::Attempt(_) | Command::End(_) => {
            unreachable!("answered above")
        }
        Command::Schema { name } => cli::print_schema(name.as_deref()),
        Command::Dev(arguments) => with_git(dev::run(arguments)),
        Command::Run(arguments) | Command::Daemon(arguments) => run_environment(&arguments),
        Command::Check(arguments) => with_git(run::check(arguments)),
        Command::Import(arguments) => with_git(dev::import_once(arguments)),
        Command::Send(arguments) => runtime()?.block_on(send::run(arguments)),
        Command::Log(arguments) => runtime()?.block_on(log::run(arguments)),
    }
}

/// Runs the environment of a session. Its log is for operators: lines on stdout.
fn run_environment(arguments: &cli::RunArguments) -> Result<Exit, Failure> {
    let settings = run::Settings::read(arguments)?;
    run::refuse_a_wrong_clock(contract::Timestamp::now())?;
    // Before anything that is a thread.
    let users = match settings.isolation {
        run::Wanted::Users => Some(isolation::Users::establish()?),
        run::Wanted::None => None,
    };
    let everywhere = Everywhere::default();
    let (output, writing) =
        telemetry::start(&settings.log_level, settings.log_format, everywhere.clone())
            .map_err(|error| Failure::internal("start the log", &error))?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        restarts = settings.restarts,
        last = settings.asked_to_end.is_some(),
        users = users.is_some(),
        "the agent starts"
    );
    let ended = in_runtime(run::run(settings, users, everywhere, output));
    // It is said here and not on stderr as well: whoever reads a container's log reads both.
    let exit = ended.unwrap_or_else(|failure| {
        tracing::error!(
            code = failure.code(),
            exit = failure.exit as u8,
            hint = failure.hint,
            "{}",
            failure.message
        );
        failure.exit
    });
    writing.finish(LOG_TIME_MAX);
    Ok(exit)
}

fn with_git(work: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    draft::prepare_git()?;
    in_runtime(work)
}

fn in_runtime(work: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = runtime()?;
    let ended = runtime.block_on(work);
    // What still blocks is git, waiting for a server that says nothing: an interrupt does not wait with it.
    runtime.shutdown_background();
    ended
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    // Two threads carry everything: the work is done by git, Node and the disk.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .thread_keep_alive(Duration::from_secs(2))
        .enable_all()
        .build();
    runtime.map_err(|error| Failure::internal("start the runtime", &error))
}

/// Logs go to stderr: warnings, or what `RUST_LOG` says, or everything of ours with `-v`.
fn start_log(verbose: bool) {
    let default = if verbose {
        "edit_agent=debug,site=debug,info"
    } else {
        "warn"
    };
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| default.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .compact()
        .init();
}
