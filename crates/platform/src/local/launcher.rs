//! Environments as processes of this machine: one `edit-agent run --local` a task, each with a loopback address of its own.
//!
//! ```text
//!  launch ── known? ── yes ──▶ the task that there is
//!               │ no
//!               ▼
//!            address, log, spawn ──▶ running ── its process ends by itself ───────────▶ stopped (exit code)
//!                                      │ stop: TERM to the agent                           ▲
//!                                      └──▶ stopping ── it ends, or KILL after 120 s ──────┘
//! ```
//!
//! - **One task a session and generation, in this process.** Another router beside this one would start another, and of
//!   the two agents one is refused the session and leaves it alone. A name is never used twice, so that no agent is taken
//!   for an earlier one.
//! - **Everything ends with [`LocalLauncher::shutdown`].** If this process is killed instead, its agents go on: their
//!   leases live, whoever routes next routes to them, and they sleep by themselves. That one cannot stop them, and does
//!   not list them.
//! - **The signal to stop goes to the agent**, which ends what it started in its own order. KILL goes to its group.
//! - **Addresses** are of 127.16.0.0/12, so that a page of one session is never of the same origin as another's, and a
//!   router that confuses two sessions is found out on a laptop too. Linux has all of them; other systems have 127.0.0.1
//!   alone unless they are told otherwise.
//! - **Logs**: what an agent says is appended to a file of its session that its owner alone can read. A file that is larger
//!   than 10 MB is put aside at the next launch, and the one before it is gone.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use contract::{Generation, SessionId, Timestamp};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use sha2::{Digest as _, Sha256};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::without_session_ids;
use crate::random::random;
use crate::{LaunchFailed, Launcher, Order, Result, Task, TaskState};

/// How long an agent may take to save everything after TERM. As long as in ECS: it counts on that, and needs it where the
/// remote is slow. Mostly it takes a second. Whoever cannot wait so long says so to [`LocalLauncher::shutdown`].
const GRACE: Duration = Duration::from_secs(120);

/// How long a killed process may take to be gone. Longer means that it hangs in the kernel, and nobody can help that.
const REAPED: Duration = Duration::from_secs(5);

/// How large a log may be when its session is launched again.
const LOG_MAX_BYTES: u64 = 10 * 1024 * 1024;

/// How many tasks that have stopped are remembered.
const REMEMBERED: usize = 1_000;

/// How much of a reason is kept, as ECS does.
const REASON_MAX_CHARS: usize = 255;

/// The network of the sessions' addresses: 127.16.0.0/12.
const NETWORK: u32 = u32::from_be_bytes([127, 16, 0, 0]);
const ADDRESSES: u32 = 1 << 20;

/// What an agent sees of our environment, beside what it is told: what programs need to run, find the network and speak a
/// language. No keys, and nothing that names a session.
const ALLOWED: [&str; 15] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "NODE_EXTRA_CA_CERTS",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];
const ALLOWED_PREFIXES: [&str; 2] = ["XDG_", "SSL_"];

/// How agents are started.
#[derive(Debug, Clone)]
pub struct LocalLauncherSettings {
    /// The program `edit-agent`.
    pub agent: PathBuf,
    /// The folder of the records, which agents and router share.
    pub state: PathBuf,
    /// Variables for every agent, beside those that say which session it has.
    pub environment: Vec<(String, String)>,
    /// The folder of the logs. It is made if need be.
    pub log: PathBuf,
}

/// Starts agents as processes. Cheap to clone; the clones have the same tasks.
#[derive(Clone)]
pub struct LocalLauncher {
    house: Arc<House>,
}

impl fmt::Debug for LocalLauncher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalLauncher")
            .field("agent", &self.house.settings.agent)
            .finish_non_exhaustive()
    }
}

struct House {
    settings: LocalLauncherSettings,
    tasks: Mutex<Tasks>,
    /// Those who wait for processes.
    watched: TaskTracker,
    /// Everything is to end at once.
    force: CancellationToken,
}

