//! What the function costs beside the same one on Node 20 with the SDK of AWS, as ratios in one run: `cargo bench -p router-lambda --bench lambda`.
//!
//! Both are started by the benchmark itself, under the same emulator of the Lambda runtime, with the same records in the same emulator of
//! AWS, and they take turns. An init begins with the process and ends with the answer to the event that has waited for it. A warm
//! route of ours reads nothing that it has read within the second; the rival's reads both records, as such a handler does.

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
use std::time::{Duration, Instant};

use contract::{ClientConfig, Session, SessionId, Timestamp};
use platform::conformance::emulator::{Emulator, Stack};
use serde_json::{Value, json};
use support::runtime::Runtime;
use tokio::process::{Child, Command};

const ID: &str = "amelia_a";
/// Inits of each.
const INITS: usize = 7;
/// Routes of each after every init.
const ROUTES: usize = 100;

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
    runtime.block_on(measure());
}

#[derive(Debug, Default)]
struct Figures {
    inits: Vec<Duration>,
    routes: Vec<Duration>,
    megabytes: Vec<f64>,
}

async fn measure() {
    let node = tokio::task::spawn_blocking(on_node)
        .await
        .expect("it is installed");
    let emulator = tokio::task::spawn_blocking(|| Emulator::shared(env!("CARGO_TARGET_TMPDIR")));
    let emulator = emulator.await.expect("it starts");
    let stack = emulator.stack().await;
    asleep(emulator, &stack).await;
    // The environment of a function has no PATH.
    let program = std::process::Command::new("node")
        .args(["-p", "process.execPath"])
        .output();
    let program = String::from_utf8(program.expect("node runs").stdout)
        .expect("a path")
        .trim()
        .to_owned();
    let (mut ours, mut theirs) = (Figures::default(), Figures::default());
    for _ in 0..INITS {
        let (runtime, function) = (Runtime::start().await, |runtime: &Runtime| {
            runtime.router(emulator, &stack)
        });
        lives(&runtime, function, &mut ours).await;
        let function = |runtime: &Runtime| {
            runtime.starts(
                Command::new(&program)
                    .args(["--no-warnings", "bootstrap.mjs"])
                    .current_dir(&node),
                emulator,
                &stack,
            )
        };
        lives(&Runtime::start().await, function, &mut theirs).await;
    }
    println!(
        "what                                                        ours      rival     result        budget"
    );
    let times = |ours: Duration, theirs: Duration| {
        format!("1/{:.1}", theirs.as_secs_f64() / ours.as_secs_f64())
    };
    for (what, ours, theirs, budget) in [
        (
            "init and first route",
            &mut ours.inits,
            &mut theirs.inits,
            "<= 1/8",
        ),
        ("warm route, p50", &mut ours.routes, &mut theirs.routes, ""),
    ] {
        let (ours, theirs) = (median(ours), median(theirs));
        row(what, &ms(ours), &ms(theirs), &times(ours, theirs), budget);
    }
    let (mine, other) = (largest(&ours.megabytes), largest(&theirs.megabytes));
    row(
        "memory after it, MB",
        &format!("{mine:.1}"),
        &format!("{other:.1}"),
        &format!("1/{:.1}", other / mine),
        "<= 1/4",
    );
    let mine = compressed(Path::new(env!("CARGO_BIN_EXE_edit-router")));
    let other = compressed(&node);
    row(
        "package, compressed, MB",
        &format!("{mine:.1}"),
        &format!("{other:.1}"),
        &format!("{:.2} x", mine / other),
        "",
    );
}

/// One init, and a number of routes after it.
async fn lives(runtime: &Runtime, function: impl Fn(&Runtime) -> Child, figures: &mut Figures) {
    let event = json!({
        "requestContext": { "elb": { "targetGroupArn": "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/router/0123" } },
        "httpMethod": "GET", "path": "/about", "queryStringParameters": {}, "body": "", "isBase64Encoded": false,
        "headers": {
            "host": "edit.amelia.example.com", "cookie": format!("__Host-edit-session={ID}"), "accept": "text/html",
            "x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https", "x-forwarded-port": "443",
        },
    })
    .to_string();
    let asks = async || {
        let answer = runtime.invokes(&event).await.expect("answered");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        // A session that sleeps: client and session have been read, and a page made.
        assert_eq!(answer["statusCode"], 503, "{answer}");
    };
    let began = Instant::now();
    let process = function(runtime);
    asks().await;
    figures.inits.push(began.elapsed());
    for _ in 0..ROUTES {
        let began = Instant::now();
        asks().await;
        figures.routes.push(began.elapsed());
    }
    figures.megabytes.push(rss(process.id().expect("it runs")));
}

async fn asleep(emulator: &Emulator, stack: &Stack) {
    let aws = emulator.aws().await;
    let config = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../fixtures/clients/amelia.json"
    ));
    let config: ClientConfig =
        serde_json::from_str(&config.expect("a configuration")).expect("a configuration");
    aws.clients(&stack.clients).put(&config).await.expect("put");
    let id: SessionId = ID.parse().expect("an id");
    let session = Session::new(
        id,
        "amelia".parse().expect("an id"),
        "thread".parse().expect("an id"),
        "amelia".to_owned(),
        Timestamp::now(),
    );
    let created = aws.sessions(&stack.sessions).create(&session).await;
    created.expect("created");
}

/// The rival with its packages in place.
fn on_node() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("router-on-node");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/node");
    std::fs::create_dir_all(&folder).expect("a folder");
    for name in ["package.json", "handler.mjs", "bootstrap.mjs"] {
        std::fs::copy(source.join(name), folder.join(name)).expect("copied");
    }
    let installed = std::process::Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--omit=dev"])
        .current_dir(&folder)
        .output()
        .expect("npm runs");
    assert!(
        installed.status.success(),
        "{}",
        String::from_utf8_lossy(&installed.stderr)
    );
    folder
}

/// Megabytes of everything below a path, as one compressed file.
fn compressed(path: &Path) -> f64 {
    let mut encoder = flate2::write::GzEncoder::new(Counted(0), flate2::Compression::best());
    pack(path, &mut encoder);
    encoder.finish().expect("it takes everything").0 as f64 / 1024.0 / 1024.0
}

fn pack(path: &Path, into: &mut impl std::io::Write) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("a folder") {
            pack(&entry.expect("an entry").path(), into);
        }
    } else if path.is_file() {
        into.write_all(&std::fs::read(path).expect("a file"))
            .expect("it takes everything");
    }
}

struct Counted(usize);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn median(values: &mut [Duration]) -> Duration {
    values.sort();
    values[values.len() / 2]
}

fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

fn row(what: &str, ours: &str, rival: &str, result: &str, budget: &str) {
    println!("{what:58}  {ours:>8}  {rival:>8}  {result:>10}    {budget}");
}

/// Megabytes of memory that a process has in use (RSS).
fn rss(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("Linux");
    let kilobytes: f64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    kilobytes / 1024.0
}
