//! Containers as the stories speak of them.
//!
//! ```text
//!  Recipe::agent().memory_mib(256).read_only() ── run(["…"]) ──▶ Ended        it came to its end by itself
//!                                              └─ start(["…"]) ─▶ Running     until it is stopped, killed or forgotten
//! ```
//!
//! Everything that a story makes has the label of its run and goes when it is dropped; `docker/test` removes by that label
//! what a killed story has left. Waits are for what has happened, not for a moment to pass: a line that was written
//! before anybody waited for it counts. Every wait has a bound, and says at it what was there.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long the engine may take for anything but what a container itself does.
const ENGINE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a container may take that is to come to an end by itself.
const RUN_TIME_MAX: Duration = Duration::from_secs(330);
/// How often is looked at what nobody tells us.
const LOOK: Duration = Duration::from_millis(25);
/// How many lines of a container's log are shown with a story that failed.
const SHOWN_LINES: usize = 40;
/// What `timeout` ends with when it had to end the command.
const TIMED_OUT: i32 = 124;

/// What `docker/test` tells the stories.
pub(crate) fn told(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: these stories are run by docker/test"))
}

/// Calls the engine, and ends it if it takes too long.
fn ask_at_most<I, S>(within: Duration, arguments: I) -> Output
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    Command::new("timeout")
        .arg("--kill-after=5")
        .arg(within.as_secs().to_string())
        .arg(told("STORIES_ENGINE"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("coreutils are there")
}

/// Calls the engine, and gives what came of it however it ended.
fn ask<I, S>(within: Duration, arguments: I) -> Output
where
    I: IntoIterator<Item = S>,
    S: Into<OsString>,
{
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let output = ask_at_most(within, &arguments);
    assert_ne!(
        output.status.code(),
        Some(TIMED_OUT),
        "the engine took longer than {within:?} for {arguments:?}"
    );
    output
}

/// Calls the engine, which has to succeed.
fn order<I, S>(arguments: I) -> String
where
    I: IntoIterator<Item = S>,
    S: Into<OsString>,
{
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let output = ask(ENGINE_TIME_MAX, &arguments);
    assert!(
        output.status.success(),
        "{arguments:?} ended with {}: {}",
        output.status,
        text(&output.stderr)
    );
    text(&output.stdout)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// A name that nothing else has.
fn fresh(kind: &str) -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    format!("story-{}-{number}-{kind}", told("STORIES_RUN"))
}

fn label() -> String {
    format!("edit-environments.run={}", told("STORIES_RUN"))
}

/// What the engine says of an image's configuration: `Entrypoint`, `Healthcheck`, `StopSignal`, `Labels`, ….
pub(crate) fn configuration(image: &str) -> Value {
    let said = order(["image", "inspect", image]);
    let mut said: Value = serde_json::from_str(&said).expect("the engine speaks JSON");
    let mut configuration = said[0]["Config"].take();
    // Podman has it beside the rest.
    if configuration["Healthcheck"].is_null() {
        configuration["Healthcheck"] = said[0]["Healthcheck"].take();
    }
    configuration
}

/// The image of an environment.
pub(crate) fn agent_image() -> String {
    told("STORIES_AGENT_IMAGE")
}

/// The image of the gateway.
pub(crate) fn router_image() -> String {
    told("STORIES_ROUTER_IMAGE")
}

/// A network that nothing but the containers of one story and the story itself is in. It has no way out.
#[derive(Debug)]
pub(crate) struct Network {
    name: String,
    number: u32,
}

impl Network {
    pub(crate) fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = fresh("network");
        let (label, subnet) = (label(), format!("10.77.{number}.0/24"));
        // Podman puts no address of ours into an internal network without names; around its networks is a namespace that
        // has no way out itself.
        let closed = if told("STORIES_ENGINE") == "podman" {
            "--disable-dns"
        } else {
            "--internal"
        };
        let arguments = [
            "network", "create", closed, "--label", &label, "--subnet", &subnet, &name,
        ];
        order(arguments);
        Self { name, number }
    }

    /// The address of the `host`th machine in it. The first is the story's own.
    pub(crate) fn address(&self, host: u8) -> String {
        format!("10.77.{}.{host}", self.number)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        ask(ENGINE_TIME_MAX, ["network", "rm", "--force", &self.name]);
    }
}

