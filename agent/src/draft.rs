//! The draft: the agent's own clone of the client's repository, and the branch on which instructions land.
//!
//! The git directory lies outside the work tree, belongs to the daemon alone (mode 0700) and is opened with an empty
//! configuration, so that nothing a site or an editor writes can redirect a push, run a hook or set a filter. There is
//! no index: a commit is made from the tip's tree and the change set, so that nothing but the instruction's own paths
//! can be in it, and there is no `index.lock` to be left behind.
//!
//! ```text
//!   remote ──fetch──▶ refs/remotes/origin/*          (what was last seen there)
//!                     refs/heads/edit/<thread>       (the draft: seen tip + commits not yet pushed)
//!   remote ◀──push─── and then the remote's tip is read: only that is proof
//! ```
//!
//! Everything here blocks; the pipeline runs it off the async threads.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use contract::{BlobId, CommitId, InstructionId, SitePath};
use git2::{ErrorCode, FileMode, ObjectType, Oid, Repository};

use crate::change_set::{ChangeSet, Entry, File, Tree, TreeError, Version};

mod commit_message;
mod credentials;
mod error;
mod history;
mod janitor;
mod lookout;
mod remote;
mod replant;

pub(crate) use commit_message::CommitMessage;
pub(crate) use credentials::Credentials;
pub(crate) use error::DraftError;
pub(crate) use history::{History, HistoryEntry};
pub(crate) use janitor::remove_stale_locks;
pub(crate) use lookout::{Lookout, Seen};
pub(crate) use remote::Remote;
pub(crate) use replant::Replanted;

/// How many commits of history are searched for instructions that have landed. Enough for years of one thread, and a
/// bound on what a huge history costs at start.
const HISTORY_MAX: usize = 20_000;

/// Fetch, rebase and push again at most this often before the attempt counts as failed: somebody pushes faster than
/// we can.
const PUSH_ROUNDS_MAX: usize = 5;

/// Which commit the work tree shows. Outside `refs/heads`, so that it is never pushed.
const SHOWN_REFERENCE: &str = "refs/edit/shown";

/// Below it, for each draft branch, the newest commit of it that the remote has had. What cannot be reached from there is
/// ours alone, and only that is ever moved onto something else: what others took off the branch does not come back.
const PUSHED_REFERENCES: &str = "refs/edit/pushed";

/// What opening a draft needs.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The git directory, made if absent.
    pub(crate) git_directory: PathBuf,
    /// Where a clone is made before it is renamed to `git_directory`: on the same file system.
    pub(crate) staging: PathBuf,
    /// The client's repository.
    pub(crate) remote: Remote,
    /// The published branch; the remote's default if absent.
    pub(crate) published_branch: Option<String>,
    /// The draft branch.
    pub(crate) draft_branch: String,
    /// The folder of the repository in which the site is, without slashes at the ends; empty for the root.
    pub(crate) site_root: String,
}

/// The clone and its draft branch.
pub(crate) struct Draft {
    repository: Repository,
    remote: Remote,
    published_branch: String,
    draft_branch: String,
    site_root: String,
    /// Instructions whose commits are on the draft, pushed or not.
    landed: HashMap<InstructionId, CommitId>,
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draft")
            .field("branch", &self.draft_branch)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

/// How a push ended.
#[derive(Debug)]
pub(crate) enum Pushed {
    /// The remote's tip is, or descends from, our tip. If the draft was rebased on the way, that is not the tip that was
    /// there before, and the work tree has to follow.
    Verified,
    /// The remote said no, for a reason that trying again does not change. The draft is as it was; the caller rolls back.
    Rejected {
        /// What the remote said.
        reason: String,
    },
    /// Somebody else changed the same lines. The conflicting commit is gone from the draft.
    Conflict {
        /// The files, as paths of the repository.
        files: Vec<String>,
    },
}

/// One path of the repository and what it becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathChange {
    /// Path from the root of the repository.
    pub(crate) path: String,
    /// What is there afterwards.
    pub(crate) after: Node,
}

/// What stands at a path of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// Nothing.
    Absent,
    /// A file.
    File(Version),
    /// A symbolic link with this target.
    Symlink(Vec<u8>),
    /// A submodule: an empty directory here.
    Submodule,
}

