//! What runs the client's code is kept apart from what holds its secrets.
//!
//! ```text
//!   daemon   root with four capabilities ──▶ `confine`: limits, no new privileges, another user ──▶ exec npm, node, an editor
//!
//!   root      git directory, queue, store, journal       0700, or 0660 of root's own group
//!   tree      the work tree and what is staged for it    2770: daemon, site, builder and editor write what the others can write
//!   site      its home, node_modules, what it compiles   0700 and 2770
//!   builder   its home                                   0700
//!   editor    its home                                   0700
//! ```
//!
//! What builds a site for publishing is another user than what shows it: whenever the dev server is started anew, everything that it may
//! have left is ended, and a build is not. A fourth user, `reaper`, is nobody's but that of [`ending`].
//!
//! The site is code that anybody may have written, and it runs in the same kernel as our credentials. On Fargate there are no
//! namespaces, no firewall and no second container to be had; what is left is the oldest boundary of Unix, users, and that is
//! used whole: [`privileges`] takes from the daemon what it does not use, [`confine`] from the child everything, and
//! [`proof`] tries, as each of the users, what must not work, before any code of the client runs.
//!
//! Outside an image (a developer's machine, a router's laptop) there is one user, and nothing here does anything.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Gid, Group, Uid, User, chown};

use crate::control_group;
use crate::environment::home::Home;
use crate::failure::{Exit, Failure};

pub(crate) mod attempt;
pub(crate) mod confine;
pub(crate) mod ending;
pub(crate) mod folders;
mod privileges;
pub(crate) mod proof;

/// The users and the group that an image has for this.
const SITE: &str = "site";
const BUILDER: &str = "builder";
const EDITOR: &str = "editor";
const REAPER: &str = "reaper";
const TREE: &str = "tree";

/// Processes and threads of one user. A dev server has about fifty, an install a hundred.
const PROCESSES_MAX: u64 = 1024;
/// What stays for the agent of all that the container may have.
const PROCESSES_KEPT: u64 = 64;
/// With fewer, the site's share is not enough for Node.
const PROCESSES_MIN: u64 = 256;
/// How long it may take to end everything of a user. What does it has a limit of its own, which is shorter.
const END_TIME_MAX: Duration = Duration::from_secs(15);
/// Bytes of one file that a child may write: more than any site has, and less than fills a disk at once.
const FILE_MAX_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// What a child is, and so as whom it runs and when it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// An install: it ends by itself, and can be done again.
    Tool,
    /// A build for publishing, likewise.
    Build,
    /// The program that carries out an instruction in words.
    Editor,
    /// The dev server.
    Site,
}

impl Role {
    /// The part of the processes that children may have. The site does most, and installs.
    fn share(self) -> u64 {
        match self {
            Self::Tool | Self::Site => 2,
            Self::Build | Self::Editor => 4,
        }
    }

    /// By how much more readily than another process of its size the kernel ends it when memory runs out. The daemon is
    /// last: without it nothing is pushed.
    fn oom_score(self) -> i32 {
        match self {
            Self::Tool | Self::Build => 900,
            Self::Editor => 700,
            Self::Site => 500,
        }
    }
}

/// A user of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    name: &'static str,
    uid: Uid,
    gid: Gid,
}

/// The right to run children as others, before it is known where they live.
#[derive(Debug, Clone)]
pub(crate) struct Users {
    site: Account,
    builder: Account,
    editor: Account,
    /// Nothing runs as this one but what ends the others' processes.
    reaper: Account,
    tree: Gid,
    /// This program, which confines itself before it becomes the child.
    program: PathBuf,
}

/// As whom children run. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Isolation(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    users: Users,
    homes: PathBuf,
    /// How many processes and threads all children together may have.
    processes_max: u64,
    /// One at a time ends processes: they could end each other.
    ending: tokio::sync::Mutex<()>,
}

impl Users {
    /// Finds the users, gives up what the daemon does not use, and keeps what it writes from everybody else.
    ///
    /// Before any thread is started: capabilities belong to threads.
    pub(crate) fn establish() -> Result<Self, Failure> {
        let users = Self::find()?;
        privileges::cut()?;
        privileges::join(users.tree)?;
        Ok(users)
    }

