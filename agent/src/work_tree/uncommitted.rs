//! What somebody changed by hand: the files of the work tree that are not as the draft's tip has them.
//!
//! ```text
//!  inotify ──▶ raw events ──(100 ms of quiet)──▶ suspects ──taken by the pipeline, between instructions──▶ examine ──▶ paths
//! ```
//!
//! An event proves nothing: the agent's own writes make them too, and so does an editor that writes what was there
//! before. So events only make paths *suspect*, and [`examine`] compares what stands there with the tip. What the agent wrote
//! is equal to the tip once it is committed, and needs no list of exceptions.
//!
//! The watch is one for each folder, never recursive: a watch for each of the 12,000 folders of `node_modules` would take what the
//! kernel allows a user for all programs together. Where there are not enough of them all the same, everything is looked at from
//! time to time instead.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::ModifyKind;
use notify::{Config, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::WorkTree;
use crate::loops::Loops;

mod look;
mod rules;

pub(crate) use look::{all_below, examine};
use rules::Rules;

/// An editor saves in several steps (write beside, rename, remove the old one): they are looked at together.
const QUIET: Duration = Duration::from_millis(100);
/// A tool that writes without a pause is looked at all the same after this time.
const UNQUIET_MAX: Duration = Duration::from_secs(1);
/// How often everything is looked at where changes cannot be watched. A look reads every file of the site.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Paths that are kept one by one. Where more have changed, a look at everything is cheaper.
const SUSPECTS_MAX: usize = 10_000;
/// Folders that are watched. The smallest number that a kernel of ours allows one user is 8,192; half is left to the dev server.
const FOLDERS_MAX: usize = 4096;

/// What may have been changed by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Suspects {
    /// These paths of the repository, and all that is below them.
    Paths(BTreeSet<String>),
    /// Anything.
    Everything,
}

impl Default for Suspects {
    fn default() -> Self {
        Self::Paths(BTreeSet::new())
    }
}

impl Suspects {
    /// Whether there is nothing to examine.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Paths(paths) if paths.is_empty())
    }

    /// These and those, bounded.
    pub(crate) fn add(&mut self, more: Self) {
        match (&mut *self, more) {
            (Self::Paths(paths), Self::Paths(more)) => {
                paths.extend(more);
                if paths.len() > SUSPECTS_MAX {
                    *self = Self::Everything;
                }
            }
            _ => *self = Self::Everything,
        }
    }
}

/// Sees what changes in the work tree. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Uncommitted {
    gathered: Arc<Gathered>,
}

#[derive(Debug, Default)]
struct Gathered {
    suspects: Mutex<Suspects>,
    more: Notify,
}

impl Uncommitted {
    /// Begins to watch. Once it does, everything is suspect: what happened before was seen by nobody.
    pub(crate) fn start(work_tree: &WorkTree, tasks: &mut Loops, stop: CancellationToken) -> Self {
        let gathered = Arc::new(Gathered::default());
        tasks.spawn(watch(work_tree.clone(), Arc::clone(&gathered), stop));
        Self { gathered }
    }

    /// Waits until there is something to examine. Cancel-safe: it stays there until it is taken.
    pub(crate) async fn changed(&self) {
        loop {
            let more = self.gathered.more.notified();
            if !self.gathered.lock().is_empty() {
                return;
            }
            more.await;
        }
    }

    /// Takes what is to be examined.
    pub(crate) fn take(&self) -> Suspects {
        std::mem::take(&mut *self.gathered.lock())
    }
}

impl Gathered {
    fn add(&self, suspects: Suspects) {
        if suspects.is_empty() {
            return;
        }
        self.lock().add(suspects);
        self.more.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Suspects> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn watch(work_tree: WorkTree, gathered: Arc<Gathered>, stop: CancellationToken) {
    let raw = Arc::new(Raw::default());
    let watching = {
        let (work_tree, raw) = (work_tree.clone(), Arc::clone(&raw));
        tokio::task::spawn_blocking(move || Watching::begin(work_tree, &raw)).await
    };
    let mut watching = match watching {
        Ok(Ok(watching)) => watching,
        Ok(Err(error)) => return look_from_time_to_time(&error, &gathered, &stop).await,
        Err(error) => {
            tracing::error!(%error, "the watch of the work tree broke");
            return look_from_time_to_time(&Unwatchable::Broke, &gathered, &stop).await;
        }
    };
    gathered.add(Suspects::Everything);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = raw.quiet() => {}
        }
        let events = raw.take();
        let taken = tokio::task::spawn_blocking(move || {
            let suspects = watching.take_in(events);
            (watching, suspects)
        });
        match taken.await {
            Ok((again, Ok(suspects))) => {
                watching = again;
                gathered.add(suspects);
            }
            Ok((_, Err(error))) => return look_from_time_to_time(&error, &gathered, &stop).await,
            Err(error) => {
                tracing::error!(%error, "the watch of the work tree broke");
                return look_from_time_to_time(&Unwatchable::Broke, &gathered, &stop).await;
            }
        }
    }
}

