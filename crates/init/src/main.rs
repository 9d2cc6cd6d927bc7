//! `edit-init`: the init of this crate by itself, for images and operators.

use std::io::Write as _;
use std::process::ExitCode;

use init::Log;
use init::usage::{self, Asked};

/// It was called in a wrong way.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let json = std::env::var_os("LOG_FORMAT").is_some_and(|format| format == "json");
    let log = if json { Log::Json } else { Log::Text };
    match usage::read(std::env::args_os().skip(1), log) {
        Ok(Asked::Run(plan)) => init::supervise(&plan).into(),
        Ok(Asked::Help) => print(usage::HELP),
        Ok(Asked::Version) => print(concat!("edit-init ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(sentence) => {
            let line = format!("edit-init: error: {sentence} See edit-init --help.\n");
            // Nobody is left to tell.
            std::io::stderr().write_all(line.as_bytes()).ok();
            ExitCode::from(USAGE)
        }
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
