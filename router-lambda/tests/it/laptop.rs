//! The whole system on a laptop, as a person uses it: the real router, real agents, real sites, a real browser.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use contract::session::State;
use contract::{Session, SessionId};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use platform::local::LocalStore;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::support::browser::Browser;

/// A site that is installed for the first time takes its time on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// A folder with clients and state. Dependencies are shared by all runs: they are the same every time.
struct Desk {
    folder: TempDir,
}

impl Desk {
    /// Two clients, whose environments sleep after so many minutes.
    fn new(idle_minutes: f64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clients = folder.path().join("clients");
        std::fs::create_dir_all(&clients).expect("made");
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
        for client in ["amelia", "bruno"] {
            let file = fixtures.join("clients").join(format!("{client}.json"));
            let text = std::fs::read_to_string(file).expect("a client");
            let mut config: Value = serde_json::from_str(&text).expect("JSON");
            config["repository"]["url"] = json!(fixtures.join("amelia-astro"));
            config["settings"]["idleTimeoutMinutes"] = json!(idle_minutes);
            let to = clients.join(format!("{client}.json"));
            std::fs::write(to, config.to_string()).expect("written");
        }
        let state = folder.path().join("state");
        std::fs::create_dir_all(&state).expect("made");
        let store = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dependencies");
        std::fs::create_dir_all(&store).expect("made");
        std::os::unix::fs::symlink(store, state.join("store")).expect("linked");
        Self { folder }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn router() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edit-router"));
        // Not what `cargo test` says: the router would build the agent.
        command
            .env_remove("CARGO_MANIFEST_DIR")
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    async fn serves(&self) -> Laptop {
        let agent = Path::new(env!("CARGO_BIN_EXE_edit-router")).with_file_name("edit-agent");
        assert!(
            agent.is_file(),
            "{} is missing: cargo test --workspace builds it",
            agent.display()
        );
        let mut child = Self::router()
            .args(["serve", "--local", "--port", "0", "--verbose"])
            .arg("--state")
            .arg(self.state())
            .arg("--clients")
            .arg(self.folder.path().join("clients"))
            .arg("--agent")
            .arg(agent)
            .spawn()
            .expect("the router starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut stderr = child.stderr.take().expect("piped");
        let log = tokio::spawn(async move {
            let mut text = String::new();
            stderr.read_to_string(&mut text).await.ok();
            text
        });
        let mut shown = Vec::new();
        while shown.len() < 2 {
            let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
            match line.expect("it says its links").expect("text") {
                Some(line) if line.trim().starts_with("http") => shown.push(line.trim().to_owned()),
                Some(_) => {}
                None => panic!("the router ended: {}", log.await.expect("read")),
            }
        }
        Laptop {
            child,
            links: shown,
            log,
        }
    }

    /// What a command of the router prints.
    async fn says(&self, arguments: &[&str]) -> String {
        let mut command = Self::router();
        command
            .args(arguments)
            .arg("--local")
            .arg("--state")
            .arg(self.state());
        let output = command.output().await.expect("it runs");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout)
            .expect("text")
            .trim()
            .to_owned()
    }

    async fn sessions(&self) -> Vec<Session> {
        let store = LocalStore::open(&self.state().join("edit.sqlite")).expect("open");
        let mut all = Vec::new();
        for client in store.clients().list().await.expect("listed") {
            all.extend(store.sessions().list(&client).await.expect("listed"));
        }
        all
    }

    /// The record of a session, once it is as wanted.
    async fn session_when(
        &self,
        id: &SessionId,
        what: &str,
        wanted: impl Fn(&Session) -> bool,
    ) -> Session {
        let store = LocalStore::open(&self.state().join("edit.sqlite")).expect("open");
        let sessions = store.sessions();
        let mut last = None;
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let session = sessions.get(id).await.expect("answered").expect("it stays");
                if wanted(last.insert(session)) {
                    return;
                }
                sessions.changed(Duration::from_millis(200)).await;
            }
        });
        assert!(found.await.is_ok(), "never {what}; last: {last:#?}");
        last.expect("looked at")
    }
}

