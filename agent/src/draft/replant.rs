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
    // What is published may lie between the remote's draft and ours: a draft that was merged begins anew there.
    let stands_there = draft.noted_pushed()? == Some(seen)
        && draft
            .repository
            .graph_descendant_of(base, seen)
            .map_err(|source| draft.local("read history", source))?;
    let mut outcome = Replanted::Clean;
    if base != seen && !stands_there {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::change_set::{ChangeSet, FileChange, Version};
    use crate::draft::{CommitMessage, Pushed, Remote, Settings};

    use super::*;

    /// A repository with one commit on `main`, and a draft of it.
    struct Scene {
        folder: tempfile::TempDir,
        remote: git2::Repository,
    }

    impl Scene {
        fn begin() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let mut options = git2::RepositoryInitOptions::new();
            options.bare(true).initial_head("main");
            let remote = git2::Repository::init_opts(folder.path().join("remote"), &options);
            let scene = Self {
                remote: remote.expect("made"),
                folder,
            };
            scene.commit("main", &[]);
            scene
        }

        /// A commit by somebody else, with no change.
        fn commit(&self, branch: &str, parents: &[Oid]) -> Oid {
            let find = |id: &Oid| self.remote.find_commit(*id).expect("there");
            let parents: Vec<_> = parents.iter().map(find).collect();
            let tree = match parents.last() {
                Some(parent) => parent.tree(),
                None => self
                    .remote
                    .treebuilder(None)
                    .and_then(|tree| self.remote.find_tree(tree.write()?)),
            };
            let dora = git2::Signature::now("Dora", "dora@example.com").expect("valid");
            self.remote
                .commit(
                    Some(&format!("refs/heads/{branch}")),
                    &dora,
                    &dora,
                    "Something",
                    &tree.expect("a tree"),
                    &parents.iter().collect::<Vec<_>>(),
                )
                .expect("committed")
        }

        fn tip(&self, branch: &str) -> Oid {
            self.remote
                .refname_to_id(&format!("refs/heads/{branch}"))
                .expect("there")
        }

        fn draft(&self) -> Draft {
            let at = |name: &str| self.folder.path().join(name);
            let settings = Settings {
                git_directory: at("draft.git"),
                staging: at("staging"),
                remote: Remote::Local { path: at("remote") },
                published_branch: None,
                draft_branch: "edit/local".to_owned(),
                site_root: String::new(),
            };
            Draft::open(&settings, &mut |_, _| ()).expect("open")
        }
    }

    /// An instruction that makes a file of its name.
    fn instruct(draft: &mut Draft, name: &str) -> Oid {
        let after = Version {
            content: name.into(),
            executable: false,
        };
        let change = FileChange {
            before: None,
            after: Some(after),
        };
        let change_set = ChangeSet {
            files: [(name.parse().expect("a path"), change)].into(),
        };
        let message = CommitMessage {
            summary: name.to_owned(),
            instruction_id: name.parse().expect("an id"),
            session_id: "amelia_1".parse().expect("an id"),
            author: None,
            authored_at: 0,
            action: "edit",
            undoes: None,
        };
        draft.commit(&change_set, &message).expect("committed");
        draft.tip().expect("a tip")
    }

    fn push(draft: &mut Draft) {
        let pushed = draft.push().expect("pushed");
        assert!(matches!(pushed, Pushed::Verified), "{pushed:?}");
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
