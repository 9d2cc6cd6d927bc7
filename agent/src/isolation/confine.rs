//! `edit-agent confine`: becomes another program, as another user, with nothing that it should not have.
//!
//! It is started as root, and so with nothing in its environment: whatever the loader or a library reads there would be read as root. The
//! variables of the program come under names that mean nothing to anybody ([`VARIABLE`]).
//!
//! A program of its own and no closure between fork and exec: there the code of a process with many threads may do almost nothing,
//! and what it does cannot be tried out by hand. This can.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use clap::Args;
use nix::errno::Errno;
use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, getresuid, setgroups, setresgid, setresuid, setsid, setuid};

use crate::failure::{Exit, Failure};

/// What the names of the program's variables begin with, until it is there.
pub(crate) const VARIABLE: &str = "CONFINED_";

/// As whom, and within what.
#[derive(Debug, Args)]
pub(crate) struct ConfineArguments {
    #[arg(long)]
    uid: u32,
    #[arg(long)]
    gid: u32,
    /// The one group beside its own.
    #[arg(long)]
    group: u32,
    /// By how much more readily it is ended when memory runs out.
    #[arg(long)]
    oom_score: i32,
    /// Processes and threads of this user.
    #[arg(long)]
    processes: u64,
    /// Bytes of one file.
    #[arg(long)]
    file_bytes: u64,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

/// Becomes the program. Returns only if that fails.
pub(crate) fn confine(arguments: &ConfineArguments) -> Failure {
    let Err(failure) = become_it(arguments);
    failure
}

fn become_it(arguments: &ConfineArguments) -> Result<std::convert::Infallible, Failure> {
    // While we are root: the file is root's as soon as we are somebody else.
    std::fs::OpenOptions::new()
        .write(true)
        .open("/proc/self/oom_score_adj")
        .and_then(|mut file| file.write_all(arguments.oom_score.to_string().as_bytes()))
        .map_err(|error| failed("set its place when memory runs out", &error))?;
    limit(Resource::RLIMIT_NPROC, arguments.processes)?;
    limit(Resource::RLIMIT_FSIZE, arguments.file_bytes)?;
    limit(Resource::RLIMIT_CORE, 0)?;
    umask(Mode::from_bits_truncate(0o007));
    // In one session with the agent it could send it SIGCONT, whoever it is.
    match setsid() {
        Ok(_) | Err(Errno::EPERM) => {}
        Err(error) => return Err(failed("begin a session", &error.into())),
    }
    set_no_new_privs().map_err(|error| failed("rule out new privileges", &error.into()))?;
    let (uid, gid) = (Uid::from_raw(arguments.uid), Gid::from_raw(arguments.gid));
    setgroups(&[Gid::from_raw(arguments.group)])
        .map_err(|error| failed("leave the groups of root", &error.into()))?;
    setresgid(gid, gid, gid).map_err(|error| failed("change the group", &error.into()))?;
    setresuid(uid, uid, uid).map_err(|error| failed("change the user", &error.into()))?;
    no_way_back(uid)?;
    close_on_exec()?;
    let [program, rest @ ..] = arguments.program.as_slice() else {
        unreachable!("the command line requires a program")
    };
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.as_encoded_bytes().strip_prefix(VARIABLE.as_bytes())?;
        Some((std::ffi::OsStr::from_bytes(name).to_owned(), value))
    });
    let error = Command::new(program)
        .args(rest)
        .env_clear()
        .envs(variables)
        .exec();
    Err(failed(
        &format!("start {}", program.to_string_lossy()),
        &error,
    ))
}

/// No more than the engine allows us.
fn limit(resource: Resource, wanted: u64) -> Result<(), Failure> {
    let (_, hard) =
        getrlimit(resource).map_err(|error| failed("read its limits", &error.into()))?;
    let wanted = wanted.min(hard);
    setrlimit(resource, wanted, wanted).map_err(|error| failed("set its limits", &error.into()))
}

/// Whoever could become root again is not confined.
fn no_way_back(uid: Uid) -> Result<(), Failure> {
    let ids = getresuid().map_err(|error| failed("read the user", &error.into()))?;
    let is_other = [ids.real, ids.effective, ids.saved]
        .iter()
        .all(|id| *id == uid && !id.is_root());
    let permitted = caps::read(None, caps::CapSet::Permitted)
        .map_err(|error| failed("read the capabilities", &std::io::Error::other(error)))?;
    if is_other && permitted.is_empty() && setuid(Uid::from_raw(0)).is_err() {
        Ok(())
    } else {
        Err(failed(
            "give up being root",
            &std::io::Error::other("it could be had back"),
        ))
    }
}

/// Whatever else is open here, from whoever started us, ends with us.
fn close_on_exec() -> Result<(), Failure> {
    crate::system::close_on_exec().map_err(|error| failed("close what is open", &error.into()))
}

fn failed(operation: &str, error: &std::io::Error) -> Failure {
    Failure::new(
        Exit::Isolation,
        format!("could not {operation}: {error}"),
        "",
    )
}
