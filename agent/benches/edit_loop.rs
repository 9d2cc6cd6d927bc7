//! What the edit loop costs, as ratios in one run: `cargo bench`.
//!
//! Each measurement starts its own rival and takes turns with it, so that a machine that is slow for a while is slow for both.
//! The rival is what a developer does by hand: a file saved under a bare `astro dev`, `git add && git commit && git push`,
//! `git clone && npx astro dev`.
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "a benchmark has no readers but its own"
)]
#![allow(clippy::print_stdout, reason = "its figures are what it is for")]
#![allow(
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark may spawn; its figures are small"
)]

#[allow(dead_code, reason = "shared with the stories")]
#[path = "../tests/it/support.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use support::figures::{cpu, ms, row, rss};
use support::{Environment, Repository, Start, ask, git, instruction};
use tokio::process::{Child, Command};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

type Socket = tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>;

/// Between two edits of one page, on both sides: closer together the dev server is still busy with the last one.
const REST: Duration = Duration::from_millis(300);
const EDITS_FOR_LATENCY: usize = 100;
const EDITS_FOR_RATE: usize = 200;
/// Edits that wait in the queue at the same time.
const EDITS_IN_A_BATCH: usize = 50;
const PAGES_FOR_FIRST_BYTE: usize = 200;
const STARTS: usize = 3;

fn main() {
    // `cargo test` runs benchmarks too, with `--test`: then there is nothing to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        println!("what                                                        ours      rival     result        budget");
        let bare = BareSite::new().await;
        starts(&bare).await;
        latency(&bare).await;
        batch().await;
        bar().await;
        rate().await;
    });
}

fn percentile(values: &mut [Duration], percent: usize) -> Duration {
    values.sort();
    values[(values.len() * percent / 100).min(values.len() - 1)]
}

/// A clone with its dependencies in place, as a developer has it.
struct BareSite {
    repository: Repository,
    folder: tempfile::TempDir,
}

impl BareSite {
    async fn new() -> Self {
        let repository = Repository::amelia();
        let folder = tempfile::tempdir().expect("a folder");
        git(
            folder.path(),
            &["clone", "--quiet", &repository.address(), "site"],
        );
        let bare = Self { repository, folder };
        run(
            "npm",
            &["ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            &bare.site(),
        )
        .await;
        bare
    }

    fn site(&self) -> PathBuf {
        self.folder.path().join("site")
    }
}

async fn run(program: &str, arguments: &[&str], folder: &Path) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .await
        .expect("it runs");
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// `npx astro dev`, and what it started.
struct AstroDev {
    child: Child,
    authority: String,
}

impl AstroDev {
    fn start(site: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .expect("a port")
            .local_addr()
            .expect("an address")
            .port();
        let mut command = Command::new("npx");
        command
            .args([
                "astro",
                "dev",
                "--host",
                "127.0.0.1",
                "--port",
                &port.to_string(),
            ])
            .current_dir(site)
            .env("ASTRO_TELEMETRY_DISABLED", "1");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        Self {
            child: command.spawn().expect("npx starts"),
            authority: format!("127.0.0.1:{port}"),
        }
    }
}

impl Drop for AstroDev {
    fn drop(&mut self) {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            nix::sys::signal::killpg(
                nix::unistd::Pid::from_raw(id),
                nix::sys::signal::Signal::SIGKILL,
            )
            .ok();
        }
    }
}