impl Draft {
    /// Opens the clone, or makes it, and brings the draft branch up to what the remote has.
    ///
    /// Commits that were made but not pushed before a crash stay on top; where they no longer fit, they are dropped:
    /// their instructions are still in the queue. `progress` is told objects received and in all.
    pub(crate) fn open(
        settings: &Settings,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, DraftError> {
        janitor::clean(&settings.git_directory, &settings.staging)?;
        let (repository, published_branch) =
            match janitor::open_whole(&settings.git_directory, &settings.remote)? {
                Some(repository) => {
                    let published = match &settings.published_branch {
                        Some(branch) => branch.clone(),
                        None => janitor::read_note(&settings.git_directory)?.published_branch,
                    };
                    (repository, published)
                }
                None => remote::clone_beside(settings, progress)?,
            };
        let mut draft = Self {
            repository,
            remote: settings.remote.clone(),
            published_branch,
            draft_branch: settings.draft_branch.clone(),
            site_root: settings.site_root.clone(),
            landed: HashMap::new(),
        };
        draft.remote.fetch(
            &draft.repository,
            &[&draft.published_branch, &draft.draft_branch],
            progress,
        )?;
        draft.remote.refuse_checked_out(&draft.draft_branch)?;
        draft.settle_branch()?;
        draft.landed = draft.read_landed(draft.tip()?, None)?;
        Ok(draft)
    }

    /// The published branch.
    pub(crate) fn published_branch(&self) -> &str {
        &self.published_branch
    }

    /// The newest commit of the draft.
    pub(crate) fn tip(&self) -> Result<Oid, DraftError> {
        self.repository
            .refname_to_id(&self.local_reference())
            .map_err(|source| self.local("read the draft branch", source))
    }

    /// The commit in which an instruction landed, pushed or not.
    pub(crate) fn landed(&self, id: &InstructionId) -> Option<&CommitId> {
        self.landed.get(id)
    }

    /// How many commits of the draft have not been seen on the remote.
    pub(crate) fn unpushed(&self) -> Result<usize, DraftError> {
        Ok(self.unpushed_commits()?.len())
    }

    /// The draft's tip as the planner sees it.
    pub(crate) fn tree(&self) -> Result<TipTree<'_>, DraftError> {
        Ok(TipTree {
            draft: self,
            root: self.tree_of(self.tip()?)?,
        })
    }

    /// Commits `change_set` on the tip, with its paths alone.
    pub(crate) fn commit(
        &mut self,
        change_set: &ChangeSet,
        message: &CommitMessage,
    ) -> Result<CommitId, DraftError> {
        let parent = self.commit_object(self.tip()?)?;
        let baseline = parent
            .tree()
            .map_err(|source| self.local("read the draft's tree", source))?;
        let mut update = git2::build::TreeUpdateBuilder::new();
        for (path, change) in &change_set.files {
            let path = self.repository_path(path);
            match &change.after {
                Some(version) => {
                    let blob = self
                        .repository
                        .blob(&version.content)
                        .map_err(|source| self.local("write a file into the draft", source))?;
                    let mode = if version.executable {
                        FileMode::BlobExecutable
                    } else {
                        FileMode::Blob
                    };
                    update.upsert(path, blob, mode);
                }
                None => {
                    update.remove(path);
                }
            }
        }
        let tree = update
            .create_updated(&self.repository, &baseline)
            .and_then(|id| self.repository.find_tree(id))
            .map_err(|source| self.local("write the draft's tree", source))?;
        let (author, committer) = message
            .signatures()
            .map_err(|source| self.local("write the author", source))?;
        let id = self
            .repository
            .commit(
                Some(&self.local_reference()),
                &author,
                &committer,
                &message.render(),
                &tree,
                &[&parent],
            )
            .map_err(|source| self.local("commit", source))?;
        let commit = commit_id(id);
        drop((tree, baseline, parent));
        self.landed
            .insert(message.instruction_id.clone(), commit.clone());
        Ok(commit)
    }

    /// Takes commits that are not on the remote off the draft: its tip becomes `to`.
    pub(crate) fn roll_back(&mut self, to: Oid) -> Result<(), DraftError> {
        self.set_tip(to, "roll back")?;
        self.landed = self.read_landed(to, None)?;
        Ok(())
    }

    /// The commit on which the commits that have not been seen on the remote stand.
    pub(crate) fn pushed_tip(&self) -> Result<Oid, DraftError> {
        match self.unpushed_commits()?.first() {
            Some(first) => self
                .commit_object(*first)?
                .parent_id(0)
                .map_err(|source| self.local("read history", source)),
            None => self.tip(),
        }
    }

