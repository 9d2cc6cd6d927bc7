//! One attempt at one instruction: proposal, tried out, committed, pushed; or, for a publish, checked and published.

use std::collections::BTreeMap;
use std::time::Instant;

use contract::client_config::{Policy, PublishCheck};
use contract::instruction::Instruction;
use contract::{
    Action, Change, CommitId, ErrorCode, InstructionId, Receipt, ReceiptError, SessionId, Status,
    Verdict,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::heartbeat::Heartbeat;
use super::trial::Checked;
use super::workshop::{Pushed, TriedOut, Workshop, WorkshopError};
use super::{PipelineView, milliseconds, receipt_error};
use crate::change_set::PlanError;
use crate::content::Fetcher;
use crate::draft::{CommitMessage, Declined, DraftError, Proposal, Published};
use crate::events::{Event, Events};
use crate::lease::Lease;
use crate::site::build::BuildError;
use crate::verify::Subject;

/// Somebody publishes faster than we can: then the attempt counts as failed.
const PUBLISH_ROUNDS_MAX: usize = 5;
/// What a developer is to do who has the published branch checked out in the repository that is the remote.
const LOOKED_AT_HINT: &str = "It would move under whoever works there: check out another branch, or none (`git switch --detach`), and publish again.";

/// One attempt.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    pub(super) instruction: &'a Instruction,
    pub(super) session_id: &'a SessionId,
    pub(super) policy: &'a Policy,
    pub(super) content: &'a Fetcher,
    /// The commit of an earlier attempt.
    pub(super) landed: Option<CommitId>,
    pub(super) heartbeat: &'a Heartbeat,
    pub(super) lease: &'a Lease,
    /// Cancelled when the producer does not want it any more.
    pub(super) called_off: &'a CancellationToken,
    pub(super) events: &'a Events,
    pub(super) view: &'a watch::Sender<PipelineView>,
    pub(super) begun: Instant,
}

/// How it ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Its commit was seen on the remote.
    Pushed,
    /// Its commit was seen on the published branch.
    Published,
    /// It will never work as it is; nothing is left behind.
    Rejected(ReceiptError),
    /// It may work later; a commit may be kept for that.
    Trouble(ReceiptError),
    /// We are to stop before it is done; it is tried again at the next start.
    Interrupted,
    /// The message or the session is somebody else's by now; nothing that others can see was done after that.
    LeaseLost,
    /// The producer does not want it any more; nothing was changed.
    CalledOff,
}

impl From<WorkshopError> for Outcome {
    fn from(error: WorkshopError) -> Self {
        if let WorkshopError::Interrupted = error {
            return Self::Interrupted;
        }
        let code = match &error {
            error if error.is_disk_full() => ErrorCode::DiskFull,
            WorkshopError::Draft(DraftError::CheckedOut { .. }) => ErrorCode::PushRejected,
            WorkshopError::Draft(error) if error.is_remote() => ErrorCode::RemoteUnavailable,
            _ => ErrorCode::Internal,
        };
        let mut trouble = receipt_error(code, format!("{}.", sentence(&crate::chain(&error))));
        if let WorkshopError::Draft(
            error @ (DraftError::CheckedOut { .. }
            | DraftError::Credentials { .. }
            | DraftError::OtherHostKey { .. }),
        ) = &error
        {
            error.hint().clone_into(&mut trouble.hint);
        }
        Self::Trouble(trouble)
    }
}

impl From<Declined> for Outcome {
    fn from(declined: Declined) -> Self {
        let mut error = receipt_error(declined.code, declined.message);
        error.conflicts = declined.conflicts;
        Self::Rejected(error)
    }
}

