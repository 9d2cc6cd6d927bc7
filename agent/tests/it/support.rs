//! The vocabulary of the stories: a developer's repository, a running environment, and what can be asked of it.
//!
//! Everything is real: `git` on the command line, the `edit-agent` binary, `astro dev`. All environments share one state
//! folder, as on a developer's machine, so that dependencies are installed once a run.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

// Named, so that the benchmark finds it too.
#[path = "support/browser.rs"]
pub mod browser;
#[path = "support/ecs.rs"]
pub mod ecs;
#[allow(dead_code, reason = "only the benchmarks say figures")]
#[path = "support/figures.rs"]
pub mod figures;
#[path = "support/seat.rs"]
pub mod seat;

/// Everything that is waited for comes within this time, or the test says what it last saw.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The repository of this workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the agent is in the workspace")
        .to_owned()
}

/// The fixture site.
pub fn fixture() -> PathBuf {
    workspace().join("fixtures/amelia-astro")
}

/// The state folder of this run. Stored dependencies are kept from run to run; nothing else is.
pub fn state() -> &'static Path {
    static STATE: OnceLock<PathBuf> = OnceLock::new();
    STATE.get_or_init(|| {
        let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join("state");
        for stale in [
            "environments",
            "edit.sqlite",
            "edit.sqlite-wal",
            "edit.sqlite-shm",
        ] {
            let path = state.join(stale);
            if path.is_dir() {
                std::fs::remove_dir_all(&path).expect("removed");
            } else if path.exists() {
                std::fs::remove_file(&path).expect("removed");
            }
        }
        std::fs::create_dir_all(&state).expect("made");
        state
    })
}

/// Runs git and returns what it printed.
pub fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = git_command(folder)
        .args(arguments)
        .output()
        .expect("git runs");
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned()
}

/// A git command that knows nothing of this machine's configuration.
pub fn git_command(folder: &Path) -> std::process::Command {
    let mut command = std::process::Command::new("git");
    command
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null");
    for (name, value) in [("NAME", "Dora Developer"), ("EMAIL", "dora@example.com")] {
        command
            .env(format!("GIT_AUTHOR_{name}"), value)
            .env(format!("GIT_COMMITTER_{name}"), value);
    }
    command
}

/// A developer's repository: a work tree with the branch `main`.
#[derive(Debug)]
pub struct Repository {
    folder: TempDir,
}

impl Repository {
    /// The fixture site, committed.
    pub fn amelia() -> Self {
        let repository = Self::empty();
        copy_tree(&fixture(), repository.path());
        repository.commit_all("The site");
        repository
    }

    /// The fixture site on the newest Astro. It needs [`crate::site::versions::node_24`].
    pub fn amelia_on_the_newest_astro() -> Self {
        let repository = Self::empty();
        copy_tree(&fixture(), repository.path());
        let manifest =
            std::fs::read_to_string(repository.path().join("package.json")).expect("there");
        let mut newest: Value = serde_json::from_str(&manifest).expect("JSON");
        newest["engines"]["node"] = json!(">=22.12.0");
        newest["dependencies"]["astro"] = json!("7.3.5");
        newest["dependencies"]["@astrojs/preact"] = json!("6.0.5");
        repository.write("package.json", &newest.to_string());
        std::fs::remove_file(repository.path().join("package-lock.json")).expect("removed");
        repository.commit_all("The site");
        repository
    }

