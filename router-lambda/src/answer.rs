//! What the router itself answers to instructions that never come before an agent.
//!
//! The agent answers what it carries out. The router answers what cannot be carried out by any: what is no instruction for any
//! session, what waited in a session that ended, and what was begun again and again and never came to an end. The rules are the
//! agent's: a final receipt is never overwritten, and the client's own queue is told of whatever stands.

use std::sync::Arc;

use contract::id::hex;
use contract::instruction::Fingerprint;
use contract::limits::MESSAGE_MAX_BYTES;
use contract::receipt::Timings;
use contract::{
    ClientId, ErrorCode, Instruction, InstructionId, Receipt, ReceiptError, Session, SessionId,
    Status, Timestamp,
};
use platform::{Instructions, Outgoing, PortError, Put, Queues, Receipts};
use sha2::{Digest as _, Sha256};

use telemetry::chain;

/// Writes receipts and tells of them.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    pub(crate) receipts: Arc<dyn Receipts>,
    pub(crate) queues: Arc<dyn Queues>,
}

/// Of which session an answer is.
#[derive(Debug, Clone)]
pub(crate) struct Addressee {
    pub(crate) session_id: SessionId,
    pub(crate) client_id: ClientId,
    pub(crate) branch: String,
    pub(crate) preview_url: String,
}

impl Addressee {
    /// A session that is there.
    pub(crate) fn of(session: &Session) -> Self {
        Self {
            session_id: session.session_id.clone(),
            client_id: session.client_id.clone(),
            branch: session.draft_branch.clone(),
            preview_url: session.preview_url.clone(),
        }
    }

    /// A session that is gone, of which the instruction knows the rest.
    pub(crate) fn gone(
        session_id: SessionId,
        client_id: ClientId,
        thread: Option<&Instruction>,
    ) -> Self {
        let thread = thread.and_then(|instruction| instruction.thread_id.as_ref());
        Self {
            session_id,
            client_id,
            branch: thread
                .map(contract::ThreadId::draft_branch)
                .unwrap_or_default(),
            preview_url: String::new(),
        }
    }

    /// A receipt as it begins.
    pub(crate) fn receipt(
        &self,
        instruction_id: InstructionId,
        status: Status,
        fingerprint: Option<Fingerprint>,
        accepted_at: Timestamp,
        now: Timestamp,
    ) -> Receipt {
        Receipt {
            session_id: self.session_id.clone(),
            instruction_id,
            client_id: self.client_id.clone(),
            status,
            attempts: 0,
            commit: None,
            branch: self.branch.clone(),
            files_changed: Vec::new(),
            summary: String::new(),
            pages: Vec::new(),
            verdict: None,
            error: None,
            timings: Timings::default(),
            preview_url: self.preview_url.clone(),
            accepted_at,
            updated_at: now,
            fingerprint,
        }
    }
}

/// Why something did not land.
pub(crate) fn error(code: ErrorCode, message: impl Into<String>) -> ReceiptError {
    ReceiptError {
        code,
        message: message.into(),
        hint: code.hint().to_owned(),
        details: Vec::new(),
        problem: None,
        conflicts: Vec::new(),
    }
}

impl Answers {
    /// Makes a final receipt durable, unless one stands, and tells the client's own queue of what stands. Returns whether it
    /// is this one.
    pub(crate) async fn give(
        &self,
        mut receipt: Receipt,
        error: ReceiptError,
        results: Option<&str>,
        trace_parent: Option<&str>,
    ) -> Result<bool, PortError> {
        receipt.summary.clone_from(&error.message);
        receipt.error = Some(error);
        let (standing, is_ours) = match self.receipts.put(&receipt).await? {
            Put::Written => (receipt, true),
            Put::FinalStands(standing) => (standing, false),
        };
        self.tell(&standing, results, trace_parent).await;
        Ok(is_ours)
    }

    /// Tells the client's own queue of a final receipt. The table has it in any case, and is the truth.
    pub(crate) async fn tell(
        &self,
        receipt: &Receipt,
        results: Option<&str>,
        trace_parent: Option<&str>,
    ) {
        let Some(address) = results else { return };
        let results = self.queues.open(address);
        if let Err(error) = results.send(&message(receipt, trace_parent)).await {
            tracing::error!(client = %receipt.client_id, error = %chain(&error), "the client's queue was not told; the receipt is in the table");
        }
    }
}

/// The same receipt is the same message, however often it is sent, and whoever sends it: the agent makes it in the same way.
fn message(receipt: &Receipt, trace_parent: Option<&str>) -> Outgoing {
    let id = format!(
        "{}\n{}\n{}",
        receipt.session_id,
        receipt.instruction_id,
        receipt.status.as_str()
    );
    Outgoing {
        body: serde_json::to_string(receipt).expect("a receipt is JSON"),
        // A session's id is a capability, and a group id is seen by whoever may look at the queue.
        group: hex(&Sha256::digest(receipt.session_id.as_str()))[..32].to_owned(),
        deduplication_id: hex(&Sha256::digest(id)),
        trace_parent: trace_parent.map(str::to_owned),
    }
}

/// Puts a message with the dead letters, for people to look at. `id` is the message's own, so that it is there once.
pub(crate) async fn bury(
    dead: &dyn Instructions,
    group: &str,
    id: &str,
    body: &str,
    trace_parent: Option<&str>,
) -> Result<(), PortError> {
    let mut letter = Outgoing {
        body: body.to_owned(),
        group: group.to_owned(),
        deduplication_id: id.to_owned(),
        trace_parent: trace_parent.map(str::to_owned),
    };
    if letter.check().is_err() {
        // What some queue has taken need not be what every queue takes. The sense of it is what people need.
        letter = presentable(letter);
    }
    dead.send(&letter).await.map(drop)
}

/// A message that every queue takes.
fn presentable(letter: Outgoing) -> Outgoing {
    let is_plain = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..);
    let mut body = String::new();
    for character in letter.body.chars() {
        let character = if is_plain(character) {
            character
        } else {
            '\u{fffd}'
        };
        if body.len() + character.len_utf8() > MESSAGE_MAX_BYTES {
            break;
        }
        body.push(character);
    }
    if body.is_empty() {
        "(nothing)".clone_into(&mut body);
    }
    let fits =
        |id: &str| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    let named = |id: String| {
        if fits(&id) {
            id
        } else {
            hex(&Sha256::digest(id))
        }
    };
    Outgoing {
        body,
        group: named(letter.group),
        deduplication_id: named(letter.deduplication_id),
        trace_parent: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_came_in_can_be_put_with_the_dead_letters() {
        for body in ["", "\u{0}\u{1f}\u{ffff}", &"ß".repeat(MESSAGE_MAX_BYTES)] {
            let letter = presentable(Outgoing {
                body: body.to_owned(),
                group: "a b".to_owned(),
                deduplication_id: "x".repeat(500),
                trace_parent: Some("\n".to_owned()),
            });
            assert_eq!(letter.check(), Ok(()));
        }
    }
}
