//! Compares what stands in the work tree with the draft's tip.

use std::collections::BTreeSet;

use super::Suspects;
use super::rules::{self, Rules};
use crate::draft::Node;
use crate::work_tree::{Standing, WorkTree, WorkTreeError};

/// Paths that are listed. With more of them somebody has put something into the work tree that is no part of a site; what
/// matters is said by these already.
const LISTED_MAX: usize = 10_000;
/// Files that one look finds at most, for the same reason.
const FOUND_MAX: usize = 200_000;

/// Which paths are not as the tip has them, sorted: of the suspects, and of those that were `known`.
///
/// `node` is what the tip has at a path, `below` the files that it has below a folder (`""` for all).
pub(crate) fn examine<E: From<WorkTreeError>>(
    work_tree: &WorkTree,
    node: impl Fn(&str) -> Result<Node, E>,
    below: impl Fn(&str) -> Result<Vec<String>, E>,
    suspects: &Suspects,
    known: &BTreeSet<String>,
) -> Result<BTreeSet<String>, E> {
    let mut rules = Rules::of(work_tree);
    let everything = BTreeSet::from([String::new()]);
    let from = match suspects {
        Suspects::Everything => &everything,
        Suspects::Paths(paths) => paths,
    };
    // What was known is looked at again whether it is suspect or not: the tip may have come to it.
    let mut candidates = known.clone();
    for path in from {
        // Something may have been a file here and a folder there.
        candidates.extend(below(path)?);
        if !path.is_empty() {
            candidates.insert(path.clone());
        }
        candidates.extend(files_below(work_tree, &mut rules, path));
    }
    let mut changed = BTreeSet::new();
    for path in candidates {
        if rules::is_never_work(&path) {
            continue;
        }
        let tip = node(&path)?;
        if is_as(work_tree, &path, &tip) {
            continue;
        }
        if tip == Node::Absent && (rules.leave_out(&path, false) || in_submodule(&node, &path)?) {
            continue;
        }
        changed.insert(path);
        if changed.len() == LISTED_MAX {
            tracing::warn!(
                "more than {LISTED_MAX} files were changed by hand; the rest is not listed"
            );
            break;
        }
    }
    Ok(changed)
}

fn is_as(work_tree: &WorkTree, path: &str, node: &Node) -> bool {
    work_tree.is(path, node).unwrap_or_else(|error| {
        // What cannot be read is not what the agent wrote there.
        tracing::debug!(error = %crate::chain(&error), "a file of the work tree cannot be read");
        false
    })
}

