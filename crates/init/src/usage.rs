//! The command line of `edit-init`, and of `edit-agent init`. Pure.

use std::ffi::OsString;
use std::time::Duration;

use crate::{Log, Plan, Restarts};

/// What `--help` says.
pub const HELP: &str = "\
Starts CMD, passes signals on to it, reaps what it leaves behind, and ends as it ends.

Usage: edit-init [OPTIONS] [--] CMD [ARG]...

Options:
      --restart        Start CMD anew when it crashes: when it is killed by a signal that was
                       not passed on to it, or ends with 101, as a panic does. At most 5 times in 10
                       minutes, after 0.25 s, 0.5 s, ...; the restarts are counted in
                       EDIT_AGENT_RESTARTS. Any other ending is meant and ends edit-init
      --last-start     With --restart: a CMD that was asked to end (TERM, INT, QUIT, HUP) and
                       crashed, in whichever order, is started one last time, at once, to save what
                       it has; EDIT_AGENT_ASKED_TO_END says how many seconds ago that was. So is a
                       restart that such a signal ends. A second one before it calls it off
      --grace SECONDS  How long what CMD leaves may take to end after TERM, before KILL [3];
                       before a restart it is killed at once
  -h, --help           Say this
  -V, --version        Say the version

Environment:
  LOG_FORMAT           json: what edit-init itself says is JSON. All of it goes to stderr

Exit codes:
  CMD's own, and
    2    edit-init was called in a wrong way
   71    CMD was not started: no process, memory or descriptor is left
  126    CMD cannot be executed
  127    CMD was not found
  128+n  CMD was ended by signal n, or signal n came between a crash and the restart
";

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// What it is.
    Help,
    /// Which version.
    Version,
    /// To look after a program.
    Run(Plan),
}

/// Reads the arguments; `json` is how lines look. An error is a sentence.
pub fn read(arguments: impl IntoIterator<Item = OsString>, log: Log) -> Result<Asked, String> {
    let mut arguments = arguments.into_iter();
    let mut restarts = None;
    let mut last_start = false;
    let mut grace = None;
    let program = loop {
        let Some(argument) = arguments.next() else {
            break None;
        };
        // What begins with a dash is an option: the first that does not is the program, and all behind it are its own.
        match argument.to_str() {
            Some("--") => break arguments.next(),
            Some("-h" | "--help") => return Ok(Asked::Help),
            Some("-V" | "--version") => return Ok(Asked::Version),
            Some("--restart") => restarts = Some(Restarts::default()),
            Some("--last-start") => last_start = true,
            Some("--grace") => grace = Some(read_grace(arguments.next())?),
            _ if argument.as_encoded_bytes().starts_with(b"-") => {
                let option = argument.to_string_lossy();
                return Err(format!("There is no option {option:?}."));
            }
            _ => break Some(argument),
        }
    };
    let Some(program) = program.filter(|program| !program.is_empty()) else {
        return Err("The command to run is missing.".to_owned());
    };
    match &mut restarts {
        Some(rules) => rules.last_start = last_start,
        None if last_start => {
            return Err("--last-start goes with --restart.".to_owned());
        }
        None => {}
    }
    let mut plan = Plan::new(program);
    plan.arguments = arguments.collect();
    plan.restarts = restarts;
    plan.grace = grace.unwrap_or(plan.grace);
    plan.log = log;
    Ok(Asked::Run(plan))
}

fn read_grace(seconds: Option<OsString>) -> Result<Duration, String> {
    // An hour is more than any orchestrator leaves.
    const GRACE_MAX: Duration = Duration::from_secs(3600);
    seconds
        .and_then(|seconds| seconds.to_str()?.parse().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|grace| *grace <= GRACE_MAX)
        .ok_or_else(|| "--grace takes seconds, 0 to 3600, such as 3 or 0.5.".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Result<Asked, String> {
        read(line.split_whitespace().map(OsString::from), Log::Text)
    }

    fn run(line: &str) -> Plan {
        match asked(line) {
            Ok(Asked::Run(plan)) => plan,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn options_end_where_the_command_begins() {
        let plan = run("sh -c --help --restart -- x");
        assert_eq!(plan.program, "sh");
        assert_eq!(plan.arguments, ["-c", "--help", "--restart", "--", "x"]);
        assert_eq!(plan.restarts, None);
        let plan = run("--restart --grace 0.5 -- --odd -- x");
        assert_eq!(plan.program, "--odd");
        assert_eq!(plan.arguments, ["--", "x"]);
        assert_eq!(plan.restarts, Some(Restarts::default()));
        assert_eq!(plan.grace, Duration::from_millis(500));
        let rules = run("--last-start --restart sh").restarts;
        assert!(rules.is_some_and(|rules| rules.last_start));
        assert_eq!(run("-- -- x").program, "--");
    }

    #[test]
    fn help_and_version_are_asked_for_before_the_command_only() {
        assert_eq!(asked("--restart --help sh"), Ok(Asked::Help));
        assert_eq!(asked("-h"), Ok(Asked::Help));
        assert_eq!(asked("-V"), Ok(Asked::Version));
        assert_eq!(asked("--version"), Ok(Asked::Version));
        assert_eq!(run("sh --version").arguments, ["--version"]);
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (line, sentence) in [
            ("", "The command to run is missing."),
            ("--", "The command to run is missing."),
            ("--restart", "The command to run is missing."),
            ("--verbose sh", "There is no option \"--verbose\"."),
            ("-g sh", "There is no option \"-g\"."),
            ("- sh", "There is no option \"-\"."),
            ("--last-start sh", "--last-start goes with --restart."),
            ("--grace", "--grace takes seconds"),
            ("--grace sh", "--grace takes seconds"),
            ("--grace -1 sh", "--grace takes seconds"),
            ("--grace NaN sh", "--grace takes seconds"),
            ("--grace inf sh", "--grace takes seconds"),
            ("--grace 1e300 sh", "--grace takes seconds"),
        ] {
            let error = asked(line).expect_err(line);
            assert!(error.starts_with(sentence), "{line}: {error}");
        }
    }
}
