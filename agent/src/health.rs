//! `edit-agent health`: asks the environment of this machine whether every one of its loops makes progress.
//!
//! The health check of a container, many times a minute: it is a connection and a line, and needs neither a runtime nor another
//! program in the image.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use clap::Args;

use crate::failure::{Exit, Failure};

/// How long it may take to say how it is: an environment that is busy answers in milliseconds.
const TIME_MAX: Duration = Duration::from_secs(4);
/// Bytes of its answer.
const ANSWER_MAX_BYTES: u64 = 16 * 1024;

/// Whom to ask.
#[derive(Debug, Args)]
pub(crate) struct HealthArguments {
    /// The port of its door.
    #[arg(long, env = "PORT", default_value_t = 8080, value_name = "N")]
    port: u16,
}

/// Asks. Fails, with code 1, if it is not well or does not say so in time.
pub(crate) fn ask(arguments: &HealthArguments) -> Result<Exit, Failure> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port));
    let unwell = |why: String| {
        Failure::new(
            Exit::NotLanded,
            format!("the environment at {address} is not well: {why}"),
            "Look at its log, and at /_edit/status.",
        )
    };
    let answer = get(address).map_err(|error| unwell(error.to_string()))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split(' ').nth(1).unwrap_or_default();
    if code == "200" {
        writeln!(std::io::stdout(), "{body}").ok();
        Ok(Exit::Success)
    } else {
        Err(unwell(format!("it answers {code}: {body}")))
    }
}

fn get(address: SocketAddr) -> std::io::Result<String> {
    let deadline = Instant::now() + TIME_MAX;
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        // Zero would be for ever.
        left.max(Duration::from_millis(1))
    };
    let mut stream = TcpStream::connect_timeout(&address, left())?;
    stream.set_write_timeout(Some(left()))?;
    write!(
        stream,
        "GET /_edit/health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    stream.set_read_timeout(Some(left()))?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
