//! A producer that knows no environment: it puts messages on a queue of SQS, and looks for their receipts in the table.
//!
//! ```text
//!  Queue (where, for whom) ──letters──▶ Letter (checked, addressed) ──send──▶ SQS
//!      └────── open ──▶ OpenQueue ── follow: the table, once a second ◀── the environment, when it wakes
//! ```
//!
//! Everything that can be judged here is judged before anything is sent: an environment may be hours away, and would only
//! say the same. How a letter is addressed is in `docs/producers.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use contract::id::hex;
use contract::instruction::UndoTarget;
use contract::{Action, ClientId, Instruction, Receipt, SessionId};
use platform::aws::{Aws, AwsSettings};
use platform::{Instructions, Outgoing, PortError, Receipts};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::MissedTickBehavior;

use super::{hint_of, listed, progress, so_far};
use crate::cli::SendArguments;
use crate::failure::{Exit, Failure, chain};
use crate::pipeline::CONTROL_GROUP;

/// The pause between two looks at the table: an edit takes about as long, and a look costs half a read unit.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Looks in a row that may fail before it is said that the table does not answer. Each has retries of its own.
const FAILED_LOOKS_MAX: u32 = 5;
/// The table where an operator gave it no other name.
const RECEIPTS_TABLE: &str = "webordinary-edit-receipts";
/// What the name of a session's own queue has around the session's id. Every FIFO queue's name ends so.
const OWN_QUEUE: (&str, &str) = ("webordinary-edits-", ".fifo");

/// A queue, and for whom messages are put there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Queue {
    url: String,
    receipts_table: String,
    client: Option<ClientId>,
    /// For whom a message is that names neither session nor thread.
    session: Option<SessionId>,
    /// Whose own queue it is, by its name. The intake is nobody's.
    owner: Option<SessionId>,
}

/// A message that is ready to be sent, and what has to be known to find its receipt.
#[derive(Debug)]
pub(super) struct Letter {
    outgoing: Outgoing,
    instruction: Instruction,
    /// The session, if it is known: then the receipt is found by its key, else by the client's index.
    session: Option<SessionId>,
}

impl Letter {
    pub(super) fn id(&self) -> String {
        self.instruction.instruction_id.to_string()
    }
}

impl Queue {
    /// The queue at `url`, for whom the options or else the variables say.
    pub(super) fn named(url: &str, arguments: &SendArguments) -> Result<Self, Failure> {
        let own_variable = |name| std::env::var(name).ok();
        Self::read(url, arguments, &own_variable)
    }

