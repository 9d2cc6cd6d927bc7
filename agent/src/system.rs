//! The one place with `unsafe`: calls whose safety the compiler cannot see.

use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

/// Sets libgit2's time limits for connections. They are process-wide.
#[expect(unsafe_code, reason = "libgit2 keeps the two limits in plain globals")]
pub(crate) fn set_git_time_limits(connect: Duration, idle: Duration) -> Result<(), git2::Error> {
    let milliseconds = |duration: Duration| i32::try_from(duration.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: called before git is asked for anything, so nobody reads the globals meanwhile.
    unsafe {
        git2::opts::set_server_connect_timeout_in_milliseconds(milliseconds(connect))?;
        git2::opts::set_server_timeout_in_milliseconds(milliseconds(idle))
    }
}

/// Names the authorities of this machine in our environment, for OpenSSL. To be called while there is one thread: git does the same when it
/// is made ready, unless it is done, and by then there are others.
#[expect(
    unsafe_code,
    reason = "the environment is memory that every thread reads"
)]
pub(crate) fn name_authorities() {
    // SAFETY: called by `main` before it starts a thread.
    unsafe { openssl_probe::init_openssl_env_vars() };
}

/// Lets whatever is open beside stdin, stdout and stderr end with this program.
#[expect(
    unsafe_code,
    reason = "the call has no safe form; it closes nothing now, so that no handle of this process becomes invalid"
)]
pub(crate) fn close_on_exec() -> Result<(), Errno> {
    // SAFETY: close_range with CLOSE_RANGE_CLOEXEC only sets a flag of descriptors, and takes no pointers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    Errno::result(result).map(drop)
}