struct Laptop {
    child: Child,
    links: Vec<String>,
    log: tokio::task::JoinHandle<String>,
}

impl Laptop {
    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().expect("it runs").cast_signed())
    }

    /// Ctrl-C; its exit code and everything it said.
    async fn stops(mut self) -> (Option<i32>, String) {
        kill(self.pid(), Signal::SIGINT).expect("told");
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = ended.expect("it ends").expect("waited");
        (status.code(), self.log.await.expect("read"))
    }

    /// Dies without a word.
    async fn dies(mut self) {
        self.child.kill().await.expect("killed");
    }
}

const HEADING: &str = "document.querySelector('h1')?.textContent.trim() ?? ''";
const HOST: &str = "location.hostname";

/// Waits for the site, and returns every headline of the waiting page that was seen before.
async fn arrives(browser: &Browser, heading: &str) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    let arrived = tokio::time::timeout(PATIENCE, async {
        loop {
            let now = browser.ask("[location.hostname, document.querySelector('h1')?.textContent.trim() ?? '', document.querySelector('[aria-current=step]')?.textContent.trim() ?? '']").await;
            if now[0].as_str().is_some_and(|host| host.contains("--"))
                && now[1].as_str().is_some_and(|text| text.contains(heading))
            {
                return;
            }
            let step = now[2].as_str().unwrap_or_default().to_owned();
            if !step.is_empty() && seen.last() != Some(&step) {
                seen.push(step);
            }
        }
    });
    assert!(
        arrived.await.is_ok(),
        "the site never came; the steps were {seen:?}, and now it is {}",
        browser.ask("document.body?.innerText ?? ''").await
    );
    seen
}

