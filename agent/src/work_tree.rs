//! The work tree: what the site reads. It shows the draft's tip, and nothing but the agent moves it there.
//!
//! Three rules, each bought with somebody's lost page:
//!
//! - **A file appears whole.** It is written beside (outside everything the dev server watches) and renamed.
//! - **Two writes of one path are [`spacing::SPACING`] apart**, and what is asked for in between is coalesced. Closer together,
//!   the dev server's watcher drops the second one and serves the first for good.
//! - **What is being changed is written down first**, in the journal, so that a crash in the middle is put right at the next
//!   start by writing what the draft's tip has at those paths.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::draft::{Node, PathChange};

mod journal;
mod kept;
mod spacing;
pub(crate) mod uncommitted;
mod writer;

use spacing::Spacing;
pub(crate) use writer::Standing;
use writer::Writer;

/// A file of the work tree that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("could not {operation} {path}", path = .path.display())]
pub(crate) struct WorkTreeError {
    /// What was tried.
    pub(crate) operation: &'static str,
    /// The file.
    pub(crate) path: PathBuf,
    /// What happened.
    pub(crate) source: io::Error,
}

impl WorkTreeError {
    pub(crate) fn new(
        operation: &'static str,
        path: impl Into<PathBuf>,
        source: io::Error,
    ) -> Self {
        Self {
            operation,
            path: path.into(),
            source,
        }
    }

    /// Whether the disk is full.
    pub(crate) fn is_disk_full(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }

    /// Whether the path itself is at fault: a symlink or something that is no file stands in the way.
    pub(crate) fn is_path_refused(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(code) if [libc_code::ELOOP, libc_code::EXDEV, libc_code::ENOTDIR, libc_code::EISDIR].contains(&code))
    }
}

/// The error numbers by which the kernel refuses a path. nix has them as an enum; `io::Error` has the number.
mod libc_code {
    use nix::errno::Errno;
    pub(super) const ELOOP: i32 = Errno::ELOOP as i32;
    pub(super) const EXDEV: i32 = Errno::EXDEV as i32;
    pub(super) const ENOTDIR: i32 = Errno::ENOTDIR as i32;
    pub(super) const EISDIR: i32 = Errno::EISDIR as i32;
}

/// Where the parts of a work tree are.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// The work tree itself.
    pub(crate) root: PathBuf,
    /// For files on their way: on the same file system, and watched by nobody.
    pub(crate) staging: PathBuf,
    /// The list of paths that are being changed.
    pub(crate) journal: PathBuf,
}

/// The work tree. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct WorkTree {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    places: Places,
    state: Mutex<State>,
    /// Something was put off, or everything that was put off has been written.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    writer: Writer,
    spacing: Spacing,
    /// The last write that was put off and then failed.
    failure: Option<WorkTreeError>,
    /// What is in the journal. Paths leave it only together, when everything is written.
    journal: BTreeSet<String>,
    /// Whether a write failed since the journal was last cleared: then it stays until the files have been put right.
    broken: bool,
    /// Files that somebody made what they are, and that are on their way into a commit: nothing is written over them.
    kept: BTreeSet<String>,
}

impl WorkTree {
    /// Whether there is a work tree already.
    pub(crate) fn exists(places: &Places) -> bool {
        places.root.is_dir()
    }

    /// Makes a work tree with these contents: beside, then renamed.
    pub(crate) fn create(places: &Places, contents: &[PathChange]) -> Result<(), WorkTreeError> {
        let beside = places.staging.join("tree");
        fs::create_dir_all(&beside).map_err(|error| WorkTreeError::new("make", &beside, error))?;
        let writer = Writer::open(&beside, &places.staging)?;
        for change in contents {
            writer.put(&change.path, &change.after)?;
        }
        fs::rename(&beside, &places.root)
            .map_err(|error| WorkTreeError::new("put the work tree at", &places.root, error))
    }

