//! `edit-agent attempt`: tries, as one of the users that run the client's code, what must not work.
//!
//! It knows no secret: what it can read it sends to the daemon, which looks for its secrets in it. Everything else it tries and
//! says how it went. What succeeds is a failed start, so that nothing has to be put back.
//!
//! On stdout a line of JSON for each [`Said`]; after `read` as many bytes as it says.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::kill;
use nix::unistd::{Gid, Pid, Uid, setgid, setuid};
use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure};

/// Bytes of one file that are looked through. What holds a secret by accident is small: an environment, a log, a configuration.
const FILE_MAX_BYTES: u64 = 256 * 1024;
/// Files that are looked through in one place, and their bytes: a start does not wait for more, and what is full keeps nobody from looking
/// elsewhere.
const FILES_MAX: usize = 2_000;
const BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Entries of its folders that are looked at: whoever was here before may have left a million.
const ENTRIES_MAX: usize = 20_000;
/// How deep folders are looked through.
const DEPTH_MAX: usize = 12;
/// How long the endpoint may take to be connected to. It is on this machine or next to it; a firewall says nothing.
const CONNECT_TIME_MAX: Duration = Duration::from_millis(500);
/// How long the agent's own door may take.
const DOOR_TIME_MAX: Duration = Duration::from_secs(5);
/// What everybody but the router is told there.
const MISDIRECTED: u16 = 421;

/// What to try.
#[derive(Debug, Args)]
pub(crate) struct AttemptArguments {
    /// Processes that must not be got at.
    #[arg(long, value_delimiter = ',')]
    processes: Vec<i32>,
    /// Where nothing may be read, listed or made.
    #[arg(long, value_delimiter = ',')]
    closed: Vec<PathBuf>,
    /// What may be read and not written.
    #[arg(long, value_delimiter = ',')]
    fixed: Vec<PathBuf>,
    /// What is looked through for secrets.
    #[arg(long, value_delimiter = ',')]
    search: Vec<PathBuf>,
    /// Where the agent listens.
    #[arg(long)]
    door: Option<SocketAddr>,
    /// Where the task's credentials are given out.
    #[arg(long)]
    endpoint: Option<SocketAddr>,
}

/// What it says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Said {
    /// This could be read; its bytes follow.
    Read {
        /// What was read.
        from: String,
        /// How many bytes follow.
        bytes: usize,
    },
    /// This was tried.
    Tried {
        /// What.
        what: String,
        /// How it succeeded, if it did.
        succeeded: Option<String>,
    },
    /// Whether the endpoint of the credentials was reached.
    Endpoint {
        /// Whether it was.
        reached: bool,
    },
    /// That was all; or as much of it as there was time for.
    Done {
        /// Whether everything that could be read was looked through.
        whole: bool,
    },
}

/// Tries everything.
pub(crate) fn attempt(arguments: &AttemptArguments) -> Result<Exit, Failure> {
    let mut report = Report {
        to: BufWriter::new(io::stdout().lock()),
        looked: Looked::default(),
        whole: true,
    };
    let tried = report.all(arguments).and_then(|()| {
        let whole = report.whole;
        report.say(&Said::Done { whole })?;
        report.to.flush()
    });
    tried
        .map(|()| Exit::Success)
        .map_err(|error| Failure::internal("say what was tried", &error))
}

struct Report<W: Write> {
    to: W,
    looked: Looked,
    whole: bool,
}

/// What was looked through in one place.
#[derive(Default)]
struct Looked {
    files: usize,
    bytes: u64,
    entries: usize,
}

impl<W: Write> Report<W> {
    fn all(&mut self, arguments: &AttemptArguments) -> io::Result<()> {
        self.own_process()?;
        for process in &arguments.processes {
            self.other_process(*process)?;
        }
        self.everybodys_processes()?;
        for path in &arguments.closed {
            self.closed(path)?;
        }
        for path in &arguments.fixed {
            self.unwritten(path)?;
        }
        for path in &arguments.search {
            self.looked = Looked::default();
            self.search(path, 0)?;
        }
        if let Some(door) = arguments.door {
            self.door(door)?;
        }
        if let Some(endpoint) = arguments.endpoint {
            let reached = TcpStream::connect_timeout(&endpoint, CONNECT_TIME_MAX).is_ok();
            self.say(&Said::Endpoint { reached })?;
        }
        Ok(())
    }