    /// No commit yet.
    pub fn empty() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("amelia-")
            .tempdir()
            .expect("a folder");
        git(
            folder.path(),
            &["init", "--quiet", "--initial-branch", "main"],
        );
        Self { folder }
    }

    /// A bare repository with the branches of this one. Whoever rewrites history there is refused.
    pub fn bare_copy(&self) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("amelia-")
            .tempdir()
            .expect("a folder");
        let name = folder.path().display().to_string();
        self.git(&["clone", "--quiet", "--bare", ".", &name]);
        git(
            folder.path(),
            &["config", "receive.denyNonFastForwards", "true"],
        );
        git(
            folder.path(),
            &["config", "core.logAllRefUpdates", "always"],
        );
        Self { folder }
    }

    /// Somebody else's clone of this one, with a branch checked out.
    pub fn clone_at(&self, branch: &str) -> Self {
        let clone = Self::empty();
        clone.git(&["fetch", "--quiet", &self.address(), branch]);
        clone.git(&["checkout", "--quiet", "-b", branch, "FETCH_HEAD"]);
        clone
    }

    /// Its work tree, or, if it is bare, its git directory.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until a folder shows exactly the files of a branch, and nothing else but what is installed or generated.
    pub async fn is_shown_in(&self, branch: &str, folder: &Path) {
        let format = "--format=%(objectmode) %(objectname) %(path)";
        let expected = self.git(&["ls-tree", "-r", format, branch]);
        let expected: BTreeSet<String> = expected.lines().map(str::to_owned).collect();
        let mut last = BTreeSet::new();
        let shown = tokio::time::timeout(PATIENCE, async {
            loop {
                last = self.described(folder);
                if last == expected {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
        assert!(
            shown.await.is_ok(),
            "it has not {:#?}, but {:#?}",
            expected.difference(&last),
            last.difference(&expected)
        );
    }

    /// The files of a folder, as `git ls-tree` lists those of a commit.
    fn described(&self, folder: &Path) -> BTreeSet<String> {
        use std::os::unix::fs::PermissionsExt as _;
        let mut files = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            // A folder may go while it is read: the next look will tell.
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if !is_folder {
                    files.push(entry.path());
                } else if !NOT_OF_THE_SITE
                    .iter()
                    .any(|name| entry.file_name() == *name)
                {
                    folders.push(entry.path());
                }
            }
        }
        let hashes = git_command(self.path())
            .args(["hash-object", "--no-filters", "--"])
            .args(&files)
            .output()
            .expect("git runs");
        let hashes = String::from_utf8_lossy(&hashes.stdout).into_owned();
        let mut lines = BTreeSet::new();
        for (file, hash) in files.iter().zip(hashes.lines()) {
            // What is gone by now is not shown any more.
            let mode = file.metadata().map_or(0, |file| file.permissions().mode());
            let mode = if mode & 0o111 == 0 {
                "100644"
            } else {
                "100755"
            };
            let path = file.strip_prefix(folder).expect("below").display();
            lines.insert(format!("{mode} {hash} {path}"));
        }
        lines
    }

    /// Its address for `dev`.
    pub fn address(&self) -> String {
        self.path().display().to_string()
    }

    /// Writes a file into its work tree.
    pub fn write(&self, path: &str, content: &str) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().expect("below the work tree")).expect("made");
        std::fs::write(path, content).expect("written");
    }

    /// Commits everything in its work tree.
    pub fn commit_all(&self, message: &str) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", message]);
    }

    /// Runs git in it.
    pub fn git(&self, arguments: &[&str]) -> String {
        git(self.path(), arguments)
    }

    /// The content of a file on a branch.
    pub fn show(&self, branch: &str, path: &str) -> String {
        self.git(&["show", &format!("{branch}:{path}")])
    }

    /// The commits of a branch that are not on `main`, newest first, by their subjects.
    pub fn subjects(&self, branch: &str) -> Vec<String> {
        self.git(&["log", "--format=%s", &format!("main..{branch}")])
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// Proves from the reflog that a branch was only ever moved forwards.
    pub fn was_never_forced(&self, branch: &str) {
        let moves = self.git(&[
            "reflog",
            "show",
            "--format=%H",
            &format!("refs/heads/{branch}"),
        ]);
        let tips: Vec<&str> = moves.lines().collect();
        for pair in tips.windows(2) {
            self.git(&["merge-base", "--is-ancestor", pair[1], pair[0]]);
        }
    }

    /// How many commits of a branch carry this instruction's trailer.
    pub fn commits_of(&self, branch: &str, instruction: &str) -> usize {
        let trailers = self.git(&[
            "log",
            "--format=%(trailers:key=Edit-Instruction,valueonly)",
            branch,
        ]);
        trailers
            .lines()
            .filter(|line| line.trim() == instruction)
            .count()
    }
}

/// What is installed, generated or built.
const NOT_OF_THE_SITE: [&str; 4] = ["node_modules", "dist", ".astro", ".git"];

/// Copies the files of a site without what is installed or built.
pub fn copy_tree(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = entry.file_name();
        if ["node_modules", "dist", ".astro", ".git"]
            .iter()
            .any(|skipped| name == *skipped)
        {
            continue;
        }
        let target = to.join(&name);
        if entry.file_type().expect("a kind").is_dir() {
            std::fs::create_dir_all(&target).expect("made");
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("copied");
        }
    }
}

