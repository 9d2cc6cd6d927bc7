//! What is nobody's work: what is installed, generated or ignored, and what editors leave behind.

use std::collections::HashMap;
use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::super::{Standing, WorkTree};
use crate::draft::Node;

/// The file in which a folder says what git does not keep.
pub(super) const FILE_NAME: &str = ".gitignore";
/// Bytes of such a file that are read: it is written by people, and every line costs time at every path.
const FILE_MAX_BYTES: u64 = 256 * 1024;

/// Folders that hold what is installed or generated, or git's own, wherever they are.
const FOLDERS: [&str; 3] = ["node_modules", ".astro", ".git"];
/// The folder of the root in which the built site is.
const BUILT: &str = "dist";

/// What the site's own `.gitignore` files leave out. Each is read when a path in its folder is first asked about.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    work_tree: &'a WorkTree,
    folders: HashMap<String, Gitignore>,
}

impl<'a> Rules<'a> {
    pub(super) fn of(work_tree: &'a WorkTree) -> Self {
        Self {
            work_tree,
            folders: HashMap::new(),
        }
    }

    /// Whether a path, or a folder in which it is, is left out. It may be work all the same, if git keeps it.
    pub(super) fn leave_out(&mut self, path: &str, is_folder: bool) -> bool {
        if path.is_empty() {
            return false;
        }
        let mut ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
        ends.push(path.len());
        ends.into_iter().any(|end| {
            let part = &path[..end];
            self.leave_out_itself(part, is_folder || end < path.len())
        })
    }

    fn leave_out_itself(&mut self, path: &str, is_folder: bool) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        if is_folder && (FOLDERS.contains(&name) || path == BUILT) {
            return true;
        }
        // The nearest file that says something about it has the last word.
        let mut folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        loop {
            let inside = path[folder.len()..].trim_start_matches('/');
            match self.of_folder(folder).matched(Path::new(inside), is_folder) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None if folder.is_empty() => return false,
                Match::None => {
                    folder = folder.rsplit_once('/').map_or("", |(above, _)| above);
                }
            }
        }
    }

    fn of_folder(&mut self, folder: &str) -> &Gitignore {
        if !self.folders.contains_key(folder) {
            let read = read(self.work_tree, folder);
            self.folders.insert(folder.to_owned(), read);
        }
        &self.folders[folder]
    }
}

fn read(work_tree: &WorkTree, folder: &str) -> Gitignore {
    let path = if folder.is_empty() {
        FILE_NAME.to_owned()
    } else {
        format!("{folder}/{FILE_NAME}")
    };
    let fits = work_tree.standing(&path).is_ok_and(
        |found| matches!(found, Standing::File { bytes, .. } if bytes <= FILE_MAX_BYTES),
    );
    if !fits {
        return Gitignore::empty();
    }
    let Ok(Node::File(version)) = work_tree.read(&path) else {
        return Gitignore::empty();
    };
    let mut builder = GitignoreBuilder::new("");
    for line in String::from_utf8_lossy(&version.content).lines() {
        // As git does: a line that makes no sense says nothing.
        builder.add_line(None, line).ok();
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}

/// Whether a path is never anybody's work: what editors and desktops leave behind, and names that are no text, which are
/// shown by a substitute and so are no names of files.
pub(super) fn is_never_work(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let ends = |ending: &str| name.ends_with(ending);
    ends("~")
        || name.starts_with(".#")
        || (name.starts_with('#') && ends("#"))
        || (name.starts_with('.') && [".swp", ".swo", ".swx"].iter().any(|ending| ends(ending)))
        || ends(".swp")
        || ends("___jb_tmp___")
        || ends("___jb_old___")
        || name.starts_with(".goutputstream-")
        // vim tries with it whether a folder can be written.
        || name == "4913"
        || name == ".DS_Store"
        || name == "Thumbs.db"
        || path.contains('\u{fffd}')
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{file, places};
    use super::*;

    #[test]
    fn what_git_would_leave_out_is_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let places = places(folder.path());
        WorkTree::create(
            &places,
            &[
                file(".gitignore", "*.log\n/build/\n!kept.log\n.env\n[broken\n"),
                file("src/.gitignore", "!*.log\nscratch\n"),
                file("src/deep/x", ""),
            ],
        )
        .expect("made");
        let work_tree = WorkTree::open(&places, &[]).expect("open");
        let mut rules = Rules::of(&work_tree);
        for (path, expected) in [
            ("", false),
            ("a.log", true),
            ("kept.log", false),
            ("public/a.log", true),
            ("build/index.html", true),
            ("src/build/index.ts", false),
            (".env", true),
            ("src/a.log", false),
            ("src/deep/a.log", false),
            ("src/scratch", true),
            ("src/deep/scratch/notes.md", true),
            ("node_modules/astro/package.json", true),
            ("packages/site/node_modules/x", true),
            (".astro/types.d.ts", true),
            ("dist/index.html", true),
            ("src/dist/index.ts", false),
            ("dist", false),
            ("src/pages/index.astro", false),
        ] {
            assert_eq!(rules.leave_out(path, false), expected, "{path}");
        }
        assert!(rules.leave_out("dist", true));
        assert!(!rules.leave_out("src", true));
    }

    #[test]
    fn what_editors_leave_behind_is_nobodys_work() {
        for (path, expected) in [
            ("src/pages/index.astro~", true),
            ("src/.#index.astro", true),
            ("src/#index.astro#", true),
            ("src/pages/.index.astro.swp", true),
            ("src/pages/4913", true),
            ("public/.DS_Store", true),
            ("caf\u{fffd}.md", true),
            ("src/pages/4913.md", false),
            (".env", false),
            ("src/pages/index.astro", false),
        ] {
            assert_eq!(is_never_work(path), expected, "{path}");
        }
    }
}
