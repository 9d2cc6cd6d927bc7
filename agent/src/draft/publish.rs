//! Bringing the draft to the published branch.

use contract::{CommitId, ErrorCode, InstructionId};
use git2::Oid;

use super::proposal::quoting;
use super::sync::Merged;
use super::{CommitMessage, Declined, Draft, DraftError, Move, Replanted, commit_id, ledger, undo};

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

/// What became of an instruction that was given up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum GivenUp {
    /// It is in the draft on the remote after all.
    Landed(CommitId),
    /// It is a publish, and it is published after all.
    Published(CommitId),
    /// Nothing is left of it.
    TakenBack,
    /// Nothing is left of it here; the remote could not be asked.
    Unknown,
}

impl Draft {
    /// Takes everything off the draft that has not been seen on the remote; but looks there once more, because a push
    /// whose answer was lost may have arrived: of the draft, or of the published branch.
    pub(crate) fn give_up(&mut self, id: &InstructionId) -> Result<GivenUp, DraftError> {
        let asked = self.fetch();
        // What the remote has by now is not taken off: the draft follows it.
        while let Replanted::Conflict { .. } = self.replant()? {}
        self.roll_back(self.pushed_tip()?)?;
        // Asked first: a draft that goes on from what is published has the publish in it as well.
        let publish = self
            .published
            .newest_first()
            .find(|mark| {
                mark.trailers.instruction_id == *id && mark.trailers.action == ledger::PUBLISH
            })
            .map(|mark| commit_id(mark.commit));
        if let Some(commit) = publish {
            self.follow_published()?;
            return Ok(GivenUp::Published(commit));
        }
        Ok(match (self.landed(id).cloned(), asked) {
            (Some(commit), _) => GivenUp::Landed(commit),
            (None, Ok(())) => GivenUp::TakenBack,
            (None, Err(_)) => GivenUp::Unknown,
        })
    }

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
        // Known before anything is looked at or built for it.
        self.remote.refuse_checked_out(&self.published_branch)?;
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

#[cfg(test)]
mod tests {
    use super::super::scene::{Scene, edit, message, read};
    use super::*;
    use crate::draft::Round;

    fn id(id: &str) -> InstructionId {
        id.parse().expect("an id")
    }

    fn proposed(draft: &Draft, up_to: Option<&str>) -> Result<Publication, Declined> {
        let up_to = up_to.map(id);
        draft.propose_publish(up_to.as_ref()).expect("judged")
    }

    fn publish(draft: &mut Draft, instruction: &str, publication: &Publication) -> Published {
        let message = message(instruction, "publish", &publication.summary);
        draft.publish(publication, &message).expect("answered")
    }

