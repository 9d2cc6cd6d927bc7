//! What an instruction is carried out on: the draft, the work tree that shows it, and the site that renders it.
//!
//! Git blocks, so the draft moves into a blocking thread for each piece of work and comes back. If that thread panics
//! (libgit2 is C), the draft is opened anew: everything it knows is on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use contract::client_config::{OnBroken, Policy};
use contract::instruction::UndoTarget;
use contract::session::Parked;
use contract::{Change, CommitId, InstructionId, SitePath};
use git2::Oid;
use tokio_util::sync::CancellationToken;

use super::hands;
use super::indoors::Indoors;
use super::trial::{Checked, Trial, Tried};
use crate::change_set::by_hand::{self, Room};
use crate::change_set::{self, PlanError};
use crate::draft::{
    self, CommitMessage, Declined, Draft, DraftError, GivenUp, History, LeftBehind, Move,
    PUSH_ROUNDS_MAX, Parking, PathChange, Proposal, Publication, Published, RescueName, Round,
    Seen, TakenUp,
};
use crate::isolation::{Role, folders};
use crate::site::build::{Build, BuildError};
use crate::site::node::Node;
use crate::site::{Consequence, Site, consequence};
use crate::verify::Verifier;
use crate::work_tree::uncommitted::Suspects;
use crate::work_tree::{Places, WorkTree, WorkTreeError};

/// The draft, the work tree and the site.
#[derive(Debug)]
pub(crate) struct Workshop {
    draft: Option<Draft>,
    settings: draft::Settings,
    pub(super) places: Places,
    pub(super) work_tree: WorkTree,
    pub(super) site: Site,
    node: Node,
    pub(super) verifier: Verifier,
    /// When we are to stop.
    pub(super) stop: CancellationToken,
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
    /// We are to stop, and it would take too long.
    #[error("the environment stops before it is done")]
    Interrupted,
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
            Self::Broke(_) | Self::Interrupted => false,
        }
    }
}

/// What became of work that was to be parked.
#[derive(Debug)]
pub(crate) struct ParkedWork {
    /// Where it is now.
    pub(crate) parking: Parking,
    /// The files that were changed by hand and are in none of it, because they are too large, too many, or no files.
    pub(crate) left: Vec<LeftBehind>,
}

/// How trying out a proposal went.
#[derive(Debug)]
pub(super) enum TriedOut {
    /// The files say it now, and it may stand.
    Stands(Checked),
    /// It breaks a page. It has been taken back, and nobody has seen it.
    Broken(Checked),
    /// A file is not as the draft has it: somebody changed it by hand. Nothing was written.
    Dirty(String),
    /// The kernel refused a path: a symlink stands in the way. Nothing is left behind.
    PathRefused(String),
}

/// How pushing ended.
#[derive(Debug)]
pub(super) enum Pushed {
    /// The remote's tip is, or descends from, our tip.
    Verified,
    /// The remote said no, for a reason that trying again does not change. Our commit is gone.
    Rejected {
        /// What the remote said.
        reason: String,
    },
    /// Somebody else changed the same lines. Our commit is gone.
    Conflict {
        /// The files, as paths of the repository.
        files: Vec<String>,
    },
    /// It breaks a page together with what somebody else pushed meanwhile. Our commit is gone.
    BrokenTogether(Checked),
    /// The instruction or the session is somebody else's by now. Nothing was pushed.
    NotOurs,
}

impl Workshop {
    /// Opens the work tree over an opened draft, and puts right what a crash left.
    pub(crate) fn open(
        draft: Draft,
        settings: draft::Settings,
        places: Places,
        work_tree: WorkTree,
        verifier: Verifier,
        node: Node,
        stop: CancellationToken,
    ) -> Self {
        Self {
            draft: Some(draft),
            settings,
            places,
            work_tree,
            node,
            stop,
            site: verifier.site().clone(),
            verifier,
            by_hand: BTreeSet::new(),
            unexamined: Suspects::default(),
        }
    }

