//! A server between whoever asks and the emulator: it passes requests on, or does what a network and a busy AWS do.
//!
//! It speaks HTTP as far as the SDK and the emulator do: one request a connection, its length in a header. What it does
//! with a request is decided by a function that the test gives, and that the test may replace while it runs.

#![allow(
    clippy::missing_panics_doc,
    reason = "tests whose server breaks fail, and say why"
)]

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::aws::{AwsSettings, Keys, Patience};

use super::emulator::REGION;

/// What becomes of a request.
#[derive(Debug, Clone)]
pub enum Act {
    /// It goes to the emulator, and the answer comes back.
    Pass,
    /// It waits on the way to the emulator: tells the first that it is there, and goes on when told by the second.
    Hold(Arc<Notify>, Arc<Notify>),
    /// It goes to the emulator and is carried out, and then the connection is cut.
    LoseReply,
    /// It goes nowhere and gets this answer.
    Answer(u16, String),
    /// The same, with this date in its head.
    AnswerOn(String, u16, String),
    /// It is never answered.
    Silence,
}

/// A request that came by.
#[derive(Debug, Clone)]
pub struct Request {
    /// The first line and the headers.
    pub head: String,
    /// What is sent.
    pub body: String,
}

impl Request {
    /// The service, as the first part of the operation's target says it, such as `AmazonSQS`; nothing where there is none.
    pub fn service(&self) -> &str {
        let target = self.header("x-amz-target").unwrap_or_default();
        target.split('.').next().unwrap_or(target)
    }

    /// The operation, such as `DeleteMessage`; the path where there is none.
    pub fn operation(&self) -> &str {
        match self.header("x-amz-target") {
            Some(target) => target.rsplit('.').next().unwrap_or(target),
            None => self.head.split_whitespace().nth(1).unwrap_or_default(),
        }
    }

    /// A header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

type Decide = Box<dyn FnMut(&Request) -> Act + Send>;

/// The server. It ends when it is dropped, and with it every connection.
pub struct Front {
    port: u16,
    decide: Arc<Mutex<Decide>>,
    seen: Arc<Mutex<Vec<Request>>>,
    _serving: JoinSet<()>,
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Front {
    /// Listens on a free port; `decide` is asked about each request, in order.
    #[allow(
        clippy::disallowed_methods,
        reason = "its tasks are owned, and end with it"
    )]
    pub async fn before(
        upstream: Option<u16>,
        decide: impl FnMut(&Request) -> Act + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let decide: Arc<Mutex<Decide>> = Arc::new(Mutex::new(Box::new(decide)));
        let (deciding, log) = (Arc::clone(&decide), Arc::clone(&seen));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                let (decide, log) = (Arc::clone(&deciding), Arc::clone(&log));
                connections.spawn(serve(connection, upstream, decide, log));
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            port,
            decide,
            seen,
            _serving: serving,
        }
    }

    /// Decides otherwise from now on. What is under way, or never answered, stays so.
    pub fn from_now_on(&self, decide: impl FnMut(&Request) -> Act + Send + 'static) {
        *self.decide.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(decide);
    }

    /// What came by, in order.
    pub fn seen(&self) -> Vec<Request> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How often an operation came by.
    pub fn count(&self, operation: &str) -> usize {
        self.seen()
            .iter()
            .filter(|request| request.operation() == operation)
            .count()
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The settings that lead here.
    pub fn settings(&self) -> AwsSettings {
        AwsSettings {
            region: Some(REGION.to_owned()),
            endpoint_url: Some(self.url()),
            keys: Some(Keys {
                id: "test".to_owned(),
                secret: "test".to_owned(),
            }),
            patience: patience(),
        }
    }
}

/// Long enough for an emulator on a busy machine; the pauses are short, because they pass in full.
fn patience() -> Patience {
    Patience {
        attempt: Duration::from_secs(30),
        operation: Duration::from_secs(90),
        pause: Duration::from_millis(20),
        attempts: 4,
        ..Patience::default()
    }
}

async fn answer(connection: &mut TcpStream, headers: &str, status: u16, body: &str) {
    let answer = format!(
        "HTTP/1.1 {status} Status\r\nContent-Type: application/x-amz-json-1.0\r\n{headers}\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // Whoever asked may have given up meanwhile.
    drop(connection.write_all(answer.as_bytes()).await);
}

/// One request a connection: then each of them is seen.
async fn serve(
    mut connection: TcpStream,
    upstream: Option<u16>,
    decide: Arc<Mutex<Decide>>,
    log: Arc<Mutex<Vec<Request>>>,
) {
    let Some(request) = read(&mut connection).await else {
        return;
    };
    let act = (decide.lock().unwrap_or_else(PoisonError::into_inner))(&request);
    log.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(request.clone());
    match act {
        Act::Silence => std::future::pending().await,
        Act::Answer(status, body) => answer(&mut connection, "", status, &body).await,
        Act::AnswerOn(date, status, body) => {
            answer(&mut connection, &format!("Date: {date}\r\n"), status, &body).await;
        }
        Act::Pass | Act::LoseReply | Act::Hold(..) => {
            if let Act::Hold(there, go) = &act {
                there.notify_one();
                go.notified().await;
            }
            let answer = ask(upstream.expect("it has one"), &request).await;
            if !matches!(act, Act::LoseReply) {
                drop(connection.write_all(&answer).await);
            }
        }
    }
}

async fn read(connection: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 8192];
        let length = connection.read(&mut chunk).await.ok()?;
        if length == 0 {
            return None;
        }
        bytes.extend_from_slice(&chunk[..length]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let request = Request {
            head: head.to_owned(),
            body: body.to_owned(),
        };
        let expected = request
            .header("content-length")
            .and_then(|length| length.parse().ok())
            .unwrap_or(0);
        if body.len() >= expected {
            return Some(request);
        }
    }
}

async fn ask(port: u16, request: &Request) -> Vec<u8> {
    let mut upstream = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("the emulator listens");
    let head: Vec<&str> = request
        .head
        .lines()
        .filter(|line| !line.to_ascii_lowercase().starts_with("connection:"))
        .collect();
    let sent = format!(
        "{}\r\nConnection: close\r\n\r\n{}",
        head.join("\r\n"),
        request.body
    );
    upstream
        .write_all(sent.as_bytes())
        .await
        .expect("the emulator takes the request");
    let mut answer = Vec::new();
    upstream
        .read_to_end(&mut answer)
        .await
        .expect("the emulator answers");
    answer
}
