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
    ///
    /// Errors: `Unavailable`, beside the ordinary reasons, within a minute after a queue of that name was removed.
    async fn create(&self, session: &SessionId) -> Result<String>;

    /// The queue at an address. Nothing is asked.
    fn open(&self, address: &str) -> Arc<dyn Instructions>;

    /// Removes a queue and every message in it; one that is not there is as wanted.
    ///
    /// Errors: `Refused` where it is no queue of a session.
    async fn remove(&self, address: &str) -> Result<()>;

    /// Every queue of a session that there is and that has a message; one without may be left out. May lag behind a
    /// `create` or a `send` by about a minute.
    async fn list(&self) -> Result<Vec<SessionQueue>>;

    /// Whether the queue at an address has the dead letters that these share. A name says no more than that it is some
    /// session's: another deployment in the same account has queues of the same names. One that is not there is nobody's.
    async fn is_ours(&self, address: &str) -> Result<bool>;
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

/// Whose queue is at an address, beside the dead letters at another; none if it is no queue of a session.
pub(crate) fn session_of(address: &str, dead: &str) -> Option<SessionId> {
    let name = |address: &str| -> String {
        let name = address.trim_end_matches('/').rsplit('/').next();
        name.unwrap_or_default().to_owned()
    };
    let (name, dead) = (name(address), name(dead));
    if name == dead {
        return None;
    }
    name.strip_prefix(QUEUE_PREFIX)?
        .strip_suffix(".fifo")?
        .parse()
        .ok()
}

/// Why a queue is not removed: an address that somebody mistyped must not cost the intake or the dead letters.
pub(crate) const NO_SESSION: &str = "it is no queue of a session, and only those are removed";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_of_a_queue_is_in_its_name() {
        let dead = "https://sqs.eu-central-1.amazonaws.com/1/webordinary-edits-dead.fifo";
        let amelia = "amelia_aaaaaaaaaaaaaaaaaaaaaaaaaa";
        let id: SessionId = amelia.parse().expect("valid");
        let url = |name: &str| format!("https://sqs.eu-central-1.amazonaws.com/1/{name}");
        assert_eq!(queue_name(&id), format!("webordinary-edits-{amelia}.fifo"));
        for address in [queue_name(&id), url(&queue_name(&id))] {
            assert_eq!(session_of(&address, dead), Some(id.clone()), "{address}");
        }
        for address in [
            dead.to_owned(),
            "webordinary-edits-dead.fifo".to_owned(),
            url("webordinary-intake.fifo"),
            url("webordinary-edits-.fifo"),
            url("webordinary-edits-Amelia.fifo"),
            url("webordinary-edits-amelia_a"),
            url(&format!("another-{}", queue_name(&id))),
            String::new(),
        ] {
            assert_eq!(session_of(&address, dead), None, "{address}");
        }
    }
}
