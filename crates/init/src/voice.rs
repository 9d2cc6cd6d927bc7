//! What init says: one line, one write, to stderr, and never waiting long for a reader.

use std::fmt::Write as _;
use std::io::stderr;
use std::os::fd::AsFd as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::ending::Ending;
use crate::plan::Log;
use crate::restart::{Restarts, Verdict};
use crate::signal;

/// Bytes of one line: what a pipe that can be written to at all takes without waiting, and no other writer comes between.
const LINE_MAX_BYTES: usize = 4096;
/// What the message itself may take of it; escaped, a character can become six.
const MESSAGE_MAX_BYTES: usize = 600;
/// How long a line waits for a reader that is behind before it is lost. Nobody is reaped meanwhile.
const READER_TIME_MAX_MS: u8 = 100;

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// As it should be.
    Info,
    /// Something went wrong, and it goes on.
    Warn,
    /// It does not go on.
    Error,
}

/// What there is to say about the life of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// The daemon ended, and what is done about it.
    Ended {
        /// How.
        ending: Ending,
        /// What is done.
        verdict: Verdict,
        /// By these rules.
        rules: Restarts,
    },
    /// It was started anew, for the so manyth time.
    Restarted(u32),
    /// A signal came between crash and restart.
    NotRestarted {
        /// Which.
        signal: i32,
    },
    /// The same, and it is started one last time.
    LastStart {
        /// Which.
        signal: i32,
    },
    /// What is left did not end in time.
    Kills,
    /// And does not even when killed.
    CannotKill,
    /// It was not started; the sentence says why.
    Refused(String),
    /// Something about where we run; the sentence says what.
    Handicap(String),
    /// Init itself does not work.
    Broken(&'static str),
}

impl Said {
    fn level(&self) -> Level {
        match self {
            Self::Ended {
                ending, verdict, ..
            } => match verdict {
                Verdict::Meant if *ending == Ending::Exited(0) => Level::Info,
                Verdict::Meant | Verdict::Again { .. } | Verdict::Last { .. } => Level::Warn,
                Verdict::GiveUp => Level::Error,
            },
            Self::Restarted(_) | Self::NotRestarted { .. } | Self::LastStart { .. } => Level::Info,
            Self::Kills | Self::Handicap(_) => Level::Warn,
            Self::CannotKill | Self::Refused(_) | Self::Broken(_) => Level::Error,
        }
    }

    /// The sentence; `program` is what it is about.
    fn sentence(&self, program: &str) -> String {
        match self {
            Self::Ended {
                ending,
                verdict,
                rules,
            } => {
                let Restarts { max, within, .. } = rules;
                let minutes = within.as_secs() / 60;
                match verdict {
                    Verdict::Meant => format!("{program} {ending}; it is not started anew."),
                    Verdict::Again { delay, number } => format!(
                        "{program} {ending}; it is started anew in {} ms (restart {number}; at most {max} in {minutes} minutes).",
                        delay.as_millis()
                    ),
                    Verdict::Last { number } => format!(
                        "{program} {ending}; it was asked to end, and is started one last time, to save what it has (restart {number})."
                    ),
                    Verdict::GiveUp => format!(
                        "{program} {ending}, after {max} restarts within {minutes} minutes; it is not started any more. See its log for why."
                    ),
                }
            }
            Self::Restarted(number) => format!("{program} is started anew (restart {number})."),
            Self::NotRestarted { signal } => format!(
                "{program} is not started anew: {} came.",
                signal::Named(*signal)
            ),
            Self::LastStart { signal } => format!(
                "{} came while {program} was down after a crash: it is started one last time, to save what it has.",
                signal::Named(*signal)
            ),
            Self::Kills => {
                format!("What {program} left did not end when asked (TERM); it is killed.")
            }
            Self::CannotKill => format!(
                "What {program} left does not end even when killed; it is left alone. A disk may be stuck, or it belongs to a user whom this one may not signal."
            ),
            Self::Refused(sentence) | Self::Handicap(sentence) => sentence.clone(),
            Self::Broken(what) => format!(
                "{program} cannot be looked after: {what}. Raise the limit of open files or memory."
            ),
        }
    }

    /// What can be searched for in JSON.
    fn fields(&self) -> Vec<(&'static str, i64)> {
        let mut fields = Vec::new();
        match self {
            Self::Ended {
                ending, verdict, ..
            } => {
                match ending {
                    Ending::Exited(code) => fields.push(("exitCode", i64::from(*code))),
                    Ending::Signalled(signal) | Ending::Stopped(signal) => {
                        fields.push(("signal", i64::from(*signal)));
                    }
                    Ending::NotStarted(_) => {}
                }
                if let Verdict::Again { number, .. } | Verdict::Last { number } = verdict {
                    fields.push(("restart", i64::from(*number)));
                }
                if let Verdict::Again { delay, .. } = verdict {
                    let delay_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
                    fields.push(("delayMs", delay_ms));
                }
            }
            Self::Restarted(number) => fields.push(("restart", i64::from(*number))),
            Self::NotRestarted { signal } | Self::LastStart { signal } => {
                fields.push(("signal", i64::from(*signal)));
            }
            Self::Kills
            | Self::CannotKill
            | Self::Refused(_)
            | Self::Handicap(_)
            | Self::Broken(_) => {}
        }
        fields
    }
}

