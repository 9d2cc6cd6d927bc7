//! What every file becomes: planned in memory from the changes of an `edit` and the present tree, all or nothing.
//!
//! [`plan`] is a pure function. It reads the tree through [`Tree`], writes nothing, and knows no git, clock or disk.
//! Its answer is either a [`ChangeSet`] (the net effect: only files that differ in the end) or a [`Rejection`] that
//! names everything that is wrong with all changes that can be judged.
//!
//! ```text
//! Change ──▶ policy ──▶ overlay (tree + what earlier changes did) ──▶ one of
//!              write · replace · delete · move · patch · frontmatter ──▶ overlay
//!                                                         overlay ──▶ limits ──▶ ChangeSet
//! ```
//!
//! - **In order.** A later change sees what an earlier one did. After a change that fails, its files are *unsettled*:
//!   a later change to one of them is judged by its path alone, because nobody can say what it would have met.
//! - **`base`.** A change that names the version its author saw applies directly if the file still is that version.
//!   Otherwise it is applied to that version and merged with the present one; what overlaps is `stale`, never
//!   overwritten. See [`merge`].
//! - **Byte for byte.** Line endings, byte order mark, missing final newline and executable bit stay as they are unless
//!   a change is about them.
//! - **Bounded.** Every limit of [`contract::limits`] holds at every step, not only in the end, so that a hostile
//!   instruction cannot make the plan large before it is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use contract::client_config::Policy;
use contract::{BlobId, Change, ErrorCode, Problem, SitePath, limits};

pub(crate) mod by_hand;
mod fault;
mod front_matter;
#[cfg(test)]
mod map_tree;
mod merge;
mod overlay;
mod patch;
pub(crate) mod policy;
pub(crate) mod revert;
#[cfg(test)]
mod scenarios;
mod step;
mod summary;
mod text;

use fault::{Fault, Stop};
use overlay::{Limits, Overlay, Unsettled};
use step::Step;

/// What the planner asks of the draft. The draft implements it over git, the tests over a map.
pub(crate) trait Tree {
    /// What is at `path`; `None` if nothing is, or a directory.
    fn file(&self, path: &SitePath) -> Result<Option<Entry>, TreeError>;
    /// The content of a blob by id (the version an author saw); `None` if the repository does not know it.
    fn blob(&self, id: &BlobId) -> Result<Option<Vec<u8>>, TreeError>;
    /// Whether a directory is at `path`.
    fn is_directory(&self, path: &SitePath) -> Result<bool, TreeError>;
}

/// The tree could not be read: an operating error, no fault of the instruction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TreeError(pub(crate) String);

/// What can stand at a path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// An ordinary file.
    File(File),
    /// A symbolic link.
    Symlink,
    /// Another repository.
    Submodule,
}

/// An ordinary file of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    /// All of it.
    pub(crate) content: Vec<u8>,
    /// Whether its mode is 100755.
    pub(crate) executable: bool,
    /// The id of its blob.
    pub(crate) blob: BlobId,
}

/// What every touched file becomes: the net effect of an `edit`. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChangeSet {
    /// Only files that differ in the end.
    pub(crate) files: BTreeMap<SitePath, FileChange>,
}

/// One file before and after. The two differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileChange {
    /// As the tree has it; `None` if it does not exist.
    pub(crate) before: Option<Version>,
    /// As it becomes; `None` if it is removed.
    pub(crate) after: Option<Version>,
}

/// One version of a file.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Version {
    /// All of it.
    pub(crate) content: Vec<u8>,
    /// Whether its mode is 100755.
    pub(crate) executable: bool,
}

