//! Files that change hands between the daemon, which made them or has to remove them, and the users that work in them.
//!
//! The daemon may give away any file, and may write only what its mode allows. What the site has made narrower than its group is taken back
//! before it is written over or removed. Every step goes through a handle of the folder: the site could put a symlink in the way.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstatat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, geteuid, unlinkat};

/// How deep folders are followed. A file system allows more; nothing that is meant does.
const DEPTH_MAX: usize = 128;

/// Gives a folder that is ours, with everything in it, to `uid`. Its members of `gid` go on to share it.
pub(super) fn give(folder: &Path, uid: Uid, gid: Gid) -> io::Result<()> {
    let handle = open(folder, FOLDER, Mode::empty())?;
    each(&handle, 0, &mut |parent, name, _| {
        Ok(fchownat(
            parent,
            name,
            Some(uid),
            Some(gid),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )?)
    })?;
    Ok(fchownat(
        &handle,
        c"",
        Some(uid),
        Some(gid),
        AtFlags::AT_EMPTY_PATH,
    )?)
}

/// Reads a file of a folder that is not ours alone: what lies there may be a pipe that nobody writes, or have no end.
pub(crate) fn read_small(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = File::from(open(path, flags, Mode::empty())?);
    let found = file.metadata()?;
    if !found.is_file() || found.len() > max_bytes {
        return Err(io::Error::other(format!(
            "it is no file, or has more than {max_bytes} bytes"
        )));
    }
    let mut content = Vec::new();
    file.take(max_bytes).read_to_end(&mut content)?;
    Ok(content)
}

/// Makes a file anew in a folder that is not ours alone, through no link, whatever stood there.
pub(crate) fn put(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let make = || -> io::Result<OwnedFd> {
        let folder = open(folder, FOLDER, Mode::empty())?;
        match unlinkat(&folder, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(
            &folder,
            name,
            flags,
            Mode::from_bits_truncate(0o666),
        )?)
    };
    let file = match make() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            take(folder)?;
            make()
        }
        opened => opened,
    }?;
    File::from(file).write_all(content)
}

/// Makes a folder one that we can write in, if it is not; a link to one is none.
pub(crate) fn take(folder: &Path) -> io::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    adopt_folder(&open(folder, flags, Mode::empty())?)
}

/// Makes the folder behind a handle one that we can write in, if it is not.
pub(crate) fn adopt_folder(folder: &OwnedFd) -> io::Result<()> {
    adopt(folder, c"", AtFlags::AT_EMPTY_PATH, 0o2770)
}

/// Makes a file one that we can read and write, if it is not.
pub(crate) fn adopt_file(parent: &OwnedFd, name: &std::ffi::OsStr) -> io::Result<()> {
    let found = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Err(Errno::EACCES.into());
    }
    let mode = if found.st_mode & 0o111 == 0 {
        0o660
    } else {
        0o770
    };
    let name = CString::new(name.as_bytes())?;
    adopt(parent, &name, AtFlags::AT_SYMLINK_NOFOLLOW, mode)
}

fn adopt(at: &OwnedFd, name: &CStr, flags: AtFlags, mode: u32) -> io::Result<()> {
    fchownat(at, name, Some(geteuid()), None, flags)?;
    // By the way of /proc, because a handle that was opened for its path alone takes no mode. It is ours now: nobody else can
    // put anything in its place but who may write in its parent, and a mode is all that could be set there.
    if name.is_empty() {
        let way = format!("/proc/self/fd/{}", at.as_raw_fd());
        std::fs::set_permissions(way, std::os::unix::fs::PermissionsExt::from_mode(mode))
    } else {
        Ok(fchmodat(
            at,
            name,
            Mode::from_bits_truncate(mode),
            FchmodatFlags::NoFollowSymlink,
        )?)
    }
}

/// Removes a folder, whatever whoever worked in it made of its modes.
pub(crate) fn remove(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            take_back(folder)?;
            std::fs::remove_dir_all(folder)
        }
        removed => removed,
    }
}

/// Makes every folder below one that we can write in.
fn take_back(folder: &Path) -> io::Result<()> {
    let path_only = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    take(folder)?;
    let handle = open(folder, FOLDER, Mode::empty())?;
    each(&handle, 0, &mut |parent, name, kind| {
        if kind == Kind::Folder {
            adopt_folder(&openat(parent, name, path_only, Mode::empty())?)?;
        }
        Ok(())
    })
}

const FOLDER: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Folder,
    Other,
}

/// Does something with everything below a folder; with a folder before what is in it.
fn each(
    folder: &OwnedFd,
    depth: usize,
    work: &mut impl FnMut(&OwnedFd, &CStr, Kind) -> io::Result<()>,
) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(Errno::ELOOP.into());
    }
    let mut names = Vec::new();
    for entry in Dir::from_fd(openat(folder, c".", FOLDER, Mode::empty())?)?.iter() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    for (name, kind) in names {
        let kind = match kind {
            Some(Type::Directory) => Kind::Folder,
            Some(_) => Kind::Other,
            None => kind_of(folder, &name)?,
        };
        work(folder, &name, kind)?;
        if kind == Kind::Folder {
            let below = openat(folder, name.as_c_str(), FOLDER, Mode::empty())?;
            each(&below, depth + 1, work)?;
        }
    }
    Ok(())
}

fn kind_of(folder: &impl AsFd, name: &CStr) -> io::Result<Kind> {
    let found = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let is_folder = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
    Ok(if is_folder { Kind::Folder } else { Kind::Other })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn only_a_small_file_is_read_and_nobody_waits_for_a_pipe() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("small"), "text").expect("written");
        assert_eq!(read_small(&path("small"), 4).expect("read"), b"text");
        assert!(read_small(&path("small"), 3).is_err(), "it is too large");
        mkfifo(&path("pipe"), Mode::from_bits_truncate(0o600)).expect("made");
        assert!(read_small(&path("pipe"), 4).is_err());
        symlink("/dev/zero", path("endless")).expect("linked");
        assert!(read_small(&path("endless"), 4).is_err());
        assert!(read_small(folder.path(), 4).is_err());
    }

    #[test]
    fn what_is_put_somewhere_replaces_a_link_and_not_what_it_leads_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let (inner, canary) = (folder.path().join("inner"), folder.path().join("canary"));
        fs::create_dir(&inner).expect("made");
        fs::write(&canary, "untouched").expect("written");
        symlink(&canary, inner.join("mark")).expect("linked");
        put(&inner, "mark", b"new").expect("put");
        assert_eq!(fs::read_to_string(inner.join("mark")).expect("read"), "new");
        assert_eq!(fs::read_to_string(&canary).expect("read"), "untouched");
        let link = folder.path().join("link");
        symlink(&inner, &link).expect("linked");
        assert!(
            put(&link, "mark", b"other").is_err(),
            "a folder, and no link to one"
        );
    }

    #[test]
    fn a_folder_goes_whatever_was_made_of_its_modes() {
        let folder = tempfile::tempdir().expect("a folder");
        let rubbish = folder.path().join("rubbish");
        fs::create_dir_all(rubbish.join("a/b")).expect("made");
        fs::write(rubbish.join("a/b/file"), "x").expect("written");
        for narrow in ["a/b", "a"] {
            fs::set_permissions(rubbish.join(narrow), fs::Permissions::from_mode(0o000))
                .expect("set");
        }
        remove(&rubbish).expect("removed");
        assert!(!rubbish.exists());
    }
}
