//! Puts right what nobody else does: what was left by a router, a task or a machine that died, and what nobody comes back for.
//!
//! ```text
//!   tasks that run ──▶ session? ──▶ gone, asleep, failed, another generation, no lease ─────────▶ stopped
//!   sessions of a ───▶ judged ────▶ waking and cannot become ready, or served and is gone ──────▶ failed, with the reason
//!   client                     ├──▶ asleep, and an instruction waits ───────────────────────────▶ woken
//!                              └──▶ not woken for weeks ──▶ record removed ──▶ queue emptied ───▶ removed
//!   queues ──────────▶ session? ──▶ gone, as in the sweep before ─────────────▶ queue emptied ──▶ removed
//!   dead letters ────▶ answered? ─▶ not yet: `failed` ──▶ filed where nobody looks again but people
//! ```
//!
//! Every action is decided by a pure function ([`judge`], [`stray`]), done by a write that is conditional on what was judged, and
//! logged with its reason. So two sweeps at once do no harm, and one that dies is made good by the next.
//!
//! **Why the record goes before the queue.** Whoever hands an instruction on looks at the record after it ([`crate::intake`]). So
//! either the emptying sees the message and answers it, or the sender sees that the session is gone. The other way round, a
//! message that came between the last look at the queue and its removal would be lost without a word.
//!
//! **Why dead letters are filed.** A FIFO queue gives one message of a group at a time, and what is left there for people would
//! hide everything of its group behind it. So what was answered goes to the end of one group of its own, whose first message is
//! enough to know that it was reached.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contract::client_config::ClientStatus;
use contract::{
    ClientConfig, ClientId, ErrorCode, Generation, Instruction, InstructionId, Session, SessionId,
    Status, Timestamp,
};
use futures_util::stream;
use futures_util::{FutureExt as _, StreamExt as _};
use platform::{
    Clients, Delivery, Instructions, Launcher, PortError, Queues, Receipts, Removed, SessionQueue,
    Sessions, Task,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::answer::{self, Addressee, Answers};
use crate::intake::{DEAD_GROUP, is_of, session_expired};
use crate::metrics::Metrics;
use crate::wake::{self, Waker, Woken};
use telemetry::chain;

mod judgement;

pub use judgement::{Action, judge, stray};

/// How often it sweeps: an instruction for a session that has just fallen asleep waits so long at most.
pub const EVERY: Duration = Duration::from_secs(60);

/// How long one run takes at most before it stops beginning anything: less than [`EVERY`], and than a Lambda may run.
const RUN_TIME: Duration = Duration::from_secs(45);
/// Sessions that are looked at in one run. The next one goes on with the client after the last.
const SESSIONS_MAX: usize = 2000;
/// Tasks that are looked at in one run: more than any account may run of Fargate by default.
const TASKS_MAX: usize = 2000;
/// Queues whose session is looked for in one run; the next one goes on after the last.
const QUEUES_MAX: usize = 500;
/// Queues that are removed in one run. More at once is a router that was told the wrong table, which somebody should have time to
/// notice.
const QUEUES_REMOVED_MAX: usize = 20;
/// Messages that one queue is emptied of in one run. What is left waits for the next.
const MESSAGES_MAX: usize = 1000;
/// Dead letters that are looked at in one run.
const DEAD_LETTERS_MAX: usize = 200;
/// Requests at once: the sweep is in nobody's way.
const AT_ONCE: usize = 8;

/// How long a look into a queue waits: long enough that SQS asks all of its servers, which it does not for one that does not
/// wait.
const LOOK: Duration = Duration::from_secs(1);
/// How long a message is kept that is being answered.
const VISIBILITY: Duration = Duration::from_secs(60);
/// How long a queue has to be without a session before it is removed: one that is being made is without for some seconds.
const ORPHAN_GRACE: Duration = Duration::from_secs(30);

/// How long the part of a session's id is that is random.
const MADE_LABEL_LENGTH: usize = 26;

/// The group of dead letters that were looked at.
const FILED_GROUP: &str = "filed";

/// Sweeps. Cheap to clone; the clones share what they remember.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// The clients.
    pub clients: Arc<dyn Clients>,
    /// Their sessions.
    pub sessions: Arc<dyn Sessions>,
    /// The queues of sessions.
    pub queues: Arc<dyn Queues>,
    /// What became of instructions.
    pub receipts: Arc<dyn Receipts>,
    /// What runs.
    pub launcher: Arc<dyn Launcher>,
    /// Wakes.
    pub waker: Waker,
    /// The dead letters.
    pub dead: Arc<dyn Instructions>,
    /// What is remembered from one run to the next.
    pub memory: Memory,
    /// What is counted.
    pub metrics: Metrics,
}

