//! The folders of an environment on this machine, and the lock that only one agent holds.
//!
//! ```text
//!  <state>/edit.sqlite                    queues, receipts, sessions, clients of all environments
//!  <state>/store/                         dependencies, by lock file
//!  <state>/rescue/                        what could not be pushed, where there is no rescue bucket
//!  <state>/environments/<key>/lock        held while the environment runs
//!                             running.json  where it is, for `send`
//!                             import.git  what a plain folder was imported into
//!                             workspace/  draft.git, tree, staging, journal.json, homes of the site's and the editor's users
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use contract::id::hex;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::failure::{Exit, Failure};

/// The folders of one environment. The locks are held as long as this lives.
#[derive(Debug)]
pub(crate) struct Home {
    /// Where everything of this machine's environments is kept.
    pub(crate) state: PathBuf,
    /// The environment's own folder.
    pub(crate) folder: PathBuf,
    /// The clone and the work tree.
    pub(crate) workspace: PathBuf,
    _lock: Flock<File>,
    _workspace_lock: Option<Flock<File>>,
}

/// What a running environment says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunningNote {
    /// Where its door is.
    pub(crate) url: String,
    /// Its process.
    pub(crate) pid: u32,
    /// The folder that was named, if it was one.
    pub(crate) folder: Option<PathBuf>,
}

impl Home {
    /// Makes and locks the folders of the environment that `key` names below `state`. The workspace may be elsewhere.
    pub(crate) fn open(
        state: PathBuf,
        key: &str,
        workspace: Option<&Path>,
    ) -> Result<Self, Failure> {
        let folder = state.join("environments").join(key);
        let workspace = match workspace {
            Some(workspace) => std::path::absolute(workspace)
                .map_err(|error| Failure::storage("use", workspace, &error))?,
            None => folder.join("workspace"),
        };
        for path in [&folder, &workspace] {
            fs::create_dir_all(path).map_err(|error| Failure::storage("make", path, &error))?;
        }
        let workspace = fs::canonicalize(&workspace)
            .map_err(|error| Failure::storage("use", &workspace, &error))?;
        let lock = lock(&folder)?;
        // A workspace named by hand may be named twice, for two repositories.
        let workspace_lock = if workspace.starts_with(&folder) {
            None
        } else {
            Some(self::lock(&workspace)?)
        };
        Ok(Self {
            state,
            folder,
            workspace,
            _lock: lock,
            _workspace_lock: workspace_lock,
        })
    }

    /// Stored dependencies.
    pub(crate) fn store(&self) -> PathBuf {
        self.state.join("store")
    }

    /// Queues, receipts, sessions and clients of the local adapters.
    pub(crate) fn database(&self) -> PathBuf {
        self.state.join("edit.sqlite")
    }

    /// Everything on this machine below which an environment keeps something.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &Path> {
        [&self.workspace, &self.folder, &self.state]
            .map(PathBuf::as_path)
            .into_iter()
    }

    /// Where Node keeps compiled code between starts.
    pub(crate) fn compile_cache(&self) -> PathBuf {
        self.workspace.join("compile-cache")
    }

    /// The folders from where everything is kept down to the workspace.
    pub(crate) fn way(&self) -> Vec<PathBuf> {
        let mut way = vec![self.state.clone()];
        if let Ok(below) = self.workspace.strip_prefix(&self.state) {
            for component in below.components() {
                let next = way.last().expect("it begins with one").join(component);
                way.push(next);
            }
        } else {
            way.push(self.workspace.clone());
        }
        way
    }

    /// The work tree.
    pub(crate) fn tree(&self) -> PathBuf {
        self.workspace.join("tree")
    }

    /// Says where the environment is.
    pub(crate) fn announce(&self, url: &str, folder: Option<&Path>) -> Result<(), Failure> {
        let note = RunningNote {
            url: url.to_owned(),
            pid: std::process::id(),
            folder: folder.map(Path::to_owned),
        };
        let path = self.folder.join("running.json");
        let text = serde_json::to_vec(&note).expect("a note is JSON");
        fs::write(&path, text).map_err(|error| Failure::storage("write", &path, &error))
    }

    /// Says that it is there no more.
    pub(crate) fn withdraw(&self) {
        // If it stays, whoever reads it finds the lock free.
        fs::remove_file(self.folder.join("running.json")).ok();
    }
}

/// The folder in which everything is kept: the one named, else where programs keep their state.
pub(crate) fn state_folder(named: Option<&Path>) -> Result<PathBuf, Failure> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let folder = match named {
        Some(folder) => folder.to_owned(),
        None => match (variable("XDG_STATE_HOME"), variable("HOME")) {
            (Some(state), _) => state.join("edit-agent"),
            (None, Some(home)) => home.join(".local/state/edit-agent"),
            (None, None) => {
                return Err(Failure::new(
                    Exit::Storage,
                    "there is no home folder to keep state in",
                    "Name one with --state DIR.",
                ));
            }
        },
    };
    let folder =
        std::path::absolute(&folder).map_err(|error| Failure::storage("use", &folder, &error))?;
    fs::create_dir_all(&folder).map_err(|error| Failure::storage("make", &folder, &error))?;
    fs::canonicalize(&folder).map_err(|error| Failure::storage("use", &folder, &error))
}

/// The environments of this machine that run now.
pub(crate) fn running(state: &Path) -> Vec<RunningNote> {
    let Ok(environments) = fs::read_dir(state.join("environments")) else {
        return Vec::new();
    };
    let read = |folder: &Path| -> Option<RunningNote> {
        let note = serde_json::from_slice(&fs::read(folder.join("running.json")).ok()?).ok()?;
        // Whoever can take the lock has found a note that a crash left.
        let file = File::open(folder.join("lock")).ok()?;
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => None,
            Err(_) => Some(note),
        }
    };
    environments
        .flatten()
        .filter_map(|entry| read(&entry.path()))
        .collect()
}

fn lock(folder: &Path) -> Result<Flock<File>, Failure> {
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| Failure::storage("open", &path, &error))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            // For people who look; the lock itself is the kernel's.
            lock.set_len(0)
                .and_then(|()| lock.write_all(std::process::id().to_string().as_bytes()))
                .map_err(|error| Failure::storage("write", &path, &error))?;
            Ok(lock)
        }
        Err((_, Errno::EWOULDBLOCK)) => {
            let holder = fs::read_to_string(&path).unwrap_or_default();
            let place = running_at(folder)
                .map(|url| format!(" at {url}"))
                .unwrap_or_default();
            Err(Failure::new(
                Exit::AlreadyRunning,
                format!(
                    "an environment of this repository runs already{place} (process {})",
                    holder.trim()
                ),
                "Send instructions to it with `send`, or stop it first.",
            ))
        }
        Err((_, error)) => Err(Failure::storage("lock", &path, &io::Error::from(error))),
    }
}

fn running_at(folder: &Path) -> Option<String> {
    let note: RunningNote =
        serde_json::from_slice(&fs::read(folder.join("running.json")).ok()?).ok()?;
    Some(note.url)
}

/// A readable name that no two environments share: their identity may hold what is no file name, or is nobody's business.
pub(crate) fn key(name: &str, identity: &str) -> String {
    let hash = hex(&Sha256::digest(identity));
    format!("{name}-{}", &hash[..10])
}
