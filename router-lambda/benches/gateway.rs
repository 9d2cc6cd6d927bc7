//! What the gateway costs beside nginx, as ratios in one run: `cargo bench -p router-lambda --bench gateway`.
//!
//! ```text
//!   core 1: load ──▶ core 0: gateway, or nginx (one worker) ──▶ core 1: a door
//! ```
//!
//! All of them are started by the benchmark itself, and gateway and nginx take turns, several times; the middle of the ratios
//! counts. Proofs are on: the gateway proves each request and checks each answer, and the door does the same for its part, which
//! it need not do for nginx. Beside requests a second the benchmark says what each of the two used of its core for a request:
//! where core 1 is what everybody waits for, that is the truer figure.
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "a benchmark has no readers but its own"
)]
#![allow(clippy::print_stdout, reason = "its figures are what it is for")]
#![allow(
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark may spawn; its figures are small"
)]

#[allow(dead_code, reason = "shared with the stories of the agent")]
#[path = "../../agent/tests/it/support/figures.rs"]
mod figures;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use contract::proof::Proof;
use contract::session::ProofKey;
use contract::{ClientId, Generation, SessionId, Timestamp};
use edit_router::ask::Head;
use edit_router::gateway::{Decides, Gateway, Settings};
use edit_router::router::{Forward, Outcome};
use figures::{cpu, row, rss};
use http::Response;
use relay::{PoolKey, RelayError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a page may be as large as.
const SIZES: [(&str, usize); 3] = [("1 KB", 1024), ("20 KB", 20 * 1024), ("500 KB", 500 * 1024)];
/// Turns of each.
const ROUNDS: usize = 5;
/// How long each turn is.
const TURN: Duration = Duration::from_secs(3);
/// Connections at a time: what a page of a dev server has in flight, and half as many again.
const CONNECTIONS: usize = 32;
/// Requests a second where it is looked at how long they take.
const RATE: usize = 1_000;
/// Sockets that do nothing.
const SOCKETS: usize = 5_000;
const SESSIONS: usize = 100;

const HOST: &str = "edit.amelia.example";
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("gateway") => block_on(gateway(arguments[2].parse().expect("an address"))),
        Some("door") => block_on(door()),
        // `cargo test` runs benchmarks too, with `--test`: then there is nothing to measure.
        _ if !arguments.iter().any(|argument| argument == "--bench") => {}
        // The load is on core 1 itself: it starts itself anew there.
        _ if std::env::var_os("LOAD").is_none() => {
            let program = std::env::current_exe().expect("a program");
            let status = Command::new("taskset")
                .args(["-c", "1"])
                .arg(program)
                .arg("--bench")
                .env("LOAD", "1")
                .status()
                .expect("taskset is installed");
            assert!(status.success(), "{status}");
        }
        _ => block_on(measure()),
    }
}

fn block_on(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(future);
}

// ---- what is measured ----

async fn measure() {
    let door = Started::role("1", &["door"]);
    let gateway = Started::role("0", &["gateway", &door.address.to_string()]);
    let folder = tempfile::tempdir().expect("a folder");
    let nginx = Started::nginx(folder.path(), door.address);
    println!(
        "what                                                        ours      rival     result        budget"
    );
    for (name, bytes) in SIZES {
        throughput(name, bytes, &gateway, &nginx).await;
    }
    for (name, bytes) in SIZES {
        latency(name, bytes, &door, &gateway, &nginx).await;
    }
    sockets(&gateway).await;
}

async fn throughput(name: &str, bytes: usize, gateway: &Started, nginx: &Started) {
    let (mut ratios, mut costs, mut last) = (Vec::new(), Vec::new(), (0.0, 0.0));
    for _ in 0..ROUNDS {
        let (ours, our_cost) = saturate(gateway, bytes).await;
        let (theirs, their_cost) = saturate(nginx, bytes).await;
        ratios.push(ours / theirs);
        costs.push((our_cost / their_cost, our_cost, their_cost));
        last = (ours, theirs);
    }
    ratios.sort_by(f64::total_cmp);
    costs.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (cost, ours, theirs) = costs[ROUNDS / 2];
    row(
        &format!("requests/s, {name} / nginx"),
        &format!("{:.0}", last.0),
        &format!("{:.0}", last.1),
        &format!("{:.2} x", ratios[ROUNDS / 2]),
        ">= 0.8 x",
    );
    row(
        &format!("core used for a request, {name} / nginx"),
        &format!("{:.0} us", ours * 1e6),
        &format!("{:.0} us", theirs * 1e6),
        &format!("{cost:.2} x"),
        "<= 1.25 x",
    );
}

