//! A door that writes down what it is asked, byte for byte, and proves itself, or does not.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use contract::Timestamp;
use contract::proof::{HEADER, Proof};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What is answered to a path: an HTTP answer, without a proof.
pub type Answers = Arc<dyn Fn(&str) -> Vec<u8> + Send + Sync>;

/// How it proves itself.
#[derive(Debug, Clone)]
pub enum Proves {
    /// As it should.
    Well(Proof),
    /// As somebody else's door does, which knows another key.
    As(Proof),
    /// Not at all: it is no door.
    Not,
}

/// A request, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `GET /a?raw HTTP/1.1`.
    pub line: String,
    /// The fields, sorted, without the proof.
    pub fields: Vec<String>,
    pub body: Vec<u8>,
    /// Whether it came with a valid proof.
    pub proven: bool,
}

/// A door that listens until it is dropped.
#[derive(Debug)]
pub struct Door {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _tasks: JoinSet<()>,
}

impl Door {
    /// A door that proves itself by `own`, as far as it does.
    pub async fn open(own: Proof, proves: Proves, answers: Answers) -> Self {
        Self::open_at("127.0.0.1:0", own, proves, answers).await
    }

    /// A door at this address.
    pub async fn open_at(at: &str, own: Proof, proves: Proves, answers: Answers) -> Self {
        let listener = TcpListener::bind(at).await.expect("the address is free");
        let address = listener.local_addr().expect("bound");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&asked);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut visits = JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                visits.spawn(visit(
                    connection,
                    own.clone(),
                    proves.clone(),
                    Arc::clone(&answers),
                    Arc::clone(&written),
                ));
            }
        });
        Self {
            address,
            asked,
            _tasks: tasks,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was asked since the last time.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().expect("nobody panics"))
    }
}

async fn visit(
    mut connection: TcpStream,
    own: Proof,
    proves: Proves,
    answers: Answers,
    written: Arc<Mutex<Vec<Asked>>>,
) {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        match connection.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let mut lines = head.lines();
    let line = lines.next().unwrap_or_default().to_owned();
    let field = |name: &str| {
        let mut values = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .filter(|(field, _)| field.eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value.to_owned())
    };
    let length: usize = field("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or_default();
    while bytes.len() < head_end + 4 + length {
        match connection.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    let nonce = field(HEADER).and_then(|proof| own.verify_request(&proof, Timestamp::now()).ok());
    let mut fields: Vec<String> = lines
        .filter(|line| !line.to_ascii_lowercase().starts_with(HEADER))
        .map(str::to_owned)
        .collect();
    fields.sort();
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    written.lock().expect("nobody panics").push(Asked {
        line,
        fields,
        body: bytes[head_end + 4..].to_vec(),
        proven: nonce.is_some(),
    });
    let answer = answers(&path);
    if answer.is_empty() {
        // It hangs, until whoever asks has enough of it.
        drop(connection.read_buf(&mut bytes).await);
        return;
    }
    let proof = match (&proves, nonce) {
        (Proves::Well(proof) | Proves::As(proof), Some(nonce)) => {
            format!("{HEADER}: {}\r\n", proof.answer(nonce))
        }
        _ => String::new(),
    };
    let end = answer
        .windows(2)
        .position(|window| window == b"\r\n")
        .expect("it has a first line")
        + 2;
    let whole = [
        &answer[..end],
        proof.as_bytes(),
        b"connection: close\r\n",
        &answer[end..],
    ]
    .concat();
    drop(connection.write_all(&whole).await);
    drop(connection.shutdown().await);
}
