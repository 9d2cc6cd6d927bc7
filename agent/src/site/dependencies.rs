//! Puts a site's dependencies in place.
//!
//! The lock file decides who installs them. What was installed once for a lock file, Node version and package manager
//! is kept in a store and linked from there the next time, file by file: `node_modules` is a real folder (a symlink would make the
//! dev server refuse half of it), and the second start of any session with that lock file costs almost nothing.
//!
//! ```text
//!   in place already ─▶ in the store ─▶ by the lock, exactly ─▶ as near to the lock as possible
//! ```
//!
//! Each step down the ladder is said with its reason. Packages run no scripts unless the client's configuration says so.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use contract::id::hex;
use sha2::{Digest, Sha256};
use tokio::io::BufReader;

use super::SiteError;
use super::log::{LINE_MAX_BYTES, OutputLog, bounded_line};
use super::node::Node;
use super::process::{Ending, GRACE, find};
use crate::isolation::{Role, folders};

mod store;

pub(super) use store::link_installed;

/// An install that takes longer than this hangs.
const INSTALL_TIME_MAX: Duration = Duration::from_secs(15 * 60);
/// The file in `node_modules` that says for what it was made. Written last, so that half an install is never taken for a whole one.
const MARK: &str = ".edit-agent";

/// Bytes of the mark: a hash.
const MARK_MAX_BYTES: u64 = 256;
/// Bytes of a file that says what is to be installed. Lock files of large sites have a few megabytes.
const INPUT_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Who installs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manager {
    Npm,
    Pnpm,
    Yarn,
    Bun,
}

impl Manager {
    fn name(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Pnpm => "pnpm",
            Self::Yarn => "yarn",
            Self::Bun => "bun",
        }
    }

    /// The package of the npm registry to use where the manager is not installed. Pinned to a major version that
    /// reads every lock file of its kind and runs on Node 20.
    fn package(self) -> &'static str {
        match self {
            Self::Npm => "npm@11",
            Self::Pnpm => "pnpm@10",
            Self::Yarn => "yarn@1",
            Self::Bun => "bun@1",
        }
    }
}

/// The lock files, in the order in which they are believed.
const LOCK_FILES: &[(&str, Manager)] = &[
    ("bun.lock", Manager::Bun),
    ("bun.lockb", Manager::Bun),
    ("pnpm-lock.yaml", Manager::Pnpm),
    ("yarn.lock", Manager::Yarn),
    ("npm-shrinkwrap.json", Manager::Npm),
    ("package-lock.json", Manager::Npm),
];

/// Files beside the lock file that change what is installed.
const INPUTS: &[&str] = &[
    "package.json",
    ".npmrc",
    ".yarnrc",
    ".yarnrc.yml",
    "pnpm-workspace.yaml",
    ".pnpmfile.cjs",
    "bunfig.toml",
];

/// How dependencies are put in place.
#[derive(Debug, Clone)]
pub(crate) struct Dependencies {
    /// The Node for which they are made.
    pub(crate) node: Node,
    /// Where whole `node_modules` are kept.
    pub(crate) store: PathBuf,
    /// For what is being removed: on the file system of the site, watched by nobody.
    pub(crate) staging: PathBuf,
    /// Whether packages may run scripts.
    pub(crate) scripts: bool,
    /// The client's own way to install, instead of the ladder: a program and its arguments.
    pub(crate) command: Option<Vec<String>>,
    /// Where the newest output of the package manager is kept.
    pub(crate) output: OutputLog,
}

/// How they came to be in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// They were there.
    InPlace,
    /// They were linked from the store.
    Store,
    /// They were installed.
    Installed,
    /// The site has none.
    None,
}

/// One command of the ladder.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    manager: Manager,
    arguments: Vec<&'static str>,
    /// Why it comes to this one, if it is not the first.
    otherwise: &'static str,
}