impl Attempt<'_> {
    /// Carries the instruction out as far as it goes, and notes in `receipt` what was done.
    pub(super) async fn run(mut self, workshop: &mut Workshop, receipt: &mut Receipt) -> Outcome {
        let landed = self.landed.take();
        let done = match &self.instruction.action {
            Action::Publish { up_to } => {
                self.publish(landed, up_to.as_ref(), workshop, receipt)
                    .await
            }
            _ => self.edit(landed, workshop, receipt).await,
        };
        done.unwrap_or_else(|outcome| outcome)
    }

    /// Whether message and session are still ours. Asked before every step that others can see.
    fn may_act(&self) -> bool {
        self.heartbeat.held() && self.lease.may_act()
    }

    /// Changes the draft.
    async fn edit(
        &self,
        landed: Option<CommitId>,
        workshop: &mut Workshop,
        receipt: &mut Receipt,
    ) -> Result<Outcome, Outcome> {
        match landed {
            Some(commit) => {
                self.take_up(commit, workshop, receipt).await?;
                let broken = workshop.look_at_landed(self.policy.on_broken).await?;
                if let Some(checked) = broken {
                    receipt.commit = None;
                    return Err(broken_together(checked, receipt));
                }
            }
            None => self.begin(workshop, receipt).await?,
        }
        if !self.may_act() {
            return Err(Outcome::LeaseLost);
        }
        self.push(workshop, receipt).await
    }

    /// An earlier attempt has committed: only the rest is to be done.
    async fn take_up(
        &self,
        commit: CommitId,
        workshop: &mut Workshop,
        receipt: &mut Receipt,
    ) -> Result<(), Outcome> {
        tracing::info!(instruction = %self.instruction.instruction_id, commit = commit.as_str(), "the instruction has its commit already; going on from there");
        workshop.settle().await?;
        (receipt.summary, receipt.files_changed) = workshop.files_of(commit.clone()).await?;
        receipt.commit = Some(commit);
        Ok(())
    }

    async fn begin(&self, workshop: &mut Workshop, receipt: &mut Receipt) -> Result<(), Outcome> {
        let proposal = self.propose(workshop).await?;
        receipt.summary.clone_from(&proposal.summary);
        receipt.files_changed = workshop.site_files(proposal.moves.iter().map(|step| &step.path));

        if !self.may_act() {
            return Err(Outcome::LeaseLost);
        }
        // Until now nothing was changed; from now on it is quicker to finish it, and to undo it if need be.
        if self.called_off.is_cancelled() {
            return Err(Outcome::CalledOff);
        }
        let trying = Instant::now();
        let tried = workshop.try_out(&proposal, self.policy.on_broken).await?;
        match tried {
            TriedOut::Stands(checked) => note(receipt, checked),
            TriedOut::Broken(checked) => {
                let error = page_broken(&checked, "");
                note(receipt, checked);
                return Err(Outcome::Rejected(error));
            }
            TriedOut::Dirty(path) => {
                let message =
                    format!("{path} has changes in the workspace that nobody instructed.");
                return Err(Outcome::Rejected(receipt_error(
                    ErrorCode::UncommittedChanges,
                    message,
                )));
            }
            TriedOut::PathRefused(why) => {
                return Err(Outcome::Rejected(receipt_error(
                    ErrorCode::PathNotAllowed,
                    format!("{}.", sentence(&why)),
                )));
            }
        }
        receipt.timings.apply_ms = Some(milliseconds(self.begun.elapsed()));
        receipt.timings.verify_ms = Some(milliseconds(trying.elapsed()));
        self.progress(receipt, Status::Applied);
        let committing = Instant::now();
        let message = self.message(&receipt.summary, proposal.undoes.clone());
        receipt.commit = Some(workshop.commit(proposal, message).await?);
        receipt.timings.commit_ms = Some(milliseconds(committing.elapsed()));
        Ok(())
    }

    /// What the draft would become.
    async fn propose(&self, workshop: &mut Workshop) -> Result<Proposal, Outcome> {
        let proposed = match &self.instruction.action {
            Action::Edit { changes } => {
                let fetched = self.fetch(changes, workshop.stop.clone()).await?;
                let policy = self.policy.clone();
                let planned = workshop
                    .propose_edit(changes.clone(), policy, fetched)
                    .await?;
                return planned.map_err(rejected);
            }
            Action::Commit => {
                let planned = workshop.propose_commit(self.policy.clone()).await?;
                return planned.map_err(rejected);
            }
            Action::Undo { target } => workshop.propose_undo(target.clone()).await?,
            Action::Sync => workshop.propose_sync().await?,
            Action::Discard => workshop.propose_discard().await?,
            Action::Prompt { .. } | Action::Publish { .. } | Action::Cancel { .. } => {
                return Err(Outcome::Rejected(receipt_error(
                    ErrorCode::UnsupportedAction,
                    format!(
                        "This agent cannot carry out `{}` yet.",
                        self.instruction.action.kind()
                    ),
                )));
            }
        };
        Ok(proposed?)
    }

    /// The bytes that the changes have elsewhere.
    async fn fetch(
        &self,
        changes: &[Change],
        stop: CancellationToken,
    ) -> Result<BTreeMap<String, Vec<u8>>, Outcome> {
        let fetched = tokio::select! {
            fetched = self.content.fetch(changes, self.policy) => fetched,
            // Nothing has been done yet, and it may take long.
            () = stop.cancelled() => return Err(Outcome::Interrupted),
            () = self.called_off.cancelled() => return Err(Outcome::CalledOff),
        };
        fetched.map_err(|unavailable| {
            let mut error = receipt_error(ErrorCode::ContentUnavailable, unavailable.message);
            if let Some(hint) = unavailable.hint {
                hint.clone_into(&mut error.hint);
            }
            error.details = unavailable.details;
            Outcome::Rejected(error)
        })
    }

    async fn push(
        &self,
        workshop: &mut Workshop,
        receipt: &mut Receipt,
    ) -> Result<Outcome, Outcome> {
        let pushing = Instant::now();
        let pushed = workshop
            .push(self.policy.on_broken, &|| self.may_act())
            .await?;
        receipt.timings.push_ms = Some(milliseconds(pushing.elapsed()));
        if !matches!(pushed, Pushed::Verified) {
            receipt.commit = None;
        }
        Ok(match pushed {
            Pushed::Verified => {
                // A rebase gave it another id.
                receipt.commit = workshop
                    .landed(&self.instruction.instruction_id)
                    .or(receipt.commit.take());
                Outcome::Pushed
            }
            Pushed::Rejected { reason } => Outcome::Rejected(receipt_error(
                ErrorCode::PushRejected,
                format!(
                    "The remote does not take the commit: {}.",
                    sentence(&reason)
                ),
            )),
            Pushed::Conflict { files } => Outcome::Rejected(receipt_error(
                ErrorCode::Conflict,
                format!(
                    "Somebody else changed the same lines of {} meanwhile.",
                    files.join(", ")
                ),
            )),
            Pushed::BrokenTogether(checked) => broken_together(checked, receipt),
            Pushed::NotOurs => Outcome::LeaseLost,
        })
    }

    /// Says that it goes on, before a step that takes long.
    fn note_progress(&self) {
        self.view
            .send_modify(|view| view.progressed = Some(Instant::now()));
    }

    /// Brings the draft to the published branch.
    async fn publish(
        &self,
        landed: Option<CommitId>,
        up_to: Option<&InstructionId>,
        workshop: &mut Workshop,
        receipt: &mut Receipt,
    ) -> Result<Outcome, Outcome> {
        if let Some(commit) = landed {
            // It was read from the published branch, so it is there.
            self.take_up(commit, workshop, receipt).await?;
            return Ok(Outcome::Published);
        }
        for _ in 0..PUBLISH_ROUNDS_MAX {
            // What others published meanwhile is looked at as part of it, and may have this very publish in it.
            let proposed = workshop.propose_publish(up_to.cloned()).await;
            let proposed = proposed.map_err(not_published)?;
            if let Some(commit) = workshop.published_landed(&self.instruction.instruction_id) {
                self.take_up(commit, workshop, receipt).await?;
                return Ok(Outcome::Published);
            }
            let publication = proposed?;
            if let Some(path) = workshop.uncommitted().await?.first() {
                let message = format!(
                    "{path} has changes in the workspace that nobody instructed; they would not be published."
                );
                return Err(Outcome::Rejected(receipt_error(
                    ErrorCode::UncommittedChanges,
                    message,
                )));
            }
            tracing::info!(instructions = ?publication.instructions, "this is what is going to be published");
            receipt.summary.clone_from(&publication.summary);
            receipt.files_changed = workshop.site_files(publication.touched.iter());
            let checking = Instant::now();
            self.note_progress();
            let checked = workshop.check_publication(&publication).await?;
            receipt.timings.verify_ms = Some(milliseconds(checking.elapsed()));
            if checked.problem.is_some() {
                let error = page_broken(&checked, ", so nothing was published");
                note(receipt, checked);
                return Err(Outcome::Rejected(error));
            }
            note(receipt, checked);
            if self.policy.publish_check == PublishCheck::Build {
                self.note_progress();
                workshop
                    .build(publication.tree)
                    .await?
                    .map_err(|error| not_built(&error))?;
            }
            if !self.may_act() {
                return Err(Outcome::LeaseLost);
            }
            let pushing = Instant::now();
            let message = self.message(&receipt.summary, None);
            let published = workshop.publish(publication, message).await;
            let published = published.map_err(not_published)?;
            receipt.timings.push_ms = Some(milliseconds(pushing.elapsed()));
            match published {
                Published::Verified(commit) => {
                    receipt.commit = Some(commit);
                    return Ok(Outcome::Published);
                }
                Published::Rejected { reason } => {
                    return Err(Outcome::Rejected(receipt_error(
                        ErrorCode::PushRejected,
                        format!(
                            "The remote does not take it on the published branch: {}.",
                            sentence(&reason)
                        ),
                    )));
                }
                Published::Moved => {}
            }
        }
        Err(Outcome::Trouble(receipt_error(
            ErrorCode::RemoteUnavailable,
            "Others publish faster than this could be checked.",
        )))
    }

    fn message(&self, summary: &str, undoes: Option<InstructionId>) -> CommitMessage {
        CommitMessage {
            summary: summary.to_owned(),
            instruction_id: self.instruction.instruction_id.clone(),
            session_id: self.session_id.clone(),
            author: self
                .instruction
                .author
                .as_ref()
                .map(|author| (author.name.clone(), author.email.clone())),
            authored_at: self.instruction.submitted_at.unix_ms() / 1000,
            action: self.instruction.action.kind(),
            undoes,
        }
    }

    fn progress(&self, receipt: &Receipt, status: Status) {
        let mut receipt = receipt.clone();
        receipt.status = status;
        self.events.publish(Event::Progress {
            receipt: Box::new(receipt),
        });
    }
}

