//! Asks a program of ours on this machine whether it is well: what a container's health check does.
//!
//! Many times a minute: it is a connection and a line, and needs neither a runtime nor another program in the image.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long it may take to say how it is: also one that is busy answers in milliseconds.
const TIME_MAX: Duration = Duration::from_secs(4);
/// Bytes of its answer.
const ANSWER_MAX_BYTES: u64 = 16 * 1024;

/// Asks whoever listens on `port` of this machine at `/_edit/health`.
///
/// # Errors
///
/// What is wrong, as the end of a sentence, if it is not well or does not say so within 4 s.
pub fn ask(port: u16) -> Result<String, String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let answer = get(address).map_err(|error| format!("{address} does not answer: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1).unwrap_or_default() {
        "200" => Ok(body.to_owned()),
        code => Err(format!("{address} answers {code}: {body}")),
    }
}

fn get(address: SocketAddr) -> io::Result<String> {
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn answering(answer: &'static str) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("asked");
            let mut asked = [0; 1024];
            let length = stream.read(&mut asked).expect("heard");
            assert!(asked[..length].starts_with(b"GET /_edit/health HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).expect("answered");
        });
        port
    }

    #[test]
    fn only_who_says_that_it_is_well_is_well() {
        let well = answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
        assert_eq!(ask(well), Ok("{}".to_owned()));
        let stuck = answering("HTTP/1.1 503 Service Unavailable\r\n\r\n{\"life\":\"stuck\"}");
        assert_eq!(
            ask(stuck),
            Err(format!(
                "127.0.0.1:{stuck} answers 503: {{\"life\":\"stuck\"}}"
            ))
        );
        let other = answering("hello");
        assert!(ask(other).is_err());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let nobody = listener.local_addr().expect("an address").port();
        drop(listener);
        assert!(ask(nobody).expect_err("nobody").contains("does not answer"));
    }
}
