//! `edit-agent health`: asks the environment of this container whether every one of its loops makes progress.

use std::io::Write as _;

use clap::Args;

use crate::failure::{Exit, Failure};

/// Whom to ask.
#[derive(Debug, Args)]
pub(crate) struct HealthArguments {
    /// The port of its door.
    #[arg(long, env = "PORT", default_value_t = 8080, value_name = "N")]
    port: u16,
}

/// Asks. Fails, with code 1, if it is not well or does not say so in time.
pub(crate) fn ask(arguments: &HealthArguments) -> Result<Exit, Failure> {
    let said = telemetry::health::ask(arguments.port).map_err(|why| {
        Failure::new(
            Exit::NotLanded,
            format!("the environment is not well: {why}"),
            "Look at its log, and at /_edit/status.",
        )
    })?;
    // Nobody is left to tell if stdout is gone.
    writeln!(std::io::stdout(), "{said}").ok();
    Ok(Exit::Success)
}
