//! The record that says which environment may act for a session, and the transitions it may take.
//!
//! ```text
//!  dormant ─┐                    ┌──────────── failed ◀──┐
//!  failed  ─┼─ wake ─▶ waking ───┤                       │ fail
//!  (lease   │            │ claim, phase                  │
//!   over) ──┘     ▲      └─ register ─▶ ready ─ drain ─▶ draining ─ sleep ─▶ dormant
//!                 └────── claim, by its own task ─┴──────────┘
//! ```
//!
//! The claim that leads back is a restart in place: the agent crashed, and was started anew in the same container.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{ClientId, CommitId, Generation, SessionId, ThreadId};
use crate::timestamp::Timestamp;

/// One editing conversation of a client. Key `sessionId`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Its id, which is a capability: logs show 8 characters of it.
    pub session_id: SessionId,
    /// Whose site.
    pub client_id: ClientId,
    /// Who began it.
    pub user_id: String,
    /// The producer's conversation.
    pub thread_id: ThreadId,
    /// Where it stands.
    pub state: State,
    /// Whether the site itself is well.
    #[serde(default)]
    pub site: SiteHealth,
    /// What a waking environment is doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase_since: Option<Timestamp>,
    /// Who may act.
    pub generation: Generation,
    /// The task that acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_arn: Option<String>,
    /// Its container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Where its door is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_ip: Option<String>,
    /// The door's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Until when it may act without saying so again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_until: Option<Timestamp>,
    /// How what runs the client's code is kept apart from the agent, as it was proven when the environment started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// The key with which router and door prove themselves to each other, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof_key: Option<ProofKey>,
    /// Where the owner sees the draft.
    pub preview_url: String,
    /// Where instructions land.
    pub draft_branch: String,
    /// Where instructions wait.
    pub queue_url: String,
    /// When somebody last did something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_activity_at: Option<Timestamp>,
    /// Why it does not sleep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awake_because: Option<String>,
    /// When it began.
    pub created_at: Timestamp,
    /// When the record may be removed: seconds since 1970 (a `DynamoDB` TTL). Every wake puts it off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    /// When it was last woken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub woken_at: Option<Timestamp>,
    /// How long its last wakes took until the site answered, in milliseconds, the newest last: what the next one is
    /// expected to take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wakes_ms: Vec<u64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// When it last failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Timestamp>,
    /// How many times in a row it did not become ready: how long one waits before it is tried again by itself.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed_wakes: u32,
    /// What could not be pushed before it slept, and where it is. The next environment takes it up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parked: Vec<Parked>,
}

/// How long a session is kept after it was last woken: as long as its queue keeps a message, twice.
pub const KEPT: Duration = Duration::from_hours(28 * 24);

/// How many wakes a record remembers: enough for a median that one slow wake does not move.
const WAKES_REMEMBERED: usize = 5;

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Work that could not be pushed to the draft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Parked {
    /// Where it is: a ref on the remote, or the name of a bundle in the rescue bucket or folder.
    pub place: ParkedAt,
    /// The commit that holds all of it.
    pub commit: CommitId,
    /// How many commits of the draft are in it that the remote does not have.
    pub commits: u32,
    /// The files that were changed by hand, as paths of the repository.
    pub files: Vec<String>,
    /// When.
    pub at: Timestamp,
}

/// Where parked work is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ParkedAt {
    /// A ref on the client's remote.
    Ref(String),
    /// A git bundle: the key of an object in the rescue bucket, or a file of the rescue folder.
    Bundle(String),
}

/// A key that `Debug` does not show.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ProofKey(pub String);

impl std::fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProofKey(…)")
    }
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// No environment.
    Dormant,
    /// An environment starts.
    Waking,
    /// An environment serves.
    Ready,
    /// An environment saves everything before it stops.
    Draining,
    /// An environment could not start or died.
    Failed,
}

/// Whether the site itself is well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SiteHealth {
    /// It serves pages.
    #[default]
    Ok,
    /// It does not compile or does not start; it can still be edited.
    Degraded,
}

/// How what runs the client's code is kept apart from the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Isolation {
    /// Whether the site, its builds and the editor run as users of their own.
    pub users: bool,
    /// Whether something else keeps them from the endpoint that gives out the task's credentials.
    pub boundary: Boundary,
    /// How many attempts to get at what is the agent's were made as these users. None of them succeeded: one that does is
    /// a failed start.
    pub attempts: u32,
}