/// A volume that outlives the containers of a story.
#[derive(Debug)]
pub(crate) struct Volume {
    name: String,
}

impl Volume {
    pub(crate) fn new() -> Self {
        let name = fresh("volume");
        order(["volume", "create", "--label", &label(), &name]);
        Self { name }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        ask(ENGINE_TIME_MAX, ["volume", "rm", "--force", &self.name]);
    }
}

/// How a container is to be started. Without more it is started as `docker run IMAGE` does, without a network.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    image: String,
    options: Vec<OsString>,
    network: Option<Vec<OsString>>,
}

impl Recipe {
    pub(crate) fn agent() -> Self {
        Self::of(agent_image())
    }

    pub(crate) fn router() -> Self {
        Self::of(router_image())
    }

    pub(crate) fn of(image: String) -> Self {
        Self {
            image,
            options: Vec::new(),
            network: None,
        }
    }

    /// As a task of Fargate is started from `docker/task-definition.json`: the root is read-only, `/workspace` and `/tmp` are
    /// volumes, and of the capabilities those are left that the agent needs.
    pub(crate) fn like_on_fargate(self) -> Self {
        const KEPT: [&str; 5] = ["CHOWN", "KILL", "SETGID", "SETPCAP", "SETUID"];
        KEPT.into_iter()
            .fold(self.read_only().without_capabilities(), |recipe, name| {
                recipe.option(format!("--cap-add={name}"))
            })
    }

    /// Another program of the image than its own.
    pub(crate) fn program(self, path: &str) -> Self {
        self.option(format!("--entrypoint={path}"))
    }

    /// In a network, at its `host`th address.
    pub(crate) fn at(mut self, network: &Network, host: u8) -> Self {
        self.network = Some(vec![
            format!("--network={}", network.name).into(),
            format!("--ip={}", network.address(host)).into(),
        ]);
        self
    }

    /// Knows who is at the `host`th address of a network by a name. The engine's own names are not asked for: podman has one
    /// server for them on a whole machine, and two runs at once would share it.
    pub(crate) fn knowing(self, name: &str, network: &Network, host: u8) -> Self {
        self.option(format!("--add-host={name}:{}", network.address(host)))
    }

    /// In the network namespace of another container, as all containers of a Fargate task are.
    pub(crate) fn beside(mut self, other: &Running) -> Self {
        self.network = Some(vec![format!("--network=container:{}", other.name).into()]);
        self
    }

    /// With that much memory, and no swap beside it.
    pub(crate) fn memory_mib(self, mib: u32) -> Self {
        self.option(format!("--memory={mib}m"))
            .option(format!("--memory-swap={mib}m"))
    }

    pub(crate) fn processes(self, most: u32) -> Self {
        self.option(format!("--pids-limit={most}"))
    }

    pub(crate) fn processors(self, share: f32) -> Self {
        self.option(format!("--cpus={share}"))
    }

    pub(crate) fn read_only(self) -> Self {
        // Podman would put file systems of its own over /run, /tmp and /var/tmp.
        let podman = told("STORIES_ENGINE") == "podman";
        let recipe = self.option("--read-only");
        if podman {
            recipe.option("--read-only-tmpfs=false")
        } else {
            recipe
        }
    }

    pub(crate) fn without_capabilities(self) -> Self {
        self.option("--cap-drop=all")
    }

    /// With one more than the others say.
    pub(crate) fn capability(self, name: &str) -> Self {
        self.option(format!("--cap-add={name}"))
    }

    /// With one less than the engine gives by itself.
    pub(crate) fn without_capability(self, name: &str) -> Self {
        self.option(format!("--cap-drop={name}"))
    }