/// Why a publish did not come about. A branch that a developer looks at is theirs for as long as they do, which may be days:
/// nobody waits for that, as an edit waits for the draft's own branch.
fn not_published(error: WorkshopError) -> Outcome {
    match Outcome::from(error) {
        Outcome::Trouble(mut trouble) if trouble.code == ErrorCode::PushRejected => {
            LOOKED_AT_HINT.clone_into(&mut trouble.hint);
            Outcome::Rejected(trouble)
        }
        outcome => outcome,
    }
}

/// Why a site that is to be published could not be built. What takes too long now takes too long the next time as well; what was
/// ended by something else may come through.
fn not_built(error: &BuildError) -> Outcome {
    let said = match error {
        BuildError::Failed(problem) => problem.message.clone(),
        BuildError::TooSlow => error.to_string(),
        BuildError::Begin { .. } | BuildError::Ended(_) => {
            let message = format!("The site was not built: {}.", crate::chain(error));
            return Outcome::Trouble(receipt_error(ErrorCode::Internal, message));
        }
    };
    let message = format!("The site cannot be built with it: {}.", sentence(&said));
    Outcome::Rejected(receipt_error(ErrorCode::BuildFailed, message))
}

/// Notes what was seen of the site.
fn note(receipt: &mut Receipt, checked: Checked) {
    receipt.verdict = Some(checked.verdict);
    receipt.pages = checked.pages;
}

