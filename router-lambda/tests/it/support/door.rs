//! A door that the test plays: it proves itself as a real one does, or in one of the ways in which one cannot.
#![allow(
    clippy::similar_names,
    reason = "a head, what was heard, a door and what it is asked are called what they are"
)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use contract::proof::{HEADER, Nonce, Proof};
use contract::session::ProofKey;
use contract::{ClientId, Generation, SessionId, Timestamp};
use edit_router::router::Forward;
use relay::PoolKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often a client's name stands in a page.
const NAMES_IN_A_PAGE: usize = 200;

/// Somebody's session in one generation.
#[derive(Debug, Clone)]
pub struct Who {
    pub client: ClientId,
    pub session: SessionId,
    pub generation: Generation,
    proof: Proof,
}

impl Who {
    pub fn new(client: &str, generation: u64) -> Self {
        let client: ClientId = client.parse().expect("a client");
        let session = SessionId::new(&client, [7; 16]);
        let digit = client.as_str().len() + usize::try_from(generation).expect("small");
        let key = ProofKey(format!("{digit:064x}"));
        let generation = Generation(generation);
        let proof = Proof::new(&key, session.clone(), generation).expect("a key");
        Self {
            client,
            session,
            generation,
            proof,
        }
    }

    /// What the router says of the door, if it takes it to be at this address.
    pub fn at(&self, address: SocketAddr) -> Forward {
        Forward {
            client: self.client.clone(),
            session: self.session.clone(),
            generation: self.generation,
            address,
            pool: PoolKey::new(format!("task-of-{}#{}", self.client, self.generation)),
            proof: self.proof.clone(),
        }
    }

    /// A page of this client: nothing in it is anybody else's.
    pub fn page(&self) -> String {
        format!("{}\n", self.client).repeat(NAMES_IN_A_PAGE)
    }
}

/// How a door answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As a door does.
    Honest,
    /// Without a proof.
    Unproven,
    /// With its proof, twice.
    Twice,
    /// With its proof, and a word for the next hop to drop it.
    Nominated,
    /// With the proof for another request.
    Replayed,
    /// As itself where it is asked who it is, and without a proof to everything else.
    UnprovenLater,
    /// With something that is no HTTP.
    Garbage,
    /// Not at all.
    Silent,
    /// With the end of the connection.
    Hangs,
    /// With the first half of a page, and a reset when the test says so.
    HalfAPage,
}

/// A door, and whoever is behind it.
pub struct Door {
    pub address: SocketAddr,
    behind: Arc<Mutex<Behind>>,
    heard: Arc<Mutex<Vec<Heard>>>,
    /// What was said so far into the last socket.
    said: Arc<Mutex<String>>,
    later: Arc<Notify>,
    tasks: TaskTracker,
    closed: CancellationToken,
}

#[derive(Debug, Clone)]
struct Behind {
    who: Who,
    manner: Manner,
    /// Who is there by the hand of a connection that was taken over is of the same tenure as whom it was made to.
    tenure: u64,
    /// Ends the connections of this tenure.
    moved: CancellationToken,
}

/// A request, as a door has heard it.
#[derive(Debug, Clone)]
pub struct Heard {
    pub line: String,
    pub fields: HashMap<String, Vec<String>>,
    pub body: String,
}

impl Heard {
    pub fn one(&self, name: &str) -> Option<&str> {
        let values = self.fields.get(name)?;
        assert_eq!(values.len(), 1, "{name}: {values:?}");
        values.first().map(String::as_str)
    }
}

/// What becomes of the connections that were made to whoever leaves.
#[derive(Debug, Clone, Copy)]
pub enum Leaving {
    /// They go on leading to it.
    Stays,
    /// They are cut.
    Cut,
    /// Whoever comes answers on them.
    TakenOver,
}

impl Door {
    pub async fn of(who: &Who) -> Self {
        Self::at(
            "127.0.0.1:0".parse().expect("an address"),
            who,
            Manner::Honest,
        )
        .await
    }

    pub async fn with(who: &Who, manner: Manner) -> Self {
        Self::at("127.0.0.1:0".parse().expect("an address"), who, manner).await
    }

