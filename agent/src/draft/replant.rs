//! Moves our commits on top of what the remote has.

use std::collections::HashSet;

use contract::InstructionId;
use git2::Oid;

use super::sync::Merged;
use super::{COMMITTER, Draft, DraftError, commit_message, ledger};

/// How it went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Replanted {
    /// All our commits now stand on the remote's tip.
    Clean,
    /// One of our commits does not fit. It and those after it are gone from the draft, the ones before it stand.
    Conflict {
        /// The files in conflict, as paths of the repository.
        files: Vec<String>,
    },
}

pub(super) fn replant(draft: &Draft) -> Result<Replanted, DraftError> {
    let Some(seen) = draft.seen_tip()? else {
        return Ok(Replanted::Clean);
    };
    let base = draft.pushed_tip()?;
    // What is published may lie between the remote's draft and ours: a draft that was merged begins anew there.
    let stands_there = draft.noted_pushed()? == Some(seen)
        && draft
            .repository
            .graph_descendant_of(base, seen)
            .map_err(|source| draft.local("read history", source))?;
    let mut outcome = Replanted::Clean;
    if base != seen && !stands_there {
        // What landed there by another way (a commit of ours that somebody carried over) must not land again.
        let there: HashSet<InstructionId> = ledger::marks(&draft.repository, seen, Some(base))
            .map_err(|source| draft.local("read history", source))?
            .into_iter()
            .map(|mark| mark.trailers.instruction_id)
            .collect();
        let mut onto = seen;
        for commit in draft.unpushed_commits()? {
            if landed_already(draft, commit, &there)? {
                continue;
            }
            match pick(draft, commit, onto)? {
                Picked::Clean(id) => onto = id,
                Picked::Conflict(files) => {
                    outcome = Replanted::Conflict { files };
                    break;
                }
            }
        }
        draft.set_tip(onto, "follow the remote")?;
    }
    draft.note_pushed(seen)?;
    Ok(outcome)
}

fn landed_already(
    draft: &Draft,
    commit: Oid,
    there: &HashSet<InstructionId>,
) -> Result<bool, DraftError> {
    let commit = draft.commit_object(commit)?;
    let instruction = commit_message::instruction_of(commit.message_bytes());
    Ok(instruction.is_some_and(|instruction| there.contains(&instruction)))
}

/// A commit repeated on top of another.
pub(super) enum Picked {
    /// As this one.
    Clean(Oid),
    /// It does not fit: the files in conflict, as paths of the repository.
    Conflict(Vec<String>),
}

/// Repeats a commit on top of another, in memory. A commit that changes nothing there is kept all the same: its
/// trailer says that its instruction has been carried out. One that brought something in brings it in again.
pub(super) fn pick(draft: &Draft, commit: Oid, onto: Oid) -> Result<Picked, DraftError> {
    let local = |source| draft.local("rebase", source);
    let brought_in = draft.commit_object(commit)?.parent_id(1).ok();
    let tree = match brought_in {
        Some(brought_in) => match draft.merged(onto, brought_in)? {
            Merged::Clean(tree) => tree,
            Merged::Conflict(files) => {
                let files = files.iter().map(|path| path.to_string_lossy().into_owned());
                return Ok(Picked::Conflict(files.collect()));
            }
        },
        None => match cherry_pick(draft, commit, onto).map_err(local)? {
            Ok(tree) => tree,
            Err(files) => return Ok(Picked::Conflict(files)),
        },
    };
    let parents = [onto].into_iter().chain(brought_in);
    repeat(draft, commit, tree, &parents.collect::<Vec<_>>())
        .map(Picked::Clean)
        .map_err(local)
}

