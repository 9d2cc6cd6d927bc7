//! What a signal means to init. Pure.
//!
//! Signals are numbers here: the kernel has real-time signals (`STOPSIGNAL SIGRTMIN+3` is usual), which `nix` has no names for.

use std::fmt;

use nix::libc;

/// Names of the signals from 1, without `SIG`, for people.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// The first real-time signal that the C library leaves to programs.
const RTMIN: i32 = 34;

/// The last signal that there is.
const SIGNAL_MAX: i32 = 64;

/// What is done about a signal that init hears while its child runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Some child changed: it is looked for ended ones after every wait anyway.
    Reap,
    /// The child hears it too.
    Forward,
    /// The child hears this signal, and init stops as well, so that a shell above sees its job stopped.
    Suspend(i32),
}

/// What `signal` means; `own_session` is whether the child leads a session.
pub(crate) fn meaning(signal: i32, own_session: bool) -> Meaning {
    match signal {
        libc::SIGCHLD => Meaning::Reap,
        // The kernel does not stop orphaned groups for these three, and a session leader's is one.
        libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => {
            Meaning::Suspend(if own_session { libc::SIGSTOP } else { signal })
        }
        _ => Meaning::Forward,
    }
}

/// Whether whoever sends this signal wants an end of it all.
pub(crate) fn asks_to_end(signal: i32) -> bool {
    matches!(
        signal,
        libc::SIGTERM | libc::SIGINT | libc::SIGQUIT | libc::SIGHUP
    )
}

/// A set of signals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Signals(u64);

impl Signals {
    /// Those that a terminal sends to whom it belongs, past us: Ctrl-C, Ctrl-\ and a line that is cut.
    pub(crate) const OF_A_TERMINAL: Self =
        Self(bit(libc::SIGINT) | bit(libc::SIGQUIT) | bit(libc::SIGHUP));

    /// Those of them that ask for no end.
    pub(crate) fn without_wishes_to_end(self) -> Self {
        let wishes = (1..=SIGNAL_MAX).filter(|signal| asks_to_end(*signal));
        Self(wishes.fold(self.0, |rest, wish| rest & !bit(wish)))
    }

    /// Adds one.
    pub(crate) fn insert(&mut self, signal: i32) {
        self.0 |= bit(signal);
    }

    /// Whether it is in it.
    pub(crate) fn contains(self, signal: i32) -> bool {
        self.0 & bit(signal) != 0
    }
}

const fn bit(signal: i32) -> u64 {
    if signal >= 1 && signal <= SIGNAL_MAX {
        1 << (signal - 1)
    } else {
        0
    }
}

/// A signal as people write it: number and name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named(pub(crate) i32);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(signal) = *self;
        write!(f, "signal {signal}")?;
        let name = usize::try_from(signal - 1)
            .ok()
            .and_then(|index| NAMES.get(index));
        match name {
            Some(name) => write!(f, " ({name})"),
            None if signal == RTMIN => f.write_str(" (RTMIN)"),
            None if signal > RTMIN => write!(f, " (RTMIN+{})", signal - RTMIN),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_the_news_of_children_is_passed_on() {
        for signal in 1..=64 {
            for own_session in [false, true] {
                let expected = match signal {
                    libc::SIGCHLD => Meaning::Reap,
                    20..=22 if own_session => Meaning::Suspend(libc::SIGSTOP),
                    20..=22 => Meaning::Suspend(signal),
                    _ => Meaning::Forward,
                };
                assert_eq!(meaning(signal, own_session), expected, "{}", Named(signal));
            }
        }
    }

    #[test]
    fn a_set_holds_every_signal_and_nothing_else() {
        for signal in 1..=64 {
            let mut signals = Signals::default();
            signals.insert(signal);
            let held: Vec<i32> = (-1..=130).filter(|one| signals.contains(*one)).collect();
            assert_eq!(held, [signal]);
        }
        let mut signals = Signals::default();
        signals.insert(0);
        signals.insert(65);
        assert_eq!(signals, Signals::default());
    }

    #[test]
    fn signals_have_the_names_of_signal_7() {
        for (signal, name) in [
            (libc::SIGTERM, "signal 15 (TERM)"),
            (libc::SIGSYS, "signal 31 (SYS)"),
            (libc::SIGSTKFLT, "signal 16 (STKFLT)"),
            (33, "signal 33"),
            (34, "signal 34 (RTMIN)"),
            (37, "signal 37 (RTMIN+3)"),
        ] {
            assert_eq!(Named(signal).to_string(), name);
        }
    }
}
