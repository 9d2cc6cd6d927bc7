//! Writes single files, through no symlink and never half.
//!
//! The site is code that anybody may have written, and it can swap a folder for a symlink between our look and our
//! write. So the parent folder is resolved by the kernel, below the root and through no symlink (`openat2`), and
//! everything after that goes through the handle that came back. A kernel without `openat2` is refused: there is no
//! fallback that is as safe.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{
    AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat, renameat,
};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, symlinkat, unlinkat};

use super::WorkTreeError;
use crate::change_set::Version;
use crate::draft::Node;
use crate::isolation::folders;

/// A resolution that a concurrent rename disturbed is tried again this often.
const RESOLVE_ATTEMPTS: usize = 32;

/// What stands at a path, unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing, or nothing that can be reached without following a symlink.
    Nothing,
    /// A file.
    File {
        /// Its size.
        bytes: u64,
        /// Whether it can be run.
        executable: bool,
    },
    /// A symbolic link.
    Symlink,
    /// A folder.
    Folder,
    /// What is no part of a site: a socket, a pipe, a device.
    Other,
}

impl Standing {
    /// How this would stand there.
    pub(super) fn of(node: &Node) -> Self {
        match node {
            Node::Absent => Self::Nothing,
            Node::File(version) => Self::File {
                bytes: version.content.len() as u64,
                executable: version.executable,
            },
            Node::Symlink(_) => Self::Symlink,
            Node::Submodule => Self::Folder,
        }
    }
}

/// Writes below one folder.
#[derive(Debug)]
pub(super) struct Writer {
    root: OwnedFd,
    root_path: PathBuf,
    staging: OwnedFd,
    next_name: AtomicU64,
}

impl Writer {
    /// Opens the folder and proves that the kernel can resolve paths safely.
    pub(super) fn open(root: &Path, staging: &Path) -> Result<Self, WorkTreeError> {
        let open_folder = |path: &Path| {
            open(
                path,
                OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
                Mode::empty(),
            )
            .map_err(|error| WorkTreeError::new("open", path, error.into()))
        };
        let writer = Self {
            root: open_folder(root)?,
            root_path: root.to_owned(),
            staging: open_folder(staging)?,
            next_name: AtomicU64::new(0),
        };
        resolve(&writer.root, Path::new(".")).map_err(|error| {
            WorkTreeError::new(
                "resolve paths safely (openat2, Linux 5.6 or newer) in",
                root,
                error.into(),
            )
        })?;
        Ok(writer)
    }

    /// What stands at `path`.
    pub(super) fn read(&self, path: &str) -> Result<Node, WorkTreeError> {
        self.try_read(Path::new(path))
            .map_err(|error| self.error("read", path, error))
    }

