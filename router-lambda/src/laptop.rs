//! A laptop: its folder, its clients, the program that is an environment. No AWS.
//!
//! ```text
//!  <state>/edit.sqlite            clients, sessions, receipts and queues, shared with the agents
//!  <state>/link-keys              the key that signs links, readable by its owner alone
//!  <state>/router.json            where the router is, while it runs
//!  <state>/router.lock            held while it runs
//!  <state>/remotes/<client>.git   what a plain folder was imported into
//!  <state>/logs/                  what agents say
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use contract::ClientConfig;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use platform::local::LocalStore;
use relay::Proto;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::process::Command;

use crate::assembly::Pace;
use crate::failure::{Exit, Failure};
use crate::link::LinkKeys;
use crate::policy::{Policy, Public};
use crate::reply;
use crate::wake::CLAIMED_WITHIN_HERE;

/// Below which everything of a laptop is. Browsers take every name below it for this machine.
const DOMAIN: &str = "localhost";
/// Dead letters.
pub const DEAD: &str = "webordinary-edits-dead.fifo";
/// Where producers send.
pub const INTAKE: &str = "webordinary-intake.fifo";

/// How old what is known of a session may be: a file of this machine is read in no time, and it is heard when it changes.
const FRESH: Duration = Duration::from_millis(20);
/// How long a page that waits may be kept waiting for something new.
pub(crate) const HOLD: Duration = Duration::from_secs(20);

/// The folder of a laptop.
#[derive(Debug, Clone)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
}

/// Where the router of a folder is, for `link` and `inspect`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// Its port.
    pub port: u16,
    /// Its process.
    pub pid: u32,
    /// Whether sessions have a host each.
    pub previews: bool,
}

impl Folder {
    /// The folder that was named, else the one where programs keep their state. It is made if need be.
    pub fn open(named: Option<&Path>) -> Result<Self, Failure> {
        let variable = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let path = match named {
            Some(path) => path.to_owned(),
            None => match (variable("XDG_STATE_HOME"), variable("HOME")) {
                (Some(state), _) => state.join("edit-router"),
                (None, Some(home)) => home.join(".local/state/edit-router"),
                (None, None) => {
                    return Err(Failure::new(
                        Exit::Storage,
                        "there is no home folder to keep state in",
                        "Name one with --state DIR.",
                    ));
                }
            },
        };
        fs::create_dir_all(&path).map_err(|error| Failure::storage("make", &path, &error))?;
        let path =
            fs::canonicalize(&path).map_err(|error| Failure::storage("use", &path, &error))?;
        Ok(Self { path })
    }

    /// Takes the folder for one router.
    pub fn lock(&self) -> Result<Flock<File>, Failure> {
        let path = self.path.join("router.lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| Failure::storage("open", &path, &error))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
            if error == Errno::EWOULDBLOCK {
                let place = self
                    .running()
                    .map(|running| format!(" on port {} (process {})", running.port, running.pid))
                    .unwrap_or_default();
                return Failure::new(
                    Exit::AlreadyRunning,
                    format!("a router of {} runs already{place}", self.path.display()),
                    "Use that one, stop it first, or name another folder with --state.",
                );
            }
            Failure::storage("lock", &path, &io::Error::from(error))
        })
    }

    /// What the router that runs here, or the last one, says of itself.
    pub fn running(&self) -> Option<Running> {
        serde_json::from_slice(&fs::read(self.path.join("router.json")).ok()?).ok()
    }

    /// Says where the router is.
    pub fn announce(&self, running: &Running) -> Result<(), Failure> {
        let path = self.path.join("router.json");
        let text = serde_json::to_vec(running).expect("a note is JSON");
        fs::write(&path, text).map_err(|error| Failure::storage("write", &path, &error))
    }

    /// The records and messages.
    pub fn store(&self) -> Result<LocalStore, Failure> {
        LocalStore::open(&self.path.join("edit.sqlite"))
            .map_err(|error| Failure::backend("open the records of this laptop", &error))
    }

    /// The keys that sign links. Made at the first time.
    pub fn keys(&self) -> Result<LinkKeys, Failure> {
        let path = self.path.join("link-keys");
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|error| {
                Failure::new(
                    Exit::Storage,
                    format!("{} has no key in it: {error}", path.display()),
                    "Remove it: a new one is made, and links that were signed with it end.",
                )
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let keys = LinkKeys::of(reply::random());
                let made = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&path)
                    .and_then(|mut file| file.write_all(keys.reveal().as_bytes()));
                made.map_err(|error| Failure::storage("write", &path, &error))?;
                Ok(keys)
            }
            Err(error) => Err(Failure::storage("read", &path, &error)),
        }
    }
}

