//! Crash points: places at which a test makes the agent kill itself, to prove that nothing is lost there.
//!
//! Only in builds with debug assertions, and only where `EDIT_AGENT_CRASH_AT` names the place.

/// Dies here, as by `kill -9`, if the environment says so.
#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {
        #[cfg(debug_assertions)]
        $crate::crash::reached($name)
    };
}

/// See [`crash_point`].
#[cfg(debug_assertions)]
pub(crate) fn reached(name: &str) {
    if std::env::var("EDIT_AGENT_CRASH_AT").is_ok_and(|place| place == name) {
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL)
            .expect("a process may kill itself");
    }
}
