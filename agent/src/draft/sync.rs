//! Bringing the published branch into the draft, and going back to it.

use std::collections::BTreeSet;
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
        let conflicts: Vec<IndexConflict> = if index.has_conflicts() {
            let conflicts = index.conflicts().and_then(Iterator::collect);
            conflicts.map_err(fail)?
        } else {
            Vec::new()
        };
        let mut files = BTreeSet::new();
        for conflict in conflicts {
            let Some((path, resolved)) = self.resolve(&conflict)? else {
                continue;
            };
            if let Some(held) = resolved {
                index.conflict_remove(&path).map_err(fail)?;
                index.add(&index_entry(&path, held)).map_err(fail)?;
            } else {
                files.insert(path);
            }
        }
        if !files.is_empty() {
            return Ok(Merged::Conflict(files.into_iter().collect()));
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

#[cfg(test)]
mod tests {
    use super::super::scene::{Scene, accept, edit, read};
    use super::*;
    use crate::draft::Round;

    fn synced(draft: &Draft) -> Result<Proposal, Declined> {
        draft.propose_sync().expect("judged")
    }

    #[test]
    fn what_is_published_is_brought_in_by_a_commit_of_its_own() {
        let scene = Scene::with(&[("a.txt", "1\n2\n3\n"), ("old/name.txt", "moved as it is\n")]);
        let mut draft = scene.draft();
        assert_eq!(
            synced(&draft).expect_err("nothing").code,
            ErrorCode::EmptyChange
        );
        // Also where the draft has nothing of its own.
        let published = scene.write("main", "Theirs", &[("b.txt", "b")]);
        draft.fetch().expect("fetched");
        let proposal = synced(&draft).expect("clean");
        assert_eq!(proposal.merges, Some(published));
        accept(&mut draft, "s-1", "sync", Ok(proposal));
        assert_eq!(draft.behind_published().expect("counted"), 0);
        edit(
            &mut draft,
            "i-1",
            &[
                ("a.txt", "1\n2\nthree\n"),
                ("old/name.txt", "moved, and edited\n"),
            ],
        );
        edit(
            &mut draft,
            "i-2",
            &[("old/name.txt", "moved as it is\nand edited\n")],
        );
        scene.write(
            "main",
            "Move",
            &[
                ("a.txt", "one\n2\n3\n"),
                ("old/name.txt", "-"),
                ("new/name.txt", "moved as it is\n"),
            ],
        );
        draft.fetch().expect("fetched");
        let proposed = synced(&draft);
        accept(&mut draft, "s-2", "sync", proposed);
        assert_eq!(read(&draft, "a.txt").as_deref(), Some("one\n2\nthree\n"));
        assert_eq!(
            read(&draft, "new/name.txt").as_deref(),
            Some("moved as it is\nand edited\n")
        );
        assert_eq!(read(&draft, "old/name.txt"), None);
        assert!(matches!(
            draft.push_once().expect("pushed"),
            Round::Verified
        ));
        assert!(draft.landed(&"s-2".parse().expect("an id")).is_some());
    }

    #[test]
    fn a_collision_says_who_changed_what_and_when() {
        let scene = Scene::with(&[("a.txt", "a\n"), ("b.txt", "b\n")]);
        let mut draft = scene.draft();
        edit(
            &mut draft,
            "i-1",
            &[("a.txt", "mine\n"), ("b.txt", "mine\n")],
        );
        edit(&mut draft, "i-2", &[("c.txt", "c\n")]);
        scene.write(
            "main",
            "Correct the text",
            &[("a.txt", "theirs\n"), ("b.txt", "-")],
        );
        scene.write("main", "Something else", &[("d.txt", "d\n")]);
        draft.fetch().expect("fetched");
        let declined = synced(&draft).expect_err("they collide");
        assert_eq!(declined.code, ErrorCode::Conflict);
        insta::assert_snapshot!(declined.message, @"a.txt: Amelia changed it in this draft on 2026-09-21 at 14:13 UTC, and Dora changed it on the published site on 2026-09-21 at 14:13 UTC, and the two changes do not go together. b.txt: Amelia changed it in this draft on 2026-09-21 at 14:13 UTC, and Dora changed it on the published site on 2026-09-21 at 14:13 UTC, and the two changes do not go together.");
        let conflict = &declined.conflicts[1];
        let (ours, theirs) = (
            conflict.ours.as_ref().expect("us"),
            conflict.theirs.as_ref().expect("them"),
        );
        assert_eq!(conflict.path, "b.txt");
        assert_eq!(ours.instruction_id, Some("i-1".parse().expect("an id")));
        assert_eq!(
            (theirs.summary.as_str(), &theirs.instruction_id),
            ("Correct the text", &None)
        );
        let publishing = draft
            .propose_publish(None)
            .expect("judged")
            .expect_err("they collide");
        assert_eq!(publishing, declined);
    }

    #[test]
    fn the_files_of_a_site_in_a_folder_are_named_from_there() {
        let scene = Scene::with(&[("site/a.txt", "a\n"), ("b.txt", "b\n")]);
        let mut draft = scene.draft_below("site");
        edit(&mut draft, "i-1", &[("a.txt", "mine\n")]);
        let history = draft.history().expect("read");
        assert_eq!(history.entries[0].files, ["a.txt"]);
        scene.write("main", "Theirs", &[("site/a.txt", "theirs\n")]);
        draft.fetch().expect("fetched");
        let declined = synced(&draft).expect_err("they collide");
        assert_eq!(declined.conflicts[0].path, "a.txt");
        let proposal = draft.propose_discard().expect("judged").expect("possible");
        assert_eq!(proposal.moves[0].path, "site/a.txt");
    }

    #[test]
    fn neighbouring_keys_of_a_front_matter_do_not_collide() {
        let page =
            |title: &str, date: &str| format!("---\ntitle: {title}\ndate: {date}\n---\nText\n");
        let scene = Scene::with(&[("src/a.md", &page("A", "2026-01-01"))]);
        let mut draft = scene.draft();
        edit(&mut draft, "i-1", &[("src/a.md", &page("B", "2026-01-01"))]);
        scene.write("main", "Theirs", &[("src/a.md", &page("A", "2026-02-02"))]);
        draft.fetch().expect("fetched");
        let proposed = synced(&draft);
        accept(&mut draft, "s-1", "sync", proposed);
        assert_eq!(read(&draft, "src/a.md"), Some(page("B", "2026-02-02")));
    }

    #[test]
    fn a_sync_is_made_anew_on_what_others_pushed() {
        let scene = Scene::with(&[("a.txt", "a")]);
        let mut draft = scene.draft();
        edit(&mut draft, "i-1", &[("mine.txt", "mine")]);
        draft.push_once().expect("pushed");
        let published = scene.write("main", "Theirs", &[("b.txt", "b")]);
        draft.fetch().expect("fetched");
        let proposed = synced(&draft);
        accept(&mut draft, "s-1", "sync", proposed);
        edit(&mut draft, "i-2", &[("later.txt", "later")]);
        let others = scene.write("edit/local", "By hand", &[("hand.txt", "hand")]);
        assert!(matches!(draft.push_once().expect("pushed"), Round::Moved));
        assert_eq!(draft.unpushed().expect("counted"), 2);
        let names = ["mine.txt", "b.txt", "later.txt", "hand.txt"];
        assert!(names.iter().all(|name| read(&draft, name).is_some()));
        assert!(matches!(
            draft.push_once().expect("pushed"),
            Round::Verified
        ));
        let merge = scene.remote.revparse_single("edit/local~1").expect("there");
        let merge = merge.peel_to_commit().expect("a commit");
        assert_eq!(merge.parent_ids().collect::<Vec<_>>(), [others, published]);
        assert!(draft.landed(&"s-1".parse().expect("an id")).is_some());
    }

    #[test]
    fn a_sync_that_does_not_fit_on_what_others_pushed_is_gone_from_the_draft() {
        let scene = Scene::with(&[("a.txt", "a\n")]);
        let mut draft = scene.draft();
        edit(&mut draft, "i-1", &[("mine.txt", "mine")]);
        draft.push_once().expect("pushed");
        scene.write("main", "Theirs", &[("a.txt", "theirs\n")]);
        draft.fetch().expect("fetched");
        let proposed = synced(&draft);
        accept(&mut draft, "s-1", "sync", proposed);
        let others = scene.write("edit/local", "By hand", &[("a.txt", "hand\n")]);
        match draft.push_once().expect("pushed") {
            Round::Conflict { files } => assert_eq!(files, ["a.txt"]),
            other => panic!("{other:?}"),
        }
        assert_eq!(draft.tip().expect("a tip"), others);
        assert!(draft.landed(&"s-1".parse().expect("an id")).is_none());
    }

    #[test]
    fn discarding_goes_back_to_what_is_published_and_can_be_undone() {
        let scene = Scene::with(&[("a.txt", "a")]);
        let mut draft = scene.draft();
        let nothing = draft
            .propose_discard()
            .expect("judged")
            .expect_err("nothing");
        assert_eq!(nothing.code, ErrorCode::EmptyChange);
        edit(&mut draft, "i-1", &[("a.txt", "b"), ("c/d.txt", "d")]);
        scene.write("main", "Theirs", &[("e.txt", "e")]);
        draft.fetch().expect("fetched");
        let proposed = draft.propose_discard().expect("judged");
        let moves = &proposed.as_ref().expect("possible").moves;
        let paths: Vec<_> = moves.iter().map(|moved| moved.path.as_str()).collect();
        assert_eq!(paths, ["a.txt", "c/d.txt", "e.txt"]);
        let discard = accept(&mut draft, "d-1", "discard", proposed);
        let commit = draft.commit_object(discard).expect("there");
        assert_eq!(commit.parent_count(), 1);
        drop(commit);
        assert_eq!(
            ["a.txt", "c/d.txt", "e.txt"].map(|path| read(&draft, path)),
            [Some("a".to_owned()), None, Some("e".to_owned())]
        );
        let proposed = draft
            .propose_undo(&contract::instruction::UndoTarget::Last)
            .expect("judged");
        accept(&mut draft, "u-1", "undo", proposed);
        assert_eq!(
            ["a.txt", "c/d.txt", "e.txt"].map(|path| read(&draft, path)),
            [Some("b".to_owned()), Some("d".to_owned()), None]
        );
    }

    #[test]
    fn without_a_published_branch_the_draft_goes_on_and_says_so() {
        let scene = Scene::with(&[("a.txt", "a")]);
        let mut draft = scene.draft();
        edit(&mut draft, "i-1", &[("a.txt", "b")]);
        let main = scene.tip("main");
        scene
            .remote
            .find_reference("refs/heads/main")
            .and_then(|mut branch| branch.delete())
            .expect("removed");
        // Not even a branch that could not stand beside it matters.
        scene
            .remote
            .reference("refs/heads/main/old", main, false, "moved")
            .expect("made");
        draft.fetch().expect("fetched");
        assert_eq!(draft.unpushed().expect("counted"), 1);
        let declined = [
            synced(&draft).expect_err("gone"),
            draft.propose_discard().expect("judged").expect_err("gone"),
            draft
                .propose_publish(None)
                .expect("judged")
                .expect_err("gone"),
        ];
        for declined in declined {
            assert_eq!(declined.code, ErrorCode::BranchMissing);
            insta::allow_duplicates! {
                insta::assert_snapshot!(declined.message, @"The published branch main is not there any more.");
            }
        }
        assert_eq!(draft.history().expect("read").behind, 0);
        assert!(matches!(
            draft.push_once().expect("pushed"),
            Round::Verified
        ));
        draft
            .roll_back(draft.pushed_tip().expect("a tip"))
            .expect("rolled back");
        assert_eq!(read(&draft, "a.txt").as_deref(), Some("b"));
        // Nor does a start in between take what was published for what is.
        drop(draft);
        let draft = scene.draft();
        let entries = draft.history().expect("read").entries;
        assert!(!entries[0].published);
    }
}
