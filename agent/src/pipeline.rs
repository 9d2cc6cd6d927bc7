//! The edit pipeline: one instruction after the other, from the queue to its receipt.
//!
//! ```text
//!  delivery ─▶ admission ─▶ proposal ─▶ tried out ─▶ committed ─▶ pushed and proven ─▶ receipt ─▶ message deleted
//!                 │             │            │                      │
//!                 └─────────────┴────────────┴─ rejected ◀──────────┘ (nothing is left behind)
//! ```
//!
//! Between instructions it takes in what others pushed, and looks at what somebody changed by hand.
//!
//! The message goes only after its receipt is durable, and the receipt says `pushed` only after the commit was read
//! from the remote. Whatever happens before that, the message comes back; and what it has done already is recognised by the
//! trailer of its commit. So a crash anywhere neither loses an instruction nor carries it out twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use contract::client_config::Policy;
use contract::limits::MESSAGE_MAX_BYTES;
use contract::receipt::Timings;
use contract::{
    Action, ClientId, CommitId, ErrorCode, Instruction, InstructionId, Receipt, ReceiptError,
    SessionId, Status, ThreadId, Timestamp,
};
use git2::Oid;
use platform::{Delivery, Instructions, Lease, Outgoing, PortError, Put, Receipts};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

mod admission;
mod attempt;
mod cancel;
mod ending;
mod hands;
mod heartbeat;
mod indoors;
mod mailbox;
mod results;
mod retry;
mod trial;
mod workshop;

use admission::Admission;
use attempt::{Attempt, Outcome};
pub(crate) use ending::Ending;
use ending::Until;
use heartbeat::Heartbeat;
pub(crate) use indoors::Indoors;
pub(crate) use mailbox::CONTROL_GROUP;
use mailbox::{Letter, Mailbox};
pub(crate) use results::Results;
pub(crate) use retry::Attempts;
use retry::Patience;
pub(crate) use workshop::{Workshop, WorkshopError};

use crate::activity::Moment;
use crate::content::Fetcher;
use crate::draft::{GivenUp, History, Lookout, Seen};
use crate::events::{Event, Events};
use crate::kinds::Kinds;
use crate::lease::Lease as SessionLease;
use crate::work_tree::uncommitted::{Suspects, Uncommitted};

/// How long a message is ours before it is given to somebody else.
pub(crate) const VISIBILITY: Duration = Duration::from_secs(60);
/// How long an instruction may go on without the next step: after that, it is stuck. The longest that is right is an edit of
/// what the site is built from: 15 minutes to put it in place, 2 to start the site, and then pages to look at, 10 s each. A
/// publish looks at up to 60 pages, 4 at once and twice if they are slow, which is 5 minutes, and may build for 10; it says so
/// before each.
pub(crate) const INSTRUCTION_TIME_MAX: Duration = Duration::from_secs(30 * 60);
/// How long to wait after a port did not answer that an instruction cannot go on without; doubled each time.
const PORT_PAUSE: Duration = Duration::from_secs(1);
const PORT_PAUSE_MAX: Duration = Duration::from_secs(15);
/// How long to wait after the queue did not answer; doubled each time, up to [`QUEUE_PAUSE_MAX`].
const QUEUE_PAUSE: Duration = Duration::from_secs(2);
const QUEUE_PAUSE_MAX: Duration = Duration::from_secs(16);
/// How often a queue that does not answer is asked for the last messages before the environment sleeps. What is in it waits
/// there for the next one.
const LAST_LOOKS_MAX: u32 = 4;

/// Whose instructions these are and where they land.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Whose site.
    pub(crate) client_id: ClientId,
    /// Which session.
    pub(crate) session_id: SessionId,
    /// The producer's conversation.
    pub(crate) thread_id: ThreadId,
    /// The draft branch.
    pub(crate) branch: String,
    /// Where the owner sees it.
    pub(crate) preview_url: String,
}