/// Requests a second, as many as go, and the seconds of a core that each cost whoever is measured.
async fn saturate(server: &Started, bytes: usize) -> (f64, f64) {
    let done = Arc::new(AtomicUsize::new(0));
    let mut visitors = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (address, done) = (server.address, Arc::clone(&done));
        visitors.spawn(async move {
            let mut visitor = Visitor::connect(address).await;
            loop {
                visitor.get(bytes).await;
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    // Everything is warm before it counts.
    tokio::time::sleep(TURN / 6).await;
    let (began, before, used) = (
        Instant::now(),
        done.load(Ordering::Relaxed),
        cpu(server.pid),
    );
    tokio::time::sleep(TURN).await;
    let requests = (done.load(Ordering::Relaxed) - before) as f64;
    let cost = (cpu(server.pid) - used) / requests;
    let each_second = requests / began.elapsed().as_secs_f64();
    visitors.shutdown().await;
    (each_second, cost)
}

async fn latency(name: &str, bytes: usize, door: &Started, gateway: &Started, nginx: &Started) {
    // 1,000 half megabytes a second are more than core 1 can make and read.
    let rate = if bytes > 100_000 { RATE / 10 } else { RATE };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let direct = p99(door, bytes, rate).await;
        ours.push(p99(gateway, bytes, rate).await.saturating_sub(direct));
        theirs.push(p99(nginx, bytes, rate).await.saturating_sub(direct));
    }
    ours.sort();
    theirs.sort();
    let (ours, theirs) = (ours[ROUNDS / 2], theirs[ROUNDS / 2]);
    row(
        &format!("added p99 at {rate}/s, {name} / nginx"),
        &format!("{:.2} ms", ours.as_secs_f64() * 1e3),
        &format!("{:.2} ms", theirs.as_secs_f64() * 1e3),
        "",
        "<= 1 ms",
    );
}

/// How long 99 of 100 requests take at most, counted from when they were due, whether or not there was a connection then.
async fn p99(server: &Started, bytes: usize, rate: usize) -> Duration {
    let (due, next) = mpsc::unbounded_channel::<Instant>();
    let next = Arc::new(tokio::sync::Mutex::new(next));
    let mut visitors = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (address, next) = (server.address, Arc::clone(&next));
        visitors.spawn(async move {
            let mut visitor = Visitor::connect(address).await;
            let mut took = Vec::new();
            loop {
                let due = next.lock().await.recv().await;
                let Some(due) = due else { return took };
                visitor.get(bytes).await;
                took.push(due.elapsed());
            }
        });
    }
    let mut clock =
        tokio::time::interval(Duration::from_secs(1) / u32::try_from(rate).expect("small"));
    let turns = (TURN.as_secs_f64() * rate as f64) as usize;
    for _ in 0..turns {
        clock.tick().await;
        due.send(Instant::now()).expect("somebody waits");
    }
    drop(due);
    let mut took: Vec<Duration> = visitors.join_all().await.into_iter().flatten().collect();
    // The first ones made the connections.
    took.sort();
    took[took.len() * 99 / 100]
}

/// What a socket costs that nobody uses.
async fn sockets(gateway: &Started) {
    let before = rss(gateway.pid);
    let mut open = Vec::new();
    for number in 0..SOCKETS {
        let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
        let host = number % SESSIONS;
        let request = format!(
            "GET / HTTP/1.1\r\nHost: s{host}.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("write");
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            let count = stream.read_buf(&mut head).await.expect("read");
            assert!(
                count > 0,
                "socket {number}: {}",
                String::from_utf8_lossy(&head)
            );
        }
        assert!(
            head.starts_with(b"HTTP/1.1 101"),
            "{}",
            String::from_utf8_lossy(&head)
        );
        open.push(stream);
    }
    let each = (rss(gateway.pid) - before) * 1024.0 / SOCKETS as f64;
    row(
        &format!("{SOCKETS} idle sockets, memory of each"),
        &format!("{each:.1} KB"),
        "",
        "",
        "<= 40 KB",
    );
}

/// One kept connection.
struct Visitor {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Visitor {
    async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        Self {
            stream,
            buffer: vec![0; 256 * 1024],
        }
    }

    /// Asks for a page of so many bytes, and reads it to its end. The head is what a browser says.
    async fn get(&mut self, bytes: usize) {
        let request = format!(
            "GET /{bytes} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\n\
             Accept: */*\r\nAccept-Encoding: gzip, deflate, br\r\nAccept-Language: en\r\nCache-Control: no-cache\r\n\
             Cookie: __Host-edit-session=amelia_abcdefghijklmnopqrstuvwxyz; theme=dark\r\nReferer: https://{HOST}/\r\n\
             Sec-Fetch-Dest: script\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-origin\r\n\r\n"
        );
        self.stream
            .write_all(request.as_bytes())
            .await
            .expect("write");
        let mut filled = 0;
        let head = loop {
            filled += self.read(filled).await;
            if let Some(end) = self.buffer[..filled]
                .windows(4)
                .position(|end| end == b"\r\n\r\n")
            {
                break end + 4;
            }
        };
        assert!(
            self.buffer.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&self.buffer[..head])
        );
        let mut left = bytes - (filled - head);
        while left > 0 {
            left -= self.read(0).await;
        }
    }

    async fn read(&mut self, from: usize) -> usize {
        let count = self
            .stream
            .read(&mut self.buffer[from..])
            .await
            .expect("read");
        assert!(count > 0, "the connection ended");
        count
    }
}

