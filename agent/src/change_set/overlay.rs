//! The tree as it is in the middle of a plan: what the draft has, with what earlier changes did laid over it.
//!
//! The tree is asked about each path at most once. An overlay never holds more than the limits allow: a file or a sum
//! that is too large is refused at the moment it would appear, not in the end.
//!
//! A directory of the tree counts as present even when a change removed all its files, because the tree cannot be
//! asked for them: `delete a/b` and then `write a` is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use contract::client_config::Policy;
use contract::{BlobId, ErrorCode, SitePath, limits};

use super::fault::{Fault, Stop};
use super::{Entry, FileChange, Tree, TreeError, Version};

/// How every git-lfs pointer begins: the content of such a file is kept elsewhere.
pub(super) const LFS_POINTER_START: &[u8] = b"version https://git-lfs.github.com/spec";

/// An ordinary file in the middle of a plan.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// All of it. Shared, so that a photo that is only moved is not copied.
    pub(super) content: Rc<Vec<u8>>,
    /// Whether its mode is 100755.
    pub(super) executable: bool,
    /// The version in the tree from which it comes, through moves and changes; `None` if it is new.
    pub(super) origin: Option<BlobId>,
    /// Whether the content is the tree's own, so that keeping it writes nothing.
    pub(super) pristine: bool,
}

impl Held {
    /// Whether this is a git-lfs pointer.
    pub(super) fn is_lfs_pointer(&self) -> bool {
        self.content.starts_with(LFS_POINTER_START)
    }
}

/// What is at a path in the middle of a plan.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Nothing,
    File(Held),
    Folder,
    Symlink,
    Submodule,
}

/// Bytes that a plan may read and produce in all, what a later change replaces included: a bound on its time and its
/// memory.
const WORK_MAX_BYTES: usize = 1 << 30;

/// Limits of a plan: the client's where its policy has them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) files: usize,
    pub(super) file_bytes: usize,
    pub(super) total_bytes: usize,
}

impl Limits {
    /// The client's limits, or those of [`limits`].
    pub(super) fn of(policy: &Policy) -> Self {
        // A limit that does not fit a usize is no limit.
        let files = policy
            .max_files
            .map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let file_bytes = policy
            .max_file_bytes
            .map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        Self {
            files: files.unwrap_or(limits::FILES_MAX),
            file_bytes: file_bytes.unwrap_or(limits::FILE_MAX_BYTES),
            total_bytes: limits::CHANGE_SET_MAX_BYTES,
        }
    }

    /// Whether one file may have `bytes`.
    pub(super) fn check_file(&self, path: &SitePath, at: &str, bytes: usize) -> Result<(), Fault> {
        if bytes <= self.file_bytes {
            return Ok(());
        }
        let limit = self.file_bytes;
        let what =
            format!("would have {bytes} bytes; one file may have at most {limit} (maxFileBytes).");
        Err(Fault::of(path, at, ErrorCode::LimitExceeded, what))
    }
}

/// What a path was and is.
#[derive(Debug)]
struct Slot {
    before: Option<Held>,
    now: Option<Held>,
}

/// The tree with a plan's changes over it.
pub(super) struct Overlay<'t> {
    tree: &'t dyn Tree,
    limits: Limits,
    /// Paths at which a file is or was.
    slots: BTreeMap<SitePath, Slot>,
    /// Paths of the tree at which no file is, as far as they were looked at.
    others: BTreeMap<SitePath, Place>,
    /// Bytes of all files that are not as the tree has them.
    written_bytes: usize,
    /// Bytes that may still be read and produced.
    work_left: usize,
    /// Whether there was not enough of them.
    exhausted: bool,
}

impl<'t> Overlay<'t> {
    /// The tree, with nothing changed yet.
    pub(super) fn new(tree: &'t dyn Tree, limits: Limits) -> Self {
        Self {
            tree,
            limits,
            slots: BTreeMap::new(),
            others: BTreeMap::new(),
            written_bytes: 0,
            work_left: WORK_MAX_BYTES,
            exhausted: false,
        }
    }

