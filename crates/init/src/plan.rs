//! What init is asked to do.

use std::ffi::OsString;
use std::time::Duration;

use crate::restart::Restarts;

/// Which of the daemon's starts it is: absent at the first, then 1, 2, …
pub const RESTARTS_VARIABLE: &str = "EDIT_AGENT_RESTARTS";

/// Set at a last start (see [`Restarts::last_start`]) and absent at every other: how many seconds ago the end was asked for.
pub const ASKED_VARIABLE: &str = "EDIT_AGENT_ASKED_TO_END";

/// How long what the child left may take to end after TERM. A dev server takes 50 to 200 ms, a database perhaps seconds.
pub const GRACE: Duration = Duration::from_secs(3);

/// A program, and how it is looked after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Who speaks: what init's own lines begin with.
    pub name: &'static str,
    /// The program. Without a `/` it is looked for in `PATH`.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// When it is started anew. Without rules it never is.
    pub restarts: Option<Restarts>,
    /// How long what it left may take to end after TERM.
    pub grace: Duration,
    /// How init's lines look.
    pub log: Log,
}

impl Plan {
    /// A program that is started once, with lines for people.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            name: "edit-init",
            program: program.into(),
            arguments: Vec::new(),
            restarts: None,
            grace: GRACE,
            log: Log::Text,
        }
    }
}

/// How a line of init looks. All of them go to stderr, each in one write: stdout is the program's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// `edit-init: warning: …`.
    Text,
    /// `{"timestamp":…,"level":…,"target":"init","message":…}`, as the agent's own lines.
    Json,
}
