//! What an instruction is carried out on: the draft, the work tree that shows it, and the site that renders it.
//!
//! Git blocks, so the draft moves into a blocking thread for each piece of work and comes back. If that thread panics
//! (libgit2 is C), the draft is opened anew: everything it knows is on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use contract::client_config::Policy;
use contract::{Change, CommitId, InstructionId, SitePath};
use git2::Oid;

use super::hands;
use crate::change_set::by_hand::{self, Room};
use crate::change_set::{self, ChangeSet, PlanError, Version};
use crate::draft::{self, CommitMessage, Draft, DraftError, Node, PathChange, Pushed, Replanted};
use crate::site::{Consequence, Site, consequence};
use crate::work_tree::uncommitted::Suspects;
use crate::work_tree::{Places, WorkTree, WorkTreeError};

/// The draft, the work tree and the site.
#[derive(Debug)]
pub(crate) struct Workshop {
    draft: Option<Draft>,
    settings: draft::Settings,
    places: Places,
    work_tree: WorkTree,
    site: Site,
    /// The files that were found changed by hand, as paths of the repository.
    by_hand: BTreeSet<String>,
    /// What could not be examined when it was to be.
    unexamined: Suspects,
}

/// Why a piece of work was not done. Operating errors only: what is wrong with an instruction is not among them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkshopError {
    /// The draft or its remote.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// A file of the work tree.
    #[error(transparent)]
    WorkTree(#[from] WorkTreeError),
    /// The thread that worked broke.
    #[error("the work broke off: {0}")]
    Broke(String),
}

impl WorkshopError {
    /// Whether the disk is full.
    pub(crate) fn is_disk_full(&self) -> bool {
        match self {
            Self::Draft(error) => error.is_disk_full(),
            Self::WorkTree(error) => error.is_disk_full(),
            Self::Broke(_) => false,
        }
    }
}

/// What became of an instruction that was given up.
#[derive(Debug)]
pub(super) enum GivenUp {
    /// It is on the remote after all.
    Landed(CommitId),
    /// Nothing is left of it.
    TakenBack,
    /// Nothing is left of it here; the remote could not be asked.
    Unknown,
}

/// How showing a change set went.
#[derive(Debug)]
pub(super) enum Applied {
    /// The files say it now (or in a moment, where they were written a moment ago).
    Shown,
    /// A file is not as the draft has it: somebody changed it by hand. Nothing was written.
    Dirty(SitePath),
    /// The kernel refused a path: a symlink stands in the way. Nothing is left behind.
    PathRefused(String),
}

impl Workshop {
    /// Opens the work tree over an opened draft, and puts right what a crash left.
    pub(crate) fn open(
        draft: Draft,
        settings: draft::Settings,
        places: Places,
        site: Site,
        work_tree: WorkTree,
    ) -> Self {
        Self {
            draft: Some(draft),
            settings,
            places,
            work_tree,
            site,
            by_hand: BTreeSet::new(),
            unexamined: Suspects::default(),
        }
    }

    /// Makes the work tree show the draft's tip: made if there is none, put right where a crash left it half changed. What
    /// somebody changed by hand stays.
    pub(crate) fn open_work_tree(
        draft: &Draft,
        places: &Places,
    ) -> Result<WorkTree, WorkshopError> {
        let tip = draft.tip()?;
        if !WorkTree::exists(places) {
            WorkTree::create(places, &draft.everything(tip)?)?;
        }
        let mut repair = Vec::new();
        for path in WorkTree::unsettled(places)? {
            let after = draft.node(tip, &path)?;
            repair.push(PathChange { path, after });
        }
        let work_tree = WorkTree::open(places, &repair)?;
        if let Some(shown) = draft.shown()? {
            let changes = draft.differences(shown, tip)?;
            let gone = draft.unpushed()? == 0;
            let changes = hands::spare(draft, &work_tree, shown, changes, &BTreeSet::new(), gone)?;
            if !changes.is_empty() {
                work_tree.begin(changes.iter().map(|change| change.path.as_str()))?;
                work_tree.show_at_once(&changes, Instant::now())?;
                work_tree.end()?;
            }
        }
        draft.set_shown(tip)?;
        Ok(work_tree)
    }