/// The agent's binary, with an environment in which nothing of this machine's configuration is found.
pub fn agent() -> Command {
    started_by(env!("CARGO_BIN_EXE_edit-agent"))
}

fn started_by(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("EDIT_AGENT_STATE", state())
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env_remove("RUST_LOG")
        .kill_on_drop(true);
    command
}

/// How an environment is to be started.
#[derive(Debug)]
pub struct Start {
    command: Command,
}

/// A running environment.
#[derive(Debug)]
pub struct Environment {
    child: Child,
    events: Lines<BufReader<ChildStdout>>,
    /// What `ready` said.
    pub ready: Value,
    /// All events so far.
    pub seen: Vec<Value>,
    log: tokio::task::JoinHandle<String>,
}

impl Start {
    /// `edit-agent dev` of a repository, on any free port.
    pub fn of(repository: &str) -> Self {
        Self::of_any_port(repository).with(&["--port", "0"])
    }

    /// `edit-agent dev` of a repository; the port is for the caller to name.
    pub fn of_any_port(repository: &str) -> Self {
        let mut command = agent();
        command.args(["-v", "dev", repository, "--json"]);
        Self { command }
    }

    /// As [`Start::of`], with its workspace on a disk of its own, so large. The disk is gone when the agent is, and nobody else
    /// sees it but through [`Environment::on_its_disk`].
    pub fn of_on_a_disk_of(repository: &str, size: &str, folder: &Path) -> Self {
        let mut command = started_by("unshare");
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let mounted = r#"mount -t tmpfs -o size="$0" none "$1" && shift && exec "$@""#;
        command
            .args(["--mount", "sh", "-c", mounted, size])
            .arg(folder)
            .args([env!("CARGO_BIN_EXE_edit-agent"), "-v", "dev", repository])
            .args(["--json", "--port", "0", "--workspace"])
            .arg(folder);
        Self { command }
    }

    /// With further arguments.
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    /// With a variable.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts it and waits until it is ready.
    pub async fn ready(self) -> Environment {
        let mut environment = self.spawn();
        environment.ready = environment.event("ready").await;
        environment
    }

    /// Starts it and does not wait.
    pub fn spawn(mut self) -> Environment {
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("the agent starts");
        let events = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut stderr = child.stderr.take().expect("piped");
        let log = tokio::spawn(async move {
            let mut text = String::new();
            stderr.read_to_string(&mut text).await.expect("readable");
            text
        });
        Environment {
            child,
            events,
            ready: Value::Null,
            seen: Vec::new(),
            log,
        }
    }

    /// Starts it, and returns how it ended and what it said for people. For starts that fail.
    pub async fn failure(mut self) -> (i32, String) {
        let output = tokio::time::timeout(PATIENCE, self.command.stdin(Stdio::null()).output())
            .await
            .expect("it ends")
            .expect("it ran");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let words = text
            .lines()
            .skip_while(|line| !line.starts_with("error:"))
            .collect::<Vec<_>>()
            .join("\n");
        (
            output.status.code().unwrap_or(-1),
            if words.is_empty() { text } else { words },
        )
    }
}

/// What `look` gives, once it is as `expected` says.
pub async fn value_when(
    what: &str,
    expected: impl Fn(&Value) -> bool,
    look: impl AsyncFn() -> Value,
) -> Value {
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    let mut last = Value::Null;
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            pace.tick().await;
            last = look().await;
            if expected(&last) {
                return;
            }
        }
    });
    assert!(found.await.is_ok(), "never {what}; last: {last:#}");
    last
}

impl Environment {
    /// Waits for the next event of this name.
    pub async fn event(&mut self, name: &str) -> Value {
        loop {
            let line = match tokio::time::timeout(PATIENCE, self.events.next_line()).await {
                Ok(Ok(Some(line))) => line,
                Ok(_) => panic!(
                    "the agent ended before `{name}`; it said:\n{}\nand\n{:#?}",
                    self.rest_of_log().await,
                    self.seen
                ),
                Err(elapsed) => panic!(
                    "no `{name}`: {elapsed} ({PATIENCE:?}); last: {:#?}",
                    self.seen.last()
                ),
            };
            let event: Value =
                serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            self.seen.push(event.clone());
            if event["event"] == name {
                return event;
            }
        }
    }