/// Whether the network keeps the site from the endpoint that gives out the task's credentials. Without a boundary only not
/// knowing its path does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Boundary {
    /// The site reaches it.
    None,
    /// The agent reaches it and the site does not.
    Network,
    /// There is no endpoint.
    NoEndpoint,
    /// Not even the agent reaches it, so that nothing is proven.
    Unknown,
}

/// What a waking environment is doing, in order.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Reads its configuration.
    Config,
    /// Takes the session.
    Claim,
    /// Fetches the site.
    Clone,
    /// Puts the dependencies in place.
    Install,
    /// Starts the site.
    Serve,
}

/// Why an environment could not start or died.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// For machines.
    pub code: String,
    /// For people.
    pub message: String,
    /// Whether trying again could help.
    pub retryable: bool,
}

/// A step from one state to another. [`Transition::apply`] is the whole table of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// Dormant, failed or abandoned → waking, one generation on.
    Wake {
        /// The generation that the caller saw.
        seen: Generation,
        /// The new key.
        proof_key: ProofKey,
        /// How long the new environment has to claim it.
        lease_until: Timestamp,
    },
    /// A task takes the waking session, or takes up again what is its own.
    Claim {
        /// The task.
        task: String,
        /// Its lease.
        lease_until: Timestamp,
    },
    /// A waking environment goes on to a later phase.
    Phase {
        /// Which one.
        phase: Phase,
        /// Its lease.
        lease_until: Timestamp,
    },
    /// The site has answered.
    Register {
        /// Address of the door.
        ip: String,
        /// Port of the door.
        port: u16,
        /// How the site is.
        site: SiteHealth,
        /// How it is kept apart.
        isolation: Option<Isolation>,
        /// Its lease.
        lease_until: Timestamp,
    },
    /// Still here.
    Renew {
        /// Until when.
        lease_until: Timestamp,
        /// How the site is.
        site: SiteHealth,
        /// The newest activity.
        last_activity_at: Option<Timestamp>,
        /// Why it does not sleep.
        awake_because: Option<String>,
    },
    /// Ready → draining, unless there was activity after `seen_activity`.
    Drain {
        /// The newest activity that the decision knew of.
        seen_activity: Option<Timestamp>,
    },
    /// Draining → dormant.
    Sleep {
        /// What could not be pushed, and where it is.
        parked: Vec<Parked>,
    },
    /// Waking, ready or draining → failed.
    Fail {
        /// Why.
        failure: Failure,
    },
}

/// Why a transition was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransitionRefused {
    /// Another generation acts: the caller steps down without touching anything.
    #[error("generation {acting} acts, not {asked}")]
    OtherGeneration {
        /// Who acts.
        acting: Generation,
        /// Who asked.
        asked: Generation,
    },
    /// Another task of the same generation has claimed it.
    #[error("another task has claimed the session")]
    OtherTask,
    /// The state does not allow it.
    #[error("a session that is {state:?} cannot {step}")]
    WrongState {
        /// The state.
        state: State,
        /// What was asked.
        step: &'static str,
    },
    /// There was newer activity.
    #[error("there was activity after the decision to sleep")]
    NewerActivity,
}