/// The tree that a commit makes on top of another, or the files in conflict.
fn cherry_pick(
    draft: &Draft,
    commit: Oid,
    onto: Oid,
) -> Result<Result<Oid, Vec<String>>, git2::Error> {
    let repository = &draft.repository;
    let (commit, onto) = (
        repository.find_commit(commit)?,
        repository.find_commit(onto)?,
    );
    let mut index = repository.cherrypick_commit(&commit, &onto, 0, None)?;
    if index.has_conflicts() {
        let mut files = Vec::new();
        for conflict in index.conflicts()? {
            let conflict = conflict?;
            let side = conflict.our.or(conflict.their).or(conflict.ancestor);
            files.extend(side.map(|entry| String::from_utf8_lossy(&entry.path).into_owned()));
        }
        files.sort();
        files.dedup();
        return Ok(Err(files));
    }
    index.write_tree_to(repository).map(Ok)
}

/// A commit by the same person and with the same message, of another tree and with other parents.
fn repeat(draft: &Draft, commit: Oid, tree: Oid, parents: &[Oid]) -> Result<Oid, git2::Error> {
    let repository = &draft.repository;
    let (commit, tree) = (repository.find_commit(commit)?, repository.find_tree(tree)?);
    let parents = parents
        .iter()
        .map(|id| repository.find_commit(*id))
        .collect::<Result<Vec<_>, _>>()?;
    let committer = git2::Signature::now(COMMITTER.0, COMMITTER.1)?;
    let message = String::from_utf8_lossy(commit.message_raw_bytes()).into_owned();
    repository.commit(
        None,
        &commit.author(),
        &committer,
        &message,
        &tree,
        &parents.iter().collect::<Vec<_>>(),
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::draft::Round;
    use crate::draft::scene::{Scene, instruct};

    use super::*;

    fn push(draft: &mut Draft) {
        let mut round = draft.push_once().expect("pushed");
        while matches!(round, Round::Moved) {
            round = draft.push_once().expect("pushed");
        }
        assert!(matches!(round, Round::Verified), "{round:?}");
    }

    fn has(draft: &Draft, name: &str) -> bool {
        let tree = draft.tree_of(draft.tip().expect("a tip")).expect("a tree");
        tree.get_path(Path::new(name)).is_ok()
    }

    #[test]
    fn what_others_took_off_the_branch_stays_off_and_what_is_ours_stays_on() {
        let scene = Scene::begin();
        let mut draft = scene.draft();
        instruct(&mut draft, "kept");
        push(&mut draft);
        instruct(&mut draft, "doomed");
        push(&mut draft);
        let kept = scene.remote.revparse_single("edit/local~1").expect("there");
        scene
            .remote
            .reference("refs/heads/edit/local", kept.id(), true, "reset")
            .expect("moved");
        instruct(&mut draft, "ours");
        push(&mut draft);
        assert_eq!(
            ["kept", "doomed", "ours"].map(|name| has(&draft, name)),
            [true, false, true]
        );
        assert_eq!(scene.tip("edit/local"), draft.tip().expect("a tip"));
    }

    #[test]
    fn what_others_took_off_while_nobody_looked_is_gone_at_the_next_start() {
        let scene = Scene::begin();
        let mut draft = scene.draft();
        instruct(&mut draft, "doomed");
        push(&mut draft);
        instruct(&mut draft, "ours");
        drop(draft);
        let main = scene.tip("main");
        scene
            .remote
            .reference("refs/heads/edit/local", main, true, "reset")
            .expect("moved");
        let draft = scene.draft();
        assert_eq!(
            ["doomed", "ours"].map(|name| has(&draft, name)),
            [false, true]
        );
        assert_eq!(draft.unpushed().expect("counted"), 1);
    }

    #[test]
    fn a_draft_that_was_merged_goes_on_from_what_is_published() {
        let scene = Scene::begin();
        let mut draft = scene.draft();
        instruct(&mut draft, "merged");
        push(&mut draft);
        drop(draft);
        let merge = scene.commit("main", &[scene.tip("main"), scene.tip("edit/local")]);

        let mut draft = scene.draft();
        assert_eq!(draft.tip().expect("a tip"), merge);
        let ours = instruct(&mut draft, "ours");
        drop(draft);
        // A start in between moves nothing: it stands on what the remote has.
        let mut draft = scene.draft();
        assert_eq!(draft.tip().expect("a tip"), ours);
        push(&mut draft);
        assert_eq!(scene.tip("edit/local"), ours);
    }
}