/// Changes the heading of the front page, as the bar of the page does.
async fn replaces(browser: &Browser, session: &Session, find: &str, replace: &str) {
    let instruction = json!({
        "version": 1, "instructionId": "heading", "clientId": session.client_id, "sessionId": session.session_id, "submittedAt": "2026-11-27T12:00:00.000Z",
        "action": { "type": "edit", "changes": [{ "op": "replace", "path": "src/pages/index.astro", "find": find, "replace": replace }] },
    });
    let script = format!(
        "(() => {{ window.sent = '…'; fetch('/_edit/instructions', {{ method: 'POST', headers: {{ 'content-type': 'application/json' }}, body: JSON.stringify({instruction}) }}).then(async (answer) => {{ window.sent = answer.status + ' ' + await answer.text(); }}); }})()"
    );
    browser.ask(&script).await;
    let sent = tokio::time::timeout(PATIENCE, async {
        loop {
            match browser.ask("window.sent").await.as_str() {
                Some("…") | None => {}
                Some(sent) => return sent.to_owned(),
            }
        }
    });
    let sent = sent.await.expect("it is answered");
    assert!(sent.starts_with("202"), "{sent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clients_and_three_sessions_wake_wait_live_sleep_and_wake_again() {
    let desk = Desk::new(0.1);
    let laptop = desk.serves().await;

    // A link, a waiting page that says what happens, and the site on the session's own host.
    let browser = Browser::start().await;
    browser.has_focus(true).await;
    browser.open(&laptop.links[0]).await;
    let steps = arrives(&browser, "Rare stamps").await;
    assert!(
        !steps.is_empty(),
        "the waiting page said nothing of what it waits for"
    );
    let first = browser.ask(HOST).await;
    assert!(
        first
            .as_str()
            .is_some_and(|host| host.ends_with("--amelia.localhost")),
        "{first}"
    );
    let amelia = &desk.sessions().await[0];

    // A change shows by itself, through the router's socket.
    replaces(&browser, amelia, "Rare stamps", "Rare and old stamps").await;
    browser
        .until(
            &format!("({HEADING}).startsWith('Rare and old stamps')"),
            &json!(true),
        )
        .await;

    // A second session of the same client and one of another, each on its own host.
    let link = desk
        .says(&["link", "--client", "amelia", "--thread", "summer"])
        .await;
    browser.open(&link).await;
    arrives(&browser, "Rare stamps").await;
    let second = browser.ask(HOST).await;
    assert_ne!(first, second);
    browser.open(&laptop.links[1]).await;
    arrives(&browser, "Rare stamps").await;
    let third = browser.ask(HOST).await;
    assert!(
        third
            .as_str()
            .is_some_and(|host| host.ends_with("--bruno.localhost")),
        "{third}"
    );
    let sessions = desk.sessions().await;
    assert_eq!(sessions.len(), 3);
    let tasks: std::collections::BTreeSet<_> = sessions
        .iter()
        .map(|session| session.wakes_ms.len())
        .collect();
    assert_eq!(tasks, [1].into(), "each was woken once");

    // Amelia's session is not there on Bruno's host, and says nothing of itself.
    let port = laptop.links[0]
        .rsplit_once(':')
        .map(|(_, rest)| rest.split('/').next().unwrap_or_default().to_owned())
        .expect("a port");
    browser
        .open(&format!(
            "http://edit.bruno.localhost:{port}/session/{}/",
            amelia.session_id
        ))
        .await;
    let foreign = browser.ask("document.body.innerText").await;
    browser
        .open(&format!(
            "http://edit.bruno.localhost:{port}/session/bruno_nobody/"
        ))
        .await;
    assert_eq!(browser.ask("document.body.innerText").await, foreign);

    // Nobody is there: it sleeps, and says so.
    browser.open("about:blank").await;
    desk.session_when(&amelia.session_id, "asleep", |session| {
        session.state == State::Dormant
    })
    .await;
    let said = desk.says(&["inspect", amelia.session_id.as_str()]).await;
    assert!(said.contains("it sleeps"), "{said}");

    // Somebody comes back: it wakes by itself, and the change is there.
    browser
        .open(&format!(
            "http://{}:{port}/",
            first.as_str().expect("a host")
        ))
        .await;
    let steps = arrives(&browser, "Rare and old stamps").await;
    assert!(!steps.is_empty(), "there was no waiting page");
    let again = desk
        .session_when(&amelia.session_id, "ready", |session| {
            session.state == State::Ready
        })
        .await;
    assert_eq!(again.generation.0, 2);
    assert_eq!(
        again.wakes_ms.len(),
        2,
        "what the next wake is expected to take"
    );
    browser.close().await;

    // Ctrl-C: everything is saved.
    let (code, log) = laptop.stops().await;
    assert_eq!(code, Some(0), "{log}");
    for session in desk.sessions().await {
        assert_eq!(session.state, State::Dormant, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_was_killed_finds_its_environments_again() {
    let desk = Desk::new(30.0);
    let laptop = desk.serves().await;
    let browser = Browser::start().await;
    browser.has_focus(true).await;
    browser.open(&laptop.links[0]).await;
    arrives(&browser, "Rare stamps").await;
    let before = desk.sessions().await.remove(0);
    laptop.dies().await;

    let laptop = desk.serves().await;
    browser.open(&laptop.links[0]).await;
    arrives(&browser, "Rare stamps").await;
    browser.close().await;
    let after = desk.sessions().await.remove(0);
    assert_eq!(
        (after.generation, &after.task_arn),
        (before.generation, &before.task_arn),
        "the same environment goes on"
    );
    // Nobody's child any more, and yet it is told to stop by its own means when nobody needs it; here it is in the way.
    let (code, log) = laptop.stops().await;
    assert_eq!(code, Some(0), "{log}");
    stop_what_is_left(&desk.state());
}

/// Stops the agents whose router was killed: they have this state on their command line.
fn stop_what_is_left(state: &Path) {
    let state = state.display().to_string();
    for entry in std::fs::read_dir("/proc").expect("processes").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        if command.contains("edit-agent") && command.contains(&state) {
            kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
        }
    }
}
