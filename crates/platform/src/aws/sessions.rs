//! The sessions in DynamoDB, with the rows of their threads and slots, and of what may be used once, in the same table.
//!
//! | key `sessionId` | holds | written |
//! |---|---|---|
//! | a session's id | the session, a field an attribute, and `slot`, the number of the slot that it took last | by every transition |
//! | `thread#<clientId>#<sha256 of threadId>` | `heldBy`, the session's id | with the session, and removed with it; never in between |
//! | `slot#<clientId>#<n>` | `heldBy`, `generation` | by `Wake`, with the session; removed by `Sleep` and `Fail` |
//! | `nonce#<nonce>` | `spentBy`, a number of that call, and `expiresAt`, when DynamoDB may remove it | once |
//!
//! Rows of threads and slots have neither `clientId` nor `threadId`, so that the index that lists sessions has sessions
//! only. All keys of a client's rows begin with its id, for roles that are limited to one client. Nonces are the router's.
//!
//! A transition reads the session, judges it by the contract's table, and writes what changed on the condition that
//! everything that was looked at is still as it was read. Where the condition fails, it is judged anew.
//!
//! **Slots.** Who waked last has its slot until it goes on to another generation, is dormant or failed, or its lease is
//! over; all of that is in the holder's own row, so that a slot's row need not be removed to be free. Removing it is
//! tidiness, and its failure is no error. Taking a slot from somebody whose lease is over is conditional on his not
//! having renewed it meanwhile; renewing a lease that is over is conditional on still having the slot. So of the two one
//! wins.
//!
//! **Lost replies.** `Wake` is a transaction with a token, which DynamoDB remembers for ten minutes: repeated by the SDK
//! it succeeds again. Every other transition is an update; repeated, its condition fails, and then the session that is
//! read is exactly the one that was to be written. Nobody else writes it: it carries the generation, and the task. A
//! nonce that was spent by this very call is not spent by another.
//!
//! **Removing.** The row of a thread does not expire: a wake puts off when the session does, and the thread would be free
//! too early. Where DynamoDB removes an expired session by itself, the thread's row is left, and leads to a session that
//! is gone, until somebody removes what is left of it.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ConditionCheck, Delete, KeysAndAttributes, Put, TransactWriteItem, Update,
};
use contract::id::hex;
use contract::session::{State, Transition};
use contract::{ClientId, Generation, Session, SessionId, ThreadId, Timestamp};
use sha2::{Digest as _, Sha256};

use super::fault::Asked;
use super::record::{Item, from_item, number, text, to_item};
use super::{Table, stand_back};
use crate::random::random;
use crate::sessions::check_nonce;
use crate::{Created, PortError, Removed, Result, Sessions, TransitionFailed};

const INDEX: &str = "clientId-threadId-index";

/// The attribute of a session that says which slot it took. No field of the record: only this adapter needs it.
const SLOT: &str = "slot";

/// How often a session is judged before the caller is told that it is too busy. Each time somebody else's write went
/// through; twenty who wake one session need two turns, twenty who wake the sessions of one client a few more.
const TURNS: u32 = 20;

/// How many rows one `BatchGetItem` reads.
const BATCH: usize = 100;

#[derive(Debug)]
pub(super) struct AwsSessions {
    pub(super) table: Table,
}

/// A session as it was read.
struct Read {
    session: Session,
    item: Item,
}

/// What became of a write.
enum Wrote {
    Done,
    /// Something that was judged is not as it was.
    Beaten,
}

/// What became of a wake.
enum Woke {
    Done,
    Beaten,
    NoSlot,
}

#[async_trait]
impl Sessions for AwsSessions {
    async fn get(&self, id: &SessionId) -> Result<Option<Session>> {
        let asked = self.asked("read", id);
        Ok(self.read(&asked, id).await?.map(|read| read.session))
    }

    async fn find(&self, client: &ClientId, thread: &ThreadId) -> Result<Option<SessionId>> {
        let asked = self
            .table
            .asked("find", format!("the session of a thread of {client}"));
        self.holder_of_thread(&asked, client, thread).await
    }