    pub async fn at(address: SocketAddr, who: &Who, manner: Manner) -> Self {
        let listener = TcpListener::bind(address).await.expect("bind");
        let address = listener.local_addr().expect("an address");
        let behind = Behind {
            who: who.clone(),
            manner,
            tenure: 0,
            moved: CancellationToken::new(),
        };
        let door = Self {
            address,
            behind: Arc::new(Mutex::new(behind)),
            heard: Arc::default(),
            said: Arc::default(),
            later: Arc::default(),
            tasks: TaskTracker::new(),
            closed: CancellationToken::new(),
        };
        let (behind, heard) = (Arc::clone(&door.behind), Arc::clone(&door.heard));
        let (tasks, closed) = (door.tasks.clone(), door.closed.clone());
        let (later, said) = (Arc::clone(&door.later), Arc::clone(&door.said));
        door.tasks.spawn(async move {
            loop {
                let stream = tokio::select! {
                    () = closed.cancelled() => return,
                    accepted = listener.accept() => accepted.expect("accept").0,
                };
                stream.set_nodelay(true).expect("nodelay");
                let conversation = Conversation {
                    stream,
                    ahead: Vec::new(),
                    made_to: lock(&behind).clone(),
                    behind: Arc::clone(&behind),
                    heard: Arc::clone(&heard),
                    said: Arc::clone(&said),
                    later: Arc::clone(&later),
                };
                let closed = closed.clone();
                tasks.spawn(async move {
                    let cut = conversation.made_to.moved.clone();
                    tokio::select! {
                        () = conversation.hold() => {}
                        () = cut.cancelled() => {}
                        () = closed.cancelled() => {}
                    }
                });
            }
        });
        door
    }

    /// Somebody else is given the address.
    pub fn is_given_to(&self, who: &Who, leaving: Leaving) {
        let mut behind = lock(&self.behind);
        behind.who = who.clone();
        if let Leaving::TakenOver = leaving {
            return;
        }
        behind.tenure += 1;
        let before = std::mem::take(&mut behind.moved);
        if let Leaving::Cut = leaving {
            before.cancel();
        }
    }

    /// The page that is held up at half comes to its end, whichever that is.
    pub fn goes_on(&self) {
        self.later.notify_one();
    }

    /// What it has heard, in order.
    pub fn heard(&self) -> Vec<Heard> {
        lock(&self.heard).clone()
    }

    /// What was said so far into the last socket.
    pub fn said(&self) -> String {
        lock(&self.said).clone()
    }

    /// The request lines of that.
    pub fn lines(&self) -> Vec<String> {
        self.heard().into_iter().map(|heard| heard.line).collect()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection to a door.
struct Conversation {
    stream: TcpStream,
    ahead: Vec<u8>,
    made_to: Behind,
    behind: Arc<Mutex<Behind>>,
    heard: Arc<Mutex<Vec<Heard>>>,
    /// What was said so far into the last socket.
    said: Arc<Mutex<String>>,
    later: Arc<Notify>,
}

impl Conversation {
    /// Answers until the other side has had enough.
    async fn hold(mut self) {
        while let Some(heard) = self.hear().await {
            lock(&self.heard).push(heard.clone());
            let now = lock(&self.behind).clone();
            let taken_over = now.tenure == self.made_to.tenure;
            let Behind { who, manner, .. } = if taken_over {
                now
            } else {
                self.made_to.clone()
            };
            if self.answer(&who, manner, &heard).await.is_none() {
                return;
            }
        }
    }

    async fn more(&mut self) -> Option<()> {
        match self.stream.read_buf(&mut self.ahead).await {
            Ok(count) if count > 0 => Some(()),
            _ => None,
        }
    }

    async fn through(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self.ahead.windows(mark.len()).position(|seen| seen == mark);
            if let Some(start) = found {
                return Some(self.ahead.drain(..start + mark.len()).collect());
            }
            self.more().await?;
        }
    }

    async fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.ahead.len() < count {
            self.more().await?;
        }
        Some(self.ahead.drain(..count).collect())
    }

