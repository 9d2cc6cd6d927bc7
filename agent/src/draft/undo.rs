//! Taking one instruction back, and nothing that came after it.
//!
//! Each file that the instruction's commit changed is merged by itself (see [`revert`]). Where that does not work, the later
//! change that stands in the way is found by trying: it is the one from which on it does not work.

use std::path::{Path, PathBuf};

use contract::instruction::UndoTarget;
use contract::{Conflict, ErrorCode, InstructionId, Party};
use git2::{Oid, Tree};

use super::ledger::{self, Mark, PUBLISH, SYNC, UNDO};
use super::proposal::{Delta, Held, quoting};
use super::{Declined, Draft, DraftError, Proposal};
use crate::change_set::Version;
use crate::change_set::revert::{self, Overlap};

/// Later commits that are tried to find the one that stands in the way: each try can take a merge.
const LATER_COMMITS_MAX: usize = 500;

/// What a file becomes.
#[derive(Debug)]
enum Becomes {
    /// What the repository has already; nothing for no file.
    Known(Option<Held>),
    /// Something that is to be written.
    New(Version),
}

impl Draft {
    /// The draft without one instruction.
    pub(crate) fn propose_undo(
        &self,
        target: &UndoTarget,
    ) -> Result<Result<Proposal, Declined>, DraftError> {
        match self.undo_target(target)? {
            Ok(mark) => self.without(mark),
            Err(declined) => Ok(Err(declined)),
        }
    }

    /// The commit that is to be taken back.
    fn undo_target(&self, target: &UndoTarget) -> Result<Result<&Mark, Declined>, DraftError> {
        let undone = self.landed.undone();
        let mark = match target {
            UndoTarget::Last => {
                // An undo of what is published would change what visitors see at the next publish: it takes its name. So does
                // that of a sync: the agent brings in by itself what others published, and whoever says “the last
                // change” means one of their own.
                let last = self.landed.newest_first().find(|mark| {
                    ![UNDO, PUBLISH, SYNC].contains(&mark.trailers.action)
                        && !undone.contains_key(&mark.trailers.instruction_id)
                        && !self.published.holds(mark)
                });
                match last {
                    Some(mark) => mark,
                    None => {
                        return Ok(Err(Declined::new(
                            ErrorCode::NothingToUndo,
                            "There is nothing to undo: no change stands that is not published yet.",
                        )));
                    }
                }
            }
            UndoTarget::Instruction(id) => {
                let mut marks = self.landed.newest_first();
                match marks.find(|mark| mark.trailers.instruction_id == *id) {
                    Some(mark) => mark,
                    None => return Ok(Err(unknown(id))),
                }
            }
        };
        if mark.trailers.action == PUBLISH {
            return Ok(Err(Declined::new(
                ErrorCode::NothingToUndo,
                format!(
                    "{} cannot be undone: it is published. Undo the change itself, and publish again.",
                    self.named(mark)?
                ),
            )));
        }
        if let Some(undo) = undone.get(&mark.trailers.instruction_id) {
            let mut marks = self.landed.newest_first();
            let by = match marks.find(|mark| mark.trailers.instruction_id == **undo) {
                Some(mark) => format!(" by {}", self.details(mark.commit)?.author),
                None => String::new(),
            };
            return Ok(Err(Declined::new(
                ErrorCode::AlreadyUndone,
                format!("{} has been undone already{by}.", self.named(mark)?),
            )));
        }
        Ok(Ok(mark))
    }

    /// An instruction as a person knows it, and its id.
    fn named(&self, mark: &Mark) -> Result<String, DraftError> {
        let summary = self.details(mark.commit)?.summary;
        Ok(format!("“{summary}” ({})", mark.trailers.instruction_id))
    }