    /// The commit in which an instruction landed, pushed or not.
    pub(super) fn landed(&self, id: &InstructionId) -> Option<CommitId> {
        self.draft
            .as_ref()
            .and_then(|draft| draft.landed(id))
            .cloned()
    }

    /// The draft's newest commit and how many commits have not been seen on the remote.
    pub(crate) async fn summary(&mut self) -> Result<(Oid, usize), WorkshopError> {
        self.with_draft(|draft, _| Ok((draft.tip()?, draft.unpushed()?)))
            .await
    }

    /// Plans what the files become.
    pub(super) async fn plan(
        &mut self,
        changes: Vec<Change>,
        policy: Policy,
        fetched: BTreeMap<String, Vec<u8>>,
    ) -> Result<Result<ChangeSet, PlanError>, WorkshopError> {
        self.settle().await?;
        self.with_draft(move |draft, _| {
            Ok(change_set::plan(
                &changes,
                &draft.tree()?,
                &policy,
                &fetched,
            ))
        })
        .await
    }

    /// Plans a commit of everything that was changed by hand.
    pub(super) async fn plan_commit(
        &mut self,
        policy: Policy,
    ) -> Result<Result<ChangeSet, PlanError>, WorkshopError> {
        self.settle().await?;
        let paths = self.examine(Suspects::Everything).await?;
        let room = Room::of(&policy);
        if let Err(rejection) = room.refuse_many(paths.len()) {
            return Ok(Err(rejection.into()));
        }
        let site_root = self.settings.site_root.clone();
        self.with_draft(move |draft, work_tree| {
            let changes = hands::gather(draft, work_tree, &paths, room)?;
            Ok(by_hand::plan(changes, &site_root, &policy).map_err(PlanError::from))
        })
        .await
    }

    /// The files that somebody changed by hand, as paths of the repository: of the suspects, and of those found before. To be asked
    /// between instructions, when the work tree shows the draft.
    pub(super) async fn examine(
        &mut self,
        suspects: Suspects,
    ) -> Result<BTreeSet<String>, WorkshopError> {
        // If this fails nobody knows what was suspect.
        let mut due = std::mem::replace(&mut self.unexamined, Suspects::Everything);
        due.add(suspects);
        let unsettled: BTreeSet<String> = WorkTree::unsettled(&self.places)?.into_iter().collect();
        let known = std::mem::take(&mut self.by_hand);
        let found = self
            .with_draft(move |draft, work_tree| hands::find(draft, work_tree, &due, &known))
            .await?;
        // What an attempt of ours left half done is nobody else's work. It is looked at again once it is put right.
        let (ours, by_hand) = found.into_iter().partition(|path| unsettled.contains(path));
        self.unexamined = Suspects::Paths(ours);
        self.by_hand = by_hand;
        Ok(self.by_hand.clone())
    }

    /// Shows a change set: its files are written, and the site is started anew if it takes that.
    pub(super) async fn apply(&mut self, change_set: &ChangeSet) -> Result<Applied, WorkshopError> {
        let (mut changes, mut back, mut dirty) = (Vec::new(), Vec::new(), None);
        let mut made_by_hand = BTreeSet::new();
        {
            let Some(draft) = &self.draft else {
                return Err(WorkshopError::Broke("the draft is not open".to_owned()));
            };
            for (path, change) in &change_set.files {
                let place = draft.repository_path(path);
                let before = node(change.before.as_ref());
                let found = match self.work_tree.read(&place) {
                    Err(error) if error.is_path_refused() => {
                        return Ok(Applied::PathRefused(crate::chain(&error)));
                    }
                    found => found?,
                };
                let after = node(change.after.as_ref());
                if self.work_tree.is(&place, &after)? {
                    made_by_hand.insert(place);
                    continue;
                }
                if found != before {
                    dirty = dirty.or_else(|| Some(path.clone()));
                }
                changes.push(PathChange {
                    path: place.clone(),
                    after,
                });
                back.push(PathChange {
                    path: place,
                    after: before,
                });
            }
        }
        if let Some(path) = dirty {
            return Ok(Applied::Dirty(path));
        }
        // It is neither written nor taken back, whatever becomes of the commit.
        self.work_tree.keep(made_by_hand)?;
        crate::crash_point!("before-apply");
        let shown = self
            .show(&changes, consequence::of(change_set.paths()))
            .await;
        crate::crash_point!("after-apply");
        match shown {
            Ok(()) => Ok(Applied::Shown),
            Err(error) => {
                // If this fails too, the journal stays, and what is in it is put right before the next attempt.
                self.show(&back, consequence::of(change_set.paths()))
                    .await?;
                self.work_tree.end()?;
                if error.is_path_refused() {
                    Ok(Applied::PathRefused(crate::chain(&error)))
                } else {
                    Err(error.into())
                }
            }
        }
    }

