//! Calling an instruction off before it has begun to change anything.
//!
//! A cancel overtakes what waits (its messages have a group of their own) and writes the final receipt of the instruction it
//! names. When the queue then gives that instruction, it has its answer already. So it does not matter which of the two
//! arrives first. Whether an instruction has landed is asked of the draft, not of its receipt.

use contract::{Action, ErrorCode, Instruction, InstructionId, Receipt, Status, Timestamp};
use platform::{Delivery, Put};

use super::{Identity, InHand, Pipeline, Verdict, insist, receipt_error};
use crate::events::Event;

/// Whether a message calls off the instruction that is running.
pub(super) fn is_meant(
    delivery: &Delivery,
    identity: &Identity,
    running: Option<&InstructionId>,
) -> bool {
    let Ok(instruction) = Instruction::parse(delivery.body.as_bytes()) else {
        return false; // It is refused when its turn comes.
    };
    let ours = instruction.client_id == identity.client_id
        && instruction
            .session_id
            .is_none_or(|session| session == identity.session_id);
    match &instruction.action {
        Action::Cancel { instruction_id } => ours && running == Some(instruction_id),
        _ => false,
    }
}

impl Pipeline {
    /// Calls `target` off, and answers both.
    pub(super) async fn cancel(
        &mut self,
        hand: InHand<'_>,
        instruction: &Instruction,
        target: &InstructionId,
    ) -> Verdict {
        let mut receipt = self.receipt(
            &instruction.instruction_id,
            hand.delivery,
            Status::Cancelled,
        );
        receipt.fingerprint = Some(instruction.fingerprint.clone());
        let landed = self
            .workshop
            .landed(target)
            .or_else(|| self.workshop.published_landed(target));
        let called_off = if landed.is_some() {
            Ok(false)
        } else {
            self.call_off(hand, target).await
        };
        match called_off {
            Ok(true) => receipt.summary = format!("{target} was called off."),
            Ok(false) => {
                let error = receipt_error(
                    ErrorCode::TooLate,
                    format!("{target} was carried out before it could be called off."),
                );
                receipt.status = Status::Rejected;
                receipt.summary.clone_from(&error.message);
                receipt.error = Some(error);
            }
            Err(verdict) => return verdict,
        }
        self.answer(hand, receipt).await
    }

    /// Writes the final receipt of what is called off. False if it has another one already.
    async fn call_off(
        &mut self,
        hand: InHand<'_>,
        target: &InstructionId,
    ) -> Result<bool, Verdict> {
        let stop = self.workshop.stop.clone();
        let (receipts, session) = (&self.receipts, &self.identity.session_id);
        let found = insist(hand, &self.lease, &stop, || receipts.get(session, target));
        let existing = found.await?;
        let mut receipt: Receipt = match existing {
            Some(receipt) if receipt.status == Status::Cancelled => return Ok(true),
            Some(receipt) if receipt.status.is_final() => return Ok(false),
            Some(receipt) => receipt,
            // It has not come yet.
            None => self.receipt(target, hand.delivery, Status::Cancelled),
        };
        receipt.status = Status::Cancelled;
        receipt.error = None;
        "It was called off before it began.".clone_into(&mut receipt.summary);
        receipt.updated_at = Timestamp::now();
        if !self.lease.may_act() {
            return Err(Verdict::NotOurs);
        }
        let written = insist(hand, &self.lease, &stop, || receipts.put(&receipt));
        match written.await? {
            Put::Written => {
                self.attempts.forget(target);
                self.results
                    .tell(&receipt, hand.delivery.trace_parent.as_deref())
                    .await;
                self.events.publish(Event::Receipt {
                    receipt: Box::new(receipt),
                });
                Ok(true)
            }
            Put::FinalStands(_) => Ok(false),
        }
    }
}