    fn read(
        url: &str,
        arguments: &SendArguments,
        variable: &dyn Fn(&'static str) -> Option<String>,
    ) -> Result<Self, Failure> {
        let usage = |what: &str| {
            Failure::new(
                Exit::Usage,
                format!("{url} is {what}"),
                "Name a FIFO queue by its URL, such as https://sqs.eu-central-1.amazonaws.com/123456789012/webordinary-intake.fifo.",
            )
        };
        if !url.starts_with("https://") && !url.starts_with("http://") {
            return Err(usage("no address of a queue"));
        }
        let name = url.trim_end_matches('/').rsplit('/').next().unwrap_or(url);
        if name.strip_suffix(OWN_QUEUE.1).is_none() {
            return Err(usage("no FIFO queue: order holds in no other"));
        }
        let owner = name
            .strip_prefix(OWN_QUEUE.0)
            .and_then(|rest| rest.strip_suffix(OWN_QUEUE.1))
            .and_then(|id| id.parse().ok());
        // An empty variable is not set, as everywhere.
        let variable = |name| variable(name).filter(|text| !text.is_empty());
        let session = match (&arguments.session, &arguments.thread) {
            (Some(session), _) => Some(session.clone()),
            (None, Some(_)) => None,
            (None, None) if owner.is_some() => owner.clone(),
            (None, None) => parsed("SESSION_ID", variable("SESSION_ID"))?,
        };
        Ok(Self {
            url: url.to_owned(),
            receipts_table: arguments
                .receipts_table
                .clone()
                .or_else(|| variable("RECEIPTS_TABLE"))
                .unwrap_or_else(|| RECEIPTS_TABLE.to_owned()),
            client: match &arguments.client {
                Some(client) => Some(client.clone()),
                None => parsed("CLIENT_ID", variable("CLIENT_ID"))?,
            },
            session,
            owner,
        })
    }

    /// What a message may leave out, by the names of its fields.
    pub(super) fn about(&self) -> Value {
        json!({ "clientId": self.client, "sessionId": self.session })
    }

    /// Addresses messages. All of them are sound, or none is sent.
    pub(super) fn letters(&self, messages: &[Value]) -> Result<Vec<Letter>, Failure> {
        let letters = messages
            .iter()
            .map(|message| self.letter(message))
            .collect::<Result<Vec<_>, _>>()?;
        let mut ids = BTreeSet::new();
        match letters.iter().find(|letter| !ids.insert(letter.id())) {
            Some(twice) => Err(Failure::new(
                Exit::Usage,
                format!("two of these instructions have the id {}", twice.id()),
                "An id is carried out once: give each its own, or leave them out.",
            )),
            None => Ok(letters),
        }
    }

    fn letter(&self, message: &Value) -> Result<Letter, Failure> {
        let absent = |field: &str| message.get(field).is_none_or(Value::is_null);
        if absent("clientId") {
            return Err(Failure::new(
                Exit::Usage,
                "a queue is not told whose site is meant",
                "Name the client with --client, or set CLIENT_ID.",
            ));
        }
        if absent("sessionId") && absent("threadId") {
            return Err(Failure::new(
                Exit::Usage,
                "a queue is not told which conversation is meant",
                "Name it with --thread or --session, or set SESSION_ID.",
            ));
        }
        let body = message.to_string();
        let instruction = Instruction::parse(body.as_bytes()).map_err(|refusal| {
            let code = refusal.code.as_str();
            let errors = listed(&refusal.problems.0);
            let message = format!("no environment would accept it ({code}):{errors}");
            Failure::new(Exit::NotLanded, message, hint_of(code))
        })?;
        if matches!(
            instruction.action,
            Action::Undo {
                target: UndoTarget::Last
            }
        ) {
            return Err(Failure::new(
                Exit::Usage,
                "`last` is not known to a queue: it could be another one by the time it is read",
                "Name the instruction to take back by its id; the receipts have it.",
            ));
        }
        if let (Some(owner), Some(session)) = (&self.owner, &instruction.session_id)
            && owner != session
        {
            return Err(Failure::new(
                Exit::Usage,
                format!(
                    "this is the own queue of session {owner}, and the instruction is for {session}"
                ),
                "Send it to that session's own queue, or to the intake.",
            ));
        }
        let session = self
            .owner
            .clone()
            .or_else(|| instruction.session_id.clone());
        Ok(Letter {
            outgoing: Outgoing {
                body,
                group: group(&instruction, session.as_ref()),
                deduplication_id: instruction.instruction_id.to_string(),
                trace_parent: None,
            },
            instruction,
            session,
        })
    }

    /// Opens the queue and the table. Nothing is asked yet.
    pub(super) async fn open(&self) -> OpenQueue {
        let aws = Aws::load(AwsSettings::default()).await;
        OpenQueue {
            queue: aws.queue(&self.url),
            receipts: aws.receipts(&self.receipts_table),
        }
    }
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    name: &str,
    text: Option<String>,
) -> Result<Option<T>, Failure> {
    text.map(|text| {
        text.parse().map_err(|error| {
            Failure::new(
                Exit::Usage,
                format!("the variable {name} is not valid: {error}"),
                "Set it to what an operator gave you, or use the option.",
            )
        })
    })
    .transpose()
}

/// Within which messages stay in order: those of a session, and a cancel apart from them, so that it overtakes what it calls
/// off. In the intake anything goes that is the same for all of a thread.
fn group(instruction: &Instruction, session: Option<&SessionId>) -> String {
    match (&instruction.action, session, &instruction.thread_id) {
        (Action::Cancel { .. }, _, _) => CONTROL_GROUP.to_owned(),
        (_, Some(session), _) => session.to_string(),
        // A thread may have any characters, and a group only some. 128 bits are enough to keep threads apart.
        (_, None, Some(thread)) => {
            let hash = hex(&Sha256::digest(thread.as_str()));
            format!("{}-{}", instruction.client_id, &hash[..32])
        }
        (_, None, None) => instruction.client_id.to_string(),
    }
}

/// A queue and the table of its receipts.
#[derive(Debug)]
pub(super) struct OpenQueue {
    queue: Arc<dyn Instructions>,
    receipts: Arc<dyn Receipts>,
}

impl OpenQueue {
    /// Sends them, one after the other.
    pub(super) async fn send(&self, letters: &[Letter]) -> Result<(), Failure> {
        for (index, letter) in letters.iter().enumerate() {
            self.queue.send(&letter.outgoing).await.map_err(|error| {
                let before: Vec<String> = letters[..index].iter().map(Letter::id).collect();
                let before = match &before[..] {
                    [] => String::new(),
                    ids => format!("; in the queue before it: {}", ids.join(", ")),
                };
                failure(&format!("send {}", letter.id()), &error, &before)
            })?;
        }
        Ok(())
    }