    /// Commits what was applied.
    pub(super) async fn commit(
        &mut self,
        change_set: ChangeSet,
        message: CommitMessage,
    ) -> Result<CommitId, WorkshopError> {
        let back: Vec<PathChange> = {
            let draft = self.draft.as_ref();
            change_set
                .files
                .iter()
                .filter_map(|(path, change)| {
                    Some(PathChange {
                        path: draft?.repository_path(path),
                        after: node(change.before.as_ref()),
                    })
                })
                .collect()
        };
        let consequence = consequence::of(change_set.paths());
        let committed = self
            .with_draft(move |draft, work_tree| {
                let commit = draft.commit(&change_set, &message)?;
                crate::crash_point!("after-commit");
                // From here on the commit is what counts. What cannot be noted now is found again by the journal.
                if let Err(error) = note_shown(draft, work_tree) {
                    tracing::warn!(error = %crate::chain(&error), "what the work tree shows could not be noted");
                }
                Ok(commit)
            })
            .await;
        if committed.is_err() {
            self.show(&back, consequence).await?;
            self.work_tree.end()?;
        }
        committed
    }

    /// Pushes and proves it. The work tree follows wherever the draft went meanwhile.
    pub(super) async fn push(&mut self) -> Result<Pushed, WorkshopError> {
        let (before, pushed, after, in_draft) = self
            .with_draft(|draft, _| {
                let before = draft.tip()?;
                let pushed = draft.push();
                crate::crash_point!("after-push");
                if let Ok(Pushed::Rejected { .. }) = &pushed {
                    draft.roll_back(draft.pushed_tip()?)?;
                }
                Ok((before, pushed, draft.tip()?, draft.unpushed()? > 0))
            })
            .await?;
        // What was made by hand stays if its commit is gone from the draft; if it is not, what others made of it counts.
        let kept = self.work_tree.kept();
        if in_draft || matches!(pushed, Ok(Pushed::Verified)) {
            self.work_tree.release()?;
        }
        self.follow(before, after).await?;
        match &pushed {
            Ok(_) => self.work_tree.release()?,
            Err(_) => self.work_tree.keep(kept)?,
        }
        Ok(pushed?)
    }

    /// Takes everything off the draft that has not been seen on the remote; but looks there once more, because a push
    /// whose answer was lost may have arrived.
    pub(super) async fn give_up(&mut self, id: InstructionId) -> Result<GivenUp, WorkshopError> {
        let (before, given_up, after) = self
            .with_draft(move |draft, _| {
                let before = draft.tip()?;
                let asked = draft.fetch();
                // What the remote has by now is not taken off: the draft follows it.
                while let Replanted::Conflict { .. } = draft.replant()? {}
                draft.roll_back(draft.pushed_tip()?)?;
                let given_up = match (draft.landed(&id).cloned(), asked) {
                    (Some(commit), _) => GivenUp::Landed(commit),
                    (None, Ok(())) => GivenUp::TakenBack,
                    (None, Err(_)) => GivenUp::Unknown,
                };
                Ok((before, given_up, draft.tip()?))
            })
            .await?;
        if let GivenUp::Landed(_) = given_up {
            self.work_tree.release()?;
        }
        self.follow(before, after).await?;
        self.work_tree.release()?;
        Ok(given_up)
    }

    /// The files in which a commit differs from its parent.
    pub(super) async fn files_of(
        &mut self,
        commit: CommitId,
    ) -> Result<(String, Vec<String>), WorkshopError> {
        self.with_draft(move |draft, _| Ok(draft.described(&commit)?))
            .await
    }

    /// Waits until the work tree shows everything that was asked for.
    pub(crate) async fn settled(&mut self) -> Result<(), WorkshopError> {
        Ok(self.work_tree.settled().await?)
    }

