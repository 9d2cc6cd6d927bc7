//! The sessions in SQLite, with the rows of their threads and slots.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use contract::session::{State, Transition};
use contract::{ClientId, Generation, Session, SessionId, ThreadId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Transaction};

use super::store::{Failure, Outcome, Store, from_json, to_json, write};
use super::watch::Watch;
use crate::sessions::check_nonce;
use crate::{Created, Removed, Result, Sessions, TransitionFailed};

#[derive(Debug)]
pub(super) struct LocalSessions {
    store: Arc<Store>,
    /// What tells of writes, kept from one wait to the next, so that nothing between them is missed. Empty before the
    /// first wait, and while somebody waits.
    watch: Mutex<Option<Watch>>,
}

impl LocalSessions {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            watch: Mutex::new(None),
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<Watch>> {
        // Nothing can panic while it is held.
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const GET: &str = "SELECT json FROM sessions WHERE session_id = ?1";

const LIST: &str = "SELECT json FROM sessions WHERE client_id = ?1 ORDER BY created_at, session_id";

const INSERT: &str =
    "INSERT INTO sessions (session_id, client_id, created_at, json) VALUES (?1, ?2, ?3, ?4)";

const UPDATE: &str = "UPDATE sessions SET json = ?2 WHERE session_id = ?1";

const FIND: &str = "SELECT session_id FROM threads WHERE client_id = ?1 AND thread_id = ?2";

const INSERT_THREAD: &str =
    "INSERT INTO threads (client_id, thread_id, session_id) VALUES (?1, ?2, ?3)";

const SLOTS: &str = "SELECT number, session_id, generation FROM slots
    WHERE client_id = ?1 AND number < ?2 ORDER BY number";

const HOLDS_SLOT: &str =
    "SELECT EXISTS (SELECT 1 FROM slots WHERE session_id = ?1 AND generation = ?2)";

const TAKE_SLOT: &str = "INSERT OR REPLACE INTO slots (client_id, number, session_id, generation)
    VALUES (?1, ?2, ?3, ?4)";

const GIVE_BACK: &str = "DELETE FROM slots WHERE session_id = ?1";

const REMOVE: &str = "DELETE FROM sessions WHERE session_id = ?1";

const FREE_THREAD: &str =
    "DELETE FROM threads WHERE client_id = ?1 AND thread_id = ?2 AND session_id = ?3";

const FORGET: &str = "DELETE FROM nonces WHERE remembered_until < ?1";

const SPEND: &str = "INSERT OR IGNORE INTO nonces (nonce, remembered_until) VALUES (?1, ?2)";

#[async_trait]
impl Sessions for LocalSessions {
    async fn get(&self, id: &SessionId) -> Result<Option<Session>> {
        let key = id.clone();
        self.store
            .run("read", thing(id), move |_, connection| {
                load(connection, &key)
            })
            .await
    }

    async fn find(&self, client: &ClientId, thread: &ThreadId) -> Result<Option<SessionId>> {
        let key = (client.to_string(), thread.to_string());
        self.store
            .run(
                "find",
                format!("the session of a thread of {client}"),
                move |_, connection| session_of_thread(connection, &key.0, &key.1),
            )
            .await
    }

    async fn create(&self, session: &Session) -> Result<Created> {
        let thing = thing(&session.session_id);
        let session = session.clone();
        self.store
            .run("create", thing, move |store, connection| {
                let (id, client) = (session.session_id.as_str(), session.client_id.as_str());
                let transaction = write(connection)?;
                if let Some(taken) =
                    session_of_thread(&transaction, client, session.thread_id.as_str())?
                {
                    return Ok(Created::ThreadTaken(taken));
                }
                if load(&transaction, &session.session_id)?.is_some() {
                    return Ok(Created::IdTaken);
                }
                let created_at = session.created_at.unix_ms();
                transaction.prepare_cached(INSERT)?.execute((
                    id,
                    client,
                    created_at,
                    to_json(&session)?,
                ))?;
                transaction.prepare_cached(INSERT_THREAD)?.execute((
                    client,
                    session.thread_id.as_str(),
                    id,
                ))?;
                transaction.commit()?;
                store.announce();
                Ok(Created::New)
            })
            .await
    }

    async fn transition(
        &self,
        id: &SessionId,
        caller: Generation,
        transition: &Transition,
        slots: u32,
        now: Timestamp,
    ) -> Result<std::result::Result<Session, TransitionFailed>> {
        let (key, transition) = (id.clone(), transition.clone());
        self.store
            .run("write", thing(id), move |store, connection| {
                let transaction = write(connection)?;
                let Some(session) = load(&transaction, &key)? else {
                    return Ok(Err(TransitionFailed::NoSuchSession));
                };
                let next = match transition.apply(&session, caller, now) {
                    Ok(next) => next,
                    Err(refused) => return Ok(Err(TransitionFailed::Refused(refused))),
                };
                let may_go_on = match transition {
                    Transition::Wake { .. } => take_slot(&transaction, &next, slots, now)?,
                    Transition::Sleep { .. } | Transition::Fail { .. } => {
                        transaction
                            .prepare_cached(GIVE_BACK)?
                            .execute([key.as_str()])?;
                        true
                    }
                    // Within its lease nobody can have taken the slot away.
                    _ => !lease_is_over(&session, now) || holds_slot(&transaction, &session)?,
                };
                if !may_go_on {
                    return Ok(Err(TransitionFailed::NoSlot { limit: slots }));
                }
                transaction
                    .prepare_cached(UPDATE)?
                    .execute((key.as_str(), to_json(&next)?))?;
                transaction.commit()?;
                store.announce();
                Ok(Ok(next))
            })
            .await
    }

    async fn list(&self, client: &ClientId) -> Result<Vec<Session>> {
        let key = client.to_string();
        self.store
            .run(
                "list",
                format!("the sessions of {client}"),
                move |_, connection| {
                    let mut statement = connection.prepare_cached(LIST)?;
                    let rows = statement.query_map([key], |row| row.get::<_, String>(0))?;
                    rows.map(|json| from_json(&json?)).collect()
                },
            )
            .await
    }

    async fn remove(&self, session: &Session) -> Result<Removed> {
        let thing = thing(&session.session_id);
        let session = session.clone();
        self.store
            .run("remove", thing, move |store, connection| {
                let id = session.session_id.as_str();
                let transaction = write(connection)?;
                if let Some(stored) = load(&transaction, &session.session_id)?
                    && is_used(&stored, session.generation, store.now())
                {
                    return Ok(Removed::Used);
                }
                transaction.prepare_cached(REMOVE)?.execute([id])?;
                transaction.prepare_cached(GIVE_BACK)?.execute([id])?;
                transaction.prepare_cached(FREE_THREAD)?.execute((
                    session.client_id.as_str(),
                    session.thread_id.as_str(),
                    id,
                ))?;
                transaction.commit()?;
                store.announce();
                Ok(Removed::Gone)
            })
            .await
    }

    async fn spend(&self, nonce: &str, until: Timestamp) -> Result<bool> {
        let nonce = nonce.to_owned();
        self.store
            .run("spend", "a nonce", move |store, connection| {
                check_nonce(&nonce).map_err(Failure::Refused)?;
                let transaction = write(connection)?;
                transaction
                    .prepare_cached(FORGET)?
                    .execute([store.now().unix_ms()])?;
                let written = transaction
                    .prepare_cached(SPEND)?
                    .execute((nonce.as_str(), until.unix_ms()))?;
                transaction.commit()?;
                Ok(written == 1)
            })
            .await
    }

    /// Hears of every write to the file, whichever process it is of and whatever it is about. The first wait is over at
    /// once, because what was before it is not known. For one waiter at a time: of several, each of the others is one
    /// who waits for the first time.
    async fn changed(&self, patience: Duration) {
        // Before the watch is looked for: what happens from now on ends the wait.
        let changed = self.store.changed();
        let watch = self.kept().take();
        let Some(watch) = watch else {
            *self.kept() = Some(self.store.watch());
            return;
        };
        let watch = Borrowed {
            from: self,
            watch: Some(watch),
        };
        let longest = patience.min(watch.patience());
        tokio::select! {
            () = changed => {}
            () = watch.written() => {}
            () = tokio::time::sleep(longest) => {}
        }
    }
}

/// The watch, for as long as somebody waits; given back also by a wait that is given up.
struct Borrowed<'a> {
    from: &'a LocalSessions,
    watch: Option<Watch>,
}

impl std::ops::Deref for Borrowed<'_> {
    type Target = Watch;

