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

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use contract::{BlobId, CommitId, InstructionId, SitePath};
use git2::{ErrorCode, ObjectType, Oid, Repository};

use crate::change_set::{Entry, File, Tree, TreeError, Version};
use crate::failure::Failure;

mod commit_message;
mod credentials;
mod error;
mod history;
mod janitor;
mod ledger;
mod lookout;
mod party;
mod proposal;
mod publish;
mod remote;
mod replant;
mod rescue;
#[cfg(test)]
mod scene;
mod sync;
mod undo;

use history::Details;
use ledger::Ledger;
use proposal::Held;

pub(crate) use commit_message::CommitMessage;
pub(crate) use credentials::Credentials;
pub(crate) use error::DraftError;
pub(crate) use history::{Contribution, History, HistoryEntry};
pub(crate) use janitor::remove_stale_locks;
pub(crate) use lookout::{Lookout, Seen};
pub(crate) use proposal::{Declined, Move, Proposal};
pub(crate) use publish::{GivenUp, Publication, Published};
pub(crate) use remote::Remote;
pub(crate) use replant::Replanted;
pub(crate) use rescue::{LeftBehind, Parking, RescueName, TakenUp};

/// How many commits of history are searched for instructions that have landed. Enough for years of one thread, and a
/// bound on what a huge history costs at start.
const HISTORY_MAX: usize = 20_000;

/// Fetch, rebase and push again at most this often before the attempt counts as failed: somebody pushes faster than
/// we can.
pub(crate) const PUSH_ROUNDS_MAX: usize = 5;

/// Which commit the work tree shows. Outside `refs/heads`, so that it is never pushed.
const SHOWN_REFERENCE: &str = "refs/edit/shown";

/// Below it, for each draft branch, the newest commit of it that the remote has had. What cannot be reached from there is
/// ours alone, and only that is ever moved onto something else: what others took off the branch does not come back.
const PUSHED_REFERENCES: &str = "refs/edit/pushed";

/// Where the published branch was when it was last there. What it had is the remote's, also when somebody removes the
/// branch: it is never taken for commits of ours.
const PUBLISHED_REFERENCE: &str = "refs/edit/published";

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
    /// A clone that is there is opened as it was left: the remote is not asked.
    pub(crate) offline: bool,
}