/// What holds for all clients of a laptop.
pub fn policy(running: &Running) -> Policy {
    Policy {
        edit_domain: DOMAIN.to_owned(),
        preview_domain: running.previews.then(|| DOMAIN.to_owned()),
        networks: vec!["127.0.0.0/8".parse().expect("a network")],
        door_port: None,
        public: Public {
            proto: Proto::Http,
            port: Some(running.port),
        },
    }
}

/// How patient the router of a laptop is.
pub fn pace() -> Pace {
    Pace {
        fresh: FRESH,
        claimed_within: CLAIMED_WITHIN_HERE,
        hold: HOLD,
    }
}

/// What every agent of a laptop is told.
pub fn agent_environment(policy: &Policy) -> Vec<(String, String)> {
    let mut variables = vec![("EDIT_DOMAIN".to_owned(), policy.edit_domain.clone())];
    if let Some(domain) = &policy.preview_domain {
        variables.push(("PREVIEW_DOMAIN".to_owned(), domain.clone()));
    }
    variables
}

/// The program `edit-agent`: the one that was named, else the one beside this program, else the first in PATH. Under `cargo run`
/// only this program was built, and so it is built now.
pub async fn agent(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(named) = named {
        if is_program(named) {
            return std::path::absolute(named)
                .map_err(|error| Failure::storage("use", named, &error));
        }
        return Err(Failure::new(
            Exit::NotThere,
            format!("{} is no program", named.display()),
            "Name edit-agent with --agent FILE.",
        ));
    }
    let own = std::env::current_exe().ok();
    let beside = own
        .as_deref()
        .and_then(Path::parent)
        .map(|folder| folder.join("edit-agent"));
    let workspace = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    if let (Some(workspace), Some(beside)) = (&workspace, &beside) {
        // Also if there is one: it may be older than what it was built from.
        build(workspace, beside).await?;
    }
    if let Some(beside) = beside.filter(|beside| is_program(beside)) {
        return Ok(beside);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join("edit-agent"))
        .find(|program| is_program(program))
        .ok_or_else(|| {
            Failure::new(
                Exit::NotThere,
                "the program edit-agent is neither beside this one nor in PATH",
                "Install it (`cargo install --path agent`), or name it with --agent FILE.",
            )
        })
}

/// Builds the agent as cargo built us, and says so: a first build takes minutes.
async fn build(manifest: &Path, program: &Path) -> Result<(), Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        // From the workspace's folder: of a package alone, other features would be compiled of what both share.
        .args(["build", "--bin", "edit-agent"])
        .current_dir(manifest.parent().unwrap_or(manifest));
    // What cargo told us of our package: by it build scripts would take themselves for another package's, and most of what is built
    // would be built anew each time.
    for (name, _) in std::env::vars_os() {
        let of_package = ["CARGO_PKG_", "CARGO_MANIFEST_"];
        if name
            .to_str()
            .is_some_and(|name| of_package.iter().any(|prefix| name.starts_with(prefix)))
        {
            command.env_remove(name);
        }
    }
    let optimised = program
        .parent()
        .is_some_and(|folder| folder.ends_with("release"));
    if optimised {
        command.arg("--release");
    }
    if !is_program(program) {
        say("edit-agent is built first; this takes some minutes the first time.");
    }
    let built = command
        .status()
        .await
        .map_err(|error| Failure::internal("run cargo", &error))?;
    if built.success() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::NotThere,
        "edit-agent could not be built",
        "What cargo said is above.",
    ))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Reads the configurations of a folder: `<clientId>.json` each. Everything that is wrong with any of them is said at once.
