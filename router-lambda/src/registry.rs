//! What is known of sessions, without asking their table at every request.
//!
//! ```text
//!  get ─▶ remembered and fresh? ─▶ that          (no allocation, no waiting)
//!           └─ no ─▶ one reads, others wait for it ─▶ table
//! ```
//!
//! - **At most one read of a session in what is fresh**, however many ask: a page of a dev server is fifty requests.
//! - **The table is a hint.** Whether a lease lives is judged when it is used, and what answers has to prove itself.
//! - **When the table does not answer**, what is remembered is given for as long as its lease lives; the rest is `Down`.
//! - What is remembered is bounded: an id that nobody has asked for lately is forgotten.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use contract::{Generation, Session, SessionId, Timestamp};
use platform::{PortError, Sessions};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

/// How many sessions are remembered. A record is about a kilobyte.
const ENTRIES_MAX: usize = 100_000;
/// How long nobody has to have asked for what is forgotten first.
const UNUSED: Duration = Duration::from_secs(60);
/// How long the table may take. A visitor who waits longer is better told that it does not answer.
const READ_TIME_MAX: Duration = Duration::from_secs(3);
/// How many sessions are read at the same time: a flood of ids that nobody has is to be no flood at the table.
const READS_MAX: usize = 64;
/// How long an address is not asked again that did not prove itself. Its lease is over in 30 s at the latest.
const DISTRUST: Duration = Duration::from_secs(5);
/// How long a door has to be in vain until it is given up: two leases, so that whoever renews his is there and cannot be reached.
const LOST: Duration = Duration::from_secs(60);
/// How long after the last time it is forgotten that a door was in vain.
const FORGIVEN: Duration = Duration::from_secs(300);
/// How long whoever waits for a change goes without a look at the most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is known of a session.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// Its record.
    Known(Arc<Session>),
    /// There is none.
    Unknown,
    /// The table does not answer, and nothing is remembered that could be gone by.
    Down,
}

/// What is known of sessions.
#[derive(Debug)]
pub struct Registry {
    sessions: Arc<dyn Sessions>,
    fresh: Duration,
    entries: RwLock<HashMap<SessionId, Arc<Entry>>>,
    reads: Semaphore,
    leader: tokio::sync::Mutex<()>,
    ticked: Notify,
}

#[derive(Debug)]
struct Entry {
    known: Mutex<Known>,
    /// Held by the one who reads.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Known {
    session: Option<Arc<Session>>,
    /// When the table was last asked; never, if absent.
    at: Option<Instant>,
    /// Whether the table answered then.
    answered: bool,
    used: Instant,
    /// The door that did not prove itself.
    distrusted: Option<Distrusted>,
}

/// A door that did not prove itself, or was not there.
#[derive(Debug, Clone, Copy)]
struct Distrusted {
    generation: Generation,
    /// When it was noticed first,
    first: Instant,
    /// and when last.
    last: Instant,
}

/// Whether a door may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// It may.
    Given,
    /// Not for a moment: it did not prove itself.
    Lately,
    /// Not again: for longer than any lease of somebody who is gone it was not reached, so that it is there and cannot be.
    Lost,
}

impl Entry {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is remembered, if that is fresh.
    fn remembered(&self, fresh: Duration, now: Timestamp) -> Option<Lookup> {
        let instant = Instant::now();
        let mut known = self.known();
        known.used = instant;
        let at = known.at?;
        (instant.saturating_duration_since(at) < fresh).then(|| known.lookup(now))
    }
}

impl Known {
    fn lookup(&self, now: Timestamp) -> Lookup {
        match &self.session {
            Some(session)
                if self.answered || session.lease_until.is_some_and(|until| until > now) =>
            {
                Lookup::Known(Arc::clone(session))
            }
            None if self.answered => Lookup::Unknown,
            _ => Lookup::Down,
        }
    }
}

impl Registry {
    /// A registry that asks for a session again when what it knows is older than `fresh`: a second for a table that is paid for
    /// by the read, next to nothing for a file.
    pub fn new(sessions: Arc<dyn Sessions>, fresh: Duration) -> Self {
        Self {
            sessions,
            fresh,
            entries: RwLock::new(HashMap::new()),
            reads: Semaphore::new(READS_MAX),
            leader: tokio::sync::Mutex::new(()),
            ticked: Notify::new(),
        }
    }