    async fn create(&self, session: &Session) -> Result<Created> {
        let asked = self.asked("create", &session.session_id);
        let (client, thread) = (&session.client_id, &session.thread_id);
        let thread_row = Item::from([
            ("sessionId".to_owned(), text(thread_key(client, thread))),
            ("heldBy".to_owned(), text(session.session_id.as_str())),
        ]);
        let session_row = to_item(session).map_err(|error| asked.corrupt(error))?;
        let put = |item: Item| {
            Put::builder()
                .table_name(&self.table.name)
                .set_item(Some(item))
                .condition_expression("attribute_not_exists(sessionId)")
                .build()
                .map(|put| TransactWriteItem::builder().put(put).build())
                .map_err(|error| asked.refused(error.to_string()))
        };
        for turn in 0..TURNS {
            if turn > 0 {
                stand_back(turn).await;
            }
            let sent = self
                .table
                .dynamodb
                .transact_write_items()
                .transact_items(put(thread_row.clone())?)
                .transact_items(put(session_row.clone())?)
                .send()
                .await;
            let Err(error) = sent else {
                return Ok(Created::New);
            };
            if !is_beaten(&asked, &error)? {
                return Err(asked.failed(error));
            }
            if let Some(taken) = self.holder_of_thread(&asked, client, thread).await? {
                return Ok(Created::ThreadTaken(taken));
            }
            if self
                .row(&asked, session.session_id.as_str())
                .await?
                .is_some()
            {
                return Ok(Created::IdTaken);
            }
        }
        Err(asked.unavailable(BUSY))
    }

    async fn transition(
        &self,
        id: &SessionId,
        caller: Generation,
        transition: &Transition,
        slots: u32,
        now: Timestamp,
    ) -> Result<std::result::Result<Session, TransitionFailed>> {
        let asked = self.asked("write", id);
        let mut written: Option<Session> = None;
        for turn in 0..TURNS {
            if turn > 0 {
                stand_back(turn).await;
            }
            let Some(read) = self.read(&asked, id).await? else {
                return Ok(Err(TransitionFailed::NoSuchSession));
            };
            if written.as_ref() == Some(&read.session) {
                return Ok(Ok(read.session));
            }
            let next = match transition.apply(&read.session, caller, now) {
                Ok(next) => next,
                Err(refused) => return Ok(Err(TransitionFailed::Refused(refused))),
            };
            let wrote = match transition {
                Transition::Wake { .. } => {
                    match self.wake(&asked, &read, &next, slots, now).await? {
                        Woke::NoSlot => {
                            return Ok(Err(TransitionFailed::NoSlot { limit: slots }));
                        }
                        Woke::Beaten => continue,
                        Woke::Done => Wrote::Done,
                    }
                }
                Transition::Sleep { .. } | Transition::Fail { .. } => {
                    let wrote = self.write(&asked, &read, &next).await?;
                    if matches!(wrote, Wrote::Done) {
                        self.give_back(&read).await;
                    }
                    wrote
                }
                // Within its lease nobody can have taken the slot away.
                _ if !lease_is_over(&read.session, now) => self.write(&asked, &read, &next).await?,
                _ => {
                    if !self.holds_slot(&asked, &read).await? {
                        return Ok(Err(TransitionFailed::NoSlot { limit: slots }));
                    }
                    self.write_with_slot(&asked, &read, &next).await?
                }
            };
            match wrote {
                Wrote::Done => return Ok(Ok(next)),
                Wrote::Beaten => written = Some(next),
            }
        }
        Err(asked.unavailable(BUSY))
    }

