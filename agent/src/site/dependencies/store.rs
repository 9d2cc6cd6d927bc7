//! Whole `node_modules`, kept under the hash of what they depend on, and linked file by file.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Folders that belong to one site, not to its dependencies.
const NOT_SHARED: &[&str] = &[".vite", ".astro", ".cache", super::MARK];

/// Kept `node_modules`. The least recently used go when there are more.
const KEPT_MAX: usize = 20;

/// The store. Several environments may use it at once: an entry is made beside and renamed, and never changed.
#[derive(Debug, Clone)]
pub(super) struct Store {
    root: PathBuf,
}

impl Store {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Whether something is kept under `key`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.root.join(key).is_dir()
    }

    /// Makes `target` from what is kept under `key`.
    pub(super) fn take(&self, key: &str, target: &Path) -> io::Result<()> {
        let kept = self.root.join(key);
        // The time says when it was last used.
        if let Ok(folder) = fs::File::open(&kept) {
            folder.set_modified(std::time::SystemTime::now()).ok();
        }
        link_tree(&kept, target, NOT_SHARED)
    }

    /// Keeps `source`, which is marked as made for `key`.
    pub(super) fn keep(&self, key: &str, source: &Path) -> io::Result<()> {
        if self.has(key) || !source.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(&self.root)?;
        let beside = tempfile::Builder::new()
            .prefix("incoming-")
            .tempdir_in(&self.root)?;
        let made = beside.path().join("node_modules");
        link_tree(source, &made, NOT_SHARED)?;
        if fs::read_to_string(source.join(super::MARK)).ok().as_deref() != Some(key) {
            return Err(io::Error::other("they were replaced meanwhile"));
        }
        match fs::rename(&made, self.root.join(key)) {
            Err(error) if !self.has(key) => return Err(error),
            _ => {} // Somebody else was faster with the same.
        }
        self.prune()
    }

    fn prune(&self) -> io::Result<()> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with("incoming-") {
                kept.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        kept.sort();
        let surplus = kept.len().saturating_sub(KEPT_MAX);
        kept.iter()
            .take(surplus)
            .try_for_each(|(_, path)| fs::remove_dir_all(path))
    }
}

/// Whether what is installed is the lock file's alone. Workspaces and packages by path point into the repository.
pub(super) fn can_be_shared(root: &Path) -> bool {
    let Ok(manifest) = fs::read_to_string(root.join("package.json")) else {
        return false;
    };
    ![
        "\"workspaces\"",
        "\"file:",
        "\"link:",
        "\"workspace:",
        "\"portal:",
        "\"patch:",
    ]
    .iter()
    .any(|sign| manifest.contains(sign))
        && !root.join("pnpm-workspace.yaml").exists()
}

/// Repeats what is installed in another folder, without what belongs to one site alone.
pub(in crate::site) fn link_installed(from: &Path, to: &Path) -> io::Result<()> {
    link_tree(from, to, NOT_SHARED)
}

/// Repeats a tree of folders with hard links to the same files; copies where a link cannot be (another file system).
fn link_tree(from: &Path, to: &Path, left_out: &[&str]) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if left_out.iter().any(|own| name == OsStr::new(own)) {
            continue;
        }
        let target = to.join(&name);
        if kind.is_dir() {
            // Further down a folder of such a name is a package's own.
            link_tree(&entry.path(), &target, &[])?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, &target)?;
        } else {
            match fs::hard_link(entry.path(), &target) {
                // Copied over, it would be emptied wherever else it is linked.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
                Err(_) => drop(fs::copy(entry.path(), &target)?),
                Ok(()) => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_whole_without_what_belongs_to_the_site() {
        let folder = tempfile::tempdir().expect("a folder");
        let source = folder.path().join("node_modules");
        fs::create_dir_all(source.join("astro/dist")).expect("made");
        fs::create_dir_all(source.join(".vite/deps")).expect("made");
        fs::create_dir_all(source.join(".bin")).expect("made");
        fs::create_dir_all(source.join("astro/dist/.vite")).expect("made");
        fs::write(source.join("astro/dist/index.js"), "code").expect("written");
        symlink("../astro/dist/index.js", source.join(".bin/astro")).expect("linked");
        fs::write(source.join(crate::site::dependencies::MARK), "k").expect("written");
        let store = Store::new(&folder.path().join("store"));
        assert!(!store.has("k"));
        store.keep("k", &source).expect("kept");
        let target = folder.path().join("other/node_modules");
        fs::create_dir(folder.path().join("other")).expect("made");
        store.take("k", &target).expect("taken");
        assert_eq!(
            fs::read_to_string(target.join(".bin/astro")).expect("through the link"),
            "code"
        );
        assert!(!target.join(".vite").exists());
        assert!(target.join("astro/dist/.vite").is_dir(), "a package's own");
        store
            .keep("k", &source)
            .expect("keeping it again is nothing");
        store
            .keep("other", &source)
            .expect_err("it was made for something else");
        assert_eq!(
            fs::read_dir(folder.path().join("store"))
                .expect("there")
                .count(),
            1,
            "nothing is left beside"
        );
    }

    #[test]
    fn a_site_with_packages_of_its_own_repository_shares_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        for (manifest, shared) in [
            (r#"{"dependencies":{"astro":"5"}}"#, true),
            (r#"{"workspaces":["x"]}"#, false),
            (r#"{"dependencies":{"x":"file:../x"}}"#, false),
        ] {
            fs::write(folder.path().join("package.json"), manifest).expect("written");
            assert_eq!(can_be_shared(folder.path()), shared, "{manifest}");
        }
    }
}