    /// The limits of this plan.
    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// The version an author saw.
    pub(super) fn blob(&self, id: &BlobId) -> Result<Option<Vec<u8>>, TreeError> {
        self.tree.blob(id)
    }

    /// What is at `path`, if the way there leads through folders only.
    pub(super) fn look(&mut self, path: &SitePath, at: &str) -> Result<Place, Stop> {
        let text = path.as_str();
        for (slash, _) in text.match_indices('/') {
            let parent: SitePath = text[..slash]
                .parse()
                .expect("a path up to a slash is a path, because each rule is about one component");
            let obstacle = match self.at(&parent)? {
                Place::Nothing | Place::Folder => continue,
                Place::File(_) => "a file",
                Place::Symlink => "a symbolic link",
                Place::Submodule => {
                    let what = format!("belongs to the submodule {parent}.");
                    return Err(Fault::of(path, at, ErrorCode::UnsupportedFile, what).into());
                }
            };
            let what = format!("{parent} is {obstacle}, not a folder.");
            return Err(Fault::of(path, at, ErrorCode::PathNotAllowed, what).into());
        }
        let place = self.at(path)?;
        // Reading may have been too much already.
        self.spend(path, at, 0)?;
        Ok(place)
    }

    /// The ordinary file at `path`; what else is there, or nothing, is a fault.
    pub(super) fn file(&mut self, path: &SitePath, at: &str) -> Result<Held, Stop> {
        match self.look(path, at)? {
            Place::File(held) => Ok(held),
            Place::Nothing => {
                Err(Fault::of(path, at, ErrorCode::FileNotFound, "does not exist.").into())
            }
            other => Err(not_a_file(path, at, &other).into()),
        }
    }

    /// Makes `path` have this content. The way there was looked at before.
    pub(super) fn put(&mut self, path: &SitePath, at: &str, held: Held) -> Result<(), Fault> {
        if !held.pristine {
            self.limits.check_file(path, at, held.content.len())?;
            self.spend(path, at, held.content.len())?;
        }
        let others = self.written_bytes - self.slots.get(path).map_or(0, Slot::written_bytes);
        let slot = self.slots.entry(path.clone()).or_insert(Slot {
            before: None,
            now: None,
        });
        let replaced = slot.now.replace(held);
        let total = others + slot.written_bytes();
        if total > self.limits.total_bytes {
            slot.now = replaced;
            let limit = self.limits.total_bytes;
            let what = format!(
                "with it the changed files would have {total} bytes together; at most {limit} are allowed."
            );
            return Err(Fault::of(path, at, ErrorCode::LimitExceeded, what));
        }
        self.written_bytes = total;
        Ok(())
    }

    /// Takes `work` off what this plan may cost, counted in bytes.
    pub(super) fn spend(&mut self, path: &SitePath, at: &str, work: usize) -> Result<(), Fault> {
        self.charge(work);
        if self.exhausted {
            let what = "all changes up to this one are too much work for one instruction.";
            return Err(Fault::of(path, at, ErrorCode::LimitExceeded, what));
        }
        Ok(())
    }

