//! How long a person waits for nothing: from the moment at which a record says that the site is there to the moment at which the page
//! shows it, in a real Chromium, through the real gateway: `cargo bench -p router-lambda --bench wake`.
//!
//! The rival, in the same run, is a waiting page that loads itself again every two seconds, as most do.

#![allow(
    missing_docs,
    unreachable_pub,
    reason = "a benchmark has no readers but its own"
)]
#![allow(clippy::print_stdout, reason = "its figures are what it is for")]
#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark may spawn: its tasks end with its runtime"
)]

#[allow(dead_code, reason = "shared with the stories")]
#[path = "../tests/it/support.rs"]
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use contract::proof::Proof;
use contract::session::{ProofKey, SiteHealth, Transition};
use contract::{ClientConfig, Generation, Session, SessionId, Timestamp};
use edit_router::assembly::{Assembly, Ports};
use edit_router::gateway::{Gateway, Settings};
use edit_router::laptop::{self, Running};
use edit_router::link::LinkKeys;
use platform::local::{LocalLauncher, LocalLauncherSettings, LocalStore, QueueSettings};
use serde_json::json;
use support::browser::Browser;
use support::scribe::{Door, Proves};
use tokio_util::sync::CancellationToken;

/// Wakes of each.
const WAKES: u64 = 9;
/// How long the rival's page waits before it loads itself again: what Retry-After says of ours.
const REFRESH_SECONDS: u64 = 2;

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

async fn measure() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = LocalStore::open(&folder.path().join("edit.sqlite")).expect("open");
    let config = ClientConfig::parse(&json!({
        "clientId": "amelia",
        "domains": { "production": "ameliastamps.com", "edit": "edit.ameliastamps.com", "api": "api.ameliastamps.com" },
        "repository": { "url": "https://git.example/amelia.git", "branch": "main" },
        "infrastructure": {},
        "settings": { "containerSize": "small", "idleTimeoutMinutes": 30, "maxConcurrentSessions": 100 },
        "status": "active",
    }))
    .expect("valid");
    store.clients().put(&config).await.expect("put");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let running = Running {
        port: listener.local_addr().expect("bound").port(),
        pid: std::process::id(),
        previews: false,
    };
    let policy = laptop::policy(&running);
    let launcher = LocalLauncher::new(LocalLauncherSettings {
        agent: "/bin/false".into(),
        state: folder.path().to_owned(),
        environment: Vec::new(),
        log: folder.path().join("logs"),
    });
    let ports = Ports {
        clients: store.clients(),
        sessions: store.sessions(),
        receipts: store.receipts(),
        queues: store.queues(laptop::DEAD),
        launcher: Arc::new(launcher),
        dead: Arc::new(store.queue(laptop::DEAD, QueueSettings::default())),
    };
    let assembly = Assembly::new(&ports, &policy, LinkKeys::of([7; 32]), &laptop::pace());
    let gateway = Gateway::on(listener, Settings::default(), assembly.router).expect("it serves");
    let stop = CancellationToken::new();
    let served = tokio::spawn(gateway.serve(stop.clone()));

    let browser = Browser::start().await;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for number in 0..WAKES {
        ours.push(waited(&store, &config, &browser, running.port, number).await);
        theirs.push(refreshed(&browser).await);
    }
    browser.close().await;
    stop.cancel();
    served.await.expect("it drains");

    let middle = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let (ours, theirs) = (middle(&mut ours), middle(&mut theirs));
    println!("from \"the record says ready\" to the site on the screen, median of {WAKES}:");
    println!(
        "  the waiting page                   {:>6} ms (<= 150 ms)",
        ours.as_millis()
    );
    println!(
        "  a page that loads itself again     {:>6} ms",
        theirs.as_millis()
    );
    println!(
        "  ratio                              {:.2} x",
        ours.as_secs_f64() / theirs.as_secs_f64()
    );
}

/// A session that is waking, a person who waits for it, and the moment at which it is ready.
async fn waited(
    store: &LocalStore,
    config: &ClientConfig,
    browser: &Browser,
    port: u16,
    number: u64,
) -> Duration {
    let sessions = store.sessions();
    let id = SessionId::new(&config.client_id, u128::from(number + 1).to_be_bytes());
    let thread = format!("thread-{number}").parse().expect("a thread");
    let now = Timestamp::now();
    let session = Session::new(
        id.clone(),
        config.client_id.clone(),
        thread,
        "amelia".to_owned(),
        now,
    );
    sessions.create(&session).await.expect("created");
    let key = ProofKey("5a".repeat(32));
    let proof = Proof::new(&key, id.clone(), Generation(1)).expect("a key");
    let page = format!("<!doctype html><title>site</title><h1>Site {number}</h1>");
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n{page}",
        page.len()
    );
    let answer = answer.into_bytes();
    let door = Door::open(
        proof.clone(),
        Proves::Well(proof),
        Arc::new(move |_| answer.clone()),
    )
    .await;
    let until = now.plus(Duration::from_secs(600));
    let take = async |generation: u64, step: Transition| {
        let taken = sessions
            .transition(&id, Generation(generation), &step, 100, Timestamp::now())
            .await;
        taken.expect("answered").expect("taken");
    };
    take(
        0,
        Transition::Wake {
            seen: Generation(0),
            proof_key: key,
            lease_until: until,
        },
    )
    .await;
    take(
        1,
        Transition::Claim {
            task: "task".to_owned(),
            lease_until: until,
        },
    )
    .await;
    take(
        1,
        Transition::Phase {
            phase: contract::session::Phase::Serve,
            lease_until: until,
        },
    )
    .await;
    // One session at a time in a browser: what was open before is left.
    browser.open("about:blank").await;
    browser
        .command("Network.clearBrowserCookies", json!({}))
        .await;
    browser
        .open(&format!(
            "http://edit.amelia.localhost:{port}/session/{id}/"
        ))
        .await;
    browser
        .until(
            "document.querySelector('[aria-current=step]') !== null",
            &json!(true),
        )
        .await;
    let address: SocketAddr = door.address();
    let began = Instant::now();
    take(
        1,
        Transition::Register {
            ip: address.ip().to_string(),
            port: address.port(),
            site: SiteHealth::Ok,
            isolation: None,
            lease_until: until,
        },
    )
    .await;
    browser
        .until(
            "document.querySelector('h1')?.textContent",
            &json!(format!("Site {number}")),
        )
        .await;
    began.elapsed()
}

/// The same with a page that loads itself again.
async fn refreshed(browser: &Browser) -> Duration {
    let ready = Arc::new(AtomicBool::new(false));
    let shown = Arc::clone(&ready);
    let router = axum::Router::new().fallback(move || {
        let ready = shown.load(Ordering::SeqCst);
        async move {
            let page = if ready {
                "<!doctype html><title>site</title><h1>Site</h1>".to_owned()
            } else {
                format!("<!doctype html><title>wait</title><meta http-equiv=refresh content={REFRESH_SECONDS}><h1>Wait</h1>")
            };
            axum::response::Html(page)
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("bound");
    let served = tokio::spawn(async move { axum::serve(listener, router).await });
    browser.open(&format!("http://{address}/")).await;
    browser
        .until("document.querySelector('h1')?.textContent", &json!("Wait"))
        .await;
    let began = Instant::now();
    ready.store(true, Ordering::SeqCst);
    browser
        .until("document.querySelector('h1')?.textContent", &json!("Site"))
        .await;
    let took = began.elapsed();
    served.abort();
    took
}