    fn without(&self, mark: &Mark) -> Result<Result<Proposal, Declined>, DraftError> {
        let on = self.tip()?;
        let now = self.tree_of(on)?;
        let (before, after) = self.parent_and_own_tree(mark.commit)?;
        let changed = self.deltas(before.as_ref(), Some(&after))?;
        let (mut edits, mut colliding) = (Vec::new(), Vec::new());
        for delta in &changed {
            match self.reverted(delta, self.held(&now, &delta.path)?)? {
                Ok(Becomes::Known(held)) => edits.push((delta.path.clone(), held)),
                Ok(Becomes::New(version)) => {
                    let held = self.write_version(&version)?;
                    edits.push((delta.path.clone(), Some(held)));
                }
                Err(Overlap) => colliding.push(delta.clone()),
            }
        }
        if colliding.is_empty() {
            edits.retain(|(path, held)| self.held(&now, path).ok() != Some(*held));
            let tree = self.edited_tree(&now, &edits)?;
            colliding = self.beyond(&now, tree, &edits)?;
            if colliding.is_empty() {
                if tree == now.id() {
                    return Ok(Err(Declined::new(
                        ErrorCode::AlreadyUndone,
                        format!(
                            "Nothing is left of {} that could be undone.",
                            self.named(mark)?
                        ),
                    )));
                }
                return Ok(Ok(Proposal {
                    moves: self.moves(now.id(), tree)?,
                    on,
                    tree,
                    merges: None,
                    summary: self.undo_summary(mark)?,
                    undoes: Some(mark.trailers.instruction_id.clone()),
                }));
            }
        }
        self.overlapping(mark, &colliding).map(Err)
    }

    /// What a file becomes that is `now`, when a change of it is taken back.
    fn reverted(
        &self,
        change: &Delta,
        now: Option<Held>,
    ) -> Result<Result<Becomes, Overlap>, DraftError> {
        let Delta {
            path,
            before,
            after,
        } = change;
        if now == *after {
            return Ok(Ok(Becomes::Known(*before)));
        }
        if now == *before {
            return Ok(Ok(Becomes::Known(now)));
        }
        let files = [before, after, &now];
        if !files.iter().all(|held| held.is_none_or(Held::is_file)) {
            return Ok(Err(Overlap));
        }
        let version = |held: &Option<Held>| held.map(|held| self.version(held)).transpose();
        let result = revert::reverted(
            &self.site_path(path),
            version(before)?.as_ref(),
            version(after)?.as_ref(),
            version(&now)?.as_ref(),
        );
        Ok(result.map(|version| version.map_or(Becomes::Known(None), Becomes::New)))
    }

    /// What a tree has otherwise although it was not to be edited: a folder stands where a file comes back, or a file where
    /// its folder was.
    fn beyond(
        &self,
        now: &Tree<'_>,
        tree: Oid,
        edits: &[(PathBuf, Option<Held>)],
    ) -> Result<Vec<Delta>, DraftError> {
        let mut deltas = self.deltas(Some(now), Some(&self.tree_object(tree)?))?;
        deltas.retain(|delta| !edits.contains(&(delta.path.clone(), delta.after)));
        Ok(deltas)
    }

    fn undo_summary(&self, mark: &Mark) -> Result<String, DraftError> {
        let summary = self.details(mark.commit)?.summary;
        let inner = |verb: &str| {
            let rest = summary.strip_prefix(verb)?.strip_prefix(" “")?;
            (mark.trailers.action == UNDO).then(|| rest.strip_suffix('”').unwrap_or(rest))
        };
        Ok(if let Some(what) = inner("Undo") {
            quoting("Redo", what)
        } else if let Some(what) = inner("Redo") {
            quoting("Undo", what)
        } else {
            quoting("Undo", &summary)
        })
    }

    fn overlapping(&self, mark: &Mark, colliding: &[Delta]) -> Result<Declined, DraftError> {
        let mut conflicts = Vec::new();
        let mut in_the_way: Vec<(Oid, Party)> = Vec::new();
        for change in colliding {
            let later = self.first_in_the_way(mark.commit, change)?;
            let ours = later.map(|commit| self.party(commit)).transpose()?;
            if let (Some(commit), Some(party)) = (later, &ours)
                && !in_the_way.iter().any(|(known, _)| *known == commit)
            {
                in_the_way.push((commit, party.clone()));
            }
            conflicts.push(Conflict {
                path: self.site_path(&change.path),
                ours,
                theirs: None,
            });
        }
        // The newest has to go first, or it would be in the way of the others.
        in_the_way.sort_by_key(|(commit, party)| {
            let place = self
                .landed
                .newest_first()
                .position(|mark| mark.commit == *commit);
            (place, std::cmp::Reverse(party.at))
        });
        let parties: Vec<&Party> = in_the_way.iter().map(|(_, party)| party).collect();
        Ok(Declined {
            code: ErrorCode::UndoOverlaps,
            message: overlap_message(&self.named(mark)?, &parties),
            conflicts,
        })
    }