    async fn rest_of_log(&mut self) -> String {
        (&mut self.log).await.unwrap_or_default()
    }

    /// A path as it sees it.
    pub fn on_its_disk(&self, path: &Path) -> PathBuf {
        let path = path.strip_prefix("/").expect("absolute");
        Path::new("/proc")
            .join(self.pid().to_string())
            .join("root")
            .join(path)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// The address of its door, such as `http://127.0.0.1:43210`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ready["port"])
    }

    /// Where the agent keeps its clone and its work tree.
    pub fn workspace(&self) -> PathBuf {
        PathBuf::from(self.ready["workspace"].as_str().expect("a path"))
    }

    /// Where the agent keeps its work tree.
    pub fn work_tree(&self) -> PathBuf {
        self.workspace().join("tree")
    }

    /// Sends with `edit-agent send … --json`, and returns its exit code and the receipt.
    pub async fn send<A: AsRef<OsStr>>(&self, arguments: &[A]) -> (i32, Value) {
        let output = self.send_output(arguments).await;
        let receipt = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| json!({ "stderr": String::from_utf8_lossy(&output.stderr) }));
        (output.status.code().unwrap_or(-1), receipt)
    }

    /// Sends with `edit-agent send … --json`, and returns everything it said.
    pub async fn send_output<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Output {
        let mut command = agent();
        command
            .args([
                "send",
                "--json",
                "--url",
                &self.url(),
                "--author",
                "Amelia <amelia@ameliastamps.com>",
            ])
            .args(arguments)
            .current_dir("/");
        tokio::time::timeout(PATIENCE, command.stdin(Stdio::null()).output())
            .await
            .expect("send ends")
            .expect("send runs")
    }

    /// Sends, and expects it to land.
    pub async fn lands<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Value {
        let (code, receipt) = self.send(arguments).await;
        assert_eq!(
            (code, receipt["status"].as_str()),
            (0, Some("pushed")),
            "{receipt:#}"
        );
        receipt
    }

    /// Sends, and expects it to be rejected with this code.
    pub async fn is_rejected(&self, arguments: &[&str], expected: &str) -> Value {
        let (code, receipt) = self.send(arguments).await;
        assert_eq!(
            (
                code,
                receipt["status"].as_str(),
                receipt["error"]["code"].as_str()
            ),
            (1, Some("rejected"), Some(expected)),
            "{receipt:#}"
        );
        let id = receipt["instructionId"].as_str().expect("an id");
        self.is_told_plainly(id).await;
        receipt
    }

    /// What became of an instruction in an owner's words: the same with its receipt and in what happens, and with nothing in
    /// it that an owner has never heard of.
    pub async fn is_told_plainly(&self, id: &str) -> String {
        let receipt = self.get(&format!("/_edit/instructions/{id}")).await.json();
        let sentence = receipt["sentence"].as_str().expect("a sentence").to_owned();
        let mut events = self.events(Some(0)).await;
        loop {
            let (_, event) = events.next().await.expect("it goes on");
            if event["event"] == "receipt" && event["instructionId"] == id {
                assert_eq!(event["sentence"], sentence, "{event:#}");
                break;
            }
        }
        is_plain(&sentence);
        sentence
    }

    /// Publishes, and expects that it lands.
    pub async fn publishes(&self, arguments: &[&str]) -> Value {
        let arguments = [&["--publish"], arguments].concat();
        let (code, receipt) = self.send(&arguments).await;
        assert_eq!(
            (code, receipt["status"].as_str()),
            (0, Some("published")),
            "{receipt:#}"
        );
        receipt
    }

    /// Sends an action that has no option of its own, and expects it to land.
    pub async fn does(&self, id: &str, action: &Value) -> Value {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let message = json!({ "instructionId": id, "action": action });
        std::io::Write::write_all(&mut file, message.to_string().as_bytes()).expect("written");
        self.lands(&[file.path()]).await
    }

    /// Sends as a person in a folder does, and returns the exit code and what they read.
    pub async fn says(&self, folder: &Path, arguments: &[&str]) -> (i32, String) {
        let mut command = agent();
        command.args(["send", "--url", &self.url()]).args(arguments);
        let output = command.current_dir(folder).stdin(Stdio::null()).output();
        let output = tokio::time::timeout(PATIENCE, output)
            .await
            .expect("send ends")
            .expect("send runs");
        let words = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&words).into_owned(),
        )
    }

    /// `edit-agent log` with these arguments.
    pub async fn log(&self, arguments: &[&str]) -> String {
        let mut command = agent();
        command.args(["log", "--url", &self.url()]).args(arguments);
        let output = command.current_dir("/").stdin(Stdio::null()).output();
        let output = tokio::time::timeout(PATIENCE, output)
            .await
            .expect("log ends")
            .expect("log runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What was done on the draft.
    pub async fn history(&self) -> Value {
        self.get("/_edit/history").await.json()
    }

    /// What was done on the draft, with the receipts.
    pub async fn history_with_receipts(&self) -> Value {
        self.get("/_edit/history?receipts").await.json()
    }

    /// What was done on the draft, once it is as `expected` says.
    pub async fn history_when(&self, what: &str, expected: impl Fn(&Value) -> bool) -> Value {
        value_when(what, expected, || self.history()).await
    }

    /// Asks the door.
    pub async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], None).await
    }

    /// Posts JSON to the door.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.request("POST", path, &[], Some(body.to_string()))
            .await
    }

    /// Asks the door anything.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Answer {
        ask(
            &format!("127.0.0.1:{}", self.ready["port"]),
            method,
            path,
            headers,
            body,
        )
        .await
    }

    /// Waits until there is no such page.
    pub async fn page_gone(&self, path: &str) {
        let mut last = 0;
        let gone = tokio::time::timeout(PATIENCE, async {
            loop {
                last = self.get(path).await.status;
                if last == 404 {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
        assert!(gone.await.is_ok(), "{path} is still there: {last}");
    }

    /// A receipt, once it is as wanted.
    pub async fn receipt_that(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                last = self.get(&format!("/_edit/instructions/{id}")).await.json();
                if wanted(&last) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
        assert!(
            found.await.is_ok(),
            "the receipt of {id} last said {last:#}"
        );
        last
    }

    /// The status, once it is as wanted.
    pub async fn status_that(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                last = self.status().await;
                if wanted(&last) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
        assert!(found.await.is_ok(), "the status last said {last:#}");
        last
    }

    /// The final receipt of an instruction that was sent without waiting for it.
    pub async fn final_receipt(&self, id: &str) -> Value {
        let passing = ["accepted", "running", "applied"];
        self.receipt_that(id, |receipt| {
            let status = receipt["status"].as_str();
            status.is_some_and(|status| !passing.contains(&status))
        })
        .await
    }

    /// Everything at a glance.
    pub async fn status(&self) -> Value {
        self.get("/_edit/status").await.json()
    }

    /// Everything at a glance, once it is as `expected` says.
    pub async fn status_when(&self, what: &str, expected: impl Fn(&Value) -> bool) -> Value {
        value_when(what, expected, || self.status()).await
    }

    /// What happens: from the event after `after` on, or from now on.
    pub async fn events(&self, after: Option<u64>) -> EventStream {
        EventStream::open(&self.authority(), after).await
    }

    /// Listens to the dev server as a page in a browser does. `Err` is the status with which it was refused.
    pub async fn hot_reload(&self, headers: &[(&str, &str)]) -> Result<HotReload, u16> {
        let client = self.get("/@vite/client").await.text();
        HotReload::open(&self.authority(), &client, headers).await
    }

    /// Host and port of its door.
    pub fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.ready["port"])
    }

    /// The processes that were started for its workspace, each with its command line; not the agent itself.
    pub fn processes(&self) -> Vec<(i32, String)> {
        processes_of(self.ready["workspace"].as_str().expect("a path"))
    }

    /// The process of the dev server.
    pub fn dev_server(&self) -> i32 {
        let found: Vec<i32> = self
            .processes()
            .into_iter()
            .filter(|(_, line)| line.contains("runner.mjs"))
            .map(|(pid, _)| pid)
            .collect();
        assert_eq!(found.len(), 1, "{:?}", self.processes());
        found[0]
    }

    /// A page's HTML, once it contains `words`.
    pub async fn page_with(&self, path: &str, words: &str) -> String {
        let mut last = String::new();
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                last = self.get(path).await.text();
                if last.contains(words) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
        assert!(
            found.await.is_ok(),
            "{path} never said {words:?}; last it said:\n{}",
            last.chars().take(3000).collect::<String>()
        );
        last
    }

    /// Interrupts it as Ctrl-C does, and does not wait.
    pub fn interrupt(&self) {
        let pid = i32::try_from(self.pid()).expect("a pid");
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGINT,
        )
        .expect("signalled");
    }

    /// Interrupts it as Ctrl-C does, and returns its last event, its exit code and what it logged.
    pub async fn stop(mut self) -> (Value, i32, String) {
        self.interrupt();
        let stopped = self.event("stopped").await;
        let (status, log) = self.ended().await;
        (stopped, status.code().unwrap_or(-1), log)
    }

    /// Kills it as `kill -9` does.
    pub async fn kill(mut self) {
        self.child.start_kill().expect("killed");
        self.child.wait().await.expect("reaped");
    }

    /// Waits until it has ended by itself.
    pub async fn ended(mut self) -> (ExitStatus, String) {
        let status = tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .expect("it ends")
            .expect("reaped");
        (status, self.rest_of_log().await)
    }
}

