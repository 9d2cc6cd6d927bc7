//! Whether a message is an instruction for this session that has not been carried out yet.

use contract::instruction::{Fingerprint, Refusal};
use contract::{Action, CommitId, ErrorCode, Instruction, InstructionId, Receipt, ReceiptError};
use platform::Delivery;

use super::workshop::Workshop;
use super::{Identity, receipt_error};

/// What a message is.
#[derive(Debug)]
pub(super) enum Admission {
    /// It has no instruction id, so there can be no receipt.
    Unreadable {
        /// What is wrong with it.
        why: String,
    },
    /// Its final receipt is there already.
    AlreadyAnswered(Box<Receipt>),
    /// It will never work as it is.
    Refused {
        /// Which one.
        instruction_id: InstructionId,
        /// Why.
        error: ReceiptError,
        /// What it meant, where that could be read.
        fingerprint: Option<Fingerprint>,
    },
    /// It is to be carried out.
    Admitted {
        /// The instruction.
        instruction: Box<Instruction>,
        /// Its commit, if an earlier attempt came that far.
        landed: Option<CommitId>,
    },
}

/// A message as it was read.
#[derive(Debug)]
pub(super) struct Message(Result<Box<Instruction>, Refusal>);

/// Reads a message. Whatever is wrong with it is found here, all at once.
pub(super) fn read(delivery: &Delivery) -> Message {
    Message(Instruction::parse(delivery.body.as_bytes()).map(Box::new))
}

impl Message {
    /// The id, if it has a valid one: then its producer gets a receipt.
    pub(super) fn instruction_id(&self) -> Option<&InstructionId> {
        match &self.0 {
            Ok(instruction) => Some(&instruction.instruction_id),
            Err(refusal) => refusal.instruction_id.as_ref(),
        }
    }

    /// Judges it by its receipt, if it has one already (an index), and by the draft's history (the truth).
    pub(super) fn admit(
        self,
        identity: &Identity,
        existing: Option<&Receipt>,
        workshop: &Workshop,
    ) -> Admission {
        match self.0 {
            Ok(instruction) => {
                let id = &instruction.instruction_id;
                let landed = match instruction.action {
                    Action::Publish { .. } => workshop.published_landed(id),
                    _ => workshop.landed(id),
                };
                decide(identity, *instruction, existing, landed)
            }
            Err(refusal) => refuse(refusal, existing),
        }
    }
}

fn refuse(refusal: Refusal, existing: Option<&Receipt>) -> Admission {
    let Some(instruction_id) = refusal.instruction_id.clone() else {
        return Admission::Unreadable {
            why: refusal.to_string(),
        };
    };
    if let Some(receipt) = existing.filter(|receipt| receipt.status.is_final()) {
        return Admission::AlreadyAnswered(Box::new(receipt.clone()));
    }
    let mut error = receipt_error(refusal.code, "The instruction is not valid.");
    error.details = refusal.problems.0;
    Admission::Refused {
        instruction_id,
        error,
        fingerprint: None,
    }
}