impl Transition {
    /// The word for it in a sentence: a session that is ready cannot `wake`.
    fn step(&self) -> &'static str {
        match self {
            Self::Wake { .. } => "wake",
            Self::Claim { .. } => "be claimed",
            Self::Phase { .. } => "go on to that phase",
            Self::Register { .. } => "be registered at that address",
            Self::Renew { .. } => "renew its lease",
            Self::Drain { .. } => "drain",
            Self::Sleep { .. } => "go to sleep",
            Self::Fail { .. } => "fail",
        }
    }

    /// The session after this transition, or why it is not taken. This is the whole table, and it is pure: an adapter
    /// stores the result only if the session is still the one that was judged.
    ///
    /// | transition | from | refused where | effect |
    /// |---|---|---|---|
    /// | `Wake` | dormant, failed, or any state without a living lease | `seen` is not the generation | generation + 1, new key and lease; whatever the last environment left behind is cleared; it expires later |
    /// | `Claim` | waking; ready, draining | another task has it | waking; task, lease; what this task had reached before is cleared |
    /// | `Phase` | waking | the phase is an earlier one than the present | phase and since when, lease |
    /// | `Register` | waking, ready | ready at another address | ready; address, site, lease; no phase; how long the wake took |
    /// | `Renew` | waking, ready, draining | | lease, site, why awake; the newest activity only ever grows |
    /// | `Drain` | ready, draining | ready, and there was newer activity | draining |
    /// | `Sleep` | draining, dormant | | dormant; address, task, lease and phase cleared; what is parked is what this environment parked |
    /// | `Fail` | waking, ready, draining | | failed, with the failure and since when; address and lease cleared; one more wake that failed |
    ///
    /// Every transition but `Wake` is refused to another `caller` than the session's generation, before anything else
    /// is looked at. `Wake` goes by the generation that it has `seen`, and `caller` is not looked at.
    ///
    /// What was taken already in the same generation (a write that was repeated, because its reply was lost) is taken again.
    /// A phase that is reached again keeps its time. An earlier one is
    /// refused and not ignored: an environment never goes back, so that its write is a late one, and a lease must not
    /// be renewed by it.
    pub fn apply(
        &self,
        session: &Session,
        caller: Generation,
        now: Timestamp,
    ) -> Result<Session, TransitionRefused> {
        let asked = if let Self::Wake { seen, .. } = self {
            *seen
        } else {
            caller
        };
        if asked != session.generation {
            return Err(TransitionRefused::OtherGeneration {
                acting: session.generation,
                asked,
            });
        }
        if !self.is_possible(session, now) {
            return Err(TransitionRefused::WrongState {
                state: session.state,
                step: self.step(),
            });
        }

        let mut next = session.clone();
        match self {
            Self::Wake {
                proof_key,
                lease_until,
                ..
            } => {
                next.state = State::Waking;
                next.generation = session.generation.next();
                next.proof_key = Some(proof_key.clone());
                next.clear_environment();
                next.failure = None;
                next.lease_until = Some(*lease_until);
                next.woken_at = Some(now);
                next.expires_at = Some(now.plus(KEPT).unix_ms().div_euclid(1000));
                // Nobody said that the last environment had failed: it went without a word before the site answered.
                if session.state == State::Waking {
                    next.failed_wakes = session.failed_wakes.saturating_add(1);
                }
            }
            Self::Claim { task, lease_until } => {
                if session.task_arn.as_ref().is_some_and(|owner| owner != task) {
                    return Err(TransitionRefused::OtherTask);
                }
                next.claim(task, *lease_until, now);
            }
            Self::Phase { phase, lease_until } => {
                if session.phase != Some(*phase) {
                    next.phase = Some(*phase);
                    next.phase_since = Some(now);
                }
                next.lease_until = Some(*lease_until);
            }
            Self::Register {
                ip,
                port,
                site,
                isolation,
                lease_until,
            } => {
                if session.state == State::Waking {
                    next.note_wake(now);
                }
                next.state = State::Ready;
                next.container_ip = Some(ip.clone());
                next.port = Some(*port);
                next.site = *site;
                next.isolation.clone_from(isolation);
                next.phase = None;
                next.phase_since = None;
                next.lease_until = Some(*lease_until);
            }
            Self::Renew {
                lease_until,
                site,
                last_activity_at,
                awake_because,
            } => {
                next.lease_until = Some(*lease_until);
                next.site = *site;
                // An absent activity is less than any.
                next.last_activity_at = session.last_activity_at.max(*last_activity_at);
                next.awake_because.clone_from(awake_because);
            }
            Self::Drain { seen_activity } => {
                if session.state == State::Ready && session.last_activity_at > *seen_activity {
                    return Err(TransitionRefused::NewerActivity);
                }
                next.state = State::Draining;
            }
            Self::Sleep { parked } => {
                next.state = State::Dormant;
                next.parked.clone_from(parked);
                next.clear_environment();
            }
            Self::Fail { failure } => {
                next.note_failure(failure, now);
            }
        }
        Ok(next)
    }

    /// Whether the state of the session allows this step.
    fn is_possible(&self, session: &Session, now: Timestamp) -> bool {
        match self {
            Self::Wake { .. } => {
                // No transition leaves an environment without a lease. A row that someone wrote so would stay awake
                // for ever if it could not be woken.
                let abandoned = session.lease_until.is_none_or(|until| until < now);
                matches!(session.state, State::Dormant | State::Failed) || abandoned
            }
            // Only the task that serves can come back to what it served: nobody claims it first there.
            Self::Claim { .. } => match session.state {
                State::Waking => true,
                State::Ready | State::Draining => session.task_arn.is_some(),
                State::Dormant | State::Failed => false,
            },
            Self::Phase { phase, .. } => {
                session.state == State::Waking && session.phase <= Some(*phase)
            }
            Self::Register { ip, port, .. } => match session.state {
                State::Waking => true,
                State::Ready => {
                    session.container_ip.as_ref() == Some(ip) && session.port == Some(*port)
                }
                State::Dormant | State::Draining | State::Failed => false,
            },
            Self::Drain { .. } => matches!(session.state, State::Ready | State::Draining),
            Self::Sleep { .. } => matches!(session.state, State::Draining | State::Dormant),
            Self::Renew { .. } | Self::Fail { .. } => {
                matches!(
                    session.state,
                    State::Waking | State::Ready | State::Draining
                )
            }
        }
    }
}

