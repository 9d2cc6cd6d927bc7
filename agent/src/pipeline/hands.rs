//! What somebody changed by hand is never lost: nothing is written over it, and it becomes a commit only when it is asked for.

use std::collections::BTreeSet;
use std::time::Instant;

use contract::client_config::Policy;
use contract::limits;
use git2::Oid;

use super::workshop::WorkshopError;
use crate::change_set::by_hand::{ByHand, Found, Room};
use crate::draft::{Draft, LeftBehind, Node, PathChange, TakenUp};
use crate::work_tree::uncommitted::{all_below, examine};
use crate::work_tree::{Standing, WorkTree, WorkTreeError, uncommitted::Suspects};

/// Which files are not as the draft has them.
pub(super) fn find(
    draft: &Draft,
    work_tree: &WorkTree,
    suspects: &Suspects,
    known: &BTreeSet<String>,
) -> Result<BTreeSet<String>, WorkshopError> {
    let tip = draft.tip()?;
    examine(
        work_tree,
        |path| Ok(draft.node(tip, path)?),
        |folder| Ok(draft.files_below(tip, folder)?),
        suspects,
        known,
    )
}

/// Of the changes that lead from commit `from` to another one, those that may be written: where what stands is neither as the
/// one nor as the other has it, a hand was at work. It stays, and is then uncommitted against the new one.
///
/// `ours` are paths that we left half written. `kept` says whether what is on its way into a commit stays too: it does where
/// that commit is no longer on the draft.
pub(super) fn spare(
    draft: &Draft,
    work_tree: &WorkTree,
    from: Oid,
    changes: Vec<PathChange>,
    ours: &BTreeSet<String>,
    kept: bool,
) -> Result<Vec<PathChange>, WorkshopError> {
    let paths: BTreeSet<String> = changes.iter().map(|change| change.path.clone()).collect();
    let mut spared = Vec::new();
    for change in changes {
        let path = &change.path;
        // A folder has no place in git: where it stands nothing is to be removed.
        let nothing_to_do =
            change.after == Node::Absent && work_tree.standing(path)? == Standing::Folder;
        let stays = nothing_to_do
            || (kept && work_tree.is_kept(path))
            || (!ours.contains(path)
                && is_by_hand(work_tree, &draft.node(from, path)?, &change, &paths)?);
        if !stays {
            spared.push(change);
        } else if !nothing_to_do {
            tracing::info!(%path, "this file was changed by hand; it stays as it is");
        }
    }
    Ok(spared)
}

fn is_by_hand(
    work_tree: &WorkTree,
    before: &Node,
    change: &PathChange,
    paths: &BTreeSet<String>,
) -> Result<bool, WorkTreeError> {
    let path = &change.path;
    // What cannot be read is not what we wrote there.
    let is = |node| work_tree.is(path, node).unwrap_or(false);
    if !is(before) && !is(&change.after) {
        return Ok(true);
    }
    if change.after == Node::Absent {
        return Ok(false);
    }
    // A file that somebody put where a folder is to be, and that does not make way itself.
    for (end, _) in path.match_indices('/') {
        let above = &path[..end];
        let is_file = matches!(
            work_tree.standing(above)?,
            Standing::File { .. } | Standing::Symlink
        );
        if is_file && !paths.contains(above) {
            return Ok(true);
        }
    }
    // A folder in which somebody put something, where a file is to be.
    Ok(work_tree.standing(path)? == Standing::Folder
        && change.after != Node::Submodule
        && all_below(work_tree, path)
            .iter()
            .any(|below| !paths.contains(below)))
}

/// Reads what is to be committed, as far as there is room.
pub(super) fn gather(
    draft: &Draft,
    work_tree: &WorkTree,
    paths: &BTreeSet<String>,
    room: Room,
) -> Result<Vec<ByHand>, WorkshopError> {
    let tip = draft.tip()?;
    let mut read = 0;
    let mut gathered = Vec::new();
    for path in paths {
        let after = match work_tree.standing(path) {
            Ok(Standing::Nothing | Standing::Folder) => Found::Node(Node::Absent),
            Ok(Standing::Other) => Found::NotAFile,
            Ok(Standing::File { bytes, .. }) if !room.admits(bytes, read) => {
                Found::TooLarge { bytes }
            }
            Ok(Standing::File { .. } | Standing::Symlink) => match work_tree.read(path) {
                Ok(node) => Found::Node(node),
                Err(error) => unreadable(&error),
            },
            Err(error) => unreadable(&error),
        };
        if let Found::Node(Node::File(version)) = &after {
            read += version.content.len() as u64;
        }
        gathered.push(ByHand {
            path: path.clone(),
            before: draft.node(tip, path)?,
            after,
        });
    }
    Ok(gathered)
}