    /// Pushes the draft and proves it by reading the remote's tip; rebases on what others pushed meanwhile.
    pub(crate) fn push(&mut self) -> Result<Pushed, DraftError> {
        for _ in 0..PUSH_ROUNDS_MAX {
            let tip = self.tip()?;
            let refusal =
                self.remote
                    .push(&self.repository, &self.draft_branch, tip, self.seen_tip()?)?;
            let found = self.remote.tip(&self.repository, &self.draft_branch)?;
            if found == Some(tip) {
                self.remember_seen(tip)?;
                return Ok(Pushed::Verified);
            }
            if found == self.seen_tip()? {
                // The remote is where it was, so nobody came between: it does not want this commit.
                return match refusal {
                    Some(reason) if remote::may_pass(&reason) => Err(DraftError::PushUndone {
                        remote: self.remote.to_string(),
                        reason,
                    }),
                    Some(reason) => Ok(Pushed::Rejected { reason }),
                    None => Err(DraftError::PushVanished {
                        remote: self.remote.to_string(),
                        branch: self.draft_branch.clone(),
                    }),
                };
            }
            self.fetch()?;
            let seen = self.seen_tip()?;
            if seen.is_some_and(|seen| {
                self.repository
                    .graph_descendant_of(seen, tip)
                    .unwrap_or(false)
            }) {
                // Our commit arrived, and somebody has built on it already.
                return Ok(Pushed::Verified);
            }
            if let Replanted::Conflict { files } = self.replant()? {
                return Ok(Pushed::Conflict { files });
            }
        }
        Err(DraftError::RemoteBusy {
            remote: self.remote.to_string(),
            rounds: PUSH_ROUNDS_MAX,
        })
    }

    /// Reads what the remote has now. The draft is unchanged.
    pub(crate) fn fetch(&mut self) -> Result<(), DraftError> {
        self.remote.fetch(
            &self.repository,
            &[&self.published_branch, &self.draft_branch],
            &mut |_, _| (),
        )
    }

    /// Moves our commits on top of what the remote has: the draft's tip then descends from the remote's.
    pub(crate) fn replant(&mut self) -> Result<Replanted, DraftError> {
        let outcome = replant::replant(self)?;
        self.landed = self.read_landed(self.tip()?, None)?;
        Ok(outcome)
    }

    /// The first line of a commit's message, and the paths of the site in which it differs from its parent.
    pub(crate) fn described(&self, commit: &CommitId) -> Result<(String, Vec<String>), DraftError> {
        let id =
            Oid::from_str(commit.as_str()).map_err(|source| self.local("read a commit", source))?;
        let commit = self.commit_object(id)?;
        let summary = commit
            .summary()
            .ok()
            .flatten()
            .unwrap_or_default()
            .to_owned();
        let Ok(parent) = commit.parent_id(0) else {
            return Ok((summary, Vec::new()));
        };
        let prefix = if self.site_root.is_empty() {
            String::new()
        } else {
            format!("{}/", self.site_root)
        };
        let changes = self.differences(parent, id)?;
        let files = changes
            .into_iter()
            .map(|change| {
                change
                    .path
                    .strip_prefix(&prefix)
                    .unwrap_or(&change.path)
                    .to_owned()
            })
            .collect();
        Ok((summary, files))
    }

    /// The commit that the work tree was last made to show; none before the first time.
    pub(crate) fn shown(&self) -> Result<Option<Oid>, DraftError> {
        remote::reference_target(&self.repository, SHOWN_REFERENCE)
            .map_err(|source| self.local("read what the work tree shows", source))
    }

    /// Notes that the work tree shows `commit`. What a crash leaves between the draft and the work tree is found by it.
    pub(crate) fn set_shown(&self, commit: Oid) -> Result<(), DraftError> {
        self.repository
            .reference(SHOWN_REFERENCE, commit, true, "shown")
            .map(drop)
            .map_err(|source| self.local("note what the work tree shows", source))
    }

    /// What differs between two commits, as the second has it.
    pub(crate) fn differences(&self, from: Oid, to: Oid) -> Result<Vec<PathChange>, DraftError> {
        let (from, to_tree) = (self.tree_of(from)?, self.tree_of(to)?);
        let mut options = git2::DiffOptions::new();
        options.include_typechange(true);
        let diff = self
            .repository
            .diff_tree_to_tree(Some(&from), Some(&to_tree), Some(&mut options))
            .map_err(|source| self.local("compare commits", source))?;
        let mut changes = Vec::new();
        for delta in diff.deltas() {
            let path = delta
                .new_file()
                .path()
                .or_else(|| delta.old_file().path())
                .unwrap_or(Path::new(""));
            let path = path.to_string_lossy().into_owned();
            let after = self.node(to, &path)?;
            changes.push(PathChange { path, after });
        }
        Ok(changes)
    }