impl Session {
    /// A session that nobody has woken yet, with the draft branch of its thread, no queue and no address to see it at.
    pub fn new(
        session_id: SessionId,
        client_id: ClientId,
        thread_id: ThreadId,
        user_id: String,
        now: Timestamp,
    ) -> Self {
        Self {
            draft_branch: thread_id.draft_branch(),
            session_id,
            client_id,
            user_id,
            thread_id,
            state: State::Dormant,
            site: SiteHealth::Ok,
            phase: None,
            phase_since: None,
            generation: Generation(0),
            task_arn: None,
            container_id: None,
            container_ip: None,
            port: None,
            lease_until: None,
            isolation: None,
            proof_key: None,
            preview_url: String::new(),
            queue_url: String::new(),
            last_activity_at: None,
            awake_because: None,
            created_at: now,
            expires_at: Some(now.plus(KEPT).unix_ms().div_euclid(1000)),
            woken_at: None,
            wakes_ms: Vec::new(),
            failure: None,
            failed_at: None,
            failed_wakes: 0,
            parked: Vec::new(),
        }
    }

    /// Notes whose it is.
    fn claim(&mut self, task: &str, lease_until: Timestamp, now: Timestamp) {
        if self.state != State::Waking {
            // The agent was started anew: its site is gone, and the wake is counted from here.
            self.clear_environment();
            self.state = State::Waking;
            self.woken_at = Some(now);
        } else if self.task_arn.is_some() {
            // So it was, before the site had answered: it goes through the phases again.
            self.phase = None;
            self.phase_since = None;
        }
        self.task_arn = Some(task.to_owned());
        self.lease_until = Some(lease_until);
    }

    /// Notes that it has failed, and why.
    fn note_failure(&mut self, failure: &Failure, now: Timestamp) {
        if self.state == State::Waking {
            self.failed_wakes = self.failed_wakes.saturating_add(1);
        }
        self.state = State::Failed;
        self.failure = Some(failure.clone());
        self.failed_at = Some(now);
        // Fargate gives addresses to others at once. Task and phase stay: they say where to look.
        self.container_ip = None;
        self.port = None;
        self.lease_until = None;
        self.awake_because = None;
    }

    /// Notes that the wake has succeeded, and how long it took.
    fn note_wake(&mut self, now: Timestamp) {
        self.failed_wakes = 0;
        if let Some(woken) = self.woken_at {
            let took = now.unix_ms().saturating_sub(woken.unix_ms());
            self.wakes_ms.push(u64::try_from(took).unwrap_or(0));
            let forgotten = self.wakes_ms.len().saturating_sub(WAKES_REMEMBERED);
            self.wakes_ms.drain(..forgotten);
        }
    }

    /// Forgets everything that only an environment has.
    fn clear_environment(&mut self) {
        self.phase = None;
        self.phase_since = None;
        self.task_arn = None;
        self.container_id = None;
        self.container_ip = None;
        self.port = None;
        self.lease_until = None;
        self.isolation = None;
        self.awake_because = None;
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const GENERATION: Generation = Generation(7);
    const STATES: [State; 5] = [
        State::Dormant,
        State::Waking,
        State::Ready,
        State::Draining,
        State::Failed,
    ];

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_ms(second * 1000)
    }

