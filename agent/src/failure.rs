//! How a command ends: what a person is told, and the exit code.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use crate::draft::DraftError;
use crate::pipeline::WorkshopError;
use crate::site::SiteError;
use crate::work_tree::WorkTreeError;

/// Exit codes. Documented in `README.md`; never renumbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All went well.
    Success = 0,
    /// The instruction did not land.
    NotLanded = 1,
    /// The call was not understood.
    Usage = 2,
    /// The repository is missing, empty, or no Astro site.
    Repository = 10,
    /// The remote cannot be reached or does not accept the credentials.
    Remote = 11,
    /// Node.js is missing or too old.
    Node = 12,
    /// The port is taken.
    Port = 13,
    /// The workspace or the state cannot be written.
    Storage = 14,
    /// An environment of this repository runs already.
    AlreadyRunning = 15,
    /// The dependencies could not be installed.
    Install = 16,
    /// There is no running environment to send to.
    NoEnvironment = 17,
    /// Another environment has the session: this one has stepped down and touched nothing.
    SteppedDown = 18,
    /// The client's configuration is missing or not valid, or the session does not exist.
    Config = 20,
    /// The client may not have environments.
    Suspended = 21,
    /// A table, a queue, a secret or the metadata endpoint does not answer, or does not let us.
    Backend = 22,
    /// A phase of the start took longer than it may.
    TooSlow = 23,
    /// Something is left that could neither be pushed nor parked elsewhere: it is only in the workspace.
    NotSaved = 24,
    /// What runs the client's code cannot be kept apart from the agent, or is not.
    Isolation = 25,
    /// The clock of this machine is wrong.
    Clock = 26,
    /// Something unexpected.
    Internal = 70,
    /// A defect of the agent ended one of its loops. Whoever looks after it starts it anew.
    Crashed = 101,
    /// Interrupted before it was ready.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What happened, to what, and what to do now.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What happened, to what.
    pub(crate) message: String,
    /// What to do now; may be empty.
    pub(crate) hint: String,
    /// Whether the same could work later, without anybody doing anything.
    pub(crate) retryable: bool,
}

impl Failure {
    /// A failure in words.
    pub(crate) fn new(exit: Exit, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hint: hint.into(),
            retryable: matches!(exit, Exit::TooSlow | Exit::Internal),
        }
    }

    /// The same could work later.
    pub(crate) fn retryable(mut self, retryable: bool) -> Self {
        self.retryable = retryable;
        self
    }

    /// The word for it in a session's record.
    pub(crate) fn code(&self) -> &'static str {
        match self.exit {
            Exit::Repository => "repository_unusable",
            Exit::Remote if self.retryable => "remote_unavailable",
            Exit::Remote => "remote_refused",
            Exit::Node => "node_missing",
            Exit::Port => "port_taken",
            Exit::Storage => "storage",
            Exit::AlreadyRunning | Exit::SteppedDown => "other_environment",
            Exit::Install => "install_failed",
            Exit::Config => "config_invalid",
            Exit::Suspended => "client_suspended",
            Exit::Backend => "backend_unavailable",
            Exit::TooSlow => "too_slow",
            Exit::NotSaved => "not_saved",
            Exit::Isolation => "isolation_broken",
            Exit::Clock => "clock_wrong",
            Exit::Interrupted => "interrupted",
            Exit::Crashed => "crashed",
            Exit::Success
            | Exit::NotLanded
            | Exit::Usage
            | Exit::NoEnvironment
            | Exit::Internal => "internal",
        }
    }

    /// Something that should not have happened.
    pub(crate) fn internal(operation: &str, error: &dyn Error) -> Self {
        Self::new(
            Exit::Internal,
            format!("could not {operation}: {}", chain(error)),
            "Run it again with -v and look at the log.",
        )
    }

    /// A file or folder that cannot be used.
    pub(crate) fn storage(operation: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::new(
            Exit::Storage,
            format!("could not {operation} {}: {error}", path.display()),
            "Check that the disk has room and that the folder is writable, or name another one with --state or --workspace.",
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.message)?;
        if self.hint.is_empty() {
            Ok(())
        } else {
            writeln!(f, "  hint: {}", self.hint)
        }
    }
}

impl From<DraftError> for Failure {
    fn from(error: DraftError) -> Self {
        let exit = match &error {
            DraftError::NoRepository { .. }
            | DraftError::Shallow { .. }
            | DraftError::Empty { .. }
            | DraftError::NoBranch { .. }
            | DraftError::NameTaken { .. }
            | DraftError::CheckedOut { .. } => Exit::Repository,
            DraftError::DiskFull { .. }
            | DraftError::Local { .. }
            | DraftError::File { .. }
            | DraftError::OtherClone { .. } => Exit::Storage,
            _ => Exit::Remote,
        };
        Self::new(exit, chain(&error), error.hint()).retryable(error.may_pass())
    }
}

impl From<SiteError> for Failure {
    fn from(error: SiteError) -> Self {
        let exit = match &error {
            SiteError::NoNode { .. } | SiteError::NodeTooOld { .. } => Exit::Node,
            SiteError::NoAstro { .. } => Exit::Repository,
            SiteError::NoPackageManager { .. }
            | SiteError::Install { .. }
            | SiteError::NotInstalled { .. } => Exit::Install,
            SiteError::Runner { .. } => Exit::Storage,
        };
        // A registry that does not answer is the usual reason for it.
        let may_pass = matches!(error, SiteError::Install { .. });
        Self::new(exit, chain(&error), error.hint()).retryable(may_pass)
    }
}

impl From<WorkTreeError> for Failure {
    fn from(error: WorkTreeError) -> Self {
        Self::new(
            Exit::Storage,
            chain(&error),
            "Check that the disk has room and that the workspace is writable.",
        )
    }
}

impl From<WorkshopError> for Failure {
    fn from(error: WorkshopError) -> Self {
        match error {
            WorkshopError::Draft(error) => error.into(),
            WorkshopError::WorkTree(error) => error.into(),
            WorkshopError::Broke(_) | WorkshopError::Interrupted => {
                Self::internal("work on the draft", &error)
            }
        }
    }
}

/// An error with its causes, in one line. A cause that only repeats what is said already is left out.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // libgit2's class and code are for programs.
        let words = match error.downcast_ref::<git2::Error>() {
            Some(git) => git.message().trim_end_matches([':', ' ']).to_owned(),
            None => error.to_string(),
        };
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_happened_to_what_and_what_to_do() {
        let failure = Failure::from(DraftError::NoBranch {
            remote: "/sites/amelia".to_owned(),
            branch: "mian".to_owned(),
            known: vec!["main".to_owned(), "spring".to_owned()],
        });
        insta::assert_snapshot!(failure.to_string(), @r"
        error: the repository /sites/amelia has no branch mian; it has main, spring
          hint: Name an existing branch: `repository.branch` of the client's configuration (on a laptop: --branch).
        ");
        assert_eq!(failure.exit, Exit::Repository);
    }
}
