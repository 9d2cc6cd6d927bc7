//! The session of a thread: found, or made with its queue.
//!
//! ```text
//!   thread ─▶ row of the thread ─▶ session ───────────────────────────────▶ it
//!               │ none               │ gone: the row is freed
//!               ▼                    ▼
//!             queue ─▶ session and row, in one transaction ─▶ New ────────▶ it
//!                                       └─▶ somebody was faster: our queue is removed ─▶ theirs
//! ```
//!
//! The queue comes first, because a session without one would be given instructions that have nowhere to wait. A queue without a
//! session harms nobody, and the sweep removes it.

use std::sync::Arc;

use contract::{ClientConfig, Session, SessionId, ThreadId, Timestamp};
use platform::{Created, PortError, Queues, Sessions};

use telemetry::chain;

/// How often one looks whose the thread is. More than once only if others make, or remove, the same session meanwhile.
const TURNS: u32 = 5;

/// Finds and makes the sessions of threads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Threads {
    sessions: Arc<dyn Sessions>,
    queues: Arc<dyn Queues>,
    entry: Entry,
}

/// How the outside reaches the router: what every preview's address is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `https`, or `http` on a laptop.
    pub scheme: String,
    /// Below which every client has its `edit.<client>`; `localhost` on a laptop.
    pub edit_domain: String,
    /// The port, where it is not the scheme's own.
    pub port: Option<u16>,
}

impl Threads {
    /// Threads whose sessions are seen at this entry.
    pub fn new(sessions: Arc<dyn Sessions>, queues: Arc<dyn Queues>, entry: Entry) -> Self {
        Self {
            sessions,
            queues,
            entry,
        }
    }

    /// The session of a client's thread. If there is none, it is made, asleep, as begun by `user`. Several at once make one.
    pub async fn open(
        &self,
        config: &ClientConfig,
        thread: &ThreadId,
        user: &str,
        now: Timestamp,
    ) -> Result<Session, PortError> {
        for _ in 0..TURNS {
            let found = match self.sessions.find(&config.client_id, thread).await? {
                Some(id) => self.of(config, thread, id, now).await?,
                None => self.make(config, thread, user, now).await?,
            };
            if let Some(session) = found {
                return Ok(session);
            }
        }
        Err(PortError::Unavailable {
            operation: "open",
            thing: format!("a thread of {}", config.client_id),
            source: "its session changes too fast".into(),
        })
    }

    /// The session by which a thread is said to be continued; none if there is only the row of the thread, which is freed.
    async fn of(
        &self,
        config: &ClientConfig,
        thread: &ThreadId,
        id: SessionId,
        now: Timestamp,
    ) -> Result<Option<Session>, PortError> {
        if let Some(session) = self.sessions.get(&id).await? {
            return Ok(Some(session));
        }
        tracing::info!(client = %config.client_id, session = id.redacted(), "the session of a thread is gone: the thread is freed");
        let gone = Session::new(
            id,
            config.client_id.clone(),
            thread.clone(),
            String::new(),
            now,
        );
        self.sessions.remove(&gone).await?;
        Ok(None)
    }

    /// Makes the session of a thread; none if somebody was faster.
    async fn make(
        &self,
        config: &ClientConfig,
        thread: &ThreadId,
        user: &str,
        now: Timestamp,
    ) -> Result<Option<Session>, PortError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).expect("the operating system has randomness from boot on");
        let id = SessionId::new(&config.client_id, random);
        let queue_url = self.queues.create(&id).await?;
        let session = Session {
            preview_url: preview_url(config, &id, &self.entry),
            queue_url,
            ..Session::new(
                id,
                config.client_id.clone(),
                thread.clone(),
                user.to_owned(),
                now,
            )
        };
        match self.sessions.create(&session).await? {
            Created::New => {
                tracing::info!(client = %config.client_id, session = session.session_id.redacted(), "a session is made");
                Ok(Some(session))
            }
            // An earlier attempt of the adapter's own succeeded.
            Created::ThreadTaken(taken) if taken == session.session_id => Ok(Some(session)),
            Created::ThreadTaken(_) => {
                if let Err(error) = self.queues.remove(&session.queue_url).await {
                    tracing::warn!(client = %config.client_id, session = session.session_id.redacted(), error = %chain(&error), "a queue that nobody needs could not be removed; the sweep does it");
                }
                Ok(None)
            }
            // The queue of that name is the other session's, with what waits in it.
            Created::IdTaken => Ok(None),
        }
    }
}

/// Where the owner of a site sees a draft: the entry of its session.
///
/// The host is the one that the client's configuration names; on a laptop, where nobody's DNS leads, it is the client's name
/// below the entry's own domain.
pub fn preview_url(config: &ClientConfig, session: &SessionId, entry: &Entry) -> String {
    let domain = entry.edit_domain.as_str();
    let host = if domain == "localhost" || domain.ends_with(".localhost") {
        format!("edit.{}.{domain}", config.client_id)
    } else {
        config.domains.edit.clone()
    };
    let port = entry
        .port
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    format!("{}://{host}{port}/session/{session}/", entry.scheme)
}

#[cfg(test)]
mod tests {
    use platform::conformance::records::{client_config, session_id};

    use super::*;

    #[test]
    fn a_draft_is_seen_at_the_clients_own_host_and_on_a_laptop_below_localhost() {
        let config = client_config("amelia");
        let id = session_id(&config.client_id, 0);
        let entry = |scheme: &str, edit_domain: &str, port| Entry {
            scheme: scheme.to_owned(),
            edit_domain: edit_domain.to_owned(),
            port,
        };
        assert_eq!(
            preview_url(&config, &id, &entry("https", "webordinary.com", None)),
            format!("https://edit.example.com/session/{id}/")
        );
        assert_eq!(
            preview_url(&config, &id, &entry("http", "localhost", Some(8000))),
            format!("http://edit.amelia.localhost:8000/session/{id}/")
        );
    }
}