/// The way that needs no watch.
async fn look_from_time_to_time(why: &Unwatchable, gathered: &Gathered, stop: &CancellationToken) {
    tracing::warn!(
        "changes that are made by hand in the work tree are seen late, within {} s: {why}",
        LOOK_EVERY.as_secs()
    );
    loop {
        gathered.add(Suspects::Everything);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Why the work tree cannot be watched.
#[derive(Debug, thiserror::Error)]
enum Unwatchable {
    /// The kernel's limit of watches.
    #[error(
        "this user's inotify watches are used up; raise them with `sysctl fs.inotify.max_user_watches=524288`"
    )]
    WatchesUsedUp,
    /// The kernel's limit of watchers.
    #[error(
        "this user's inotify instances are used up; raise them with `sysctl fs.inotify.max_user_instances=1024`"
    )]
    InstancesUsedUp,
    /// Our limit.
    #[error(
        "it has more than {FOLDERS_MAX} folders; what is no part of the site belongs in .gitignore"
    )]
    TooManyFolders,
    /// Something else.
    #[error("{0}")]
    Other(String),
    /// The thread that watched broke.
    #[error("the watch broke")]
    Broke,
}

impl From<notify::Error> for Unwatchable {
    fn from(error: notify::Error) -> Self {
        match &error.kind {
            notify::ErrorKind::MaxFilesWatch => Self::WatchesUsedUp,
            notify::ErrorKind::Io(io)
                if io.raw_os_error() == Some(nix::errno::Errno::EMFILE as i32) =>
            {
                Self::InstancesUsedUp
            }
            notify::ErrorKind::Io(io)
                if io.raw_os_error() == Some(nix::errno::Errno::ENOSPC as i32) =>
            {
                Self::WatchesUsedUp
            }
            _ => Self::Other(error.to_string()),
        }
    }
}

/// What the kernel said, until it is taken in. Bounded: then everything is suspect.
#[derive(Debug, Default)]
struct Raw {
    events: Mutex<Events>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Events {
    /// The paths, and whether something came into being there: a folder that did has no watch yet.
    paths: BTreeMap<PathBuf, bool>,
    /// Events were lost.
    lost: bool,
    /// When the oldest and the newest of them came.
    span: Option<(Instant, Instant)>,
}

impl Raw {
    /// Called by notify's thread.
    fn hear(&self, event: notify::Result<notify::Event>) {
        let mut events = self.lock();
        match event {
            // Whoever reads a file makes such an event, we too.
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => return,
            Ok(event) if !event.need_rescan() => {
                let made = matches!(
                    event.kind,
                    EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(_))
                );
                for path in event.paths {
                    *events.paths.entry(path).or_default() |= made;
                }
                if events.paths.len() > SUSPECTS_MAX {
                    events.paths.clear();
                    events.lost = true;
                }
            }
            Ok(_) => events.lost = true,
            Err(error) => {
                tracing::debug!(%error, "the watch of the work tree missed something");
                events.lost = true;
            }
        }
        let now = Instant::now();
        let oldest = events.span.map_or(now, |(oldest, _)| oldest);
        events.span = Some((oldest, now));
        drop(events);
        self.more.notify_one();
    }