    async fn list(&self, client: &ClientId) -> Result<Vec<Session>> {
        let asked = self
            .table
            .asked("list", format!("the sessions of {client}"));
        let mut pages = self
            .table
            .dynamodb
            .query()
            .table_name(&self.table.name)
            .index_name(INDEX)
            .key_condition_expression("clientId = :client")
            .expression_attribute_values(":client", text(client.as_str()))
            .into_paginator()
            .items()
            .send();
        let mut sessions = Vec::new();
        while let Some(item) = pages.next().await {
            let item = item.map_err(|error| asked.failed(error))?;
            match decode(&asked, &item) {
                Ok(session) => sessions.push(session),
                // One row that somebody wrote by hand is no reason to lose the others; whoever asks for it by its id is told.
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, %client, "a session's row cannot be understood and is passed over");
                }
            }
        }
        sessions.sort_by(|one: &Session, other| {
            (one.created_at, &one.session_id).cmp(&(other.created_at, &other.session_id))
        });
        Ok(sessions)
    }

    async fn remove(&self, session: &Session) -> Result<Removed> {
        let asked = self.asked("remove", &session.session_id);
        for turn in 0..TURNS {
            if turn > 0 {
                stand_back(turn).await;
            }
            let read = self.read(&asked, &session.session_id).await?;
            if let Some(read) = &read
                && is_used(&read.session, session.generation, Timestamp::now())
            {
                return Ok(Removed::Used);
            }
            let holder = self
                .holder_of_thread(&asked, &session.client_id, &session.thread_id)
                .await?;
            let has_thread = holder.as_ref() == Some(&session.session_id);
            if read.is_none() && !has_thread {
                return Ok(Removed::Gone);
            }
            let mut items = Vec::new();
            if has_thread {
                items.push(self.free_thread(&asked, session)?);
            }
            items.push(match &read {
                Some(read) => self.unless_changed(&asked, read)?,
                // It may be created again in this moment, with its thread.
                None => self.not_there(&asked, &session.session_id)?,
            });
            if let Wrote::Done = self.transact(&asked, items).await? {
                if let Some(read) = &read {
                    self.give_back(read).await;
                }
                return Ok(Removed::Gone);
            }
        }
        Err(asked.unavailable(BUSY))
    }

    async fn spend(&self, nonce: &str, until: Timestamp) -> Result<bool> {
        let asked = self.table.asked("spend", "a nonce");
        check_nonce(nonce).map_err(|reason| asked.refused(reason))?;
        let by = text(format!("{:016x}{:016x}", random(), random()));
        // Rounded up: DynamoDB may remove it after that second. It takes its time, and until then it counts as spent.
        let seconds = until.unix_ms().saturating_add(999).div_euclid(1000);
        let sent = self
            .table
            .dynamodb
            .put_item()
            .table_name(&self.table.name)
            .item("sessionId", text(format!("nonce#{nonce}")))
            .item("spentBy", by.clone())
            .item("expiresAt", number(seconds))
            // Where a reply was lost, the SDK says the same again: that is not a second one who spends it.
            .condition_expression("attribute_not_exists(sessionId) OR spentBy = :by")
            .expression_attribute_values(":by", by)
            .send()
            .await;
        let Err(error) = sent else {
            return Ok(true);
        };
        match error.as_service_error() {
            Some(service) if service.is_conditional_check_failed_exception() => Ok(false),
            _ => Err(asked.failed(error)),
        }
    }

    /// DynamoDB tells nobody (its streams are for one or two readers a table, and every router would be one).
    async fn changed(&self, patience: Duration) {
        tokio::time::sleep(patience).await;
    }
}

const BUSY: &str = "others write it all the time";

impl AwsSessions {
    fn asked(&self, operation: &'static str, id: &SessionId) -> Asked {
        self.table
            .asked(operation, format!("session {}", id.redacted()))
            .of(id)
    }

