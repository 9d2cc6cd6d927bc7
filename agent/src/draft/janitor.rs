//! What a crash may have left in the clone, and how it is cleared before anything else happens.
//!
//! A killed clone opens as a valid repository with files missing: clones are made beside and renamed, so whatever is
//! in the staging folder is rubbish. A killed commit leaves `*.lock` files that block every later one: nobody but us
//! writes here and the environment's own lock is held, so every such file is stale.

use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use git2::Repository;
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::{DraftError, Remote};
use crate::isolation::folders;

/// The file in the git directory that says what this is a clone of.
const CLONE_NOTE: &str = "edit-clone.json";

/// The file in the git directory that is there while we move a branch of somebody else's repository on this machine. It
/// names the lock that we hold there.
const LOCK_NOTE: &str = "edit-lock";

/// What a finished clone is a clone of.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CloneNote {
    pub(super) remote: String,
    pub(super) published_branch: String,
}

/// Removes half clones, half-written files and stale locks.
pub(super) fn clean(git_directory: &Path, staging: &Path) -> Result<(), DraftError> {
    fs::create_dir_all(staging).map_err(|error| file_error("make", staging, error))?;
    // What is in it, not the folder: the work tree's writer may hold it open while the draft is opened anew.
    for entry in fs::read_dir(staging).map_err(|error| file_error("read", staging, error))? {
        let path = entry
            .map_err(|error| file_error("read", staging, error))?
            .path();
        let removed = if path.is_dir() && !path.is_symlink() {
            folders::remove(&path)
        } else {
            fs::remove_file(&path)
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                // A folder may hold what the site has made so deep that nobody can remove it, and is only rubbish. A clone that
                // is in the way is found by whoever makes the next one.
                tracing::warn!(%error, path = %path.display(), "what an earlier start has left could not be cleared");
            }
            _ => {}
        }
    }
    remove_noted_lock(git_directory)?;
    remove_stale_locks(git_directory)
}

/// Removes every lock in a git directory in which nobody is at work.
pub(crate) fn remove_stale_locks(git_directory: &Path) -> Result<(), DraftError> {
    for folder in ["", "refs", "logs"] {
        remove_locks(&git_directory.join(folder), !folder.is_empty())?;
    }
    Ok(())
}

/// Moves a branch elsewhere with a note of its lock: if we die meanwhile, the lock is known for ours at the next start, and
/// does not stop every later push.
pub(super) fn with_noted_lock<T>(
    git_directory: &Path,
    lock: &Path,
    work: impl FnOnce() -> T,
) -> Result<T, DraftError> {
    let note = git_directory.join(LOCK_NOTE);
    let text = lock.as_os_str().as_bytes();
    fs::write(&note, text).map_err(|error| file_error("write", &note, error))?;
    let done = work();
    fs::remove_file(&note).map_err(|error| file_error("remove", &note, error))?;
    Ok(done)
}

/// Removes the lock that we left elsewhere.
fn remove_noted_lock(git_directory: &Path) -> Result<(), DraftError> {
    let note = git_directory.join(LOCK_NOTE);
    let lock = match fs::read(&note) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        text => text.map_err(|error| file_error("read", &note, error))?,
    };
    // Half a note is of no lock yet: it is written first.
    let lock = Path::new(OsStr::from_bytes(&lock));
    if lock.extension() == Some(OsStr::new("lock")) && lock.is_file() {
        tracing::info!(lock = %lock.display(), "a crash left a lock of ours; removed");
        fs::remove_file(lock).map_err(|error| file_error("remove", lock, error))?;
    }
    fs::remove_file(&note).map_err(|error| file_error("remove", &note, error))
}

fn remove_locks(folder: &Path, recurse: bool) -> Result<(), DraftError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|error| file_error("read", folder, error))?,
    };
    for entry in entries {
        let path = entry
            .map_err(|error| file_error("read", folder, error))?
            .path();
        if path.is_dir() && recurse {
            remove_locks(&path, true)?;
        } else if path.extension() == Some(OsStr::new("lock")) && path.is_file() {
            tracing::info!(lock = %path.display(), "a crash left a lock; removed");
            fs::remove_file(&path).map_err(|error| file_error("remove", &path, error))?;
        }
    }
    Ok(())
}