/// What the pipeline is doing, for the status.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PipelineView {
    /// The instruction that is being carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) running: Option<Running>,
    /// Commits that have not been seen on the remote.
    pub(crate) unpushed: usize,
    /// The newest commit of the draft.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tip: Option<String>,
    /// What was done on the draft.
    #[serde(skip)]
    pub(crate) history: Arc<History>,
    /// The files that somebody changed by hand in the workspace, as paths of the repository.
    pub(crate) uncommitted: Vec<String>,
    /// When a hand was last seen at work on them.
    #[serde(skip)]
    pub(crate) changed_by_hand: Option<Moment>,
    /// When the loop last came round: health is its progress, not its existence.
    #[serde(skip)]
    pub(crate) progressed: Option<Instant>,
}

/// An instruction that is being carried out.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Running {
    /// Which one.
    pub(crate) instruction_id: InstructionId,
    /// Since when.
    pub(crate) since: Timestamp,
    /// How often it was begun.
    pub(crate) attempt: u32,
}

/// Everything the pipeline needs. [`Pipeline::run`] consumes instructions until it is told to stop.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) identity: Identity,
    /// The right to act for the session.
    pub(crate) lease: SessionLease,
    pub(crate) policy: Policy,
    pub(crate) queue: Arc<dyn Instructions>,
    pub(crate) dead: Arc<dyn Instructions>,
    pub(crate) receipts: Arc<dyn Receipts>,
    /// The client's queue for final receipts.
    pub(crate) results: Results,
    pub(crate) workshop: Workshop,
    /// What others push.
    pub(crate) lookout: Lookout,
    /// The published commit that was last asked to be brought in.
    pub(crate) followed: Option<Oid>,
    /// What was tried since this start.
    pub(crate) attempts: Attempts,
    /// Fetches what instructions have elsewhere.
    pub(crate) content: Fetcher,
    /// What is changed by hand.
    pub(crate) hands: Uncommitted,
    pub(crate) events: Events,
    /// What receipts do not tell of this machine.
    pub(crate) indoors: Indoors,
    /// What the words about an instruction need to know.
    pub(crate) kinds: Kinds,
    pub(crate) view: watch::Sender<PipelineView>,
}

/// What comes to the pipeline.
enum Arrival {
    /// A message, or none in all the time that was waited.
    Message(Result<Option<Letter>, PortError>),
    /// The remote's branches are elsewhere.
    Others(Seen),
    /// Somebody changed something by hand.
    Hands,
    /// It is to end otherwise than before.
    Ending,
}