/// Reads what is to be parked, and says what cannot be: the limits are those of one instruction, whatever the client's policy
/// says, because nothing of it is published.
pub(super) fn to_park(
    draft: &Draft,
    work_tree: &WorkTree,
    paths: &BTreeSet<String>,
) -> Result<(Vec<PathChange>, Vec<LeftBehind>), WorkshopError> {
    let room = Room::of(&Policy::default());
    let first: BTreeSet<String> = paths.iter().take(limits::FILES_MAX).cloned().collect();
    let mut changes = Vec::new();
    let mut left = Vec::new();
    for file in gather(draft, work_tree, &first, room)? {
        let why = match file.after {
            Found::Node(Node::Submodule) => "is a repository of its own".to_owned(),
            Found::Node(after) => {
                changes.push(PathChange {
                    path: file.path,
                    after,
                });
                continue;
            }
            Found::TooLarge { bytes } => format!(
                "has {bytes} bytes; one file may have {} and all together {}",
                limits::FILE_MAX_BYTES,
                limits::CHANGE_SET_MAX_BYTES
            ),
            Found::NotAFile => "is not an ordinary file".to_owned(),
            Found::Unreadable { why } => format!("cannot be read: {why}"),
        };
        left.push(LeftBehind {
            what: file.path,
            why,
        });
    }
    left.extend(paths.iter().skip(limits::FILES_MAX).map(|path| LeftBehind {
        what: path.clone(),
        why: format!("is one of more than {} files", limits::FILES_MAX),
    }));
    Ok((changes, left))
}

/// Writes what a hand had changed in an environment before, as far as nobody has changed it otherwise since. The site does not
/// run yet.
pub(super) fn put_back(
    draft: &Draft,
    work_tree: &WorkTree,
    taken: &mut TakenUp,
) -> Result<(), WorkshopError> {
    let tip = draft.tip()?;
    let mut writes = Vec::new();
    for change in std::mem::take(&mut taken.files) {
        if work_tree.is(&change.path, &change.after).unwrap_or(false) {
            taken.files.push(change);
        } else if work_tree
            .is(&change.path, &draft.node(tip, &change.path)?)
            .unwrap_or(false)
        {
            writes.push(change);
        } else {
            taken.left.push(LeftBehind {
                what: change.path,
                why: "it was changed by hand otherwise".to_owned(),
            });
        }
    }
    if writes.is_empty() {
        return Ok(());
    }
    // If we die here the draft's files come back, and all of it is taken up again.
    work_tree.begin(writes.iter().map(|change| change.path.as_str()))?;
    work_tree.show_at_once(&writes, Instant::now())?;
    work_tree.end()?;
    taken.files.extend(writes);
    Ok(())
}