    /// Whether the plan cost too much: then nothing more is worth judging.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    fn charge(&mut self, work: usize) {
        match self.work_left.checked_sub(work) {
            Some(left) => self.work_left = left,
            None => self.exhausted = true,
        }
    }

    /// Removes the file at `path`.
    pub(super) fn remove(&mut self, path: &SitePath) {
        if let Some(slot) = self.slots.get_mut(path) {
            self.written_bytes -= slot.written_bytes();
            slot.now = None;
        }
    }

    /// Puts a file back that was removed a moment ago.
    pub(super) fn restore(&mut self, path: &SitePath, held: Held) {
        if let Some(slot) = self.slots.get_mut(path) {
            slot.now = Some(held);
            self.written_bytes += slot.written_bytes();
        }
    }

    /// The net effect: files that differ from the tree.
    pub(super) fn finish(self) -> BTreeMap<SitePath, FileChange> {
        let version = |held: Held| Version {
            content: Rc::unwrap_or_clone(held.content),
            executable: held.executable,
        };
        self.slots
            .into_iter()
            .filter(|(_, slot)| slot.differs())
            .map(|(path, slot)| {
                let change = FileChange {
                    before: slot.before.map(version),
                    after: slot.now.map(version),
                };
                (path, change)
            })
            .collect()
    }

    /// What is at `path`, without regard to the way there.
    fn at(&mut self, path: &SitePath) -> Result<Place, TreeError> {
        if let Some(held) = self.slots.get(path).and_then(|slot| slot.now.as_ref()) {
            return Ok(Place::File(held.clone()));
        }
        if self.is_folder_of_the_plan(path) {
            return Ok(Place::Folder);
        }
        if self.slots.contains_key(path) {
            return Ok(Place::Nothing);
        }
        if let Some(known) = self.others.get(path) {
            return Ok(known.clone());
        }
        let place = match self.tree.file(path)? {
            Some(Entry::File(file)) => {
                self.charge(file.content.len());
                let held = Held {
                    content: Rc::new(file.content),
                    executable: file.executable,
                    origin: Some(file.blob),
                    pristine: true,
                };
                let slot = Slot {
                    before: Some(held.clone()),
                    now: Some(held.clone()),
                };
                self.slots.insert(path.clone(), slot);
                return Ok(Place::File(held));
            }
            Some(Entry::Symlink) => Place::Symlink,
            Some(Entry::Submodule) => Place::Submodule,
            None if self.tree.is_directory(path)? => Place::Folder,
            None => Place::Nothing,
        };
        self.others.insert(path.clone(), place.clone());
        Ok(place)
    }

    /// Whether a file of the plan is below `path`.
    fn is_folder_of_the_plan(&self, path: &SitePath) -> bool {
        self.slots
            .range(path..)
            .take_while(|(other, _)| other.as_str().starts_with(path.as_str()))
            .any(|(other, slot)| {
                slot.now.is_some() && other.as_str()[path.as_str().len()..].starts_with('/')
            })
    }
}

impl Slot {
    fn differs(&self) -> bool {
        match (&self.before, &self.now) {
            (None, None) => false,
            (Some(before), Some(now)) => {
                before.executable != now.executable || before.content != now.content
            }
            _ => true,
        }
    }

    /// Bytes that this path adds to what the plan writes.
    fn written_bytes(&self) -> usize {
        self.now
            .as_ref()
            .filter(|now| !now.pristine)
            .map_or(0, |now| now.content.len())
    }
}

/// The fault of naming something that is no ordinary file.
pub(super) fn not_a_file(path: &SitePath, at: &str, place: &Place) -> Fault {
    let (code, what) = match place {
        Place::Folder => (ErrorCode::PathNotAllowed, "is a folder."),
        Place::Symlink => (ErrorCode::PathNotAllowed, "is a symbolic link."),
        Place::Submodule => (ErrorCode::UnsupportedFile, "is a submodule."),
        Place::File(_) | Place::Nothing => (ErrorCode::PathNotAllowed, "is not an ordinary file."),
    };
    Fault::of(path, at, code, what)
}

/// The fault of changing a file whose content git-lfs keeps elsewhere.
pub(super) fn refuse_lfs(path: &SitePath, at: &str, held: &Held) -> Result<(), Fault> {
    if held.is_lfs_pointer() {
        return Err(Fault::of(
            path,
            at,
            ErrorCode::UnsupportedFile,
            "is kept by git-lfs.",
        ));
    }
    Ok(())
}

/// Paths whose state nobody can tell, because a change to them failed.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    paths: BTreeSet<SitePath>,
    everything: bool,
}

impl Unsettled {
    /// Adds paths of a failed change.
    pub(super) fn extend<'p>(&mut self, paths: impl IntoIterator<Item = &'p SitePath>) {
        self.paths.extend(paths.into_iter().cloned());
    }

    /// From now on nothing can be judged: a patch that cannot be read might have touched any file.
    pub(super) fn everything(&mut self) {
        self.everything = true;
    }

    /// Whether any of `paths` is unsettled.
    pub(super) fn any<'p>(&self, paths: impl IntoIterator<Item = &'p SitePath>) -> bool {
        self.everything || paths.into_iter().any(|path| self.paths.contains(path))
    }
}
