//! Wakes a session: once, whoever asks and however many do.
//!
//! ```text
//!  visitors ─┐                              refused: it is awake already, or its client has no slot left
//!  messages ─┼─▶ one flight a session ─▶ Wake (one transaction) ─▶ launch (again, for a while) ─▶ Begun
//!  sweep    ─┘   in this process            one wins of all           │ idempotent by session and generation
//!                                           routers                   └─▶ Fail, with the reason ─▶ Failed
//! ```
//!
//! The transaction is what makes it single: it is taken once a generation, by one router, and only that router launches. The
//! flights of this process are there so that a thousand visitors at once cost one transaction and not a thousand. A flight
//! goes on when whoever asked goes away, or an order would be lost with a closed tab.
//!
//! What a router that dies leaves behind (a session that wakes, and no task) is put right by [`Waker::look_after`], which every
//! router does whose visitor waits, and the sweep: the same order is given again, and of one generation there are never two
//! tasks. A wake ends in any case: in a site that answers, or in a failure that says why.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contract::id::hex;
use contract::session::{Failure, ProofKey, State, Transition};
use contract::{ClientConfig, Generation, Session, SessionId, Timestamp};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use platform::{
    LaunchFailed, Launcher, Order, PortError, Sessions, Task, TaskState, TransitionFailed,
};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use telemetry::chain;

mod failure;
mod standing;

pub use failure::environment_lost;
pub use standing::{Step, again_at, estimate, is_awake, judge_waking};

use standing::{Standing, standing};
pub(crate) use standing::{again_for_news_at, has_stopped};

/// How long a task of ECS has to claim its session after the wake: a machine, an address and an image of some 900 MB take 30
/// to 90 seconds, and two or three times that where a region is busy.
pub const CLAIMED_WITHIN_ON_ECS: Duration = Duration::from_secs(4 * 60);
/// The same for a process of this machine, which has nothing to fetch first. Ten times what a busy laptop takes.
pub const CLAIMED_WITHIN_HERE: Duration = Duration::from_secs(30);

/// How long a launch is tried: who has pressed the button sees the page until then, and after it what went wrong.
const LAUNCH_TIME: Duration = Duration::from_secs(8);
/// The pause after the first launch that was not taken; doubled each time up to [`PAUSE_MAX`], and shortened by up to a half at
/// random, so that those whom ECS has turned away together do not come back together.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How often one waking session is looked after, however many visitors wait for it.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// How many waking sessions are remembered for that. Beyond it, some are looked after more often than they need.
const LOOKED_MAX: usize = 4096;

/// Wakes sessions. Cheap to clone.
#[derive(Clone)]
pub struct Waker(Arc<Inner>);

struct Inner {
    sessions: Arc<dyn Sessions>,
    launcher: Arc<dyn Launcher>,
    claimed_within: Duration,
    flights: Mutex<HashMap<(SessionId, Generation), Flight>>,
    looked: Mutex<HashMap<(SessionId, Generation), Timestamp>>,
    tasks: TaskTracker,
}

type Flight = Shared<BoxFuture<'static, Woken>>;

/// What became of a wake.
#[derive(Debug, Clone)]
pub enum Woken {
    /// It was woken now, and its environment is on its way.
    Begun(Session),
    /// Somebody has woken it already.
    Going(Session),
    /// Somebody has woken it already, and its site answers.
    Ready(Session),
    /// The environment that was seen still has its lease: until then, and for as long as it renews it, nobody may wake another.
    Held {
        /// Until when.
        until: Timestamp,
    },
    /// All environments of the client are in use.
    Full {
        /// How many it may have.
        limit: u32,
    },
    /// The client may not have environments.
    Suspended,
    /// The client has no such session.
    NoSession,
    /// It was woken and could not be launched. The record says why, and [`again_at`] when it may be tried again by itself.
    Failed(Session),
    /// The sessions could not be asked. Nothing is known.
    Unavailable(Arc<PortError>),
}

impl Woken {
    /// The word for it in a log and in a metric.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Begun(_) => "begun",
            Self::Going(_) => "going",
            Self::Ready(_) => "ready",
            Self::Held { .. } => "held",
            Self::Full { .. } => "full",
            Self::Suspended => "suspended",
            Self::NoSession => "no_session",
            Self::Failed(_) => "failed",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

impl Waker {
    /// Wakes by these sessions and this launcher. A task has `claimed_within` to take its session
    /// ([`CLAIMED_WITHIN_ON_ECS`], [`CLAIMED_WITHIN_HERE`]).
    pub fn new(
        sessions: Arc<dyn Sessions>,
        launcher: Arc<dyn Launcher>,
        claimed_within: Duration,
    ) -> Self {
        Self(Arc::new(Inner {
            sessions,
            launcher,
            claimed_within,
            flights: Mutex::default(),
            looked: Mutex::default(),
            tasks: TaskTracker::new(),
        }))
    }