fn unreadable(error: &WorkTreeError) -> Found {
    Found::Unreadable {
        why: error.source.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use git2::{Repository, RepositoryInitOptions, Signature};

    use super::super::workshop::Workshop;
    use super::*;
    use crate::change_set::by_hand;
    use crate::draft::{CommitMessage, Remote, Round, Settings};
    use crate::work_tree::Places;

    /// A client's repository, and an environment of it.
    struct Scene {
        folder: tempfile::TempDir,
        remote: Repository,
    }

    impl Scene {
        fn begin(files: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let remote = Repository::init_opts(
                folder.path().join("remote"),
                RepositoryInitOptions::new().bare(true).initial_head("main"),
            )
            .expect("made");
            let scene = Self { folder, remote };
            scene.push("main", files, &[]);
            let main = scene
                .remote
                .refname_to_id("refs/heads/main")
                .expect("there");
            scene
                .remote
                .reference("refs/heads/edit/local", main, false, "begin")
                .expect("made");
            scene
        }

        /// Somebody else pushes: these files, without those.
        fn push(&self, branch: &str, files: &[(&str, &str)], without: &[&str]) {
            let reference = format!("refs/heads/{branch}");
            let parent = self
                .remote
                .find_reference(&reference)
                .and_then(|reference| reference.peel_to_commit())
                .ok();
            let tree = match &parent {
                Some(parent) => parent.tree().expect("a tree"),
                None => self
                    .remote
                    .treebuilder(None)
                    .and_then(|builder| builder.write())
                    .and_then(|id| self.remote.find_tree(id))
                    .expect("a tree"),
            };
            // One after the other: libgit2 puts no file in the place of a folder.
            let mut update = git2::build::TreeUpdateBuilder::new();
            for path in without {
                update.remove(*path);
            }
            let tree = update
                .create_updated(&self.remote, &tree)
                .and_then(|id| self.remote.find_tree(id))
                .expect("a tree");
            let mut update = git2::build::TreeUpdateBuilder::new();
            for (path, text) in files {
                let blob = self.remote.blob(text.as_bytes()).expect("written");
                update.upsert(*path, blob, git2::FileMode::Blob);
            }
            let tree = update
                .create_updated(&self.remote, &tree)
                .and_then(|id| self.remote.find_tree(id))
                .expect("a tree");
            let dora = Signature::now("Dora", "dora@example.com").expect("a signature");
            let parents: Vec<_> = parent.iter().collect();
            self.remote
                .commit(Some(&reference), &dora, &dora, "Something", &tree, &parents)
                .expect("committed");
        }

        fn places(&self) -> Places {
            let at = |name: &str| self.folder.path().join(name);
            Places {
                root: at("tree"),
                staging: at("staging"),
                journal: at("journal.json"),
            }
        }

        /// An environment starts.
        fn start(&self) -> (Draft, WorkTree) {
            let settings = Settings {
                git_directory: self.folder.path().join("draft.git"),
                staging: self.folder.path().join("staging"),
                remote: Remote::Local {
                    path: self.folder.path().join("remote"),
                },
                published_branch: None,
                draft_branch: "edit/local".to_owned(),
                site_root: String::new(),
                offline: false,
            };
            let draft = Draft::open(&settings, &mut |_, _| ()).expect("open");
            let work_tree = Workshop::open_work_tree(&draft, &self.places()).expect("open");
            (draft, work_tree)
        }

        fn at(&self, path: &str) -> PathBuf {
            self.places().root.join(path)
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.at(path);
            fs::create_dir_all(path.parent().expect("below")).expect("made");
            fs::write(path, text).expect("written");
        }

        fn read(&self, path: &str) -> Option<String> {
            fs::read_to_string(self.at(path)).ok()
        }
    }

    fn everything(draft: &Draft, work_tree: &WorkTree) -> Vec<String> {
        find(draft, work_tree, &Suspects::Everything, &BTreeSet::new())
            .expect("found")
            .into_iter()
            .collect()
    }

    fn commit(draft: &mut Draft, work_tree: &WorkTree) {
        let paths = everything(draft, work_tree).into_iter().collect();
        let policy = Policy::default();
        let gathered = gather(draft, work_tree, &paths, Room::of(&policy)).expect("gathered");
        let change_set = by_hand::plan(gathered, "", &policy).expect("planned");
        let message = CommitMessage {
            summary: change_set.summary(),
            instruction_id: "by-hand".parse().expect("an id"),
            session_id: "amelia_1".parse().expect("an id"),
            author: None,
            authored_at: 0,
            action: "commit",
            undoes: None,
        };
        work_tree.keep(paths).expect("kept");
        let proposal = draft.propose_edit(&change_set).expect("proposed");
        draft.commit(&proposal, &message).expect("committed");
        draft.set_shown(draft.tip().expect("a tip")).expect("noted");
    }

    const SITE: [(&str, &str); 4] = [
        ("src/a.md", "a"),
        ("src/b.md", "b"),
        ("src/c.md", "c"),
        ("src/folder/d.md", "d"),
    ];

    #[test]
    fn what_others_pushed_is_written_over_nothing_that_a_hand_made() {
        let scene = Scene::begin(&SITE);
        drop(scene.start());
        scene.write("src/a.md", "by hand");
        scene.write("src/c.md", "by hand");
        scene.write("src/new.md", "by hand");
        // A folder where a file is to be, and a file where a folder is to be.
        scene.write("src/page/mine.md", "by hand");
        scene.write("src/blog", "by hand");
        scene.push(
            "edit/local",
            &[
                ("src/a.md", "theirs"),
                ("src/b.md", "theirs"),
                ("src/new.md", "theirs"),
                ("src/page", "theirs"),
                ("src/blog/post.md", "theirs"),
                ("src/folder", "theirs"),
            ],
            &["src/c.md", "src/folder/d.md"],
        );
        let (draft, work_tree) = scene.start();
        assert_eq!(
            [
                "src/a.md",
                "src/c.md",
                "src/new.md",
                "src/page/mine.md",
                "src/blog"
            ]
            .map(|path| scene.read(path)),
            [(); 5].map(|()| Some("by hand".to_owned()))
        );
        assert_eq!(
            ["src/b.md", "src/folder"].map(|path| scene.read(path)),
            [(); 2].map(|()| Some("theirs".to_owned()))
        );
        assert_eq!(
            everything(&draft, &work_tree),
            [
                "src/a.md",
                "src/blog",
                "src/blog/post.md",
                "src/c.md",
                "src/new.md",
                "src/page",
                "src/page/mine.md",
            ]
        );
        // Nor at the next start.
        drop((draft, work_tree));
        scene.start();
        assert_eq!(scene.read("src/a.md").as_deref(), Some("by hand"));
    }

    #[test]
    fn what_a_crash_left_half_written_is_ours() {
        let scene = Scene::begin(&SITE);
        drop(scene.start());
        scene.write("src/a.md", "half");
        fs::write(scene.places().journal, r#"["src/a.md"]"#).expect("written");
        let (draft, work_tree) = scene.start();
        assert_eq!(scene.read("src/a.md").as_deref(), Some("a"));
        assert!(everything(&draft, &work_tree).is_empty());
    }

    #[test]
    fn what_was_made_by_hand_becomes_a_commit_and_is_then_nobodys_any_more() {
        let scene = Scene::begin(&SITE);
        let (mut draft, work_tree) = scene.start();
        scene.write("src/a.md", "by hand");
        fs::remove_file(scene.at("src/b.md")).expect("removed");
        scene.write("src/folder/e.md", "by hand");
        commit(&mut draft, &work_tree);
        assert!(everything(&draft, &work_tree).is_empty());
        let round = draft.push_once().expect("pushed");
        assert!(matches!(round, Round::Verified), "{round:?}");
    }

    #[test]
    fn a_commit_of_a_hands_work_that_does_not_fit_takes_nothing_out_of_the_work_tree() {
        let scene = Scene::begin(&SITE);
        let (mut draft, work_tree) = scene.start();
        scene.write("src/a.md", "by hand");
        commit(&mut draft, &work_tree);
        let before = draft.tip().expect("a tip");
        scene.push(
            "edit/local",
            &[("src/a.md", "theirs"), ("src/b.md", "theirs")],
            &[],
        );
        let round = draft.push_once().expect("asked");
        assert!(matches!(round, Round::Conflict { .. }), "{round:?}");
        let after = draft.tip().expect("a tip");
        let changes = draft.differences(before, after).expect("compared");
        let spared =
            spare(&draft, &work_tree, before, changes, &BTreeSet::new(), true).expect("compared");
        let paths: Vec<&str> = spared.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(paths, ["src/b.md"]);

        // And the same where we died meanwhile.
        drop((draft, work_tree));
        let (draft, work_tree) = scene.start();
        assert_eq!(scene.read("src/a.md").as_deref(), Some("by hand"));
        assert_eq!(scene.read("src/b.md").as_deref(), Some("theirs"));
        assert_eq!(everything(&draft, &work_tree), ["src/a.md"]);
    }

    #[test]
    fn a_commit_of_a_hands_work_with_which_others_were_merged_is_shown() {
        let scene = Scene::begin(&[("src/a.md", "1\n2\n3\n4\n5\n6\n7\n8\n")]);
        let (mut draft, work_tree) = scene.start();
        scene.write("src/a.md", "by hand\n2\n3\n4\n5\n6\n7\n8\n");
        commit(&mut draft, &work_tree);
        drop((draft, work_tree)); // the crash: it was not pushed
        scene.push(
            "edit/local",
            &[("src/a.md", "1\n2\n3\n4\n5\n6\n7\ntheirs\n")],
            &[],
        );
        let (draft, work_tree) = scene.start();
        assert_eq!(
            scene.read("src/a.md").as_deref(),
            Some("by hand\n2\n3\n4\n5\n6\n7\ntheirs\n")
        );
        assert!(everything(&draft, &work_tree).is_empty());
    }

    #[test]
    fn what_was_parked_is_changed_by_hand_again_in_a_fresh_environment() {
        let scene = Scene::begin(&[
            ("src/a.md", "a"),
            ("src/b.md", "b"),
            (".gitignore", "dist\n"),
        ]);
        let (mut draft, work_tree) = scene.start();
        scene.write("src/c.md", "committed");
        commit(&mut draft, &work_tree);
        work_tree.release().expect("released");
        scene.write("src/a.md", "by hand");
        fs::remove_file(scene.at("src/b.md")).expect("removed");
        scene.write("src/new/d.md", "by hand");
        scene.write("dist/index.html", "built");
        scene.write("node_modules/x/index.js", "installed");
        scene.write("src/large.bin", &"x".repeat(limits::FILE_MAX_BYTES + 1));
        let (changes, left) = to_park(
            &draft,
            &work_tree,
            &everything(&draft, &work_tree).into_iter().collect(),
        )
        .expect("read");
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].what, "src/large.bin");
        let name = crate::draft::RescueName {
            generation: contract::Generation(1),
            bundle: String::new(),
            ask_remote: true,
        };
        let parked = match draft.park(&changes, &name).expect("parked") {
            crate::draft::Parking::Ref(parked) => parked,
            other => panic!("{other:?}"),
        };
        assert_eq!(parked.files, ["src/a.md", "src/b.md", "src/new/d.md"]);
        drop((draft, work_tree));

        // Another container: nothing is left but the remote.
        for folder in ["draft.git", "tree"] {
            fs::remove_dir_all(scene.folder.path().join(folder)).expect("removed");
        }
        let (mut draft, work_tree) = scene.start();
        assert_eq!(scene.read("src/c.md"), None);
        // Somebody is at work there already.
        scene.write("src/new/d.md", "other work");
        let taken = Workshop::take_up_parked(&mut draft, &work_tree, &parked, None).expect("taken");
        assert_eq!(taken.commits, 1);
        let left: Vec<_> = taken.left.iter().map(|left| left.what.as_str()).collect();
        assert_eq!(left, ["src/new/d.md"]);
        assert_eq!(scene.read("src/a.md").as_deref(), Some("by hand"));
        assert_eq!(scene.read("src/b.md"), None);
        assert_eq!(scene.read("src/c.md").as_deref(), Some("committed"));
        assert_eq!(scene.read("src/new/d.md").as_deref(), Some("other work"));
        // By hand, and not a commit: also at the start after that.
        drop((draft, work_tree));
        let (draft, work_tree) = scene.start();
        assert_eq!(
            everything(&draft, &work_tree),
            ["src/a.md", "src/b.md", "src/new/d.md"]
        );
    }

    #[test]
    fn what_is_too_large_is_not_even_read() {
        let scene = Scene::begin(&SITE);
        let (draft, work_tree) = scene.start();
        scene.write("src/large.md", &"x".repeat(11));
        std::os::unix::fs::symlink("a.md", scene.at("src/link")).expect("linked");
        let policy = Policy {
            max_file_bytes: Some(10),
            ..Policy::default()
        };
        let paths = everything(&draft, &work_tree).into_iter().collect();
        let gathered = gather(&draft, &work_tree, &paths, Room::of(&policy)).expect("gathered");
        assert!(
            matches!(
                gathered.as_slice(),
                [
                    ByHand {
                        after: Found::TooLarge { bytes: 11 },
                        ..
                    },
                    ByHand {
                        after: Found::Node(Node::Symlink(_)),
                        ..
                    }
                ]
            ),
            "{gathered:?}"
        );
        assert!(Path::new(&scene.at("src/large.md")).exists());
    }
}