impl Pipeline {
    /// Consumes instructions until it is told to end; the one that runs then is finished, or taken back. Gives back the
    /// workshop.
    pub(crate) async fn run(mut self, ending: Ending) -> Workshop {
        let _ended = ending.guard();
        let mut until = ending.watch();
        let stop = ending.stop();
        let mut mailbox = Mailbox::new(Arc::clone(&self.queue), ending.clone());
        let mut unanswered = 0_u32;
        self.publish_tip().await;
        loop {
            self.view
                .send_modify(|view| view.progressed = Some(Instant::now()));
            crate::crash_point!("at-rest");
            let now = *until.borrow_and_update();
            if now == Until::Now || self.lease.is_lost() {
                break;
            }
            if !self.lease.may_act() {
                // Nobody has taken the session, as far as is known, and somebody may: nothing is begun.
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = self.lease.lost() => {}
                    () = tokio::time::sleep(QUEUE_PAUSE) => {}
                }
                continue;
            }
            let arrival = tokio::select! {
                // Ending comes first: a message that is received now would only be released again. Then what others did,
                // because it is what the next instruction stands on, and a full queue must not keep it away.
                biased;
                changed = until.changed() => if changed.is_err() { break } else { Arrival::Ending },
                () = self.lease.lost() => break,
                seen = self.lookout.changed() => Arrival::Others(seen),
                () = self.hands.changed() => Arrival::Hands,
                received = mailbox.arrival(now) => Arrival::Message(received),
            };
            if unanswered > 0 && matches!(arrival, Arrival::Message(Ok(_))) {
                tracing::info!(times = unanswered, "the queue answers again");
                unanswered = 0;
            }
            match arrival {
                Arrival::Message(Ok(Some(letter))) => {
                    self.handle(letter, &mut mailbox).await;
                    if *until.borrow() == Until::Told {
                        mailbox.ask();
                    }
                }
                Arrival::Message(Ok(None)) if now == Until::Empty => break,
                Arrival::Message(Ok(None)) | Arrival::Ending => {}
                Arrival::Others(seen) => self.take_in(seen).await,
                Arrival::Hands => self.look_at_hands().await,
                Arrival::Message(Err(error)) => {
                    // Said once, however long it lasts.
                    if unanswered == 0 {
                        tracing::error!(
                            error = %crate::chain(&error),
                            hint = "Instructions wait in it meanwhile. Check that the queue exists and what the task's role may do with it.",
                            "the queue does not answer; it is asked again and again"
                        );
                    }
                    let pause = QUEUE_PAUSE * 2_u32.pow(unanswered.min(3));
                    unanswered = unanswered.saturating_add(1);
                    let last_look = now == Until::Empty
                        && (!error.is_transient() || unanswered >= LAST_LOOKS_MAX);
                    if last_look {
                        break;
                    }
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = self.lease.lost() => {}
                        () = tokio::time::sleep(pause.min(QUEUE_PAUSE_MAX)) => {}
                    }
                }
            }
        }
        if !self.lease.is_lost() {
            mailbox.close().await;
        }
        crate::crash_point!("ended");
        self.workshop
    }

    /// Shows what others pushed. What does not work now is tried again, between instructions, until it does.
    async fn take_in(&mut self, seen: Seen) {
        match self.workshop.seen().await {
            // It was ours, or came with an instruction. What was fetched by a try of ours that failed after that may not
            // be shown yet.
            Ok(before) if before == seen && !self.lookout.is_pending() => return,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "what the draft has seen could not be read; it is tried again");
                return self.lookout.not_taken_in();
            }
        }
        match self.workshop.take_in().await {
            Ok(moved) => tracing::info!(moved, "others have pushed"),
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "what others pushed could not be taken in; it is tried again");
                return self.lookout.not_taken_in();
            }
        }
        self.lookout.taken_in();
        self.publish_tip().await;
    }

    /// Brings what is published into a draft that has something of its own, by an instruction like any other: it may not fit, and
    /// it can be undone. What is looked at is the draft and not what the lookout saw: an instruction may have fetched it
    /// already, it may be from before this start, and what we have published ourselves since is not in what the lookout saw.
    async fn follow_published(&mut self) {
        if self.view.borrow().history.behind == 0 {
            return;
        }
        match self.workshop.seen().await.map(|seen| seen.published) {
            Ok(published) if published == self.followed => {}
            Ok(Some(published)) => self.ask_for_sync(published).await,
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "what the draft has seen could not be read");
            }
        }
    }

    /// Puts a sync into our own queue. Its id is made of what is published, so that it is asked for once.
    async fn ask_for_sync(&mut self, published: Oid) {
        let id = format!("follow-{}", &published.to_string()[..20]);
        let body = serde_json::json!({
            "version": contract::instruction::VERSION,
            "instructionId": id,
            "clientId": self.identity.client_id,
            "sessionId": self.identity.session_id,
            "submittedAt": Timestamp::now(),
            "action": { "type": "sync" },
        });
        let message = Outgoing {
            body: body.to_string(),
            group: self.identity.session_id.to_string(),
            deduplication_id: id,
            trace_parent: None,
        };
        match self.queue.send(&message).await {
            Ok(_) => self.followed = Some(published),
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "what was published elsewhere could not be asked for");
            }
        }
    }

    /// Sees what is changed by hand now.
    async fn look_at_hands(&mut self) {
        let suspects = self.hands.take();
        if self.examine(suspects).await {
            self.tell_of_draft();
        }
    }

    /// Returns whether other files than before are changed by hand.
    async fn examine(&mut self, suspects: Suspects) -> bool {
        let touched = match &suspects {
            Suspects::Paths(paths) => paths.clone(),
            // After a start, or when events were lost: nobody knows that anything was touched.
            Suspects::Everything => BTreeSet::new(),
        };
        match self.workshop.examine(suspects).await {
            Ok(uncommitted) => {
                let touched = uncommitted.iter().any(|path| touched.contains(path));
                let uncommitted: Vec<String> = uncommitted.into_iter().collect();
                self.view.send_if_modified(|view| {
                    let changed = view.uncommitted != uncommitted;
                    if changed || touched {
                        view.changed_by_hand = Some(Moment::now());
                    }
                    if changed {
                        tracing::info!(
                            files = uncommitted.len(),
                            "files are changed by hand in the workspace"
                        );
                    }
                    view.uncommitted = uncommitted;
                    changed
                })
            }
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "what is changed by hand could not be examined");
                false
            }
        }
    }

    fn tell_of_draft(&self) {
        let tip = self.view.borrow().tip.clone().unwrap_or_default();
        self.events.publish(Event::Draft { tip });
    }

    /// Carries out what a message says, and listens meanwhile for the wish not to.
    async fn handle(&mut self, letter: Letter, mailbox: &mut Mailbox) {
        let Letter {
            delivery,
            heartbeat,
        } = letter;
        let called_off = CancellationToken::new();
        let (view, identity) = (self.view.subscribe(), self.identity.clone());
        let verdict = {
            let trace_id = delivery
                .trace_parent
                .as_deref()
                .and_then(|trace| trace.split('-').nth(1));
            let span = tracing::info_span!(
                "instruction",
                instruction_id = tracing::field::Empty,
                trace_id,
                attempt = delivery.receive_count
            );
            let work = self
                .carry_out(&delivery, &heartbeat, &called_off)
                .instrument(span);
            tokio::pin!(work);
            loop {
                tokio::select! {
                    biased;
                    verdict = &mut work => break verdict,
                    letter = mailbox.overtaking() => {
                        let running = view.borrow().running.as_ref().map(|running| running.instruction_id.clone());
                        if cancel::is_meant(&letter.delivery, &identity, running.as_ref()) {
                            called_off.cancel();
                        }
                    }
                }
            }
        };
        // Joined before the message is deleted or released: a late extension would bring it back to life.
        let held = heartbeat.join().await;
        self.view.send_modify(|view| view.running = None);
        if self.lease.is_lost() {
            return;
        }
        let lease = match verdict {
            Verdict::Done => self.queue.delete(&delivery.handle).await,
            Verdict::Later(wait) => self.queue.extend(&delivery.handle, wait).await,
            Verdict::NotOurs => return,
        };
        match lease {
            Ok(Lease::Held) => {}
            Ok(Lease::Lost) => tracing::warn!(
                held,
                "the message went to somebody else meanwhile; what was done is recognised by its commit"
            ),
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "the queue could not be told; the message comes back and is recognised");
            }
        }
        self.publish_tip().await;
    }

    async fn carry_out(
        &mut self,
        delivery: &Delivery,
        heartbeat: &Heartbeat,
        called_off: &CancellationToken,
    ) -> Verdict {
        let begun = Instant::now();
        let hand = InHand {
            delivery,
            heartbeat,
        };
        let (instruction, landed) = match self.admit(hand).await {
            Ok(admitted) => admitted,
            Err(verdict) => return verdict,
        };
        self.kinds.remember(&instruction);
        if let Action::Cancel { instruction_id } = &instruction.action {
            return self.cancel(hand, &instruction, instruction_id).await;
        }
        self.attempts.begin(&instruction.instruction_id, begun);
        let mut receipt = self.begin(&instruction, delivery);
        let attempt = Attempt {
            instruction: &instruction,
            session_id: &self.identity.session_id,
            policy: &self.policy,
            content: &self.content,
            landed,
            heartbeat,
            lease: &self.lease,
            called_off,
            events: &self.events,
            view: &self.view,
            begun,
        };
        let outcome = attempt.run(&mut self.workshop, &mut receipt).await;
        receipt.timings.total_ms = Some(milliseconds(begun.elapsed()));
        match outcome {
            Outcome::Pushed => {
                receipt.status = Status::Pushed;
                self.answer(hand, receipt).await
            }
            Outcome::Published => {
                receipt.status = Status::Published;
                self.answer(hand, receipt).await
            }
            Outcome::Rejected(error) => {
                receipt.status = Status::Rejected;
                receipt.summary.clone_from(&error.message);
                receipt.error = Some(error);
                self.answer(hand, receipt).await
            }
            Outcome::LeaseLost => Verdict::NotOurs,
            Outcome::CalledOff => {
                receipt.status = Status::Cancelled;
                "It was called off before anything was changed.".clone_into(&mut receipt.summary);
                self.answer(hand, receipt).await
            }
            Outcome::Interrupted => Verdict::Later(Duration::ZERO),
            Outcome::Trouble(error) => self.be_patient(hand, receipt, error).await,
        }
    }

    /// What is to be carried out; or what becomes of the message if nothing is.
    async fn admit(
        &mut self,
        hand: InHand<'_>,
    ) -> Result<(Box<Instruction>, Option<CommitId>), Verdict> {
        // What has landed is asked of the draft, so it has to be open: also after its thread broke.
        if let Err(error) = self.workshop.settle().await {
            tracing::error!(error = %crate::chain(&error), "the draft cannot be worked on; the instruction waits");
            return Err(Verdict::Later(retry::pause(hand.delivery.receive_count)));
        }
        let message = admission::read(hand.delivery);
        if let Some(id) = message.instruction_id() {
            tracing::Span::current().record("instruction_id", id.as_str());
        }
        let stop = self.workshop.stop.clone();
        let existing = match message.instruction_id() {
            Some(id) => {
                let (receipts, session) = (&self.receipts, &self.identity.session_id);
                let found = insist(hand, &self.lease, &stop, || receipts.get(session, id));
                found.await?
            }
            None => None,
        };
        match message.admit(&self.identity, existing.as_ref(), &self.workshop) {
            Admission::Unreadable { why } => {
                // No id, so nobody could ask for a receipt.
                tracing::warn!(message_id = %hand.delivery.message_id, why, "a message without an instruction id was put with the dead letters");
                Err(self.bury(hand.delivery).await)
            }
            Admission::AlreadyAnswered(receipt) => {
                // Whoever answered it may have died before the client's own queue was told.
                self.results
                    .tell(&receipt, hand.delivery.trace_parent.as_deref())
                    .await;
                Err(Verdict::Done)
            }
            Admission::Refused {
                instruction_id,
                error,
                fingerprint,
            } => {
                let mut receipt = self.receipt(&instruction_id, hand.delivery, Status::Rejected);
                receipt.fingerprint = fingerprint;
                receipt.summary.clone_from(&error.message);
                receipt.error = Some(error);
                Err(self.answer(hand, receipt).await)
            }
            Admission::Admitted {
                instruction,
                landed,
            } => Ok((instruction, landed)),
        }
    }

    /// Says that an instruction is being carried out. Returns what its receipt begins as.
    fn begin(&self, instruction: &Instruction, delivery: &Delivery) -> Receipt {
        let mut receipt = self.receipt(&instruction.instruction_id, delivery, Status::Running);
        receipt.fingerprint = Some(instruction.fingerprint.clone());
        receipt.timings.queued_ms = Some(milliseconds(Timestamp::now().since(delivery.sent_at)));
        self.view.send_modify(|view| {
            view.progressed = Some(Instant::now());
            view.running = Some(Running {
                instruction_id: instruction.instruction_id.clone(),
                since: Timestamp::now(),
                attempt: delivery.receive_count,
            });
        });
        self.events.publish(Event::Progress {
            receipt: Box::new(receipt.clone()),
        });
        receipt
    }

    /// Something went wrong that may pass: try again a few times, then say that it failed.
    async fn be_patient(
        &mut self,
        hand: InHand<'_>,
        mut receipt: Receipt,
        error: ReceiptError,
    ) -> Verdict {
        tracing::warn!(instruction_id = %receipt.instruction_id, attempt = hand.delivery.receive_count, code = error.code.as_str(), why = %error.message, "an attempt failed");
        receipt.summary.clone_from(&error.message);
        receipt.error = Some(error);
        match self.attempts.judge(&receipt.instruction_id, Instant::now()) {
            Patience::TryAgain { .. } | Patience::GiveUp if !self.lease.may_act() => {
                Verdict::NotOurs
            }
            Patience::TryAgain { after } => {
                if let Err(error) = self.receipts.put(&receipt).await {
                    tracing::warn!(error = %crate::chain(&error), "the receipt could not be written; it is tried again");
                }
                self.events.publish(Event::Progress {
                    receipt: Box::new(receipt),
                });
                Verdict::Later(after)
            }
            Patience::GiveUp => {
                match self.workshop.give_up(receipt.instruction_id.clone()).await {
                    Ok(GivenUp::Landed(commit)) => {
                        return self
                            .answer_arrived(hand, receipt, Status::Pushed, commit)
                            .await;
                    }
                    Ok(GivenUp::Published(commit)) => {
                        return self
                            .answer_arrived(hand, receipt, Status::Published, commit)
                            .await;
                    }
                    Ok(GivenUp::TakenBack) => {}
                    Ok(GivenUp::Unknown) => {
                        if let Some(error) = &mut receipt.error {
                            error.message.push_str(" The remote could not be asked whether it has arrived all the same.");
                        }
                    }
                    Err(error) => {
                        tracing::error!(error = %crate::chain(&error), "the failed change could not be taken back; it waits");
                        return Verdict::Later(retry::pause(hand.delivery.receive_count));
                    }
                }
                receipt.status = Status::Failed;
                receipt.commit = None;
                let answered = self.answer(hand, receipt).await;
                if answered == Verdict::Done && self.bury(hand.delivery).await != Verdict::Done {
                    // Its producer has been told. Only for people who look there it is missing.
                    tracing::error!("a message that failed could not be put with the dead letters");
                }
                answered
            }
        }
    }

    /// What was given up is on the remote after all: only the answer to its push was lost.
    async fn answer_arrived(
        &mut self,
        hand: InHand<'_>,
        mut receipt: Receipt,
        status: Status,
        commit: CommitId,
    ) -> Verdict {
        match self.workshop.files_of(commit.clone()).await {
            Ok((summary, files)) => (receipt.summary, receipt.files_changed) = (summary, files),
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "what the commit changes could not be read");
                receipt.summary.clear();
            }
        }
        receipt.status = status;
        receipt.commit = Some(commit);
        receipt.error = None;
        self.answer(hand, receipt).await
    }

    /// Puts the message with the dead letters, for people to look at.
    async fn bury(&mut self, delivery: &Delivery) -> Verdict {
        let body: String = delivery.body.chars().take(MESSAGE_MAX_BYTES / 4).collect();
        let message = Outgoing {
            body,
            group: delivery.group.clone(),
            deduplication_id: delivery.message_id.clone(),
            trace_parent: delivery.trace_parent.clone(),
        };
        match self.dead.send(&message).await {
            Ok(_) => Verdict::Done,
            Err(error) => {
                tracing::error!(error = %crate::chain(&error), "the dead letters could not be reached; the message stays");
                Verdict::Later(retry::pause(delivery.receive_count))
            }
        }
    }

    /// Makes the final receipt durable, and only then lets the message go.
    async fn answer(&mut self, hand: InHand<'_>, mut receipt: Receipt) -> Verdict {
        receipt.updated_at = Timestamp::now();
        self.indoors.tidy(&mut receipt);
        if !self.lease.may_act() {
            // Who has the session by now answers it, by what is on the remote.
            return Verdict::NotOurs;
        }
        crate::crash_point!("before-receipt");
        let (receipts, stop) = (&self.receipts, self.workshop.stop.clone());
        let written = insist(hand, &self.lease, &stop, || receipts.put(&receipt));
        // What stands is what everybody is told, also if somebody else wrote it.
        let receipt = match written.await {
            Ok(Put::Written) => receipt,
            Ok(Put::FinalStands(standing)) => {
                tracing::warn!(
                    instruction_id = %receipt.instruction_id,
                    status = receipt.status.as_str(),
                    stands = standing.status.as_str(),
                    "the instruction has another final receipt already, which stands"
                );
                standing
            }
            Err(verdict) => return verdict,
        };
        tracing::info!(
            instruction_id = %receipt.instruction_id,
            status = receipt.status.as_str(),
            code = receipt.error.as_ref().map(|error| error.code.as_str()),
            commit = receipt.commit.as_ref().map(|commit| &commit.as_str()[..10]),
            total_ms = receipt.timings.total_ms,
            "an instruction has its receipt"
        );
        self.attempts.forget(&receipt.instruction_id);
        self.results
            .tell(&receipt, hand.delivery.trace_parent.as_deref())
            .await;
        self.events.publish(Event::Receipt {
            receipt: Box::new(receipt),
        });
        crate::crash_point!("before-delete");
        Verdict::Done
    }

    fn receipt(
        &self,
        instruction_id: &InstructionId,
        delivery: &Delivery,
        status: Status,
    ) -> Receipt {
        Receipt {
            session_id: self.identity.session_id.clone(),
            instruction_id: instruction_id.clone(),
            client_id: self.identity.client_id.clone(),
            status,
            attempts: delivery.receive_count,
            commit: None,
            branch: self.identity.branch.clone(),
            files_changed: Vec::new(),
            summary: String::new(),
            pages: Vec::new(),
            verdict: None,
            error: None,
            timings: Timings::default(),
            preview_url: self.identity.preview_url.clone(),
            accepted_at: delivery.sent_at,
            updated_at: Timestamp::now(),
            fingerprint: None,
        }
    }

    async fn publish_tip(&mut self) {
        // The draft may have moved under what is changed by hand, or have taken it in.
        let other_hands = self.examine(Suspects::default()).await;
        let read = async {
            let (tip, unpushed) = self.workshop.summary().await?;
            Ok::<_, WorkshopError>((tip, unpushed, self.workshop.history().await?))
        };
        match read.await {
            Ok((tip, unpushed, history)) => {
                let changed = self.view.send_if_modified(|view| {
                    let tip = Some(tip.to_string());
                    let changed = other_hands || view.tip != tip || *view.history != history;
                    view.tip = tip;
                    view.unpushed = unpushed;
                    view.history = Arc::new(history);
                    changed
                });
                if changed {
                    self.tell_of_draft();
                }
            }
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "the draft could not be read");
            }
        }
        self.follow_published().await;
    }
}