/// What is in a submodule belongs to another repository.
fn in_submodule<E>(node: impl Fn(&str) -> Result<Node, E>, path: &str) -> Result<bool, E> {
    for (end, _) in path.match_indices('/') {
        if node(&path[..end])? == Node::Submodule {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The files below a folder that are part of the site, as paths of the repository; none where no folder stands.
fn files_below(work_tree: &WorkTree, rules: &mut Rules<'_>, folder: &str) -> BTreeSet<String> {
    let stands = folder.is_empty()
        || work_tree
            .standing(folder)
            .is_ok_and(|found| found == Standing::Folder);
    if !stands || rules.leave_out(folder, true) {
        return BTreeSet::new();
    }
    walk(work_tree, folder, |path| !rules.leave_out(path, true))
}

/// All files below a folder, whatever they are.
pub(crate) fn all_below(work_tree: &WorkTree, folder: &str) -> BTreeSet<String> {
    walk(work_tree, folder, |_| true)
}

fn walk(
    work_tree: &WorkTree,
    folder: &str,
    mut enters: impl FnMut(&str) -> bool,
) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in entries(work_tree, &folder) {
            if !entry.is_folder {
                files.insert(entry.path);
            } else if enters(&entry.path) {
                folders.push(entry.path);
            }
        }
        if files.len() > FOUND_MAX {
            tracing::warn!(
                "the work tree has more than {FOUND_MAX} files; the rest is not looked at"
            );
            break;
        }
    }
    files
}

/// What is in a folder.
#[derive(Debug)]
pub(super) struct FolderEntry {
    /// As a path of the repository.
    pub(super) path: String,
    /// Whether it is a folder itself, and no link to one.
    pub(super) is_folder: bool,
}

/// The entries of a folder whose names are text; none if it is gone. Names are all that is taken from here: what stands at them
/// is asked of the kernel through no symlink, so that a folder that is swapped for one leads nowhere.
pub(super) fn entries(work_tree: &WorkTree, folder: &str) -> Vec<FolderEntry> {
    let Ok(read) = std::fs::read_dir(work_tree.root().join(folder)) else {
        return Vec::new();
    };
    read.flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some(FolderEntry {
                path: if folder.is_empty() {
                    name
                } else {
                    format!("{folder}/{name}")
                },
                is_folder: entry.file_type().ok()?.is_dir(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::PathBuf;

    use super::super::super::tests::{file, places};
    use super::*;
    use crate::draft::PathChange;

    /// A work tree, and the tip that it showed when it was made.
    struct Scene {
        _folder: tempfile::TempDir,
        root: PathBuf,
        work_tree: WorkTree,
        tip: BTreeMap<String, Node>,
    }

    impl Scene {
        fn of(tip: &[PathChange]) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let places = places(folder.path());
            WorkTree::create(&places, tip).expect("made");
            Self {
                root: places.root.clone(),
                work_tree: WorkTree::open(&places, &[]).expect("open"),
                tip: tip
                    .iter()
                    .map(|change| (change.path.clone(), change.after.clone()))
                    .collect(),
                _folder: folder,
            }
        }

        fn examine(&self, suspects: &Suspects, known: &[&str]) -> Vec<String> {
            let known = known.iter().map(|path| (*path).to_owned()).collect();
            let node = |path: &str| -> Result<Node, WorkTreeError> {
                Ok(self.tip.get(path).cloned().unwrap_or(Node::Absent))
            };
            let below = |folder: &str| {
                let prefix = if folder.is_empty() {
                    String::new()
                } else {
                    format!("{folder}/")
                };
                Ok(self
                    .tip
                    .keys()
                    .filter(|path| path.starts_with(&prefix))
                    .cloned()
                    .collect())
            };
            examine(&self.work_tree, node, below, suspects, &known)
                .expect("examined")
                .into_iter()
                .collect()
        }

        fn suspect(&self, paths: &[&str]) -> Vec<String> {
            let paths = paths.iter().map(|path| (*path).to_owned()).collect();
            self.examine(&Suspects::Paths(paths), &[])
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.root.join(path);
            fs::create_dir_all(path.parent().expect("below")).expect("made");
            fs::write(path, text).expect("written");
        }
    }

    fn site() -> Scene {
        Scene::of(&[
            file(".gitignore", "*.log\nkept.json\n"),
            file("kept.json", "{}"),
            file("src/pages/a.md", "a"),
            file("src/pages/b.md", "b"),
            file("src/data/c.md", "c"),
        ])
    }

    #[test]
    fn every_way_to_change_a_file_is_found_and_nothing_else() {
        let scene = site();
        assert!(scene.examine(&Suspects::Everything, &[]).is_empty());

        scene.write("src/pages/a.md", "A");
        scene.write("src/pages/new.md", "new");
        fs::remove_file(scene.root.join("src/pages/b.md")).expect("removed");
        fs::set_permissions(
            scene.root.join("src/data/c.md"),
            fs::Permissions::from_mode(0o755),
        )
        .expect("set");
        // Ignored, but the draft has it.
        scene.write("kept.json", "[]");
        symlink("pages", scene.root.join("src/link")).expect("linked");
        for (path, text) in [
            ("debug.log", "ignored"),
            ("node_modules/astro/index.js", "installed"),
            ("dist/index.html", "built"),
            (".astro/types.d.ts", "generated"),
            ("src/pages/a.md~", "left behind"),
            ("src/empty/.DS_Store", "left behind"),
        ] {
            scene.write(path, text);
        }
        let all = [
            "kept.json",
            "src/data/c.md",
            "src/link",
            "src/pages/a.md",
            "src/pages/b.md",
            "src/pages/new.md",
        ];
        assert_eq!(scene.examine(&Suspects::Everything, &[]), all);
        assert_eq!(scene.suspect(&["src", "kept.json", "debug.log"]), all);
        assert_eq!(scene.suspect(&["src/pages/a.md"]), ["src/pages/a.md"]);
        assert!(
            scene
                .suspect(&["node_modules", "dist", "src/pages/a.md~", "nowhere/at.all"])
                .is_empty()
        );
    }

    #[test]
    fn what_is_as_the_tip_again_is_no_longer_known() {
        let mut scene = site();
        scene.write("src/pages/a.md", "A");
        scene.write("src/pages/b.md", "B");
        let known = ["src/pages/a.md", "src/pages/b.md"];
        assert_eq!(scene.examine(&Suspects::default(), &known), known);
        // The hand took back one, and the tip came to the other.
        scene.write("src/pages/a.md", "a");
        scene.tip.insert(
            "src/pages/b.md".to_owned(),
            file("src/pages/b.md", "B").after,
        );
        assert!(scene.examine(&Suspects::default(), &known).is_empty());
    }

    #[test]
    fn a_folder_that_is_gone_or_became_a_file_has_lost_its_files() {
        let scene = site();
        fs::remove_dir_all(scene.root.join("src/pages")).expect("removed");
        assert_eq!(
            scene.suspect(&["src/pages"]),
            ["src/pages/a.md", "src/pages/b.md"]
        );
        fs::write(scene.root.join("src/pages"), "a file").expect("written");
        assert_eq!(
            scene.suspect(&["src/pages"]),
            ["src/pages", "src/pages/a.md", "src/pages/b.md"]
        );
        fs::remove_file(scene.root.join("src/pages")).expect("removed");
        symlink("data", scene.root.join("src/pages")).expect("linked");
        assert_eq!(
            scene.suspect(&["src/pages"]),
            ["src/pages", "src/pages/a.md", "src/pages/b.md"]
        );
    }

    #[test]
    fn what_is_in_a_submodule_is_not_ours() {
        let scene = Scene::of(&[PathChange {
            path: "theme".to_owned(),
            after: Node::Submodule,
        }]);
        assert!(scene.examine(&Suspects::Everything, &[]).is_empty());
        scene.write("theme/index.css", "theirs");
        scene.write("theme/deep/index.css", "theirs");
        assert!(scene.examine(&Suspects::Everything, &[]).is_empty());
        assert!(scene.suspect(&["theme", "theme/deep"]).is_empty());
    }
}
