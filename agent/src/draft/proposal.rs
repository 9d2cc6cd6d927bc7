//! What the draft would become: made in memory, to be shown, verified, and then committed or forgotten.
//!
//! Every action ends in one of these. Its objects are in the git directory and no reference points at them, so that what
//! does not pass is simply not committed.

use std::path::{Path, PathBuf};

use contract::{CommitId, Conflict, ErrorCode, InstructionId};
use git2::build::TreeUpdateBuilder;
use git2::{FileMode, IndexEntry, IndexTime, ObjectType, Oid};

use super::{CommitMessage, Draft, DraftError, Node, PathChange, commit_id};
use crate::change_set::{ChangeSet, Version};

/// Characters of the subject of a commit that every tool shows whole.
const SUMMARY_MAX_CHARS: usize = 72;

/// What the draft would become.
#[derive(Debug, Clone)]
pub(crate) struct Proposal {
    /// The tip it was made on.
    pub(crate) on: Oid,
    /// The tree the draft would have.
    pub(crate) tree: Oid,
    /// For a sync the published commit that it brings in: the second parent.
    pub(crate) merges: Option<Oid>,
    /// What differs from `on`, by path of the repository, sorted.
    pub(crate) moves: Vec<Move>,
    /// What it does, in one line of at most 72 characters.
    pub(crate) summary: String,
    /// The instruction that it takes back.
    pub(crate) undoes: Option<InstructionId>,
}

/// A path of the repository and what it goes from and to. The two differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Move {
    /// Path from the root of the repository.
    pub(crate) path: String,
    /// What is there now.
    pub(crate) before: Node,
    /// What is there then.
    pub(crate) after: Node,
}

impl Move {
    /// What is there then, path by path.
    pub(crate) fn forward(moves: &[Self]) -> Vec<PathChange> {
        Self::changes(moves, |step| &step.after)
    }

    /// What was there before, path by path.
    pub(crate) fn back(moves: &[Self]) -> Vec<PathChange> {
        Self::changes(moves, |step| &step.before)
    }

    fn changes(moves: &[Self], node: fn(&Self) -> &Node) -> Vec<PathChange> {
        let change = |step: &Self| PathChange {
            path: step.path.clone(),
            after: node(step).clone(),
        };
        moves.iter().map(change).collect()
    }
}

/// Why there is no proposal: the instruction will never work as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declined {
    /// For machines.
    pub(crate) code: ErrorCode,
    /// What stands in the way, in plain words.
    pub(crate) message: String,
    /// What it collides with: one entry for each file.
    pub(crate) conflicts: Vec<Conflict>,
}

impl Declined {
    /// Without a file to blame.
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            conflicts: Vec::new(),
        }
    }
}

/// An object and how it is a file: what a tree says of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) id: Oid,
    pub(super) mode: u32,
}

impl Held {
    /// What an entry of a tree holds; a folder is nothing.
    pub(super) fn of_entry(entry: &git2::TreeEntry<'_>) -> Option<Self> {
        let mode = u32::try_from(entry.filemode()).unwrap_or(0);
        (entry.kind() != Some(ObjectType::Tree)).then(|| Self {
            id: entry.id(),
            mode,
        })
    }

    /// Whether it is an ordinary file.
    pub(super) fn is_file(self) -> bool {
        [
            FileMode::Blob,
            FileMode::BlobExecutable,
            FileMode::BlobGroupWritable,
        ]
        .into_iter()
        .any(|mode| self.mode == u32::from(mode))
    }

    fn is_executable(self) -> bool {
        self.is_file() && self.mode & 0o111 != 0
    }
}

/// A path and what a tree says of it before and after; nothing where no file is.
#[derive(Debug, Clone)]
pub(super) struct Delta {
    pub(super) path: PathBuf,
    pub(super) before: Option<Held>,
    pub(super) after: Option<Held>,
}