    /// What is known of a session of that id, which may be none that is valid.
    pub async fn get(&self, id: &str, now: Timestamp) -> Lookup {
        let entry = self.entry(id);
        if let Some(entry) = &entry
            && let Some(lookup) = entry.remembered(self.fresh, now)
        {
            return lookup;
        }
        let Ok(id) = id.parse::<SessionId>() else {
            return Lookup::Unknown;
        };
        let entry = entry.unwrap_or_else(|| self.make(&id));
        let _reading = entry.reading.lock().await;
        if let Some(lookup) = entry.remembered(self.fresh, now) {
            return lookup;
        }
        let answer = tokio::time::timeout(READ_TIME_MAX, async {
            let _turn = self.reads.acquire().await;
            self.sessions.get(&id).await
        })
        .await;
        let mut known = entry.known();
        known.at = Some(Instant::now());
        match answer {
            Ok(Ok(session)) => {
                known.session = session.map(Arc::new);
                known.answered = true;
            }
            Ok(Err(error)) => {
                if known.answered {
                    tracing::warn!(session = id.redacted(), error = %telemetry::chain(&error), "a session could not be read; what is remembered is gone by");
                }
                known.answered = false;
            }
            Err(_) => {
                if known.answered {
                    tracing::warn!(
                        session = id.redacted(),
                        "the table of the sessions does not answer in time; what is remembered is gone by"
                    );
                }
                known.answered = false;
            }
        }
        known.lookup(now)
    }

    /// The record of a session as it is now, whatever is remembered.
    pub async fn read(&self, id: &SessionId) -> Result<Option<Session>, PortError> {
        let session = self.sessions.get(id).await?;
        if let Some(session) = &session {
            self.put(session.clone());
        }
        Ok(session)
    }

    /// What somebody has just written.
    pub fn put(&self, session: Session) {
        let entry = self
            .entry(session.session_id.as_str())
            .unwrap_or_else(|| self.make(&session.session_id));
        let mut known = entry.known();
        // A reply that was overtaken on its way is older than what is known.
        if known
            .session
            .as_ref()
            .is_some_and(|other| other.generation > session.generation)
        {
            return;
        }
        known.session = Some(Arc::new(session));
        known.at = Some(Instant::now());
        known.answered = true;
    }

    /// From now on, for a while, the door of this generation is taken for somebody else's.
    pub fn distrust(&self, id: &SessionId, generation: Generation) {
        if let Some(entry) = self.entry(id.as_str()) {
            let mut known = entry.known();
            let now = Instant::now();
            let before = known.distrusted.filter(|before| {
                before.generation == generation
                    && now.saturating_duration_since(before.last) < FORGIVEN
            });
            known.distrusted = Some(Distrusted {
                generation,
                first: before.map_or(now, |before| before.first),
                last: now,
            });
            known.at = None;
        }
    }

    /// Whether the door of this generation may be asked.
    pub fn trust(&self, id: &SessionId, generation: Generation) -> Trust {
        let Some(entry) = self.entry(id.as_str()) else {
            return Trust::Given;
        };
        let known = entry.known();
        match known
            .distrusted
            .filter(|door| door.generation == generation)
        {
            Some(door)
                if door.last.duration_since(door.first) >= LOST
                    && door.last.elapsed() < FORGIVEN =>
            {
                Trust::Lost
            }
            Some(door) if door.last.elapsed() < DISTRUST => Trust::Lately,
            _ => Trust::Given,
        }
    }

    /// Waits until a session may have changed, a second at the most.
    pub async fn tick(&self) {
        let ticked = self.ticked.notified();
        match self.leader.try_lock() {
            Ok(_leading) => {
                self.sessions.changed(LOOK_EVERY).await;
                self.ticked.notify_waiters();
            }
            // The leader may go away without a word, with its visitor.
            Err(_) => drop(tokio::time::timeout(LOOK_EVERY, ticked).await),
        }
    }

    fn entry(&self, id: &str) -> Option<Arc<Entry>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(id).cloned()
    }

    fn make(&self, id: &SessionId) -> Arc<Entry> {
        let now = Instant::now();
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= ENTRIES_MAX {
            entries.retain(|_, entry| now.saturating_duration_since(entry.known().used) < UNUSED);
        }
        if entries.len() >= ENTRIES_MAX {
            // Somebody invents ids. What there is no session for goes first.
            entries.retain(|_, entry| entry.known().session.is_some());
        }
        let entry = entries.entry(id.clone()).or_insert_with(|| {
            Arc::new(Entry {
                known: Mutex::new(Known {
                    session: None,
                    at: None,
                    answered: true,
                    used: now,
                    distrusted: None,
                }),
                reading: tokio::sync::Mutex::new(()),
            })
        });
        Arc::clone(entry)
    }
}