    /// A session as its environment leaves it in this state at second 100, with a lease until second 200.
    fn session(state: State) -> Session {
        let awake = matches!(state, State::Waking | State::Ready | State::Draining);
        let served = matches!(state, State::Ready | State::Draining);
        Session {
            session_id: "amelia_a".parse().expect("valid"),
            client_id: "amelia".parse().expect("valid"),
            user_id: "amelia".to_owned(),
            thread_id: "local".parse().expect("valid"),
            state,
            site: SiteHealth::Ok,
            phase: (state == State::Waking).then_some(Phase::Clone),
            phase_since: (state == State::Waking).then_some(at(90)),
            generation: GENERATION,
            task_arn: awake.then(|| "task-1".to_owned()),
            container_id: awake.then(|| "container-1".to_owned()),
            container_ip: served.then(|| "10.0.0.1".to_owned()),
            port: served.then_some(8080),
            lease_until: awake.then_some(at(200)),
            isolation: served.then(isolation),
            proof_key: Some(ProofKey("old".to_owned())),
            preview_url: "https://edit.amelia.example/session/amelia_a/".to_owned(),
            draft_branch: "edit/local".to_owned(),
            queue_url: "queue".to_owned(),
            last_activity_at: Some(at(50)),
            awake_because: served.then(|| "a person is there".to_owned()),
            created_at: at(0),
            expires_at: Some(1_000_000),
            failure: (state == State::Failed).then(failure),
            woken_at: Some(at(80)),
            wakes_ms: vec![1, 2, 3, 4, 5],
            failed_at: (state == State::Failed).then(|| at(95)),
            failed_wakes: 1,
            parked: Vec::new(),
        }
    }

    fn isolation() -> Isolation {
        Isolation {
            users: true,
            boundary: Boundary::None,
            attempts: 60,
        }
    }

    fn failure() -> Failure {
        Failure {
            code: "install_failed".to_owned(),
            message: "npm".to_owned(),
            retryable: true,
        }
    }

    fn wake(seen: Generation) -> Transition {
        Transition::Wake {
            seen,
            proof_key: ProofKey("new".to_owned()),
            lease_until: at(500),
        }
    }

    fn claim(task: &str) -> Transition {
        Transition::Claim {
            task: task.to_owned(),
            lease_until: at(500),
        }
    }

    fn phase(phase: Phase) -> Transition {
        Transition::Phase {
            phase,
            lease_until: at(500),
        }
    }

    fn register(ip: &str) -> Transition {
        Transition::Register {
            ip: ip.to_owned(),
            port: 8080,
            site: SiteHealth::Degraded,
            isolation: Some(isolation()),
            lease_until: at(500),
        }
    }

    fn renew(activity: Option<i64>) -> Transition {
        Transition::Renew {
            lease_until: at(500),
            site: SiteHealth::Degraded,
            last_activity_at: activity.map(at),
            awake_because: Some("two instructions wait".to_owned()),
        }
    }

    fn drain(seen: Option<i64>) -> Transition {
        Transition::Drain {
            seen_activity: seen.map(at),
        }
    }

    fn fail() -> Transition {
        Transition::Fail { failure: failure() }
    }

    fn apply(transition: &Transition, session: &Session) -> Result<Session, TransitionRefused> {
        transition.apply(session, GENERATION, at(100))
    }

