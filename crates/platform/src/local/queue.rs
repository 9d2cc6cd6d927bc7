//! A FIFO queue in SQLite.
//!
//! ```text
//!             send                receive (count + 1)              delete
//!  (dropped) ◀──── duplicate?     ┌───────────────▶ in flight ───────────────▶ gone
//!                 └──▶ waiting ───┤                   │ │ ▲ extend
//!                         ▲       ├─▶ dead letters    │ └─┘
//!                         │       └─▶ gone (retention)│
//!                         └───────────────────────────┘ release, or the visibility timeout is over
//! ```
//!
//! A message is in flight while `visible_at` lies in the future, so that nothing has to happen when its time is over:
//! no process has to be alive for a message to come back. Its handle is its number and its receive count, both of which
//! must still be right: that is why it goes stale on redelivery and on expiry alike.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction};
use tokio::time::Instant;

use super::QueueSettings;
use super::store::{Failure, Outcome, Store, write};
use crate::{
    DEDUPLICATION_WINDOW, Delivery, DeliveryHandle, Depth, Instructions, Lease, Outgoing,
    RETENTION, Result, Sent, VISIBILITY_MAX,
};

/// The visibility of a message that is not in flight. Not the present moment, so that a clock that is set back does not
/// put a released message in flight again.
const VISIBLE: i64 = 0;

/// One queue of a [`super::LocalStore`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LocalQueue {
    queue: Arc<Queue>,
}

#[derive(Debug)]
struct Queue {
    store: Arc<Store>,
    name: String,
    settings: QueueSettings,
}

