//! Where instructions come in: checked whole, and durable before anybody is told that they were accepted.

use std::sync::Arc;

use contract::limits::{INSTRUCTIONS_PER_CALL_MAX, QUEUE_DEPTH_MAX};
use contract::receipt::Timings;
use contract::{
    Action, ErrorCode, Instruction, InstructionId, Problem, Problems, Receipt, Status, Timestamp,
};
use platform::{Instructions, Outgoing, PortError, Receipts};
use serde_json::value::RawValue;

use crate::events::{Event, Events};
use crate::kinds::Kinds;
use crate::pipeline::{CONTROL_GROUP, Identity};

/// Takes instructions for one session. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Intake {
    pub(crate) identity: Identity,
    pub(crate) queue: Arc<dyn Instructions>,
    pub(crate) receipts: Arc<dyn Receipts>,
    pub(crate) events: Events,
    pub(crate) kinds: Kinds,
}

/// Why nothing was accepted.
#[derive(Debug)]
pub(super) enum Declined {
    /// Something is wrong with at least one of them; none was accepted.
    Invalid {
        /// The first one's code.
        code: ErrorCode,
        /// Everything that is wrong.
        problems: Problems,
    },
    /// Too many wait already.
    Full {
        /// How many.
        waiting: u64,
    },
    /// The queue or the receipts do not answer.
    Unavailable(PortError),
}

impl From<PortError> for Declined {
    fn from(error: PortError) -> Self {
        Self::Unavailable(error)
    }
}