impl Dependencies {
    /// Puts the dependencies of the site at `root` in place. `say` is told what happens, in words.
    pub(crate) async fn put_in_place(
        &self,
        root: &Path,
        say: &(dyn Fn(String) + Sync),
    ) -> Result<Route, SiteError> {
        let say: &(dyn Fn(String) + Sync) = &|words| {
            tracing::info!("{words}");
            say(words);
        };
        let blocking = |error: io::Error| SiteError::Install {
            step: "look at what is there".to_owned(),
            why: error.to_string(),
            output: Vec::new(),
        };
        if !root.join("package.json").is_file() {
            return Ok(Route::None);
        }
        let lock = detect(root);
        let key = self.key(root, lock.as_ref()).map_err(blocking)?;
        let mark = root.join("node_modules").join(MARK);
        if folders::read_small(&mark, MARK_MAX_BYTES).is_ok_and(|mark| mark == key.as_bytes()) {
            return Ok(Route::InPlace);
        }
        self.remove_old(root).map_err(blocking)?;
        let stored = store::Store::new(&self.store);
        // Where the site is another user there is no store. What is put into it would be read, and what comes out of it written, in
        // folders in which the site is at work; and a container's disk goes with it anyway.
        let can_be_shared = self.node.isolation.is_none() && store::can_be_shared(root);
        if can_be_shared && stored.has(&key) {
            match self.take_from_store(&stored, &key, root).await {
                Ok(()) => {
                    Self::mark(root, &key).map_err(blocking)?;
                    return Ok(Route::Store);
                }
                Err(error) => {
                    say(format!(
                        "the stored dependencies could not be used ({error}); installing"
                    ));
                    self.remove_old(root).map_err(blocking)?;
                }
            }
        }
        self.install(root, lock.as_ref(), say).await?;
        Self::mark(root, &key).map_err(blocking)?;
        if can_be_shared {
            let (store, stored_key, source) = (stored, key.clone(), root.join("node_modules"));
            if let Err(error) =
                tokio::task::spawn_blocking(move || store.keep(&stored_key, &source))
                    .await
                    .map_err(io::Error::other)
                    .and_then(|result| result)
            {
                say(format!(
                    "the dependencies were not kept for the next time: {error}"
                ));
            }
        }
        Ok(Route::Installed)
    }

    /// Made beside, then renamed: whoever loses patience leaves nothing behind that goes on writing where the next attempt
    /// writes.
    async fn take_from_store(
        &self,
        store: &store::Store,
        key: &str,
        root: &Path,
    ) -> io::Result<()> {
        fs::create_dir_all(&self.staging)?;
        let beside = tempfile::Builder::new()
            .prefix("node_modules-")
            .tempdir_in(&self.staging)?;
        let (store, key) = (store.clone(), key.to_owned());
        let taken = tokio::task::spawn_blocking(move || {
            store
                .take(&key, &beside.path().join("node_modules"))
                .map(|()| beside)
        });
        let beside = taken.await.map_err(io::Error::other)??;
        fs::rename(
            beside.path().join("node_modules"),
            root.join("node_modules"),
        )
    }