    /// Wakes a session of a client, unless it is awake. `seen` is the generation that the caller saw it in: by it is told
    /// whether an environment that serves is the one that the caller had no luck with, or a newer one.
    ///
    /// Of all who ask at once, one is told [`Woken::Begun`]. Takes at most some ten seconds beside what the sessions take to
    /// answer.
    pub async fn wake(
        &self,
        config: &ClientConfig,
        session: &SessionId,
        seen: Generation,
        now: Timestamp,
    ) -> Woken {
        if config.status == contract::client_config::ClientStatus::Suspended {
            return Woken::Suspended;
        }
        let key = (session.clone(), seen);
        let (flight, is_ours) = {
            let mut flights = lock(&self.0.flights);
            // One that has landed says how things stood then.
            match flights.get(&key).filter(|flight| flight.peek().is_none()) {
                Some(flight) => (flight.clone(), false),
                None => {
                    let flight = self.flight(config.clone(), key.clone(), now);
                    flights.insert(key.clone(), flight.clone());
                    self.0.tasks.spawn(self.clone().fly(key, flight.clone()));
                    (flight, true)
                }
            }
        };
        match flight.await {
            Woken::Begun(session) if !is_ours => Woken::Going(session),
            woken => woken,
        }
    }

    /// Looks whether a session that is waking can still become ready, and puts right what can be: gives the order again if
    /// there is no task, and writes down why it failed if it has. At most once in a few seconds a session, so that everybody
    /// who waits for it may ask. Returns the session if it was changed.
    pub async fn look_after(
        &self,
        config: &ClientConfig,
        session: &Session,
        now: Timestamp,
    ) -> Option<Session> {
        if session.state != State::Waking || !self.is_due(session, now) {
            return None;
        }
        let (id, generation) = (&session.session_id, session.generation);
        let task = match self.0.launcher.task(id, generation).await {
            Ok(task) => task,
            Err(error) => {
                tracing::warn!(client = %session.client_id, session = id.redacted(), error = %chain(&error), "the task of a waking session could not be looked at");
                // Its lease can be judged without.
                return match judge_waking(session, None, now) {
                    Some(Step::Fail(failure)) => self.fail(session, failure, now).await,
                    _ => None,
                };
            }
        };
        match judge_waking(session, task.as_ref(), now)? {
            Step::Fail(failure) => {
                note_if_stopped(task.as_ref());
                let failed = self.fail(session, failure, now).await;
                // A boot that overran goes on otherwise, beside the next one. It could not act any more, and would be paid for.
                if failed.is_some()
                    && let Some(task) = task.filter(|task| !has_stopped(task))
                    && let Err(error) = self
                        .0
                        .launcher
                        .stop(&task.name, "it was not ready in time")
                        .await
                {
                    tracing::warn!(client = %session.client_id, session = id.redacted(), error = %chain(&error), "a task that is given up could not be stopped; the sweep does it");
                }
                failed
            }
            Step::LaunchAgain => self.launch_again(config, session, now).await,
        }
    }

