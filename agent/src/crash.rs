//! Crash points: places at which a test makes the agent fail, to prove that nothing is lost there.
//!
//! Only in builds with debug assertions, and only where `EDIT_AGENT_CRASH_AT` names the place: `PLACE` kills the agent, `panic:PLACE`
//! panics, `stall:PLACE` stays there for ever. An agent that was started anew after that passes.

/// Fails here, if the environment says so.
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
    let Ok(wanted) = std::env::var("EDIT_AGENT_CRASH_AT") else {
        return;
    };
    let (how, place) = wanted.split_once(':').unwrap_or(("kill", &wanted));
    if place != name || std::env::var_os(init::RESTARTS_VARIABLE).is_some() {
        return;
    }
    match how {
        "panic" => panic!("the environment says so"),
        "stall" => loop {
            std::thread::park();
        },
        _ => nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL)
            .expect("a process may kill itself"),
    }
}