    /// Finds the users, and that they could be given children. Changes nothing.
    pub(crate) fn find() -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(|error| {
            unfit(
                format!("/proc is not there ({error}), so that nothing can be proven"),
                "Mount /proc: every container engine does unless it is told not to.",
            )
        })?;
        if !Uid::effective().is_root() {
            return Err(unfit(
                format!(
                    "the agent runs as user {} and cannot give the site another one",
                    Uid::effective()
                ),
                "Start the container without --user: the agent gives up by itself what it does not need.",
            ));
        }
        let (site, builder) = (account(SITE)?, account(BUILDER)?);
        let (editor, reaper) = (account(EDITOR)?, account(REAPER)?);
        let tree = Group::from_name(TREE)
            .ok()
            .flatten()
            .map(|group| group.gid)
            .ok_or_else(|| missing("group", TREE))?;
        privileges::surplus()?;
        processes_max()?;
        Ok(Self {
            site,
            builder,
            editor,
            reaper,
            tree,
            program,
        })
    }

    /// Ends whatever a crash has left running as one of the users: nobody may be there while it is proven that they get at nothing.
    pub(crate) async fn end_all(&self) -> Result<(), Failure> {
        for account in self.of_children() {
            self.end(account).await.map_err(|why| {
                unfit(
                    format!("what runs as `{}` could not be ended: {why}", account.name),
                    "Stop the container: whatever it is goes with it.",
                )
                .retryable(true)
            })?;
        }
        Ok(())
    }

    /// Whose processes run the client's code.
    fn of_children(&self) -> [&Account; 3] {
        [&self.site, &self.builder, &self.editor]
    }

    /// Ends everything that runs as this user.
    async fn end(&self, account: &Account) -> Result<(), String> {
        let ended = tokio::process::Command::new(&self.program)
            .args(["end", "--uid", &account.uid.to_string()])
            .args(["--as", &self.reaper.uid.to_string()])
            .env_clear()
            .current_dir("/")
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .status();
        match tokio::time::timeout(END_TIME_MAX, ended).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(status.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("it took longer than {} s", END_TIME_MAX.as_secs())),
        }
    }

    /// Makes the folder of everything ours, whoever has made it: a volume may be anybody's.
    pub(crate) fn own(state: &Path) -> Result<(), Failure> {
        let failed = |error| Failure::storage("take", state, &error);
        if state.is_dir() {
            chown(state, Some(Uid::from_raw(0)), None)
                .map_err(|error| failed(std::io::Error::from(error)))?;
        }
        Ok(())
    }

    /// Gives every folder of the environment to whom it belongs.
    pub(crate) fn arrange(self, home: &Home) -> Result<Isolation, Failure> {
        let processes_max = processes_max()?;
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error: std::io::Error| Failure::storage("give away", &path, &error)
        };
        let give = |path: &Path, uid: Uid, gid: Gid, mode: u32| -> std::io::Result<()> {
            std::fs::create_dir_all(path)?;
            // In this order: once it is another's, it is not ours to set.
            chown(path, Some(Uid::from_raw(0)), Some(gid))?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
            Ok(chown(path, Some(uid), None)?)
        };
        let root = Uid::from_raw(0);
        // A way through for whoever knows where to go, and nothing to see on it.
        for folder in home.way() {
            give(&folder, root, self.tree, 0o710).map_err(failed(&folder))?;
        }
        let staging = home.workspace.join("staging");
        give(&staging, root, self.tree, 0o2710).map_err(failed(&staging))?;
        let homes = home.workspace.join("homes");
        give(&homes, root, self.tree, 0o710).map_err(failed(&homes))?;
        for account in self.of_children() {
            let folder = homes.join(account.name);
            // What is there already is the account's, and closed to us.
            if !folder.exists() {
                let beside = homes.join(format!("{}-made", account.name));
                // Half made, and given away, before a crash.
                if beside.exists() {
                    folders::remove(&beside).map_err(failed(&beside))?;
                }
                for path in [beside.join("tmp"), beside.clone()] {
                    give(&path, account.uid, account.gid, 0o700).map_err(failed(&path))?;
                }
                std::fs::rename(&beside, &folder).map_err(failed(&folder))?;
            }
        }
        let cache = home.compile_cache();
        if !cache.exists() {
            give(&cache, self.site.uid, self.site.gid, 0o700).map_err(failed(&cache))?;
        }
        Ok(Isolation(Some(Arc::new(Inner {
            users: self,
            homes,
            processes_max,
            ending: tokio::sync::Mutex::default(),
        }))))
    }
}