    /// Waits for the final receipt of each, in their order.
    pub(super) async fn follow(&self, letters: &[Letter]) -> Result<Vec<Receipt>, Failure> {
        let bar = progress();
        bar.set_message("sent");
        let mut pace = tokio::time::interval(LOOK_PAUSE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut finals: BTreeMap<String, Receipt> = BTreeMap::new();
        let mut failed = 0;
        while finals.len() < letters.len() {
            pace.tick().await;
            for letter in letters {
                if finals.contains_key(&letter.id()) {
                    continue;
                }
                match self.look(letter).await {
                    Ok(Some(receipt)) if receipt.status.is_final() => {
                        same(letter, &receipt)?;
                        finals.insert(letter.id(), receipt);
                    }
                    Ok(Some(receipt)) => bar.set_message(so_far(&receipt)),
                    Ok(None) => {}
                    Err(error) if error.is_transient() && failed < FAILED_LOOKS_MAX => {
                        failed += 1;
                        bar.set_message(chain(&error));
                        break;
                    }
                    Err(error) => {
                        let what = format!("look for the receipt of {}", letter.id());
                        return Err(failure(&what, &error, "; it stays in the queue"));
                    }
                }
                failed = 0;
            }
        }
        bar.finish_and_clear();
        Ok(letters
            .iter()
            .filter_map(|letter| finals.remove(&letter.id()))
            .collect())
    }

    async fn look(&self, letter: &Letter) -> platform::Result<Option<Receipt>> {
        let instruction = &letter.instruction;
        let id = &instruction.instruction_id;
        match &letter.session {
            Some(session) => self.receipts.get(session, id).await,
            None => self.receipts.find(&instruction.client_id, id).await,
        }
    }
}

/// A receipt that stood before, of another instruction with the same id, is no answer to this one.
fn same(letter: &Letter, receipt: &Receipt) -> Result<(), Failure> {
    let ours = &letter.instruction.fingerprint;
    match &receipt.fingerprint {
        Some(theirs) if theirs != ours => Err(Failure::new(
            Exit::NotLanded,
            format!(
                "the id {} was used before for another instruction, which is {}",
                letter.id(),
                receipt.status.as_str()
            ),
            hint_of(contract::ErrorCode::IdReused.as_str()),
        )),
        _ => Ok(()),
    }
}

fn failure(what: &str, error: &PortError, more: &str) -> Failure {
    Failure::new(
        Exit::Backend,
        format!("could not {what}: {}{more}", chain(error)),
        "Check the URL of the queue, the name of the table (--receipts-table), the region (AWS_REGION) and your credentials.",
    )
    .retryable(error.is_transient())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    const INTAKE: &str = "https://sqs.eu-central-1.amazonaws.com/1/webordinary-intake.fifo";
    const OWN: &str = "https://sqs.eu-central-1.amazonaws.com/1/webordinary-edits-amelia_4f2k.fifo";

    /// What a command line and variables make of `--sync` or whatever else is asked.
    fn letter(line: &[&str], variables: &[(&str, &str)]) -> Result<Letter, Failure> {
        let line = ["edit-agent", "send", "--id", "s-1"].iter().chain(line);
        let Command::Send(arguments) = Cli::try_parse_from(line).expect("a command line").command
        else {
            panic!("another command");
        };
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let url = arguments.queue.as_deref().expect("given");
        let queue = Queue::read(url, &arguments, &variable)?;
        let message = super::super::read_messages(&arguments)?.remove(0);
        let message = super::super::complete(message, &queue.about(), &arguments);
        queue
            .letters(&[message])
            .map(|mut letters| letters.remove(0))
    }

    #[test]
    fn a_message_is_addressed_as_the_guide_says() {
        for (line, group, session) in [
            (
                &["--queue", OWN, "--sync"][..],
                "amelia_4f2k",
                Some("amelia_4f2k"),
            ),
            // A session's own queue says whose it is, also where a message names the thread.
            (
                &["--queue", OWN, "--thread", "Grüße", "--sync"],
                "amelia_4f2k",
                Some("amelia_4f2k"),
            ),
            (
                &["--queue", OWN, "--cancel", "s-0"],
                "control",
                Some("amelia_4f2k"),
            ),
            (
                &["--queue", INTAKE, "--session", "amelia_9", "--sync"],
                "amelia_9",
                Some("amelia_9"),
            ),
            (
                &["--queue", INTAKE, "--thread", "spring", "--cancel", "s-0"],
                "control",
                None,
            ),
            (
                &["--queue", INTAKE, "--thread", "Grüße", "--sync"],
                "amelia-f83e039796c6453a10f5519e39fd1139",
                None,
            ),
        ] {
            let letter = letter(line, &[("CLIENT_ID", "amelia")]).expect("addressed");
            assert_eq!(letter.outgoing.group, group, "{line:?}");
            assert_eq!(letter.outgoing.deduplication_id, "s-1", "{line:?}");
            assert_eq!(
                letter.session.as_ref().map(SessionId::as_str),
                session,
                "{line:?}"
            );
            letter.outgoing.check().expect("every queue takes it");
        }
    }

    #[test]
    fn an_option_goes_before_a_variable() {
        let variables = [("CLIENT_ID", "bertram"), ("SESSION_ID", "bertram_1")];
        let sent = letter(&["--queue", INTAKE, "--sync"], &variables).expect("addressed");
        assert_eq!(sent.instruction.client_id.as_str(), "bertram");
        assert_eq!(sent.outgoing.group, "bertram_1");
        let line = [
            "--queue", INTAKE, "--client", "amelia", "--thread", "spring", "--sync",
        ];
        let sent = letter(&line, &variables).expect("addressed");
        assert_eq!(sent.instruction.client_id.as_str(), "amelia");
        assert_eq!((sent.instruction.session_id, sent.session), (None, None));
    }

    #[test]
    fn what_could_never_work_is_said_before_anything_is_sent() {
        let said = |line: &[&str], variables: &[(&str, &str)]| {
            letter(line, variables).expect_err("refused").to_string()
        };
        let amelia = [("CLIENT_ID", "amelia"), ("SESSION_ID", "")];
        insta::assert_snapshot!(said(&["--queue", "webordinary-intake.fifo", "--sync"], &amelia), @r"
        error: webordinary-intake.fifo is no address of a queue
          hint: Name a FIFO queue by its URL, such as https://sqs.eu-central-1.amazonaws.com/123456789012/webordinary-intake.fifo.
        ");
        assert!(
            said(&["--queue", "https://sqs/1/results", "--sync"], &amelia)
                .contains("no FIFO queue")
        );
        insta::assert_snapshot!(said(&["--queue", OWN, "--sync"], &[]), @r"
        error: a queue is not told whose site is meant
          hint: Name the client with --client, or set CLIENT_ID.
        ");
        insta::assert_snapshot!(said(&["--queue", INTAKE, "--sync"], &amelia), @r"
        error: a queue is not told which conversation is meant
          hint: Name it with --thread or --session, or set SESSION_ID.
        ");
        insta::assert_snapshot!(said(&["--queue", OWN, "--undo", "last"], &amelia), @r"
        error: `last` is not known to a queue: it could be another one by the time it is read
          hint: Name the instruction to take back by its id; the receipts have it.
        ");
        insta::assert_snapshot!(said(&["--queue", OWN, "--session", "amelia_9", "--sync"], &amelia), @r"
        error: this is the own queue of session amelia_4f2k, and the instruction is for amelia_9
          hint: Send it to that session's own queue, or to the intake.
        ");
        insta::assert_snapshot!(said(&["--queue", OWN, "--undo", "a b"], &amelia), @r"
        error: no environment would accept it (invalid_message):
            $.action.instructionId: an instruction id is 1 to 128 of A-Z, a-z, 0-9, . _ : and -
          hint: Mend what `details` lists and send it under a new id. `edit-agent schema instruction` prints the schema.
        ");
        assert!(
            said(&["--queue", INTAKE, "--sync"], &[("CLIENT_ID", "A B")]).contains("CLIENT_ID")
        );
    }
}
