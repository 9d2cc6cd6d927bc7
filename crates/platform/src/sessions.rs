//! The port to the sessions.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use contract::session::{Transition, TransitionRefused};
use contract::{ClientId, Generation, Session, SessionId, ThreadId, Timestamp};

use crate::Result;

/// Who acts for each session, where, and until when.
///
/// Beside the sessions there are two kinds of uniqueness rows, each written in one transaction with the session it
/// belongs to: one a thread (a thread has one session) and one a slot (a client has `maxConcurrentSessions` of them).
///
/// A slot is held by a session in one generation, from its `Wake` until its `Sleep` or `Fail`. It is free again when
/// that session has gone on to another generation, is dormant or failed, or when its lease is over. Only slots with a
/// number below the limit are looked at: a limit that was lowered takes effect as the slots above it are given back.
#[async_trait]
pub trait Sessions: Send + Sync + Debug {
    /// A session, as it was last written.
    async fn get(&self, id: &SessionId) -> Result<Option<Session>>;

    /// The session that a thread of a client has, by its uniqueness row and therefore never stale.
    async fn find(&self, client: &ClientId, thread: &ThreadId) -> Result<Option<SessionId>>;

    /// Creates a session together with the row of its thread. It takes no slot: a session is created dormant.
    async fn create(&self, session: &Session) -> Result<Created>;

    /// Takes a transition by the contract's table ([`Transition::apply`]) and stores the session only if it is still
    /// the one that was judged, so that of several callers at once one wins and the others are judged anew.
    ///
    /// `slots` is the client's `maxConcurrentSessions`, looked at by `Wake` alone. A session whose lease was over for
    /// so long that another one took its slot cannot go on either: whatever it asks for, except `Wake`, `Sleep` and
    /// `Fail`, is answered [`TransitionFailed::NoSlot`], and it steps down.
    async fn transition(
        &self,
        id: &SessionId,
        caller: Generation,
        transition: &Transition,
        slots: u32,
        now: Timestamp,
    ) -> Result<std::result::Result<Session, TransitionFailed>>;

    /// All sessions of a client, oldest first. For people and for the sweep: answered from an index that may lag
    /// behind a write by about a second.
    async fn list(&self, client: &ClientId) -> Result<Vec<Session>>;

    /// Removes a session and the row of its thread, if nobody has woken it since it was read; so that the thread can have
    /// another one. Also what is left of one whose record is gone already: then the row of the thread alone.
    async fn remove(&self, session: &Session) -> Result<Removed>;

    /// Uses up what may be used once, and remembers it until `until` at least. Of several callers at once one is told `true`.
    /// Errors: `Refused` where it has more than [`NONCE_MAX_BYTES`].
    async fn spend(&self, nonce: &str, until: Timestamp) -> Result<bool>;

    /// Returns when a session may have changed, and after `patience` at the latest. An adapter that hears of no changes
    /// waits for all of it.
    async fn changed(&self, patience: Duration);
}

/// What became of a session that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Gone,
    /// Somebody has woken it: it stays.
    Used,
}

/// What became of a session that was to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It exists now.
    New,
    /// The thread has this session already. If it is the very id that was asked for, an earlier attempt succeeded.
    ThreadTaken(SessionId),
    /// Another thread's session has this id.
    IdTaken,
}

/// Why a session was left as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransitionFailed {
    /// There is none with this id.
    #[error("there is no such session")]
    NoSuchSession,
    /// The contract's table does not allow it.
    #[error(transparent)]
    Refused(#[from] TransitionRefused),
    /// All slots of the client are held by other sessions.
    #[error("all {limit} environments of the client are in use")]
    NoSlot {
        /// How many there are.
        limit: u32,
    },
}

/// How long a nonce is at most: ours have 26 characters, and DynamoDB takes keys of 2048 bytes.
pub const NONCE_MAX_BYTES: usize = 256;

/// Why a nonce is not taken, if it is too long.
pub(crate) fn check_nonce(nonce: &str) -> std::result::Result<(), String> {
    if nonce.len() > NONCE_MAX_BYTES {
        return Err(format!(
            "it has {} bytes: at most {NONCE_MAX_BYTES} are taken",
            nonce.len()
        ));
    }
    Ok(())
}
