//! A visitor who says exactly what the story says.

use std::io::Read as _;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::PATIENCE;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    pub fn one(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn unzipped(&self) -> Vec<u8> {
        let mut whole = Vec::new();
        flate2::read::GzDecoder::new(&self.body[..])
            .read_to_end(&mut whole)
            .expect("gzip");
        whole
    }
}

/// Asks with these fields, one a line, each ending in CRLF; the host stands before them.
pub async fn ask(
    address: SocketAddr,
    host: &str,
    method: &str,
    target: &str,
    fields: &str,
    body: &[u8],
) -> Answer {
    let asked = async {
        let mut connection = TcpStream::connect(address).await.expect("it listens");
        let head = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n");
        connection
            .write_all(&[head.as_bytes(), body].concat())
            .await
            .expect("sent");
        read(&mut connection).await
    };
    tokio::time::timeout(PATIENCE, asked)
        .await
        .unwrap_or_else(|_| panic!("{method} {target} is never answered"))
}

/// Reads one answer whose length is said, or that has none.
async fn read(connection: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        let read = connection.read_buf(&mut bytes).await.expect("it answers");
        assert!(
            read > 0,
            "it closed after {:?}",
            String::from_utf8_lossy(&bytes)
        );
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|status| status.parse().ok());
    let fields: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = fields
        .iter()
        .find(|(name, _)| name == "content-length")
        .and_then(|(_, length)| length.parse().ok())
        .unwrap_or(0);
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        let read = connection
            .read_buf(&mut body)
            .await
            .expect("the rest comes");
        assert!(
            read > 0,
            "it broke off after {} of {length} bytes",
            body.len()
        );
    }
    Answer {
        status: status.expect("a status"),
        fields,
        body,
    }
}