// ---- who is measured ----

/// A process on a core of its own.
struct Started {
    child: Child,
    /// Who does the work: of nginx, its worker.
    pid: u32,
    address: SocketAddr,
}

impl Started {
    /// This program, in another role. It says where it listens.
    fn role(core: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new("taskset")
            .args(["-c", core])
            .arg(std::env::current_exe().expect("a program"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("taskset is installed");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("a line");
        Self {
            pid: child.id(),
            address: line.trim().parse().expect("an address"),
            child,
        }
    }

    fn nginx(folder: &Path, door: SocketAddr) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = free.local_addr().expect("an address");
        drop(free);
        let place = folder.display();
        let configuration = format!(
            "daemon off; pid {place}/pid; error_log {place}/error.log; worker_processes 1;\n\
             events {{ worker_connections 20000; }}\n\
             http {{ access_log off; client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;\n\
             fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s; keepalive_requests 100000000;\n\
             upstream door {{ server {door}; keepalive 64; keepalive_requests 100000000; }}\n\
             server {{ listen {address}; location / {{ proxy_pass http://door; proxy_http_version 1.1;\n\
             proxy_set_header Connection \"\"; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;\n\
             proxy_set_header X-Forwarded-Proto http; proxy_set_header X-Forwarded-Host $host; }} }} }}\n"
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, configuration).expect("write");
        let child = Command::new("taskset")
            .args(["-c", "0", "nginx", "-e"])
            .arg(folder.join("error.log"))
            .arg("-c")
            .arg(&file)
            .spawn()
            .expect("nginx is installed");
        let mut started = Self {
            pid: child.id(),
            address,
            child,
        };
        let children = format!("/proc/{0}/task/{0}/children", started.pid);
        let began = Instant::now();
        loop {
            let worker = std::fs::read_to_string(&children).expect("Linux");
            let worker = worker
                .split_whitespace()
                .next()
                .and_then(|worker| worker.parse().ok());
            if let (Some(worker), Ok(_)) = (worker, std::net::TcpStream::connect(address)) {
                started.pid = worker;
                return started;
            }
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "nginx did not start"
            );
            std::thread::yield_now();
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // TERM, so that nginx takes its worker along.
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _gone = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _status = self.child.wait();
    }
}

// ---- the roles ----

fn proof(session: usize) -> (SessionId, Proof) {
    let session: SessionId = format!("amelia_{session}").parse().expect("an id");
    let proof =
        Proof::new(&ProofKey(KEY.to_owned()), session.clone(), Generation(1)).expect("a key");
    (session, proof)
}

async fn gateway(door: SocketAddr) {
    let settings = Settings {
        address: "127.0.0.1:0".parse().expect("an address"),
        ..Settings::default()
    };
    let client: ClientId = "amelia".parse().expect("a client");
    let forwards = (0..SESSIONS)
        .map(|number| {
            let (session, proof) = proof(number);
            Forward {
                client: client.clone(),
                session,
                generation: Generation(1),
                address: door,
                pool: PoolKey::new(format!("task-{number}#1")),
                proof,
            }
        })
        .collect();
    let gateway = Gateway::bind(settings, Doors(forwards))
        .await
        .expect("bind");
    println!("{}", gateway.address());
    gateway.serve(CancellationToken::new()).await;
}

/// A router for which everybody has a session that is awake.
struct Doors(Vec<Forward>);

impl Decides for Doors {
    async fn handle(&self, head: &Head<'_>, _: Timestamp) -> Outcome {
        let number = head
            .one("host")
            .and_then(|host| host.strip_prefix('s')?.split('.').next()?.parse().ok())
            .unwrap_or(0_usize);
        Outcome::Forward(Box::new(self.0[number].clone()))
    }