/// Waits until the page is served.
async fn first_page(authority: &str) {
    loop {
        if tokio::net::TcpStream::connect(authority).await.is_ok() {
            let answer = ask(authority, "GET", "/", &[], None).await;
            if answer.status == 200 {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// `dev` against what a developer types instead.
async fn starts(bare: &BareSite) {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("an address")
        .port();
    let repository = bare.repository.address();
    let start = |workspace: &Path| {
        let arguments = [
            "--port".to_owned(),
            port.to_string(),
            "--workspace".to_owned(),
            workspace.display().to_string(),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Start::of_any_port(&repository).with(&arguments).spawn()
    };
    let (mut warm, mut by_hand, mut fresh, mut by_npm) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let kept = tempfile::tempdir().expect("a folder");
    // The first start fills the store and the workspace; it is not counted.
    let mut environment = start(kept.path());
    environment.event("ready").await;
    environment.ready = json!({ "port": port });
    environment.stop().await;
    for _ in 0..STARTS {
        let began = Instant::now();
        let mut environment = start(kept.path());
        first_page(&format!("127.0.0.1:{port}")).await;
        warm.push(began.elapsed());
        environment.event("ready").await;
        environment.stop().await;

        by_hand.push(cloned(bare, false).await);

        let workspace = tempfile::tempdir().expect("a folder");
        let began = Instant::now();
        let mut environment = start(workspace.path());
        first_page(&format!("127.0.0.1:{port}")).await;
        fresh.push(began.elapsed());
        environment.event("ready").await;
        environment.stop().await;

        by_npm.push(cloned(bare, true).await);
    }
    for (what, ours, rival, budget) in [
        (
            "start to first page, dependencies in place / git clone && npx astro dev",
            &mut warm,
            &mut by_hand,
            "<= 1.0 x",
        ),
        (
            "start to first page, store warm / git clone && npm ci && npx astro dev",
            &mut fresh,
            &mut by_npm,
            "<= 0.4 x",
        ),
    ] {
        let (ours, rival) = (percentile(ours, 50), percentile(rival, 50));
        row(
            what,
            &ms(ours),
            &ms(rival),
            &format!("{:.2} x", ours.as_secs_f64() / rival.as_secs_f64()),
            budget,
        );
    }
}

/// `git clone && npx astro dev`, with `npm ci` between, or with the dependencies moved in (which is not counted).
async fn cloned(bare: &BareSite, install: bool) -> Duration {
    let folder = tempfile::tempdir().expect("a folder");
    let site = folder.path().join("site");
    let mut took = Duration::ZERO;
    let began = Instant::now();
    git(
        folder.path(),
        &["clone", "--quiet", &bare.repository.address(), "site"],
    );
    if install {
        run(
            "npm",
            &["ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            &site,
        )
        .await;
    } else {
        took += began.elapsed();
        std::fs::rename(bare.site().join("node_modules"), site.join("node_modules"))
            .expect("moved");
    }
    let began = if install { began } else { Instant::now() };
    let astro = AstroDev::start(&site);
    first_page(&astro.authority).await;
    took += began.elapsed();
    drop(astro);
    if !install {
        std::fs::rename(site.join("node_modules"), bare.site().join("node_modules"))
            .expect("moved back");
    }
    took
}

/// From the wish to the HMR message in the browser.
async fn latency(bare: &BareSite) {
    let astro = AstroDev::start(&bare.site());
    first_page(&astro.authority).await;
    let environment = Start::of(&bare.repository.address()).ready().await;
    let door = format!("127.0.0.1:{}", environment.ready["port"]);
    let status = environment.status().await;
    let mut sockets = (hmr(&door).await, hmr(&astro.authority).await);
    let page = "src/pages/index.astro";
    let original = std::fs::read_to_string(bare.site().join(page)).expect("the page");
    let (mut ours, mut by_hand) = (Vec::new(), Vec::new());
    let (mut verification, mut render) = (Vec::new(), Vec::new());
    for number in 0..EDITS_FOR_LATENCY {
        let content = original.replace("Rare stamps", &format!("Rare stamps {number}"));
        // Both have served the page since the last change; the dev server forgets nothing it was not asked for.
        ask(&door, "GET", "/", &[], None).await;
        ask(&astro.authority, "GET", "/", &[], None).await;
        tokio::time::sleep(REST).await;

        let body = instruction(
            &environment,
            &status,
            &format!("latency-{number}"),
            &json!([{ "op": "write", "path": page, "content": content }]),
        );
        forget(&mut sockets.0);
        let began = Instant::now();
        let (answer, ()) = tokio::join!(
            environment.post("/_edit/instructions", &body),
            hot_message(&mut sockets.0)
        );
        ours.push(began.elapsed());
        assert_eq!(answer.status, 202, "{}", answer.text());
        let receipt = environment
            .final_receipt(&format!("latency-{number}"))
            .await;
        assert_eq!(receipt["verdict"], "sound", "{receipt:#}");
        let took = receipt["timings"]["verifyMs"].as_u64().expect("a number");
        verification.push(Duration::from_millis(took));
        tokio::time::sleep(REST).await;

        let beside = bare.site().join("node_modules/.edited");
        forget(&mut sockets.1);
        let began = Instant::now();
        std::fs::write(&beside, &content)
            .and_then(|()| std::fs::rename(&beside, bare.site().join(page)))
            .expect("written");
        hot_message(&mut sockets.1).await;
        let shown = began.elapsed();
        // As it is looked at here: a browser that shows the change asks for the page once more.
        let began = Instant::now();
        ask(
            &astro.authority,
            "GET",
            "/",
            &[("accept", "text/html")],
            None,
        )
        .await;
        render.push(began.elapsed());
        by_hand.push(shown + began.elapsed());
    }
    for (percent, budget) in [(50, "<= + 25 ms"), (99, "<= + 60 ms")] {
        let (ours, rival) = (
            percentile(&mut ours, percent),
            percentile(&mut by_hand, percent),
        );
        let added = ours.as_secs_f64() - rival.as_secs_f64();
        row(
            &format!("instruction posted to HMR message, p{percent} / saved by hand, rendered"),
            &ms(ours),
            &ms(rival),
            &format!("{:+.1} ms", added * 1000.0),
            budget,
        );
    }
    let (looked, rendered) = (
        percentile(&mut verification, 50),
        percentile(&mut render, 50),
    );
    row(
        "written, noted and looked at, p50 / one render of that page",
        &ms(looked),
        &ms(rendered),
        &format!(
            "{:+.1} ms",
            (looked.as_secs_f64() - rendered.as_secs_f64()) * 1000.0
        ),
        "<= + 15 ms",
    );
    environment.stop().await;
    git(bare.site().as_path(), &["checkout", "--quiet", "."]);
}

/// Fifty edits of one page that wait together: each is looked at, and nothing is rendered twice.
async fn batch() {
    let page = |number: usize| {
        format!(
            "---\nglobalThis.renders = (globalThis.renders ?? 0) + 1;\n---\n<html><body>{number} <i>{{globalThis.renders}}</i></body></html>"
        )
    };
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address()).ready().await;
    let status = environment.status().await;
    let messages: Vec<Value> = (0..EDITS_IN_A_BATCH)
        .map(|number| {
            instruction(
                &environment,
                &status,
                &format!("batch-{number}"),
                &json!([{ "op": "write", "path": "src/pages/batch.astro", "content": page(number) }]),
            )
        })
        .collect();
    let answer = environment
        .post("/_edit/instructions", &Value::Array(messages))
        .await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    for number in 0..EDITS_IN_A_BATCH {
        let receipt = environment.final_receipt(&format!("batch-{number}")).await;
        assert_eq!(receipt["pages"][0]["path"], "/batch/", "{receipt:#}");
        assert_eq!(receipt["verdict"], "sound", "{receipt:#}");
    }
    let text = environment.get("/batch/").await.text();
    let renders: usize = text
        .split_once("<i>")
        .and_then(|(_, rest)| rest.split_once("</i>"))
        .and_then(|(renders, _)| renders.parse().ok())
        .unwrap_or_else(|| panic!("{text}"));
    // One of them is the one that has just said how many.
    let renders = renders - 1;
    row(
        "renders of a page / edits of it that waited together",
        &renders.to_string(),
        &EDITS_IN_A_BATCH.to_string(),
        &format!("{:.2} x", renders as f64 / EDITS_IN_A_BATCH as f64),
        "<= 1.0 x",
    );
    environment.stop().await;
}

/// What the status bar costs a page: its bytes, and the time until the first byte.
async fn bar() {
    let (one, other) = (Repository::amelia(), Repository::amelia());
    let with = Start::of(&one.address()).ready().await;
    let without = Start::of(&other.address())
        .with(&["--no-bar"])
        .ready()
        .await;
    let html = [("accept", "text/html")];
    let text = with.request("GET", "/", &html, None).await.text();
    let script = text
        .split_once("src=\"/_edit/bar.js")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map_or_else(
            || panic!("no bar in:\n{text}"),
            |(version, _)| format!("/_edit/bar.js{version}"),
        );
    let plain = without.request("GET", "/", &html, None).await.text();
    let compressed = with
        .request("GET", &script, &[("accept-encoding", "gzip")], None)
        .await
        .body
        .len()
        + (text.len() - plain.len().min(text.len()));
    row(
        "bytes that the bar adds to a page, compressed",
        &format!("{:.1} KB", compressed as f64 / 1024.0),
        "-",
        "-",
        "<= 8 KB",
    );
    let (mut ours, mut rival) = (Vec::new(), Vec::new());
    for _ in 0..PAGES_FOR_FIRST_BYTE {
        ours.push(first_byte(&with.authority()).await);
        rival.push(first_byte(&without.authority()).await);
    }
    let (ours, rival) = (percentile(&mut ours, 50), percentile(&mut rival, 50));
    row(
        "first byte of a page with the bar, p50 / without",
        &ms(ours),
        &ms(rival),
        &format!("{:.2} x", ours.as_secs_f64() / rival.as_secs_f64()),
        "<= 1.1 x",
    );
    with.stop().await;
    without.stop().await;
}

/// How long it takes until the first byte of the front page's body is here.
async fn first_byte(authority: &str) -> Duration {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(authority)
        .await
        .expect("the door is open");
    stream.set_nodelay(true).expect("set");
    let request = format!(
        "GET / HTTP/1.1\r\nhost: {authority}\r\naccept: text/html\r\nconnection: close\r\n\r\n"
    );
    let began = Instant::now();
    stream.write_all(request.as_bytes()).await.expect("sent");
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    let mut first = None;
    loop {
        let read = stream.read(&mut chunk).await.expect("an answer");
        if read == 0 {
            break;
        }
        answer.extend_from_slice(&chunk[..read]);
        let body = answer.windows(4).position(|end| end == b"\r\n\r\n");
        if first.is_none() && body.is_some_and(|at| answer.len() > at + 4) {
            first = Some(began.elapsed());
        }
    }
    first.expect("a body")
}

/// A browser's HMR socket.
async fn hmr(authority: &str) -> Socket {
    let client = ask(authority, "GET", "/@vite/client", &[], None)
        .await
        .text();
    let token = client
        .split_once("const wsToken = \"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map_or("", |(token, _)| token);
    let mut request = format!("ws://{authority}/?token={token}")
        .into_client_request()
        .expect("a request");
    request.headers_mut().insert(
        "sec-websocket-protocol",
        "vite-hmr".parse().expect("a value"),
    );
    request.headers_mut().insert(
        "origin",
        format!("http://{authority}").parse().expect("a value"),
    );
    let stream = tokio::net::TcpStream::connect(authority)
        .await
        .expect("the door is open");
    stream.set_nodelay(true).expect("set");
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream)
        .await
        .expect("upgraded");
    let hello = socket.next().await.expect("a message").expect("whole");
    assert!(
        hello.to_text().is_ok_and(|text| text.contains("connected")),
        "{hello:?}"
    );
    socket
}

/// Forgets what came before: some edits are told of in two messages.
fn forget(socket: &mut Socket) {
    use futures_util::FutureExt as _;
    while let Some(message) = socket.next().now_or_never() {
        message.expect("a message").expect("whole");
    }
}

/// Waits for the message by which the page changes.
async fn hot_message(socket: &mut Socket) {
    let waited = tokio::time::timeout(support::PATIENCE, async {
        loop {
            let message = socket.next().await.expect("a message").expect("whole");
            let message: Value =
                serde_json::from_str(message.to_text().unwrap_or_default()).unwrap_or_default();
            if matches!(message["type"].as_str(), Some("update" | "full-reload")) {
                return;
            }
        }
    });
    waited.await.expect("a message in time");
}

/// 200 edits, each applied, committed, pushed and seen on the remote.
async fn rate() {
    let repository = Repository::amelia();
    let remote = tempfile::tempdir().expect("a folder");
    git(
        remote.path(),
        &[
            "clone",
            "--quiet",
            "--bare",
            &repository.address(),
            "ours.git",
        ],
    );
    git(
        remote.path(),
        &[
            "clone",
            "--quiet",
            "--bare",
            &repository.address(),
            "rival.git",
        ],
    );
    git(remote.path(), &["clone", "--quiet", "rival.git", "rival"]);
    let environment = Start::of(&remote.path().join("ours.git").display().to_string())
        .ready()
        .await;
    let status = environment.status().await;
    // Twenty files in turn: a burst of edits mostly meets a few files.
    let edit = |number: usize| {
        (
            format!("src/content/journal/bench-{}.txt", number % 20),
            format!("edit {number}\n"),
        )
    };
    let mut messages: Vec<Value> = Vec::new();
    for number in 0..EDITS_FOR_RATE {
        let (path, content) = edit(number);
        messages.push(instruction(
            &environment,
            &status,
            &format!("rate-{number}"),
            &json!([{ "op": "write", "path": path, "content": content }]),
        ));
    }
    let began = Instant::now();
    let answer = environment
        .post("/_edit/instructions", &Value::Array(messages))
        .await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    last_receipt(&environment).await;
    let ours = began.elapsed();
    let commits = git(
        &remote.path().join("ours.git"),
        &["rev-list", "--count", "main..edit/local"],
    );
    assert_eq!(commits, EDITS_FOR_RATE.to_string());

    let clone = remote.path().join("rival");
    git(&clone, &["checkout", "--quiet", "-b", "edit/local"]);
    let began = Instant::now();
    for number in 0..EDITS_FOR_RATE {
        let (path, content) = edit(number);
        std::fs::write(clone.join(&path), content).expect("written");
        git(&clone, &["add", "--", &path]);
        git(
            &clone,
            &["commit", "--quiet", "--message", &format!("Edit {path}")],
        );
        git(&clone, &["push", "--quiet", "origin", "edit/local"]);
    }
    let rival = began.elapsed();
    let rate = |took: Duration| format!("{:.0}/s", EDITS_FOR_RATE as f64 / took.as_secs_f64());
    row(
        "edits applied, committed, pushed, seen / git add && commit && push",
        &rate(ours),
        &rate(rival),
        &format!("{:.1} x", rival.as_secs_f64() / ours.as_secs_f64()),
        ">= 5 x",
    );

    footprint(&environment).await;
    environment.stop().await;
}

async fn last_receipt(environment: &Environment) {
    let last = format!("/_edit/instructions/rate-{}", EDITS_FOR_RATE - 1);
    loop {
        let receipt = environment.get(&last).await.json();
        match receipt["status"].as_str() {
            Some("pushed") => return,
            Some("rejected" | "failed") => panic!("{receipt:#}"),
            _ => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}

/// What the agent itself takes, with those edits behind it.
async fn footprint(environment: &Environment) {
    let pid = environment.pid();
    row(
        "memory of the agent after these edits (RSS)",
        &format!("{:.1} MB", rss(pid)),
        "-",
        "-",
        "<= 25 MB",
    );
    let before = cpu(pid);
    let window = Duration::from_secs(10);
    tokio::time::sleep(window).await;
    let share = (cpu(pid) - before) / window.as_secs_f64();
    row(
        "the agent at rest, share of a core",
        &format!("{:.2} %", share * 100.0),
        "-",
        "-",
        "<= 0.2 %",
    );
}