    /// What nobody outside is told of: the site's folders, whose paths are known without them, and these.
    pub(crate) fn indoors<'a>(&self, folders: impl IntoIterator<Item = &'a Path>) -> Indoors {
        let trees = [self.places.root.clone(), built_tree(&self.places)];
        let sites = trees
            .each_ref()
            .map(|tree| tree.join(&self.settings.site_root));
        let sites = sites.iter().chain(&trees).map(PathBuf::as_path);
        Indoors::of(sites, folders)
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

    /// The commit in which a publish landed, as far as the published branch is known.
    pub(super) fn published_landed(&self, id: &InstructionId) -> Option<CommitId> {
        self.draft
            .as_ref()
            .and_then(|draft| draft.published_landed(id))
            .cloned()
    }

    /// What was done on the draft.
    pub(super) async fn history(&mut self) -> Result<History, WorkshopError> {
        self.with_draft(|draft, _| Ok(draft.history()?)).await
    }

    /// What the draft becomes by an edit.
    pub(super) async fn propose_edit(
        &mut self,
        changes: Vec<Change>,
        policy: Policy,
        fetched: BTreeMap<String, Vec<u8>>,
    ) -> Result<Result<Proposal, PlanError>, WorkshopError> {
        self.settle().await?;
        self.with_draft(move |draft, _| {
            let planned = change_set::plan(&changes, &draft.tree()?, &policy, &fetched);
            planned
                .map(|change_set| Ok(draft.propose_edit(&change_set)?))
                .map_or_else(|error| Ok(Err(error)), |proposal| proposal.map(Ok))
        })
        .await
    }

    /// What the draft becomes by taking an instruction back.
    pub(super) async fn propose_undo(
        &mut self,
        target: UndoTarget,
    ) -> Result<Result<Proposal, Declined>, WorkshopError> {
        self.settle().await?;
        self.with_draft(move |draft, _| Ok(draft.propose_undo(&target)?))
            .await
    }

    /// What the draft becomes by bringing in what is published, as it is now.
    pub(super) async fn propose_sync(
        &mut self,
    ) -> Result<Result<Proposal, Declined>, WorkshopError> {
        self.take_in().await?;
        self.with_draft(|draft, _| Ok(draft.propose_sync()?)).await
    }

    /// What the draft becomes by going back to what is published, as it is now.
    pub(super) async fn propose_discard(
        &mut self,
    ) -> Result<Result<Proposal, Declined>, WorkshopError> {
        self.take_in().await?;
        self.with_draft(|draft, _| Ok(draft.propose_discard()?))
            .await
    }

    /// What the published branch becomes, as it is now.
    pub(super) async fn propose_publish(
        &mut self,
        up_to: Option<InstructionId>,
    ) -> Result<Result<Publication, Declined>, WorkshopError> {
        self.take_in().await?;
        self.with_draft(move |draft, _| Ok(draft.propose_publish(up_to.as_ref())?))
            .await
    }

    /// What the draft becomes by a commit of everything that was changed by hand.
    pub(super) async fn propose_commit(
        &mut self,
        policy: Policy,
    ) -> Result<Result<Proposal, PlanError>, WorkshopError> {
        self.settle().await?;
        let paths = self.examine(Suspects::Everything).await?;
        let room = Room::of(&policy);
        if let Err(rejection) = room.refuse_many(paths.len()) {
            return Ok(Err(rejection.into()));
        }
        let site_root = self.settings.site_root.clone();
        self.with_draft(move |draft, work_tree| {
            let changes = hands::gather(draft, work_tree, &paths, room)?;
            match by_hand::plan(changes, &site_root, &policy) {
                Ok(change_set) => Ok(Ok(draft.propose_edit(&change_set)?)),
                Err(rejection) => Ok(Err(rejection.into())),
            }
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
        let before = known.clone();
        let found = self
            .with_draft(move |draft, work_tree| hands::find(draft, work_tree, &due, &known))
            .await?;
        // What an attempt of ours left half done is nobody else's work. It is looked at again once it is put right.
        let (ours, by_hand) = found.into_iter().partition(|path| unsettled.contains(path));
        self.unexamined = Suspects::Paths(ours);
        self.by_hand = by_hand;
        if !(before.is_empty() && self.by_hand.is_empty()) {
            // Pages show what is there, which is not what any tree has.
            self.verifier.forget();
        }
        Ok(self.by_hand.clone())
    }

    /// Shows a proposal to nobody but us, and judges it: it stands, or it is taken back.
    pub(super) async fn try_out(
        &mut self,
        proposal: &Proposal,
        on_broken: OnBroken,
    ) -> Result<TriedOut, WorkshopError> {
        let mut made_by_hand = BTreeSet::new();
        for step in &proposal.moves {
            let found = match self.work_tree.read(&step.path) {
                Err(error) if error.is_path_refused() => {
                    return Ok(TriedOut::PathRefused(crate::chain(&error)));
                }
                found => found?,
            };
            if self.work_tree.is(&step.path, &step.after)? {
                made_by_hand.insert(step.path.clone());
            } else if found != step.before {
                return Ok(TriedOut::Dirty(step.path.clone()));
            }
        }
        // It is neither written nor taken back, whatever becomes of the commit.
        self.work_tree.keep(made_by_hand)?;
        crate::crash_point!("before-apply");
        let on = proposal.on;
        let base = self
            .with_draft(move |draft, _| Ok(draft.tree_id(on)?))
            .await?;
        self.verifier.begin_with(base);
        let trial = Trial::of(proposal, base);
        let tried = match self.run_trial(&trial, on_broken).await {
            Ok(Tried::Stands(checked)) => return Ok(TriedOut::Stands(checked)),
            Ok(Tried::Broken(checked)) => Ok(TriedOut::Broken(checked)),
            Ok(Tried::Dirty(path)) => Ok(TriedOut::Dirty(path)),
            Err(WorkshopError::WorkTree(error)) if error.is_path_refused() => {
                Ok(TriedOut::PathRefused(crate::chain(&error)))
            }
            Err(error) => return Err(error),
        };
        self.work_tree.end()?;
        self.work_tree.release()?;
        tried
    }

    /// Commits what was tried out.
    pub(super) async fn commit(
        &mut self,
        proposal: Proposal,
        message: CommitMessage,
    ) -> Result<CommitId, WorkshopError> {
        let back = Move::back(&proposal.moves);
        let committed = self
            .with_draft(move |draft, work_tree| {
                let commit = draft.commit(&proposal, &message)?;
                crate::crash_point!("after-commit");
                // From here on the commit is what counts. What cannot be noted now is found again by the journal.
                if let Err(error) = note_shown(draft, work_tree) {
                    tracing::warn!(error = %crate::chain(&error), "what the work tree shows could not be noted");
                }
                Ok(commit)
            })
            .await;
        if committed.is_err() {
            self.show(&back).await?;
            self.work_tree.end()?;
        }
        committed
    }

    /// Pushes and proves it. What others pushed meanwhile goes below our commit, and the two are looked at together
    /// before the next round.
    ///
    /// `may_act` is asked before every round: what others pushed is looked at in between, and that takes a while.
    pub(super) async fn push(
        &mut self,
        on_broken: OnBroken,
        may_act: &(dyn Fn() -> bool + Sync),
    ) -> Result<Pushed, WorkshopError> {
        for _ in 0..PUSH_ROUNDS_MAX {
            if !may_act() {
                return Ok(Pushed::NotOurs);
            }
            let (before, round, after) = self
                .with_draft(|draft, _| {
                    let before = draft.tip()?;
                    let round = draft.push_once();
                    crate::crash_point!("after-push");
                    if let Ok(Round::Rejected { .. }) = &round {
                        draft.roll_back(draft.pushed_tip()?)?;
                    }
                    Ok((before, round, draft.tip()?))
                })
                .await?;
            match round {
                Ok(Round::Moved) => {
                    if let Some(checked) = self.combine(before, after, on_broken).await? {
                        self.work_tree.release()?;
                        return Ok(Pushed::BrokenTogether(checked));
                    }
                }
                ended => {
                    // What was made by hand stays if its commit is gone; if it is not, what others made of it counts.
                    if let Ok(Round::Verified) = ended {
                        self.work_tree.release()?;
                    }
                    self.follow(before, after).await?;
                    let ended = ended?;
                    self.work_tree.release()?;
                    return Ok(match ended {
                        Round::Rejected { reason } => Pushed::Rejected { reason },
                        Round::Conflict { files } => Pushed::Conflict { files },
                        Round::Verified | Round::Moved => Pushed::Verified,
                    });
                }
            }
        }
        let busy = self.with_draft(|draft, _| Ok(draft.remote_busy())).await?;
        Err(busy.into())
    }

    /// Looks at a commit that an earlier attempt made and that has not been pushed: it may have come on top of what others
    /// pushed without anybody having looked at the two together.
    pub(super) async fn look_at_landed(
        &mut self,
        on_broken: OnBroken,
    ) -> Result<Option<Checked>, WorkshopError> {
        let (tip, unpushed) = self.summary().await?;
        if unpushed == 0 {
            return Ok(None);
        }
        self.combine(tip, tip, on_broken).await
    }

    /// Shows our commit on top of what others pushed. If the two break a page that either alone does not, ours is taken
    /// off.
    async fn combine(
        &mut self,
        before: Oid,
        after: Oid,
        on_broken: OnBroken,
    ) -> Result<Option<Checked>, WorkshopError> {
        let ours = WorkTree::unsettled(&self.places)?.into_iter().collect();
        let (theirs, trial) = self
            .with_draft(move |draft, work_tree| {
                let theirs = draft.pushed_tip()?;
                let forward = draft.differences(before, after)?;
                let trial = Trial {
                    base: draft.tree_id(theirs)?,
                    tree: draft.tree_id(after)?,
                    forward: hands::spare(draft, work_tree, before, forward, &ours, false)?,
                    back: draft.differences(after, theirs)?,
                    again: draft.differences(theirs, after)?,
                };
                Ok((theirs, trial))
            })
            .await?;
        let tried = self.run_trial(&trial, on_broken).await?;
        let (tip, broken) = match tried {
            // A hand's work stays as it is, and is uncommitted against what the draft is now.
            Tried::Stands(_) | Tried::Dirty(_) => (after, None),
            Tried::Broken(checked) => (theirs, Some(checked)),
        };
        self.with_draft(move |draft, work_tree| {
            if draft.tip()? != tip {
                draft.roll_back(tip)?;
            }
            draft.set_shown(tip)?;
            Ok(work_tree.end()?)
        })
        .await?;
        Ok(broken)
    }

    /// Looks at every page that publishing touches. Whether the site can be built as well, [`Workshop::build`] says.
    pub(super) async fn check_publication(
        &mut self,
        publication: &Publication,
    ) -> Result<Checked, WorkshopError> {
        let tip_tree = self
            .with_draft(|draft, _| Ok(draft.tree_id(draft.tip()?)?))
            .await?;
        self.run_check(publication, tip_tree).await
    }

    /// Moves the published branch. The draft and the work tree follow.
    pub(super) async fn publish(
        &mut self,
        publication: Publication,
        message: CommitMessage,
    ) -> Result<Published, WorkshopError> {
        let (before, published, after) = self
            .with_draft(move |draft, _| {
                let before = draft.tip()?;
                let published = draft.publish(&publication, &message);
                crate::crash_point!("after-publish");
                // The draft goes on from what is published, also for others. If that fails, the next push does it.
                if let (Ok(Published::Verified(_)), true) = (&published, publication.whole)
                    && let Err(error) = draft.push_once()
                {
                    tracing::warn!(error = %crate::chain(&error), "the draft on the remote stays behind what was published for now");
                }
                Ok((before, published, draft.tip()?))
            })
            .await?;
        self.follow(before, after).await?;
        Ok(published?)
    }

    /// What the last fetch saw on the remote.
    pub(super) async fn seen(&mut self) -> Result<Seen, WorkshopError> {
        self.with_draft(|draft, _| Ok(draft.seen()?)).await
    }

    /// Takes in what others pushed: our own commits go on top of it, and the work tree shows it.
    ///
    /// Returns whether the draft has moved.
    pub(super) async fn take_in(&mut self) -> Result<bool, WorkshopError> {
        self.settle().await?;
        let (before, after) = self
            .with_draft(|draft, _| {
                let before = draft.tip()?;
                draft.take_in()?;
                Ok((before, draft.tip()?))
            })
            .await?;
        self.follow(before, after).await?;
        Ok(before != after)
    }

    /// Gives an instruction up (see [`Draft::give_up`]); the work tree follows.
    pub(super) async fn give_up(&mut self, id: InstructionId) -> Result<GivenUp, WorkshopError> {
        let (before, given_up, after) = self
            .with_draft(move |draft, _| {
                let before = draft.tip()?;
                let given_up = draft.give_up(&id)?;
                Ok((before, given_up, draft.tip()?))
            })
            .await?;
        if let GivenUp::Landed(_) | GivenUp::Published(_) = given_up {
            self.work_tree.release()?;
        }
        self.follow(before, after).await?;
        self.work_tree.release()?;
        Ok(given_up)
    }

    /// Pushes what is left to push, once and as it is: for the end, when the site does not run any more and nothing can be looked
    /// at. Returns whether the remote has everything.
    pub(crate) async fn push_what_is_left(&mut self) -> Result<bool, WorkshopError> {
        self.with_draft(|draft, _| {
            if draft.unpushed()? == 0 {
                return Ok(true);
            }
            Ok(matches!(draft.push_once()?, Round::Verified))
        })
        .await
    }

    /// The files in which a commit differs from its parent.
    pub(super) async fn files_of(
        &mut self,
        commit: CommitId,
    ) -> Result<(String, Vec<String>), WorkshopError> {
        self.with_draft(move |draft, _| Ok(draft.described(&commit)?))
            .await
    }

    /// Puts what the remote does not have, and what was changed by hand, where the next environment finds it. To be asked when the
    /// pipeline has ended.
    pub(crate) async fn park(&mut self, name: RescueName) -> Result<ParkedWork, WorkshopError> {
        let paths = self.uncommitted().await?;
        self.with_draft(move |draft, work_tree| {
            let (changes, left) = hands::to_park(draft, work_tree, &paths)?;
            let parking = draft.park(&changes, &name)?;
            Ok(ParkedWork { parking, left })
        })
        .await
    }

    /// Takes up what an environment before parked: its commits come back onto the draft, the work tree shows them, and what was changed
    /// by hand is changed by hand again. For the start, after [`Workshop::open_work_tree`] and before the site runs.
    pub(crate) fn take_up_parked(
        draft: &mut Draft,
        work_tree: &WorkTree,
        parked: &Parked,
        bundle: Option<&[u8]>,
    ) -> Result<TakenUp, WorkshopError> {
        let before = draft.tip()?;
        let mut taken = draft.take_up_parked(parked, bundle)?;
        let after = draft.tip()?;
        let changes = draft.differences(before, after)?;
        let changes = hands::spare(draft, work_tree, before, changes, &BTreeSet::new(), true)?;
        if !changes.is_empty() {
            work_tree.begin(changes.iter().map(|change| change.path.as_str()))?;
            work_tree.show_at_once(&changes, Instant::now())?;
            work_tree.end()?;
        }
        draft.set_shown(after)?;
        hands::put_back(draft, work_tree, &mut taken)?;
        Ok(taken)
    }

    /// What is parked of this draft on the remote, newest first: also what no record tells of any more.
    pub(crate) fn parked_on_remote(draft: &Draft) -> Result<Vec<Parked>, WorkshopError> {
        Ok(draft.parked_on_remote()?)
    }

    /// Removes what was parked, once it is safe elsewhere. Returns whether it is gone.
    pub(crate) async fn forget_parked(&mut self, parked: Parked) -> Result<bool, WorkshopError> {
        self.with_draft(move |draft, _| Ok(draft.forget_parked(&parked)?))
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
                self.show(&changes).await?;
                self.work_tree.put_right()?;
            }
        }
        Ok(())
    }

    /// Makes the work tree follow the draft from one commit to another, for everybody to see: it is what the draft is. What
    /// somebody changed by hand stays.
    async fn follow(&mut self, from: Oid, to: Oid) -> Result<(), WorkshopError> {
        if from == to {
            return Ok(());
        }
        let ours = WorkTree::unsettled(&self.places)?.into_iter().collect();
        let (changes, trees) = self
            .with_draft(move |draft, work_tree| {
                let trees = (draft.tree_id(from)?, draft.tree_id(to)?);
                let changes = draft.differences(from, to)?;
                let changes = hands::spare(draft, work_tree, from, changes, &ours, true)?;
                Ok((changes, trees))
            })
            .await?;
        self.show_and_look(&changes, trees).await?;
        self.with_draft(move |draft, work_tree| {
            draft.set_shown(to)?;
            Ok(work_tree.end()?)
        })
        .await
    }

    /// Writes changes, but over nothing that is kept. Where the running site would restart itself over them, it is stopped
    /// first and started after.
    pub(super) async fn show(&mut self, changes: &[PathChange]) -> Result<(), WorkTreeError> {
        let spared: Vec<PathChange> = changes
            .iter()
            .filter(|change| !self.work_tree.is_kept(&change.path))
            .cloned()
            .collect();
        let changes = spared.as_slice();
        let consequence = self.consequence(changes);
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

    /// Builds the site in a copy of a tree.
    pub(super) async fn build(
        &mut self,
        tree: Oid,
    ) -> Result<Result<(), BuildError>, WorkshopError> {
        let copy = build_copy(&self.places);
        let places = Places {
            root: built_tree(&self.places),
            staging: copy.join("staging"),
            journal: copy.join("journal.json"),
        };
        let fresh =
            |source| WorkshopError::WorkTree(WorkTreeError::new("make", copy.clone(), source));
        remove_folder(&copy).map_err(fresh)?;
        // Ours alone until everything is in it that is ours to write.
        set_mode(&copy, 0o2700).map_err(fresh)?;
        std::fs::create_dir_all(&places.staging).map_err(fresh)?;
        let made = places.clone();
        self.with_draft(move |draft, _| Ok(WorkTree::create(&made, &draft.contents(tree)?)?))
            .await?;
        let given = (self.node.isolation.clone(), places.root.clone());
        tokio::task::spawn_blocking(move || given.0.give_to_site(&given.1))
            .await
            .map_err(std::io::Error::other)
            .and_then(|given| given)
            .and_then(|()| set_mode(&copy, 0o2710))
            .map_err(fresh)?;
        let build = Build {
            root: places.root.join(&self.settings.site_root),
            installed: self.site_folder().join("node_modules"),
            // Beside the journal, where the site may read what it knows the name of and write nothing.
            program: self.places.journal.with_file_name("build.mjs"),
            node: self.node.clone(),
        };
        let stop = self.stop.clone();
        let outcome = tokio::select! {
            outcome = build.run() => Ok(outcome),
            // It may go on for minutes, and changes nothing: the next environment begins it again.
            () = stop.cancelled() => {
                if let Err(why) = self.node.isolation.end(Role::Build).await {
                    tracing::error!(why, "what the build left running could not be ended");
                }
                Err(WorkshopError::Interrupted)
            }
        };
        if let Err(error) = remove_folder(&copy) {
            tracing::warn!(%error, "the copy that was built could not be removed; the next one replaces it");
        }
        outcome
    }

    /// The files that somebody changed by hand, as paths of the repository, looked for anew.
    pub(crate) async fn uncommitted(&mut self) -> Result<BTreeSet<String>, WorkshopError> {
        self.examine(Suspects::Everything).await
    }

    /// Paths of the site, of paths of the repository; what lies elsewhere is named as it is.
    pub(super) fn site_files<'a>(&self, paths: impl Iterator<Item = &'a String>) -> Vec<String> {
        paths
            .map(|path| {
                self.site_path(path)
                    .map_or_else(|| path.clone(), |path| path.as_str().to_owned())
            })
            .collect()
    }

    /// What changes mean for the running site.
    pub(super) fn consequence(&self, changes: &[PathChange]) -> Consequence {
        consequence::of(self.site_paths(changes).iter())
    }

    /// The path of the site of a path of the repository; none if it lies elsewhere.
    pub(super) fn site_path(&self, path: &str) -> Option<SitePath> {
        let path = match self.settings.site_root.as_str() {
            "" => path,
            root => path.strip_prefix(root)?.strip_prefix('/')?,
        };
        path.parse().ok()
    }

    /// The folder in which the site is.
    pub(super) fn site_folder(&self) -> PathBuf {
        self.places.root.join(&self.settings.site_root)
    }

    fn site_paths(&self, changes: &[PathChange]) -> Vec<SitePath> {
        changes
            .iter()
            .filter_map(|change| self.site_path(&change.path))
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

/// The folder of a build.
fn build_copy(places: &Places) -> PathBuf {
    places.staging.join("build")
}

/// The copy of the repository that is built.
fn built_tree(places: &Places) -> PathBuf {
    build_copy(places).join("tree")
}

/// Makes a folder, or sets who may do what in it.
fn set_mode(folder: &Path, mode: u32) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

fn note_shown(draft: &Draft, work_tree: &WorkTree) -> Result<(), WorkshopError> {
    draft.set_shown(draft.tip()?)?;
    Ok(work_tree.end()?)
}

fn remove_folder(folder: &Path) -> std::io::Result<()> {
    match folders::remove(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