fn decide(
    identity: &Identity,
    instruction: Instruction,
    existing: Option<&Receipt>,
    landed: Option<CommitId>,
) -> Admission {
    if let Some(receipt) = existing {
        let same = receipt
            .fingerprint
            .as_ref()
            .is_none_or(|fingerprint| *fingerprint == instruction.fingerprint);
        if !same {
            tracing::warn!(instruction = %instruction.instruction_id, "an id came again with another body");
        }
        if receipt.status.is_final() {
            return Admission::AlreadyAnswered(Box::new(receipt.clone()));
        }
    }
    let refuse = |code: ErrorCode, message: String| Admission::Refused {
        instruction_id: instruction.instruction_id.clone(),
        error: receipt_error(code, message),
        fingerprint: Some(instruction.fingerprint.clone()),
    };
    if instruction.client_id != identity.client_id {
        return refuse(
            ErrorCode::WrongClient,
            format!(
                "This environment is the client {}'s, and the instruction is for {}.",
                identity.client_id, instruction.client_id
            ),
        );
    }
    let session_fits = instruction
        .session_id
        .as_ref()
        .is_none_or(|session| *session == identity.session_id);
    let thread_fits = instruction.session_id.is_some()
        || instruction
            .thread_id
            .as_ref()
            .is_none_or(|thread| *thread == identity.thread_id);
    if !session_fits || !thread_fits {
        return refuse(
            ErrorCode::WrongSession,
            format!(
                "This environment serves the thread {}, and the instruction is for another one.",
                identity.thread_id
            ),
        );
    }
    let unknown = matches!(instruction.action, Action::Prompt { .. });
    if landed.is_none() && unknown {
        return refuse(
            ErrorCode::UnsupportedAction,
            format!(
                "This agent cannot carry out `{}` yet.",
                instruction.action.kind()
            ),
        );
    }
    Admission::Admitted {
        instruction: Box::new(instruction),
        landed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::receipt::Timings;
    use contract::{Status, Timestamp};

    fn identity() -> Identity {
        Identity {
            client_id: "amelia".parse().expect("valid"),
            session_id: "amelia_s1".parse().expect("valid"),
            thread_id: "local".parse().expect("valid"),
            branch: "edit/local".to_owned(),
            preview_url: "http://localhost:8080/".to_owned(),
        }
    }

    fn instruction(client: &str, thread: &str, action: &str) -> Instruction {
        let text = format!(
            r#"{{"version":1,"instructionId":"i-1","clientId":"{client}","threadId":"{thread}","submittedAt":"2026-11-22T09:30:00.000Z","action":{action}}}"#
        );
        Instruction::parse(text.as_bytes()).expect("valid")
    }

    const DELETE: &str = r#"{"type":"edit","changes":[{"op":"delete","path":"a.txt"}]}"#;

    fn receipt(instruction: &Instruction, status: Status) -> Receipt {
        let identity = identity();
        Receipt {
            session_id: identity.session_id,
            instruction_id: instruction.instruction_id.clone(),
            client_id: identity.client_id,
            status,
            attempts: 1,
            commit: None,
            branch: identity.branch,
            files_changed: Vec::new(),
            summary: String::new(),
            pages: Vec::new(),
            verdict: None,
            error: None,
            timings: Timings::default(),
            preview_url: identity.preview_url,
            accepted_at: Timestamp::from_unix_ms(0),
            updated_at: Timestamp::from_unix_ms(0),
            fingerprint: Some(instruction.fingerprint.clone()),
        }
    }

    fn code(admission: &Admission) -> &'static str {
        match admission {
            Admission::Refused { error, .. } => error.code.as_str(),
            Admission::Admitted { .. } => "admitted",
            Admission::AlreadyAnswered(_) => "answered",
            Admission::Unreadable { .. } => "unreadable",
        }
    }

    #[test]
    fn only_what_is_for_this_client_and_thread_is_carried_out() {
        for (client, thread, action, expected) in [
            ("amelia", "local", DELETE, "admitted"),
            ("bertram", "local", DELETE, "wrong_client"),
            ("amelia", "other", DELETE, "wrong_session"),
            ("amelia", "local", r#"{"type":"publish"}"#, "admitted"),
            (
                "amelia",
                "local",
                r#"{"type":"prompt","text":"Make it blue"}"#,
                "unsupported_action",
            ),
        ] {
            assert_eq!(
                code(&decide(
                    &identity(),
                    instruction(client, thread, action),
                    None,
                    None
                )),
                expected,
                "{client} {thread} {action}"
            );
        }
    }

    #[test]
    fn what_has_its_final_receipt_is_not_carried_out_again() {
        let asked = instruction("amelia", "local", DELETE);
        for (status, expected) in [
            (Status::Pushed, "answered"),
            (Status::Rejected, "answered"),
            (Status::Accepted, "admitted"),
            (Status::Running, "admitted"),
        ] {
            assert_eq!(
                code(&decide(
                    &identity(),
                    asked.clone(),
                    Some(&receipt(&asked, status)),
                    None
                )),
                expected,
                "{status:?}"
            );
        }
    }

    #[test]
    fn an_id_with_another_body_changes_nothing_once_the_first_has_its_receipt() {
        let first = instruction("amelia", "local", DELETE);
        let second = instruction(
            "amelia",
            "local",
            r#"{"type":"edit","changes":[{"op":"delete","path":"b.txt"}]}"#,
        );
        for (status, expected) in [(Status::Pushed, "answered"), (Status::Accepted, "admitted")] {
            let existing = receipt(&first, status);
            assert_eq!(
                code(&decide(&identity(), second.clone(), Some(&existing), None)),
                expected,
                "{status:?}: only one message of an id is in the queue, so while there is no answer it is this one"
            );
        }
    }
}
