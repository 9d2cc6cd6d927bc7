//! Moves our commits on top of what the remote has.

use std::collections::HashMap;

use contract::{CommitId, InstructionId};
use git2::Oid;

use super::{COMMITTER, Draft, DraftError, commit_message};

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
    let mut outcome = Replanted::Clean;
    if base != seen {
        // What landed there by another way (a commit of ours that somebody carried over) must not land again.
        let there = draft.read_landed(seen, Some(base))?;
        let mut onto = seen;
        for commit in draft.unpushed_commits()? {
            if landed_already(draft, commit, &there)? {
                continue;
            }
            match pick(draft, commit, onto).map_err(|source| draft.local("rebase", source))? {
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
    there: &HashMap<InstructionId, CommitId>,
) -> Result<bool, DraftError> {
    let commit = draft.commit_object(commit)?;
    let instruction = commit_message::instruction_of(commit.message_bytes());
    Ok(instruction.is_some_and(|instruction| there.contains_key(&instruction)))
}

enum Picked {
    Clean(Oid),
    Conflict(Vec<String>),
}

/// Repeats a commit on top of another, in memory. A commit that changes nothing there is kept all the same: its
/// trailer says that its instruction has been carried out.
fn pick(draft: &Draft, commit: Oid, onto: Oid) -> Result<Picked, git2::Error> {
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
        return Ok(Picked::Conflict(files));
    }
    let tree = repository.find_tree(index.write_tree_to(repository)?)?;
    let committer = git2::Signature::now(COMMITTER.0, COMMITTER.1)?;
    let message = String::from_utf8_lossy(commit.message_raw_bytes()).into_owned();
    repository
        .commit(
            None,
            &commit.author(),
            &committer,
            &message,
            &tree,
            &[&onto],
        )
        .map(Picked::Clean)
}
