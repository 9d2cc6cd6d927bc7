//! Builds the site in a separate copy, as publishing it would: nothing of it touches what is being looked at.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::task::JoinSet;

use super::dependencies::link_installed;
use super::log::bounded_line;
use super::node::Node;
use super::process::{Ending, GRACE, Program};
use super::{OutputLog, RUNNER_LINE_MAX_BYTES, SiteProblem, put_program};
use crate::isolation::Role;

const PROGRAM: &str = include_str!("build.mjs");

/// How long a build may take. A thousand posts take a minute on a small machine.
const BUILD_TIME_MAX: Duration = Duration::from_secs(10 * 60);
/// How long the dependencies may take to be copied.
const COPY_TIME_MAX: Duration = Duration::from_secs(3 * 60);
/// Lines of its output that say why, where it did not.
const LAST_WORDS: usize = 10;

/// Where and with what a build is made.
#[derive(Debug, Clone)]
pub(crate) struct Build {
    /// The folder with the site's `package.json` in the copy.
    pub(crate) root: PathBuf,
    /// The folder with the dependencies that the copy is to have.
    pub(crate) installed: PathBuf,
    /// Where the program is put.
    pub(crate) program: PathBuf,
    /// The Node that runs it.
    pub(crate) node: Node,
}

/// Why there is no build.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// The site cannot be built.
    #[error("the site cannot be built: {}", .0.message)]
    Failed(SiteProblem),
    /// It takes too long.
    #[error("the build did not end within {} s", BUILD_TIME_MAX.as_secs())]
    TooSlow,
    /// Something ended it before it had an answer.
    #[error("the build {0}")]
    Ended(Ending),
    /// It could not be begun.
    #[error("could not {operation} for the build")]
    Begin {
        /// What was tried.
        operation: &'static str,
        /// What happened.
        source: std::io::Error,
    },
}

#[derive(Debug, Deserialize)]
struct Answer {
    problem: Option<SiteProblem>,
}

impl Build {
    /// Builds. The copy is the caller's to remove.
    pub(crate) async fn run(self) -> Result<(), BuildError> {
        let begin = |operation| move |source| BuildError::Begin { operation, source };
        put_program(&self.program, PROGRAM).map_err(begin("write the program"))?;
        self.link_dependencies()
            .await
            .map_err(begin("link the dependencies"))?;
        let program = self
            .node
            .program(Role::Build, &self.root)
            .arguments([&self.program])
            .variable("ASTRO_TELEMETRY_DISABLED", "1")
            .variable("NO_COLOR", "1");
        let mut group = program.start().map_err(begin("start Node"))?;
        let Some((mut stdin, stdout, stderr)) = group.pipes() else {
            return Err(begin("start Node")(std::io::Error::other("no pipes")));
        };
        let settings = serde_json::json!({ "root": self.root });
        stdin
            .write_all(format!("{settings}\n").as_bytes())
            .await
            .map_err(begin("start Node"))?;
        let output = OutputLog::default();
        let mut drain = JoinSet::new();
        let drained = output.clone();
        drain.spawn(async move { drained.drain(stderr).await });
        let mut lines = BufReader::new(stdout);
        let answered = async {
            let line = bounded_line(&mut lines, RUNNER_LINE_MAX_BYTES).await;
            line.and_then(|line| serde_json::from_str::<Answer>(&line).ok())
        };
        let answer = tokio::time::timeout(BUILD_TIME_MAX, answered).await;
        let ending = match (&answer, group) {
            // It has ended, or is about to: asking it to would be what ended it.
            (Ok(None), mut group) => match tokio::time::timeout(GRACE, group.ending()).await {
                Ok(ending) => ending,
                Err(_) => group.stop(GRACE).await,
            },
            (_, group) => group.stop(GRACE).await,
        };
        match (answer, ending) {
            (Err(_), _) => Err(BuildError::TooSlow),
            (Ok(Some(Answer { problem: None })), _) => Ok(()),
            (
                Ok(Some(Answer {
                    problem: Some(problem),
                })),
                _,
            ) => Err(BuildError::Failed(problem)),
            // Nothing that the site is made of ends it like this.
            (Ok(None), Ok(ending @ (Ending::Signalled(_) | Ending::MemoryRanOut))) => {
                Err(BuildError::Ended(ending))
            }
            (Ok(None), Err(source)) => Err(begin("see the end")(source)),
            (Ok(None), Ok(Ending::Exited(_))) => {
                drain.join_all().await;
                Err(BuildError::Failed(SiteProblem {
                    message: format!(
                        "it ended; the last it said was: {}",
                        output.newest(LAST_WORDS).join(" / ")
                    ),
                    ..SiteProblem::default()
                }))
            }
        }
    }
}

impl Build {
    /// Gives the copy the dependencies of the site. Where the site is another user, it is the site that copies what is its own: we
    /// would read and write in folders in which it is at work, and who builds may not read all of them.
    async fn link_dependencies(&self) -> std::io::Result<()> {
        let (installed, target) = (self.installed.clone(), self.root.join("node_modules"));
        if self.node.isolation.is_none() {
            return tokio::task::spawn_blocking(move || link_if_there(&installed, &target))
                .await
                .map_err(std::io::Error::other)?;
        }
        if !installed.is_dir() {
            return Ok(());
        }
        let mut group = Program::new("cp", &self.root)
            .variable("PATH", self.node.search_path())
            .confined(&self.node.isolation, Role::Tool)
            .arguments([
                OsString::from("--recursive"),
                // Whose it is comes from the folder: it is to be open to who builds.
                "--no-dereference".into(),
                "--preserve=mode,timestamps,links".into(),
                "--reflink=auto".into(),
                "--".into(),
                installed.into(),
                target.into(),
            ])
            .start()?;
        drop(group.pipes());
        match tokio::time::timeout(COPY_TIME_MAX, group.ending()).await {
            Ok(Ok(Ending::Exited(0))) => Ok(()),
            Ok(Ok(ending)) => Err(std::io::Error::other(format!("the copy {ending}"))),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        }
    }
}

/// A site without dependencies of its own has none in its copy either.
fn link_if_there(installed: &Path, target: &Path) -> std::io::Result<()> {
    if installed.is_dir() {
        link_installed(installed, target)
    } else {
        Ok(())
    }
}