/// The voice of an init.
#[derive(Debug, Clone)]
pub(crate) struct Voice {
    pub(crate) name: &'static str,
    pub(crate) log: Log,
    /// What it looks after, as it is called in sentences.
    pub(crate) program: String,
}

impl Voice {
    /// Says it, if anybody listens.
    pub(crate) fn say(&self, said: &Said) {
        let now = SystemTime::now();
        // Before 1970 it is 1970.
        let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        write_line(&self.line(said, since_1970));
    }

    fn line(&self, said: &Said, since_1970: Duration) -> String {
        let mut sentence = said.sentence(&self.program);
        if sentence.len() > MESSAGE_MAX_BYTES {
            sentence.truncate(sentence.floor_char_boundary(MESSAGE_MAX_BYTES));
            sentence.push('…');
        }
        match self.log {
            Log::Text => {
                let level = match said.level() {
                    Level::Info => "",
                    Level::Warn => "warning: ",
                    Level::Error => "error: ",
                };
                format!("{}: {level}{sentence}\n", self.name)
            }
            Log::Json => {
                let level = match said.level() {
                    Level::Info => "INFO",
                    Level::Warn => "WARN",
                    Level::Error => "ERROR",
                };
                let mut line = format!(
                    r#"{{"timestamp":"{}","level":"{level}","target":"init","message":""#,
                    timestamp(since_1970)
                );
                sentence.chars().for_each(|c| push_escaped(&mut line, c));
                line.push('"');
                for (name, value) in said.fields() {
                    // Writing to a String cannot fail.
                    write!(line, r#","{name}":{value}"#).ok();
                }
                line.push_str("}\n");
                line
            }
        }
    }
}

fn push_escaped(line: &mut String, character: char) {
    match character {
        '"' | '\\' => {
            line.push('\\');
            line.push(character);
        }
        c if c.is_control() => {
            write!(line, "\\u{:04x}", u32::from(c)).ok();
        }
        c => line.push(c),
    }
}

/// As the agent writes times: RFC 3339, milliseconds, UTC.
fn timestamp(since_1970: Duration) -> String {
    let (seconds, ms) = (since_1970.as_secs(), since_1970.subsec_millis());
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let (year, month, day) = date(seconds / 86_400);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// The date so many days after 1970-01-01. Years begin in March here, so that the leap day is their last; 400 of them are an era.
fn date(days_since_1970: u64) -> (u64, u64, u64) {
    const DAYS_OF_ERA: u64 = 146_097;
    // From 0000-03-01.
    let days = days_since_1970 + 719_468;
    let (era, day) = (days / DAYS_OF_ERA, days % DAYS_OF_ERA);
    let year_of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let (month, next_year) = if month_from_march < 10 {
        (month_from_march + 3, 0)
    } else {
        (month_from_march - 9, 1)
    };
    (era * 400 + year_of_era + next_year, month, day_of_month)
}

/// A reader that has stopped reading must not stop init: then the line is lost.
fn write_line(line: &str) {
    debug_assert!(line.len() <= LINE_MAX_BYTES);
    let stderr = stderr();
    let mut wanted = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut wanted, PollTimeout::from(READER_TIME_MAX_MS)).is_ok_and(|ready| ready > 0) {
        // Closed, full, gone: there is nobody to tell.
        nix::unistd::write(stderr, line.as_bytes()).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voice(log: Log) -> Voice {
        Voice {
            name: "edit-init",
            log,
            program: "edit-agent".to_owned(),
        }
    }

    fn crashed() -> Said {
        Said::Ended {
            ending: Ending::Signalled(9),
            verdict: Verdict::Again {
                delay: Duration::from_millis(250),
                number: 1,
            },
            rules: Restarts::default(),
        }
    }

    #[test]
    fn a_crash_is_said_in_one_line_of_json_or_text() {
        let at = Duration::from_millis(1_700_000_000_000);
        assert_eq!(
            voice(Log::Json).line(&crashed(), at),
            concat!(
                r#"{"timestamp":"2023-11-14T22:13:20.000Z","level":"WARN","target":"init","message":"edit-agent was killed (signal 9; perhaps memory ran out); it is started anew in 250 ms (restart 1; at most 5 in 10 minutes).","signal":9,"restart":1,"delayMs":250}"#,
                "\n"
            )
        );
        assert_eq!(
            voice(Log::Text).line(&crashed(), at),
            "edit-init: warning: edit-agent was killed (signal 9; perhaps memory ran out); it is started anew in 250 ms (restart 1; at most 5 in 10 minutes).\n"
        );
    }

    #[test]
    fn whatever_is_said_is_one_short_line() {
        for text in [
            "a \"b\"\n\\c\u{1}\u{7f}\u{85}ü",
            &"\u{1}".repeat(9000),
            &"ü".repeat(9000),
        ] {
            let line = voice(Log::Json).line(&Said::Handicap(text.to_owned()), Duration::ZERO);
            assert!(line.len() <= LINE_MAX_BYTES, "{}", line.len());
            let body = line.strip_suffix('\n').expect("a line");
            assert!(!body.contains(char::is_control), "{body}");
        }
        let line = voice(Log::Json).line(&Said::Handicap("\"\\".to_owned()), Duration::ZERO);
        assert!(line.contains(r#""message":"\"\\""#), "{line}");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(timestamp(Duration::from_secs(seconds)), expected);
        }
    }
}