/// Panics if a sentence has a word in it that an owner has never heard.
pub fn is_plain(sentence: &str) {
    const UNHEARD: [&str; 16] = [
        "git",
        "branch",
        "commit",
        "merge",
        "merged",
        "rebase",
        "push",
        "pushed",
        "remote",
        "repository",
        "status",
        "http",
        "stderr",
        "trailer",
        "astro",
        "server",
    ];
    let words = sentence.split(|letter: char| !letter.is_alphanumeric());
    for word in words.map(str::to_lowercase) {
        let is_status = word.len() == 3 && word.parse().is_ok_and(|code: u16| code >= 400);
        assert!(
            !is_status && !UNHEARD.contains(&word.as_str()),
            "{word:?} is nothing for an owner: {sentence}"
        );
    }
    assert!(sentence.ends_with(['.', '!', '?']), "{sentence}");
}

/// The processes whose command line names `folder`, but the agent's own and those that have ended and wait to be reaped.
pub fn processes_of(folder: &str) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("Linux") {
        let entry = entry.expect("an entry");
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // A process that ends while we look has no command line; neither has one that has ended.
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(folder) && !line.contains(env!("CARGO_BIN_EXE_edit-agent")) {
            found.push((pid, line));
        }
    }
    found
}

/// Waits until no process names `folder` in its command line.
pub async fn no_processes_of(folder: &str) {
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let mut left = processes_of(folder);
    let gone = tokio::time::timeout(Duration::from_secs(10), async {
        while !left.is_empty() {
            pace.tick().await;
            left = processes_of(folder);
        }
    });
    assert!(gone.await.is_ok(), "still there: {left:?}");
}