impl LocalQueue {
    pub(super) fn new(store: Arc<Store>, name: &str, settings: QueueSettings) -> Self {
        Self {
            queue: Arc::new(Queue {
                store,
                name: name.to_owned(),
                settings,
            }),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.queue.name
    }

    /// Makes everything visible at once that is in flight, and returns how many messages that were. For a consumer that
    /// knows that it is the only one, and that whoever held these deliveries is dead.
    pub async fn release_all(&self) -> Result<usize> {
        self.run("release the deliveries of", |queue, connection| {
            let now = queue.store.now().unix_ms();
            let released =
                connection
                    .prepare_cached(RELEASE_ALL)?
                    .execute((&queue.name, now, VISIBLE))?;
            queue.store.announce();
            Ok(released)
        })
        .await
    }

    async fn run<T, W>(&self, operation: &'static str, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(&Arc<Queue>, &mut Connection) -> Outcome<T> + Send + 'static,
    {
        let queue = Arc::clone(&self.queue);
        let thing = format!("queue {}", queue.name);
        self.queue
            .store
            .run(operation, thing, move |_, connection| {
                work(&queue, connection)
            })
            .await
    }
}

#[async_trait]
impl Instructions for LocalQueue {
    async fn send(&self, message: &Outgoing) -> Result<Sent> {
        let message = message.clone();
        self.run("send to", move |queue, connection| {
            message.check().map_err(Failure::Refused)?;
            let sent = queue.send(connection, &message)?;
            if !sent.duplicate {
                queue.store.announce();
            }
            Ok(sent)
        })
        .await
    }

    async fn receive(&self, wait: Duration, visibility: Duration) -> Result<Option<Delivery>> {
        let store = &self.queue.store;
        let until = Instant::now().checked_add(wait);
        let mut watch = None;
        loop {
            // Before the look: what happens between the look and the wait must end the wait.
            let changed = store.changed();
            let look = self
                .run("receive from", move |queue, connection| {
                    queue.look(connection, visibility)
                })
                .await?;
            let next = match look {
                Look::Found(handed_out) => return Ok(Some(handed_out.accept())),
                Look::Nothing { next } => next,
            };
            let now = Instant::now();
            if until.is_some_and(|until| until <= now) {
                return Ok(None);
            }
            let Some(watch) = &watch else {
                // Only now, because most receives need not wait. What was written before the watch began needs a look.
                watch = Some(store.watch());
                continue;
            };
            let patience = next.map_or(watch.patience(), |next| {
                next.since(store.now()).min(watch.patience())
            });
            let wake = now + patience;
            tokio::select! {
                () = changed => {}
                () = watch.written() => {}
                () = tokio::time::sleep_until(until.map_or(wake, |until| until.min(wake))) => {}
            }
        }
    }

    async fn extend(&self, handle: &DeliveryHandle, visibility: Duration) -> Result<Lease> {
        let handle = handle.clone();
        self.run("extend a delivery of", move |queue, connection| {
            let lease = queue.extend(connection, &Key::read(&handle)?, visibility)?;
            if lease == Lease::Held {
                queue.store.announce();
            }
            Ok(lease)
        })
        .await
    }

    async fn delete(&self, handle: &DeliveryHandle) -> Result<Lease> {
        let handle = handle.clone();
        self.run("delete a message of", move |queue, connection| {
            let lease = queue.delete(connection, &Key::read(&handle)?)?;
            if lease == Lease::Held {
                queue.store.announce();
            }
            Ok(lease)
        })
        .await
    }

    async fn depth(&self) -> Result<Depth> {
        self.run("count", |queue, connection| queue.depth(connection))
            .await
    }
}

/// What a look into the queue came to.
enum Look {
    Found(HandedOut),
    Nothing { next: Option<Timestamp> },
}

/// A delivery on its way from the blocking thread to the caller of `receive`. If the caller has gone, or goes before it
/// takes it, the delivery is undone: the message is visible at once and was never received. So a `receive` may be raced
/// against anything, as often as one likes, without bringing a message nearer to the dead letters.
struct HandedOut {
    queue: Arc<Queue>,
    delivery: Option<Delivery>,
}

impl HandedOut {
    fn accept(mut self) -> Delivery {
        self.delivery
            .take()
            .expect("filled when made, taken only here and in drop")
    }
}

impl Drop for HandedOut {
    fn drop(&mut self) {
        let Some(delivery) = self.delivery.take() else {
            return;
        };
        // If this fails, the message comes back when its visibility timeout is over.
        if self.queue.undo(&delivery.handle).is_ok() {
            self.queue.store.announce();
        }
    }
}

/// What a handle says: which message, and which of its deliveries.
struct Key {
    number: i64,
    receive_count: u32,
}

impl Key {
    fn write(&self) -> DeliveryHandle {
        DeliveryHandle::new(format!("{}.{}", self.number, self.receive_count))
    }

    fn read(handle: &DeliveryHandle) -> Outcome<Self> {
        handle
            .as_str()
            .split_once('.')
            .and_then(|(number, count)| {
                Some(Self {
                    number: number.parse().ok()?,
                    receive_count: count.parse().ok()?,
                })
            })
            .ok_or_else(|| Failure::Refused(format!("{handle:?} was not made by a local queue")))
    }
}

/// The first message of a group, as far as it is looked at to decide what becomes of it.
struct Head {
    number: i64,
    group: String,
    kept_until: i64,
    receive_count: u32,
}

impl Head {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            number: row.get(0)?,
            group: row.get(1)?,
            kept_until: row.get(2)?,
            receive_count: row.get(3)?,
        })
    }
}

const FORGET: &str = "DELETE FROM deduplication WHERE remembered_until <= ?1";

const REMEMBERED: &str = "SELECT message_id FROM deduplication
    WHERE queue = ?1 AND group_id = ?2 AND deduplication_id = ?3";

const REMEMBER: &str =
    "INSERT INTO deduplication (queue, group_id, deduplication_id, message_id, remembered_until)
    VALUES (?1, ?2, ?3, ?4, ?5)";

const INSERT: &str = "INSERT INTO messages
    (queue, group_id, head, kept_until, sent_at, message_id, deduplication_id, body, trace_parent)
    VALUES (?1, ?2, NOT EXISTS (SELECT 1 FROM messages WHERE queue = ?1 AND group_id = ?2), ?3, ?4,
        lower(hex(randomblob(16))), ?5, ?6, ?7)
    RETURNING message_id";

const NEXT_VISIBLE: &str = "SELECT min(visible_at) FROM messages INDEXED BY heads_by_visibility
    WHERE queue = ?1 AND head = 1";

const VISIBLE_HEAD: &str =
    "SELECT number, group_id, kept_until, receive_count FROM messages INDEXED BY heads_by_age
    WHERE queue = ?1 AND head = 1 AND visible_at <= ?2 ORDER BY number LIMIT 1";