    /// What a child has from us, and what it could become.
    fn own_process(&mut self) -> io::Result<()> {
        // What it does not say is not known to be right: that is a success of the attempt, and a failed start.
        let status = fs::read_to_string("/proc/self/status")?;
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map_or("unknown", str::trim)
        };
        for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            let held = field(name);
            let held = (!held.bytes().all(|digit| digit == b'0')).then(|| held.to_owned());
            self.tried(&format!("have capabilities ({name})"), held)?;
        }
        let bound = field("NoNewPrivs");
        self.tried(
            "gain privileges from a program",
            (bound != "1").then(|| format!("NoNewPrivs is {bound}")),
        )?;
        self.tried("become root", ok(setuid(Uid::from_raw(0))))?;
        self.tried("join the group of root", ok(setgid(Gid::from_raw(0))))?;
        let inherited: Vec<String> = fs::read_dir("/proc/self/fd")
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .parse::<i32>()
                    .is_ok_and(|fd| fd > 2)
            })
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            // The one with which we are looking.
            .filter(|target| !target.to_string_lossy().ends_with("/fd"))
            .map(|target| target.display().to_string())
            .collect();
        let inherited = (!inherited.is_empty()).then(|| inherited.join(", "));
        self.tried("inherit what is open", inherited)
    }

    fn other_process(&mut self, process: i32) -> io::Result<()> {
        let pid = Pid::from_raw(process);
        // Without a signal: the right to send one is all that is asked for.
        self.tried(&format!("signal process {process}"), ok(kill(pid, None)))?;
        let traced = ptrace::seize(pid, ptrace::Options::empty());
        // If it worked, it is let go of when we end.
        self.tried(&format!("trace process {process}"), ok(traced))?;
        let folder = PathBuf::from(format!("/proc/{process}"));
        for name in ["environ", "mem", "maps", "auxv", "stack", "syscall", "io"] {
            let path = folder.join(name);
            let opened = File::open(&path).and_then(|mut file| file.read(&mut [0; 1]));
            self.tried(&format!("read {}", path.display()), ok(opened))?;
        }
        for name in ["cwd", "root", "exe"] {
            let path = folder.join(name);
            self.tried(
                &format!("follow {}", path.display()),
                ok(fs::read_link(&path)),
            )?;
        }
        let path = folder.join("fd");
        self.tried(&format!("list {}", path.display()), ok(fs::read_dir(&path)))
    }

    /// What can be read of all processes is looked through, whoever they are.
    fn everybodys_processes(&mut self) -> io::Result<()> {
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name();
            if !name
                .to_string_lossy()
                .bytes()
                .all(|byte| byte.is_ascii_digit())
            {
                continue;
            }
            for part in ["environ", "cmdline", "comm"] {
                self.read(&entry.path().join(part))?;
            }
            for handle in fs::read_dir(entry.path().join("fd"))
                .into_iter()
                .flatten()
                .flatten()
            {
                let is_file = fs::metadata(handle.path()).is_ok_and(|found| found.is_file());
                if is_file {
                    self.read(&handle.path())?;
                }
            }
        }
        Ok(())
    }

    fn closed(&mut self, path: &Path) -> io::Result<()> {
        // Its entries are tried as well: their names are known to whoever reads our source.
        let entered = ["HEAD", "config", "tmp"]
            .iter()
            .find(|name| fs::symlink_metadata(path.join(name)).is_ok())
            .map(|name| format!("{name} is there"));
        self.tried(&format!("look into {}", path.display()), entered)?;
        self.tried(&format!("list {}", path.display()), ok(fs::read_dir(path)))?;
        let read = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(path);
        self.tried(&format!("read {}", path.display()), ok(read))?;
        // A second name for it, in a folder of its own, would be as good.
        let named = std::env::temp_dir().join(format!("attempt-{}", std::process::id()));
        let linked = fs::hard_link(path, &named);
        // There is something to remove only if it could be linked, and that is said.
        fs::remove_file(&named).ok();
        self.tried(&format!("link to {}", path.display()), ok(linked))?;
        self.unwritten(path)
    }

    fn unwritten(&mut self, path: &Path) -> io::Result<()> {
        let written = OpenOptions::new()
            .write(true)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(path);
        self.tried(&format!("write {}", path.display()), ok(written))?;
        if !path.is_dir() {
            return Ok(());
        }
        let made = path.join(format!("attempt-{}", std::process::id()));
        let outcome = ok(fs::create_dir(&made));
        // As above.
        fs::remove_dir(&made).ok();
        self.tried(&format!("make something in {}", path.display()), outcome)
    }

    fn search(&mut self, path: &Path, depth: usize) -> io::Result<()> {
        // What it may not even name, it cannot read.
        let Ok(found) = fs::symlink_metadata(path) else {
            return Ok(());
        };
        if found.is_file() {
            return self.read(path);
        }
        if !found.is_dir() {
            return Ok(());
        }
        if depth > DEPTH_MAX {
            self.whole = false;
            return Ok(());
        }
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            self.looked.entries += 1;
            if self.looked.entries > ENTRIES_MAX {
                self.whole = false;
                return Ok(());
            }
            self.search(&entry.path(), depth + 1)?;
        }
        Ok(())
    }

    /// Sends what is in a file, if it can be read.
    fn read(&mut self, path: &Path) -> io::Result<()> {
        if self.looked.files >= FILES_MAX || self.looked.bytes >= BYTES_MAX {
            self.whole = false;
            return Ok(());
        }
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY)
            .open(path);
        let mut content = Vec::new();
        let read = opened.and_then(|file| file.take(FILE_MAX_BYTES).read_to_end(&mut content));
        if read.is_err() || content.is_empty() {
            return Ok(());
        }
        self.whole &= u64::try_from(content.len()).is_ok_and(|bytes| bytes < FILE_MAX_BYTES);
        self.looked.files += 1;
        self.looked.bytes += content.len() as u64;
        self.say(&Said::Read {
            from: path.display().to_string(),
            bytes: content.len(),
        })?;
        self.to.write_all(&content)
    }

    /// Nobody but the router is answered. A door that says nothing was not tried, and a refusal for another reason is none.
    fn door(&mut self, door: SocketAddr) -> io::Result<()> {
        for (method, path, body) in [
            ("GET", "/_edit/status", ""),
            ("GET", "/_edit/history", ""),
            ("GET", "/_edit/events", ""),
            ("POST", "/_edit/instructions", "[]"),
            ("GET", "/", ""),
        ] {
            let status = ask(door, method, path, body)?;
            let answered = (status != MISDIRECTED).then_some(status);
            self.tried(
                &format!("{method} {path} of the agent"),
                answered.map(|status| format!("it answered {status}")),
            )?;
        }
        Ok(())
    }

    fn tried(&mut self, what: &str, succeeded: Option<String>) -> io::Result<()> {
        self.say(&Said::Tried {
            what: what.to_owned(),
            succeeded,
        })
    }

    fn say(&mut self, said: &Said) -> io::Result<()> {
        let line = serde_json::to_string(said).map_err(io::Error::other)?;
        writeln!(self.to, "{line}")
    }
}

fn ask(door: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&door, DOOR_TIME_MAX)?;
    stream.set_read_timeout(Some(DOOR_TIME_MAX))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {door}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    std::str::from_utf8(&head[9..])
        .ok()
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| Errno::EPROTO.into())
}

fn ok<T, E>(result: Result<T, E>) -> Option<String> {
    result.ok().map(|_| "it was allowed".to_owned())
}
