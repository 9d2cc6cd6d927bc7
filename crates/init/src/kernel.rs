//! The three calls for which `nix` has nothing: it knows no real-time signals, neither to send nor as the end of a process (it reaps
//! the process and then says EINVAL: a lost status), and leaves dispositions to `unsafe`.
//!
//! None of them reads or writes memory of ours but a status on the stack.

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

/// A child that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Exited(u8),
    Signalled(i32),
    Stopped(i32),
}

/// What there is to know about our children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// One changed. If it ended, it is reaped now, and this is the only time that its status is told.
    Changed(Pid, Change),
    /// There are some, and all of them live.
    AllLive,
    /// There is none.
    NoneLeft,
}

/// Sends a signal: to a process, to a group (negative), or as PID 1 to all but itself (-1). Signal 0 only asks whether it could.
#[expect(unsafe_code, reason = "a system call of two numbers")]
pub(crate) fn send(whom: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: `kill` touches no memory.
    Errno::result(unsafe { libc::kill(whom, signal) }).map(drop)
}

/// Takes the news of one child. Never waits.
#[expect(unsafe_code, reason = "the status is written to our stack")]
pub(crate) fn wait() -> Waited {
    let mut status = 0;
    // SAFETY: `status` lives as long as the call.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::WUNTRACED) };
    match pid {
        0 => Waited::AllLive,
        // ECHILD; nothing interrupts, for all signals are blocked.
        ..0 => Waited::NoneLeft,
        pid => Waited::Changed(Pid::from_raw(pid), Change::from_status(status)),
    }
}

/// Sees to it that children leave a status: one that is started with SIGCHLD ignored has children that leave none.
#[expect(unsafe_code, reason = "the default disposition is no code of ours")]
pub(crate) fn keep_statuses() {
    // SAFETY: SIG_DFL installs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

impl Change {
    fn from_status(status: i32) -> Self {
        if libc::WIFSTOPPED(status) {
            Self::Stopped(libc::WSTOPSIG(status))
        } else if libc::WIFSIGNALED(status) {
            Self::Signalled(libc::WTERMSIG(status))
        } else {
            // Eight bits are all that the kernel keeps.
            Self::Exited(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX))
        }
    }
}
