//! Trying a change out before anybody sees it: written, looked at, and judged behind closed doors.
//!
//! ```text
//!   hold ─▶ forward ─▶ look ─▶ judge ─┬─ sound, repaired, still broken ────────────────────────────▶ stands ─▶ end
//!                                     ├─ breaks ─▶ back ─▶ is it as it was? (else restart the site) ─▶ broken ─▶ end
//!                                     └─ unclear ─▶ back ─▶ was it broken before? ─┬─ yes ─▶ again ─▶ stands ─▶ end
//!                                                                                 └─ no ──────────▶ broken ─▶ end
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
use crate::draft::{Node, PathChange, Proposal, Publication};
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
        let each = |node: fn(&crate::draft::Move) -> &Node| -> Vec<PathChange> {
            let changes = proposal.moves.iter();
            changes
                .map(|step| PathChange {
                    path: step.path.clone(),
                    after: node(step).clone(),
                })
                .collect()
        };
        Self {
            base,
            tree: proposal.tree,
            forward: each(|step| &step.after),
            back: each(|step| &step.before),
            again: each(|step| &step.after),
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
        self.verifier.begin_with(trial.base);
        let hold = self.site.hold().clone();
        hold.begin().await;
        let tried = self.try_behind_closed_doors(trial, on_broken).await;
        hold.end().await;
        tried
    }

    async fn try_behind_closed_doors(
        &mut self,
        trial: &Trial,
        on_broken: OnBroken,
    ) -> Result<Tried, WorkshopError> {
        let affected = self.affected(&trial.forward);
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
            Judgement::Breaks(subjects) => {
                self.take_back(trial, &subjects).await?;
                let checked = Checked::because_of(Verdict::Breaks, &findings, &subjects);
                Ok(Tried::Broken(checked))
            }
            Judgement::Unclear(subjects) => {
                let before = self.take_back(trial, &subjects).await?;
                let broken_before = before.broken();
                let worked: BTreeSet<Subject> =
                    subjects.difference(&broken_before).cloned().collect();
                if worked.is_empty() {
                    self.show_again(trial, &affected).await?;
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
        let affected = self.affected(&trial.back);
        let listening = self.verifier.listen();
        self.show_whole(&trial.back).await?;
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

    async fn show_again(
        &mut self,
        trial: &Trial,
        affected: &Affected,
    ) -> Result<(), WorkshopError> {
        let listening = self.verifier.listen();
        self.show_whole(&trial.again).await?;
        self.verifier.wait(affected, listening).await;
        Ok(())
    }

    /// Looks at every page that publishing touches, showing for that time what would be published.
    pub(super) async fn run_check(
        &mut self,
        publication: &Publication,
        tip_tree: Oid,
    ) -> Result<Checked, WorkshopError> {
        let changes = |node: fn(&crate::draft::Move) -> &Node| -> Vec<PathChange> {
            let moves = publication.moves_from_draft.iter();
            moves
                .map(|step| PathChange {
                    path: step.path.clone(),
                    after: node(step).clone(),
                })
                .collect()
        };
        let (forward, back) = (changes(|step| &step.after), changes(|step| &step.before));
        let affected = self.affected(&forward);
        let affected = affected.publishing(self.touched(&publication.touched), || self.store());
        let hold = self.site.hold().clone();
        hold.begin().await;
        let checked = self
            .check_behind_closed_doors((tip_tree, publication.tree), &forward, &back, &affected)
            .await;
        hold.end().await;
        checked
    }

    async fn check_behind_closed_doors(
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
            self.show_whole(back).await?;
            self.work_tree.end()?;
            let affected = self.affected(back);
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
        let files: BTreeMap<SitePath, bool> = changes
            .iter()
            .filter_map(|change| {
                let path = self.site_path(&change.path)?;
                Some((path, change.after != Node::Absent))
            })
            .collect();
        let restarts = self.consequence(changes) > Consequence::None;
        Affected::of(files, restarts, || self.store())
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