const TAKE: &str = "UPDATE messages
    SET visible_at = ?2, receive_count = receive_count + 1, received_at = ?3,
        first_received_at = ifnull(first_received_at, ?3)
    WHERE number = ?1
    RETURNING body, message_id, group_id, receive_count, sent_at, first_received_at, trace_parent";

const UNDO: &str = "UPDATE messages
    SET visible_at = ?3, receive_count = receive_count - 1,
        first_received_at = CASE receive_count WHEN 1 THEN NULL ELSE first_received_at END
    WHERE number = ?1 AND receive_count = ?2";

const BURY: &str = "INSERT INTO messages
    (queue, group_id, head, kept_until, sent_at, message_id, deduplication_id, body, trace_parent)
    SELECT ?2, group_id,
        NOT EXISTS (SELECT 1 FROM messages AS dead WHERE dead.queue = ?2 AND dead.group_id = messages.group_id),
        ?3, sent_at, message_id, deduplication_id, body, trace_parent
    FROM messages WHERE number = ?1";

const REMOVE: &str = "DELETE FROM messages WHERE number = ?1";

const PROMOTE: &str = "UPDATE messages SET head = 1
    WHERE number = (SELECT min(number) FROM messages WHERE queue = ?1 AND group_id = ?2)";

const HELD: &str = "SELECT received_at, group_id FROM messages
    WHERE number = ?1 AND receive_count = ?2 AND queue = ?3 AND visible_at > ?4";

const HIDE: &str = "UPDATE messages SET visible_at = ?2 WHERE number = ?1";

const RELEASE_ALL: &str =
    "UPDATE messages SET visible_at = ?3 WHERE queue = ?1 AND head = 1 AND visible_at > ?2";

const DEPTH: &str = "SELECT count(*), count(*) FILTER (WHERE visible_at > ?2) FROM messages
    WHERE queue = ?1 AND (kept_until > ?2 OR visible_at > ?2)";

impl Queue {
    fn send(&self, connection: &mut Connection, message: &Outgoing) -> Outcome<Sent> {
        let transaction = write(connection)?;
        let now = self.store.now();
        transaction
            .prepare_cached(FORGET)?
            .execute([now.unix_ms()])?;
        let key = (&self.name, &message.group, &message.deduplication_id);
        let known: Option<String> = transaction
            .prepare_cached(REMEMBERED)?
            .query_row(key, |row| row.get(0))
            .optional()?;
        if let Some(message_id) = known {
            return Ok(Sent {
                message_id,
                duplicate: true,
            });
        }
        let message_id: String = transaction.prepare_cached(INSERT)?.query_row(
            (
                &self.name,
                &message.group,
                now.plus(RETENTION).unix_ms(),
                now.unix_ms(),
                &message.deduplication_id,
                &message.body,
                &message.trace_parent,
            ),
            |row| row.get(0),
        )?;
        let until = now.plus(DEDUPLICATION_WINDOW).unix_ms();
        transaction
            .prepare_cached(REMEMBER)?
            .execute((key.0, key.1, key.2, &message_id, until))?;
        transaction.commit()?;
        Ok(Sent {
            message_id,
            duplicate: false,
        })
    }

    fn look(self: &Arc<Self>, connection: &mut Connection, visibility: Duration) -> Outcome<Look> {
        let visibility = checked(visibility)?;
        // A look that finds nothing must not take the lock: it happens all the time.
        match self.next_visible(connection)? {
            Some(next) if next <= self.store.now() => {}
            next => return Ok(Look::Nothing { next }),
        }
        let transaction = write(connection)?;
        let mut buried = false;
        let now = self.store.now();
        let found = loop {
            let head = transaction
                .prepare_cached(VISIBLE_HEAD)?
                .query_row((&self.name, now.unix_ms()), Head::read)
                .optional()?;
            let Some(head) = head else { break None };
            if head.kept_until <= now.unix_ms() {
                self.remove(&transaction, head.number, &head.group)?;
                continue;
            }
            match &self.settings.dead {
                Some(dead) if head.receive_count >= self.settings.max_receive_count.max(1) => {
                    let kept_until = now.plus(RETENTION).unix_ms();
                    transaction
                        .prepare_cached(BURY)?
                        .execute((head.number, dead, kept_until))?;
                    self.remove(&transaction, head.number, &head.group)?;
                    buried = true;
                }
                _ => break Some(take(&transaction, head.number, now, visibility)?),
            }
        };
        transaction.commit()?;
        if buried {
            // The dead letters are a queue too, and somebody may wait there.
            self.store.announce();
        }
        match found {
            Some(delivery) => Ok(Look::Found(HandedOut {
                queue: Arc::clone(self),
                delivery: Some(delivery),
            })),
            None => Ok(Look::Nothing {
                next: self.next_visible(connection)?,
            }),
        }
    }

