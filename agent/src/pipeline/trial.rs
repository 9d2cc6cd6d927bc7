//! Trying a change out before anybody sees it: written, looked at, and judged behind closed doors.
//!
//! ```text
//!   hold ─▶ forward ─▶ look ─▶ judge ─┬─ sound, repaired, still broken ──────────────────────────▶ stands ─▶ end
//!                                     └─ breaks, unclear ─▶ back ─▶ is it broken without it too? ─┬─ yes ─▶ again ─▶ stands ─▶ end
//!                                                                (also after a restart of the site) └─ no ──────────▶ broken ─▶ end
//! ```
//!
//! Whatever happens, browsers see either the old site or the new one: what the dev server says meanwhile is held, and so
//! are visits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use contract::client_config::OnBroken;
use contract::receipt::{PageProblem, PageResult};
use contract::{SitePath, Verdict};
use git2::Oid;
use tokio_util::sync::CancellationToken;

use super::workshop::{Workshop, WorkshopError};
use crate::draft::{Move, Node, PathChange, Proposal, Publication};
use crate::site::{Consequence, SiteProblem};
use crate::verify::{Affected, Findings, Judgement, Reach, Subject, judge, page_results};

/// What is tried out.
#[derive(Debug)]
pub(super) struct Trial {
    /// The tree without the change.
    pub(super) base: Oid,
    /// The tree with it.
    pub(super) tree: Oid,
    /// From what is shown now to the tree.
    pub(super) forward: Vec<PathChange>,
    /// From the tree to the base.
    pub(super) back: Vec<PathChange>,
    /// From the base to the tree.
    pub(super) again: Vec<PathChange>,
}

impl Trial {
    /// A proposal, where its base is what is shown now.
    pub(super) fn of(proposal: &Proposal, base: Oid) -> Self {
        Self {
            base,
            tree: proposal.tree,
            forward: Move::forward(&proposal.moves),
            back: Move::back(&proposal.moves),
            again: Move::forward(&proposal.moves),
        }
    }
}

/// How it ended.
#[derive(Debug)]
pub(super) enum Tried {
    /// It is shown, and may stand.
    Stands(Checked),
    /// It breaks something, and the base is shown again.
    Broken(Checked),
    /// Somebody changed this path by hand. Nothing was written.
    Dirty(String),
}

/// What was seen.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    /// How the site is with the change.
    pub(super) verdict: Verdict,
    /// The pages that were looked at.
    pub(super) pages: Vec<PageResult>,
    /// The gravest thing that is wrong, and with what.
    pub(super) problem: Option<(Subject, PageProblem)>,
}

impl Checked {
    fn of(verdict: Verdict, findings: &Findings) -> Self {
        let broken = findings.broken();
        Self::because_of(verdict, findings, &broken)
    }

    fn because_of(verdict: Verdict, findings: &Findings, subjects: &BTreeSet<Subject>) -> Self {
        let problem = subjects
            .iter()
            .find_map(|subject| Some((subject.clone(), findings.problem_of(subject)?.clone())));
        Self {
            verdict,
            pages: page_results(findings),
            problem,
        }
    }
}

/// How long a change that is being judged when we are to stop may take: most take less, and it would have to be done again.
const LAST_LOOK_TIME: Duration = Duration::from_secs(5);

async fn patience(stop: CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(LAST_LOOK_TIME).await;
}

impl Workshop {
    /// Tries a change out. Afterwards the work tree shows it, or its base.
    pub(super) async fn run_trial(
        &mut self,
        trial: &Trial,
        on_broken: OnBroken,
    ) -> Result<Tried, WorkshopError> {
        let hold = self.site.hold().clone();
        hold.begin().await;
        let tried = self.try_behind_closed_doors(trial, on_broken).await;
        self.open_the_doors(tried).await
    }

    /// Lets browsers know again. What an attempt that failed has said meanwhile is nobody's business; and if we are to stop
    /// in the middle of one, its change still stands in the files, so that the doors stay closed.
    async fn open_the_doors<T>(
        &mut self,
        result: Result<T, WorkshopError>,
    ) -> Result<T, WorkshopError> {
        let hold = self.site.hold().clone();
        if result.is_err() {
            hold.take_back().await;
        }
        if !matches!(result, Err(WorkshopError::Interrupted)) {
            hold.end().await;
        }
        result
    }