    async fn row(&self, asked: &Asked, key: &str) -> Result<Option<Item>> {
        let answer = self
            .table
            .dynamodb
            .get_item()
            .table_name(&self.table.name)
            .key("sessionId", text(key))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| asked.failed(error))?;
        Ok(answer.item)
    }

    async fn rows(&self, asked: &Asked, keys: &[String]) -> Result<HashMap<String, Item>> {
        let mut rows = HashMap::new();
        for some in keys.chunks(BATCH) {
            let keys = some
                .iter()
                .map(|key| Item::from([("sessionId".to_owned(), text(key))]))
                .collect();
            let mut wanted = Some(
                KeysAndAttributes::builder()
                    .set_keys(Some(keys))
                    .consistent_read(true)
                    .build()
                    .map_err(|error| asked.refused(error.to_string()))?,
            );
            let mut turn = 0;
            while let Some(request) = wanted.take() {
                if turn > 0 {
                    stand_back(turn).await;
                }
                if turn >= TURNS {
                    return Err(asked.unavailable("not all rows are answered"));
                }
                turn += 1;
                let answer = self
                    .table
                    .dynamodb
                    .batch_get_item()
                    .request_items(&self.table.name, request)
                    .send()
                    .await
                    .map_err(|error| asked.failed(error))?;
                let found = answer.responses.into_iter().flatten();
                for item in found.flat_map(|(_, items)| items) {
                    if let Some(AttributeValue::S(key)) = item.get("sessionId") {
                        rows.insert(key.clone(), item);
                    }
                }
                wanted = answer
                    .unprocessed_keys
                    .and_then(|mut left| left.remove(&self.table.name))
                    .filter(|left| !left.keys().is_empty());
            }
        }
        Ok(rows)
    }

    async fn read(&self, asked: &Asked, id: &SessionId) -> Result<Option<Read>> {
        let Some(item) = self.row(asked, id.as_str()).await? else {
            return Ok(None);
        };
        let session = decode(asked, &item)?;
        Ok(Some(Read { session, item }))
    }

    async fn holder_of_thread(
        &self,
        asked: &Asked,
        client: &ClientId,
        thread: &ThreadId,
    ) -> Result<Option<SessionId>> {
        let row = self.row(asked, &thread_key(client, thread)).await?;
        row.map(|item| holder(asked, &item)).transpose()
    }

    /// Writes what a transition changed.
    async fn write(&self, asked: &Asked, read: &Read, next: &Session) -> Result<Wrote> {
        let change = Change::between(asked, read, next)?;
        let sent = self
            .table
            .dynamodb
            .update_item()
            .table_name(&self.table.name)
            .key("sessionId", text(next.session_id.as_str()))
            .update_expression(change.update)
            .condition_expression(change.condition)
            .set_expression_attribute_names(Some(change.names))
            .set_expression_attribute_values(Some(change.values))
            .send()
            .await;
        let Err(error) = sent else {
            return Ok(Wrote::Done);
        };
        match error.as_service_error() {
            Some(service)
                if service.is_conditional_check_failed_exception()
                    || service.is_transaction_conflict_exception() =>
            {
                Ok(Wrote::Beaten)
            }
            _ => Err(asked.failed(error)),
        }
    }

    /// The same, if the session still has the slot that it took.
    async fn write_with_slot(&self, asked: &Asked, read: &Read, next: &Session) -> Result<Wrote> {
        let update = Change::between(asked, read, next)?.in_transaction(self, asked, next)?;
        let slot = Held {
            by: read.session.session_id.to_string(),
            generation: read.session.generation,
        };
        let check = ConditionCheck::builder()
            .table_name(&self.table.name)
            .key("sessionId", text(slot_of(read).unwrap_or_default()))
            .condition_expression(HELD)
            .set_expression_attribute_values(Some(slot.values()))
            .build()
            .map_err(|error| asked.refused(error.to_string()))?;
        let check = TransactWriteItem::builder().condition_check(check).build();
        self.transact(asked, vec![update, check]).await
    }

    async fn transact(&self, asked: &Asked, items: Vec<TransactWriteItem>) -> Result<Wrote> {
        let sent = self
            .table
            .dynamodb
            .transact_write_items()
            .set_transact_items(Some(items))
            .send()
            .await;
        match sent {
            Ok(_) => Ok(Wrote::Done),
            Err(error) if is_beaten(asked, &error)? => Ok(Wrote::Beaten),
            Err(error) => Err(asked.failed(error)),
        }
    }

    /// Whether the slot that the session took is still its own.
    async fn holds_slot(&self, asked: &Asked, read: &Read) -> Result<bool> {
        let Some(key) = slot_of(read) else {
            return Ok(false);
        };
        let row = self.row(asked, &key).await?;
        let held = row.map(|item| Held::read(asked, &item)).transpose()?;
        Ok(held.is_some_and(|held| held.is_of(&read.session)))
    }

    /// Removes the slot's row, if it is still the session's.
    async fn give_back(&self, read: &Read) {
        let Some(key) = slot_of(read) else { return };
        let slot = Held {
            by: read.session.session_id.to_string(),
            generation: read.session.generation,
        };
        // The slot is free whether or not this works: its holder sleeps.
        drop(
            self.table
                .dynamodb
                .delete_item()
                .table_name(&self.table.name)
                .key("sessionId", text(key))
                .condition_expression(HELD)
                .set_expression_attribute_values(Some(slot.values()))
                .send()
                .await,
        );
    }

    /// Puts the waking session into a free slot below `limit`. The one that it had before is free, like that of any
    /// other session that can be woken.
    async fn wake(
        &self,
        asked: &Asked,
        read: &Read,
        next: &Session,
        limit: u32,
        now: Timestamp,
    ) -> Result<Woke> {
        let client = &next.client_id;
        let limit = limit.min(contract::client_config::SESSIONS_MAX);
        let free = self.free_slots(asked, client, limit, now).await?;
        let Ok(choices) = u64::try_from(free.len()) else {
            return Ok(Woke::NoSlot);
        };
        if choices == 0 {
            return Ok(Woke::NoSlot);
        }
        // Any of them: sessions that wake at the same time would otherwise all want the first.
        let choice = usize::try_from(random() % choices).unwrap_or_default();
        let Some(slot) = free.into_iter().nth(choice) else {
            return Ok(Woke::NoSlot);
        };

        let mut change = Change::between(asked, read, next)?;
        change.set(SLOT, number(slot.number));
        let mut items = vec![change.in_transaction(self, asked, next)?];

        let taken = Held {
            by: next.session_id.to_string(),
            generation: next.generation,
        };
        let mut row = Item::from([("sessionId".to_owned(), text(slot_key(client, slot.number)))]);
        row.insert("heldBy".to_owned(), text(&taken.by));
        row.insert("generation".to_owned(), number(taken.generation));
        let mut put = Put::builder()
            .table_name(&self.table.name)
            .set_item(Some(row));
        put = match &slot.before {
            None => put.condition_expression("attribute_not_exists(sessionId)"),
            Some(before) => put
                .condition_expression(HELD)
                .set_expression_attribute_values(Some(before.values())),
        };
        let put = put
            .build()
            .map_err(|error| asked.refused(error.to_string()))?;
        items.push(TransactWriteItem::builder().put(put).build());

        if let Some(abandoned) = slot.abandoned
            && abandoned.session.session_id != next.session_id
        {
            items.push(self.unchanged(asked, &abandoned)?);
        }
        Ok(match self.transact(asked, items).await? {
            Wrote::Done => Woke::Done,
            Wrote::Beaten => Woke::Beaten,
        })
    }

    /// The slots below `limit` that nobody is entitled to.
    async fn free_slots(
        &self,
        asked: &Asked,
        client: &ClientId,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<FreeSlot>> {
        let keys: Vec<String> = (0..limit).map(|n| slot_key(client, n)).collect();
        let rows = self.rows(asked, &keys).await?;
        let mut slots = Vec::new();
        for (n, key) in (0..limit).zip(&keys) {
            let held = rows.get(key).map(|item| Held::read(asked, item));
            slots.push((n, held.transpose()?));
        }
        let mut holders: Vec<String> = slots
            .iter()
            .filter_map(|(_, held)| Some(held.as_ref()?.by.clone()))
            .collect();
        // A request that names a key twice is refused.
        holders.sort();
        holders.dedup();
        let mut sessions = self.rows(asked, &holders).await?;

        let mut free = Vec::new();
        for (number, held) in slots {
            let mut abandoned = None;
            if let Some(held) = &held
                && let Some(item) = sessions.remove(&held.by)
            {
                let session = decode(asked, &item)?;
                let awake = matches!(
                    session.state,
                    State::Waking | State::Ready | State::Draining
                );
                if session.generation != held.generation || !awake {
                    // It can only come back by waking, and that takes a slot.
                    sessions.insert(held.by.clone(), item);
                } else if lease_is_over(&session, now) {
                    abandoned = Some(Read { session, item });
                } else {
                    continue;
                }
            }
            free.push(FreeSlot {
                number,
                before: held,
                abandoned,
            });
        }
        Ok(free)
    }

    /// Removes a session, if it is as it was read.
    fn unless_changed(&self, asked: &Asked, read: &Read) -> Result<TransactWriteItem> {
        let mut change = Change::default();
        change.judge(&read.item);
        let delete = Delete::builder()
            .table_name(&self.table.name)
            .key("sessionId", text(read.session.session_id.as_str()))
            .condition_expression(change.condition)
            .set_expression_attribute_names(Some(change.names))
            .set_expression_attribute_values((!change.values.is_empty()).then_some(change.values))
            .build()
            .map_err(|error| asked.refused(error.to_string()))?;
        Ok(TransactWriteItem::builder().delete(delete).build())
    }

    /// A check that there is no such session.
    fn not_there(&self, asked: &Asked, id: &SessionId) -> Result<TransactWriteItem> {
        let check = ConditionCheck::builder()
            .table_name(&self.table.name)
            .key("sessionId", text(id.as_str()))
            .condition_expression("attribute_not_exists(sessionId)")
            .build()
            .map_err(|error| asked.refused(error.to_string()))?;
        Ok(TransactWriteItem::builder().condition_check(check).build())
    }

    /// Removes the row of a session's thread, if it is still the session's.
    fn free_thread(&self, asked: &Asked, session: &Session) -> Result<TransactWriteItem> {
        let key = thread_key(&session.client_id, &session.thread_id);
        let delete = Delete::builder()
            .table_name(&self.table.name)
            .key("sessionId", text(key))
            .condition_expression("heldBy = :by")
            .expression_attribute_values(":by", text(session.session_id.as_str()))
            .build()
            .map_err(|error| asked.refused(error.to_string()))?;
        Ok(TransactWriteItem::builder().delete(delete).build())
    }

    /// A check that a session is as it was read.
    fn unchanged(&self, asked: &Asked, read: &Read) -> Result<TransactWriteItem> {
        let mut change = Change::default();
        change.judge(&read.item);
        let check = ConditionCheck::builder()
            .table_name(&self.table.name)
            .key("sessionId", text(read.session.session_id.as_str()))
            .condition_expression(change.condition)
            .set_expression_attribute_names(Some(change.names))
            .set_expression_attribute_values((!change.values.is_empty()).then_some(change.values))
            .build()
            .map_err(|error| asked.refused(error.to_string()))?;
        Ok(TransactWriteItem::builder().condition_check(check).build())
    }
}