    /// The later commit from which on a change of a file cannot be taken back any more. One of an instruction, if there is,
    /// because that can be undone first.
    fn first_in_the_way(&self, commit: Oid, change: &Delta) -> Result<Option<Oid>, DraftError> {
        let read = |source| self.local("read history", source);
        let (mut any, mut changed) = (None, None);
        let walk = ledger::commits(&self.repository, self.tip()?, Some(commit)).map_err(read)?;
        for later in walk.take(LATER_COMMITS_MAX) {
            let later = later.map_err(read)?;
            let (before, after) = self.parent_and_own_tree(later)?;
            let before = match before {
                Some(tree) => self.held(&tree, &change.path)?,
                None => None,
            };
            let after = self.held(&after, &change.path)?;
            if before == after {
                continue;
            }
            changed = changed.or(Some(later));
            if self.reverted(change, after)?.is_ok() || self.reverted(change, before)?.is_err() {
                continue;
            }
            let object = self.commit_object(later)?;
            if super::commit_message::instruction_of(object.message_bytes()).is_some() {
                return Ok(Some(later));
            }
            any = any.or(Some(later));
        }
        Ok(any.or(changed).or(self.last_below(commit, &change.path)?))
    }

    /// The newest later commit that changed something below a path that was a file.
    fn last_below(&self, commit: Oid, path: &Path) -> Result<Option<Oid>, DraftError> {
        let read = |source| self.local("read history", source);
        let walk = ledger::commits(&self.repository, self.tip()?, Some(commit)).map_err(read)?;
        for later in walk.take(LATER_COMMITS_MAX) {
            let later = later.map_err(read)?;
            let (before, after) = self.parent_and_own_tree(later)?;
            let touches =
                |delta: &Delta| delta.path.starts_with(path) || path.starts_with(&delta.path);
            if self
                .deltas(before.as_ref(), Some(&after))?
                .iter()
                .any(touches)
            {
                return Ok(Some(later));
            }
        }
        Ok(None)
    }

    /// What a commit's first parent holds, and what itself.
    fn parent_and_own_tree(&self, commit: Oid) -> Result<(Option<Tree<'_>>, Tree<'_>), DraftError> {
        let parent = self.commit_object(commit)?.parent_id(0).ok();
        let before = parent.map(|parent| self.tree_of(parent)).transpose()?;
        Ok((before, self.tree_of(commit)?))
    }
}

/// Why an id cannot be found.
pub(super) fn unknown(id: &InstructionId) -> Declined {
    Declined::new(
        ErrorCode::UnknownInstruction,
        format!("There is no change {id} in this draft."),
    )
}

