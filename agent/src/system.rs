//! The one place with `unsafe`: calls whose safety the compiler cannot see.

use std::time::Duration;

/// Sets libgit2's time limits for connections. They are process-wide.
#[expect(unsafe_code, reason = "libgit2 keeps the two limits in plain globals")]
pub(crate) fn set_git_time_limits(connect: Duration, idle: Duration) -> Result<(), git2::Error> {
    let milliseconds = |duration: Duration| i32::try_from(duration.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: called from `main` before any other thread exists, so nobody reads the globals meanwhile.
    unsafe {
        git2::opts::set_server_connect_timeout_in_milliseconds(milliseconds(connect))?;
        git2::opts::set_server_timeout_in_milliseconds(milliseconds(idle))
    }
}