    /// Everything the tree of a commit holds.
    pub(crate) fn everything(&self, commit: Oid) -> Result<Vec<PathChange>, DraftError> {
        let tree = self.tree_of(commit)?;
        let mut changes = Vec::new();
        let mut failure = None;
        tree.walk(git2::TreeWalkMode::PreOrder, |folder, entry| {
            if entry.kind() == Some(ObjectType::Tree) {
                return git2::TreeWalkResult::Ok;
            }
            let path = format!("{folder}{}", String::from_utf8_lossy(entry.name_bytes()));
            match self.node_of_entry(entry) {
                Ok(after) => changes.push(PathChange { path, after }),
                Err(error) => {
                    failure = Some(error);
                    return git2::TreeWalkResult::Abort;
                }
            }
            git2::TreeWalkResult::Ok
        })
        .or_else(|source| {
            if failure.is_some() {
                Ok(())
            } else {
                Err(self.local("read the draft's files", source))
            }
        })?;
        failure.map_or(Ok(changes), Err)
    }

    /// What stands at `path` (from the root of the repository) in `commit`.
    pub(crate) fn node(&self, commit: Oid, path: &str) -> Result<Node, DraftError> {
        match self.tree_of(commit)?.get_path(Path::new(path)) {
            Ok(entry) => self.node_of_entry(&entry),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(Node::Absent),
            Err(source) => Err(self.local("read the draft's files", source)),
        }
    }

    /// The files that `commit` has below a folder (from the root of the repository, `""` for all of them), links and submodules
    /// included; none where no folder is.
    pub(crate) fn files_below(&self, commit: Oid, folder: &str) -> Result<Vec<String>, DraftError> {
        let fail = |source| self.local("read the draft's files", source);
        let mut tree = self.tree_of(commit)?;
        if !folder.is_empty() {
            let entry = match tree.get_path(Path::new(folder)) {
                Ok(entry) if entry.kind() == Some(ObjectType::Tree) => entry,
                Ok(_) => return Ok(Vec::new()),
                Err(error) if error.code() == ErrorCode::NotFound => return Ok(Vec::new()),
                Err(source) => return Err(fail(source)),
            };
            tree = self.repository.find_tree(entry.id()).map_err(fail)?;
        }
        let mut files = Vec::new();
        tree.walk(git2::TreeWalkMode::PreOrder, |inside, entry| {
            if entry.kind() != Some(ObjectType::Tree) {
                let name = String::from_utf8_lossy(entry.name_bytes());
                let slash = if folder.is_empty() { "" } else { "/" };
                files.push(format!("{folder}{slash}{inside}{name}"));
            }
            git2::TreeWalkResult::Ok
        })
        .map_err(fail)?;
        Ok(files)
    }

    /// The path from the root of the repository of a path of the site.
    pub(crate) fn repository_path(&self, path: &SitePath) -> String {
        if self.site_root.is_empty() {
            path.as_str().to_owned()
        } else {
            format!("{}/{path}", self.site_root)
        }
    }

    fn local_reference(&self) -> String {
        format!("refs/heads/{}", self.draft_branch)
    }

    fn seen_reference(branch: &str) -> String {
        format!("refs/remotes/origin/{branch}")
    }

    /// The draft's tip on the remote as last seen; none if the remote had no such branch.
    fn seen_tip(&self) -> Result<Option<Oid>, DraftError> {
        remote::reference_target(&self.repository, &Self::seen_reference(&self.draft_branch))
            .map_err(|source| self.local("read what the remote had", source))
    }

    fn remember_seen(&self, tip: Oid) -> Result<(), DraftError> {
        self.repository
            .reference(
                &Self::seen_reference(&self.draft_branch),
                tip,
                true,
                "seen on the remote",
            )
            .map_err(|source| self.local("note what the remote has", source))?;
        self.note_pushed(tip)
    }

    fn pushed_reference(&self) -> String {
        format!("{PUSHED_REFERENCES}/{}", self.draft_branch)
    }