impl House {
    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        // Whatever panicked in between has not left a task half written: each change is one assignment or insertion.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Key = (SessionId, Generation);

/// All tasks that are known.
#[derive(Default)]
struct Tasks {
    known: HashMap<Key, Known>,
    /// Those that have stopped, the oldest first.
    stopped: VecDeque<Key>,
    /// Nothing is launched any more.
    closed: bool,
}

/// A task that is known.
struct Known {
    name: String,
    created_at: Timestamp,
    standing: Standing,
}

enum Standing {
    Running {
        address: Ipv4Addr,
        stop: CancellationToken,
    },
    Stopping {
        address: Ipv4Addr,
        why: String,
    },
    Stopped {
        why: String,
        exit_code: Option<i32>,
    },
}

impl Known {
    fn task(&self, (session, generation): &Key) -> Task {
        let state = match &self.standing {
            Standing::Running { .. } => TaskState::Running,
            Standing::Stopping { why, .. } => TaskState::Stopped {
                reason: why.clone(),
                exit_code: None,
            },
            Standing::Stopped { why, exit_code } => TaskState::Stopped {
                reason: why.clone(),
                exit_code: *exit_code,
            },
        };
        Task {
            name: self.name.clone(),
            session: session.clone(),
            generation: *generation,
            state,
            created_at: self.created_at,
        }
    }

    /// Asks it to stop, unless it is about to.
    fn stop(&mut self, why: &str) {
        let Standing::Running { address, stop } = &self.standing else {
            return;
        };
        stop.cancel();
        let address = *address;
        self.standing = Standing::Stopping {
            address,
            why: shown(why),
        };
    }
}

impl Tasks {
    /// The addresses that processes have.
    fn addresses(&self) -> HashSet<Ipv4Addr> {
        self.known
            .values()
            .filter_map(|known| match &known.standing {
                Standing::Running { address, .. } | Standing::Stopping { address, .. } => {
                    Some(*address)
                }
                Standing::Stopped { .. } => None,
            })
            .collect()
    }

