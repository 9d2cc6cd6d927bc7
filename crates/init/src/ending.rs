//! How it ended, and the exit code that says so. Pure.

use std::fmt;
use std::process::ExitCode;

use crate::signal;

/// What signals are added to, to make an exit code.
const SIGNALLED: i32 = 128;

/// How a supervised program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It returned this code.
    Exited(u8),
    /// A signal ended it.
    Signalled(i32),
    /// It was never a process.
    NotStarted(NotStarted),
    /// This signal came while there was no process that it could be passed on to: between a crash and the restart.
    Stopped(i32),
}

/// Why a program could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotStarted {
    /// There is no such file, or not what it needs to run.
    NotFound,
    /// There is one, which cannot be executed.
    NotExecutable,
    /// The kernel has no process, memory or descriptor left for it. The only one that may pass.
    NoRoom,
}

impl Ending {
    /// The exit code with which init ends: the program's own, 128 + n for a signal n, 127 not found, 126 not executable, 71 no room
    /// (`EX_OSERR` of `sysexits.h`).
    pub fn code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            // Signals are numbered up to 64.
            Self::Signalled(signal) | Self::Stopped(signal) => {
                u8::try_from(SIGNALLED + signal).unwrap_or(u8::MAX)
            }
            Self::NotStarted(NotStarted::NotFound) => 127,
            Self::NotStarted(NotStarted::NotExecutable) => 126,
            Self::NotStarted(NotStarted::NoRoom) => 71,
        }
    }
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        Self::from(ending.code())
    }
}

/// The end of a sentence whose subject is the program.
impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "ended with code {code}"),
            // 9 from nobody we know is, on Linux, most often the kernel's way to say that memory ran out.
            Self::Signalled(9) => f.write_str("was killed (signal 9; perhaps memory ran out)"),
            Self::Signalled(signal) => {
                write!(f, "was ended by {}", signal::Named(*signal))
            }
            Self::NotStarted(_) => f.write_str("could not be started"),
            Self::Stopped(signal) => {
                write!(f, "did not run when {} came", signal::Named(*signal))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_has_the_code_that_shells_know() {
        for (ending, code) in [
            (Ending::Exited(0), 0),
            (Ending::Exited(255), 255),
            (Ending::Signalled(1), 129),
            (Ending::Signalled(9), 137),
            (Ending::Signalled(64), 192),
            (Ending::Stopped(15), 143),
            (Ending::NotStarted(NotStarted::NotFound), 127),
            (Ending::NotStarted(NotStarted::NotExecutable), 126),
            (Ending::NotStarted(NotStarted::NoRoom), 71),
        ] {
            assert_eq!(ending.code(), code, "{ending}");
        }
    }

    #[test]
    fn an_ending_is_the_end_of_a_sentence() {
        assert_eq!(
            Ending::Signalled(11).to_string(),
            "was ended by signal 11 (SEGV)"
        );
        assert_eq!(
            Ending::Signalled(40).to_string(),
            "was ended by signal 40 (RTMIN+6)"
        );
    }
}