    /// Puts right what an earlier attempt could not take back.
    pub(super) async fn settle(&mut self) -> Result<(), WorkshopError> {
        if self.draft.is_none() {
            self.with_draft(|_, _| Ok(())).await?;
        }
        if self.work_tree.is_at_rest() {
            let unsettled = WorkTree::unsettled(&self.places)?;
            if !unsettled.is_empty() {
                let changes = self
                    .with_draft(move |draft, _| {
                        let tip = draft.tip()?;
                        unsettled
                            .into_iter()
                            .map(|path| {
                                Ok(PathChange {
                                    after: draft.node(tip, &path)?,
                                    path,
                                })
                            })
                            .collect::<Result<Vec<_>, WorkshopError>>()
                    })
                    .await?;
                self.show(&changes, Consequence::Restart).await?;
                self.work_tree.put_right()?;
            }
        }
        Ok(())
    }

    /// Makes the work tree follow the draft from one commit to another. What somebody changed by hand stays.
    async fn follow(&mut self, from: Oid, to: Oid) -> Result<(), WorkshopError> {
        if from == to {
            return Ok(());
        }
        let ours = WorkTree::unsettled(&self.places)?.into_iter().collect();
        let changes = self
            .with_draft(move |draft, work_tree| {
                let changes = draft.differences(from, to)?;
                hands::spare(draft, work_tree, from, changes, &ours, true)
            })
            .await?;
        let consequence = consequence::of(self.site_paths(&changes).iter());
        self.show(&changes, consequence).await?;
        self.with_draft(move |draft, work_tree| {
            draft.set_shown(to)?;
            Ok(work_tree.end()?)
        })
        .await
    }

    /// Writes changes, but over nothing that is kept. Where the running site would restart itself over them, it is stopped first and started after.
    async fn show(
        &mut self,
        changes: &[PathChange],
        consequence: Consequence,
    ) -> Result<(), WorkTreeError> {
        let spared: Vec<PathChange>;
        let changes = if changes
            .iter()
            .any(|change| self.work_tree.is_kept(&change.path))
        {
            let to_write = |change: &&PathChange| !self.work_tree.is_kept(&change.path);
            spared = changes.iter().filter(to_write).cloned().collect();
            &spared
        } else {
            changes
        };
        self.work_tree
            .begin(changes.iter().map(|change| change.path.as_str()))?;
        if consequence > Consequence::None {
            tracing::info!(?consequence, "the change takes a restart of the site");
            self.site.halt().await;
        }
        let shown = if consequence > Consequence::None {
            self.work_tree.show_at_once(changes, Instant::now())
        } else {
            self.work_tree.show(changes, Instant::now())
        };
        if consequence > Consequence::None {
            self.site
                .resume(consequence == Consequence::Reinstall)
                .await;
        } else {
            self.site.edited().await;
        }
        shown
    }

    fn site_paths(&self, changes: &[PathChange]) -> Vec<SitePath> {
        let prefix = if self.settings.site_root.is_empty() {
            String::new()
        } else {
            format!("{}/", self.settings.site_root)
        };
        changes
            .iter()
            .filter_map(|change| change.path.strip_prefix(&prefix)?.parse().ok())
            .collect()
    }

    async fn with_draft<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Draft, &WorkTree) -> Result<T, WorkshopError> + Send + 'static,
    ) -> Result<T, WorkshopError> {
        let opened = self.draft.take();
        let (settings, work_tree) = (self.settings.clone(), self.work_tree.clone());
        let done = tokio::task::spawn_blocking(move || {
            let mut draft = match opened {
                Some(draft) => draft,
                None => match Draft::open(&settings, &mut |_, _| ()) {
                    Ok(draft) => draft,
                    Err(error) => return (None, Err(error.into())),
                },
            };
            let result = work(&mut draft, &work_tree);
            (Some(draft), result)
        });
        match done.await {
            Ok((draft, result)) => {
                self.draft = draft;
                result
            }
            Err(error) => Err(WorkshopError::Broke(error.to_string())),
        }
    }
}

fn note_shown(draft: &Draft, work_tree: &WorkTree) -> Result<(), WorkshopError> {
    draft.set_shown(draft.tip()?)?;
    Ok(work_tree.end()?)
}

fn node(version: Option<&Version>) -> Node {
    version.map_or(Node::Absent, |version| Node::File(version.clone()))
}
