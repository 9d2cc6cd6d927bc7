//! The record that says which environment may act for a session, and the transitions it may take.
//!
//! ```text
//!  dormant ─┐                    ┌──────────── failed ◀──┐
//!  failed  ─┼─ wake ─▶ waking ───┤                       │ fail
//!  (lease   │            │ claim, phase                  │
//!   over) ──┘            └─ register ─▶ ready ─ drain ─▶ draining ─ sleep ─▶ dormant
//! ```

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{ClientId, Generation, SessionId, ThreadId};
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
    /// When the record may be removed: seconds since 1970 (a DynamoDB TTL).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
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

/// What a waking environment is doing, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
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
    /// A task takes the waking session.
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
    Sleep,
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