    pub(crate) fn without_new_privileges(self) -> Self {
        self.option("--security-opt=no-new-privileges")
    }

    /// Where Docker has a profile of `AppArmor`, that forbids what a capability allows.
    pub(crate) fn without_apparmor(self) -> Self {
        if told("STORIES_ENGINE") == "podman" {
            self
        } else {
            self.option("--security-opt=apparmor=unconfined")
        }
    }

    pub(crate) fn user(self, ids: &str) -> Self {
        self.option(format!("--user={ids}"))
    }

    /// With the engine's own init as PID 1.
    pub(crate) fn with_init(self) -> Self {
        self.option("--init")
    }

    pub(crate) fn variable(self, name: &str, value: &str) -> Self {
        self.option(format!("--env={name}={value}"))
    }

    pub(crate) fn volume(self, volume: &Volume, at: &str) -> Self {
        self.option(format!("--volume={}:{at}", volume.name))
    }

    /// A folder of this machine, which the container may read.
    pub(crate) fn folder(self, folder: &Path, at: &str) -> Self {
        self.option(format!("--volume={}:{at}:ro", folder.display()))
    }

    /// A folder of this machine, which the container may write.
    pub(crate) fn shared_folder(self, folder: &Path, at: &str) -> Self {
        self.option(format!("--volume={}:{at}", folder.display()))
    }

    /// A file system in memory with that much room.
    pub(crate) fn room(self, at: &str, mib: u32) -> Self {
        self.option(format!("--tmpfs={at}:rw,mode=1777,size={mib}m"))
    }

    fn option(mut self, option: impl Into<OsString>) -> Self {
        self.options.push(option.into());
        self
    }

    fn arguments(&self, how: &str, name: &str, command: &[&str]) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec![
            "run".into(),
            how.into(),
            format!("--name={name}").into(),
            format!("--label={}", label()).into(),
            "--pull=never".into(),
        ];
        if told("STORIES_ENGINE") == "podman" {
            // It asks systemd to do the checks, and complains where there is none. `Running::health` does them.
            arguments.push("--no-healthcheck".into());
        }
        match &self.network {
            Some(options) => arguments.extend(options.iter().cloned()),
            None => arguments.push("--network=none".into()),
        }
        arguments.extend(self.options.iter().cloned());
        arguments.push(self.image.clone().into());
        arguments.extend(command.iter().map(OsString::from));
        arguments
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, command: &[&str]) -> Ended {
        let name = fresh("run");
        let output = ask(RUN_TIME_MAX, self.arguments("--rm", &name, command));
        Ended {
            code: output.status.code().unwrap_or_default(),
            said: text(&output.stdout),
            complained: text(&output.stderr),
        }
    }

    /// Starts it.
    pub(crate) fn start<S: AsRef<str>>(&self, command: &[S]) -> Running {
        let name = fresh("running");
        let command: Vec<&str> = command.iter().map(AsRef::as_ref).collect();
        order(self.arguments("--detach", &name, &command));
        let log = Log::follow(&name);
        Running { name, log }
    }
}

/// What a container came to.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code; 128 and the signal's number if one ended it.
    pub(crate) code: i32,
    /// What it wrote to its standard output.
    pub(crate) said: String,
    /// What it wrote to its standard error.
    pub(crate) complained: String,
}

impl Ended {
    /// What it said, having ended well.
    #[track_caller]
    pub(crate) fn well(self) -> String {
        assert_eq!(self.code, 0, "it ended badly: {self:?}");
        self.said
    }
}

/// A process of a container, as this machine sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its number in the container.
    pub(crate) pid: u32,
    /// Its number on this machine.
    pub(crate) outside: u32,
    /// Its effective user.
    pub(crate) uid: u32,
    /// What it runs.
    pub(crate) name: String,
    /// `R`, `S`, `Z`, …
    pub(crate) state: char,
}

/// A container that was started. It is removed when it is dropped; its last lines are shown if the story fails.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    log: Log,
}

