//! Moves our commits on top of what the remote has.

use git2::Oid;

use super::{COMMITTER, Draft, DraftError};

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
    let tip = draft.tip()?;
    let descends = |one, of| {
        draft
            .repository
            .graph_descendant_of(one, of)
            .map_err(|source| draft.local("read history", source))
    };
    if tip == seen || descends(tip, seen)? {
        return Ok(Replanted::Clean);
    }
    if descends(seen, tip)? {
        draft.set_tip(seen, "follow the remote")?;
        return Ok(Replanted::Clean);
    }
    let mut onto = seen;
    for commit in draft.unpushed_commits()? {
        match pick(draft, commit, onto).map_err(|source| draft.local("rebase", source))? {
            Picked::Clean(id) => onto = id,
            Picked::Conflict(files) => {
                draft.set_tip(onto, "a commit did not fit")?;
                return Ok(Replanted::Conflict { files });
            }
        }
    }
    draft.set_tip(onto, "rebase on the remote")?;
    Ok(Replanted::Clean)
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