/// Opens a finished clone; none if there is none yet.
pub(super) fn open_whole(
    git_directory: &Path,
    remote: &Remote,
) -> Result<Option<Repository>, DraftError> {
    if !git_directory.exists() {
        return Ok(None);
    }
    let note = read_note(git_directory)?;
    if note.remote != remote.to_string() {
        return Err(DraftError::OtherClone {
            path: git_directory.to_owned(),
            of: note.remote,
            wanted: remote.to_string(),
        });
    }
    open(git_directory)
        .map(Some)
        .map_err(|source| DraftError::Local {
            operation: "open the clone",
            path: git_directory.to_owned(),
            source,
        })
}

/// Opens a git directory of ours, with a configuration of ours: nothing in a file can redirect a push or run a hook.
pub(super) fn open(git_directory: &Path) -> Result<Repository, git2::Error> {
    let repository = Repository::open_bare(git_directory)?;
    repository.set_config(&own_configuration()?)?;
    Ok(repository)
}

/// Says only that no redirect is followed, which libgit2 else does when it connects. It reads nothing but files, so this is
/// one in memory for as long as it is read.
fn own_configuration() -> Result<git2::Config, git2::Error> {
    let make = || -> std::io::Result<fs::File> {
        let mut file = fs::File::from(memfd_create("git-config", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(b"[http]\n\tfollowRedirects = false\n")?;
        Ok(file)
    };
    let file = make().map_err(|error| git2::Error::from_str(&error.to_string()))?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    git2::Config::open(Path::new(&path))?.snapshot()
}

pub(super) fn read_note(git_directory: &Path) -> Result<CloneNote, DraftError> {
    let path = git_directory.join(CLONE_NOTE);
    let text = fs::read(&path).map_err(|error| file_error("read", &path, error))?;
    serde_json::from_slice(&text).map_err(|error| file_error("read", &path, error.into()))
}

pub(super) fn write_note(git_directory: &Path, note: &CloneNote) -> Result<(), DraftError> {
    let path = git_directory.join(CLONE_NOTE);
    let text = serde_json::to_vec(note).expect("a note of texts is JSON");
    fs::write(&path, text).map_err(|error| file_error("write", &path, error))
}

pub(super) fn file_error(
    operation: &'static str,
    path: &Path,
    source: std::io::Error,
) -> DraftError {
    DraftError::File {
        operation,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_that_a_crash_left_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let git = folder.path().join("draft.git");
        let heads = git.join("refs/heads/edit");
        fs::create_dir_all(&heads).expect("made");
        for file in [
            "HEAD",
            "HEAD.lock",
            "refs/heads/edit/local",
            "refs/heads/edit/local.lock",
            "packed-refs.lock",
        ] {
            fs::write(git.join(file), "x").expect("written");
        }
        clean(&git, &folder.path().join("staging")).expect("cleaned");
        for (file, stays) in [
            ("HEAD", true),
            ("HEAD.lock", false),
            ("refs/heads/edit/local", true),
            ("refs/heads/edit/local.lock", false),
            ("packed-refs.lock", false),
        ] {
            assert_eq!(git.join(file).exists(), stays, "{file}");
        }
    }

    #[test]
    fn our_git_directories_have_our_configuration_and_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        Repository::init_bare(folder.path()).expect("made");
        fs::write(folder.path().join("config"), "[user]\n\tname = evil\n").expect("written");
        let configuration = open(folder.path())
            .and_then(|repository| repository.config()?.snapshot())
            .expect("open");
        assert_eq!(
            configuration.get_str("http.followRedirects").ok(),
            Some("false")
        );
        assert!(configuration.get_str("user.name").is_err());
    }

    #[test]
    fn half_a_clone_is_never_taken_for_a_whole_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let staging = folder.path().join("staging");
        Repository::init_bare(staging.join("clone")).expect("half a clone");
        clean(&folder.path().join("draft.git"), &staging).expect("cleaned");
        assert!(staging.read_dir().expect("still there").next().is_none());
    }
}