    /// When the first message of this queue is or will be visible.
    fn next_visible(&self, connection: &Connection) -> Outcome<Option<Timestamp>> {
        let moment: Option<i64> = connection
            .prepare_cached(NEXT_VISIBLE)?
            .query_row([&self.name], |row| row.get(0))?;
        Ok(moment.map(Timestamp::from_unix_ms))
    }

    fn extend(
        &self,
        connection: &mut Connection,
        key: &Key,
        visibility: Duration,
    ) -> Outcome<Lease> {
        let visibility = checked(visibility)?;
        let transaction = write(connection)?;
        let now = self.store.now();
        let Some((received_at, _)) = self.held(&transaction, key, now)? else {
            return Ok(Lease::Lost);
        };
        let until = now.plus(visibility);
        if until > received_at.plus(VISIBILITY_MAX) {
            return Err(Failure::Refused(format!(
                "a delivery is kept for at most {} hours in all",
                VISIBILITY_MAX.as_secs() / 3600
            )));
        }
        let until = if visibility.is_zero() {
            VISIBLE
        } else {
            until.unix_ms()
        };
        transaction
            .prepare_cached(HIDE)?
            .execute((key.number, until))?;
        transaction.commit()?;
        Ok(Lease::Held)
    }

    fn delete(&self, connection: &mut Connection, key: &Key) -> Outcome<Lease> {
        let transaction = write(connection)?;
        let Some((_, group)) = self.held(&transaction, key, self.store.now())? else {
            return Ok(Lease::Lost);
        };
        self.remove(&transaction, key.number, &group)?;
        transaction.commit()?;
        Ok(Lease::Held)
    }

    /// When a delivery was made and of which group its message is, if it is still in force.
    fn held(
        &self,
        transaction: &Transaction<'_>,
        key: &Key,
        now: Timestamp,
    ) -> Outcome<Option<(Timestamp, String)>> {
        let row = transaction
            .prepare_cached(HELD)?
            .query_row(
                (key.number, key.receive_count, &self.name, now.unix_ms()),
                |row| Ok((Timestamp::from_unix_ms(row.get(0)?), row.get(1)?)),
            )
            .optional()?;
        Ok(row)
    }

    /// Removes the first message of a group, and makes the next one the first.
    fn remove(&self, transaction: &Transaction<'_>, number: i64, group: &str) -> Outcome<()> {
        transaction.prepare_cached(REMOVE)?.execute([number])?;
        transaction
            .prepare_cached(PROMOTE)?
            .execute((&self.name, group))?;
        Ok(())
    }

    /// Makes a delivery not have happened. Blocks.
    fn undo(&self, handle: &DeliveryHandle) -> Outcome<()> {
        let key = Key::read(handle)?;
        let connection = self.store.connection();
        connection
            .prepare_cached(UNDO)?
            .execute((key.number, key.receive_count, VISIBLE))?;
        Ok(())
    }