    /// The paths that a crash may have left half changed.
    pub(crate) fn unsettled(places: &Places) -> Result<Vec<String>, WorkTreeError> {
        journal::read(&places.journal)
    }

    /// Opens the work tree. `repair` is what the draft's tip has at the paths that [`WorkTree::unsettled`] named.
    pub(crate) fn open(places: &Places, repair: &[PathChange]) -> Result<Self, WorkTreeError> {
        let writer = Writer::open(&places.root, &places.staging)?;
        for change in repair {
            tracing::info!(path = %change.path, "a crash may have left this file half changed; put right");
            writer.put(&change.path, &change.after)?;
        }
        journal::clear(&places.journal)?;
        let state = State {
            writer,
            spacing: Spacing::default(),
            failure: None,
            journal: BTreeSet::new(),
            broken: false,
            kept: kept::read(&places.journal)?,
        };
        Ok(Self {
            shared: Arc::new(Shared {
                places: places.clone(),
                state: Mutex::new(state),
                changed: Notify::new(),
            }),
        })
    }

    /// The root of the work tree.
    pub(crate) fn root(&self) -> &Path {
        &self.shared.places.root
    }

    /// What stands at a path now. Reads through no symlink.
    pub(crate) fn read(&self, path: &str) -> Result<Node, WorkTreeError> {
        let state = self.lock();
        match state.spacing.put_off(path) {
            Some(node) => Ok(node.clone()),
            None => state.writer.read(path),
        }
    }

    /// What stands at a path now, without reading it. Looks through no symlink.
    pub(crate) fn standing(&self, path: &str) -> Result<Standing, WorkTreeError> {
        let state = self.lock();
        match state.spacing.put_off(path) {
            Some(node) => Ok(Standing::of(node)),
            None => state.writer.standing(path),
        }
    }

    /// Whether `node` stands at a path. A file is read only where its size says that it may be the same.
    ///
    /// Git knows no folders, so a folder is nothing.
    pub(crate) fn is(&self, path: &str, node: &Node) -> Result<bool, WorkTreeError> {
        let standing = self.standing(path)?;
        Ok(match (&standing, node) {
            (Standing::Folder, Node::Submodule)
            | (Standing::Folder | Standing::Other, Node::Absent) => true,
            (Standing::File { .. } | Standing::Symlink, _) => {
                standing == Standing::of(node) && self.read(path)? == *node
            }
            _ => standing == Standing::of(node),
        })
    }

    /// Notes, for longer than we live, that these files were made by hand and are on their way into a commit. Whatever becomes
    /// of the commit, they stay as they are until [`WorkTree::release`].
    pub(crate) fn keep(&self, paths: BTreeSet<String>) -> Result<(), WorkTreeError> {
        let mut state = self.lock();
        if state.kept != paths {
            kept::write(&self.shared.places.journal, &paths)?;
            state.kept = paths;
        }
        Ok(())
    }

    /// The commit is made, or given up.
    pub(crate) fn release(&self) -> Result<(), WorkTreeError> {
        self.keep(BTreeSet::new())
    }

    /// Whether nothing may be written over a file.
    pub(crate) fn is_kept(&self, path: &str) -> bool {
        self.lock().kept.contains(path)
    }