impl Draft {
    /// The draft with a change set, and nothing else.
    pub(crate) fn propose_edit(&self, change_set: &ChangeSet) -> Result<Proposal, DraftError> {
        let on = self.tip()?;
        let baseline = self.tree_of(on)?;
        let mut edits = Vec::new();
        let mut moves = Vec::new();
        for (path, change) in &change_set.files {
            let path = self.repository_path(path);
            let after = change.after.as_ref();
            let held = after
                .map(|version| self.write_version(version))
                .transpose()?;
            edits.push((PathBuf::from(&path), held));
            let node = |version: Option<&Version>| {
                version.map_or(Node::Absent, |version| Node::File(version.clone()))
            };
            moves.push(Move {
                path,
                before: node(change.before.as_ref()),
                after: node(after),
            });
        }
        moves.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Proposal {
            on,
            tree: self.edited_tree(&baseline, &edits)?,
            merges: None,
            moves,
            summary: change_set.summary(),
            undoes: None,
        })
    }

    /// Makes a proposal the draft's tip.
    pub(crate) fn commit(
        &mut self,
        proposal: &Proposal,
        message: &CommitMessage,
    ) -> Result<CommitId, DraftError> {
        if self.tip()? != proposal.on {
            return Err(DraftError::Moved {
                branch: self.draft_branch.clone(),
            });
        }
        let message = CommitMessage {
            undoes: proposal.undoes.clone(),
            ..message.clone()
        };
        let parents: Vec<Oid> = [proposal.on].into_iter().chain(proposal.merges).collect();
        let id = self.write_commit(
            Some(&self.local_reference()),
            proposal.tree,
            &parents,
            &message,
        )?;
        self.follow_tip()?;
        Ok(commit_id(id))
    }

    /// Writes a commit, and moves `reference` from its first parent to it.
    pub(super) fn write_commit(
        &self,
        reference: Option<&str>,
        tree: Oid,
        parents: &[Oid],
        message: &CommitMessage,
    ) -> Result<Oid, DraftError> {
        let write = || -> Result<Oid, git2::Error> {
            let tree = self.repository.find_tree(tree)?;
            let parents = parents
                .iter()
                .map(|id| self.repository.find_commit(*id))
                .collect::<Result<Vec<_>, _>>()?;
            let (author, committer) = message.signatures()?;
            self.repository.commit(
                reference,
                &author,
                &committer,
                &message.render(),
                &tree,
                &parents.iter().collect::<Vec<_>>(),
            )
        };
        write().map_err(|source| self.local("commit", source))
    }

    /// What differs between two trees, by path. Nothing stands for the empty tree.
    pub(super) fn deltas(
        &self,
        from: Option<&git2::Tree<'_>>,
        to: Option<&git2::Tree<'_>>,
    ) -> Result<Vec<Delta>, DraftError> {
        let mut options = git2::DiffOptions::new();
        options.include_typechange(true);
        let diff = self
            .repository
            .diff_tree_to_tree(from, to, Some(&mut options))
            .map_err(|source| self.local("compare commits", source))?;
        let held = |file: &git2::DiffFile<'_>| {
            let mode = u32::from(file.mode());
            (mode != 0).then(|| Held {
                id: file.id(),
                mode,
            })
        };
        let mut deltas: Vec<Delta> = diff
            .deltas()
            .map(|delta| Delta {
                path: delta
                    .new_file()
                    .path()
                    .or_else(|| delta.old_file().path())
                    .unwrap_or(Path::new(""))
                    .to_owned(),
                before: held(&delta.old_file()),
                after: held(&delta.new_file()),
            })
            .collect();
        deltas.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(deltas)
    }

    /// What differs between two trees, with the content of every file.
    pub(super) fn moves(&self, from: Oid, to: Oid) -> Result<Vec<Move>, DraftError> {
        let (from, to) = (self.tree_object(from)?, self.tree_object(to)?);
        let mut moves = self
            .deltas(Some(&from), Some(&to))?
            .into_iter()
            .map(|delta| {
                Ok(Move {
                    path: delta.path.to_string_lossy().into_owned(),
                    before: self.node_of(delta.before)?,
                    after: self.node_of(delta.after)?,
                })
            })
            .collect::<Result<Vec<_>, DraftError>>()?;
        moves.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(moves)
    }

    /// What a tree has at a path; a folder is nothing.
    pub(super) fn held(
        &self,
        tree: &git2::Tree<'_>,
        path: &Path,
    ) -> Result<Option<Held>, DraftError> {
        match tree.get_path(path) {
            Ok(entry) => Ok(Held::of_entry(&entry)),
            Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(None),
            Err(source) => Err(self.local("read the draft's files", source)),
        }
    }

    pub(super) fn tree_object(&self, id: Oid) -> Result<git2::Tree<'_>, DraftError> {
        self.repository
            .find_tree(id)
            .map_err(|source| self.local("read a tree", source))
    }

    /// An ordinary file as it is merged.
    pub(super) fn version(&self, held: Held) -> Result<Version, DraftError> {
        let blob = self
            .repository
            .find_blob(held.id)
            .map_err(|source| self.local("read a file of the draft", source))?;
        Ok(Version {
            content: blob.content().to_vec(),
            executable: held.is_executable(),
        })
    }

    pub(super) fn write_version(&self, version: &Version) -> Result<Held, DraftError> {
        let id = self
            .repository
            .blob(&version.content)
            .map_err(|source| self.local("write a file into the draft", source))?;
        let mode = if version.executable {
            FileMode::BlobExecutable
        } else {
            FileMode::Blob
        };
        Ok(Held {
            id,
            mode: mode.into(),
        })
    }

    /// A tree with some paths changed; nothing removes the path.
    pub(super) fn edited_tree(
        &self,
        baseline: &git2::Tree<'_>,
        edits: &[(PathBuf, Option<Held>)],
    ) -> Result<Oid, DraftError> {
        let is_plain = edits.iter().all(|(path, held)| {
            held.is_none_or(Held::is_file) && fits_among_folders(baseline, path)
        });
        let write = || {
            // The builder reads only the folders it changes, but cannot put a folder where a file was, nor a file where a
            // folder was. An index in memory can.
            if is_plain {
                let mut update = TreeUpdateBuilder::new();
                for (path, held) in edits {
                    match held {
                        Some(held) if held.is_executable() => {
                            update.upsert(path, held.id, FileMode::BlobExecutable)
                        }
                        Some(held) => update.upsert(path, held.id, FileMode::Blob),
                        None => update.remove(path),
                    };
                }
                return update.create_updated(&self.repository, baseline);
            }
            let mut index = git2::Index::new()?;
            index.read_tree(baseline)?;
            for (path, held) in edits {
                if held.is_none() && index.get_path(path, 0).is_some() {
                    index.remove(path, 0)?;
                }
            }
            for (path, held) in edits {
                if let Some(held) = held {
                    index.add(&index_entry(path, *held))?;
                }
            }
            index.write_tree_to(&self.repository)
        };
        write().map_err(|source| self.local("write the draft's tree", source))
    }

    pub(super) fn node_of(&self, held: Option<Held>) -> Result<Node, DraftError> {
        let Some(held) = held else {
            return Ok(Node::Absent);
        };
        Ok(if held.is_file() {
            Node::File(self.version(held)?)
        } else if held.mode == u32::from(FileMode::Link) {
            Node::Symlink(self.version(held)?.content)
        } else {
            Node::Submodule
        })
    }

    /// A path of the repository as a path of the site; as it is if it is outside.
    pub(super) fn site_path(&self, path: &Path) -> String {
        let path = path.to_string_lossy();
        if self.site_root.is_empty() {
            return path.into_owned();
        }
        path.strip_prefix(&self.site_root)
            .and_then(|rest| rest.strip_prefix('/'))
            .unwrap_or(&path)
            .to_owned()
    }
}