    #[test]
    fn the_table_of_transitions_is_the_one_of_the_design() {
        let steps = [
            ("wake", wake(GENERATION)),
            ("claim, own task", claim("task-1")),
            ("claim, other task", claim("task-2")),
            ("phase, earlier", phase(Phase::Claim)),
            ("phase, same", phase(Phase::Clone)),
            ("phase, later", phase(Phase::Serve)),
            ("register", register("10.0.0.1")),
            ("register elsewhere", register("10.0.0.2")),
            ("renew", renew(None)),
            ("drain", drain(Some(50))),
            ("drain, newer activity", drain(Some(49))),
            ("sleep", Transition::Sleep { parked: Vec::new() }),
            ("fail", fail()),
        ];
        let mut table = format!("{:22}", "");
        for state in STATES {
            write!(table, "{:14}", format!("{state:?}").to_lowercase()).expect("a String");
        }
        for (name, step) in &steps {
            write!(table, "\n{name:22}").expect("a String");
            for state in STATES {
                let cell = match apply(step, &session(state)) {
                    Ok(next) => format!("{:?}", next.state).to_lowercase(),
                    Err(TransitionRefused::WrongState { .. }) => "-".to_owned(),
                    Err(other) => format!("{other:?}"),
                };
                write!(table, "{cell:14}").expect("a String");
            }
        }
        let table = table
            .lines()
            .map(str::trim_end)
            .collect::<Vec<_>>()
            .join("\n");
        insta::assert_snapshot!(table, @r#"
                              dormant       waking        ready         draining      failed
        wake                  waking        -             -             -             waking
        claim, own task       -             waking        waking        waking        -
        claim, other task     -             OtherTask     OtherTask     OtherTask     -
        phase, earlier        -             -             -             -             -
        phase, same           -             waking        -             -             -
        phase, later          -             waking        -             -             -
        register              -             ready         ready         -             -
        register elsewhere    -             ready         -             -             -
        renew                 -             waking        ready         draining      -
        drain                 -             -             draining      draining      -
        drain, newer activity -             -             NewerActivity draining      -
        sleep                 dormant       -             -             dormant       -
        fail                  -             failed        failed        failed        -
        "#);
    }

    #[test]
    fn whoever_is_of_another_generation_is_refused_in_every_state() {
        let steps = [
            claim("task-1"),
            phase(Phase::Serve),
            register("10.0.0.1"),
            renew(None),
            drain(None),
            Transition::Sleep { parked: Vec::new() },
            fail(),
        ];
        for state in STATES {
            for step in &steps {
                for asked in [Generation(6), Generation(8)] {
                    let refused = TransitionRefused::OtherGeneration {
                        acting: GENERATION,
                        asked,
                    };
                    assert_eq!(
                        step.apply(&session(state), asked, at(100)),
                        Err(refused),
                        "{step:?}"
                    );
                }
            }
            let refused = TransitionRefused::OtherGeneration {
                acting: GENERATION,
                asked: Generation(6),
            };
            let woken = wake(Generation(6)).apply(&session(state), GENERATION, at(1_000));
            assert_eq!(woken, Err(refused), "a wake goes by what it has seen");
        }
    }

    #[test]
    fn a_living_lease_keeps_a_session_from_being_woken_and_a_dead_one_does_not() {
        for state in [State::Waking, State::Ready, State::Draining] {
            let step = wake(GENERATION);
            let woken = |second| step.apply(&session(state), Generation(0), at(second));
            assert_eq!(
                woken(200),
                Err(TransitionRefused::WrongState {
                    state,
                    step: "wake"
                })
            );
            assert_eq!(
                woken(201).map(|session| session.generation),
                Ok(Generation(8))
            );

            let unleased = Session {
                lease_until: None,
                ..session(state)
            };
            assert!(
                step.apply(&unleased, Generation(0), at(0)).is_ok(),
                "nobody would ever come back"
            );
        }
    }

    #[test]
    fn a_wake_clears_whatever_the_last_environment_left_behind() {
        for state in STATES {
            let before = session(state);
            let expected = Session {
                state: State::Waking,
                generation: Generation(8),
                proof_key: Some(ProofKey("new".to_owned())),
                lease_until: Some(at(500)),
                phase: None,
                phase_since: None,
                task_arn: None,
                container_id: None,
                container_ip: None,
                port: None,
                isolation: None,
                awake_because: None,
                failure: None,
                woken_at: Some(at(1_000)),
                expires_at: Some(1_000 + 28 * 24 * 3_600),
                failed_wakes: if state == State::Waking { 2 } else { 1 },
                ..before.clone()
            };
            assert_eq!(
                wake(GENERATION).apply(&before, GENERATION, at(1_000)),
                Ok(expected)
            );
        }
    }

    #[test]
    fn the_first_task_to_claim_a_session_has_it() {
        let free = Session {
            task_arn: None,
            ..session(State::Waking)
        };
        let claimed = apply(&claim("task-2"), &free).expect("free");
        assert_eq!(claimed.task_arn.as_deref(), Some("task-2"));
        assert_eq!(claimed.lease_until, Some(at(500)));
        assert_eq!(
            claimed.phase,
            Some(Phase::Clone),
            "who launched it has said so"
        );
        let again = apply(&claim("task-2"), &claimed).expect("its own");
        let unphased = Session {
            phase: None,
            phase_since: None,
            ..claimed.clone()
        };
        assert_eq!(again, unphased);
        assert!(
            apply(&phase(Phase::Config), &again).is_ok(),
            "an agent that crashed while it started begins with the first phase"
        );
        assert_eq!(
            apply(&claim("task-1"), &claimed),
            Err(TransitionRefused::OtherTask)
        );
    }

    #[test]
    fn an_agent_that_was_started_anew_takes_up_its_own_session_and_serves_nothing_yet() {
        for state in [State::Ready, State::Draining] {
            let taken = apply(&claim("task-1"), &session(state)).expect("its own");
            assert_eq!(taken.state, State::Waking);
            assert_eq!(taken.task_arn.as_deref(), Some("task-1"));
            assert_eq!(taken.lease_until, Some(at(500)));
            assert_eq!((taken.container_ip.as_ref(), taken.port), (None, None));
            assert_eq!(taken.proof_key, session(state).proof_key);
            assert_eq!(taken.woken_at, Some(at(100)), "the wake is counted anew");
            // Its phases begin at the first.
            assert!(apply(&phase(Phase::Config), &taken).is_ok());
            let unowned = Session {
                task_arn: None,
                ..session(state)
            };
            assert!(apply(&claim("task-1"), &unowned).is_err());
        }
    }

    #[test]
    fn a_phase_that_is_reached_again_keeps_its_time() {
        let waking = session(State::Waking);
        let again = apply(&phase(Phase::Clone), &waking).expect("the same");
        assert_eq!(
            (again.phase, again.phase_since),
            (Some(Phase::Clone), Some(at(90)))
        );
        let later = apply(&phase(Phase::Install), &again).expect("a later one");
        assert_eq!(
            (later.phase, later.phase_since),
            (Some(Phase::Install), Some(at(100)))
        );
        assert_eq!(later.lease_until, Some(at(500)));
        let first = Session {
            phase: None,
            phase_since: None,
            ..waking
        };
        assert_eq!(
            apply(&phase(Phase::Config), &first)
                .expect("the first")
                .phase_since,
            Some(at(100))
        );
    }

    #[test]
    fn a_session_that_is_registered_has_an_address_and_no_phase() {
        let waking = session(State::Waking);
        let expected = Session {
            state: State::Ready,
            site: SiteHealth::Degraded,
            container_ip: Some("10.0.0.1".to_owned()),
            port: Some(8080),
            phase: None,
            phase_since: None,
            lease_until: Some(at(500)),
            isolation: Some(isolation()),
            wakes_ms: vec![2, 3, 4, 5, 20_000],
            failed_wakes: 0,
            ..waking.clone()
        };
        assert_eq!(apply(&register("10.0.0.1"), &waking), Ok(expected.clone()));
        assert_eq!(
            apply(&register("10.0.0.1"), &expected),
            Ok(expected),
            "asking again changes nothing"
        );
    }

    #[test]
    fn activity_never_goes_back_and_keeps_a_session_from_draining() {
        let ready = session(State::Ready);
        let renewed = apply(&renew(Some(60)), &ready).expect("ready");
        assert_eq!(renewed.last_activity_at, Some(at(60)));
        assert_eq!(renewed.site, SiteHealth::Degraded);
        assert_eq!(
            renewed.awake_because.as_deref(),
            Some("two instructions wait")
        );
        for older in [None, Some(10)] {
            let late = apply(&renew(older), &renewed).expect("ready");
            assert_eq!(late.last_activity_at, Some(at(60)));
        }

        assert_eq!(
            apply(&drain(Some(50)), &renewed),
            Err(TransitionRefused::NewerActivity)
        );
        assert_eq!(
            apply(&drain(None), &renewed),
            Err(TransitionRefused::NewerActivity)
        );
        assert!(apply(&drain(Some(60)), &renewed).is_ok());
        let untouched = Session {
            last_activity_at: None,
            ..ready
        };
        assert!(apply(&drain(None), &untouched).is_ok());
    }

    #[test]
    fn what_sleeps_or_failed_has_no_address_and_no_lease() {
        let draining = session(State::Draining);
        let dormant = Session {
            state: State::Dormant,
            task_arn: None,
            container_id: None,
            container_ip: None,
            port: None,
            lease_until: None,
            isolation: None,
            awake_because: None,
            ..draining.clone()
        };
        assert_eq!(
            apply(&Transition::Sleep { parked: Vec::new() }, &draining),
            Ok(dormant)
        );

        let failed = Session {
            state: State::Failed,
            container_ip: None,
            port: None,
            lease_until: None,
            awake_because: None,
            failure: Some(failure()),
            failed_at: Some(at(100)),
            ..draining.clone()
        };
        assert_eq!(apply(&fail(), &draining), Ok(failed));
        let gone = apply(&fail(), &session(State::Waking)).expect("waking");
        assert_eq!(gone.failed_wakes, 2, "it never was ready");
    }

    #[test]
    fn a_refusal_says_what_cannot_be_done() {
        let refused = apply(
            &Transition::Sleep { parked: Vec::new() },
            &session(State::Ready),
        )
        .expect_err("ready");
        insta::assert_snapshot!(refused, @"a session that is Ready cannot go to sleep");
    }

    /// One step of the story that the model test tells.
    #[derive(Debug, Clone)]
    struct Step {
        /// How many generations the caller is behind the present one.
        behind: u64,
        /// Seconds that pass before it.
        seconds: i64,
        transition: Transition,
    }

    fn any_transition() -> impl Strategy<Value = Transition> {
        let phases = [
            Phase::Config,
            Phase::Claim,
            Phase::Clone,
            Phase::Install,
            Phase::Serve,
        ];
        prop_oneof![
            3 => Just(wake(GENERATION)),
            2 => prop::sample::select(vec!["task-1", "task-2"]).prop_map(claim),
            2 => prop::sample::select(phases.to_vec()).prop_map(phase),
            3 => prop::sample::select(vec!["10.0.0.1", "10.0.0.2"]).prop_map(register),
            3 => prop::option::of(0..400_i64).prop_map(renew),
            3 => prop::option::of(0..400_i64).prop_map(drain),
            3 => Just(Transition::Sleep { parked: Vec::new() }),
            1 => Just(fail()),
        ]
    }

    fn any_step() -> impl Strategy<Value = Step> {
        (
            prop_oneof![3 => Just(0), 1 => 1..4_u64],
            0..40_i64,
            any_transition(),
        )
            .prop_map(|(behind, seconds, transition)| Step {
                behind,
                seconds,
                transition,
            })
    }

    /// What `transition` is when its caller acts at `now`, having seen `seen`: leases run for 60 seconds.
    fn aimed(transition: &Transition, seen: Generation, now: Timestamp) -> Transition {
        let until = now.plus(Duration::from_mins(1));
        let mut aimed = transition.clone();
        match &mut aimed {
            Transition::Wake {
                seen: wake_seen,
                lease_until,
                ..
            } => {
                *wake_seen = seen;
                *lease_until = until;
            }
            Transition::Claim { lease_until, .. }
            | Transition::Phase { lease_until, .. }
            | Transition::Register { lease_until, .. }
            | Transition::Renew { lease_until, .. } => *lease_until = until,
            Transition::Drain { .. } | Transition::Sleep { .. } | Transition::Fail { .. } => {}
        }
        aimed
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        /// The model is one number: who may act. A wake makes it one more; every other write must come from it.
        #[test]
        fn of_several_generations_one_acts(steps in prop::collection::vec(any_step(), 1..60)) {
            let mut session = session(State::Dormant);
            let mut acting = session.generation;
            let mut now = at(100);
            for step in steps {
                now = now.plus(Duration::from_secs(u64::try_from(step.seconds).expect("not negative")));
                let caller = Generation(acting.0.saturating_sub(step.behind));
                let transition = aimed(&step.transition, caller, now);
                let woken = matches!(transition, Transition::Wake { .. });
                let lease_lived = session.lease_until.is_some_and(|until| until >= now);
                let was = session.clone();

                if let Ok(next) = transition.apply(&session, caller, now) {
                    prop_assert_eq!(caller, acting, "an older generation wrote");
                    if woken {
                        prop_assert!(!lease_lived, "woken under a living lease: {:?}", was);
                        acting = acting.next();
                        prop_assert_ne!(next.task_arn.as_deref(), Some("task-1"), "the last task is cleared");
                    }
                    session = next;
                }

                prop_assert_eq!(session.generation, acting);
                let awake = matches!(session.state, State::Waking | State::Ready | State::Draining);
                let served = matches!(session.state, State::Ready | State::Draining);
                prop_assert_eq!(session.lease_until.is_some(), awake);
                prop_assert_eq!(session.container_ip.is_some(), served);
                prop_assert_eq!(session.port.is_some(), served);
                prop_assert_eq!(session.failure.is_some(), session.state == State::Failed);
                if session.state == State::Dormant {
                    prop_assert_eq!(&session.task_arn, &None);
                    prop_assert_eq!(session.phase, None);
                }
                prop_assert!(session.last_activity_at >= was.last_activity_at, "activity went back");
            }
        }
    }
}