    /// Writes down how a task has ended.
    fn ended(&mut self, key: &Key, ending: &io::Result<ExitStatus>) {
        let Some(known) = self.known.get_mut(key) else {
            return;
        };
        let (said, exit_code) = match ending {
            Ok(status) => (said(*status), status.code()),
            Err(error) => (format!("nobody can say how it ended: {error}"), None),
        };
        let why = match &known.standing {
            // Why it was stopped says more than how it took it.
            Standing::Stopping { why, .. } => why.clone(),
            _ => said,
        };
        known.standing = Standing::Stopped { why, exit_code };
        self.stopped.push_back(key.clone());
        while self.stopped.len() > REMEMBERED {
            if let Some(oldest) = self.stopped.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

impl LocalLauncher {
    /// Starts nothing yet.
    pub fn new(settings: LocalLauncherSettings) -> Self {
        Self {
            house: Arc::new(House {
                settings,
                tasks: Mutex::default(),
                watched: TaskTracker::new(),
                force: CancellationToken::new(),
            }),
        }
    }

    /// Stops every agent and waits until all of them are gone; those that are not by the `deadline` are killed. Nothing is
    /// launched after that.
    pub async fn shutdown(&self, deadline: Duration) {
        {
            let mut tasks = self.house.tasks();
            tasks.closed = true;
            for known in tasks.known.values_mut() {
                known.stop("the router stops");
            }
        }
        self.house.watched.close();
        if tokio::time::timeout(deadline, self.house.watched.wait())
            .await
            .is_err()
        {
            self.house.force.cancel();
            self.house.watched.wait().await;
        }
    }

    /// Starts the process of an order under a name, at an address.
    fn spawn(&self, order: &Order, name: &str, address: Ipv4Addr) -> io::Result<Child> {
        let settings = &self.house.settings;
        let log = open_log(&settings.log, &order.session)?;
        let mut command = Command::new(&settings.agent);
        command
            .args(["run", "--local", "--state"])
            .arg(&settings.state)
            .args(["--host", &address.to_string(), "--port", "0"])
            .args(["--task", name])
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| is_allowed(name)))
            .envs(
                settings
                    .environment
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            .env("CLIENT_ID", order.client.as_str())
            .env("SESSION_ID", order.session.as_str())
            .env("GENERATION", order.generation.to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(false);
        command.spawn()
    }
}

#[async_trait]
impl Launcher for LocalLauncher {
    async fn launch(&self, order: &Order) -> std::result::Result<Task, LaunchFailed> {
        let key = (order.session.clone(), order.generation);
        // Held while the process is started, which takes a millisecond or two: of two who launch at once the second has to
        // find the first one's.
        let mut tasks = self.house.tasks();
        if let Some(known) = tasks.known.get(&key) {
            return Ok(known.task(&key));
        }
        if tasks.closed {
            return Err(LaunchFailed::NoCapacity {
                reason: "the router stops".to_owned(),
            });
        }
        let Some(address) = free_address(&order.session, &tasks.addresses()) else {
            return Err(LaunchFailed::NoCapacity {
                reason: "every address of 127.16.0.0/12 is in use".to_owned(),
            });
        };
        let name = format!("process-{:016x}", random());
        let mut child = self
            .spawn(order, &name, address)
            .map_err(|error| not_started(&self.house.settings.agent, &error))?;
        let stop = CancellationToken::new();
        let known = Known {
            name,
            created_at: Timestamp::now(),
            standing: Standing::Running {
                address,
                stop: stop.clone(),
            },
        };
        let task = known.task(&key);
        tasks.known.insert(key.clone(), known);
        let house = Arc::clone(&self.house);
        // Before the lock is given back, so that a shutdown in this moment waits for it.
        self.house.watched.spawn(async move {
            let ending = live(&mut child, &stop, &house.force).await;
            house.tasks().ended(&key, &ending);
        });
        Ok(task)
    }

    async fn task(&self, session: &SessionId, generation: Generation) -> Result<Option<Task>> {
        let key = (session.clone(), generation);
        let tasks = self.house.tasks();
        Ok(tasks.known.get(&key).map(|known| known.task(&key)))
    }

    async fn running(&self) -> Result<Vec<Task>> {
        let tasks = self.house.tasks();
        let mut running: Vec<Task> = tasks
            .known
            .iter()
            .filter(|(_, known)| matches!(known.standing, Standing::Running { .. }))
            .map(|(key, known)| known.task(key))
            .collect();
        running.sort_by(|one, other| {
            (one.created_at, &one.name).cmp(&(other.created_at, &other.name))
        });
        Ok(running)
    }

    async fn stop(&self, task: &str, why: &str) -> Result<()> {
        let mut tasks = self.house.tasks();
        if let Some(known) = tasks.known.values_mut().find(|known| known.name == task) {
            known.stop(why);
        }
        Ok(())
    }
}

/// Waits for the end of a process, and brings it about if it is asked for.
async fn live(
    child: &mut Child,
    stop: &CancellationToken,
    force: &CancellationToken,
) -> io::Result<ExitStatus> {
    let leader = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .map(Pid::from_raw);
    let end_group = || {
        if let Some(leader) = leader {
            // ESRCH: all gone already, which is what was wanted.
            killpg(leader, Signal::SIGKILL).ok();
        }
    };
    let asked = tokio::select! {
        // What has ended need not be asked.
        biased;
        ending = child.wait() => Some(ending),
        () = stop.cancelled() => None,
    };
    let ending = match asked {
        Some(ending) => ending,
        None => {
            if let Some(leader) = leader {
                kill(leader, Signal::SIGTERM).ok();
            }
            let in_time = tokio::select! {
                biased;
                ending = child.wait() => Some(ending),
                () = force.cancelled() => None,
                () = tokio::time::sleep(GRACE) => None,
            };
            match in_time {
                Some(ending) => ending,
                None => {
                    end_group();
                    tokio::time::timeout(REAPED, child.wait())
                        .await
                        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                }
            }
        }
    };
    // What the agent started may outlive it, if it had no time to end it.
    end_group();
    ending
}

/// How a process ended, in words.
fn said(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("the agent ended with code {code}"),
        // From nobody we know it is, most often, the kernel's way to say that memory ran out.
        (None, Some(9)) => "the agent was killed (signal 9; perhaps memory ran out)".to_owned(),
        (None, signal) => format!("signal {} ended the agent", signal.unwrap_or_default()),
    }
}

/// A reason as it is kept: without capabilities, and of bounded length.
fn shown(why: &str) -> String {
    without_session_ids(why, None)
        .chars()
        .take(REASON_MAX_CHARS)
        .collect()
}

/// Why a process was not started.
fn not_started(agent: &Path, error: &io::Error) -> LaunchFailed {
    let reason = format!("{} was not started: {error}", agent.display());
    match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        // No process, no memory, no descriptor is left.
        Some(
            nix::errno::Errno::EAGAIN
            | nix::errno::Errno::ENOMEM
            | nix::errno::Errno::EMFILE
            | nix::errno::Errno::ENFILE
            | nix::errno::Errno::ENOSPC,
        ) => LaunchFailed::NoCapacity { reason },
        _ => LaunchFailed::Refused { reason },
    }
}

/// Opens the log of a session to append to it. One that has become too large is put aside first.
fn open_log(folder: &Path, session: &SessionId) -> io::Result<fs::File> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .and_then(|()| {
            let path = folder.join(format!("{}.log", session.redacted()));
            if fs::metadata(&path).is_ok_and(|log| log.len() > LOG_MAX_BYTES) {
                fs::rename(&path, path.with_extension("log.1"))?;
            }
            fs::OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(path)
        })
        .map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("its log in {} cannot be written: {error}", folder.display()),
            )
        })
}