/// A slot that may be taken.
struct FreeSlot {
    number: u32,
    /// What its row says, if it has one.
    before: Option<Held>,
    /// Its holder, where nothing but a lease that is over makes it free.
    abandoned: Option<Read>,
}

/// The row of a slot is still what it was.
const HELD: &str = "heldBy = :by AND generation = :generation";

/// Who has a slot.
struct Held {
    by: String,
    generation: Generation,
}

impl Held {
    fn read(asked: &Asked, item: &Item) -> Result<Self> {
        let generation = item
            .get("generation")
            .and_then(|value| value.as_n().ok())
            .and_then(|digits| digits.parse().ok());
        match generation {
            Some(generation) => Ok(Self {
                by: holder(asked, item)?.to_string(),
                generation: Generation(generation),
            }),
            None => Err(asked.corrupt(Incomplete("generation"))),
        }
    }

    fn is_of(&self, session: &Session) -> bool {
        self.by == session.session_id.as_str() && self.generation == session.generation
    }

    fn values(&self) -> Item {
        Item::from([
            (":by".to_owned(), text(&self.by)),
            (":generation".to_owned(), number(self.generation)),
        ])
    }
}

/// What a transition looks at, and therefore what has to be as it was read.
const JUDGED: [&str; 8] = [
    "generation",
    "state",
    "taskArn",
    "phase",
    "lastActivityAt",
    "leaseUntil",
    "containerIp",
    "port",
];

