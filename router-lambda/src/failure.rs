//! How a command ends: what a person is told, and the exit code.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

/// Exit codes. Documented in `README.md`; never renumbered, and the same as the agent's where they mean the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All went well.
    Success = 0,
    /// The gateway is not well.
    Unwell = 1,
    /// The call was not understood, or a variable is missing or not valid.
    Usage = 2,
    /// The port is taken.
    Port = 13,
    /// The state cannot be read or written.
    Storage = 14,
    /// A router of this state runs already.
    AlreadyRunning = 15,
    /// No router of this state runs, or the program `edit-agent` is missing.
    NotThere = 17,
    /// A client's configuration is missing or not valid, or there is no such session.
    Config = 20,
    /// A table or a queue does not answer, or does not let us.
    Backend = 22,
    /// Something unexpected.
    Internal = 70,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What happened, to what, and what to do now.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened, to what.
    pub message: String,
    /// What to do now; may be empty.
    pub hint: String,
}

impl Failure {
    /// A failure in words.
    pub fn new(exit: Exit, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// A file or a folder that cannot be used.
    pub fn storage(deed: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::new(
            Exit::Storage,
            format!("could not {deed} {}: {error}", path.display()),
            "Check that it is yours and that the disk has room, or name another with --state.",
        )
    }

    /// A port that does not answer, or does not let us.
    pub fn backend(deed: &str, error: &platform::PortError) -> Self {
        Self::new(
            Exit::Backend,
            format!("could not {deed}: {}", telemetry::chain(error)),
            "Check the names of tables and queues, the rights of the role, and the network.",
        )
    }

    /// Something that nobody expected.
    pub fn internal(deed: &str, error: &dyn std::error::Error) -> Self {
        Self::new(
            Exit::Internal,
            format!("could not {deed}: {}", telemetry::chain(error)),
            "",
        )
    }
}

impl From<crate::settings::InvalidSettings> for Failure {
    fn from(error: crate::settings::InvalidSettings) -> Self {
        Self::new(
            Exit::Usage,
            error.to_string(),
            "`edit-router serve --help` says what each is for. On a laptop, `edit-router serve --local` needs none.",
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.message)?;
        if !self.hint.is_empty() {
            writeln!(f, "  {}", self.hint)?;
        }
        Ok(())
    }
}
