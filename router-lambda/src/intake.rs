//! Takes what producers send from outside an environment: finds its session, hands it on, and wakes who has to carry it out.
//!
//! ```text
//!   intake queue ─▶ instruction ─▶ client ─▶ session ─▶ the session's own queue ─▶ wake, unless awake
//!                       │            │         │ by id, or by thread, made if need be
//!                       └────────────┴─────────┴─▶ never works: receipt (where somebody can ask for it) ─▶ dead letters
//! ```
//!
//! - **Nothing is lost.** A message is let go when it is in the queue of its session, or with the dead letters. What did not
//!   answer is tried again by the queue. A wake that fails fails no message: it waits in its session's queue, and the sweep wakes.
//! - **Once in effect.** It is handed on under its own id, which the session's queue knows for five minutes and the agent for good.
//! - **Order.** Of a group, what comes after a message that was not handed on is not handed on either. Groups do not wait for
//!   each other.
//! - **A session may end meanwhile.** So it is looked at again after the message is in its queue: whoever ends a session removes
//!   its record first and empties its queue then, so that either they see the message, or we see that the record is gone and
//!   the message goes to a new session.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use contract::instruction::Refusal;
use contract::session::State;
use contract::{
    Action, ClientConfig, ClientId, ErrorCode, Instruction, Session, SessionId, Status, ThreadId,
    Timestamp,
};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, FuturesUnordered};
use platform::{Clients, Delivery, Instructions, Outgoing, PortError, Queues, Receipts, Sessions};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::answer::{self, Addressee, Answers};
use crate::threads::Threads;
use crate::wake::{self, Waker};
use telemetry::chain;

/// The group of what is not to wait behind the instruction that it calls off. The agent's word.
const CONTROL_GROUP: &str = "control";
/// The group of what the intake puts with the dead letters: whoever looks there knows that it was answered.
pub(crate) const DEAD_GROUP: &str = "intake";

/// Groups of a batch that are worked on at once. A batch of SQS has ten messages at most.
const GROUPS_AT_ONCE: usize = 10;
/// Sessions that a message is handed to before it is left to the queue to bring it back: the one that was found, and one that was
/// made because that one ended.
const HANDINGS_MAX: u32 = 2;
/// For how long a batch wakes sessions: a launch that is turned away takes some seconds, and the messages behind it wait. What is
/// not woken then is woken by the sweep.
const WAKING_TIME: Duration = Duration::from_secs(20);
/// From this delivery on it is said loudly that a message cannot be dealt with: the tenth is the last (DESIGN §4).
const LOUD_FROM: u32 = 9;

/// How long the loop's request waits for a message: SQS's maximum.
const WAIT: Duration = Duration::from_secs(20);
/// How long the loop keeps a message: longer than a launch and all ports take together.
const VISIBILITY: Duration = Duration::from_secs(120);
/// The pause after the queue did not answer.
const PAUSE: Duration = Duration::from_secs(2);
/// The longest pause before a message is tried again; the first is a second, doubled each time.
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// Takes messages of the intake queue. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Intake {
    /// Who may send.
    pub clients: Arc<dyn Clients>,
    /// The sessions.
    pub sessions: Arc<dyn Sessions>,
    /// The sessions of threads.
    pub threads: Threads,
    /// The queues of sessions.
    pub queues: Arc<dyn Queues>,
    /// What became of instructions.
    pub receipts: Arc<dyn Receipts>,
    /// Wakes.
    pub waker: Waker,
    /// The dead letters.
    pub dead: Arc<dyn Instructions>,
}

/// A message of the intake queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its id.
    pub message_id: String,
    /// What it says.
    pub body: String,
    /// Its group, within which order is kept.
    pub group: String,
    /// How often it was received, this time included.
    pub receive_count: u32,
    /// When it was sent.
    pub sent_at: Timestamp,
    /// The trace that it belongs to.
    pub trace_parent: Option<String>,
}

impl From<Delivery> for Record {
    fn from(delivery: Delivery) -> Self {
        Self {
            message_id: delivery.message_id,
            body: delivery.body,
            group: delivery.group,
            receive_count: delivery.receive_count,
            sent_at: delivery.sent_at,
            trace_parent: delivery.trace_parent,
        }
    }
}

/// When a batch was taken.
#[derive(Clone, Copy)]
struct Turn {
    began: Instant,
    at: Timestamp,
}

impl Turn {
    /// The present moment, by the caller's clock.
    fn now(self) -> Timestamp {
        self.at.plus(self.began.elapsed())
    }
}

/// Where an instruction goes.
enum Place {
    /// To this session.
    Session(Box<Session>),
    /// Nowhere: the session it names is not there, or is not its client's.
    Nowhere {
        /// The session that it would have been, if that can be told without touching anybody else's.
        ended: Option<SessionId>,
    },
}