    /// The newest commit of the draft that the remote has had; none before the first.
    fn noted_pushed(&self) -> Result<Option<Oid>, DraftError> {
        remote::reference_target(&self.repository, &self.pushed_reference())
            .map_err(|source| self.local("read what the remote had", source))
    }

    /// Notes that the draft stands on a commit that the remote has.
    fn note_pushed(&self, commit: Oid) -> Result<(), DraftError> {
        self.repository
            .reference(&self.pushed_reference(), commit, true, "pushed")
            .map(drop)
            .map_err(|source| self.local("note what the remote has", source))
    }

    fn set_tip(&self, to: Oid, why: &str) -> Result<(), DraftError> {
        self.repository
            .reference(&self.local_reference(), to, true, why)
            .map(drop)
            .map_err(|source| self.local("move the draft branch", source))
    }

    /// Makes the local draft branch agree with the remote: made where it is missing, moved where it is behind, and
    /// replanted where both have moved.
    fn settle_branch(&mut self) -> Result<(), DraftError> {
        let local = remote::reference_target(&self.repository, &self.local_reference())
            .map_err(|source| self.local("read the draft branch", source))?;
        if local.is_some() {
            while let Replanted::Conflict { .. } = self.replant()? {
                // The commit that does not fit is gone from the draft; its instruction is still queued, and will be
                // judged against what the remote has now.
            }
            return self.follow_published();
        }
        let published = self.published_tip()?.ok_or_else(|| DraftError::NoBranch {
            remote: self.remote.to_string(),
            branch: self.published_branch.clone(),
            known: Vec::new(),
        })?;
        match self.seen_tip()? {
            Some(seen) => {
                self.set_tip(seen, "begin the draft")?;
                self.note_pushed(seen)
            }
            None => self.set_tip(published, "begin the draft"),
        }
    }

    /// Moves a draft that has nothing of its own (nothing was instructed yet, or all of it was merged) to what is
    /// published now. One that has something stays: bringing the two together is an instruction's business.
    fn follow_published(&self) -> Result<(), DraftError> {
        let (tip, published) = (self.tip()?, self.published_tip()?);
        let merged = published.is_some_and(|published| {
            self.repository
                .graph_descendant_of(published, tip)
                .unwrap_or(false)
        });
        match published {
            Some(published) if merged => self.set_tip(published, "follow the published branch"),
            _ => Ok(()),
        }
    }

    /// How many commits of the published branch the draft does not have.
    pub(crate) fn behind_published(&self) -> Result<usize, DraftError> {
        let (tip, published) = (self.tip()?, self.published_tip()?);
        let Some(published) = published else {
            return Ok(0);
        };
        let (_, behind) = self
            .repository
            .graph_ahead_behind(tip, published)
            .map_err(|source| self.local("compare with the published branch", source))?;
        Ok(behind)
    }

    fn published_tip(&self) -> Result<Option<Oid>, DraftError> {
        remote::reference_target(
            &self.repository,
            &Self::seen_reference(&self.published_branch),
        )
        .map_err(|source| self.local("read the published branch", source))
    }

    /// Our commits that the remote has not been seen to have, oldest first.
    fn unpushed_commits(&self) -> Result<Vec<Oid>, DraftError> {
        let read = || -> Result<Vec<Oid>, git2::Error> {
            let mut walk = self.repository.revwalk()?;
            walk.set_sorting(git2::Sort::TOPOLOGICAL | git2::Sort::REVERSE)?;
            walk.push_ref(&self.local_reference())?;
            for reference in [
                Self::seen_reference(&self.draft_branch),
                Self::seen_reference(&self.published_branch),
                self.pushed_reference(),
            ] {
                if let Some(seen) = remote::reference_target(&self.repository, &reference)? {
                    walk.hide(seen)?;
                }
            }
            walk.collect()
        };
        read().map_err(|source| self.local("read history", source))
    }

    /// Reads the trailers of the draft's history from `tip` back.
    fn read_landed(
        &self,
        tip: Oid,
        until: Option<Oid>,
    ) -> Result<HashMap<InstructionId, CommitId>, DraftError> {
        let read = || -> Result<HashMap<InstructionId, CommitId>, git2::Error> {
            let mut walk = self.repository.revwalk()?;
            walk.set_sorting(git2::Sort::TOPOLOGICAL)?;
            walk.push(tip)?;
            if let Some(until) = until {
                walk.hide(until)?;
            }
            let mut landed = HashMap::new();
            for id in walk.take(HISTORY_MAX) {
                let id = id?;
                let commit = self.repository.find_commit(id)?;
                if let Some(instruction) = commit_message::instruction_of(commit.message_bytes()) {
                    landed.entry(instruction).or_insert_with(|| commit_id(id));
                }
            }
            Ok(landed)
        };
        read().map_err(|source| self.local("read history", source))
    }

