//! Starts the child: with the signal mask that init found, in a group or a session of its own.
//!
//! `std::process::Command` cannot give a child another mask than its parent's without `unsafe` code between fork and exec. `posix_spawn`
//! can, needs no copy of our page tables (`CLONE_VFORK`), and tells us why a program did not start.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawnp};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;

use crate::ending::NotStarted;
use crate::plan::{ASKED_VARIABLE, Plan, RESTARTS_VARIABLE};

/// Which start of its program it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Start {
    /// The so manyth after the first.
    pub(crate) restart: u32,
    /// How long ago its end was asked for, if it is the last: to save, and to end.
    pub(crate) asked: Option<Duration>,
}

/// How a child is set apart from us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Apart {
    /// It leads a session, without a terminal.
    Session,
    /// It leads a group in our session, which has a terminal.
    Group,
}

/// Why it was not started, and a sentence about what to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) why: NotStarted,
    pub(crate) sentence: String,
}

/// Starts the program of a plan.
pub(crate) fn start(
    plan: &Plan,
    which: Start,
    apart: Apart,
    mask: &SigSet,
) -> Result<Pid, Refusal> {
    spawn(plan, which, apart, mask)
        .map_err(|errno| refusal(&plan.program, errno, is_there(&plan.program)))
}

fn spawn(plan: &Plan, which: Start, apart: Apart, mask: &SigSet) -> Result<Pid, Errno> {
    let mut default = SigSet::empty();
    // Rust's runtime ignores it in us, and nobody has asked the child.
    default.add(Signal::SIGPIPE);
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_sigmask(mask)?;
    attributes.set_sigdefault(&default)?;
    let set_apart = match apart {
        // nix has no name for it.
        Apart::Session => PosixSpawnFlags::from_bits_retain(libc::POSIX_SPAWN_SETSID.into()),
        Apart::Group => {
            attributes.set_pgroup(Pid::from_raw(0))?;
            PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
        }
    };
    attributes.set_flags(
        set_apart
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
    )?;
    let program = c_string(plan.program.clone())?;
    let mut arguments = vec![program.clone()];
    for argument in &plan.arguments {
        arguments.push(c_string(argument.clone())?);
    }
    posix_spawnp(
        &program,
        &PosixSpawnFileActions::init()?,
        &attributes,
        &arguments,
        &environment(plan, which)?,
    )
}

/// Ours, and which start it is.
fn environment(plan: &Plan, which: Start) -> Result<Vec<CString>, Errno> {
    let own = |name: &OsStr| {
        plan.restarts.is_some() && (name == RESTARTS_VARIABLE || name == ASKED_VARIABLE)
    };
    let mut variables = Vec::new();
    for (mut variable, value) in std::env::vars_os().filter(|(name, _)| !own(name)) {
        variable.push("=");
        variable.push(value);
        variables.push(c_string(variable)?);
    }
    if which.restart > 0 {
        let restart = format!("{RESTARTS_VARIABLE}={}", which.restart);
        variables.push(c_string(restart.into())?);
    }
    if let Some(asked) = which.asked {
        let asked = format!("{ASKED_VARIABLE}={}", asked.as_secs());
        variables.push(c_string(asked.into())?);
    }
    Ok(variables)
}

fn c_string(text: OsString) -> Result<CString, Errno> {
    // Nobody can hand us a NUL on a command line.
    CString::new(text.into_vec()).map_err(|_| Errno::EINVAL)
}