impl Intake {
    /// Takes messages, in their order within each group. Returns the ids of those that have to come again: those that were not
    /// dealt with because something did not answer, and all that came after them in their group.
    pub async fn take(&self, records: Vec<Record>, now: Timestamp) -> Vec<String> {
        let turn = Turn {
            began: Instant::now(),
            at: now,
        };
        stream::iter(by_group(records))
            .map(|group| self.take_group(group, turn))
            .buffer_unordered(GROUPS_AT_ONCE)
            .concat()
            .await
    }

    /// Takes messages from a queue until `stop`: what the Lambda is to SQS, on a laptop.
    pub async fn run(self, queue: Arc<dyn Instructions>, stop: CancellationToken) {
        // A request that waits is not given up before `stop`: what it gets when nobody listens comes late.
        let mut request = receive(&queue);
        let mut at_work = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(()) = at_work.next(), if !at_work.is_empty() => {}
                received = &mut request, if at_work.len() < GROUPS_AT_ONCE => {
                    match received {
                        Ok(Some(delivery)) => at_work.push(self.take_delivery(&queue, delivery)),
                        Ok(None) => {}
                        Err(error) => {
                            tracing::warn!(error = %chain(&error), "the intake queue does not answer");
                            tokio::select! {
                                () = stop.cancelled() => break,
                                () = tokio::time::sleep(PAUSE) => {}
                            }
                        }
                    }
                    request = receive(&queue);
                }
            }
        }
        // Each ends by itself: everything that it waits for has its limit.
        while at_work.next().await.is_some() {}
    }

    async fn take_delivery(&self, queue: &Arc<dyn Instructions>, delivery: Delivery) {
        let (handle, receive_count) = (delivery.handle.clone(), delivery.receive_count);
        let failed = self.take(vec![delivery.into()], Timestamp::now()).await;
        let done = if failed.is_empty() {
            queue.delete(&handle).await
        } else {
            let times = 2u32.saturating_pow(receive_count.saturating_sub(1));
            let pause = Duration::from_secs(1).saturating_mul(times).min(AGAIN_MAX);
            queue.extend(&handle, pause).await
        };
        match done {
            Ok(platform::Lease::Held) => {}
            // It comes again, and is known then.
            Ok(platform::Lease::Lost) => {
                tracing::warn!("a message of the intake queue took too long, and comes again");
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "a message of the intake queue comes again");
            }
        }
    }

    async fn take_group(&self, records: Vec<Record>, turn: Turn) -> Vec<String> {
        let mut failed = Vec::new();
        for record in records {
            if !failed.is_empty() {
                failed.push(record.message_id);
                continue;
            }
            if let Err(error) = self.take_one(&record, turn).await {
                let (message_id, attempt) = (&record.message_id, record.receive_count);
                if attempt >= LOUD_FROM {
                    tracing::error!(message_id, attempt, error = %chain(&error), "a message cannot be handed on, and is about to become a dead letter");
                } else {
                    tracing::warn!(message_id, attempt, error = %chain(&error), "a message could not be handed on; it comes again");
                }
                failed.push(record.message_id);
            }
        }
        failed
    }

    async fn take_one(&self, record: &Record, turn: Turn) -> Result<(), PortError> {
        let now = turn.now();
        let instruction = match Instruction::parse(record.body.as_bytes()) {
            Ok(instruction) => instruction,
            Err(refusal) => return self.refuse(record, refusal, now).await,
        };
        let client = &instruction.client_id;
        let Some(config) = self.clients.get(client).await? else {
            return self
                .bury(record, &format!("there is no client {client}"))
                .await;
        };
        for _ in 0..HANDINGS_MAX {
            let session = match self.place(&config, &instruction, now).await? {
                Place::Session(session) => session,
                Place::Nowhere { ended } => {
                    return self
                        .nowhere(record, &config, &instruction, ended, now)
                        .await;
                }
            };
            if self
                .give(record, &config, &instruction, &session, turn)
                .await?
            {
                return Ok(());
            }
        }
        Err(PortError::Unavailable {
            operation: "hand on",
            thing: format!("instruction {}", instruction.instruction_id),
            source: "its session ended each time".into(),
        })
    }

    /// Finds the session of an instruction, and makes that of a thread.
    async fn place(
        &self,
        config: &ClientConfig,
        instruction: &Instruction,
        now: Timestamp,
    ) -> Result<Place, PortError> {
        if let Some(id) = &instruction.session_id {
            return Ok(match self.sessions.get(id).await? {
                Some(session) if session.client_id == config.client_id => {
                    Place::Session(Box::new(session))
                }
                Some(_) => Place::Nowhere { ended: None },
                None => Place::Nowhere {
                    ended: is_of(id, &config.client_id).then(|| id.clone()),
                },
            });
        }
        let Some(thread) = &instruction.thread_id else {
            return Ok(Place::Nowhere { ended: None });
        };
        let user = instruction
            .user_id
            .as_deref()
            .or(instruction
                .author
                .as_ref()
                .map(|author| author.email.as_str()))
            .unwrap_or_default();
        let session = self.threads.open(config, thread, user, now).await?;
        Ok(Place::Session(Box::new(session)))
    }

    /// Hands an instruction to a session. Returns whether the session is still there to carry it out.
    async fn give(
        &self,
        record: &Record,
        config: &ClientConfig,
        instruction: &Instruction,
        session: &Session,
        turn: Turn,
    ) -> Result<bool, PortError> {
        let now = turn.now();
        let (id, instruction_id) = (&session.session_id, &instruction.instruction_id);
        let results = config.results_queue_url.as_deref();
        let existing = self.receipts.get(id, instruction_id).await?;
        if let Some(receipt) = &existing {
            let is_other = receipt
                .fingerprint
                .as_ref()
                .is_some_and(|fingerprint| *fingerprint != instruction.fingerprint);
            if is_other {
                let why = format!(
                    "{instruction_id} was used before for another instruction, which is untouched"
                );
                return self.bury(record, &why).await.map(|()| true);
            }
            if receipt.status.is_final() {
                // Nobody has to be woken to say it again.
                let answers = self.answers();
                answers.tell(receipt, results, trace(record)).await;
                tracing::info!(client = %config.client_id, session = id.redacted(), %instruction_id, "an instruction that is answered came again");
                return Ok(true);
            }
        }
        self.send(record, instruction, session).await?;
        let Some(session) = self.sessions.get(id).await? else {
            tracing::info!(client = %config.client_id, session = id.redacted(), %instruction_id, "a session ended while an instruction was handed to it");
            return Ok(false);
        };
        // Somebody who carries it out may be faster than this, and says more.
        if existing.is_none() && self.receipts.get(id, instruction_id).await?.is_none() {
            let fingerprint = Some(instruction.fingerprint.clone());
            let accepted = Addressee::of(&session).receipt(
                instruction_id.clone(),
                Status::Accepted,
                fingerprint,
                now,
                now,
            );
            self.receipts.put(&accepted).await?;
        }
        let woken = self.wake(config, &session, turn).await;
        tracing::info!(client = %config.client_id, session = id.redacted(), %instruction_id, action = instruction.action.kind(), woken, "an instruction was handed on");
        Ok(true)
    }

    /// Puts an instruction into the queue of its session, which is made anew if it is gone.
    async fn send(
        &self,
        record: &Record,
        instruction: &Instruction,
        session: &Session,
    ) -> Result<(), PortError> {
        let message = Outgoing {
            body: record.body.clone(),
            group: match instruction.action {
                Action::Cancel { .. } => CONTROL_GROUP.to_owned(),
                _ => session.session_id.to_string(),
            },
            deduplication_id: instruction.instruction_id.to_string(),
            trace_parent: trace(record).map(str::to_owned),
        };
        let address = &session.queue_url;
        if !address.is_empty() {
            match self.queues.open(address).send(&message).await {
                Err(PortError::Refused { reason, .. }) => {
                    tracing::warn!(client = %session.client_id, session = session.session_id.redacted(), reason, "the queue of a session does not take a message: it is made anew, if it is gone");
                }
                sent => return sent.map(drop),
            }
        }
        let made = self.queues.create(&session.session_id).await?;
        if made != *address {
            tracing::error!(client = %session.client_id, session = session.session_id.redacted(), "the queue of a session is not where its record says");
        }
        self.queues.open(&made).send(&message).await.map(drop)
    }

    /// Wakes a session for a message, unless somebody is there, or it failed so lately that trying again is left to the sweep.
    /// Returns the word for it.
    async fn wake(&self, config: &ClientConfig, session: &Session, turn: Turn) -> &'static str {
        let now = turn.now();
        if wake::is_awake(session, now) {
            return match session.state {
                // Its last look at the queue may be over. Then the sweep wakes it, once it sleeps.
                State::Draining => "draining",
                _ => "awake",
            };
        }
        let is_too_soon = wake::again_for_news_at(session).is_some_and(|at| at > now);
        if is_too_soon || turn.began.elapsed() >= WAKING_TIME {
            return "later";
        }
        let woken = self
            .waker
            .wake(config, &session.session_id, session.generation, now);
        woken.await.as_str()
    }

    /// Answers what is no instruction, where somebody can ask for the answer.
    async fn refuse(
        &self,
        record: &Record,
        refusal: Refusal,
        now: Timestamp,
    ) -> Result<(), PortError> {
        let why = refusal.to_string();
        let Refusal {
            code,
            problems,
            instruction_id,
        } = refusal;
        if let Some(instruction_id) = instruction_id
            && let Some((config, session)) = self.guess(&record.body).await?
        {
            let mut error = answer::error(code, "The instruction is not valid.");
            error.details = problems.0;
            let receipt = Addressee::of(&session).receipt(
                instruction_id,
                Status::Rejected,
                None,
                record.sent_at,
                now,
            );
            let results = config.results_queue_url.as_deref();
            self.answers()
                .give(receipt, error, results, trace(record))
                .await?;
        }
        self.bury(record, &why).await
    }

    /// The client and the session that a message means that is no valid instruction. Nothing is made for it.
    async fn guess(&self, body: &str) -> Result<Option<(ClientConfig, Session)>, PortError> {
        let meant: Value = serde_json::from_str(body).unwrap_or_default();
        let Some(client) = read::<ClientId>(&meant, "clientId") else {
            return Ok(None);
        };
        let session = match read::<SessionId>(&meant, "sessionId") {
            Some(id) => Some(id),
            None => match read::<ThreadId>(&meant, "threadId") {
                Some(thread) => self.sessions.find(&client, &thread).await?,
                None => None,
            },
        };
        let Some(id) = session else { return Ok(None) };
        let Some(session) = self.sessions.get(&id).await? else {
            return Ok(None);
        };
        if session.client_id != client {
            return Ok(None);
        }
        let config = self.clients.get(&client).await?;
        Ok(config.map(|config| (config, session)))
    }

    /// Answers an instruction whose session is not there. To one that is somebody else's nothing is said: it looks like one
    /// that there never was, and nothing is written beside somebody else's receipts.
    async fn nowhere(
        &self,
        record: &Record,
        config: &ClientConfig,
        instruction: &Instruction,
        ended: Option<SessionId>,
        now: Timestamp,
    ) -> Result<(), PortError> {
        if let Some(id) = ended {
            let addressee = Addressee::gone(id, config.client_id.clone(), Some(instruction));
            let receipt = addressee.receipt(
                instruction.instruction_id.clone(),
                Status::Failed,
                Some(instruction.fingerprint.clone()),
                record.sent_at,
                now,
            );
            let error = session_expired();
            let results = config.results_queue_url.as_deref();
            self.answers()
                .give(receipt, error, results, trace(record))
                .await?;
        }
        self.bury(record, "the client has no such session").await
    }

    /// Puts a message with the dead letters. When this returns, it is there.
    async fn bury(&self, record: &Record, why: &str) -> Result<(), PortError> {
        let (id, body) = (record.message_id.as_str(), record.body.as_str());
        answer::bury(self.dead.as_ref(), DEAD_GROUP, id, body, trace(record)).await?;
        tracing::warn!(
            message_id = id,
            why,
            "a message that can never be carried out was put with the dead letters"
        );
        Ok(())
    }

    fn answers(&self) -> Answers {
        Answers {
            receipts: Arc::clone(&self.receipts),
            queues: Arc::clone(&self.queues),
        }
    }
}

