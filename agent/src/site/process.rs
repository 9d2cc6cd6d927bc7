//! One child and everything it starts: its own process group, its output drained, its ending named.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::control_group::memory_ran_out;
use crate::isolation::{Isolation, Role};

/// What a child may see of our environment: what a program needs to run, find the network and speak a language.
/// Nothing that could be a secret, and nothing by which Astro takes us for a coding agent and puts itself into the
/// background.
const ALLOWED: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "XDG_CACHE_HOME",
];

/// In the environment of every child, and so of whatever it starts: the folder that it was started for. By this is known what
/// a killed agent left running.
const CHILD_OF: &str = "EDIT_AGENT_CHILD_OF";

/// How long orphans may take to end after KILL, and how often it is looked.
const ORPHANS_TIME_MAX: Duration = Duration::from_secs(10);
const ORPHANS_LOOK: Duration = Duration::from_millis(20);

/// How long a group may take to end after TERM. Astro takes 50 to 200 ms.
pub(crate) const GRACE: Duration = Duration::from_secs(3);

/// What to start.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// The program.
    pub(crate) path: PathBuf,
    /// Its arguments.
    pub(crate) arguments: Vec<OsString>,
    /// Where it runs.
    pub(crate) directory: PathBuf,
    /// Variables beside the allowed ones.
    pub(crate) variables: BTreeMap<String, String>,
    /// As whom it runs.
    isolation: Isolation,
    role: Role,
}

impl Program {
    /// A program without arguments.
    pub(crate) fn new(path: impl Into<PathBuf>, directory: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            arguments: Vec::new(),
            directory: directory.into(),
            variables: BTreeMap::new(),
            isolation: Isolation::none(),
            role: Role::Tool,
        }
    }

    /// Runs it as the user of this role, where there are users.
    #[must_use]
    pub(crate) fn confined(mut self, isolation: &Isolation, role: Role) -> Self {
        self.isolation = isolation.clone();
        self.role = role;
        self
    }

    /// Adds arguments.
    #[must_use]
    pub(crate) fn arguments<A: Into<OsString>>(
        mut self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds a variable.
    #[must_use]
    pub(crate) fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    /// Starts it in a group of its own.
    pub(crate) fn start(&self) -> io::Result<Group> {
        let mut variables: BTreeMap<OsString, OsString> = ALLOWED
            .iter()
            .filter_map(|name| Some((name.into(), std::env::var_os(name)?)))
            .collect();
        let own = self.isolation.variables(self.role).into_iter();
        variables.extend(own.map(|(name, value)| (name.into(), value)));
        let set = self.variables.iter();
        variables.extend(set.map(|(name, value)| (name.into(), value.into())));
        variables.insert(CHILD_OF.into(), self.directory.clone().into());
        let (path, arguments, variables) =
            self.isolation
                .confined(self.role, &self.path, &self.arguments, variables);
        let mut command = Command::new(path);
        command
            .args(arguments)
            .current_dir(&self.directory)
            .env_clear()
            .envs(variables);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.kill_on_drop(true);
        // Whoever is confined begins a session of its own, which the leader of a group could not.
        if self.isolation.is_none() {
            command.process_group(0);
        }
        let memory_ran_out = memory_ran_out();
        let child = command.spawn()?;
        let leader = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .map(Pid::from_raw);
        Ok(Group {
            child,
            leader,
            memory_ran_out,
        })
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            &self
                .path
                .file_name()
                .unwrap_or(self.path.as_os_str())
                .to_string_lossy(),
        )?;
        self.arguments
            .iter()
            .try_for_each(|argument| write!(f, " {}", argument.to_string_lossy()))
    }
}

/// A running child with its group. Dropping it kills the group.
#[derive(Debug)]
pub(crate) struct Group {
    child: Child,
    leader: Option<Pid>,
    /// How often memory had run out before.
    memory_ran_out: u64,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It returned this code.
    Exited(i32),
    /// A signal ended it.
    Signalled(i32),
    /// The kernel ended it, or something beside it, because memory ran out.
    MemoryRanOut,
}

impl Ending {
    fn from_status(status: ExitStatus) -> Self {
        status.code().map_or_else(
            || Self::Signalled(status.signal().unwrap_or_default()),
            Self::Exited,
        )
    }
}

impl Ending {
    /// Whether it says nothing of what was run: something else ended it.
    pub(crate) fn is_others_deed(self) -> bool {
        matches!(self, Self::MemoryRanOut | Self::Signalled(9))
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "ended with code {code}"),
            Self::MemoryRanOut => {
                f.write_str("was ended because the memory of the environment ran out")
            }
            // 9 from nobody we know is, on Linux, most often the kernel's way to say that memory ran out.
            Self::Signalled(9) => f.write_str("was killed (signal 9; perhaps memory ran out)"),
            Self::Signalled(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}

impl Group {
    /// The ends of its pipes. Can be taken once.
    pub(crate) fn pipes(&mut self) -> Option<(ChildStdin, ChildStdout, ChildStderr)> {
        Some((
            self.child.stdin.take()?,
            self.child.stdout.take()?,
            self.child.stderr.take()?,
        ))
    }