fn overlap_message(what: &str, in_the_way: &[&Party]) -> String {
    let changes: Vec<String> = in_the_way
        .iter()
        .map(|party| {
            let id = party.instruction_id.as_ref();
            let id = id.map_or_else(String::new, |id| format!(" ({id})"));
            format!("{}'s later change “{}”{id}", party.name, party.summary)
        })
        .collect();
    let changes = match changes.as_slice() {
        [] => "something that came later touches the same place".to_owned(),
        [one] => format!("{one} touches the same place"),
        [others @ .., last] => format!("{} and {last} touch the same places", others.join(", ")),
    };
    let ids: Option<Vec<&str>> = in_the_way
        .iter()
        .map(|party| Some(party.instruction_id.as_ref()?.as_str()))
        .collect();
    let advice = match ids.as_deref() {
        Some([one]) => format!(" Undo {one} first, then this one."),
        Some([first, rest @ ..]) => {
            format!(
                " Undo {first} first, then {}, then this one.",
                rest.join(", then ")
            )
        }
        _ => String::new(),
    };
    format!("{what} cannot be undone by itself: {changes}.{advice}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::scene::{Scene, accept, edit, message, read};
    use super::*;

    const PAGE: &str = "src/pages/index.astro";

    fn propose(draft: &Draft, target: &str) -> Result<Proposal, Declined> {
        let target = target.parse().expect("a target");
        draft.propose_undo(&target).expect("judged")
    }

    fn undo(draft: &mut Draft, id: &str, target: &str) {
        let proposed = propose(draft, target);
        accept(draft, id, UNDO, proposed);
    }

    fn declined(draft: &Draft, target: &str) -> String {
        let declined = propose(draft, target).expect_err("declined");
        format!("{}: {}", declined.code.as_str(), declined.message)
    }

    #[test]
    fn the_first_of_three_edits_is_undone_and_the_others_stay() {
        let scene = Scene::with(&[(PAGE, "1\n2\n3\n4\n5\n")]);
        let mut draft = scene.draft();
        edit(
            &mut draft,
            "i-1",
            &[(PAGE, "one\n2\n3\n4\n5\n"), ("new.txt", "x")],
        );
        edit(&mut draft, "i-2", &[(PAGE, "one\n2\nthree\n4\n5\n")]);
        let on = edit(&mut draft, "i-3", &[(PAGE, "one\n2\nthree\n4\nfive\n")]);
        let proposal = propose(&draft, "i-1").expect("possible");
        assert_eq!(draft.tip().expect("a tip"), on, "a proposal moves nothing");
        let moved: Vec<_> = proposal
            .moves
            .iter()
            .map(|moved| moved.path.as_str())
            .collect();
        assert_eq!(moved, ["new.txt", PAGE]);
        assert_eq!(proposal.moves[0].after, crate::draft::Node::Absent);
        insta::assert_snapshot!(proposal.summary, @"Undo “Edit 2 files”");
        accept(&mut draft, "u-1", UNDO, Ok(proposal));
        assert_eq!(
            read(&draft, PAGE).as_deref(),
            Some("1\n2\nthree\n4\nfive\n")
        );
        assert_eq!(read(&draft, "new.txt"), None);
    }

    #[test]
    fn an_undo_can_be_undone_and_then_the_instruction_can_be_undone_again() {
        let scene = Scene::with(&[("a.txt", "a")]);
        let mut draft = scene.draft();
        edit(&mut draft, "i-1", &[("a.txt", "b")]);
        undo(&mut draft, "u-1", "i-1");
        assert_eq!(read(&draft, "a.txt").as_deref(), Some("a"));
        insta::assert_snapshot!(declined(&draft, "i-1"), @"already_undone: “Edit a.txt” (i-1) has been undone already by Amelia.");
        insta::assert_snapshot!(declined(&draft, "last"), @"nothing_to_undo: There is nothing to undo: no change stands that is not published yet.");
        let redo = propose(&draft, "u-1").expect("possible");
        insta::assert_snapshot!(redo.summary, @"Redo “Edit a.txt”");
        accept(&mut draft, "u-2", UNDO, Ok(redo));
        assert_eq!(read(&draft, "a.txt").as_deref(), Some("b"));
        insta::assert_snapshot!(declined(&draft, "u-1"), @"already_undone: “Undo “Edit a.txt”” (u-1) has been undone already by Amelia.");
        undo(&mut draft, "u-3", "last");
        assert_eq!(read(&draft, "a.txt").as_deref(), Some("a"));
    }

    #[test]
    fn last_goes_back_one_by_one_as_far_as_nothing_is_published() {
        let scene = Scene::with(&[("a.txt", "0")]);
        let mut draft = scene.draft();
        edit(&mut draft, "i-0", &[("a.txt", "1")]);
        let publication = draft
            .propose_publish(None)
            .expect("judged")
            .expect("possible");
        draft
            .publish(&publication, &message("p-1", PUBLISH, "Publish"))
            .expect("published");
        edit(&mut draft, "i-1", &[("a.txt", "2")]);
        edit(&mut draft, "i-2", &[("a.txt", "3")]);
        undo(&mut draft, "u-1", "last");
        undo(&mut draft, "u-2", "last");
        assert_eq!(read(&draft, "a.txt").as_deref(), Some("1"));
        insta::assert_snapshot!(declined(&draft, "last"), @"nothing_to_undo: There is nothing to undo: no change stands that is not published yet.");
        insta::assert_snapshot!(declined(&draft, "p-1"), @"nothing_to_undo: “Publish” (p-1) cannot be undone: it is published. Undo the change itself, and publish again.");
        // By its name it can be undone all the same.
        undo(&mut draft, "u-3", "i-0");
        assert_eq!(read(&draft, "a.txt").as_deref(), Some("0"));
        insta::assert_snapshot!(declined(&draft, "i-9"), @"unknown_instruction: There is no change i-9 in this draft.");
    }

    #[test]
    fn the_later_instruction_in_the_way_is_named() {
        let scene = Scene::with(&[(PAGE, "1\n2\n3\n4\n5\n"), ("b.txt", "b")]);
        let mut draft = scene.draft();
        edit(
            &mut draft,
            "i-3",
            &[(PAGE, "one\n2\n3\n4\n5\n"), ("b.txt", "B")],
        );
        edit(&mut draft, "i-5", &[(PAGE, "one\n2\n3\n4\nfive\n")]);
        edit(&mut draft, "i-7", &[(PAGE, "ONE\n2\n3\n4\nfive\n")]);
        edit(&mut draft, "i-8", &[(PAGE, "ONE\n2\n3\n4\nFIVE\n")]);
        insta::assert_snapshot!(declined(&draft, "i-3"), @"undo_overlaps: “Edit 2 files” (i-3) cannot be undone by itself: Amelia's later change “Edit src/pages/index.astro” (i-7) touches the same place. Undo i-7 first, then this one.");
        let conflicts = propose(&draft, "i-3").expect_err("declined").conflicts;
        let ours = conflicts[0].ours.as_ref().expect("somebody");
        assert_eq!((conflicts.len(), conflicts[0].path.as_str()), (1, PAGE));
        assert_eq!(ours.at.to_string(), "2026-09-21T14:13:20.000Z");
        edit(&mut draft, "i-9", &[("b.txt", "-")]);
        insta::assert_snapshot!(declined(&draft, "i-3"), @"undo_overlaps: “Edit 2 files” (i-3) cannot be undone by itself: Amelia's later change “Delete b.txt” (i-9) and Amelia's later change “Edit src/pages/index.astro” (i-7) touch the same places. Undo i-9 first, then i-7, then this one.");
        // The advice works.
        for (id, target) in [("u-1", "i-9"), ("u-2", "i-7"), ("u-3", "i-3")] {
            undo(&mut draft, id, target);
        }
        assert_eq!(read(&draft, PAGE).as_deref(), Some("1\n2\n3\n4\nFIVE\n"));
        assert_eq!(read(&draft, "b.txt").as_deref(), Some("b"));
    }

    #[test]
    fn keys_of_one_front_matter_are_undone_apart() {
        let page =
            |title: &str, date: &str| format!("---\ntitle: {title}\ndate: {date}\n---\nText\n");
        let scene = Scene::with(&[("src/a.md", &page("A", "2026-01-01"))]);
        let mut draft = scene.draft();
        edit(&mut draft, "i-1", &[("src/a.md", &page("B", "2026-01-01"))]);
        edit(&mut draft, "i-2", &[("src/a.md", &page("B", "2026-02-02"))]);
        undo(&mut draft, "u-1", "i-1");
        assert_eq!(read(&draft, "src/a.md"), Some(page("A", "2026-02-02")));
    }

    #[test]
    fn a_file_that_was_deleted_comes_back_unless_a_folder_stands_there() {
        let scene = Scene::with(&[("a", "a"), ("b/c", "c")]);
        let mut draft = scene.draft();
        edit(&mut draft, "i-1", &[("a", "-"), ("b/c", "-")]);
        undo(&mut draft, "u-1", "i-1");
        assert_eq!(read(&draft, "b/c").as_deref(), Some("c"));
        edit(&mut draft, "i-2", &[("a", "-")]);
        edit(&mut draft, "i-3", &[("a/b", "b")]);
        insta::assert_snapshot!(declined(&draft, "i-2"), @"undo_overlaps: “Delete a” (i-2) cannot be undone by itself: Amelia's later change “Add a/b” (i-3) touches the same place. Undo i-3 first, then this one.");
        edit(&mut draft, "i-4", &[("b/c", "-")]);
        edit(&mut draft, "i-5", &[("b", "b")]);
        insta::assert_snapshot!(declined(&draft, "i-4"), @"undo_overlaps: “Delete b/c” (i-4) cannot be undone by itself: Amelia's later change “Add b” (i-5) touches the same place. Undo i-5 first, then this one.");
        // One instruction that makes a folder of a file is undone as one.
        edit(&mut draft, "i-6", &[("b", "-"), ("b/x", "x")]);
        undo(&mut draft, "u-2", "i-6");
        assert_eq!(read(&draft, "b").as_deref(), Some("b"));
    }

    #[test]
    fn what_somebody_took_back_by_hand_needs_no_undo() {
        let scene = Scene::with(&[("a.txt", "a")]);
        let mut draft = scene.draft();
        edit(&mut draft, "i-1", &[("a.txt", "b")]);
        edit(&mut draft, "i-2", &[("a.txt", "a")]);
        insta::assert_snapshot!(declined(&draft, "i-1"), @"already_undone: Nothing is left of “Edit a.txt” (i-1) that could be undone.");
    }

    #[test]
    fn a_change_of_a_developer_in_the_way_is_named_too() {
        let scene = Scene::with(&[("a.txt", "a\n")]);
        let mut draft = scene.draft();
        edit(&mut draft, "i-1", &[("a.txt", "b\n")]);
        draft.push_once().expect("pushed");
        scene.write("edit/local", "Fix the text", &[("a.txt", "c\n")]);
        draft.fetch().expect("fetched");
        draft.replant().expect("followed");
        insta::assert_snapshot!(declined(&draft, "i-1"), @"undo_overlaps: “Edit a.txt” (i-1) cannot be undone by itself: Dora's later change “Fix the text” touches the same place.");
    }

    #[test]
    fn undoing_a_sync_takes_away_what_it_brought_in() {
        let scene = Scene::with(&[("a.txt", "a")]);
        let mut draft = scene.draft();
        edit(&mut draft, "i-1", &[("mine.txt", "mine")]);
        scene.write("main", "Theirs", &[("a.txt", "b")]);
        draft.fetch().expect("fetched");
        let proposed = draft.propose_sync().expect("judged");
        accept(&mut draft, "s-1", SYNC, proposed);
        undo(&mut draft, "u-1", "s-1");
        assert_eq!(read(&draft, "a.txt").as_deref(), Some("a"));
        assert_eq!(read(&draft, "mine.txt").as_deref(), Some("mine"));
        undo(&mut draft, "u-2", "u-1");
        assert_eq!(read(&draft, "a.txt").as_deref(), Some("b"));
    }

    #[test]
    fn last_is_the_owners_edit_and_not_what_came_from_others_after_it() {
        let scene = Scene::with(&[("a.txt", "a")]);
        let mut draft = scene.draft();
        edit(&mut draft, "i-1", &[("mine.txt", "mine")]);
        scene.write("main", "Theirs", &[("a.txt", "b")]);
        draft.fetch().expect("fetched");
        let proposed = draft.propose_sync().expect("judged");
        accept(&mut draft, "follow-1", SYNC, proposed);
        undo(&mut draft, "u-1", "last");
        assert_eq!(read(&draft, "mine.txt"), None);
        assert_eq!(read(&draft, "a.txt").as_deref(), Some("b"));
        insta::assert_snapshot!(declined(&draft, "last"), @"nothing_to_undo: There is nothing to undo: no change stands that is not published yet.");
    }

    #[test]
    fn a_proposal_is_only_for_the_tip_it_was_made_on() {
        let scene = Scene::with(&[("a.txt", "a")]);
        let mut draft = scene.draft();
        edit(&mut draft, "i-1", &[("a.txt", "b")]);
        let proposal = propose(&draft, "last").expect("possible");
        edit(&mut draft, "i-2", &[("b.txt", "b")]);
        let error = draft
            .commit(&proposal, &message("u-1", UNDO, "Undo"))
            .expect_err("another tip");
        insta::assert_snapshot!(error, @"the draft edit/local moved while a change of it was prepared");
    }

    /// Three lines that are far enough from each other.
    fn slots(values: [usize; 3]) -> String {
        values.map(|value| format!("{value}\n")).join("=\n=\n")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn an_undo_reverts_its_own_instruction_and_no_other(
            edited in proptest::collection::vec(0..3_usize, 1..7),
            target in any::<proptest::sample::Index>(),
        ) {
            let mut values = [100, 200, 300];
            let scene = Scene::with(&[(PAGE, &slots(values))]);
            let mut draft = scene.draft();
            let mut befores = Vec::new();
            for (number, slot) in edited.iter().enumerate() {
                befores.push(std::mem::replace(&mut values[*slot], number));
                edit(&mut draft, &format!("i-{number}"), &[(PAGE, &slots(values))]);
            }
            let target = target.index(edited.len());
            let slot = edited[target];
            let proposed = propose(&draft, &format!("i-{target}"));
            match edited[target + 1..].iter().position(|later| *later == slot) {
                None => {
                    accept(&mut draft, "u-1", UNDO, proposed);
                    values[slot] = befores[target];
                    prop_assert_eq!(read(&draft, PAGE), Some(slots(values)));
                    // And undoing that brings it back.
                    undo(&mut draft, "u-2", "u-1");
                    values[slot] = target;
                    prop_assert_eq!(read(&draft, PAGE), Some(slots(values)));
                }
                Some(later) => {
                    let declined = proposed.expect_err("a later one touches the same line");
                    let in_the_way = declined.conflicts[0].ours.as_ref().expect("somebody");
                    let expected = format!("i-{}", target + 1 + later);
                    prop_assert_eq!(in_the_way.instruction_id.as_ref().map(InstructionId::as_str), Some(expected.as_str()));
                }
            }
        }
    }
}