    async fn try_behind_closed_doors(
        &mut self,
        trial: &Trial,
        on_broken: OnBroken,
    ) -> Result<Tried, WorkshopError> {
        // Judging begins a while after the proposal was made.
        if let Some(path) = self.changed_by_hand(&trial.forward, &trial.back)? {
            return Ok(Tried::Dirty(path));
        }
        let affected = self.affected_by_both(&trial.forward, &trial.again);
        let listening = self.verifier.listen();
        let shown = self.show_whole(&trial.forward).await;
        crate::crash_point!("after-apply");
        if let Err(error) = shown {
            self.site.hold().take_back().await;
            // If this fails too, the journal stays, and what is in it is put right before the next attempt.
            self.show_whole(&trial.back).await?;
            self.work_tree.end()?;
            return Err(error);
        }
        let trees = (trial.base, trial.tree);
        let stop = self.stop.clone();
        let findings = tokio::select! {
            findings = self.verifier.look(trees, &affected, Reach::EDIT, listening) => findings,
            // What has been written is in the journal, and is put right at the next start.
            () = patience(stop) => return Err(WorkshopError::Interrupted),
        };
        let judgement = judge(self.verifier.known(trial.base), &findings);
        tracing::debug!(
            ?judgement,
            pages = findings.pages.len(),
            "a change was judged"
        );
        let stands = |verdict| Ok(Tried::Stands(Checked::of(verdict, &findings)));
        // What was made by hand is there already, for everybody to see, and is not ours to take back.
        let by_hand = trial
            .back
            .iter()
            .all(|change| self.work_tree.is_kept(&change.path));
        let tried = match judgement {
            Judgement::Sound => stands(Verdict::Sound),
            Judgement::Repaired => stands(Verdict::Repaired),
            Judgement::StillBroken => stands(Verdict::StillBroken),
            Judgement::Breaks(_) | Judgement::Unclear(_) if on_broken == OnBroken::Keep => {
                stands(Verdict::Breaks)
            }
            Judgement::Breaks(subjects) | Judgement::Unclear(subjects) if by_hand => {
                let checked = Checked::because_of(Verdict::Breaks, &findings, &subjects);
                Ok(Tried::Broken(checked))
            }
            // What worked a moment ago may be broken by something else meanwhile: a place from which a page takes its data.
            Judgement::Breaks(subjects) | Judgement::Unclear(subjects) => {
                let without = self.take_back(trial, &subjects).await?.broken();
                let worked: BTreeSet<Subject> = subjects.difference(&without).cloned().collect();
                if worked.is_empty() {
                    self.show_again(trial).await?;
                    stands(Verdict::StillBroken)
                } else {
                    let checked = Checked::because_of(Verdict::Breaks, &findings, &worked);
                    Ok(Tried::Broken(checked))
                }
            }
        };
        if let Ok(Tried::Stands(_)) = &tried {
            self.verifier.expect_visits(&affected);
            self.report(&findings).await;
        }
        tried
    }

    /// Takes the change back, and makes sure that what it broke is as it was. Returns what was found of it.
    async fn take_back(
        &mut self,
        trial: &Trial,
        subjects: &BTreeSet<Subject>,
    ) -> Result<Findings, WorkshopError> {
        self.site.hold().take_back().await;
        let back = self.not_by_hand(&trial.back, &trial.again)?;
        let affected = self.affected(&back);
        let listening = self.verifier.listen();
        self.show_whole(&back).await?;
        let mut found = self
            .verifier
            .look_again(subjects, &affected, listening)
            .await;
        if found.is_broken() && !affected.restarts {
            // Astro 6 and 7 keep some of what was wrong (a picture that an entry named) until they start anew.
            tracing::info!(
                "the site did not get over a change that was taken back; it is started anew"
            );
            self.site.halt().await;
            self.site.resume(false).await;
            let listening = self.verifier.listen();
            found = self
                .verifier
                .look_again(subjects, &Affected::restart(), listening)
                .await;
        }
        self.verifier.remember(trial.base, &found);
        Ok(found)
    }

    async fn show_again(&mut self, trial: &Trial) -> Result<(), WorkshopError> {
        let again = self.not_by_hand(&trial.again, &trial.back)?;
        let affected = self.affected(&again);
        let listening = self.verifier.listen();
        self.show_whole(&again).await?;
        self.verifier.wait(&affected, listening).await;
        Ok(())
    }

    /// The first path that is neither as a change leaves it nor as it was before: somebody's hand was at it.
    fn changed_by_hand(
        &self,
        change: &[PathChange],
        before: &[PathChange],
    ) -> Result<Option<String>, WorkshopError> {
        let spared = self.not_by_hand(change, before)?;
        let path = change.iter().find(|change| !spared.contains(change));
        Ok(path.map(|change| change.path.clone()))
    }