/// Whether no folder stands at `path` and no file where its folders are.
fn fits_among_folders(tree: &git2::Tree<'_>, path: &Path) -> bool {
    let is_kind = |path: &Path, kind, if_absent| match tree.get_path(path) {
        Ok(entry) => entry.kind() == Some(kind),
        Err(_) => if_absent,
    };
    let mut folders = path
        .ancestors()
        .skip(1)
        .filter(|folder| !folder.as_os_str().is_empty());
    is_kind(path, ObjectType::Blob, true)
        && folders.all(|folder| is_kind(folder, ObjectType::Tree, true))
}

/// An entry for an index in memory: nothing of a file system is in it.
pub(super) fn index_entry(path: &Path, held: Held) -> IndexEntry {
    use std::os::unix::ffi::OsStrExt as _;
    let never = || IndexTime::new(0, 0);
    IndexEntry {
        ctime: never(),
        mtime: never(),
        dev: 0,
        ino: 0,
        mode: held.mode,
        uid: 0,
        gid: 0,
        file_size: 0,
        id: held.id,
        flags: 0,
        flags_extended: 0,
        path: path.as_os_str().as_bytes().to_vec(),
    }
}

/// `<verb> “<what>”` in the length of a subject.
pub(super) fn quoting(verb: &str, what: &str) -> String {
    let frame = verb.chars().count() + 3;
    let room = SUMMARY_MAX_CHARS.saturating_sub(frame);
    if what.chars().count() <= room {
        return format!("{verb} “{what}”");
    }
    let short: String = what.chars().take(room.saturating_sub(1)).collect();
    format!("{verb} “{}…”", short.trim_end())
}
