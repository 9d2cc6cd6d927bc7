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
/// Whose a copy is comes from the folder that it is in, and it is to be open to who builds, however narrow it was.
const COPY: &str = r#"rm -rf -- "$2"
cp --recursive --no-dereference --preserve=mode,timestamps,links --reflink=auto -- "$1" "$2"
chmod --recursive g+rwX -- "$2""#;
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
            loop {
                // What the site's own programs write there is no answer.
                let line = bounded_line(&mut lines, RUNNER_LINE_MAX_BYTES).await?;
                if let Ok(answer) = serde_json::from_str::<Answer>(&line) {
                    return Some(answer);
                }
            }
        };
        let mut answered = std::pin::pin!(answered);
        let heard = async {
            tokio::select! {
                answer = &mut answered => match answer {
                    Some(answer) => (Some(answer), None),
                    // Its output is closed: it ends, or has.
                    None => (None, tokio::time::timeout(GRACE, group.ending()).await.ok()),
                },
                // What it said is there by now. Whoever it has started may hold its output for longer.
                ending = group.ending() => {
                    let answer = tokio::time::timeout(GRACE, &mut answered).await;
                    (answer.ok().flatten(), Some(ending))
                }
            }
        };
        let heard = tokio::time::timeout(BUILD_TIME_MAX, heard).await;
        if let Err(error) = group.stop(GRACE).await {
            tracing::debug!(%error, "the build's end could not be seen");
        }
        if let Err(why) = self.node.isolation.end(Role::Build).await {
            tracing::error!(why, "what the build left running could not be ended");
        }
        match heard {
            Err(_) => Err(BuildError::TooSlow),
            Ok((Some(Answer { problem: None }), _)) => Ok(()),
            Ok((
                Some(Answer {
                    problem: Some(problem),
                }),
                _,
            )) => Err(BuildError::Failed(problem)),
            Ok((None, Some(Ok(ending)))) if ending.is_others_deed() => {
                Err(BuildError::Ended(ending))
            }
            Ok((None, _)) => {
                // Without a limit whoever still holds its output would hold us.
                let drained = tokio::time::timeout(GRACE, drain.join_all()).await;
                if drained.is_err() {
                    tracing::debug!(
                        "somebody holds the build's output; what came until now is told"
                    );
                }
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
        let copy = Program::new("sh", &self.root)
            .variable("PATH", self.node.search_path())
            .confined(&self.node.isolation, Role::Tool)
            .arguments([
                OsString::from("-euc"),
                COPY.into(),
                "sh".into(),
                installed.into(),
                target.into(),
            ]);
        let copied = async {
            loop {
                let mut group = copy.start()?;
                drop(group.pipes());
                match group.ending().await? {
                    Ending::Exited(0) => return Ok(()),
                    // With the dev server everything of the site's is ended when that is started anew.
                    ending if ending.is_others_deed() => {
                        tracing::info!(%ending, "the copy of the dependencies is made again");
                    }
                    ending => return Err(std::io::Error::other(format!("the copy {ending}"))),
                }
            }
        };
        tokio::time::timeout(COPY_TIME_MAX, copied)
            .await
            .map_err(|_| std::io::ErrorKind::TimedOut)?
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