fn broken_together(checked: Checked, receipt: &mut Receipt) -> Outcome {
    let error = page_broken(&checked, " together with what others changed meanwhile");
    note(receipt, checked);
    Outcome::Rejected(error)
}

/// Why a change cannot stand: what it breaks, and what the site's own tools say of it.
fn page_broken(checked: &Checked, circumstances: &str) -> ReceiptError {
    debug_assert_eq!(checked.verdict, Verdict::Breaks);
    let Some((subject, problem)) = &checked.problem else {
        return receipt_error(ErrorCode::PageBroken, "A page does not render with it.");
    };
    let what = match subject {
        Subject::Site => "The site does not start with it".to_owned(),
        Subject::Page(path) => format!("The page {path} does not render with it"),
        Subject::File(file) => format!("{file} is not in order with it"),
    };
    let place = match (&problem.file, problem.line) {
        (Some(file), Some(line)) => format!(" ({file}:{line})"),
        (Some(file), None) => format!(" ({file})"),
        _ => String::new(),
    };
    // Astro's messages have paragraphs; this is a sentence.
    let said = problem
        .message
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let said = sentence(&said);
    let mut error = receipt_error(
        ErrorCode::PageBroken,
        format!("{what}{circumstances}: {said}{place}."),
    );
    error.problem = Some(Box::new(problem.clone()));
    error
}

fn rejected(error: PlanError) -> Outcome {
    match error {
        PlanError::Rejected(rejection) => {
            let mut error = receipt_error(rejection.code, rejection.message);
            error.details = rejection.details;
            Outcome::Rejected(error)
        }
        PlanError::Tree(error) => Outcome::Trouble(receipt_error(
            ErrorCode::Internal,
            format!("The draft could not be read: {error}."),
        )),
    }
}

/// A text as the middle of a sentence: without a full stop at its end.
fn sentence(text: &str) -> &str {
    text.trim_end().trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::SiteProblem;
    use crate::site::process::Ending;

    #[test]
    fn what_cannot_be_built_is_not_tried_again_and_what_was_not_is() {
        let failed = BuildError::Failed(SiteProblem {
            message: "“Card” is not defined.".to_owned(),
            ..SiteProblem::default()
        });
        let says = |error| match not_built(&error) {
            Outcome::Rejected(error) => format!("{}: {}", error.code.as_str(), error.message),
            other => format!("{other:?}"),
        };
        insta::assert_snapshot!(says(failed), @"build_failed: The site cannot be built with it: “Card” is not defined.");
        insta::assert_snapshot!(says(BuildError::TooSlow), @"build_failed: The site cannot be built with it: the build did not end within 600 s.");
        let ended = BuildError::Ended(Ending::MemoryRanOut);
        let Outcome::Trouble(trouble) = not_built(&ended) else {
            panic!("it is tried again");
        };
        insta::assert_snapshot!(trouble.message, @"The site was not built: the build was ended because the memory of the environment ran out.");
        let no_node = BuildError::Begin {
            operation: "start Node",
            source: std::io::ErrorKind::NotFound.into(),
        };
        assert!(matches!(not_built(&no_node), Outcome::Trouble(_)));
    }
}
