//! An `edit-init` that runs, and what can be seen of it from outside.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::libc;

/// The binary that is tested.
pub const EDIT_INIT: &str = env!("CARGO_BIN_EXE_edit-init");
/// How long anything may take on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether a condition holds.
const LOOK: Duration = Duration::from_millis(5);

/// Where init runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    /// As PID 1 of a namespace, with a `/proc` of its own.
    Pid1,
    /// As any process.
    Subreaper,
}

pub const SEATS: [Seat; 2] = [Seat::Pid1, Seat::Subreaper];

impl Seat {
    /// A command that runs `edit-init` there.
    pub fn command(self) -> Command {
        match self {
            Self::Subreaper => {
                let mut command = undisturbed();
                command.arg(EDIT_INIT);
                command
            }
            Self::Pid1 => {
                let mut command = namespace();
                command.args(["--mount-proc", EDIT_INIT]);
                command
            }
        }
    }
}

/// What follows hears every signal, whoever started the tests ignoring some: `nohup`, or a shell in the background.
pub fn undisturbed() -> Command {
    let mut command = Command::new("env");
    command.arg("--default-signal");
    command
}

/// `unshare` into a namespace of processes and one of mounts, which ends with whoever started it.
pub fn namespace() -> Command {
    let mut command = undisturbed();
    command.arg("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "--pid", "--fork", "--kill-child"]);
    command
}

/// Runs `edit-init` with these arguments.
pub fn init<A: AsRef<OsStr>>(seat: Seat, arguments: impl IntoIterator<Item = A>) -> Run {
    let mut command = seat.command();
    command.args(arguments);
    Run::start(command, seat)
}

/// Runs a script of the shell under `edit-init`, with these options of init.
pub fn shell(seat: Seat, options: &[&str], script: &str) -> Run {
    let arguments = [options, &["--", "sh", "-c", script]].concat();
    init(seat, arguments)
}

/// A running `edit-init`.
pub struct Run {
    seat: Seat,
    child: Child,
    output: Lines,
    errors: Lines,
}

/// Lines as they come.
struct Lines {
    coming: Receiver<String>,
    seen: Vec<String>,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, coming) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            coming,
            seen: Vec::new(),
        }
    }

    fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.coming.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(why) => panic!("{text:?} is not said ({why}), only {:#?}", self.seen),
            }
        }
    }

    fn rest(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.coming.recv_timeout(left) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("somebody still holds the pipe; said: {:#?}", self.seen)
                }
            }
        }
        self.seen.join("\n")
    }
}

/// How it ended, and everything that was said.
#[derive(Debug)]
pub struct End {
    pub status: ExitStatus,
    pub output: String,
    pub errors: String,
}

impl End {
    /// The exit code; as PID 1, `unshare` passes it on.
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| panic!("ended by signal {:?}: {self:?}", self.status.signal()))
    }
}

impl Run {
    pub fn start(mut command: Command, seat: Seat) -> Self {
        command.stdin(Stdio::null());
        Self::start_as_is(command, seat)
    }

    /// With a stdin that stays open until [`Run::close_stdin`].
    pub fn start_with_stdin(mut command: Command, seat: Seat) -> Self {
        command.stdin(Stdio::piped());
        Self::start_as_is(command, seat)
    }

    pub fn close_stdin(&mut self) {
        drop(self.child.stdin.take());
    }

    fn start_as_is(mut command: Command, seat: Seat) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it can be started");
        let output = Lines::of(child.stdout.take().expect("a pipe"));
        let errors = Lines::of(child.stderr.take().expect("a pipe"));
        Self {
            seat,
            child,
            output,
            errors,
        }
    }

    /// Waits for a line of the child's stdout.
    pub fn says(&mut self, text: &str) -> String {
        self.output.wait_for(text)
    }

    /// Waits for a line of stderr.
    pub fn complains(&mut self, text: &str) -> String {
        self.errors.wait_for(text)
    }

    /// The number of init, as we see it.
    pub fn pid(&self) -> i32 {
        let started = number(self.child.id());
        match self.seat {
            Seat::Subreaper => started,
            Seat::Pid1 => eventually("unshare starts init", || {
                only(children(started))
                    .filter(|pid| comm(*pid) == "edit-init")
                    .ok_or_else(|| format!("{:?}", children(started)))
            }),
        }
    }

    /// The number of its child.
    pub fn child(&self) -> i32 {
        let init = self.pid();
        eventually("init has one child", || {
            only(children(init)).ok_or_else(|| format!("{:?}", children(init)))
        })
    }

    /// The shell of a script that leaves sleepers of `nap` behind and becomes one of a million seconds: all that it does before that
    /// is done.
    pub fn program(&self, nap: &str) -> i32 {
        let init = self.pid();
        eventually("init has one child that is no orphan, and sleeps", || {
            let left = sleepers(nap);
            let mut children = children(init);
            children.retain(|pid| !left.contains(pid));
            match children[..] {
                [program] if sleepers("1000000").contains(&program) => Ok(program),
                _ => Err(format!("{children:?} {left:?}")),
            }
        })
    }

    /// Sends init a signal.
    pub fn hears(&self, signal: i32) {
        kill(self.pid(), signal);
    }

    /// Waits for its end, and for that of everybody who has its pipes.
    pub fn ends(mut self) -> End {
        let status = eventually("it ends", || {
            let status = self.child.try_wait().expect("asked");
            status.ok_or_else(|| format!("{:#?} {:#?}", self.output.seen, tree(self.child.id())))
        });
        End {
            status,
            output: self.output.rest(),
            errors: self.errors.rest(),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Only after a failure is anything left.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let below = descendants(number(self.child.id()));
            self.child.kill().ok();
            for pid in below.into_iter().filter(|pid| state(*pid) != 'Z') {
                send(pid, libc::SIGKILL);
            }
            self.child.wait().ok();
        }
    }
}