    fn deref(&self) -> &Watch {
        self.watch
            .as_ref()
            .expect("filled when made, taken in drop")
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        *self.from.kept() = self.watch.take();
    }
}

/// A session's id is a capability: an error shows its beginning.
fn thing(id: &SessionId) -> String {
    format!("session {}", id.redacted())
}

fn load(connection: &Connection, id: &SessionId) -> Outcome<Option<Session>> {
    let json: Option<String> = connection
        .prepare_cached(GET)?
        .query_row([id.as_str()], |row| row.get(0))
        .optional()?;
    json.as_deref().map(from_json).transpose()
}

fn session_of_thread(
    connection: &Connection,
    client: &str,
    thread: &str,
) -> Outcome<Option<SessionId>> {
    let id: Option<String> = connection
        .prepare_cached(FIND)?
        .query_row((client, thread), |row| row.get(0))
        .optional()?;
    id.map(session_id).transpose()
}

fn session_id(text: String) -> Outcome<SessionId> {
    Ok(serde_json::from_value(serde_json::Value::String(text))?)
}

/// Puts the waking session into the first free slot below `limit`. The one that it had before is free, like that of any
/// other session that can be woken.
fn take_slot(
    transaction: &Transaction<'_>,
    waking: &Session,
    limit: u32,
    now: Timestamp,
) -> Outcome<bool> {
    let client = waking.client_id.as_str();
    let mut held = Vec::new();
    {
        let mut statement = transaction.prepare_cached(SLOTS)?;
        let mut rows = statement.query((client, limit))?;
        while let Some(row) = rows.next()? {
            let (number, holder, generation) = (
                row.get(0)?,
                session_id(row.get(1)?)?,
                Generation(row.get(2)?),
            );
            if is_held(transaction, &holder, generation, now)? {
                held.push(number);
            }
        }
    }
    let Some(free) = (0..limit).find(|number| !held.contains(number)) else {
        return Ok(false);
    };
    let holder = (waking.session_id.as_str(), waking.generation.0);
    transaction
        .prepare_cached(TAKE_SLOT)?
        .execute((client, free, holder.0, holder.1))?;
    Ok(true)
}