    /// Writes the paths down in the journal: from now on a crash puts them right.
    pub(crate) fn begin<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), WorkTreeError> {
        let mut state = self.lock();
        // What is there already stays: it may be put off, or the work of an attempt that could not finish it.
        state.journal.extend(paths.into_iter().map(str::to_owned));
        journal::write(&self.shared.places.journal, &state.journal)
    }

    /// Clears the journal, unless something is still put off: then that happens when it has been written.
    pub(crate) fn end(&self) -> Result<(), WorkTreeError> {
        let mut state = self.lock();
        state.spacing.instruction_done();
        self.clear_journal(&mut state)
    }

    /// Everything that the journal names has been written anew, as the draft has it.
    pub(crate) fn put_right(&self) -> Result<(), WorkTreeError> {
        let mut state = self.lock();
        state.broken = false;
        state.spacing.instruction_done();
        self.clear_journal(&mut state)
    }

    fn clear_journal(&self, state: &mut State) -> Result<(), WorkTreeError> {
        if state.broken || !state.spacing.is_settled() {
            return Ok(());
        }
        state.journal.clear();
        journal::clear(&self.shared.places.journal)
    }

    /// Shows these changes: now, or together as soon as all their paths may be written again.
    pub(crate) fn show(&self, changes: &[PathChange], now: Instant) -> Result<(), WorkTreeError> {
        let mut state = self.lock();
        let ready = state.spacing.offer(changes, now);
        let result = state.write(&ready);
        drop(state);
        self.shared.changed.notify_waiters();
        result
    }

    /// Shows these changes and everything that was put off, at once. Only while no dev server runs: what it reads when
    /// it starts has to be there by then, and it cannot miss a write that comes before it watches.
    pub(crate) fn show_at_once(
        &self,
        changes: &[PathChange],
        now: Instant,
    ) -> Result<(), WorkTreeError> {
        let mut state = self.lock();
        let ready = state.spacing.force(changes, now);
        let result = state.write(&ready);
        drop(state);
        self.shared.changed.notify_waiters();
        result
    }

    /// Whether nothing is put off. What is in the journal then is what somebody could not finish.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.lock().spacing.due().is_none()
    }

    /// Waits until nothing is put off.
    pub(crate) async fn settled(&self) -> Result<(), WorkTreeError> {
        loop {
            let changed = self.shared.changed.notified();
            {
                let mut state = self.lock();
                if let Some(failure) = state.failure.take() {
                    return Err(failure);
                }
                if state.spacing.due().is_none() {
                    return Ok(());
                }
            }
            changed.await;
        }
    }

    /// Writes what was put off when its time comes. Runs until cancelled; what is put off then is put right by the
    /// journal.
    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            let changed = self.shared.changed.notified();
            let due = self.lock().spacing.due();
            let time = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = changed => {}
                () = time => self.write_due(Instant::now()),
            }
        }
    }

    fn write_due(&self, now: Instant) {
        let mut state = self.lock();
        let ready = state.spacing.take_due(now);
        let mut result = state.write(&ready);
        if result.is_ok() {
            result = self.clear_journal(&mut state);
        }
        if let Err(error) = result {
            tracing::error!(error = %error, cause = %error.source, "a change could not be shown");
            state.failure = Some(error);
        }
        drop(state);
        self.shared.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while writing leaves the journal behind, which says all that matters.
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(&mut self, changes: &BTreeMap<String, Node>) -> Result<(), WorkTreeError> {
        let written = in_order(changes)
            .into_iter()
            .try_for_each(|(path, node)| self.writer.put(path, node));
        self.broken |= written.is_err();
        written
    }
}

/// What comes before what goes, so that a file that moves is never missing; but what stands where a folder is to be, or in a
/// folder where a file is to be, makes way first.
fn in_order(changes: &BTreeMap<String, Node>) -> Vec<(&String, &Node)> {
    let comes = |path: &str| changes.get(path).is_some_and(|node| *node != Node::Absent);
    let in_the_way = |path: &str| {
        let above = path.match_indices('/').any(|(at, _)| comes(&path[..at]));
        let folder = format!("{path}/");
        let mut below = changes
            .range(folder.clone()..)
            .take_while(|(other, _)| other.starts_with(&folder));
        above || below.any(|(_, node)| *node != Node::Absent)
    };
    let mut ordered: Vec<_> = changes.iter().collect();
    ordered.sort_by_key(|(path, node)| match node {
        Node::Absent if in_the_way(path) => 0,
        Node::Absent => 2,
        _ => 1,
    });
    ordered
}