/// Waits until something holds, and says what was seen last if it does not.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) if Instant::now() > deadline => panic!("{what}: not so; last seen: {last}"),
            Err(_) => std::thread::park_timeout(LOOK),
        }
    }
}

/// Sends a signal, which has to arrive. By the shell, for `nix` knows no real-time signals.
pub fn kill(pid: i32, signal: i32) {
    assert!(send(pid, signal), "signal {signal} does not reach {pid}");
}

fn send(pid: i32, signal: i32) -> bool {
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -{signal} {pid}")])
        .stderr(Stdio::null())
        .status();
    sent.expect("a shell").success()
}

pub fn number(pid: u32) -> i32 {
    i32::try_from(pid).expect("small")
}

fn only(mut pids: Vec<i32>) -> Option<i32> {
    let last = pids.pop()?;
    pids.is_empty().then_some(last)
}

/// State, parent and number of every process.
fn processes() -> Vec<(char, i32, i32)> {
    let entries = fs::read_dir("/proc").expect("a /proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.chars().next()?;
        Some((state, fields.next()?.parse().ok()?, pid))
    })
    .collect()
}

pub fn children(parent: i32) -> Vec<i32> {
    let children = processes().into_iter().filter(|(_, of, _)| *of == parent);
    children.map(|(.., pid)| pid).collect()
}

/// Children that ended and whom nobody has reaped.
pub fn zombies(parent: i32) -> usize {
    let children = processes().into_iter().filter(|(_, of, _)| *of == parent);
    children.filter(|(state, ..)| *state == 'Z').count()
}

fn descendants(ancestor: i32) -> Vec<i32> {
    let mut found = children(ancestor);
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        found.extend(children(pid));
        next += 1;
    }
    found
}

fn tree(ancestor: u32) -> Vec<String> {
    let below = descendants(number(ancestor));
    let line = |pid| format!("{pid} {} {:?}", state(pid), cmdline(pid));
    below.into_iter().map(line).collect()
}

fn comm(pid: i32) -> String {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    comm.trim_end().to_owned()
}

fn cmdline(pid: i32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// `R`, `S`, `T`, `Z`, …
pub fn state(pid: i32) -> char {
    let all = processes().into_iter();
    let mut this = all.filter(|(.., other)| *other == pid);
    this.next().map_or('-', |(state, ..)| state)
}

pub fn parent(pid: i32) -> i32 {
    let all = processes().into_iter();
    let mut this = all.filter(|(.., other)| *other == pid);
    this.next().map_or(0, |(_, parent, _)| parent)
}

/// A number of seconds to sleep that nobody else sleeps: by it a sleeper is known.
pub fn unheard_of_nap() -> String {
    static NAPS: AtomicU32 = AtomicU32::new(0);
    let nap = NAPS.fetch_add(1, Ordering::Relaxed);
    format!("{}.{nap}", 1_000_000 + std::process::id())
}

/// Who sleeps so long.
pub fn sleepers(nap: &str) -> Vec<i32> {
    let expected = format!("sleep\0{nap}\0");
    let pids = processes().into_iter().map(|(.., pid)| pid);
    pids.filter(|pid| cmdline(*pid) == expected.as_bytes())
        .collect()
}

/// Waits until somebody sleeps so long.
pub fn sleeper(nap: &str) -> i32 {
    eventually("one sleeps", || {
        only(sleepers(nap)).ok_or_else(|| format!("{:?}", sleepers(nap)))
    })
}