/// What a sweep remembers. It may be forgotten: then the next run begins at the first client, and a queue without a session is
/// kept for one run longer.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Mutex<Remembered>>);

#[derive(Debug, Default)]
struct Remembered {
    /// The client after which the next run begins.
    client: Option<ClientId>,
    /// The queue after which the next run begins.
    queue: Option<SessionId>,
    /// Queues without a session, and since when.
    orphans: BTreeMap<SessionId, Timestamp>,
}

/// What one run did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Tasks that were stopped.
    pub stopped: usize,
    /// Sessions that were failed.
    pub failed: usize,
    /// Sessions that were launched again.
    pub launched_again: usize,
    /// Sessions that were woken.
    pub woken: usize,
    /// Sessions that were ended.
    pub ended: usize,
    /// Queues that were removed.
    pub queues_removed: usize,
    /// Instructions that were answered because nobody else could.
    pub answered: usize,
    /// What did not answer. Everything else was swept all the same.
    pub errors: usize,
}

impl Report {
    fn add(&mut self, other: &Self) {
        self.stopped += other.stopped;
        self.failed += other.failed;
        self.launched_again += other.launched_again;
        self.woken += other.woken;
        self.ended += other.ended;
        self.queues_removed += other.queues_removed;
        self.answered += other.answered;
        self.errors += other.errors;
    }

    fn error(&mut self, what: &str, error: &PortError) {
        self.errors += 1;
        tracing::warn!(error = %chain(error), "the sweep could not {what}");
    }
}

/// The tasks that run, as the launcher said at the beginning.
#[derive(Default)]
struct Running {
    /// By what they are of; none where nobody could say.
    tasks: Option<HashMap<(SessionId, Generation), Task>>,
    /// Those that were stopped since.
    stopped: HashSet<String>,
}

