//! Bringing the published branch into the draft, and going back to it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use contract::ErrorCode;
use git2::{IndexConflict, IndexEntry, MergeOptions, Oid};

use super::proposal::{Held, index_entry};
use super::{Declined, Draft, DraftError, Proposal, party};
use crate::change_set::Version;
use crate::change_set::revert;

/// Two lines of commits together.
#[derive(Debug)]
pub(super) enum Merged {
    /// The tree that both make.
    Clean(Oid),
    /// Files that both changed in ways that do not go together, sorted.
    Conflict(Vec<PathBuf>),
}

impl Draft {
    /// The draft with what is published, as it was last fetched, brought in.
    pub(crate) fn propose_sync(&self) -> Result<Result<Proposal, Declined>, DraftError> {
        let on = self.tip()?;
        let Some(published) = self.published_tip()? else {
            return Ok(Err(self.branch_missing()));
        };
        if on == published || self.descends(on, published) {
            return Ok(Err(Declined::new(
                ErrorCode::EmptyChange,
                "There is nothing to bring in: the draft has everything that is published.",
            )));
        }
        let tree = match self.merged(on, published)? {
            Merged::Clean(tree) => tree,
            Merged::Conflict(files) => {
                return Ok(Err(self.colliding(on, published, &files)?));
            }
        };
        Ok(Ok(Proposal {
            moves: self.moves(self.tree_of(on)?.id(), tree)?,
            on,
            tree,
            merges: Some(published),
            summary: "Bring in what is published".to_owned(),
            undoes: None,
        }))
    }

    /// The draft as the published branch is, as it was last fetched.
    pub(crate) fn propose_discard(&self) -> Result<Result<Proposal, Declined>, DraftError> {
        let on = self.tip()?;
        let Some(published) = self.published_tip()? else {
            return Ok(Err(self.branch_missing()));
        };
        let (present, tree) = (self.tree_of(on)?.id(), self.tree_of(published)?.id());
        if present == tree {
            return Ok(Err(Declined::new(
                ErrorCode::EmptyChange,
                "There is nothing to discard: the draft is as the published site.",
            )));
        }
        Ok(Ok(Proposal {
            moves: self.moves(present, tree)?,
            on,
            tree,
            merges: None,
            summary: "Go back to what is published".to_owned(),
            undoes: None,
        }))
    }

    /// Why nothing can be done with the published branch.
    pub(super) fn branch_missing(&self) -> Declined {
        let branch = &self.published_branch;
        Declined::new(
            ErrorCode::BranchMissing,
            format!("The published branch {branch} is not there any more."),
        )
    }

    /// Why the draft and the published branch cannot be brought together.
    pub(super) fn colliding(
        &self,
        draft: Oid,
        published: Oid,
        files: &[PathBuf],
    ) -> Result<Declined, DraftError> {
        let conflicts = self.conflicts(draft, published, files)?;
        Ok(Declined {
            code: ErrorCode::Conflict,
            message: party::describe(&conflicts),
            conflicts,
        })
    }

    /// Brings two commits together in memory. Renames are followed; where lines of front matter collide, its keys decide.
    pub(super) fn merged(&self, ours: Oid, theirs: Oid) -> Result<Merged, DraftError> {
        let fail = |source| self.local("bring two histories together", source);
        let mut options = MergeOptions::new();
        options.find_renames(true);
        let (ours, theirs) = (self.commit_object(ours)?, self.commit_object(theirs)?);
        let mut index = self
            .repository
            .merge_commits(&ours, &theirs, Some(&options))
            .map_err(fail)?;
        let conflicts: Vec<IndexConflict> = match index.has_conflicts() {
            true => index
                .conflicts()
                .and_then(Iterator::collect)
                .map_err(fail)?,
            false => Vec::new(),
        };
        let mut files = BTreeMap::new();
        for conflict in conflicts {
            let Some((path, resolved)) = self.resolve(&conflict)? else {
                continue;
            };
            if let Some(held) = resolved {
                index.conflict_remove(&path).map_err(fail)?;
                index.add(&index_entry(&path, held)).map_err(fail)?;
            } else {
                files.insert(path, ());
            }
        }
        if !files.is_empty() {
            return Ok(Merged::Conflict(files.into_keys().collect()));
        }
        index
            .write_tree_to(&self.repository)
            .map(Merged::Clean)
            .map_err(fail)
    }

    /// The path of a conflict, and the file that is right for both sides, if there is one.
    fn resolve(
        &self,
        conflict: &IndexConflict,
    ) -> Result<Option<(PathBuf, Option<Held>)>, DraftError> {
        let IndexConflict {
            ancestor,
            our,
            their,
        } = conflict;
        let Some(any) = our.as_ref().or(their.as_ref()).or(ancestor.as_ref()) else {
            return Ok(None);
        };
        let path = Path::new(OsStr::from_bytes(&any.path)).to_owned();
        let (Some(base), Some(our), Some(their)) = (ancestor, our, their) else {
            return Ok(Some((path, None)));
        };
        if base.path != our.path || base.path != their.path {
            return Ok(Some((path, None)));
        }
        let version = |entry: &IndexEntry| -> Result<Option<Version>, DraftError> {
            let held = Held {
                id: entry.id,
                mode: entry.mode,
            };
            held.is_file().then(|| self.version(held)).transpose()
        };
        let (Some(base), Some(our), Some(their)) = (version(base)?, version(our)?, version(their)?)
        else {
            return Ok(Some((path, None)));
        };
        let together = revert::merged(
            &self.site_path(&path),
            Some(&base),
            Some(&our),
            Some(&their),
        );
        let held = match together {
            Ok(Some(version)) => Some(self.write_version(&version)?),
            Ok(None) | Err(revert::Overlap) => None,
        };
        Ok(Some((path, held)))
    }
}