    /// What stands at `path`, unread.
    pub(super) fn standing(&self, path: &str) -> Result<Standing, WorkTreeError> {
        let target = Path::new(path);
        let found = match self.parent(target) {
            Ok((parent, name)) => fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW),
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => Ok(
                match SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT {
                    SFlag::S_IFREG => Standing::File {
                        bytes: u64::try_from(found.st_size).unwrap_or(0),
                        executable: found.st_mode & 0o111 != 0,
                    },
                    SFlag::S_IFLNK => Standing::Symlink,
                    SFlag::S_IFDIR => Standing::Folder,
                    _ => Standing::Other,
                },
            ),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV) => {
                Ok(Standing::Nothing)
            }
            Err(error) => Err(self.error("look at", path, error.into())),
        }
    }

    /// Makes `node` stand at `path`.
    pub(super) fn put(&self, path: &str, node: &Node) -> Result<(), WorkTreeError> {
        let target = Path::new(path);
        let put = || match node {
            Node::Absent => self.remove(target),
            Node::File(version) => self.write(target, version),
            Node::Symlink(to) => self.link(target, to),
            Node::Submodule => self.folder(target).map(drop),
        };
        match put() {
            // The site may have made a folder of its own narrower than the group that shares it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && self.adopt(target) => {
                put()
            }
            outcome => outcome,
        }
        .map_err(|error| self.error("write", path, error))
    }

    /// Takes back the folders on the way to a path, as far as they are there. Returns whether that could change anything.
    fn adopt(&self, path: &Path) -> bool {
        let mut adopted = false;
        let mut way = PathBuf::new();
        for component in path.parent().into_iter().flat_map(Path::components) {
            way.push(component);
            match resolve(&self.root, &way) {
                Ok(folder) => adopted |= folders::adopt_folder(&folder).is_ok(),
                Err(_) => break,
            }
        }
        adopted
    }

    fn error(&self, operation: &'static str, path: &str, error: io::Error) -> WorkTreeError {
        WorkTreeError::new(operation, self.root_path.join(path), error)
    }

    fn try_read(&self, path: &Path) -> io::Result<Node> {
        let (parent, name) = match self.parent(path) {
            Ok(found) => found,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(Node::Absent),
            Err(error) => return Err(error.into()),
        };
        let found = match fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(Errno::ENOENT) => return Ok(Node::Absent),
            Err(error) => return Err(error.into()),
        };
        match SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => {
                let open = || {
                    openat(
                        &parent,
                        name,
                        OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC,
                        Mode::empty(),
                    )
                };
                // As root we may read what the site may not: a second name for one of our files is not a file of the site.
                if found.st_nlink > 1 && found.st_uid == 0 && geteuid().is_root() {
                    return Err(Errno::EMLINK.into());
                }
                let file = match open() {
                    // Somebody else's, and not for us to read as it is.
                    Err(Errno::EACCES) if folders::adopt_file(&parent, name).is_ok() => open(),
                    opened => opened,
                }?;
                let mut content = Vec::new();
                File::from(file).read_to_end(&mut content)?;
                Ok(Node::File(Version {
                    content,
                    executable: found.st_mode & 0o111 != 0,
                }))
            }
            SFlag::S_IFLNK => Ok(Node::Symlink(
                readlinkat(&parent, name)?.as_bytes().to_vec(),
            )),
            _ => Ok(Node::Submodule),
        }
    }

    fn write(&self, path: &Path, version: &Version) -> io::Result<()> {
        let (parent, name) = self.parent_made(path)?;
        let temporary = format!("write-{}", self.next_name.fetch_add(1, Ordering::Relaxed));
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        // Who else may read and write it is the umask's to say.
        let mode = if version.executable { 0o777 } else { 0o666 };
        let open = || {
            openat(
                &self.staging,
                temporary.as_str(),
                flags,
                Mode::from_bits_truncate(mode),
            )
        };
        let opened = match open() {
            // Rubbish of a writer before us.
            Err(Errno::EEXIST) => {
                unlinkat(
                    &self.staging,
                    temporary.as_str(),
                    UnlinkatFlags::NoRemoveDir,
                )?;
                open()
            }
            opened => opened,
        };
        let mut file = File::from(opened?);
        let written = file.write_all(&version.content).and_then(|()| {
            renameat(&self.staging, temporary.as_str(), &parent, name)?;
            Ok(())
        });
        if written.is_err() {
            // The rubbish is cleared at the next start if this fails too.
            unlinkat(
                &self.staging,
                temporary.as_str(),
                UnlinkatFlags::NoRemoveDir,
            )
            .ok();
        }
        written
    }

    fn link(&self, path: &Path, to: &[u8]) -> io::Result<()> {
        let (parent, name) = self.parent_made(path)?;
        match unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(symlinkat(OsStr::from_bytes(to), &parent, name)?)
    }

    /// Removes the file, and the folders that are empty without it, as git does.
    fn remove(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = match self.parent(path) {
            Ok(found) => found,
            Err(Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let mut folder = path.parent();
        while let Some(path) = folder.filter(|path| !path.as_os_str().is_empty()) {
            let (above, name) = self.parent(path)?;
            if unlinkat(&above, name, UnlinkatFlags::RemoveDir).is_err() {
                break; // It is not empty.
            }
            folder = path.parent();
        }
        Ok(())
    }

    fn parent<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a OsStr), Errno> {
        let name = path.file_name().ok_or(Errno::EINVAL)?;
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        Ok((resolve(&self.root, parent)?, name))
    }

    fn parent_made<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        match self.parent(path) {
            Err(Errno::ENOENT) => {
                let parent = path.parent().unwrap_or(Path::new("."));
                let name = path.file_name().ok_or(Errno::EINVAL)?;
                Ok((self.folder(parent)?, name))
            }
            found => Ok(found?),
        }
    }

    /// Makes a folder and those above it.
    fn folder(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut made = PathBuf::new();
        for component in path.components() {
            let above = if made.as_os_str().is_empty() {
                PathBuf::from(".")
            } else {
                made.clone()
            };
            let above = resolve(&self.root, &above)?;
            match mkdirat(
                &above,
                Path::new(component.as_os_str()),
                Mode::from_bits_truncate(0o777),
            ) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
            made.push(component);
        }
        Ok(resolve(&self.root, &made)?)
    }
}