/// Two writes of one path closer together than this are coalesced. Measured: up to 40 ms the second can be lost
/// with Astro 5, 6 and 7, at 60 ms never; doubled for a busy machine.
pub(crate) const SPACING_MEASURED: Duration = Duration::from_millis(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change_set::Version;

    pub(super) fn file(path: &str, content: &str) -> PathChange {
        PathChange {
            path: path.to_owned(),
            after: Node::File(Version {
                content: content.into(),
                executable: false,
            }),
        }
    }

    pub(super) fn places(folder: &Path) -> Places {
        Places {
            root: folder.join("tree"),
            staging: folder.join("staging"),
            journal: folder.join("journal.json"),
        }
    }

    #[test]
    fn a_crash_in_the_middle_of_a_change_is_put_right() {
        let folder = tempfile::tempdir().expect("a folder");
        let places = places(folder.path());
        WorkTree::create(&places, &[file("a.txt", "one"), file("b/c.txt", "one")]).expect("made");
        let tree = WorkTree::open(&places, &[]).expect("open");
        tree.begin(["a.txt", "b/c.txt", "new.txt"]).expect("begun");
        tree.show(
            &[file("a.txt", "two"), file("new.txt", "two")],
            Instant::now(),
        )
        .expect("shown");
        drop(tree); // the crash: `end` is never reached

        assert_eq!(
            WorkTree::unsettled(&places).expect("read"),
            ["a.txt", "b/c.txt", "new.txt"]
        );
        let repair = [
            file("a.txt", "one"),
            file("b/c.txt", "one"),
            PathChange {
                path: "new.txt".to_owned(),
                after: Node::Absent,
            },
        ];
        WorkTree::open(&places, &repair).expect("open");
        assert_eq!(
            fs::read_to_string(places.root.join("a.txt")).expect("read"),
            "one"
        );
        assert!(!places.root.join("new.txt").exists());
        assert!(WorkTree::unsettled(&places).expect("read").is_empty());
    }

    #[test]
    fn what_moves_is_never_missing_and_what_stands_in_the_way_goes_first() {
        let file = Node::Symlink(Vec::new());
        let changes: BTreeMap<String, Node> = [
            ("a", Node::Absent),
            ("a/b", file.clone()),
            ("b-was-here", Node::Absent),
            ("c", file.clone()),
            ("c/d/e", Node::Absent),
            ("d", file),
            ("d-not-below", Node::Absent),
        ]
        .map(|(path, node)| (path.to_owned(), node))
        .into();
        let order: Vec<&str> = in_order(&changes)
            .into_iter()
            .map(|(path, _)| path.as_str())
            .collect();
        assert_eq!(
            order,
            ["a", "c/d/e", "a/b", "c", "d", "b-was-here", "d-not-below"]
        );
    }

    #[tokio::test]
    async fn the_second_of_two_quick_writes_waits_and_the_last_one_wins() {
        let folder = tempfile::tempdir().expect("a folder");
        let places = places(folder.path());
        WorkTree::create(&places, &[file("a.txt", "0")]).expect("made");
        let tree = WorkTree::open(&places, &[]).expect("open");
        let stop = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(tree.clone().run(stop.clone()));
        let now = Instant::now();
        for text in ["1", "2", "3"] {
            tree.begin(["a.txt"]).expect("begun");
            tree.show(&[file("a.txt", text)], now).expect("shown");
            tree.end().expect("ended");
        }
        assert_eq!(
            fs::read_to_string(places.root.join("a.txt")).expect("read"),
            "1",
            "the first is shown at once"
        );
        assert!(
            matches!(tree.read("a.txt").expect("read"), Node::File(version) if version.content == b"3"),
            "a reader sees what will be shown"
        );
        tree.settled().await.expect("settled");
        assert_eq!(
            fs::read_to_string(places.root.join("a.txt")).expect("read"),
            "3"
        );
        assert!(WorkTree::unsettled(&places).expect("read").is_empty());
        stop.cancel();
        tasks.join_all().await;
    }
}