    async fn unproven(&self, _: &Head<'_>, _: &Forward, _: Timestamp) -> Response<Bytes> {
        panic!("the door proves itself");
    }

    async fn unreachable(
        &self,
        _: &Head<'_>,
        _: &Forward,
        error: &RelayError,
        _: Timestamp,
    ) -> Response<Bytes> {
        panic!("the door is there: {}", telemetry::chain(error));
    }

    async fn still(&self, _: &Forward, _: Timestamp) -> bool {
        true
    }
}

/// Answers as fast as it can: pages of as many bytes as the path says, and sockets in which nothing is said.
async fn door() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    println!("{}", listener.local_addr().expect("an address"));
    let proofs: Arc<Vec<Proof>> = Arc::new((0..SESSIONS).map(|number| proof(number).1).collect());
    let page: Arc<Vec<u8>> = Arc::new(vec![b'x'; SIZES[2].1]);
    let mut visitors = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("accept");
        stream.set_nodelay(true).expect("nodelay");
        visitors.spawn(answers(stream, Arc::clone(&proofs), Arc::clone(&page)));
    }
}

async fn answers(mut stream: TcpStream, proofs: Arc<Vec<Proof>>, page: Arc<Vec<u8>>) {
    let mut head = Vec::with_capacity(2048);
    loop {
        head.clear();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_buf(&mut head).await {
                Ok(count) if count > 0 => {}
                _ => return,
            }
        }
        let text = std::str::from_utf8(&head).expect("text");
        let proof = text.split("\r\n").find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("edit-proof").then_some(value)
        });
        // Only of sockets there are several sessions: whose it is says the key that fits.
        let proof = proof.map_or_else(String::new, |asked| {
            let now = Timestamp::now();
            proofs
                .iter()
                .find_map(|proof| {
                    let nonce = proof.verify_request(asked, now).ok()?;
                    Some(format!("Edit-Proof: {}\r\n", proof.answer(nonce)))
                })
                .expect("the gateway proves itself")
        });
        if text.contains("pgrade: websocket") {
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{proof}\r\n"
            );
            stream.write_all(answer.as_bytes()).await.expect("write");
            let mut nothing = [0; 1];
            while stream.read(&mut nothing).await.is_ok_and(|count| count > 0) {}
            return;
        }
        let bytes: usize = text
            .split(' ')
            .nth(1)
            .and_then(|path| path[1..].parse().ok())
            .unwrap_or(0);
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/javascript\r\nCache-Control: no-cache\r\nEtag: W/\"1\"\r\nDate: Fri, 27 Nov 2026 00:00:00 GMT\r\n\
             {proof}Content-Length: {bytes}\r\n\r\n"
        )
        .into_bytes();
        // One write for what fits into a packet or two.
        let whole = if bytes <= 32 * 1024 { bytes } else { 0 };
        answer.extend_from_slice(&page[..whole]);
        if stream.write_all(&answer).await.is_err()
            || stream.write_all(&page[whole..bytes]).await.is_err()
        {
            return;
        }
    }
}