/// Why an `edit` is refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Rejection {
    /// The code of the first problem.
    pub(crate) code: ErrorCode,
    /// What happened to which file, in plain words: the message of the first problem.
    pub(crate) message: String,
    /// All problems that could be judged, each with the JSON path of what is at fault (`$.action.changes[0].find`).
    pub(crate) details: Vec<Problem>,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanError {
    /// The instruction will never work as it is.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The tree could not be read.
    #[error("cannot read the draft's tree")]
    Tree(#[from] TreeError),
}

/// Plans what every file becomes. `fetched` holds the bytes behind `contentUrl` by url, fetched and hash-checked
/// before; what is missing in it is `content_unavailable`.
pub(crate) fn plan(
    changes: &[Change],
    tree: &dyn Tree,
    policy: &Policy,
    fetched: &BTreeMap<String, Vec<u8>>,
) -> Result<ChangeSet, PlanError> {
    let limits = Limits::of(policy);
    let steps: Vec<_> = changes.iter().map(Step::read).collect();
    let named: BTreeSet<&SitePath> = steps
        .iter()
        .flatten()
        .flat_map(Step::paths)
        .map(|(path, _)| path)
        .collect();
    if named.len() > limits.files {
        let message = format!(
            "{} files are named; at most {} are allowed (maxFiles).",
            named.len(),
            limits.files
        );
        return Err(Rejection::of_all(ErrorCode::LimitExceeded, message).into());
    }

    let mut overlay = Overlay::new(tree, limits);
    let mut problems = Problems::default();
    for (index, step) in steps.iter().enumerate() {
        let step = match step {
            Ok(step) => step,
            Err(faults) => {
                problems.add(index, faults.clone());
                problems.unsettled.everything();
                continue;
            }
        };
        let paths = step.paths();
        let denied: Vec<Fault> = paths
            .iter()
            .filter_map(|(path, at)| denial(path, at, policy))
            .collect();
        let done = if !denied.is_empty() {
            Err(Stop::Faults(denied))
        } else if problems.unsettled.any(paths.iter().map(|(path, _)| *path)) {
            // Nothing new is wrong with it, but its other paths are now unsettled too.
            Err(Stop::Faults(Vec::new()))
        } else {
            step.carry_out(&mut overlay, fetched)
        };
        match done {
            Ok(()) => {}
            Err(Stop::Faults(faults)) => {
                problems.add(index, faults);
                problems
                    .unsettled
                    .extend(paths.iter().map(|(path, _)| *path));
            }
            Err(Stop::Tree(error)) => return Err(error.into()),
        }
        if overlay.is_exhausted() {
            break;
        }
    }
    problems.into_result()?;

    let files = overlay.finish();
    if files.is_empty() {
        let message = match named.first() {
            Some(only) if named.len() == 1 => format!("{only}: is already as asked."),
            _ => "All files are already as asked.".to_owned(),
        };
        return Err(Rejection::of_all(ErrorCode::EmptyChange, message).into());
    }
    Ok(ChangeSet { files })
}

impl ChangeSet {
    /// One line for people and for the subject of the commit, at most 72 characters.
    pub(crate) fn summary(&self) -> String {
        summary::of(&self.files)
    }

    /// The paths that differ, sorted.
    #[cfg(test)]
    pub(crate) fn paths(&self) -> impl Iterator<Item = &SitePath> {
        self.files.keys()
    }
}

impl Rejection {
    /// A rejection of the changes as a whole.
    fn of_all(code: ErrorCode, message: String) -> Self {
        let details = vec![Problem {
            path: "$.action.changes".to_owned(),
            message: message.clone(),
        }];
        Self {
            code,
            message,
            details,
        }
    }
}

/// What is wrong so far, and what therefore cannot be judged.
#[derive(Debug, Default)]
struct Problems {
    found: Vec<(ErrorCode, Problem)>,
    unsettled: Unsettled,
}

impl Problems {
    fn add(&mut self, change: usize, faults: Vec<Fault>) {
        let room = limits::PROBLEMS_MAX.saturating_sub(self.found.len());
        self.found
            .extend(faults.into_iter().take(room).map(|fault| {
                let path = format!("$.action.changes[{change}]{}", fault.at);
                (
                    fault.code,
                    Problem {
                        path,
                        message: fault.message,
                    },
                )
            }));
    }

    fn into_result(self) -> Result<(), Rejection> {
        let Some((code, first)) = self.found.first() else {
            return Ok(());
        };
        let (code, message) = (*code, first.message.clone());
        let details = self.found.into_iter().map(|(_, problem)| problem).collect();
        Err(Rejection {
            code,
            message,
            details,
        })
    }
}

fn denial(path: &SitePath, at: &str, policy: &Policy) -> Option<Fault> {
    let denial = policy::verdict(path, policy).err()?;
    Some(Fault {
        code: ErrorCode::PolicyDenied,
        at: at.to_owned(),
        message: denial.to_string(),
    })
}

impl fmt::Debug for Version {
    /// Without the content, which can be a photo.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Version({} bytes, executable: {})",
            self.content.len(),
            self.executable
        )
    }
}
