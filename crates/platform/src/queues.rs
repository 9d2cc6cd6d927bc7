//! The port to the queues themselves: making, finding and removing them.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use contract::SessionId;

use crate::{Instructions, Result};

/// The queues of sessions. Each session has its own, `webordinary-edits-<sessionId>.fifo`, with the dead letters that all share.
#[async_trait]
pub trait Queues: Send + Sync + Debug {
    /// Makes the queue of a session, unless it is there, and returns its address.
    async fn create(&self, session: &SessionId) -> Result<String>;

    /// The queue at an address. Nothing is asked.
    fn open(&self, address: &str) -> Arc<dyn Instructions>;

    /// Removes a queue and every message in it; one that is not there is as wanted.
    async fn remove(&self, address: &str) -> Result<()>;

    /// Every queue of a session that there is. May lag behind a `create` by about a minute.
    async fn list(&self) -> Result<Vec<SessionQueue>>;
}

/// The queue of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionQueue {
    /// Whose queue it is.
    pub session: SessionId,
    /// Where it is.
    pub address: String,
}

/// The name of a session's queue.
pub fn queue_name(session: &SessionId) -> String {
    format!("{QUEUE_PREFIX}{session}.fifo")
}

/// How the names of all queues of sessions begin; the dead letters' name begins so too.
pub const QUEUE_PREFIX: &str = "webordinary-edits-";