impl Isolation {
    /// Everything runs as whoever we are.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Whether children are other users.
    pub(crate) fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// What is to be started, and with which variables, so that `program` runs as `role` with these.
    pub(crate) fn confined(
        &self,
        role: Role,
        program: &Path,
        arguments: &[OsString],
        variables: BTreeMap<OsString, OsString>,
    ) -> (PathBuf, Vec<OsString>, BTreeMap<OsString, OsString>) {
        let Some(inner) = &self.0 else {
            return (program.to_owned(), arguments.to_vec(), variables);
        };
        let account = inner.account(role);
        let mut words: Vec<OsString> = vec!["confine".into()];
        for (name, value) in [
            ("--uid", account.uid.to_string()),
            ("--gid", account.gid.to_string()),
            ("--group", inner.users.tree.to_string()),
            ("--oom-score", role.oom_score().to_string()),
            ("--processes", inner.processes_max_of(role).to_string()),
            ("--file-bytes", FILE_MAX_BYTES.to_string()),
        ] {
            words.extend([name.into(), value.into()]);
        }
        words.push("--".into());
        words.push(program.into());
        words.extend_from_slice(arguments);
        let renamed = variables.into_iter().map(|(name, value)| {
            let mut hidden = OsString::from(confine::VARIABLE);
            hidden.push(name);
            (hidden, value)
        });
        (inner.users.program.clone(), words, renamed.collect())
    }

    /// What a role has of its own.
    pub(crate) fn variables(&self, role: Role) -> BTreeMap<&'static str, OsString> {
        let Some(inner) = &self.0 else {
            return BTreeMap::new();
        };
        let account = inner.account(role);
        let home = inner.homes.join(account.name);
        BTreeMap::from([
            ("HOME", home.clone().into()),
            ("TMPDIR", home.join("tmp").into()),
            ("XDG_CACHE_HOME", home.join(".cache").into()),
            ("USER", account.name.into()),
        ])
    }

    /// Ends whatever runs as the user of this role, in whichever group.
    pub(crate) async fn end(&self, role: Role) -> Result<(), String> {
        let Some(inner) = &self.0 else {
            return Ok(());
        };
        let _alone = inner.ending.lock().await;
        inner.users.end(inner.account(role)).await
    }

    /// Gives a folder that we made, and everything in it, to the site.
    pub(crate) fn give_to_site(&self, folder: &Path) -> std::io::Result<()> {
        match &self.0 {
            None => Ok(()),
            Some(inner) => folders::give(folder, inner.users.site.uid, inner.users.tree),
        }
    }
}

impl Inner {
    fn account(&self, role: Role) -> &Account {
        match role {
            Role::Tool | Role::Site => &self.users.site,
            Role::Build => &self.users.builder,
            Role::Editor => &self.users.editor,
        }
    }

    fn processes_max_of(&self, role: Role) -> u64 {
        (self.processes_max / role.share()).clamp(1, PROCESSES_MAX)
    }
}

/// What all children together may have: whatever they do, the daemon can go on.
fn processes_max() -> Result<u64, Failure> {
    match control_group::processes_max() {
        None => Ok(u64::MAX),
        Some(max @ PROCESSES_MIN..) => Ok(max - PROCESSES_KEPT),
        Some(max) => Err(unfit(
            format!(
                "the container may have {max} processes and threads, and an environment needs {PROCESSES_MIN}"
            ),
            "Start it with a higher limit (--pids-limit 512).",
        )),
    }
}

fn account(name: &'static str) -> Result<Account, Failure> {
    let user = User::from_name(name).ok().flatten();
    user.map(|user| Account {
        name,
        uid: user.uid,
        gid: user.gid,
    })
    .ok_or_else(|| missing("user", name))
}

fn missing(kind: &str, name: &str) -> Failure {
    unfit(
        format!("there is no {kind} `{name}` in this image"),
        "Build the image from docker/Dockerfile, or set ISOLATION=none where the site may do everything that the agent may.",
    )
}

/// The children cannot be kept apart.
fn unfit(message: impl Into<String>, hint: impl Into<String>) -> Failure {
    Failure::new(Exit::Isolation, message, hint)
}