/// Opens a folder below `root`, through no symlink.
fn resolve(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        );
    let mut result = Err(Errno::EAGAIN);
    for _ in 0..RESOLVE_ATTEMPTS {
        result = openat2(root, path, how);
        if !matches!(result, Err(Errno::EAGAIN | Errno::EINTR)) {
            break;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::sync::atomic::AtomicBool;

    fn writer() -> (tempfile::TempDir, Writer) {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["tree", "staging", "outside"] {
            fs::create_dir(folder.path().join(name)).expect("made");
        }
        fs::write(folder.path().join("outside/canary"), "untouched").expect("written");
        let writer = Writer::open(&folder.path().join("tree"), &folder.path().join("staging"))
            .expect("open");
        (folder, writer)
    }

    fn file(content: &str) -> Node {
        Node::File(Version {
            content: content.into(),
            executable: false,
        })
    }

    #[test]
    fn a_file_is_written_with_its_folders_and_removed_with_them() {
        let (folder, writer) = writer();
        writer
            .put(
                "a/b/c.txt",
                &Node::File(Version {
                    content: b"x".to_vec(),
                    executable: true,
                }),
            )
            .expect("written");
        let path = folder.path().join("tree/a/b/c.txt");
        assert_eq!(
            fs::metadata(&path).expect("there").permissions().mode() & 0o777,
            0o755
        );
        assert_eq!(
            writer.read("a/b/c.txt").expect("read"),
            Node::File(Version {
                content: b"x".to_vec(),
                executable: true
            })
        );
        writer.put("a/b/c.txt", &Node::Absent).expect("removed");
        assert!(!folder.path().join("tree/a").exists());
        assert!(folder.path().join("tree").exists());
    }

    #[test]
    fn no_symlink_leads_out_of_the_tree() {
        let (folder, writer) = writer();
        symlink("../outside", folder.path().join("tree/out")).expect("linked");
        symlink("../outside/canary", folder.path().join("tree/canary")).expect("linked");
        let error = writer
            .put("out/canary", &file("stolen"))
            .expect_err("through a folder");
        assert!(error.is_path_refused(), "{error:?}");
        writer
            .put("out/canary", &Node::Absent)
            .expect_err("remove through a folder");
        assert_eq!(
            writer.read("canary").expect("read"),
            Node::Symlink(b"../outside/canary".to_vec())
        );
        writer
            .put("../outside/canary", &file("stolen"))
            .expect_err("by dots");
        assert_eq!(
            fs::read_to_string(folder.path().join("outside/canary")).expect("there"),
            "untouched"
        );
    }

    #[test]
    fn a_folder_swapped_for_a_symlink_during_the_write_leads_nowhere() {
        let (folder, writer) = writer();
        let tree = folder.path().join("tree");
        fs::create_dir(tree.join("dir")).expect("made");
        symlink("../outside", tree.join("link")).expect("linked");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let tree = File::open(&tree).expect("open");
                while !done.load(Ordering::Relaxed) {
                    nix::fcntl::renameat2(
                        &tree,
                        "dir",
                        &tree,
                        "link",
                        nix::fcntl::RenameFlags::RENAME_EXCHANGE,
                    )
                    .expect("swapped");
                }
            });
            let mut refused = 0;
            let mut round = 0;
            // Bounded by rounds; ends early once both outcomes have been seen often.
            while round < 20_000 && (refused < 50 || round < 2_000) {
                refused += u32::from(writer.put("dir/canary", &file("stolen")).is_err());
                round += 1;
            }
            done.store(true, Ordering::Relaxed);
            assert!(
                refused > 0,
                "the swap was never seen, so the test shows nothing"
            );
        });
        assert_eq!(
            fs::read_to_string(folder.path().join("outside/canary")).expect("there"),
            "untouched"
        );
    }
}
