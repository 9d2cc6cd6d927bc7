//! `edit-agent` as the first process of a container: it starts the daemon and looks after it.
//!
//! ```text
//!   run, as PID 1 or where ISOLATION=users ──▶ gives up what it does not use ──▶ init ──▶ daemon, again if it crashed
//!   init -- CMD                            ──▶ init ──▶ CMD, once
//!   run, elsewhere                         ──▶ the daemon itself
//! ```
//!
//! What init does is in the crate `init`. This program is large, and as much of it as the linker has to touch stays in memory for as
//! long as it runs: where `edit-init` lies beside it, as in an image, it becomes that small one.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use init::usage::{self, Asked};
use init::{Log, Plan, Restarts};

use crate::failure::{Exit, Failure};
use crate::isolation::Users;

/// The small program that looks after the large one.
const INIT: &str = "edit-init";

/// What this process is, if it is not what the command line says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Supervision {
    /// It looks after the daemon, which has these arguments.
    Daemon(Vec<OsString>),
    /// It looks after a program.
    Program(Plan),
}

/// Decides by what there is before the command line is read: a first process that stays is to be small.
pub(crate) fn wanted(
    arguments: &[OsString],
    is_first: bool,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Option<Supervision> {
    // Flags may come before the command: none of them has a value.
    let is_flag = |word: &&OsString| word.as_encoded_bytes().starts_with(b"-");
    let flags = arguments.iter().skip(1).take_while(is_flag).count();
    let (command, rest) = arguments.get(1 + flags..)?.split_first()?;
    if command == "init" {
        return match usage::read(rest.iter().cloned(), log(&variable, Log::Text)) {
            Ok(Asked::Run(mut plan)) => {
                plan.name = "edit-agent init";
                Some(Supervision::Program(plan))
            }
            // What it is and what is wrong with the call is said with the other commands.
            Ok(Asked::Help | Asked::Version) | Err(_) => None,
        };
    }
    let asks = rest.iter().any(|word| word == "-h" || word == "--help");
    let is_image = variable("ISOLATION").is_some_and(|value| value == "users");
    (command == "run" && !asks && (is_first || is_image))
        .then(|| Supervision::Daemon(rest.to_vec()))
}

fn log(variable: &impl Fn(&str) -> Option<OsString>, default: Log) -> Log {
    match variable("LOG_FORMAT")
        .as_deref()
        .map(OsStr::as_encoded_bytes)
    {
        Some(b"json") => Log::Json,
        Some(b"text") => Log::Text,
        _ => default,
    }
}

/// Looks after it to its end.
pub(crate) fn supervise(supervision: Supervision) -> Result<ExitCode, Failure> {
    let arguments = match supervision {
        Supervision::Program(plan) => return Ok(init::supervise(&plan).into()),
        Supervision::Daemon(arguments) => arguments,
    };
    let variable = |name: &str| std::env::var_os(name);
    if variable("ISOLATION").is_some_and(|value| value == "users") {
        // It is said once, and not at every restart, if this cannot be.
        Users::establish()?;
    }
    let own = own_path();
    let log = log(&variable, Log::Json);
    let daemon = [OsString::from("daemon")].into_iter().chain(arguments);
    let small = own.with_file_name(INIT);
    if small.is_file() {
        let error = Command::new(&small)
            .args(["--restart", "--last-start", "--"])
            .arg(&own)
            .args(daemon)
            .env("LOG_FORMAT", if log == Log::Json { "json" } else { "text" })
            .exec();
        return Err(Failure::new(
            Exit::Internal,
            format!("could not start {}: {error}", small.display()),
            "It belongs to the image beside edit-agent: build the image from docker/Dockerfile.",
        ));
    }
    let plan = Plan {
        name: "edit-agent",
        arguments: daemon.collect(),
        restarts: Some(Restarts {
            last_start: true,
            ..Restarts::default()
        }),
        log,
        ..Plan::new(own)
    };
    Ok(init::supervise(&plan).into())
}

/// This program. Without `/proc` nobody says where it lies, and it is looked for as it was called.
fn own_path() -> PathBuf {
    std::env::current_exe()
        .unwrap_or_else(|_| std::env::args_os().next().unwrap_or_default().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(line: &str, is_first: bool, set: &[(&str, &str)]) -> Option<Supervision> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        wanted(&words, is_first, |name| {
            set.iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_first_process_of_a_container_looks_after_the_daemon() {
        let daemon = |words: &[&str]| {
            Some(Supervision::Daemon(
                words.iter().map(OsString::from).collect(),
            ))
        };
        let users = ("ISOLATION", "users");
        assert_eq!(decide("edit-agent run", true, &[]), daemon(&[]));
        assert_eq!(
            decide("edit-agent run --port 0", true, &[]),
            daemon(&["--port", "0"])
        );
        assert_eq!(decide("edit-agent --verbose run", true, &[]), daemon(&[]));
        // With another first process, such as the one of `--init`.
        assert_eq!(decide("edit-agent run", false, &[users]), daemon(&[]));
        // On a laptop, and for whoever asks.
        assert_eq!(decide("edit-agent run", false, &[]), None);
        assert_eq!(decide("edit-agent run --help", true, &[users]), None);
        for other in [
            "edit-agent",
            "edit-agent daemon",
            "edit-agent dev",
            "edit-agent health",
        ] {
            assert_eq!(decide(other, true, &[users]), None, "{other}");
        }
    }

    #[test]
    fn init_starts_a_program_and_says_nothing_of_its_own_calls() {
        let Some(Supervision::Program(plan)) = decide("edit-agent init -- sh -c x", false, &[])
        else {
            panic!("it is a program");
        };
        assert_eq!(
            (plan.program, plan.arguments),
            ("sh".into(), vec!["-c".into(), "x".into()])
        );
        assert_eq!((plan.restarts, plan.log), (None, Log::Text));
        for asks in [
            "edit-agent init",
            "edit-agent init --help",
            "edit-agent init --what",
        ] {
            assert_eq!(decide(asks, true, &[]), None, "{asks}");
        }
    }
}