impl Running {
    /// The first line with these words in it, written until then or by then.
    #[track_caller]
    pub(crate) fn line_with(&self, words: &str, within: Duration) -> String {
        self.log.line_with(words, within).unwrap_or_else(|lines| {
            panic!(
                "no line with {words:?} within {within:?} or to its end; the last ones:\n{}",
                last(&lines)
            )
        })
    }

    /// Everything it wrote until now.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.log.lines().clone()
    }

    /// Asks it to stop, and kills it after the grace. Gives its exit code and how long it took.
    pub(crate) fn stop(&self, grace: Duration) -> (i32, Duration) {
        let begun = Instant::now();
        let seconds = grace.as_secs().to_string();
        let output = ask(
            grace + ENGINE_TIME_MAX,
            ["stop", "--time", &seconds, &self.name],
        );
        assert!(output.status.success(), "{}", text(&output.stderr));
        let took = begun.elapsed();
        (self.exit_code(ENGINE_TIME_MAX), took)
    }

    /// Sends a signal to PID 1.
    pub(crate) fn kill(&self, signal: &str) {
        order(["kill", "--signal", signal, &self.name]);
    }

    /// Its exit code, once it has ended.
    #[track_caller]
    pub(crate) fn exit_code(&self, within: Duration) -> i32 {
        let ended = until(within, || {
            let state = self.inspect("{{.State.Status}} {{.State.ExitCode}}");
            let (status, code) = state.split_once(' ').expect("two words");
            // Podman says `stopped` a moment before, while the address is still taken.
            if status == "exited" {
                Ok(code.parse().expect("a number"))
            } else {
                Err(state)
            }
        });
        ended.unwrap_or_else(|state| panic!("it has not ended within {within:?}: {state}"))
    }

    /// All that it said, once it has ended.
    #[track_caller]
    pub(crate) fn all_lines(&self) -> Vec<String> {
        self.log
            .whole(ENGINE_TIME_MAX)
            .unwrap_or_else(|lines| panic!("its log has no end:\n{}", last(&lines)))
    }

    pub(crate) fn is_running(&self) -> bool {
        self.inspect("{{.State.Running}}") == "true"
    }

    /// Runs another program in it, as its user.
    pub(crate) fn exec(&self, command: &[&str]) -> Ended {
        let output = ask(
            RUN_TIME_MAX,
            ["exec", &self.name]
                .into_iter()
                .chain(command.iter().copied()),
        );
        Ended {
            code: output.status.code().unwrap_or_default(),
            said: text(&output.stdout),
            complained: text(&output.stderr),
        }
    }

    /// Does its health check once: whether it is well.
    pub(crate) fn is_healthy(&self) -> bool {
        let configuration = configuration(&self.inspect("{{.Config.Image}}"));
        let check: Vec<&str> = configuration["Healthcheck"]["Test"]
            .as_array()
            .expect("the image has a check")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert_eq!(check[0], "CMD", "no shell is asked");
        self.exec(&check[1..]).code == 0
    }

    /// PID 1, as this machine sees it.
    pub(crate) fn pid(&self) -> u32 {
        self.inspect("{{.State.Pid}}").parse().expect("a number")
    }

    /// What runs in it, PID 1 first.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let namespace = fs::read_link(format!("/proc/{}/ns/pid", self.pid()));
        let Ok(namespace) = namespace else {
            return Vec::new();
        };
        let mut found: Vec<Process> = fs::read_dir("/proc")
            .expect("Linux")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|theirs| theirs == namespace)
            })
            .filter_map(process)
            .collect();
        found.sort_by_key(|process| process.pid);
        found
    }

    fn inspect(&self, format: &str) -> String {
        order([
            "inspect",
            "--type",
            "container",
            "--format",
            format,
            &self.name,
        ])
    }
}

/// Says it where a panic would end the other stories with this one. If stderr is closed there is nobody to tell.
fn complain(words: &[u8]) {
    std::io::Write::write_all(&mut std::io::stderr(), words).ok();
}

