//! What our programs tell their operators: lines on stdout, where the container's log driver reads them.
//!
//! ```text
//!   tracing ─▶ layer (fields of the event and of the spans around it) ─▶ format ─┐
//!   metrics ─▶ emf ──────────────────────────────────────────────────────────────┴▶ output (bounded) ─▶ thread ─▶ stdout
//! ```
//!
//! Two promises. Nothing that a client wrote and nothing that opens a door stands in a line, as far as a formatter can see to it:
//! values under names such as `token` or `body` are left out whoever logs them. And nobody waits for the log: whoever
//! reads it may stop reading (a log driver in blocking mode does, when `CloudWatch` does not answer), so lines are left
//! out, and counted, rather than waited for.

use std::error::Error;
use std::io;
use std::str::FromStr;

use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, Registry};

mod emf;
mod format;
pub mod health;
#[cfg(any(test, feature = "testing"))]
pub mod kept;
mod layer;
mod output;

pub use emf::{Embedded, Metric, Unit};
pub use output::{Output, Writing};

pub use layer::Everywhere;
use layer::Lines;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One object a line, for programs.
    Json,
    /// One sentence a line, for people.
    Text,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("is json or text"),
        }
    }
}

/// What is logged: `error`, `warn`, `info`, `debug` or `trace` for what is ours, or directives as in `RUST_LOG`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level(String);

/// A level that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a log level is error, warn, info, debug or trace, or directives such as edit_agent=debug,info"
)]
pub struct InvalidLevel;

impl FromStr for Level {
    type Err = InvalidLevel;

    fn from_str(text: &str) -> Result<Self, InvalidLevel> {
        // A word that is no level would be taken for the name of a target, and nothing else would be logged.
        let directives = directives(text).ok_or(InvalidLevel)?;
        EnvFilter::try_new(&directives).map_err(|_| InvalidLevel)?;
        Ok(Self(directives))
    }
}

/// A word is about what is ours: at `debug`, the crates that carry requests print their headers. What the site prints is
/// logged from `info` on.
fn directives(text: &str) -> Option<String> {
    let word = text.trim().to_ascii_lowercase();
    let (site, others) = match word.as_str() {
        "error" => ("error", "error"),
        "warn" => ("warn", "warn"),
        "info" | "debug" | "trace" => ("debug", "warn"),
        _ => return text.contains('=').then(|| text.to_owned()),
    };
    let ours = ["edit_agent", "edit_router", "platform", "relay"]
        .iter()
        .map(|name| format!(",{name}={word}"))
        .collect::<String>();
    // It warns at each try that credentials were not to be had, and so do we, once, in our own words.
    Some(format!("{others},aws_config=error,site={site}{ours}"))
}

/// An error with its causes, in one line. A cause that only repeats what is said already is left out.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

/// Logs to stdout from now on. What comes back writes the last lines when it is told to.
pub fn start(
    level: &Level,
    format: Format,
    everywhere: Everywhere,
) -> Result<(Output, Writing), SetGlobalDefaultError> {
    let notice = move |lines| layer::left_out(format, lines);
    let (output, writing) = Output::start(io::stdout(), notice);
    let filter = EnvFilter::try_new(&level.0).unwrap_or_default();
    let lines = Lines::new(format, output.clone(), everywhere);
    tracing::subscriber::set_global_default(Registry::default().with(filter).with(lines))?;
    Ok((output, writing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_word_or_directives() {
        for (text, expected) in [
            (
                "info",
                Some(
                    "warn,aws_config=error,site=debug,edit_agent=info,edit_router=info,platform=info,relay=info",
                ),
            ),
            (
                "WARN",
                Some(
                    "warn,aws_config=error,site=warn,edit_agent=warn,edit_router=warn,platform=warn,relay=warn",
                ),
            ),
            ("edit_agent=debug,info", Some("edit_agent=debug,info")),
            ("inof", None),
            ("info,debug", None),
            ("edit_agent=loud", None),
            ("", None),
            (" ", None),
        ] {
            let level = text.parse::<Level>().ok();
            assert_eq!(
                level.as_ref().map(|level| level.0.as_str()),
                expected,
                "{text}"
            );
        }
    }
}