/// A message that is ours, and what keeps it so.
#[derive(Debug, Clone, Copy)]
struct InHand<'a> {
    delivery: &'a Delivery,
    heartbeat: &'a Heartbeat,
}

/// Asks a port until it answers. A port that does not answer says nothing about the instruction, whose deliveries are counted: so
/// the message is kept meanwhile. What it comes to if message or session are not ours any more, or if we are to stop.
async fn insist<T, F: Future<Output = platform::Result<T>>>(
    hand: InHand<'_>,
    lease: &SessionLease,
    stop: &CancellationToken,
    ask: impl Fn() -> F,
) -> Result<T, Verdict> {
    let mut pause = PORT_PAUSE;
    let mut is_said = false;
    loop {
        match ask().await {
            Ok(answer) => {
                if is_said {
                    tracing::info!("the receipts answer again");
                }
                return Ok(answer);
            }
            // Said once, however long it lasts.
            Err(error) if !is_said => {
                is_said = true;
                tracing::error!(
                    error = %crate::chain(&error),
                    hint = "Nothing is lost meanwhile. Check the table of the receipts and what the task's role may do with it.",
                    "the receipts do not answer; the instruction waits"
                );
            }
            Err(error) => {
                tracing::debug!(error = %crate::chain(&error), "the receipts do not answer");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Err(Verdict::Later(Duration::ZERO)),
            () = lease.lost() => return Err(Verdict::NotOurs),
            () = tokio::time::sleep(pause) => {}
        }
        if !hand.heartbeat.held() {
            return Err(Verdict::NotOurs);
        }
        pause = (pause * 2).min(PORT_PAUSE_MAX);
    }
}

/// What becomes of the message.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is answered: delete it.
    Done,
    /// It is not: it comes back after this time.
    Later(Duration),
    /// It is somebody else's by now: leave it alone.
    NotOurs,
}

/// An error for a receipt, with the hint that belongs to its code.
fn receipt_error(code: ErrorCode, message: impl Into<String>) -> ReceiptError {
    ReceiptError {
        code,
        message: message.into(),
        hint: code.hint().to_owned(),
        details: Vec::new(),
        conflicts: Vec::new(),
        problem: None,
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