impl Drop for Running {
    fn drop(&mut self) {
        if thread::panicking() {
            let lines = last(&self.log.lines());
            let shown = format!("--- the last lines of {}\n{lines}\n", self.name);
            complain(shown.as_bytes());
        }
        let arguments = ["rm", "--force", "--volumes", "--time", "1", &self.name];
        let podman = told("STORIES_ENGINE") == "podman";
        // Docker kills at once, and knows no time.
        let told = arguments
            .iter()
            .filter(|argument| podman || !["--time", "1"].contains(argument));
        // What is left is removed with the run; a panic here would take the other stories along.
        let removed = ask_at_most(ENGINE_TIME_MAX, told.copied());
        if !removed.status.success() {
            complain(&removed.stderr);
        }
    }
}

/// What is known of a process on this machine, unless it is gone.
fn process(outside: u32) -> Option<Process> {
    let status = fs::read_to_string(format!("/proc/{outside}/status")).ok()?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    Some(Process {
        pid: field("NSpid")?.split_whitespace().last()?.parse().ok()?,
        outside,
        uid: field("Uid")?.split_whitespace().nth(1)?.parse().ok()?,
        name: field("Name")?.to_owned(),
        state: field("State")?.chars().next()?,
    })
}

/// What a container writes, from its first line on.
#[derive(Debug)]
struct Log {
    written: Arc<Written>,
    follower: Child,
}

#[derive(Debug, Default)]
struct Written {
    lines: Mutex<Vec<String>>,
    /// There is another line, or there will be none.
    another: Condvar,
    /// How many pipes have come to their end.
    ended: AtomicU32,
}

impl Written {
    fn is_all(&self) -> bool {
        self.ended.load(Ordering::Acquire) == 2
    }
}

impl Log {
    fn follow(container: &str) -> Self {
        let mut follower = Command::new(told("STORIES_ENGINE"))
            .args(["logs", "--follow", container])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the engine is there");
        let written = Arc::new(Written::default());
        // Both end with the pipes, which end with the follower.
        read(follower.stdout.take().expect("it is piped"), &written);
        read(follower.stderr.take().expect("it is piped"), &written);
        Self { written, follower }
    }

    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        lock(&self.written.lines)
    }

    fn line_with(&self, words: &str, within: Duration) -> Result<String, Vec<String>> {
        let deadline = Instant::now() + within;
        let mut lines = self.lines();
        let mut seen = 0;
        loop {
            if let Some(line) = lines[seen..].iter().find(|line| line.contains(words)) {
                return Ok(line.clone());
            }
            seen = lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.written.is_all() {
                return Err(lines.clone());
            }
            lines = self
                .written
                .another
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// All of it, or what there is when it has no end.
    fn whole(&self, within: Duration) -> Result<Vec<String>, Vec<String>> {
        let (lines, late) = self
            .written
            .another
            .wait_timeout_while(self.lines(), within, |_| !self.written.is_all())
            .unwrap_or_else(PoisonError::into_inner);
        if late.timed_out() {
            Err(lines.clone())
        } else {
            Ok(lines.clone())
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.follower.kill().ok();
        self.follower.wait().ok();
    }
}

fn read(pipe: impl Read + Send + 'static, written: &Arc<Written>) {
    let written = Arc::clone(written);
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            lock(&written.lines).push(text(&line));
            written.another.notify_all();
        }
        // Under the lock: whoever has just looked is waiting before it is told.
        let _lines = lock(&written.lines);
        written.ended.fetch_add(1, Ordering::Release);
        written.another.notify_all();
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn last(lines: &[String]) -> String {
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

/// Looks until there is something, or gives what was seen last.
pub(crate) fn until<T, E>(
    within: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let deadline = Instant::now() + within;
    loop {
        match look() {
            Err(_) if Instant::now() < deadline => thread::sleep(LOOK),
            seen => return seen,
        }
    }
}