    /// Of a change what may be written: where something else stands than what we wrote there before, a hand was at work
    /// meanwhile, and it stays.
    fn not_by_hand(
        &self,
        change: &[PathChange],
        before: &[PathChange],
    ) -> Result<Vec<PathChange>, WorkshopError> {
        let before: BTreeMap<&str, &Node> = before
            .iter()
            .map(|change| (change.path.as_str(), &change.after))
            .collect();
        let mut spared = Vec::new();
        for change in change {
            let ours = match before.get(change.path.as_str()) {
                Some(node) => {
                    self.work_tree.is(&change.path, node)?
                        || self.work_tree.is(&change.path, &change.after)?
                }
                None => true,
            };
            if ours {
                spared.push(change.clone());
            } else {
                tracing::info!(path = %change.path, "this file was changed by hand meanwhile; it stays as it is");
            }
        }
        Ok(spared)
    }

    /// Looks at every page that publishing touches, showing for that time what would be published.
    pub(super) async fn run_check(
        &mut self,
        publication: &Publication,
        tip_tree: Oid,
    ) -> Result<Checked, WorkshopError> {
        let moves = &publication.moves_from_draft;
        let (forward, back) = (Move::forward(moves), Move::back(moves));
        let affected = self.affected(&forward);
        let affected = affected.publishing(self.touched(&publication.touched), || self.store());
        let trees = (tip_tree, publication.tree);
        if forward.is_empty() {
            // What would be published is what everybody sees already.
            return self.check(trees, &forward, &back, &affected).await;
        }
        self.site.hold().begin().await;
        let checked = self.check(trees, &forward, &back, &affected).await;
        self.open_the_doors(checked).await
    }

    async fn check(
        &mut self,
        trees: (Oid, Oid),
        forward: &[PathChange],
        back: &[PathChange],
        affected: &Affected,
    ) -> Result<Checked, WorkshopError> {
        let listening = self.verifier.listen();
        let shown = self.show_whole(forward).await;
        let stop = self.stop.clone();
        let findings = tokio::select! {
            findings = self.verifier.look(trees, affected, Reach::PUBLISH, listening) => findings,
            () = patience(stop) => return Err(WorkshopError::Interrupted),
        };
        if !back.is_empty() {
            self.site.hold().take_back().await;
            let listening = self.verifier.listen();
            let back = self.not_by_hand(back, forward)?;
            self.show_whole(&back).await?;
            self.work_tree.end()?;
            let affected = self.affected(&back);
            self.verifier.wait(&affected, listening).await;
        }
        shown?;
        let verdict = if findings.is_broken() {
            Verdict::Breaks
        } else {
            Verdict::Sound
        };
        Ok(Checked::of(verdict, &findings))
    }

    /// Shows what others did, and sees how the site is with it. It is not judged: it is what the draft is.
    pub(super) async fn show_and_look(
        &mut self,
        changes: &[PathChange],
        trees: (Oid, Oid),
    ) -> Result<(), WorkshopError> {
        let affected = self.affected(changes);
        let listening = self.verifier.listen();
        self.show_whole(changes).await?;
        let findings = self
            .verifier
            .look(trees, &affected, Reach::EDIT, listening)
            .await;
        self.report(&findings).await;
        Ok(())
    }

    /// Writes changes, and waits for those that had to be put off.
    async fn show_whole(&mut self, changes: &[PathChange]) -> Result<(), WorkshopError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.show(changes).await?;
        Ok(self.work_tree.settled().await?)
    }

    fn affected(&self, changes: &[PathChange]) -> Affected {
        self.affected_by_both(changes, &[])
    }

    /// What a change affects that is written now, and another one that is there already.
    fn affected_by_both(&self, written: &[PathChange], there: &[PathChange]) -> Affected {
        let touched: BTreeMap<SitePath, bool> = written
            .iter()
            .chain(there)
            .filter_map(|change| {
                let path = self.site_path(&change.path)?;
                Some((path, change.after != Node::Absent))
            })
            .collect();
        // Over what is kept nothing is written, so the dev server has nothing to note.
        let written: Vec<PathChange> = written
            .iter()
            .filter(|change| !self.work_tree.is_kept(&change.path))
            .cloned()
            .collect();
        let restarts = self.consequence(&written) > Consequence::None;
        let paths = written
            .iter()
            .filter_map(|change| self.site_path(&change.path));
        Affected::of(touched, restarts, || self.store()).writing(paths)
    }

    /// Astro's content store.
    fn store(&self) -> Option<String> {
        std::fs::read_to_string(self.site_folder().join(crate::verify::STORE)).ok()
    }

    fn touched(&self, paths: &[String]) -> impl Iterator<Item = SitePath> {
        paths.iter().filter_map(|path| self.site_path(path))
    }

    /// Says how the site is, for whoever asks.
    async fn report(&mut self, findings: &Findings) {
        let problem = findings.broken().first().and_then(|subject| {
            let problem = findings.problem_of(subject)?.clone();
            Some(SiteProblem {
                message: problem.message,
                file: problem.file,
                line: problem.line,
                frame: problem.frame,
                ..SiteProblem::default()
            })
        });
        self.site.judged(problem).await;
    }
}