    fn depth(&self, connection: &Connection) -> Outcome<Depth> {
        let now = self.store.now().unix_ms();
        let (all, in_flight): (u64, u64) = connection
            .prepare_cached(DEPTH)?
            .query_row((&self.name, now), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(Depth {
            waiting: all - in_flight,
            in_flight,
        })
    }
}

fn take(
    transaction: &Transaction<'_>,
    number: i64,
    now: Timestamp,
    visibility: Duration,
) -> Outcome<Delivery> {
    let until = now.plus(visibility).unix_ms();
    let delivery =
        transaction
            .prepare_cached(TAKE)?
            .query_row((number, until, now.unix_ms()), |row| {
                let receive_count = row.get(3)?;
                Ok(Delivery {
                    body: row.get(0)?,
                    handle: Key {
                        number,
                        receive_count,
                    }
                    .write(),
                    message_id: row.get(1)?,
                    group: row.get(2)?,
                    receive_count,
                    sent_at: Timestamp::from_unix_ms(row.get(4)?),
                    first_received_at: Timestamp::from_unix_ms(row.get(5)?),
                    trace_parent: row.get(6)?,
                })
            })?;
    Ok(delivery)
}

/// A visibility timeout in whole milliseconds, rounded up: what is not zero must not become a release.
fn checked(visibility: Duration) -> Outcome<Duration> {
    if visibility > VISIBILITY_MAX {
        let hours = VISIBILITY_MAX.as_secs() / 3600;
        return Err(Failure::Refused(format!(
            "a visibility timeout is at most {hours} hours"
        )));
    }
    let milliseconds = visibility.as_nanos().div_ceil(1_000_000);
    Ok(Duration::from_millis(
        u64::try_from(milliseconds).expect("below the maximum"),
    ))
}

/// Linux tells of every write, also of our own, so that only here is it seen whether the store announces what it does.
#[cfg(test)]
mod tests {
    use std::future::Future;

    use super::*;
    use crate::local::Clock;

    const SECOND: Duration = Duration::from_secs(1);

    /// When something happens: a receiver that nobody tells has looked 34 ms before and will look in 66 ms.
    const MOMENT: Duration = Duration::from_millis(1_234);

    /// A queue on a system that tells of no writes, its dead letters, and the folder of both. Time is tokio's.
    fn untold() -> (LocalQueue, LocalQueue, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let begun = Instant::now();
        let clock: Clock =
            Arc::new(move || Timestamp::from_unix_ms(1_795_339_800_000).plus(begun.elapsed()));
        let mut store = Store::open(&folder.path().join("store"), clock).expect("open");
        store.watch_nothing();
        let store = Arc::new(store);
        let settings = QueueSettings {
            max_receive_count: 1,
            dead: Some("dead".to_owned()),
        };
        let queue = LocalQueue::new(Arc::clone(&store), "queue", settings);
        (
            queue,
            LocalQueue::new(store, "dead", QueueSettings::default()),
            folder,
        )
    }

    async fn send(queue: &LocalQueue, body: &str) {
        let (group, deduplication_id) = ("one".to_owned(), body.to_owned());
        queue
            .send(&Outgoing {
                body: body.to_owned(),
                group,
                deduplication_id,
                trace_parent: None,
            })
            .await
            .expect("send");
    }

    async fn receive(queue: &LocalQueue) -> Delivery {
        queue
            .receive(20 * SECOND, 60 * SECOND)
            .await
            .expect("receive")
            .expect("a message must come")
    }

    /// Whether `deed` lets a waiting receiver of `queue` have a message in the same moment.
    async fn lets_in(queue: &LocalQueue, deed: impl Future<Output = ()>) -> bool {
        let begun = Instant::now();
        let at_moment = async {
            tokio::time::sleep(MOMENT).await;
            deed.await;
        };
        let (_, ()) = tokio::join!(receive(queue), at_moment);
        begun.elapsed() == MOMENT
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_is_sent_is_announced() {
        let (queue, _, _folder) = untold();
        assert!(lets_in(&queue, send(&queue, "a")).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_is_released_is_announced() {
        let (_, queue, _folder) = untold();
        send(&queue, "a").await;
        let held = receive(&queue).await;
        let release = async {
            assert_eq!(
                queue
                    .extend(&held.handle, Duration::ZERO)
                    .await
                    .expect("release"),
                Lease::Held
            );
        };
        assert!(lets_in(&queue, release).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_that_is_unblocked_is_announced() {
        let (queue, _, _folder) = untold();
        send(&queue, "a").await;
        send(&queue, "b").await;
        let held = receive(&queue).await;
        let delete = async {
            assert_eq!(
                queue.delete(&held.handle).await.expect("delete"),
                Lease::Held
            );
        };
        assert!(lets_in(&queue, delete).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_letter_is_announced() {
        let (queue, dead, _folder) = untold();
        send(&queue, "a").await;
        queue
            .receive(Duration::ZERO, Duration::ZERO)
            .await
            .expect("receive")
            .expect("sent");
        let look = async {
            assert_eq!(
                queue
                    .receive(Duration::ZERO, SECOND)
                    .await
                    .expect("receive"),
                None
            );
        };
        assert!(lets_in(&dead, look).await);
    }
}