    /// Returns when every launch that was begun has ended. Call it before the process ends, with a deadline.
    pub async fn settle(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Writes down that a session has failed, unless it has gone on meanwhile. Returns it as it is then.
    pub(crate) async fn fail(
        &self,
        session: &Session,
        failure: Failure,
        now: Timestamp,
    ) -> Option<Session> {
        let (id, generation) = (&session.session_id, session.generation);
        tracing::warn!(
            client = %session.client_id,
            session = id.redacted(),
            %generation,
            code = failure.code,
            retryable = failure.retryable,
            "a session has failed"
        );
        let fail = Transition::Fail { failure };
        // A failure takes no slot.
        match self
            .0
            .sessions
            .transition(id, generation, &fail, 0, now)
            .await
        {
            Ok(Ok(session)) => Some(session),
            Ok(Err(refused)) => {
                tracing::debug!(session = id.redacted(), %refused, "it has gone on meanwhile");
                None
            }
            Err(error) => {
                tracing::warn!(session = id.redacted(), error = %chain(&error), "the failure could not be written down; the sweep does it");
                None
            }
        }
    }

    fn flight(&self, config: ClientConfig, key: (SessionId, Generation), now: Timestamp) -> Flight {
        let waker = self.clone();
        let flight = async move {
            let (session, seen) = key;
            let began = Instant::now();
            match waker.decide(&config, &session, seen, now).await {
                Ok(session) => waker.launch(&config, session, now, began).await,
                Err(woken) => woken,
            }
        };
        flight.boxed().shared()
    }

    /// Sees a flight through, whoever else does.
    async fn fly(self, key: (SessionId, Generation), flight: Flight) {
        flight.clone().await;
        let mut flights = lock(&self.0.flights);
        if flights.get(&key).is_some_and(|found| found.ptr_eq(&flight)) {
            flights.remove(&key);
        }
    }

    /// Takes the session, or says why not.
    async fn decide(
        &self,
        config: &ClientConfig,
        id: &SessionId,
        seen: Generation,
        now: Timestamp,
    ) -> Result<Session, Woken> {
        // A record that changes between the look and the write is looked at again; after that somebody else has it.
        const TURNS: u32 = 3;
        let unavailable = |error: PortError| {
            tracing::warn!(client = %config.client_id, session = id.redacted(), error = %chain(&error), "a session could not be woken");
            Woken::Unavailable(Arc::new(error))
        };
        for _ in 0..TURNS {
            let session = self.0.sessions.get(id).await.map_err(unavailable)?;
            let Some(session) = session.filter(|found| found.client_id == config.client_id) else {
                return Err(Woken::NoSession);
            };
            let generation = match standing(session, seen, now) {
                Standing::Asleep(generation) => generation,
                Standing::Otherwise(woken) => return Err(*woken),
            };
            let wake = Transition::Wake {
                seen: generation,
                proof_key: proof_key(),
                lease_until: now.plus(self.0.claimed_within),
            };
            let slots = config.settings.max_concurrent_sessions;
            let taken = self
                .0
                .sessions
                .transition(id, generation, &wake, slots, now);
            match taken.await.map_err(unavailable)? {
                Ok(session) => {
                    tracing::info!(client = %config.client_id, session = id.redacted(), generation = %session.generation, "a session is woken");
                    return Ok(session);
                }
                Err(TransitionFailed::NoSuchSession) => return Err(Woken::NoSession),
                Err(TransitionFailed::NoSlot { limit }) => return Err(Woken::Full { limit }),
                Err(TransitionFailed::Refused(_)) => {}
            }
        }
        Err(unavailable(PortError::Unavailable {
            operation: "wake",
            thing: format!("session {}", id.redacted()),
            source: "it changes too fast".into(),
        }))
    }

    /// Launches what was just woken, and says what became of it.
    async fn launch(
        &self,
        config: &ClientConfig,
        session: Session,
        now: Timestamp,
        began: Instant,
    ) -> Woken {
        let failure = match self.insist(&order(config, &session)).await {
            Ok(task) => match failure::of_task(&task) {
                Some(failure) => {
                    note_if_stopped(Some(&task));
                    failure
                }
                None => {
                    tracing::info!(client = %session.client_id, session = session.session_id.redacted(), generation = %session.generation, task = %task.name, "its environment is launched");
                    return Woken::Begun(session);
                }
            },
            Err(failed) => {
                tracing::warn!(client = %session.client_id, session = session.session_id.redacted(), generation = %session.generation, error = %chain(&failed), "its environment could not be launched");
                let may_run =
                    matches!(&failed, LaunchFailed::Unknown(error) if error.is_transient());
                if may_run && let Some(awake) = self.has_begun(&session).await {
                    return Woken::Begun(awake);
                }
                failure::of_launch(&failed)
            }
        };
        let now = now.plus(began.elapsed());
        if let Some(failed) = self.fail(&session, failure, now).await {
            return Woken::Failed(failed);
        }
        // Somebody was faster: its own task, or whoever looks after it. Or it could not be written down.
        match self.0.sessions.get(&session.session_id).await {
            Ok(Some(found)) if found.state == State::Failed => Woken::Failed(found),
            Ok(Some(found)) => match standing(found, session.generation, now) {
                Standing::Otherwise(woken) => *woken,
                Standing::Asleep(_) => Woken::Going(session),
            },
            Ok(None) => Woken::NoSession,
            Err(error) => Woken::Unavailable(Arc::new(error)),
        }
    }

    /// The session, if its task has taken it although nobody knows whether it was launched.
    async fn has_begun(&self, session: &Session) -> Option<Session> {
        let found = self.0.sessions.get(&session.session_id).await.ok()??;
        let is_same = found.generation == session.generation && found.state != State::Failed;
        (is_same && found.task_arn.is_some()).then_some(found)
    }

    /// Gives an order until it is taken, for a while.
    async fn insist(&self, order: &Order) -> Result<Task, LaunchFailed> {
        let deadline = Instant::now() + LAUNCH_TIME;
        let mut pause = PAUSE;
        loop {
            let failed =
                match tokio::time::timeout_at(deadline, self.0.launcher.launch(order)).await {
                    Ok(Ok(task)) => return Ok(task),
                    Ok(Err(failed)) => failed,
                    Err(_) => return Err(LaunchFailed::Unknown(too_late(order))),
                };
            let may_pass = match &failed {
                LaunchFailed::Throttled => true,
                LaunchFailed::Unknown(error) => error.is_transient(),
                LaunchFailed::NoCapacity { .. } | LaunchFailed::Refused { .. } => false,
            };
            let again = Instant::now() + jittered(pause);
            if !may_pass || again >= deadline {
                return Err(failed);
            }
            tracing::debug!(client = %order.client, session = order.session.redacted(), error = %chain(&failed), "the launch is tried again");
            tokio::time::sleep_until(again).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Gives the order of another router again, which may have died before it did.
    async fn launch_again(
        &self,
        config: &ClientConfig,
        session: &Session,
        now: Timestamp,
    ) -> Option<Session> {
        let (client, id) = (&session.client_id, session.session_id.redacted());
        tracing::info!(%client, session = id, generation = %session.generation, "a waking session has no task: it is launched again");
        let launched = self.0.launcher.launch(&order(config, session)).await;
        let failed = match launched {
            Ok(task) => {
                note_if_stopped(Some(&task));
                return self.fail(session, failure::of_task(&task)?, now).await;
            }
            Err(failed) => failed,
        };
        tracing::warn!(%client, session = id, error = %chain(&failed), "it could not be launched again");
        match &failed {
            // There is time until its lease is over.
            LaunchFailed::Throttled => None,
            LaunchFailed::Unknown(error) if error.is_transient() => None,
            _ => self.fail(session, failure::of_launch(&failed), now).await,
        }
    }

    /// Whether a session was not looked after lately. It is from now on.
    fn is_due(&self, session: &Session, now: Timestamp) -> bool {
        let is_recent = |looked: &Timestamp| now.since(*looked) < LOOK_EVERY;
        let mut looked = lock(&self.0.looked);
        let key = (session.session_id.clone(), session.generation);
        if looked.get(&key).is_some_and(is_recent) {
            return false;
        }
        if looked.len() >= LOOKED_MAX {
            looked.retain(|_, looked| is_recent(looked));
        }
        if looked.len() >= LOOKED_MAX {
            looked.clear();
        }
        looked.insert(key, now);
        true
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker")
            .field("launcher", &self.0.launcher)
            .field("claimed_within", &self.0.claimed_within)
            .field("flights", &lock(&self.0.flights).len())
            .finish_non_exhaustive()
    }
}

/// No lock is held across anything that could panic halfway through a change.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says in the log what the launcher says, which is for operators and not for the owner of a site.
pub(crate) fn note_if_stopped(task: Option<&Task>) {
    if let Some(task) = task
        && let TaskState::Stopped { reason, exit_code } = &task.state
    {
        tracing::warn!(task = %task.name, session = task.session.redacted(), generation = %task.generation, reason, ?exit_code, "a task has stopped");
    }
}

/// The order for the environment of a session. The same session and generation make the same order.
fn order(config: &ClientConfig, session: &Session) -> Order {
    Order {
        client: session.client_id.clone(),
        session: session.session_id.clone(),
        generation: session.generation,
        size: config.settings.container_size,
    }
}

fn too_late(order: &Order) -> PortError {
    PortError::Unavailable {
        operation: "launch",
        thing: format!("the environment of session {}", order.session.redacted()),
        source: "there was no answer in time".into(),
    }
}

/// A new key: 32 bytes that nobody can guess.
fn proof_key() -> ProofKey {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the operating system has randomness from boot on");
    ProofKey(hex(&bytes))
}

/// Between a half and all of a pause.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0; 1];
    getrandom::fill(&mut byte).expect("the operating system has randomness from boot on");
    pause / 2 + pause * u32::from(byte[0]) / 512
}