    fn commit_object(&self, id: Oid) -> Result<git2::Commit<'_>, DraftError> {
        self.repository
            .find_commit(id)
            .map_err(|source| self.local("read a commit", source))
    }

    fn tree_of(&self, commit: Oid) -> Result<git2::Tree<'_>, DraftError> {
        self.commit_object(commit)?
            .tree()
            .map_err(|source| self.local("read a commit's tree", source))
    }

    fn node_of_entry(&self, entry: &git2::TreeEntry<'_>) -> Result<Node, DraftError> {
        let blob = || {
            self.repository
                .find_blob(entry.id())
                .map(|blob| blob.content().to_vec())
                .map_err(|source| self.local("read a file of the draft", source))
        };
        Ok(match (entry.kind(), entry.filemode()) {
            (Some(ObjectType::Commit), _) => Node::Submodule,
            (Some(ObjectType::Blob), 0o120_000) => Node::Symlink(blob()?),
            (Some(ObjectType::Blob), mode) => Node::File(Version {
                content: blob()?,
                executable: mode & 0o111 != 0,
            }),
            _ => Node::Absent,
        })
    }

    fn local(&self, operation: &'static str, source: git2::Error) -> DraftError {
        DraftError::Local {
            operation,
            path: self.repository.path().to_owned(),
            source,
        }
    }
}

/// The draft's tip, as the planner sees it.
#[derive(Debug)]
pub(crate) struct TipTree<'a> {
    draft: &'a Draft,
    root: git2::Tree<'a>,
}

impl TipTree<'_> {
    fn entry(&self, path: &SitePath) -> Result<Option<git2::TreeEntry<'static>>, TreeError> {
        match self
            .root
            .get_path(Path::new(&self.draft.repository_path(path)))
        {
            Ok(entry) => Ok(Some(entry)),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(TreeError(error.message().to_owned())),
        }
    }
}

impl Tree for TipTree<'_> {
    fn file(&self, path: &SitePath) -> Result<Option<Entry>, TreeError> {
        let Some(entry) = self.entry(path)? else {
            return Ok(None);
        };
        let node = self
            .draft
            .node_of_entry(&entry)
            .map_err(|error| TreeError(error.to_string()))?;
        Ok(match node {
            Node::Absent => None,
            Node::Symlink(_) => Some(Entry::Symlink),
            Node::Submodule => Some(Entry::Submodule),
            Node::File(Version {
                content,
                executable,
            }) => Some(Entry::File(File {
                content,
                executable,
                blob: blob_id(entry.id()),
            })),
        })
    }

    fn blob(&self, id: &BlobId) -> Result<Option<Vec<u8>>, TreeError> {
        let id =
            Oid::from_str(id.as_str()).map_err(|error| TreeError(error.message().to_owned()))?;
        match self.draft.repository.find_blob(id) {
            Ok(blob) => Ok(Some(blob.content().to_vec())),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            // An id that names something other than a file is as unknown as one that names nothing.
            Err(error) if error.class() == git2::ErrorClass::Invalid => Ok(None),
            Err(error) => Err(TreeError(error.message().to_owned())),
        }
    }

    fn is_directory(&self, path: &SitePath) -> Result<bool, TreeError> {
        Ok(self
            .entry(path)?
            .is_some_and(|entry| entry.kind() == Some(ObjectType::Tree)))
    }
}

/// The trailers and people of one instruction's commit.
pub(crate) fn commit_id(id: Oid) -> CommitId {
    id.to_string()
        .parse()
        .expect("an object id prints as 40 hexadecimal digits")
}

fn blob_id(id: Oid) -> BlobId {
    id.to_string()
        .parse()
        .expect("an object id prints as 40 hexadecimal digits")
}

/// Who commits: the agent.
pub(crate) const COMMITTER: (&str, &str) = ("Edit Agent", "edit-agent@localhost");

/// Sets the time limits of every connection to a remote. Must be called before the first one, and before any thread.
///
/// `idle` is how long a remote may say nothing; `connect` how long it may take to answer at all.
pub(crate) fn set_time_limits(connect: Duration, idle: Duration) -> Result<(), git2::Error> {
    crate::system::set_git_time_limits(connect, idle)
}