    /// What the dependencies depend on, hashed.
    fn key(&self, root: &Path, lock: Option<&Lock>) -> io::Result<String> {
        let mut hash = Sha256::new();
        let manager = lock.map_or("none", |lock| lock.manager.name());
        hash.update(format!(
            "2\0{manager}\0{}\0{}\0{}\0",
            self.node.version.major,
            std::env::consts::ARCH,
            self.scripts
        ));
        for word in self.command.iter().flatten() {
            hash.update(format!("{word}\0"));
        }
        for name in lock
            .map(|lock| lock.file)
            .into_iter()
            .chain(INPUTS.iter().copied())
        {
            match folders::read_small(&root.join(name), INPUT_MAX_BYTES) {
                Ok(content) => hash.update(format!("{name}\0{}\0", hex(&Sha256::digest(content)))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(hex(&hash.finalize()))
    }

    fn mark(root: &Path, key: &str) -> io::Result<()> {
        let folder = root.join("node_modules");
        fs::create_dir_all(&folder)?;
        folders::put(&folder, MARK, key.as_bytes())
    }

    /// Puts an old `node_modules` out of the way; removing its many files can wait.
    fn remove_old(&self, root: &Path) -> io::Result<()> {
        let old = root.join("node_modules");
        if old.symlink_metadata().is_err() {
            return Ok(());
        }
        fs::create_dir_all(&self.staging)?;
        let aside = tempfile::Builder::new()
            .prefix("node_modules-")
            .tempdir_in(&self.staging)?
            .keep();
        let target = aside.join("node_modules");
        match fs::rename(&old, &target) {
            // A folder that moves to another has to be ours to write in.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                folders::take(&old)?;
                fs::rename(&old, &target)?;
            }
            renamed => renamed?,
        }
        // Nobody waits for this; what is left of it is cleared at the next start.
        tokio::task::spawn_blocking(move || folders::remove(&aside));
        Ok(())
    }

    async fn install(
        &self,
        root: &Path,
        lock: Option<&Lock>,
        say: &(dyn Fn(String) + Sync),
    ) -> Result<(), SiteError> {
        if let Some([program, arguments @ ..]) = self.command.as_deref() {
            return self.run_own(root, program, arguments).await;
        }
        let mut failure = None;
        for step in ladder(lock, self.scripts) {
            if let Some(SiteError::Install { why, .. }) = &failure {
                say(format!(
                    "{}: {why}; {}",
                    step.manager.name(),
                    step.otherwise
                ));
            } else if !step.otherwise.is_empty() {
                say(step.otherwise.to_owned());
            }
            match self.run(root, &step).await {
                Ok(()) => return Ok(()),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.expect("every ladder has a step"))
    }

    async fn run(&self, root: &Path, step: &Step) -> Result<(), SiteError> {
        let (program, leading): (PathBuf, Vec<&str>) = match find(step.manager.name()) {
            Some(path) => (path, Vec::new()),
            None => {
                let npm = find("npm").ok_or(SiteError::NoPackageManager {
                    name: step.manager.name(),
                })?;
                (
                    npm,
                    vec![
                        "exec",
                        "--yes",
                        "--package",
                        step.manager.package(),
                        "--",
                        step.manager.name(),
                    ],
                )
            }
        };
        let mut program = super::process::Program::new(program, root)
            .confined(&self.node.isolation, Role::Tool)
            .arguments(leading)
            .arguments(step.arguments.iter().copied());
        program.variables = self.variables();
        let words = format!("{} {}", step.manager.name(), step.arguments.join(" "));
        self.carry_out(program, words).await
    }

    /// Runs the client's own command. That packages run no scripts is then a variable, which every manager goes by.
    async fn run_own(
        &self,
        root: &Path,
        name: &str,
        arguments: &[String],
    ) -> Result<(), SiteError> {
        let words = std::iter::once(name)
            .chain(arguments.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join(" ");
        let mut program = super::process::Program::new(name, root)
            .confined(&self.node.isolation, Role::Tool)
            .arguments(arguments);
        program.variables = self.variables();
        if !self.scripts {
            // What a repository brings of its own to an install is a script too.
            program
                .variables
                .insert("YARN_IGNORE_PATH".to_owned(), "1".to_owned());
            for variable in ["npm_config_ignore_scripts", "YARN_IGNORE_SCRIPTS"] {
                program
                    .variables
                    .insert(variable.to_owned(), "true".to_owned());
            }
            program
                .variables
                .insert("YARN_ENABLE_SCRIPTS".to_owned(), "false".to_owned());
        }
        self.carry_out(program, words).await
    }

    /// Runs an install to its end.
    async fn carry_out(
        &self,
        program: super::process::Program,
        words: String,
    ) -> Result<(), SiteError> {
        let fail = |why: String, output: Vec<String>| SiteError::Install {
            step: words.clone(),
            why,
            output,
        };
        let mut group = program
            .start()
            .map_err(|error| fail(error.to_string(), Vec::new()))?;
        let (stdin, stdout, stderr) = group
            .pipes()
            .expect("just started, so nobody has taken them");
        drop(stdin);
        let output = OutputLog::default();
        let drained = async {
            tokio::join!(self.drain(&output, stdout), self.drain(&output, stderr));
        };
        let finished = tokio::time::timeout(INSTALL_TIME_MAX, async {
            let (ending, ()) = tokio::join!(group.ending(), drained);
            ending
        });
        match finished.await {
            Ok(Ok(Ending::Exited(0))) => Ok(()),
            Ok(Ok(ending)) => Err(fail(
                reason(&output.newest(40)).unwrap_or_else(|| ending.to_string()),
                output.newest(20),
            )),
            Ok(Err(error)) => Err(fail(error.to_string(), output.newest(20))),
            Err(_) => {
                group
                    .stop(GRACE)
                    .await
                    .map_err(|error| fail(error.to_string(), Vec::new()))?;
                Err(fail(
                    format!(
                        "it did not end within {} minutes",
                        INSTALL_TIME_MAX.as_secs() / 60
                    ),
                    output.newest(20),
                ))
            }
        }
    }

    async fn drain(&self, output: &OutputLog, pipe: impl tokio::io::AsyncRead + Unpin) {
        let mut reader = BufReader::new(pipe);
        while let Some(line) = bounded_line(&mut reader, LINE_MAX_BYTES).await {
            output.drain(line.as_bytes()).await;
            self.output.drain(line.as_bytes()).await;
        }
    }

    fn variables(&self) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        variables.insert("PATH".to_owned(), self.node.search_path());
        for (name, value) in [
            ("CI", "1"),
            ("NO_COLOR", "1"),
            ("NO_UPDATE_NOTIFIER", "1"),
            ("npm_config_fund", "false"),
            ("npm_config_audit", "false"),
            ("npm_config_update_notifier", "false"),
            ("ADBLOCK", "1"),
        ] {
            variables.insert(name.to_owned(), value.to_owned());
        }
        // A registry or a proxy of the developer's is how packages are reached at all.
        for (name, value) in std::env::vars() {
            let lower = name.to_ascii_lowercase();
            if [
                "npm_config_registry",
                "npm_config_cache",
                "npm_config_userconfig",
                "npm_config_cafile",
            ]
            .contains(&lower.as_str())
            {
                variables.insert(name, value);
            }
        }
        variables
    }
}

/// A lock file and whose it is.
#[derive(Debug, PartialEq, Eq)]
struct Lock {
    file: &'static str,
    manager: Manager,
}

fn detect(root: &Path) -> Option<Lock> {
    LOCK_FILES
        .iter()
        .find(|(file, _)| root.join(file).is_file())
        .map(|(file, manager)| Lock {
            file,
            manager: *manager,
        })
}

/// The commands to try, in order.
fn ladder(lock: Option<&Lock>, scripts: bool) -> Vec<Step> {
    let step = |manager: Manager, arguments: &[&'static str], otherwise: &'static str| {
        let mut arguments = arguments.to_vec();
        if !scripts {
            arguments.push("--ignore-scripts");
        }
        Step {
            manager,
            arguments,
            otherwise,
        }
    };
    let near_lock = "installing as near to the lock file as possible";
    match lock.map(|lock| lock.manager) {
        None => vec![step(
            Manager::Npm,
            &["install", "--no-package-lock"],
            "there is no lock file; installing what package.json allows today",
        )],
        Some(Manager::Npm) => vec![
            step(Manager::Npm, &["ci", "--prefer-offline"], ""),
            step(
                Manager::Npm,
                &["install", "--no-save", "--prefer-offline"],
                near_lock,
            ),
        ],
        Some(Manager::Pnpm) => vec![
            step(
                Manager::Pnpm,
                &["install", "--frozen-lockfile", "--prefer-offline"],
                "",
            ),
            step(
                Manager::Pnpm,
                &["install", "--no-frozen-lockfile", "--prefer-offline"],
                near_lock,
            ),
        ],
        Some(Manager::Yarn) => vec![
            step(
                Manager::Yarn,
                &[
                    "install",
                    "--frozen-lockfile",
                    "--prefer-offline",
                    "--non-interactive",
                ],
                "",
            ),
            step(
                Manager::Yarn,
                // Yarn refuses packages that do not name the Node at hand; others only warn.
                &[
                    "install",
                    "--pure-lockfile",
                    "--non-interactive",
                    "--ignore-engines",
                ],
                near_lock,
            ),
        ],
        Some(Manager::Bun) => vec![
            step(Manager::Bun, &["install", "--frozen-lockfile"], ""),
            step(Manager::Bun, &["install", "--no-save"], near_lock),
        ],
    }
}

/// The line in which a package manager says what is wrong.
fn reason(output: &[String]) -> Option<String> {
    let telling = |line: &&String| {
        [
            "EUSAGE",
            "ERESOLVE",
            "ERR_PNPM",
            "error: ",
            "error Your lockfile",
            "ENOSPC",
            "ENOTFOUND",
            "E404",
            "ETARGET",
            "Missing: ",
            "npm error",
        ]
        .iter()
        .any(|word| line.contains(word))
    };
    // Yarn only says `error …`.
    output
        .iter()
        .find(telling)
        .or_else(|| output.iter().find(|line| line.starts_with("error ")))
        .map(|line| line.trim().chars().take(300).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_off_unless_they_are_asked_for_whoever_installs() {
        for (file, manager) in LOCK_FILES {
            let lock = Lock {
                file,
                manager: *manager,
            };
            assert!(
                ladder(Some(&lock), false)
                    .iter()
                    .all(|step| step.arguments.contains(&"--ignore-scripts")),
                "{file}"
            );
            assert!(
                ladder(Some(&lock), true)
                    .iter()
                    .all(|step| !step.arguments.contains(&"--ignore-scripts")),
                "{file}"
            );
        }
        assert!(
            ladder(None, false)[0]
                .arguments
                .contains(&"--ignore-scripts")
        );
    }

    #[test]
    fn every_step_but_the_first_says_why_it_comes_to_it() {
        for (file, manager) in LOCK_FILES {
            let steps = ladder(
                Some(&Lock {
                    file,
                    manager: *manager,
                }),
                false,
            );
            assert!(steps.len() > 1 && steps[0].otherwise.is_empty(), "{file}");
            assert!(
                steps[1..].iter().all(|step| !step.otherwise.is_empty()),
                "{file}"
            );
        }
    }

    #[test]
    fn the_lock_file_decides_who_installs() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(detect(folder.path()), None);
        fs::write(folder.path().join("package-lock.json"), "{}").expect("written");
        assert_eq!(
            detect(folder.path()).map(|lock| lock.manager),
            Some(Manager::Npm)
        );
        fs::write(folder.path().join("pnpm-lock.yaml"), "").expect("written");
        assert_eq!(
            detect(folder.path()).map(|lock| lock.manager),
            Some(Manager::Pnpm)
        );
    }
}