    #[test]
    fn the_draft_is_merged_into_the_published_branch_and_goes_on_from_there() {
        let scene = Scene::with(&[("a.txt", "a")]);
        let mut draft = scene.draft();
        assert_eq!(
            proposed(&draft, None).expect_err("nothing").code,
            ErrorCode::EmptyChange
        );
        edit(&mut draft, "i-1", &[("a.txt", "b")]);
        edit(&mut draft, "i-2", &[("b.txt", "b")]);
        let theirs = scene.write("main", "Theirs", &[("c.txt", "c")]);
        draft.fetch().expect("fetched");
        let target = draft.tip().expect("a tip");
        let publication = proposed(&draft, None).expect("possible");
        assert_eq!(publication.instructions, [id("i-1"), id("i-2")]);
        assert_eq!(publication.touched, ["a.txt", "b.txt"]);
        let moved: Vec<_> = publication
            .moves_from_draft
            .iter()
            .map(|moved| &moved.path)
            .collect();
        assert_eq!(moved, ["c.txt"]);
        assert!(publication.whole);
        insta::assert_snapshot!(publication.summary, @"Publish 2 changes");
        let Published::Verified(commit) = publish(&mut draft, "p-1", &publication) else {
            panic!("it was published");
        };
        let merge = scene.remote.find_commit(scene.tip("main")).expect("there");
        assert_eq!(merge.id().to_string(), commit.as_str());
        assert_eq!(merge.parent_ids().collect::<Vec<_>>(), [theirs, target]);
        insta::assert_snapshot!(merge.message().expect("text"), @r"
        Publish 2 changes

        Edit-Instruction: p-1
        Edit-Session: amelia_1
        Edit-Action: publish
        ");
        assert_eq!(draft.tip().expect("a tip"), merge.id());
        assert_eq!(draft.published_landed(&id("p-1")), Some(&commit));
        assert!(draft.published_landed(&id("i-2")).is_some());
        assert!(
            draft
                .repository
                .find_reference(PUBLISHING_REFERENCE)
                .is_err()
        );
        assert_eq!(draft.unpushed().expect("counted"), 0);
        assert_eq!(
            proposed(&draft, None).expect_err("nothing").code,
            ErrorCode::EmptyChange
        );
        // The draft goes on, and what comes next is published as well.
        edit(&mut draft, "i-3", &[("a.txt", "c")]);
        assert!(matches!(
            draft.push_once().expect("pushed"),
            Round::Verified
        ));
        let publication = proposed(&draft, None).expect("possible");
        insta::assert_snapshot!(publication.summary, @"Publish “Edit a.txt”");
        assert!(matches!(
            publish(&mut draft, "p-2", &publication),
            Published::Verified(_)
        ));
        assert_eq!(scene.read("main", "a.txt").as_deref(), Some("c"));
    }

    #[test]
    fn a_server_is_published_to_as_well() {
        let scene = Scene::with(&[("a.txt", "a")]);
        let mut draft = scene.draft_from_server();
        edit(&mut draft, "i-1", &[("a.txt", "b")]);
        let publication = proposed(&draft, None).expect("possible");
        let published = publish(&mut draft, "p-1", &publication);
        assert!(matches!(published, Published::Verified(_)), "{published:?}");
        assert_eq!(scene.read("main", "a.txt").as_deref(), Some("b"));
        let theirs = scene.write("main", "Theirs", &[("c.txt", "c")]);
        edit(&mut draft, "i-2", &[("a.txt", "c")]);
        let publication = proposed(&draft, None).expect("possible");
        assert!(matches!(
            publish(&mut draft, "p-2", &publication),
            Published::Moved
        ));
        assert_eq!(scene.tip("main"), theirs);
    }

    #[test]
    fn what_the_remote_refuses_changes_nothing() {
        let scene = Scene::with(&[("a.txt", "a")]);
        let mut draft = scene.draft_from_server();
        let tip = edit(&mut draft, "i-1", &[("a.txt", "b")]);
        let publication = proposed(&draft, None).expect("possible");
        let before = scene.tip("main");
        let lock = scene.folder.path().join("remote/refs/heads/main.lock");
        std::fs::write(&lock, "").expect("written");
        match publish(&mut draft, "p-1", &publication) {
            Published::Rejected { reason } => assert!(reason.contains("lock"), "{reason}"),
            other => panic!("{other:?}"),
        }
        std::fs::remove_file(lock).expect("removed");
        assert_eq!(
            (scene.tip("main"), draft.tip().expect("a tip")),
            (before, tip)
        );
        assert!(draft.published_landed(&id("p-1")).is_none());
        assert!(draft.landed(&id("p-1")).is_none());
    }

    #[test]
    fn a_publish_whose_answer_was_lost_is_known_after_a_restart() {
        let scene = Scene::with(&[("a.txt", "a")]);
        let mut draft = scene.draft();
        let tip = edit(&mut draft, "i-1", &[("a.txt", "b")]);
        let publication = proposed(&draft, None).expect("possible");
        publish(&mut draft, "p-1", &publication);
        // As a crash right after the push leaves it.
        draft.set_tip(tip, "crash").expect("set");
        drop(draft);
        let draft = scene.draft();
        assert!(draft.published_landed(&id("p-1")).is_some());
        assert_eq!(draft.tip().expect("a tip"), scene.tip("main"));
        let entries = draft.history().expect("read").entries;
        assert!(entries.iter().all(|entry| entry.published));
    }

    #[test]
    fn a_publish_that_is_given_up_may_have_arrived_all_the_same() {
        let scene = Scene::with(&[("a.txt", "a")]);
        let mut draft = scene.draft();
        let tip = edit(&mut draft, "i-1", &[("a.txt", "b")]);
        draft.push_once().expect("pushed");
        assert_eq!(
            draft.give_up(&id("p-1")).expect("asked"),
            GivenUp::TakenBack
        );
        let commit = {
            // Another handle of the clone pushes, and this one never hears of it.
            let mut other = scene.draft();
            let publication = proposed(&other, None).expect("possible");
            let Published::Verified(commit) = publish(&mut other, "p-1", &publication) else {
                panic!("it was published");
            };
            other
                .set_tip(tip, "as if the answer was lost")
                .expect("set");
            commit
        };
        assert_eq!(draft.published_landed(&id("p-1")), None);
        assert_eq!(
            draft.give_up(&id("p-1")).expect("asked"),
            GivenUp::Published(commit)
        );
        assert_eq!(draft.tip().expect("a tip"), scene.tip("main"));
        // An edit that is in it was pushed before, and is no publish.
        assert!(matches!(
            draft.give_up(&id("i-1")).expect("asked"),
            GivenUp::Landed(_)
        ));
        std::fs::rename(
            scene.folder.path().join("remote"),
            scene.folder.path().join("away"),
        )
        .expect("moved");
        assert_eq!(draft.give_up(&id("p-2")).expect("judged"), GivenUp::Unknown);
    }

    #[test]
    fn a_fresh_clone_of_a_draft_that_was_published_begins_at_what_is_published() {
        let scene = Scene::with(&[("a.txt", "a")]);
        let mut draft = scene.draft();
        edit(&mut draft, "i-1", &[("a.txt", "b")]);
        assert!(matches!(
            draft.push_once().expect("pushed"),
            Round::Verified
        ));
        let theirs = scene.write("main", "Theirs", &[("c.txt", "c")]);
        draft.fetch().expect("fetched");
        assert_ne!(draft.tip().expect("a tip"), theirs);
        let publication = proposed(&draft, None).expect("possible");
        publish(&mut draft, "p-1", &publication);
        let mut fresh = scene.draft_of("edit/local", "fresh.git");
        assert_eq!(fresh.tip().expect("a tip"), scene.tip("main"));
        assert_eq!(fresh.history().expect("read").behind, 0);
        edit(&mut fresh, "i-2", &[("a.txt", "c")]);
        assert!(matches!(
            fresh.push_once().expect("pushed"),
            Round::Verified
        ));
    }

    #[test]
    fn publishing_up_to_an_instruction_leaves_the_rest_in_the_draft() {
        let scene = Scene::with(&[("a.txt", "a")]);
        let mut draft = scene.draft();
        edit(&mut draft, "i-1", &[("a.txt", "b")]);
        let tip = edit(&mut draft, "i-2", &[("b.txt", "b")]);
        assert_eq!(
            proposed(&draft, Some("i-9")).expect_err("unknown").code,
            ErrorCode::UnknownInstruction
        );
        let publication = proposed(&draft, Some("i-1")).expect("possible");
        assert!(!publication.whole);
        assert_eq!(publication.moves_from_draft.len(), 1);
        assert!(matches!(
            publish(&mut draft, "p-1", &publication),
            Published::Verified(_)
        ));
        assert_eq!(scene.read("main", "a.txt").as_deref(), Some("b"));
        assert_eq!(scene.read("main", "b.txt"), None);
        assert_eq!(draft.tip().expect("a tip"), tip);
        assert_eq!(
            proposed(&draft, Some("i-1")).expect_err("nothing").code,
            ErrorCode::EmptyChange
        );
        let publication = proposed(&draft, None).expect("possible");
        assert_eq!(publication.instructions, [id("i-2")]);
        assert!(matches!(
            publish(&mut draft, "p-2", &publication),
            Published::Verified(_)
        ));
        assert!(matches!(
            draft.push_once().expect("pushed"),
            Round::Verified
        ));
        assert_eq!(scene.tip("edit/local"), scene.tip("main"));
    }

    #[test]
    fn what_others_published_meanwhile_is_never_overwritten() {
        let scene = Scene::with(&[("a.txt", "a")]);
        let mut draft = scene.draft();
        edit(&mut draft, "i-1", &[("a.txt", "b")]);
        let publication = proposed(&draft, None).expect("possible");
        let theirs = scene.write("main", "Theirs", &[("c.txt", "c")]);
        assert!(matches!(
            publish(&mut draft, "p-1", &publication),
            Published::Moved
        ));
        assert_eq!(scene.tip("main"), theirs);
        // What was fetched is seen: the old publication is not even tried.
        assert!(matches!(
            publish(&mut draft, "p-1", &publication),
            Published::Moved
        ));
        let publication = proposed(&draft, None).expect("possible");
        assert!(matches!(
            publish(&mut draft, "p-1", &publication),
            Published::Verified(_)
        ));
        assert_eq!(read(&draft, "c.txt").as_deref(), Some("c"));
    }

    #[test]
    fn a_branch_that_vanished_is_not_made_anew() {
        let scene = Scene::with(&[("a.txt", "a")]);
        let mut draft = scene.draft();
        edit(&mut draft, "i-1", &[("a.txt", "b")]);
        let publication = proposed(&draft, None).expect("possible");
        scene
            .remote
            .find_reference("refs/heads/main")
            .and_then(|mut branch| branch.delete())
            .expect("removed");
        assert!(matches!(
            publish(&mut draft, "p-1", &publication),
            Published::Moved
        ));
        assert!(scene.remote.find_reference("refs/heads/main").is_err());
        assert_eq!(
            proposed(&draft, None).expect_err("gone").code,
            ErrorCode::BranchMissing
        );
    }

    #[test]
    fn another_draft_sees_what_was_published_and_whose_it_is() {
        let scene = Scene::with(&[("a.txt", "a")]);
        let (mut one, mut other) = (scene.draft(), scene.draft_of("edit/other", "other.git"));
        edit(&mut one, "i-1", &[("a.txt", "b")]);
        let publication = proposed(&one, None).expect("possible");
        assert!(matches!(
            publish(&mut one, "p-1", &publication),
            Published::Verified(_)
        ));
        edit(&mut other, "o-1", &[("b.txt", "b")]);
        assert!(other.published_landed(&id("p-1")).is_none());
        other.fetch().expect("fetched");
        assert!(other.published_landed(&id("p-1")).is_some());
        assert!(other.landed(&id("p-1")).is_none());
        assert_eq!(other.history().expect("read").behind, 1);
    }

    #[test]
    fn an_edit_that_is_discarded_leaves_nothing_to_publish() {
        let scene = Scene::with(&[("a.txt", "a")]);
        let mut draft = scene.draft();
        edit(&mut draft, "i-1", &[("a.txt", "b")]);
        edit(&mut draft, "i-2", &[("a.txt", "a")]);
        assert_eq!(
            proposed(&draft, None).expect_err("nothing").code,
            ErrorCode::EmptyChange
        );
    }

    #[test]
    fn a_branch_that_a_developer_has_checked_out_is_left_alone() {
        let scene = Scene::with(&[("a.txt", "a")]);
        let mut draft = scene.draft();
        edit(&mut draft, "i-1", &[("a.txt", "b")]);
        let publication = proposed(&draft, None).expect("possible");
        let place = scene.folder.path().join("looking");
        let mut options = git2::WorktreeAddOptions::new();
        let branch = scene
            .remote
            .find_reference("refs/heads/main")
            .expect("there");
        options.reference(Some(&branch));
        scene
            .remote
            .worktree("looking", &place, Some(&options))
            .expect("checked out");
        let error = draft
            .publish(&publication, &message("p-1", "publish", "Publish"))
            .expect_err("somebody looks at it");
        assert!(matches!(error, DraftError::CheckedOut { .. }), "{error:?}");
    }
}
