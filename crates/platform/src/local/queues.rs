//! The queues of sessions in SQLite.
//!
//! A queue is nothing but its messages: it need not be made, and is listed for as long as it has any. Its address is its
//! name.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use contract::SessionId;

use super::queue::LocalQueue;
use super::store::{Failure, Store, write};
use super::{LocalStore, QueueSettings};
use crate::error::without_session_ids;
use crate::queues::{NO_SESSION, session_of};
use crate::{Instructions, QUEUE_PREFIX, Queues, Result, SessionQueue, queue_name};

#[derive(Debug)]
pub(super) struct LocalQueues {
    store: Arc<Store>,
    /// The name of the dead letters.
    dead: String,
}

const LIST: &str = "SELECT DISTINCT queue FROM messages WHERE queue >= ?1 AND queue < ?2";

const REMOVE: &str = "DELETE FROM messages WHERE queue = ?1";

const FORGET: &str = "DELETE FROM deduplication WHERE queue = ?1";

impl LocalStore {
    /// The queues of sessions, with dead letters in the queue of the name `dead`.
    pub fn queues(&self, dead: &str) -> Arc<dyn Queues> {
        Arc::new(LocalQueues {
            store: Arc::clone(&self.store),
            dead: dead.to_owned(),
        })
    }
}

#[async_trait]
impl Queues for LocalQueues {
    async fn create(&self, session: &SessionId) -> Result<String> {
        Ok(queue_name(session))
    }

    fn open(&self, address: &str) -> Arc<dyn Instructions> {
        let settings = QueueSettings {
            dead: Some(self.dead.clone()).filter(|dead| dead != address),
            ..QueueSettings::default()
        };
        Arc::new(LocalQueue::new(Arc::clone(&self.store), address, settings))
    }

    async fn remove(&self, address: &str) -> Result<()> {
        let session = session_of(address, &self.dead);
        let known = session.as_ref().map(SessionId::as_str);
        let thing = format!("queue {}", without_session_ids(address, known));
        let name = address.to_owned();
        self.store
            .run("remove", thing, move |store, connection| {
                if session.is_none() {
                    return Err(Failure::Refused(NO_SESSION.to_owned()));
                }
                let transaction = write(connection)?;
                transaction.prepare_cached(REMOVE)?.execute([&name])?;
                transaction.prepare_cached(FORGET)?.execute([&name])?;
                transaction.commit()?;
                store.announce();
                Ok(())
            })
            .await
    }

    async fn list(&self) -> Result<Vec<SessionQueue>> {
        let dead = self.dead.clone();
        self.store
            .run("list", "the queues of sessions", move |_, connection| {
                // Everything that begins with the prefix: it ends before the next character after its last one.
                let until = format!("{}.", QUEUE_PREFIX.trim_end_matches('-'));
                let mut statement = connection.prepare_cached(LIST)?;
                let names = statement
                    .query_map([QUEUE_PREFIX, &until], |row| row.get(0))?
                    .collect::<std::result::Result<BTreeSet<String>, _>>()?;
                Ok(names
                    .into_iter()
                    .filter_map(|address| {
                        let session = session_of(&address, &dead)?;
                        Some(SessionQueue { session, address })
                    })
                    .collect())
            })
            .await
    }

    /// A file is one deployment's.
    async fn is_ours(&self, address: &str) -> Result<bool> {
        Ok(session_of(address, &self.dead).is_some())
    }
}