    /// Waits until something was heard and then nothing for a while.
    async fn quiet(&self) {
        loop {
            let span = self.lock().span;
            let Some((oldest, newest)) = span else {
                self.more.notified().await;
                continue;
            };
            let due = (newest + QUIET).min(oldest + UNQUIET_MAX);
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due.into()).await;
        }
    }

    fn take(&self) -> Events {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A watch for each folder that is part of the site.
#[derive(Debug)]
struct Watching {
    work_tree: WorkTree,
    watcher: RecommendedWatcher,
    folders: BTreeSet<String>,
}

impl Watching {
    fn begin(work_tree: WorkTree, raw: &Arc<Raw>) -> Result<Self, Unwatchable> {
        let raw = Arc::clone(raw);
        let watcher = RecommendedWatcher::new(
            move |event| raw.hear(event),
            Config::default().with_follow_symlinks(false),
        )?;
        let mut watching = Self {
            work_tree,
            watcher,
            folders: BTreeSet::new(),
        };
        watching.watch_from("")?;
        Ok(watching)
    }

    /// Watches a folder and those in it that are part of the site.
    fn watch_from(&mut self, folder: &str) -> Result<(), Unwatchable> {
        let mut rules = Rules::of(&self.work_tree);
        if rules.leave_out(folder, true) {
            return Ok(());
        }
        let mut waiting = vec![folder.to_owned()];
        while let Some(folder) = waiting.pop() {
            let path = self.work_tree.root().join(&folder);
            // Before it is read: what comes into it meanwhile is seen twice rather than never.
            match self.watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {}
                // It is gone again.
                Err(_) if !path.is_dir() => continue,
                Err(error) => return Err(error.into()),
            }
            let inside = look::entries(&self.work_tree, &folder);
            self.folders.insert(folder);
            if self.folders.len() > FOLDERS_MAX {
                return Err(Unwatchable::TooManyFolders);
            }
            waiting.extend(
                inside
                    .into_iter()
                    .filter(|entry| entry.is_folder && !rules.leave_out(&entry.path, true))
                    .map(|entry| entry.path),
            );
        }
        Ok(())
    }

    /// Makes suspects of what was heard, and watches folders that have come.
    fn take_in(&mut self, events: Events) -> Result<Suspects, Unwatchable> {
        let mut suspects = BTreeSet::new();
        let mut anew = events.lost;
        for (path, made) in events.paths {
            // A name that is no text is in nobody's instruction and in no list of ours.
            let Some(path) = path
                .strip_prefix(self.work_tree.root())
                .ok()
                .and_then(Path::to_str)
            else {
                continue;
            };
            if path.is_empty() || rules::is_never_work(path) {
                continue;
            }
            // What is ignored may be another thing now.
            anew |= path.rsplit('/').next() == Some(rules::FILE_NAME);
            let is_folder = self
                .work_tree
                .root()
                .join(path)
                .symlink_metadata()
                .is_ok_and(|found| found.is_dir());
            if !is_folder {
                let below = format!("{path}/");
                self.folders
                    .retain(|folder| folder != path && !folder.starts_with(&below));
                suspects.insert(path.to_owned());
            } else if made || !self.folders.contains(path) {
                self.watch_from(path)?;
                if self.folders.contains(path) {
                    suspects.insert(path.to_owned());
                }
            }
        }
        if anew {
            self.watch_from("")?;
            return Ok(Suspects::Everything);
        }
        Ok(Suspects::Paths(suspects))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::{file, places};
    use super::*;

    /// The time within which something is seen, or the test fails.
    const PATIENCE: Duration = Duration::from_secs(20);

    struct Scene {
        folder: tempfile::TempDir,
        work_tree: WorkTree,
        uncommitted: Uncommitted,
        tasks: Loops,
        stop: CancellationToken,
    }

    impl Scene {
        async fn begin() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let places = places(folder.path());
            WorkTree::create(
                &places,
                &[
                    file(".gitignore", "/secret\n"),
                    file("src/pages/index.astro", "one"),
                ],
            )
            .expect("made");
            fs::create_dir_all(places.root.join("node_modules/astro")).expect("made");
            let work_tree = WorkTree::open(&places, &[]).expect("open");
            let (mut tasks, stop) = (Loops::new(), CancellationToken::new());
            let uncommitted = Uncommitted::start(&work_tree, &mut tasks, stop.clone());
            let scene = Self {
                folder,
                work_tree,
                uncommitted,
                tasks,
                stop,
            };
            assert_eq!(scene.next().await, Suspects::Everything, "at the start");
            scene
        }

        async fn next(&self) -> Suspects {
            tokio::time::timeout(PATIENCE, self.uncommitted.changed())
                .await
                .expect("something is seen");
            self.uncommitted.take()
        }

        /// Waits until these are suspect, and says what else was.
        async fn suspected(&self, expected: &[&str]) -> BTreeSet<String> {
            let mut all = BTreeSet::new();
            while !expected.iter().all(|path| all.contains(*path)) {
                match self.next().await {
                    Suspects::Paths(paths) => all.extend(paths),
                    Suspects::Everything => panic!("not everything, after {all:?}"),
                }
            }
            all
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.work_tree.root().join(path);
            fs::create_dir_all(path.parent().expect("below")).expect("made");
            fs::write(path, text).expect("written");
        }

        async fn end(mut self) {
            self.stop.cancel();
            while let Some(ended) = self.tasks.join_next().await {
                ended.expect("no panic");
            }
            drop(self.folder);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_hand_is_seen_in_old_folders_and_new_ones_and_nothing_is_seen_in_what_is_installed() {
        let scene = Scene::begin().await;
        scene.write("node_modules/astro/index.js", "x");
        scene.write("node_modules/.vite/deps.js", "x");
        scene.write("secret/token", "x");
        scene.write("src/pages/index.astro", "two");
        let seen = scene.suspected(&["src/pages/index.astro"]).await;
        assert!(
            !seen
                .iter()
                .any(|path| path.starts_with("node_modules/") || path.starts_with("secret")),
            "{seen:?}"
        );

        scene.write("src/content/stamps/new.md", "new");
        scene.suspected(&["src/content"]).await;
        scene.write("src/content/stamps/new.md", "newer");
        scene.suspected(&["src/content/stamps/new.md"]).await;

        // A folder that was moved is watched under its new name, and its old one is suspect.
        fs::rename(
            scene.work_tree.root().join("src/content"),
            scene.work_tree.root().join("src/data"),
        )
        .expect("moved");
        scene.suspected(&["src/content", "src/data"]).await;
        scene.write("src/data/stamps/new.md", "newest");
        scene.suspected(&["src/data/stamps/new.md"]).await;
        scene.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_read_is_not_suspect() {
        let scene = Scene::begin().await;
        for _ in 0..3 {
            scene.work_tree.read("src/pages/index.astro").expect("read");
        }
        scene.write("src/other.txt", "x");
        let seen = scene.suspected(&["src/other.txt"]).await;
        assert!(!seen.contains("src/pages/index.astro"), "{seen:?}");
        scene.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn when_what_is_ignored_changes_everything_is_looked_at() {
        let scene = Scene::begin().await;
        scene.write(".gitignore", "");
        assert_eq!(scene.next().await, Suspects::Everything);
        scene.write("secret/token", "x");
        // The folder is watched by now, or it is made and seen then.
        let seen = scene.next().await;
        assert!(!seen.is_empty());
        scene.end().await;
    }

    #[test]
    fn suspects_are_bounded() {
        let mut suspects = Suspects::default();
        assert!(suspects.is_empty());
        suspects.add(Suspects::Paths(["a".to_owned()].into()));
        assert_eq!(suspects, Suspects::Paths(["a".to_owned()].into()));
        suspects.add(Suspects::Paths(
            (0..=SUSPECTS_MAX)
                .map(|number| number.to_string())
                .collect(),
        ));
        assert_eq!(suspects, Suspects::Everything);
    }

    #[test]
    fn a_limit_of_the_kernel_is_named_with_what_raises_it() {
        let watches = Unwatchable::from(notify::Error::new(notify::ErrorKind::MaxFilesWatch));
        insta::assert_snapshot!(watches, @"this user's inotify watches are used up; raise them with `sysctl fs.inotify.max_user_watches=524288`");
        let instances = Unwatchable::from(notify::Error::io(std::io::Error::from_raw_os_error(24)));
        insta::assert_snapshot!(instances, @"this user's inotify instances are used up; raise them with `sysctl fs.inotify.max_user_instances=1024`");
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_can_be_watched_everything_is_looked_at_from_time_to_time() {
        let gathered = Arc::new(Gathered::default());
        let uncommitted = Uncommitted {
            gathered: Arc::clone(&gathered),
        };
        let stop = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        let asked = stop.clone();
        tasks.spawn(async move {
            look_from_time_to_time(&Unwatchable::WatchesUsedUp, &gathered, &asked).await;
        });
        for _ in 0..3 {
            uncommitted.changed().await;
            assert_eq!(uncommitted.take(), Suspects::Everything);
        }
        stop.cancel();
        tasks.join_all().await;
    }
}