/// A port of the loopback interface that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .expect("a port")
        .port()
}

/// `/_edit/events`, as it comes.
#[derive(Debug)]
pub struct EventStream {
    body: hyper::body::Incoming,
    text: String,
    _connection: tokio::task::JoinSet<()>,
}

impl EventStream {
    async fn open(authority: &str, after: Option<u64>) -> Self {
        use http_body_util::Empty;
        let stream = tokio::net::TcpStream::connect(authority)
            .await
            .expect("the door is open");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream))
                .await
                .expect("HTTP");
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            // It breaks off when the agent ends, which some tests are about.
            connection.await.ok();
        });
        let mut request = hyper::Request::get("/_edit/events").header("host", authority);
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let request = request
            .body(Empty::<hyper::body::Bytes>::new())
            .expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: response.into_body(),
            text: String::new(),
            _connection: tasks,
        }
    }

    /// The next event with its number; none when the stream has ended.
    pub async fn next(&mut self) -> Option<(u64, Value)> {
        use http_body_util::BodyExt as _;
        let next = async {
            loop {
                if let Some((event, rest)) = self.text.split_once("\n\n") {
                    let field = |name: &str| {
                        event
                            .lines()
                            .find_map(|line| line.strip_prefix(name))
                            .map(str::trim)
                    };
                    let found = field("id:").zip(field("data:")).map(|(id, data)| {
                        let id = id.parse().expect("a number");
                        (id, serde_json::from_str(data).expect("JSON"))
                    });
                    self.text = rest.to_string();
                    match found {
                        Some(found) => return Some(found),
                        None => continue, // A comment that keeps the connection alive.
                    }
                }
                let frame = self.body.frame().await?.ok()?;
                if let Ok(data) = frame.into_data() {
                    self.text.push_str(&String::from_utf8_lossy(&data));
                }
            }
        };
        tokio::time::timeout(PATIENCE, next)
            .await
            .expect("an event, or the end")
    }

    /// The states that the site goes through from here on, until it is in `last`.
    pub async fn site_states_until(&mut self, last: &str) -> Vec<String> {
        let mut states: Vec<String> = Vec::new();
        while states.last().is_none_or(|state| state != last) {
            let Some((_, event)) = self.next().await else {
                panic!("the events ended before {last}: {states:?}");
            };
            if event["event"] == "site" {
                states.push(event["state"].as_str().expect("a state").to_owned());
                states.dedup();
            }
        }
        states
    }
}