/// Whether the session that took a slot in `generation` is still entitled to it.
fn is_held(
    connection: &Connection,
    holder: &SessionId,
    generation: Generation,
    now: Timestamp,
) -> Outcome<bool> {
    Ok(load(connection, holder)?.is_some_and(|holder| {
        holder.generation == generation
            && matches!(holder.state, State::Waking | State::Ready | State::Draining)
            && !lease_is_over(&holder, now)
    }))
}

fn holds_slot(connection: &Connection, session: &Session) -> Outcome<bool> {
    let key = (session.session_id.as_str(), session.generation.0);
    Ok(connection
        .prepare_cached(HOLDS_SLOT)?
        .query_row(key, |row| row.get(0))?)
}

/// Whether somebody woke the session after it was read in `generation`, or acts for it now.
fn is_used(stored: &Session, generation: Generation, now: Timestamp) -> bool {
    let awake = matches!(stored.state, State::Waking | State::Ready | State::Draining);
    stored.generation != generation || (awake && !lease_is_over(stored, now))
}

/// As [`Transition::Wake`] sees it: whoever can be woken by another has no claim to a slot.
fn lease_is_over(session: &Session, now: Timestamp) -> bool {
    session.lease_until.is_none_or(|until| until < now)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::conformance::records::{client, session};

    const MINUTE: Duration = Duration::from_mins(1);

    /// How long one waits at most where writes are told of, and where they are not.
    const TOLD: Duration = Duration::from_secs(1);
    const NEVER_TOLD: Duration = Duration::from_millis(100);

    /// The sessions of a new file, on a system that tells of writes or on one that does not. Time is tokio's.
    fn sessions(told: bool) -> (LocalSessions, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(Timestamp::now);
        let mut store = Store::open(&folder.path().join("store"), clock).expect("open");
        if !told {
            store.watch_nothing();
        }
        (LocalSessions::new(Arc::new(store)), folder)
    }

    async fn write_one(sessions: &LocalSessions) {
        let created = sessions.create(&session(&client("amelia"), 1)).await;
        assert_eq!(created.expect("create"), Created::New);
    }

    /// How long a wait takes.
    async fn waited(sessions: &LocalSessions) -> Duration {
        let begun = Instant::now();
        sessions.changed(MINUTE).await;
        begun.elapsed()
    }

    #[cfg(target_os = "linux")]
    #[tokio::test(start_paused = true)]
    async fn what_is_written_between_two_waits_ends_the_next_one() {
        let (sessions, _folder) = sessions(true);
        assert_eq!(waited(&sessions).await, Duration::ZERO, "the first one");
        assert_eq!(waited(&sessions).await, TOLD, "nobody wrote");
        write_one(&sessions).await;
        assert_eq!(waited(&sessions).await, Duration::ZERO, "somebody wrote");
        assert_eq!(waited(&sessions).await, TOLD, "nobody wrote since");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_given_up_misses_nothing_for_the_next_one() {
        let (sessions, _folder) = sessions(true);
        sessions.changed(MINUTE).await;
        let given_up = tokio::time::timeout(Duration::from_millis(1), sessions.changed(MINUTE));
        given_up.await.expect_err("nobody wrote");
        assert_eq!(waited(&sessions).await, TOLD, "it is no first one");
        write_one(&sessions).await;
        assert_eq!(waited(&sessions).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_is_announced_where_the_system_does_not_tell() {
        let moment = Duration::from_millis(34);
        let (sessions, _folder) = sessions(false);
        sessions.changed(MINUTE).await;
        assert_eq!(waited(&sessions).await, NEVER_TOLD, "nobody wrote");
        let at_moment = async {
            tokio::time::sleep(moment).await;
            write_one(&sessions).await;
        };
        let (waited, ()) = tokio::join!(waited(&sessions), at_moment);
        assert_eq!(waited, moment);
    }
}