/// The clone and its draft branch.
pub(crate) struct Draft {
    repository: Repository,
    remote: Remote,
    published_branch: String,
    draft_branch: String,
    site_root: String,
    /// Instructions whose commits are on the draft, pushed or not.
    landed: Ledger,
    /// Instructions whose commits are on the published branch as it was last seen.
    published: Ledger,
    /// What is shown of commits, which never changes: looked up once.
    details: RefCell<HashMap<Oid, Details>>,
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draft")
            .field("branch", &self.draft_branch)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

/// How one round of pushing ended.
#[derive(Debug)]
pub(crate) enum Round {
    /// The remote's tip is, or descends from, our tip.
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
    /// Others pushed. Our commits stand on top of theirs now, and are still to be pushed.
    Moved,
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
            landed: Ledger::default(),
            published: Ledger::default(),
            details: RefCell::default(),
        };
        if !settings.offline {
            draft.remote.fetch(
                &draft.repository,
                &draft.published_branch,
                &draft.draft_branch,
                progress,
            )?;
            draft.note_published()?;
            draft.remote.refuse_checked_out(&draft.draft_branch)?;
        }
        draft.settle_branch()?;
        draft.follow_tip()?;
        // Most of the two histories is the same, and is read once.
        draft.published = draft.landed.clone();
        draft.follow_published_tip()?;
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
        self.landed.commit_of(id)
    }

    /// The commit of the published branch, as it was last seen, in which an instruction landed: for a publish its own, for
    /// any other the one that was published.
    pub(crate) fn published_landed(&self, id: &InstructionId) -> Option<&CommitId> {
        self.published.commit_of(id)
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

    /// Takes commits that are not on the remote off the draft: its tip becomes `to`.
    pub(crate) fn roll_back(&mut self, to: Oid) -> Result<(), DraftError> {
        self.set_tip(to, "roll back")?;
        self.follow_tip()
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

    /// Pushes the draft and proves it by reading the remote's tip. If others pushed meanwhile, our commits are moved on top
    /// of theirs: what the draft is then, nobody has seen yet, so that is looked at before the next round.
    pub(crate) fn push_once(&mut self) -> Result<Round, DraftError> {
        let tip = self.tip()?;
        let refusal = self.remote.push(
            &self.repository,
            &self.local_reference(),
            &self.draft_branch,
            tip,
            self.seen_tip()?,
        )?;
        let found = self.remote.tip(&self.repository, &self.draft_branch)?;
        if found == Some(tip) {
            self.remember_seen(tip)?;
            return Ok(Round::Verified);
        }
        if found == self.seen_tip()? {
            // The remote is where it was, so nobody came between: it does not want this commit.
            let reason = self.refused(&self.draft_branch, refusal)?;
            return Ok(Round::Rejected { reason });
        }
        self.fetch()?;
        let seen = self.seen_tip()?;
        if seen.is_some_and(|seen| self.descends(seen, tip)) {
            // Our commit arrived, and somebody has built on it already.
            return Ok(Round::Verified);
        }
        Ok(match self.replant()? {
            Replanted::Clean => Round::Moved,
            Replanted::Conflict { files } => Round::Conflict { files },
        })
    }

    /// Why the remote did not move `branch`, if trying again does not change that.
    fn refused(&self, branch: &str, refusal: Option<String>) -> Result<String, DraftError> {
        match refusal {
            Some(reason) if remote::may_pass(&reason) => Err(DraftError::PushUndone {
                remote: self.remote.to_string(),
                reason,
            }),
            Some(reason) => Ok(reason),
            None => Err(DraftError::PushVanished {
                remote: self.remote.to_string(),
                branch: branch.to_owned(),
            }),
        }
    }

    /// Somebody pushes faster than we can.
    pub(crate) fn remote_busy(&self) -> DraftError {
        DraftError::RemoteBusy {
            remote: self.remote.to_string(),
            rounds: PUSH_ROUNDS_MAX,
        }
    }

    /// The tree of a commit.
    pub(crate) fn tree_id(&self, commit: Oid) -> Result<Oid, DraftError> {
        Ok(self.tree_of(commit)?.id())
    }

    /// Reads what the remote has now, and brings the draft onto it: our own commits go on top, and what does not fit any more
    /// goes, because its instruction is still in the queue.
    pub(crate) fn take_in(&mut self) -> Result<(), DraftError> {
        self.fetch()?;
        while let Replanted::Conflict { .. } = self.replant()? {}
        self.follow_published()?;
        self.follow_tip()
    }

    /// Reads what the remote has now. The draft is unchanged.
    pub(crate) fn fetch(&mut self) -> Result<(), DraftError> {
        self.remote.fetch(
            &self.repository,
            &self.published_branch,
            &self.draft_branch,
            &mut |_, _| (),
        )?;
        self.note_published()?;
        self.follow_published_tip()
    }

    /// Moves our commits on top of what the remote has: the draft's tip then descends from the remote's.
    pub(crate) fn replant(&mut self) -> Result<Replanted, DraftError> {
        let outcome = replant::replant(self)?;
        self.follow_tip()?;
        Ok(outcome)
    }

    /// The first line of a commit's message, and the paths of the site in which it differs from its first parent.
    pub(crate) fn described(&self, commit: &CommitId) -> Result<(String, Vec<String>), DraftError> {
        let id =
            Oid::from_str(commit.as_str()).map_err(|source| self.local("read a commit", source))?;
        let details = self.details(id)?;
        Ok((details.summary, details.files))
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
        let (from, to) = (self.tree_of(from)?, self.tree_of(to)?);
        let changes = self.deltas(Some(&from), Some(&to))?.into_iter();
        changes
            .map(|delta| {
                Ok(PathChange {
                    path: delta.path.to_string_lossy().into_owned(),
                    after: self.node_of(delta.after)?,
                })
            })
            .collect()
    }

    /// Everything the tree of a commit holds.
    pub(crate) fn everything(&self, commit: Oid) -> Result<Vec<PathChange>, DraftError> {
        self.contents(self.tree_id(commit)?)
    }

    /// Everything a tree holds.
    pub(crate) fn contents(&self, tree: Oid) -> Result<Vec<PathChange>, DraftError> {
        let tree = self.tree_object(tree)?;
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

    fn note_published(&self) -> Result<(), DraftError> {
        let Some(published) = self.published_tip()? else {
            return Ok(());
        };
        self.repository
            .reference(PUBLISHED_REFERENCE, published, true, "published")
            .map(drop)
            .map_err(|source| self.local("note what the remote has", source))
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
                self.note_pushed(seen)?;
                self.follow_published()
            }
            None => self.set_tip(published, "begin the draft"),
        }
    }

    /// Moves a draft that has nothing of its own (nothing was instructed yet, or all of it was merged) to what is
    /// published, as it was last fetched. One that has something stays: bringing the two together is an instruction's
    /// business.
    pub(crate) fn follow_published(&mut self) -> Result<(), DraftError> {
        let (tip, published) = (self.tip()?, self.published_tip()?);
        match published {
            Some(published) if self.descends(published, tip) => {
                self.set_tip(published, "follow the published branch")?;
                self.follow_tip()
            }
            _ => Ok(()),
        }
    }

    /// How many changes of the published branch the draft does not have. A commit that only joins two lines is none: such is
    /// our own publish of a part of the draft.
    pub(crate) fn behind_published(&self) -> Result<usize, DraftError> {
        let (tip, published) = (self.tip()?, self.published_tip()?);
        let Some(published) = published else {
            return Ok(0);
        };
        let (_, behind) = self
            .repository
            .graph_ahead_behind(tip, published)
            .map_err(|source| self.local("compare with the published branch", source))?;
        if behind == 0 {
            return Ok(0);
        }
        let read = |source| self.local("read history", source);
        let mut changes = 0;
        let walk = ledger::commits(&self.repository, published, Some(tip)).map_err(read)?;
        for commit in walk.take(HISTORY_MAX) {
            let commit = commit.map_err(read)?;
            changes += usize::from(self.commit_object(commit)?.parent_count() < 2);
        }
        Ok(changes)
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
            // What a commit of ours merged is not ours.
            walk.simplify_first_parent()?;
            walk.push_ref(&self.local_reference())?;
            for reference in [
                PUBLISHED_REFERENCE.to_owned(),
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

    /// What has landed follows the draft's tip.
    fn follow_tip(&mut self) -> Result<(), DraftError> {
        let tip = self.tip()?;
        let followed = self.landed.follow(&self.repository, Some(tip));
        followed.map_err(|source| self.local("read history", source))
    }

    /// What is published follows the published branch as it was when it was last there.
    fn follow_published_tip(&mut self) -> Result<(), DraftError> {
        let followed = remote::reference_target(&self.repository, PUBLISHED_REFERENCE)
            .and_then(|tip| self.published.follow(&self.repository, tip));
        followed.map_err(|source| self.local("read history", source))
    }

    /// Whether `commit` has `ancestor` in its history, and is another.
    fn descends(&self, commit: Oid, ancestor: Oid) -> bool {
        self.repository
            .graph_descendant_of(commit, ancestor)
            .unwrap_or(false)
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
        self.node_of(Held::of_entry(entry))
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

/// How long a git server may take to answer a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);
/// How long a git server may say nothing.
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);

/// Makes git ready: it reads the authorities of the system, which takes longer than everything else that a start does before its
/// first line. To be called once, before git is asked for anything.
pub(crate) fn prepare_git() -> Result<(), Failure> {
    set_time_limits(CONNECT_TIME_MAX, IDLE_TIME_MAX)
        .map_err(|error| Failure::internal("set the time limits of git", &error))
}

/// Sets the time limits of every connection to a remote. Must be called before git is asked for anything.
///
/// `idle` is how long a remote may say nothing; `connect` how long it may take to answer at all.
pub(crate) fn set_time_limits(connect: Duration, idle: Duration) -> Result<(), git2::Error> {
    crate::system::set_git_time_limits(connect, idle)
}
