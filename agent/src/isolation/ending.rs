//! `edit-agent end`: ends everything that runs as a user.
//!
//! A process group is what its members like to stay in. What has left it is found by whose it is, and the kernel ends all of it at once:
//! no fork outruns that.
//!
//! Whoever may signal a user's processes may be signalled by them, if it becomes that user. So it becomes half of it: the kernel asks the
//! sender for its effective user, and the target for its real and its saved one. Those are a user's that nothing else runs as.

use std::time::{Duration, Instant};

use clap::Args;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};

use crate::failure::{Exit, Failure};

/// How long it may take until the last one is gone.
const TIME_MAX: Duration = Duration::from_secs(10);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(5);

/// Whose processes, and who they take us for.
#[derive(Debug, Args)]
pub(crate) struct EndArguments {
    #[arg(long)]
    uid: u32,
    /// The user that nothing runs as but this.
    #[arg(long = "as")]
    reaper: u32,
}

/// Ends them. Fails if one is left.
pub(crate) fn end(arguments: &EndArguments) -> Result<Exit, Failure> {
    let failed = |operation: &str, why: &dyn std::fmt::Display| {
        Failure::new(
            Exit::Isolation,
            format!("could not {operation} of user {}: {why}", arguments.uid),
            "",
        )
    };
    let become_it = || -> Result<(), Errno> {
        let (uid, reaper) = (
            Uid::from_raw(arguments.uid),
            Uid::from_raw(arguments.reaper),
        );
        let gid = Gid::from_raw(arguments.reaper);
        setgroups(&[])?;
        setresgid(gid, gid, gid)?;
        setresuid(reaper, uid, reaper)
    };
    become_it().map_err(|error| failed("take the place", &error))?;
    let deadline = Instant::now() + TIME_MAX;
    loop {
        // First: whoever is still there may slow us down.
        match kill(Pid::from_raw(-1), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => {}
            Err(error) => return Err(failed("end the processes", &error)),
        }
        if !remains(arguments.uid) {
            return Ok(Exit::Success);
        }
        if Instant::now() > deadline {
            return Err(failed("end the processes", &"some go on"));
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "this is a wait for a condition with a deadline; nobody tells when another's process is gone"
        )]
        std::thread::sleep(LOOK);
    }
}

/// Whether anything but us runs as this user. What has ended and was not waited for runs no more.
fn remains(uid: u32) -> bool {
    let own = std::process::id();
    let runs = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
        };
        let of_user = field("Uid")?.split_whitespace().next()?.parse() == Ok(uid);
        Some(of_user && !field("State")?.starts_with(['Z', 'X']))
    };
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .any(|pid| pid != own && runs(pid) == Some(true))
}
