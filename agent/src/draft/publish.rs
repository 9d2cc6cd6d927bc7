//! Bringing the draft to the published branch.

use contract::{CommitId, ErrorCode, InstructionId};
use git2::Oid;

use super::proposal::quoting;
use super::sync::Merged;
use super::{CommitMessage, Declined, Draft, DraftError, Move, commit_id, ledger, undo};

/// The commit that is being published, so that a push has a name for it. Outside `refs/heads`, and gone afterwards.
const PUBLISHING_REFERENCE: &str = "refs/edit/publishing";

/// What publishing would do.
#[derive(Debug, Clone)]
pub(crate) struct Publication {
    /// The published commit that it stands on.
    pub(crate) published: Oid,
    /// The commit of the draft that it publishes.
    pub(crate) target: Oid,
    /// The tree the published branch would have.
    pub(crate) tree: Oid,
    /// Whether nothing of the draft is left out.
    pub(crate) whole: bool,
    /// What a work tree that shows the draft must change to show `tree`; mostly nothing.
    pub(crate) moves_from_draft: Vec<Move>,
    /// Paths of the repository in which the published branch would differ from what it is, sorted.
    pub(crate) touched: Vec<String>,
    /// What it does, in one line of at most 72 characters.
    pub(crate) summary: String,
    /// What is published by it, in the order in which it was done.
    pub(crate) instructions: Vec<InstructionId>,
}

/// How publishing ended.
#[derive(Debug)]
pub(crate) enum Published {
    /// The published branch has it.
    Verified(CommitId),
    /// The remote said no, for a reason that trying again does not change.
    Rejected {
        /// What the remote said.
        reason: String,
    },
    /// Somebody else published meanwhile. What they published has been fetched; the publication is to be made anew.
    Moved,
}

impl Draft {
    /// What publishing the draft would do, or the draft up to and with one instruction.
    pub(crate) fn propose_publish(
        &self,
        up_to: Option<&InstructionId>,
    ) -> Result<Result<Publication, Declined>, DraftError> {
        let tip = self.tip()?;
        let Some(published) = self.published_tip()? else {
            return Ok(Err(self.branch_missing()));
        };
        let target = match up_to {
            None => tip,
            Some(id) => match self.landed.commit_of(id) {
                Some(commit) => Oid::from_str(commit.as_str())
                    .map_err(|source| self.local("read a commit", source))?,
                None => return Ok(Err(undo::unknown(id))),
            },
        };
        let nothing = || {
            let message = "There is nothing to publish: the published site has all of it already.";
            Ok(Err(Declined::new(ErrorCode::EmptyChange, message)))
        };
        if target == published || self.descends(published, target) {
            return nothing();
        }
        let tree = match self.merged(published, target)? {
            Merged::Clean(tree) => tree,
            Merged::Conflict(files) => {
                return Ok(Err(self.colliding(target, published, &files)?));
            }
        };
        let (present, after) = (self.tree_of(published)?, self.tree_object(tree)?);
        if present.id() == tree {
            return nothing();
        }
        let mut marks = ledger::marks(&self.repository, target, Some(published))
            .map_err(|source| self.local("read history", source))?;
        marks.reverse();
        let summary = match marks.as_slice() {
            [] => "Publish the draft".to_owned(),
            [one] => quoting("Publish", &self.details(one.commit)?.summary),
            several => format!("Publish {} changes", several.len()),
        };
        let touched = self.deltas(Some(&present), Some(&after))?;
        Ok(Ok(Publication {
            published,
            target,
            tree,
            whole: target == tip,
            moves_from_draft: self.moves(self.tree_of(tip)?.id(), tree)?,
            touched: touched
                .iter()
                .map(|delta| delta.path.to_string_lossy().into_owned())
                .collect(),
            summary,
            instructions: marks
                .into_iter()
                .map(|mark| mark.trailers.instruction_id)
                .collect(),
        }))
    }

    /// Moves the published branch of the remote, and proves it by reading it there. If nothing of the draft was left out, the
    /// draft goes on from there.
    pub(crate) fn publish(
        &mut self,
        publication: &Publication,
        message: &CommitMessage,
    ) -> Result<Published, DraftError> {
        if self.published_tip()? != Some(publication.published) {
            return Ok(Published::Moved);
        }
        let parents = [publication.published, publication.target];
        let commit = self.write_commit(None, publication.tree, &parents, message)?;
        self.repository
            .reference(PUBLISHING_REFERENCE, commit, true, "publish")
            .map_err(|source| self.local("note what is published", source))?;
        let published = self.push_published(publication, commit);
        let forgotten = self
            .repository
            .find_reference(PUBLISHING_REFERENCE)
            .and_then(|mut reference| reference.delete());
        if let Err(error) = forgotten {
            // The next one overwrites it.
            tracing::warn!(%error, "the name of what was being published stays");
        }
        published
    }

    fn push_published(
        &mut self,
        publication: &Publication,
        commit: Oid,
    ) -> Result<Published, DraftError> {
        let branch = self.published_branch.clone();
        let refusal = self.remote.push(
            &self.repository,
            PUBLISHING_REFERENCE,
            &branch,
            commit,
            Some(publication.published),
        )?;
        let found = self.remote.tip(&self.repository, &branch)?;
        if found == Some(publication.published) {
            let reason = self.refused(&branch, refusal)?;
            return Ok(Published::Rejected { reason });
        }
        if found == Some(commit) {
            self.repository
                .reference(
                    &Self::seen_reference(&branch),
                    commit,
                    true,
                    "seen on the remote",
                )
                .map_err(|source| self.local("note what the remote has", source))?;
            self.note_published()?;
            self.follow_published_tip()?;
        } else {
            self.fetch()?;
            let seen = self.published_tip()?;
            // Ours may have arrived, and somebody has built on it already.
            if !seen.is_some_and(|seen| seen == commit || self.descends(seen, commit)) {
                return Ok(Published::Moved);
            }
        }
        if publication.whole && self.tip()? == publication.target {
            self.set_tip(commit, "go on from what is published")?;
            self.follow_tip()?;
        }
        Ok(Published::Verified(commit_id(commit)))
    }
}