///
/// A repository that is named by a path is looked for from the folder; a plain folder of a site is imported into a repository
/// of its own, once.
pub async fn clients(
    folder: &Path,
    state: &Folder,
    agent: &Path,
) -> Result<Vec<ClientConfig>, Failure> {
    let entries = fs::read_dir(folder).map_err(|error| Failure::storage("read", folder, &error))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    files.sort();
    let mut problems = Vec::new();
    let mut configs = Vec::new();
    for file in files {
        match read(&file) {
            Ok(config) => configs.push(config),
            Err(found) => problems.extend(
                found
                    .into_iter()
                    .map(|problem| format!("{}: {problem}", file.display())),
            ),
        }
    }
    if !problems.is_empty() {
        return Err(Failure::new(
            Exit::Config,
            format!(
                "the clients of {} are not valid:\n  {}",
                folder.display(),
                problems.join("\n  ")
            ),
            "`edit-agent schema client-config` says what is.",
        ));
    }
    if configs.is_empty() {
        return Err(Failure::new(
            Exit::Config,
            format!("there is no client in {}", folder.display()),
            "Put one there, <clientId>.json, or name another folder with --clients DIR. `edit-agent schema client-config` says what is in it.",
        ));
    }
    for config in &mut configs {
        config.repository.url = repository(config, folder, state, agent).await?;
    }
    Ok(configs)
}

fn read(file: &Path) -> Result<ClientConfig, Vec<String>> {
    let text = fs::read_to_string(file).map_err(|error| vec![error.to_string()])?;
    let value: Value = serde_json::from_str(&text).map_err(|error| vec![error.to_string()])?;
    let config = ClientConfig::parse(&value).map_err(|problems| {
        problems
            .0
            .iter()
            .map(|problem| format!("{}: {}", problem.path, problem.message))
            .collect::<Vec<_>>()
    })?;
    let named = file.file_stem().and_then(|stem| stem.to_str());
    if named != Some(config.client_id.as_str()) {
        return Err(vec![format!(
            "the file is named otherwise than its client, {}",
            config.client_id
        )]);
    }
    Ok(config)
}

async fn repository(
    config: &ClientConfig,
    folder: &Path,
    state: &Folder,
    agent: &Path,
) -> Result<String, Failure> {
    let url = &config.repository.url;
    if url.contains("://") || url.contains('@') {
        return Ok(url.clone());
    }
    let path = folder.join(url);
    let path = fs::canonicalize(&path).map_err(|error| {
        Failure::new(
            Exit::Config,
            format!(
                "the repository of {}, {}, cannot be opened: {error}",
                config.client_id,
                path.display()
            ),
            "Name an address, or a path from the folder of the clients.",
        )
    })?;
    // A repository has one of these; anything else is a plain folder.
    if path.join(".git").exists() || path.join("HEAD").is_file() {
        return Ok(path.display().to_string());
    }
    let remote = state
        .path
        .join("remotes")
        .join(format!("{}.git", config.client_id));
    let imported = Command::new(agent)
        .arg("import")
        .arg(&path)
        .arg(&remote)
        .output()
        .await
        .map_err(|error| Failure::internal("run edit-agent", &error))?;
    if imported.status.success() {
        return Ok(remote.display().to_string());
    }
    Err(Failure::new(
        Exit::Config,
        format!(
            "the site of {} could not be imported:\n{}",
            config.client_id,
            String::from_utf8_lossy(&imported.stderr).trim_end()
        ),
        "",
    ))
}

/// Tells a person on stderr. Nobody is left to tell if it is gone.
pub(crate) fn say(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}