    async fn hear(&mut self) -> Option<Heard> {
        let text = String::from_utf8(self.through(b"\r\n\r\n").await?).expect("text");
        let mut lines = text.split("\r\n").take_while(|line| !line.is_empty());
        let line = lines.next().expect("a line").to_owned();
        let mut fields: HashMap<String, Vec<String>> = HashMap::new();
        for field in lines {
            let (name, value) = field.split_once(": ").expect("a field");
            let name = name.to_ascii_lowercase();
            fields.entry(name).or_default().push(value.to_owned());
        }
        let mut heard = Heard {
            line,
            fields,
            body: String::new(),
        };
        let mut body = Vec::new();
        if let Some(length) = heard.one("content-length") {
            body = self.exactly(length.parse().expect("a number")).await?;
        } else if heard.one("transfer-encoding").is_some() {
            loop {
                let size = String::from_utf8(self.through(b"\r\n").await?).expect("text");
                let size = usize::from_str_radix(size.trim(), 16).expect("a size");
                let piece = self.exactly(size + 2).await?;
                if size == 0 {
                    break;
                }
                body.extend(&piece[..size]);
            }
        }
        heard.body = String::from_utf8(body).expect("text");
        Some(heard)
    }

    /// Answers, and says whether the connection goes on.
    async fn answer(&mut self, who: &Who, manner: Manner, asked: &Heard) -> Option<()> {
        let nonce = asked
            .one(HEADER)
            .and_then(|proof| who.proof.verify_request(proof, Timestamp::now()).ok());
        let Some(nonce) = nonce else {
            return self
                .say("HTTP/1.1 421 Misdirected Request\r\nContent-Length: 4\r\n\r\nno.\n")
                .await;
        };
        let is_asked_who = asked.line == "GET /_edit/ready HTTP/1.1";
        let proof = format!("Edit-Proof: {}\r\n", who.proof.answer(nonce));
        let proof = match manner {
            Manner::Unproven => String::new(),
            Manner::UnprovenLater if !is_asked_who => String::new(),
            Manner::Twice => proof.repeat(2),
            Manner::Nominated => format!("Connection: Edit-Proof\r\n{proof}"),
            Manner::Replayed => {
                let other = who.proof.answer(Nonce::new([1; 16]));
                format!("Edit-Proof: {other}\r\n")
            }
            Manner::Garbage => return self.say("220 smtp.example ESMTP\r\n").await,
            Manner::Silent => return std::future::pending().await,
            Manner::Hangs => return None,
            Manner::Honest | Manner::UnprovenLater | Manner::HalfAPage => proof,
        };
        if asked.fields.contains_key("upgrade") {
            let name = who.client.as_str();
            let length = char::from(u8::try_from(name.len()).expect("short"));
            self.say(&format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{proof}\r\n\u{1}{length}{name}"
            ))
            .await?;
            // What is said into it is kept as a body of its own.
            while self.more().await.is_some() {
                *lock(&self.said) = String::from_utf8_lossy(&self.ahead).into_owned();
            }
            let said = String::from_utf8_lossy(&self.ahead).into_owned();
            let line = "SOCKET".to_owned();
            let fields = HashMap::new();
            lock(&self.heard).push(Heard {
                line,
                fields,
                body: said,
            });
            return None;
        }
        let page = who.page();
        let head = format!("HTTP/1.1 200 OK\r\n{proof}Content-Type: text/plain\r\n");
        if manner == Manner::HalfAPage && !is_asked_who {
            let half = &page[..page.len() / 2];
            self.say(&format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{half}\r\n",
                half.len()
            ))
            .await?;
            self.later.notified().await;
            self.stream.set_zero_linger().expect("linger");
            return None;
        }
        if asked.line.starts_with("GET /later ") {
            // In two pieces, between which the test decides how long it takes.
            let half = page.len() / 2;
            self.say(&format!(
                "{head}Content-Length: {}\r\n\r\n{}",
                page.len(),
                &page[..half]
            ))
            .await?;
            self.later.notified().await;
            return self.say(&page[half..]).await;
        }
        let length = page.len();
        self.say(&format!("{head}Content-Length: {length}\r\n\r\n{page}"))
            .await
    }

    async fn say(&mut self, text: &str) -> Option<()> {
        self.stream.write_all(text.as_bytes()).await.ok()
    }
}