    /// Waits for its end. Cancel safe.
    pub(crate) async fn ending(&mut self) -> io::Result<Ending> {
        let ending = self.child.wait().await.map(Ending::from_status)?;
        let killed = ending == Ending::Signalled(Signal::SIGKILL as i32);
        if killed && memory_ran_out() > self.memory_ran_out {
            Ok(Ending::MemoryRanOut)
        } else {
            Ok(ending)
        }
    }

    /// Asks the group to end, waits for the grace, and then makes it.
    pub(crate) async fn stop(mut self, grace: Duration) -> io::Result<Ending> {
        self.signal(Signal::SIGTERM);
        let ending = match tokio::time::timeout(grace, self.ending()).await {
            Ok(ending) => ending,
            Err(_) => {
                self.signal(Signal::SIGKILL);
                self.ending().await
            }
        };
        // What the child started may outlive it.
        self.signal(Signal::SIGKILL);
        ending
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader
            // ESRCH: all gone already, which is what was wanted; or it has not begun its own group yet. It has not been
            // waited for, so that nobody else has its number.
            && killpg(leader, signal).is_err()
            && self.child.id().is_some()
        {
            kill(leader, signal).ok();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// Ends what a killed agent left running in `directory`: a package manager has no leash, and would meddle with the next one.
/// For whoever holds the environment's lock, so that whatever is found is nobody's.
pub(crate) async fn end_orphans(directory: &Path) {
    let deadline = tokio::time::Instant::now() + ORPHANS_TIME_MAX;
    loop {
        let orphans = orphans(directory);
        if orphans.is_empty() || tokio::time::Instant::now() > deadline {
            return;
        }
        for orphan in orphans {
            tracing::info!(process = %orphan, "a killed agent left a process; ended");
            // ESRCH: it ended by itself.
            kill(orphan, Signal::SIGKILL).ok();
        }
        tokio::time::sleep(ORPHANS_LOOK).await;
    }
}

fn orphans(directory: &Path) -> Vec<Pid> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let owner = [CHILD_OF.as_bytes(), b"=", directory.as_os_str().as_bytes()].concat();
    let is_orphan = |pid: &i32| {
        // Other users' cannot be read, and are not ours.
        std::fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|variables| variables.split(|byte| *byte == 0).any(|one| one == owner))
    };
    processes
        .filter_map(|process| process.ok()?.file_name().to_str()?.parse().ok())
        .filter(is_orphan)
        .map(Pid::from_raw)
        .collect()
}

/// Finds a program in `PATH`.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let executable = |path: &Path| {
        path.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|path| executable(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stopping_a_group_ends_what_it_started_even_if_it_ignores_term() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = Program::new("/bin/sh", folder.path()).arguments([
            "-c",
            "trap '' TERM; tail -f /dev/null & echo $!; wait; wait",
        ]);
        let mut group = program.start().expect("started");
        let (_stdin, stdout, _stderr) = group.pipes().expect("pipes");
        let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(stdout));
        let grandchild: i32 = lines
            .next_line()
            .await
            .expect("read")
            .expect("a line")
            .parse()
            .expect("a number");
        let ending = group
            .stop(Duration::from_millis(50))
            .await
            .expect("stopped");
        assert_eq!(ending, Ending::Signalled(9));
        // Its pipe closes when the last process that holds it is gone.
        assert_eq!(
            lines.next_line().await.expect("read"),
            None,
            "{grandchild} still runs"
        );
    }

    #[tokio::test]
    async fn what_a_killed_agent_left_running_is_ended_and_nothing_else() {
        let (folder, other) = (tempfile::tempdir(), tempfile::tempdir());
        let (folder, other) = (folder.expect("a folder"), other.expect("a folder"));
        let start = |directory: &Path| {
            // The shell's child has the variable from it.
            Program::new("/bin/sh", directory)
                .arguments(["-c", "tail -f /dev/null; true"])
                .start()
                .expect("started")
        };
        let (mut orphan, mut stranger) = (start(folder.path()), start(other.path()));
        end_orphans(folder.path()).await;
        let ending = orphan.ending().await.expect("waited");
        assert_eq!(ending, Ending::Signalled(9));
        assert!(orphans(folder.path()).is_empty());
        assert!(stranger.child.try_wait().expect("asked").is_none());
    }

    #[tokio::test]
    async fn a_child_sees_nothing_of_our_environment_that_is_not_allowed() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut group = Program::new("/usr/bin/env", folder.path())
            .variable("SITE", "amelia")
            .start()
            .expect("started");
        let (_stdin, mut stdout, _stderr) = group.pipes().expect("pipes");
        let mut text = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stdout, &mut text)
            .await
            .expect("read");
        let names: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, _)| name)
            .collect();
        assert!(names.contains(&"SITE"));
        // The test runner sets CARGO_* for us.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        assert!(
            names
                .iter()
                .all(|name| ["SITE", CHILD_OF].contains(name) || ALLOWED.contains(name)),
            "{names:?}"
        );
    }
}