/// A connection to the dev server as a page has it.
#[derive(Debug)]
pub struct HotReload {
    socket: tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>,
}

impl HotReload {
    async fn open(authority: &str, client: &str, headers: &[(&str, &str)]) -> Result<Self, u16> {
        use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
        let (token, _) = client
            .split_once("wsToken = \"")
            .and_then(|(_, rest)| rest.split_once('"'))
            .unwrap_or_else(|| panic!("Vite's client has no token:\n{client}"));
        let mut request = format!("ws://{authority}/?token={token}")
            .into_client_request()
            .expect("a request");
        let own = [
            ("host", authority.to_owned()),
            ("origin", format!("http://{authority}")),
            ("sec-websocket-protocol", "vite-hmr".to_owned()),
        ];
        let given = headers
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        for (name, value) in own.into_iter().chain(given) {
            let name: hyper::header::HeaderName = name.parse().expect("a name");
            request
                .headers_mut()
                .insert(name, value.parse().expect("a value"));
        }
        let stream = tokio::net::TcpStream::connect(authority)
            .await
            .expect("the door is open");
        let opened =
            tokio::time::timeout(PATIENCE, tokio_tungstenite::client_async(request, stream));
        match opened.await.expect("an answer") {
            Ok((socket, response)) => {
                assert_eq!(response.headers()["sec-websocket-protocol"], "vite-hmr");
                let mut hot = Self { socket };
                assert_eq!(hot.next().await.expect("a message")["type"], "connected");
                Ok(hot)
            }
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
                Err(response.status().as_u16())
            }
            Err(error) => panic!("no WebSocket: {error}"),
        }
    }

    /// The next message; none when the connection has ended.
    pub async fn next(&mut self) -> Option<Value> {
        use futures_util::StreamExt as _;
        use tokio_tungstenite::tungstenite::Message;
        let next = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return Some(serde_json::from_str(&text).expect("JSON"));
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                    Some(Ok(_)) => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, next)
            .await
            .expect("a message, or the end")
    }

    /// Waits for a message of this type.
    pub async fn message(&mut self, kind: &str) -> Value {
        loop {
            let message = self
                .next()
                .await
                .unwrap_or_else(|| panic!("the connection ended before `{kind}`"));
            if message["type"] == kind {
                return message;
            }
        }
    }
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: hyper::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// One request on a connection of its own.
pub async fn ask(
    authority: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<String>,
) -> Answer {
    use http_body_util::{BodyExt as _, Full};
    let asked = async {
        let stream = tokio::net::TcpStream::connect(authority)
            .await
            .expect("the door is open");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream))
                .await
                .expect("HTTP");
        let driver = tokio::spawn(connection);
        let mut request = hyper::Request::builder().method(method).uri(path);
        if !headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            request = request.header("host", authority);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(hyper::body::Bytes::from(
                body.unwrap_or_default(),
            )))
            .expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .expect("a whole body")
            .to_bytes()
            .to_vec();
        driver.abort();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        }
    };
    tokio::time::timeout(PATIENCE, asked)
        .await
        .unwrap_or_else(|_| panic!("{method} {path} was not answered within {PATIENCE:?}"))
}

/// An instruction with one edit of the fixture, for tests that post it themselves.
pub fn instruction(environment: &Environment, status: &Value, id: &str, changes: &Value) -> Value {
    assert!(environment.ready.is_object());
    json!({
        "version": 1,
        "instructionId": id,
        "clientId": status["clientId"],
        "sessionId": status["sessionId"],
        "submittedAt": "2026-11-22T09:30:00.000Z",
        "author": { "name": "Amelia", "email": "amelia@ameliastamps.com" },
        "action": { "type": "edit", "changes": changes },
    })
}