fn receive(
    queue: &Arc<dyn Instructions>,
) -> BoxFuture<'static, Result<Option<Delivery>, PortError>> {
    let queue = Arc::clone(queue);
    Box::pin(async move { queue.receive(WAIT, VISIBILITY).await })
}

/// What waited in a session that has ended is answered so.
pub(crate) fn session_expired() -> contract::ReceiptError {
    let code = ErrorCode::SessionExpired;
    answer::error(code, code.meaning())
}

/// Whether a session's id was made for a client. It needs no record to say so.
pub(crate) fn is_of(session: &SessionId, client: &ClientId) -> bool {
    session
        .as_str()
        .split_once('_')
        .is_some_and(|(made_for, _)| made_for == client.as_str())
}

/// The trace of a message, if it is one that a queue carries.
fn trace(record: &Record) -> Option<&str> {
    let trace = record.trace_parent.as_deref()?;
    let fits =
        (1..=256).contains(&trace.len()) && trace.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then_some(trace)
}

fn read<T: std::str::FromStr>(object: &Value, name: &str) -> Option<T> {
    object.get(name)?.as_str()?.parse().ok()
}

/// The messages of each group in their order; the groups in the order of their first ones.
fn by_group(records: Vec<Record>) -> Vec<Vec<Record>> {
    let mut places = HashMap::new();
    let mut groups: Vec<Vec<Record>> = Vec::new();
    for record in records {
        let place = *places.entry(record.group.clone()).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[place].push(record);
    }
    groups
}