/// An update of a session's row: its expressions, and the names and values in them.
#[derive(Default)]
struct Change {
    update: String,
    condition: String,
    names: HashMap<String, String>,
    values: Item,
}

impl Change {
    /// What makes `read` into `next`. Attributes that are no fields of the record are left alone.
    fn between(asked: &Asked, read: &Read, next: &Session) -> Result<Self> {
        let encode = |session: &Session| to_item(session).map_err(|error| asked.corrupt(error));
        let (known, after) = (encode(&read.session)?, encode(next)?);
        let mut change = Self::default();
        change.judge(&read.item);
        let mut removed: Vec<&String> = known
            .keys()
            .filter(|name| !after.contains_key(*name))
            .collect();
        removed.sort();
        if !removed.is_empty() {
            let names: Vec<String> = removed.iter().map(|name| change.name(name)).collect();
            change.update = format!("REMOVE {} ", names.join(", "));
        }
        // Always, so that there is something to set.
        change.set("generation", number(next.generation));
        for (name, value) in &after {
            // Not what others wrote in another way, such as a time without milliseconds.
            if name != "generation" && known.get(name) != Some(value) {
                change.set(name, value.clone());
            }
        }
        Ok(change)
    }

    /// Asks that everything that is judged be as it is in `item`.
    fn judge(&mut self, item: &Item) {
        let conditions: Vec<String> = JUDGED
            .iter()
            .map(|name| {
                let placeholder = self.name(name);
                match item.get(*name) {
                    Some(value) => {
                        let old = format!(":old_{name}");
                        self.values.insert(old.clone(), value.clone());
                        format!("{placeholder} = {old}")
                    }
                    None => format!("attribute_not_exists({placeholder})"),
                }
            })
            .collect();
        self.condition = conditions.join(" AND ");
    }