/// Whether the file itself is there, so that what is missing is what it needs.
fn is_there(program: &OsStr) -> bool {
    if program.as_bytes().contains(&b'/') {
        return Path::new(program).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
}

/// Says what is wrong, with what, and what to do. `there` is whether the file itself was found.
fn refusal(program: &OsStr, errno: Errno, there: bool) -> Refusal {
    // Quoted as Rust does, so that whatever it is called it is one line.
    let name = format!("{:?}", program.to_string_lossy());
    let in_path = !program.as_bytes().contains(&b'/');
    let (why, what) = match errno {
        Errno::ENOENT | Errno::ENOTDIR if there => (
            NotStarted::NotFound,
            "is there, but not the interpreter or loader that it names. Install that, or correct the file's first line.".to_owned(),
        ),
        // EACCES: a folder of PATH may not be looked into, and no other has it.
        Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES if in_path && !there => (
            NotStarted::NotFound,
            "was not found in PATH. Correct the name, or give the path of the file.".to_owned(),
        ),
        Errno::ENOENT | Errno::ENOTDIR => (
            NotStarted::NotFound,
            "was not found. Correct the path, or put the file there.".to_owned(),
        ),
        Errno::EACCES => (
            NotStarted::NotExecutable,
            "may not be executed. Make it an executable file (chmod +x) that this user may reach, on a file system that is not mounted noexec.".to_owned(),
        ),
        Errno::ENOEXEC => (
            NotStarted::NotExecutable,
            "is no program for this machine. Begin a script with #!, or build the program for this processor.".to_owned(),
        ),
        Errno::EAGAIN | Errno::ENOMEM | Errno::ENFILE | Errno::EMFILE => (
            NotStarted::NoRoom,
            format!("could not be started: {}. Raise the limit of processes or memory, or end something.", errno.desc()),
        ),
        _ => (
            NotStarted::NotExecutable,
            format!("cannot be executed: {}.", errno.desc()),
        ),
    };
    Refusal {
        why,
        sentence: format!("{name} {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_what_and_says_what_to_do() {
        for (program, errno, there, why, sentence) in [
            (
                "nosuch",
                Errno::ENOENT,
                false,
                NotStarted::NotFound,
                r#""nosuch" was not found in PATH. Correct the name"#,
            ),
            (
                "nosuch",
                Errno::EACCES,
                false,
                NotStarted::NotFound,
                r#""nosuch" was not found in PATH. Correct the name"#,
            ),
            (
                "shut",
                Errno::EACCES,
                true,
                NotStarted::NotExecutable,
                r#""shut" may not be executed. Make it"#,
            ),
            (
                "/bin/nosuch",
                Errno::ENOENT,
                false,
                NotStarted::NotFound,
                r#""/bin/nosuch" was not found. Correct the path"#,
            ),
            (
                "/srv/a",
                Errno::ENOENT,
                true,
                NotStarted::NotFound,
                r#""/srv/a" is there, but not the interpreter"#,
            ),
            (
                "/srv/a\nb",
                Errno::EACCES,
                false,
                NotStarted::NotExecutable,
                r#""/srv/a\nb" may not be executed. Make it"#,
            ),
            (
                "/srv/a",
                Errno::ENOEXEC,
                false,
                NotStarted::NotExecutable,
                r#""/srv/a" is no program for this machine. Begin"#,
            ),
            (
                "/srv/a",
                Errno::EAGAIN,
                false,
                NotStarted::NoRoom,
                r#""/srv/a" could not be started: Try again. Raise"#,
            ),
            (
                "/srv/a",
                Errno::E2BIG,
                false,
                NotStarted::NotExecutable,
                r#""/srv/a" cannot be executed: Argument list too long."#,
            ),
        ] {
            let refusal = refusal(OsStr::new(program), errno, there);
            assert_eq!(refusal.why, why, "{errno}");
            assert!(
                refusal.sentence.starts_with(sentence) && !refusal.sentence.contains('\n'),
                "{}",
                refusal.sentence
            );
        }
    }

    #[test]
    fn a_program_is_there_in_path_or_by_its_path() {
        assert!(is_there(OsStr::new("sh")));
        assert!(is_there(OsStr::new("/bin/sh")));
        assert!(!is_there(OsStr::new("no-such-program")));
        assert!(!is_there(OsStr::new("/bin/no-such-program")));
    }
}
