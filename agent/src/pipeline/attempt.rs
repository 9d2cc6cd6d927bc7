//! One attempt at one instruction: change set, applied, committed, pushed.

use std::collections::BTreeMap;
use std::time::Instant;

use contract::client_config::Policy;
use contract::instruction::{Content, Instruction};
use contract::{Action, Change, CommitId, ErrorCode, Receipt, ReceiptError, SessionId, Status};

use super::heartbeat::Heartbeat;
use super::workshop::{Applied, Workshop, WorkshopError};
use super::{milliseconds, receipt_error};
use crate::change_set::PlanError;
use crate::draft::{CommitMessage, DraftError, Pushed};
use crate::events::{Event, Events};

/// One attempt.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    pub(super) instruction: &'a Instruction,
    pub(super) session_id: &'a SessionId,
    pub(super) policy: &'a Policy,
    /// The commit of an earlier attempt.
    pub(super) landed: Option<CommitId>,
    pub(super) heartbeat: &'a Heartbeat,
    pub(super) events: &'a Events,
    pub(super) begun: Instant,
}

/// How it ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Its commit was seen on the remote.
    Pushed,
    /// It will never work as it is; nothing is left behind.
    Rejected(ReceiptError),
    /// It may work later; a commit may be kept for that.
    Trouble(ReceiptError),
    /// The message is somebody else's by now; nothing that others can see was done after that.
    LeaseLost,
}

impl From<WorkshopError> for Outcome {
    fn from(error: WorkshopError) -> Self {
        let code = match &error {
            error if error.is_disk_full() => ErrorCode::DiskFull,
            WorkshopError::Draft(DraftError::CheckedOut { .. }) => ErrorCode::PushRejected,
            WorkshopError::Draft(error) if error.is_remote() => ErrorCode::RemoteUnavailable,
            _ => ErrorCode::Internal,
        };
        let mut trouble = receipt_error(code, format!("{}.", sentence(&crate::chain(&error))));
        if let WorkshopError::Draft(
            error @ (DraftError::CheckedOut { .. } | DraftError::Credentials { .. }),
        ) = &error
        {
            error.hint().clone_into(&mut trouble.hint);
        }
        Self::Trouble(trouble)
    }
}

impl Attempt<'_> {
    /// Carries the instruction out as far as it goes, and notes in `receipt` what was done.
    pub(super) async fn run(mut self, workshop: &mut Workshop, receipt: &mut Receipt) -> Outcome {
        let prepared = match self.landed.take() {
            Some(commit) => self.take_up(commit, workshop, receipt).await,
            None => self.begin(workshop, receipt).await,
        };
        match prepared {
            Ok(()) => {}
            Err(outcome) => return outcome,
        }
        if !self.heartbeat.held() {
            return Outcome::LeaseLost;
        }
        self.push(workshop, receipt)
            .await
            .unwrap_or_else(|outcome| outcome)
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
        let Action::Edit { changes } = &self.instruction.action else {
            return Err(Outcome::Rejected(receipt_error(
                ErrorCode::UnsupportedAction,
                format!(
                    "This agent cannot carry out `{}` yet.",
                    self.instruction.action.kind()
                ),
            )));
        };
        refuse_elsewhere(changes)?;
        let planned = workshop
            .plan(changes.clone(), self.policy.clone(), BTreeMap::new())
            .await?;
        let change_set = planned.map_err(rejected)?;
        receipt.summary = change_set.summary();
        receipt.files_changed = change_set.paths().map(ToString::to_string).collect();

        if !self.heartbeat.held() {
            return Err(Outcome::LeaseLost);
        }
        match workshop.apply(&change_set).await? {
            Applied::Shown => {}
            Applied::Dirty(path) => {
                let message =
                    format!("{path} has changes in the workspace that nobody instructed.");
                return Err(Outcome::Rejected(receipt_error(
                    ErrorCode::UncommittedChanges,
                    message,
                )));
            }
            Applied::PathRefused(why) => {
                return Err(Outcome::Rejected(receipt_error(
                    ErrorCode::PathNotAllowed,
                    format!("{}.", sentence(&why)),
                )));
            }
        }
        receipt.timings.apply_ms = Some(milliseconds(self.begun.elapsed()));
        self.progress(receipt, Status::Applied);
        let committing = Instant::now();
        receipt.commit = Some(
            workshop
                .commit(change_set, self.message(&receipt.summary))
                .await?,
        );
        receipt.timings.commit_ms = Some(milliseconds(committing.elapsed()));
        Ok(())
    }

    async fn push(
        &self,
        workshop: &mut Workshop,
        receipt: &mut Receipt,
    ) -> Result<Outcome, Outcome> {
        let pushing = Instant::now();
        let pushed = workshop.push().await?;
        receipt.timings.push_ms = Some(milliseconds(pushing.elapsed()));
        Ok(match pushed {
            Pushed::Verified => {
                // A rebase gave it another id.
                receipt.commit = workshop
                    .landed(&self.instruction.instruction_id)
                    .or(receipt.commit.take());
                Outcome::Pushed
            }
            Pushed::Rejected { reason } => {
                receipt.commit = None;
                Outcome::Rejected(receipt_error(
                    ErrorCode::PushRejected,
                    format!(
                        "The remote does not take the commit: {}.",
                        sentence(&reason)
                    ),
                ))
            }
            Pushed::Conflict { files } => {
                receipt.commit = None;
                Outcome::Rejected(receipt_error(
                    ErrorCode::Conflict,
                    format!(
                        "Somebody else changed the same lines of {} meanwhile.",
                        files.join(", ")
                    ),
                ))
            }
        })
    }

    fn message(&self, summary: &str) -> CommitMessage {
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
            undoes: None,
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

/// Content that is kept elsewhere is fetched from allowed places only, and no place is allowed by a configuration that
/// this agent knows.
fn refuse_elsewhere(changes: &[Change]) -> Result<(), Outcome> {
    for (index, change) in changes.iter().enumerate() {
        if let Change::Write {
            path,
            content: Content::Url { .. },
            ..
        } = change
        {
            let mut error = receipt_error(
                ErrorCode::ContentUnavailable,
                format!("{path}: the client's policy allows no place to fetch `contentUrl` from."),
            );
            "Send the bytes in the message as `contentBase64`.".clone_into(&mut error.hint);
            error.details.push(contract::Problem {
                path: format!("$.action.changes[{index}].contentUrl"),
                message: "is not at an allowed place".to_owned(),
            });
            return Err(Outcome::Rejected(error));
        }
    }
    Ok(())
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