impl Intake {
    /// Accepts one instruction, or an array of them: all or none.
    pub(super) async fn accept(&self, call: &[u8]) -> Result<Vec<InstructionId>, Declined> {
        let (messages, single) = split(call)?;
        let mut problems = Problems::default();
        if messages.is_empty() || messages.len() > INSTRUCTIONS_PER_CALL_MAX {
            problems.push(
                "$",
                format!(
                    "a call has 1 to {INSTRUCTIONS_PER_CALL_MAX} instructions, not {}",
                    messages.len()
                ),
            );
            return Err(Declined::Invalid {
                code: ErrorCode::InvalidMessage,
                problems,
            });
        }
        let mut code = None;
        let mut accepted = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            let prefix = if single {
                "$".to_owned()
            } else {
                format!("$[{index}]")
            };
            match self.judge(message.get(), &accepted).await? {
                Ok(instruction) => accepted.push((instruction, message.get().to_owned())),
                Err((one, found)) => {
                    code = code.or(Some(one));
                    problems
                        .0
                        .extend(found.0.into_iter().map(|problem| Problem {
                            path: problem.path.replacen('$', &prefix, 1),
                            message: problem.message,
                        }));
                }
            }
        }
        if let Some(code) = code {
            return Err(Declined::Invalid { code, problems });
        }
        let waiting = self.queue.depth().await?.waiting;
        if waiting + u64::try_from(accepted.len()).unwrap_or(u64::MAX)
            > u64::try_from(QUEUE_DEPTH_MAX).unwrap_or(u64::MAX)
        {
            return Err(Declined::Full { waiting });
        }
        let mut ids = Vec::new();
        for (instruction, body) in accepted {
            self.enqueue(&instruction, body).await?;
            ids.push(instruction.instruction_id);
        }
        Ok(ids)
    }

    /// The receipt of an instruction.
    pub(super) async fn receipt(&self, id: &InstructionId) -> Result<Option<Receipt>, PortError> {
        self.receipts.get(&self.identity.session_id, id).await
    }

    async fn judge(
        &self,
        message: &str,
        before: &[(Instruction, String)],
    ) -> Result<Result<Instruction, (ErrorCode, Problems)>, Declined> {
        let one = |code, path: &str, words: String| {
            let mut problems = Problems::default();
            problems.push(path, words);
            Ok(Err((code, problems)))
        };
        let instruction = match Instruction::parse(message.as_bytes()) {
            Ok(instruction) => instruction,
            Err(refusal) => return Ok(Err((refusal.code, refusal.problems))),
        };
        let identity = &self.identity;
        if instruction.client_id != identity.client_id {
            return one(
                ErrorCode::WrongClient,
                "$.clientId",
                format!("this environment is the client {}'s", identity.client_id),
            );
        }
        if instruction
            .session_id
            .as_ref()
            .is_some_and(|session| *session != identity.session_id)
        {
            return one(
                ErrorCode::WrongSession,
                "$.sessionId",
                "this environment is another session's".to_owned(),
            );
        }
        if instruction.session_id.is_none()
            && instruction
                .thread_id
                .as_ref()
                .is_some_and(|thread| *thread != identity.thread_id)
        {
            return one(
                ErrorCode::WrongSession,
                "$.threadId",
                format!("this environment serves the thread {}", identity.thread_id),
            );
        }
        let existing = self
            .receipts
            .get(&identity.session_id, &instruction.instruction_id)
            .await?;
        let known = existing
            .and_then(|receipt| receipt.fingerprint)
            .or_else(|| {
                let twin = before
                    .iter()
                    .find(|(other, _)| other.instruction_id == instruction.instruction_id)?;
                Some(twin.0.fingerprint.clone())
            });
        let reused = known.is_some_and(|fingerprint| fingerprint != instruction.fingerprint);
        if reused {
            return one(
                ErrorCode::IdReused,
                "$.instructionId",
                format!(
                    "{} was used before for another instruction, which is untouched",
                    instruction.instruction_id
                ),
            );
        }
        Ok(Ok(instruction))
    }

    async fn enqueue(&self, instruction: &Instruction, body: String) -> Result<(), PortError> {
        let identity = &self.identity;
        let id = &instruction.instruction_id;
        // Before it is sent: the pipeline may be faster.
        self.kinds.remember(instruction);
        let message = Outgoing {
            body,
            // A cancel is not to wait for its turn behind what it calls off.
            group: match instruction.action {
                Action::Cancel { .. } => CONTROL_GROUP.to_owned(),
                _ => identity.session_id.to_string(),
            },
            deduplication_id: id.to_string(),
            trace_parent: None,
        };
        // The message first: a receipt without a message would say `accepted` for ever.
        let sent = self.queue.send(&message).await?;
        if sent.duplicate {
            // Its receipt is the first one's matter, whose body may be another.
            return Ok(());
        }
        if self.receipts.get(&identity.session_id, id).await?.is_some() {
            return Ok(()); // It was sent again, or is being carried out already.
        }
        let now = Timestamp::now();
        let receipt = Receipt {
            session_id: identity.session_id.clone(),
            instruction_id: id.clone(),
            client_id: identity.client_id.clone(),
            status: Status::Accepted,
            attempts: 0,
            commit: None,
            branch: identity.branch.clone(),
            files_changed: Vec::new(),
            summary: String::new(),
            pages: Vec::new(),
            verdict: None,
            error: None,
            timings: Timings::default(),
            preview_url: identity.preview_url.clone(),
            accepted_at: now,
            updated_at: now,
            fingerprint: Some(instruction.fingerprint.clone()),
        };
        // The pipeline may be faster; a final receipt stands.
        self.receipts.put(&receipt).await?;
        self.events.publish(Event::Progress {
            receipt: Box::new(receipt),
        });
        Ok(())
    }
}

/// The messages of a call, byte for byte as they were sent, and whether it was one message that was no array.
fn split(call: &[u8]) -> Result<(Vec<Box<RawValue>>, bool), Declined> {
    let array = call.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let messages = if array {
        serde_json::from_slice(call)
    } else {
        serde_json::from_slice(call).map(|message| vec![message])
    };
    match messages {
        Ok(messages) => Ok((messages, !array)),
        Err(error) => {
            let mut problems = Problems::default();
            problems.push("$", format!("is not JSON: {error}"));
            Err(Declined::Invalid {
                code: ErrorCode::InvalidMessage,
                problems,
            })
        }
    }
}