    fn set(&mut self, name: &str, value: AttributeValue) {
        let placeholder = self.name(name);
        let new = format!(":new_{name}");
        let before = if self.update.contains("SET ") {
            ", "
        } else {
            "SET "
        };
        self.update
            .push_str(&format!("{before}{placeholder} = {new}"));
        self.values.insert(new, value);
    }

    /// Many names of fields are words of the expressions' language.
    fn name(&mut self, name: &str) -> String {
        let placeholder = format!("#{name}");
        self.names.insert(placeholder.clone(), name.to_owned());
        placeholder
    }

    fn in_transaction(
        self,
        sessions: &AwsSessions,
        asked: &Asked,
        next: &Session,
    ) -> Result<TransactWriteItem> {
        let update = Update::builder()
            .table_name(&sessions.table.name)
            .key("sessionId", text(next.session_id.as_str()))
            .update_expression(self.update)
            .condition_expression(self.condition)
            .set_expression_attribute_names(Some(self.names))
            .set_expression_attribute_values(Some(self.values))
            .build()
            .map_err(|error| asked.refused(error.to_string()))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }
}

fn thread_key(client: &ClientId, thread: &ThreadId) -> String {
    let digest = Sha256::digest(thread.as_str().as_bytes());
    format!("thread#{client}#{}", hex(&digest))
}

fn slot_key(client: &ClientId, number: u32) -> String {
    format!("slot#{client}#{number}")
}

/// The key of the slot that a session took last.
fn slot_of(read: &Read) -> Option<String> {
    let number = read.item.get(SLOT)?.as_n().ok()?.parse().ok()?;
    Some(slot_key(&read.session.client_id, number))
}

fn holder(asked: &Asked, item: &Item) -> Result<SessionId> {
    match item.get("heldBy") {
        Some(AttributeValue::S(id)) => id
            .parse()
            .map_err(|error: contract::IdError| asked.corrupt(error)),
        _ => Err(asked.corrupt(Incomplete("heldBy"))),
    }
}

fn decode(asked: &Asked, item: &Item) -> Result<Session> {
    from_item(item).map_err(|error| asked.corrupt(error))
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

/// Whether a transaction was cancelled because something was not as it was judged, or because another one was at the
/// same rows. `Err` where it was cancelled for another reason.
fn is_beaten(
    asked: &Asked,
    error: &SdkError<TransactWriteItemsError, aws_sdk_dynamodb::config::http::HttpResponse>,
) -> std::result::Result<bool, PortError> {
    let Some(service) = error.as_service_error() else {
        return Ok(false);
    };
    if service.is_transaction_in_progress_exception() {
        return Ok(true);
    }
    let TransactWriteItemsError::TransactionCanceledException(cancelled) = service else {
        return Ok(false);
    };
    for reason in cancelled.cancellation_reasons() {
        match reason.code() {
            None | Some("None" | "ConditionalCheckFailed" | "TransactionConflict") => {}
            Some(code @ ("ThrottlingError" | "ProvisionedThroughputExceeded")) => {
                return Err(asked.unavailable(code));
            }
            Some(code) => {
                let said = reason.message().unwrap_or_default();
                return Err(asked.refused(format!("{code}: {said}")));
            }
        }
    }
    Ok(true)
}

/// A row without an attribute that it must have.
#[derive(Debug, thiserror::Error)]
#[error("the row has no {0}")]
struct Incomplete(&'static str);