fn is_allowed(name: &OsString) -> bool {
    let name: &OsStr = name.as_ref();
    name.to_str().is_some_and(|name| {
        ALLOWED.contains(&name)
            || ALLOWED_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix))
    })
}

/// The address of a session: always the same one, unless another session that runs has it.
fn free_address(session: &SessionId, taken: &HashSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let digest = Sha256::digest(session.as_str().as_bytes());
    let first = digest[..4]
        .iter()
        .fold(0, |number: u32, byte| (number << 8) | u32::from(*byte));
    (0..ADDRESSES)
        .map(|step| Ipv4Addr::from(NETWORK | (first.wrapping_add(step) % ADDRESSES)))
        .find(|address| !taken.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: u8) -> SessionId {
        SessionId::new(&"amelia".parse().expect("valid"), [number; 16])
    }

    #[test]
    fn a_session_has_the_same_address_every_time_and_none_that_another_has() {
        let mut taken = HashSet::new();
        let first = free_address(&session(1), &taken).expect("all are free");
        assert_eq!(free_address(&session(1), &taken), Some(first));
        assert_ne!(free_address(&session(2), &taken), Some(first));
        taken.insert(first);
        let next = free_address(&session(1), &taken).expect("one is taken");
        assert_ne!(next, first);
        assert!((NETWORK..NETWORK + ADDRESSES).contains(&u32::from(next)));
    }

    /// The last one is followed by the first.
    #[test]
    fn addresses_stay_within_their_network() {
        let mut taken = HashSet::new();
        for number in 0..=255 {
            let address = free_address(&session(number), &taken).expect("enough");
            assert!(
                (NETWORK..NETWORK + ADDRESSES).contains(&u32::from(address)),
                "{address}"
            );
            assert!(taken.insert(address), "{address} twice");
        }
    }

    #[test]
    fn keys_and_other_peoples_variables_are_not_passed_on() {
        for (name, passed) in [
            ("PATH", true),
            ("XDG_CACHE_HOME", true),
            ("SSL_CERT_FILE", true),
            ("LINK_KEYS", false),
            ("AWS_SECRET_ACCESS_KEY", false),
            ("SESSION_ID", false),
            ("PATHS", false),
            ("", false),
        ] {
            assert_eq!(is_allowed(&OsString::from(name)), passed, "{name}");
        }
    }

    #[test]
    fn a_log_that_is_too_large_is_put_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("logs");
        let (mine, label) = (session(1), session(1).redacted().to_owned());
        drop(open_log(&folder, &mine).expect("open"));
        let path = folder.join(format!("{label}.log"));
        let log = fs::OpenOptions::new().write(true).open(&path);
        log.expect("open").set_len(LOG_MAX_BYTES).expect("grow");
        drop(open_log(&folder, &mine).expect("open"));
        assert_eq!(fs::metadata(&path).expect("kept").len(), LOG_MAX_BYTES);
        let log = fs::OpenOptions::new().write(true).open(&path);
        log.expect("open").set_len(LOG_MAX_BYTES + 1).expect("grow");
        drop(open_log(&folder, &mine).expect("open"));
        assert_eq!(fs::metadata(&path).expect("new").len(), 0);
        let aside = folder.join(format!("{label}.log.1"));
        assert_eq!(fs::metadata(aside).expect("aside").len(), LOG_MAX_BYTES + 1);
    }

    #[test]
    fn only_so_many_tasks_are_remembered() {
        let mut tasks = Tasks::default();
        let key = |number: u64| (session(1), Generation(number));
        let many = u64::try_from(REMEMBERED).expect("small") + 2;
        for number in 0..many {
            let known = Known {
                name: number.to_string(),
                created_at: Timestamp::from_unix_ms(0),
                standing: Standing::Running {
                    address: Ipv4Addr::LOCALHOST,
                    stop: CancellationToken::new(),
                },
            };
            tasks.known.insert(key(number), known);
            tasks.ended(&key(number), &Ok(ExitStatus::from_raw(0)));
        }
        assert_eq!(tasks.known.len(), REMEMBERED);
        assert!(!tasks.known.contains_key(&key(1)));
        assert!(tasks.known.contains_key(&key(2)));
    }
}