impl Sweep {
    /// Sweeps every `interval` until `stop`.
    pub async fn run(self, interval: Duration, stop: CancellationToken) {
        loop {
            tokio::select! {
                // What is being swept may be left at any point.
                () = stop.cancelled() => return,
                report = self.once(Timestamp::now()) => {
                    if report != Report::default() {
                        tracing::info!(?report, "swept");
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
        }
    }

    /// Sweeps once.
    pub async fn once(&self, now: Timestamp) -> Report {
        let began = Instant::now();
        let mut report = Report::default();
        let running = self.sweep_tasks(now, &mut report).await;
        let known = self.sweep_clients(&running, now, began, &mut report).await;
        self.sweep_queues(&known, now, began, &mut report).await;
        self.sweep_dead_letters(now, began, &mut report).await;
        report
    }

    async fn sweep_tasks(&self, now: Timestamp, report: &mut Report) -> Running {
        let tasks = match self.launcher.running().await {
            Ok(tasks) => tasks,
            Err(error) => {
                report.error("ask which tasks run", &error);
                return Running::default();
            }
        };
        let sweeping: Vec<_> = tasks
            .iter()
            .take(TASKS_MAX)
            .map(|task| {
                async move { (self.sweep_task(task, now).await, task.name.clone()) }.boxed()
            })
            .collect();
        let mut swept = stream::iter(sweeping).buffer_unordered(AT_ONCE);
        let mut stopped = HashSet::new();
        while let Some((one, task)) = swept.next().await {
            if one.stopped > 0 {
                stopped.insert(task);
            }
            report.add(&one);
        }
        drop(swept);
        let key = |task: Task| ((task.session.clone(), task.generation), task);
        Running {
            tasks: Some(tasks.into_iter().map(key).collect()),
            stopped,
        }
    }

    async fn sweep_task(&self, task: &Task, now: Timestamp) -> Report {
        let mut report = Report::default();
        // The one that is never stale.
        match self.sessions.get(&task.session).await {
            Ok(session) => {
                if let Some(why) = stray(task, session.as_ref(), now) {
                    self.stop(&task.name, &task.session, why, &mut report).await;
                }
            }
            Err(error) => report.error("look at the session of a task", &error),
        }
        report
    }

    /// Sweeps the sessions of all clients, or of as many as there is time for. Returns the sessions that it saw.
    async fn sweep_clients(
        &self,
        running: &Running,
        now: Timestamp,
        began: Instant,
        report: &mut Report,
    ) -> BTreeSet<SessionId> {
        let mut known = BTreeSet::new();
        let clients = match self.clients.list().await {
            Ok(clients) => clients,
            Err(error) => {
                report.error("list the clients", &error);
                return known;
            }
        };
        let last = self.remembered(|memory| memory.client.take());
        for client in from(clients, |client| {
            last.as_ref().is_some_and(|last| client > last)
        }) {
            if known.len() >= SESSIONS_MAX || began.elapsed() >= RUN_TIME {
                break;
            }
            self.remembered(|memory| memory.client = Some(client.clone()));
            let (config, sessions) = match self.of_client(&client).await {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(error) => {
                    report.error("look at the sessions of a client", &error);
                    continue;
                }
            };
            let live = sessions
                .iter()
                .filter(|session| wake::is_awake(session, now))
                .count();
            self.metrics
                .live(&client, u32::try_from(live).unwrap_or(u32::MAX));
            let sweeping: Vec<_> = sessions
                .iter()
                .map(|session| {
                    self.sweep_session(&config, session, running, now, began)
                        .boxed()
                })
                .collect();
            let swept = stream::iter(sweeping).buffer_unordered(AT_ONCE);
            add_all(report, swept).await;
            known.extend(sessions.into_iter().map(|session| session.session_id));
        }
        known
    }

    async fn of_client(
        &self,
        client: &ClientId,
    ) -> Result<Option<(ClientConfig, Vec<Session>)>, PortError> {
        let Some(config) = self.clients.get(client).await? else {
            return Ok(None);
        };
        Ok(Some((config, self.sessions.list(client).await?)))
    }

    async fn sweep_session(
        &self,
        config: &ClientConfig,
        session: &Session,
        running: &Running,
        now: Timestamp,
        began: Instant,
    ) -> Report {
        let mut report = Report::default();
        let task = self.task(session, running, &mut report).await;
        let mut actions = judge(session, task.as_ref(), now);
        // A list may be older than what it lists. What cannot be taken back is judged by the record itself.
        let fresh = if actions
            .iter()
            .all(|action| matches!(action, Action::WakeIfAwaited { .. }))
        {
            None
        } else {
            match self.sessions.get(&session.session_id).await {
                Ok(Some(fresh)) => {
                    actions = judge(&fresh, task.as_ref(), now);
                    Some(fresh)
                }
                Ok(None) => return report,
                Err(error) => {
                    report.error("look at a session", &error);
                    return report;
                }
            }
        };
        let session = fresh.as_ref().unwrap_or(session);
        for action in actions {
            if began.elapsed() >= RUN_TIME {
                break;
            }
            if matches!(&action, Action::Stop { task, .. } if running.stopped.contains(task)) {
                continue;
            }
            match self
                .act(config, session, action, task.as_ref(), now, &mut report)
                .await
            {
                Ok(Done::GoOn) => {}
                Ok(Done::Overtaken) => break,
                Err(error) => report.error("put a session right", &error),
            }
        }
        report
    }

    /// The task of a session that should have one: of those that run, or, if it is not among them, as it ended.
    async fn task(
        &self,
        session: &Session,
        running: &Running,
        report: &mut Report,
    ) -> Option<Task> {
        use contract::session::State::{Draining, Ready, Waking};
        if !matches!(session.state, Waking | Ready | Draining) {
            return None;
        }
        let key = (session.session_id.clone(), session.generation);
        if let Some(task) = running.tasks.as_ref()?.get(&key) {
            return Some(task.clone());
        }
        match self.launcher.task(&key.0, key.1).await {
            Ok(task) => task,
            Err(error) => {
                report.error("look at a task", &error);
                None
            }
        }
    }

    async fn act(
        &self,
        config: &ClientConfig,
        session: &Session,
        action: Action,
        task: Option<&Task>,
        now: Timestamp,
        report: &mut Report,
    ) -> Result<Done, PortError> {
        let (client, id) = (&config.client_id, session.session_id.redacted());
        match action {
            Action::Stop { task, why } => self.stop(&task, &session.session_id, why, report).await,
            Action::Fail { failure, why } => {
                wake::note_if_stopped(task);
                let code = failure.code.clone();
                if self.waker.fail(session, failure, now).await.is_none() {
                    return Ok(Done::Overtaken);
                }
                report.failed += 1;
                tracing::info!(%client, session = id, action = "fail", code, why, "swept");
            }
            Action::LaunchAgain { why } => {
                report.launched_again += 1;
                tracing::info!(%client, session = id, action = "launch again", why, "swept");
                if self.waker.look_after(config, session, now).await.is_some() {
                    report.failed += 1;
                }
            }
            Action::WakeIfAwaited { why } => {
                self.wake_if_awaited(config, session, why, now, report)
                    .await?;
            }
            Action::End { why } => {
                if self.sessions.remove(session).await? == Removed::Used {
                    return Ok(Done::Overtaken);
                }
                report.ended += 1;
                tracing::info!(%client, session = id, action = "end", why, "swept");
                if !session.queue_url.is_empty() {
                    let results = config.results_queue_url.as_deref();
                    let of = Ended::Session(Addressee::of(session));
                    self.empty(&of, &session.queue_url, results, now, report)
                        .await?;
                }
            }
        }
        Ok(Done::GoOn)
    }

    async fn wake_if_awaited(
        &self,
        config: &ClientConfig,
        session: &Session,
        why: &'static str,
        now: Timestamp,
        report: &mut Report,
    ) -> Result<(), PortError> {
        // Nobody has to be asked how much waits for a client that may not.
        if config.status == ClientStatus::Suspended || session.queue_url.is_empty() {
            return Ok(());
        }
        if self.queues.open(&session.queue_url).depth().await?.waiting == 0 {
            return Ok(());
        }
        let woken = self
            .waker
            .wake(config, &session.session_id, session.generation, now);
        let woken = woken.await;
        if matches!(woken, Woken::Begun(_)) {
            report.woken += 1;
        }
        let (client, id) = (&config.client_id, session.session_id.redacted());
        tracing::info!(%client, session = id, action = "wake", became = woken.as_str(), why, "swept");
        Ok(())
    }

    async fn stop(&self, task: &str, session: &SessionId, why: &'static str, report: &mut Report) {
        match self.launcher.stop(task, why).await {
            Ok(()) => {
                report.stopped += 1;
                tracing::info!(
                    session = session.redacted(),
                    task,
                    action = "stop",
                    why,
                    "swept"
                );
            }
            Err(error) => report.error("stop a task", &error),
        }
    }

    /// Removes queues whose session is gone, once that was seen twice.
    async fn sweep_queues(
        &self,
        known: &BTreeSet<SessionId>,
        now: Timestamp,
        began: Instant,
        report: &mut Report,
    ) {
        let mut queues = match self.queues.list().await {
            Ok(queues) => queues,
            Err(error) => return report.error("list the queues", &error),
        };
        queues.sort_by(|one, other| one.session.cmp(&other.session));
        let there: BTreeSet<&SessionId> = queues.iter().map(|queue| &queue.session).collect();
        self.remembered(|memory| memory.orphans.retain(|id, _| there.contains(id)));
        queues.retain(|queue| !known.contains(&queue.session));
        let last = self.remembered(|memory| memory.queue.take());
        let is_next =
            |queue: &SessionQueue| last.as_ref().is_some_and(|last| queue.session > *last);
        for queue in from(queues, is_next).into_iter().take(QUEUES_MAX) {
            let is_enough = report.queues_removed >= QUEUES_REMOVED_MAX;
            if is_enough || began.elapsed() >= RUN_TIME {
                break;
            }
            self.remembered(|memory| memory.queue = Some(queue.session.clone()));
            if let Err(error) = self.sweep_queue(&queue, now, report).await {
                report.error("put a queue right", &error);
            }
        }
    }

    async fn sweep_queue(
        &self,
        queue: &SessionQueue,
        now: Timestamp,
        report: &mut Report,
    ) -> Result<(), PortError> {
        let id = &queue.session;
        if self.sessions.get(id).await?.is_some() {
            self.remembered(|memory| memory.orphans.remove(id));
            return Ok(());
        }
        let since = self.remembered(|memory| *memory.orphans.entry(id.clone()).or_insert(now));
        if now.since(since) < ORPHAN_GRACE {
            return Ok(());
        }
        let Some(client) = made_for(id) else {
            return Ok(());
        };
        let Some(config) = self.clients.get(&client).await? else {
            return Ok(());
        };
        // Another deployment of the same account has queues of the same names.
        if !self.queues.is_ours(&queue.address).await? {
            return Ok(());
        }
        tracing::info!(
            %client,
            session = id.redacted(),
            action = "remove queue",
            why = "its session is gone",
            "swept"
        );
        let results = config.results_queue_url.as_deref();
        let of = Ended::Queue(id.clone(), client);
        self.empty(&of, &queue.address, results, now, report).await
    }

    /// Answers everything that waits in the queue of a session that has ended, and removes the queue when nothing is left.
    async fn empty(
        &self,
        of: &Ended,
        address: &str,
        results: Option<&str>,
        now: Timestamp,
        report: &mut Report,
    ) -> Result<(), PortError> {
        let queue = self.queues.open(address);
        for _ in 0..MESSAGES_MAX {
            let Some(delivery) = queue.receive(LOOK, VISIBILITY).await? else {
                break;
            };
            self.expire(of, &delivery, results, now, report).await?;
            // If it comes again, it is answered already.
            if queue.delete(&delivery.handle).await? == platform::Lease::Lost {
                tracing::warn!(
                    "a message of a session that has ended took too long, and comes again"
                );
            }
        }
        let depth = queue.depth().await?;
        if depth.waiting == 0 && depth.in_flight == 0 {
            self.queues.remove(address).await?;
            report.queues_removed += 1;
        }
        // Otherwise it is a queue without a session, for the next run.
        Ok(())
    }

    async fn expire(
        &self,
        of: &Ended,
        delivery: &Delivery,
        results: Option<&str>,
        now: Timestamp,
        report: &mut Report,
    ) -> Result<(), PortError> {
        let letter = Letter::read(&delivery.body);
        let addressee = match of {
            Ended::Session(addressee) => addressee.clone(),
            Ended::Queue(id, client) => {
                let instruction = letter.instruction.as_deref();
                Addressee::gone(id.clone(), client.clone(), instruction)
            }
        };
        let Some(instruction_id) = letter.id.clone() else {
            let (group, id) = (delivery.group.as_str(), delivery.message_id.as_str());
            let trace = delivery.trace_parent.as_deref();
            answer::bury(self.dead.as_ref(), group, id, &delivery.body, trace).await?;
            tracing::warn!(
                message_id = id,
                "a message that nobody can be answered was put with the dead letters"
            );
            return Ok(());
        };
        let fingerprint = letter
            .instruction
            .as_ref()
            .map(|known| known.fingerprint.clone());
        let fresh = addressee.receipt(
            instruction_id,
            Status::Failed,
            fingerprint,
            delivery.sent_at,
            now,
        );
        self.answer(fresh, session_expired(), results, delivery, report)
            .await
    }

    /// Gives the receipt that stands so far its last word, unless it has one.
    async fn answer(
        &self,
        fresh: contract::Receipt,
        error: contract::ReceiptError,
        results: Option<&str>,
        delivery: &Delivery,
        report: &mut Report,
    ) -> Result<(), PortError> {
        let standing = self
            .receipts
            .get(&fresh.session_id, &fresh.instruction_id)
            .await?;
        let receipt = match standing {
            Some(standing) if standing.status.is_final() => return Ok(()),
            Some(standing) => contract::Receipt {
                status: fresh.status,
                commit: None,
                updated_at: fresh.updated_at,
                ..standing
            },
            None => fresh,
        };
        let answers = Answers {
            receipts: Arc::clone(&self.receipts),
            queues: Arc::clone(&self.queues),
        };
        let (client, session, instruction_id) = (
            receipt.client_id.clone(),
            receipt.session_id.clone(),
            receipt.instruction_id.clone(),
        );
        let code = error.code.as_str();
        let trace = delivery.trace_parent.as_deref();
        if answers.give(receipt, error, results, trace).await? {
            report.answered += 1;
            tracing::info!(%client, session = session.redacted(), %instruction_id, action = "answer", code, why = "nobody else can", "swept");
        }
        Ok(())
    }

    /// Answers what was put with the dead letters by the queues themselves, and files what was looked at.
    async fn sweep_dead_letters(&self, now: Timestamp, began: Instant, report: &mut Report) {
        // Held until the end, so that what is behind them comes.
        let mut held = Vec::new();
        for _ in 0..DEAD_LETTERS_MAX {
            if began.elapsed() >= RUN_TIME {
                break;
            }
            let delivery = match self.dead.receive(LOOK, VISIBILITY).await {
                Ok(Some(delivery)) => delivery,
                Ok(None) => break,
                Err(error) => {
                    report.error("look at the dead letters", &error);
                    break;
                }
            };
            let is_answered = matches!(delivery.group.as_str(), FILED_GROUP | DEAD_GROUP);
            let filed = if is_answered {
                Ok(false)
            } else {
                self.file(&delivery, now, report).await.map(|()| true)
            };
            match filed {
                Ok(true) => {}
                Ok(false) => held.push(delivery.handle),
                Err(error) => {
                    report.error("answer a dead letter", &error);
                    held.push(delivery.handle);
                }
            }
        }
        for handle in held {
            if let Err(error) = self.dead.extend(&handle, Duration::ZERO).await {
                report.error("release a dead letter", &error);
            }
        }
    }

    /// Answers a dead letter, if nobody has, and puts it where it hides no other.
    async fn file(
        &self,
        delivery: &Delivery,
        now: Timestamp,
        report: &mut Report,
    ) -> Result<(), PortError> {
        let letter = Letter::read(&delivery.body);
        if let (Some(instruction), Some(instruction_id)) = (&letter.instruction, letter.id.clone())
        {
            match self.addressee(instruction, &delivery.group).await? {
                Some(addressee) => {
                    let fingerprint = Some(instruction.fingerprint.clone());
                    let fresh = addressee.receipt(
                        instruction_id,
                        Status::Failed,
                        fingerprint,
                        delivery.sent_at,
                        now,
                    );
                    let config = self.clients.get(&instruction.client_id).await?;
                    let results = config.and_then(|config| config.results_queue_url);
                    self.answer(fresh, never_ended(), results.as_deref(), delivery, report)
                        .await?;
                }
                None => {
                    tracing::error!(client = %instruction.client_id, %instruction_id, message_id = delivery.message_id, "an instruction that came to no session is with the dead letters: nobody can ask for its receipt");
                }
            }
        }
        let (id, trace) = (
            delivery.message_id.as_str(),
            delivery.trace_parent.as_deref(),
        );
        answer::bury(self.dead.as_ref(), FILED_GROUP, id, &delivery.body, trace).await?;
        if self.dead.delete(&delivery.handle).await? == platform::Lease::Lost {
            tracing::warn!("a dead letter took too long, and is there twice");
        }
        Ok(())
    }

    /// The session of a dead letter: in a session's queue, its group says it; in the intake, the instruction.
    async fn addressee(
        &self,
        instruction: &Instruction,
        group: &str,
    ) -> Result<Option<Addressee>, PortError> {
        let client = &instruction.client_id;
        let of_group: Option<SessionId> = group.parse().ok();
        let mut candidates: Vec<SessionId> = of_group.iter().cloned().collect();
        candidates.extend(instruction.session_id.clone());
        if let Some(thread) = &instruction.thread_id {
            candidates.extend(self.sessions.find(client, thread).await?);
        }
        for id in candidates {
            if let Some(session) = self.sessions.get(&id).await?
                && session.client_id == *client
            {
                return Ok(Some(Addressee::of(&session)));
            }
        }
        // It is gone. A producer's own name for a group can look like an id, but not like one that was made.
        let made = of_group.filter(|id| id.label().len() == MADE_LABEL_LENGTH);
        let gone = instruction.session_id.clone().into_iter().chain(made);
        for id in gone.filter(|id| is_of(id, client)) {
            if self.sessions.get(&id).await?.is_none() {
                return Ok(Some(Addressee::gone(id, client.clone(), Some(instruction))));
            }
        }
        Ok(None)
    }

    fn remembered<T>(&self, with: impl FnOnce(&mut Remembered) -> T) -> T {
        with(&mut self.memory.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How far an action came.
enum Done {
    /// It is done.
    GoOn,
    /// The session has gone on meanwhile: what else was decided about it is decided anew by the next run.
    Overtaken,
}

/// Whose queue is emptied.
enum Ended {
    /// A session whose record was there a moment ago.
    Session(Addressee),
    /// A session of which there is only the queue, and the client for whom it was made.
    Queue(SessionId, ClientId),
}

/// A message, as far as it can be read.
struct Letter {
    id: Option<InstructionId>,
    instruction: Option<Box<Instruction>>,
}

impl Letter {
    fn read(body: &str) -> Self {
        match Instruction::parse(body.as_bytes()) {
            Ok(instruction) => Self {
                id: Some(instruction.instruction_id.clone()),
                instruction: Some(Box::new(instruction)),
            },
            Err(refusal) => Self {
                id: refusal.instruction_id,
                instruction: None,
            },
        }
    }
}

fn never_ended() -> contract::ReceiptError {
    answer::error(
        ErrorCode::Internal,
        "It was begun again and again and never came to an end. Parts of it may be in the draft.",
    )
}

/// The client for whom a session's id was made.
fn made_for(session: &SessionId) -> Option<ClientId> {
    session.as_str().split_once('_')?.0.parse().ok()
}

/// The same things, beginning with the first that `is_next`, and going on with the rest: so that all get their turn.
fn from<T>(mut things: Vec<T>, is_next: impl Fn(&T) -> bool) -> Vec<T> {
    let start = things.iter().position(is_next).unwrap_or(0);
    things.rotate_left(start);
    things
}

async fn add_all(report: &mut Report, swept: impl stream::Stream<Item = Report>) {
    let mut swept = std::pin::pin!(swept);
    while let Some(one) = swept.next().await {
        report.add(&one);
    }
}
