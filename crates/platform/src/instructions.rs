//! The port to the queues of instructions.

use std::fmt::{self, Debug};
use std::time::Duration;

use async_trait::async_trait;
use contract::Timestamp;
use contract::limits::MESSAGE_MAX_BYTES;

use crate::Result;

/// How long a queue remembers a deduplication id, counted from the send that was not a duplicate: SQS's five minutes.
pub const DEDUPLICATION_WINDOW: Duration = Duration::from_mins(5);

/// The longest that one delivery may be kept invisible, extensions included: SQS's twelve hours.
pub const VISIBILITY_MAX: Duration = Duration::from_hours(12);

/// How long a message waits for somebody before it is removed: SQS's fourteen days.
pub const RETENTION: Duration = Duration::from_hours(14 * 24);

/// One FIFO queue: at least once, in order within a group, one delivery of a group at a time.
///
/// A message that was received is *in flight*: invisible until its visibility timeout is over, it is deleted, or it is
/// released. While one of a group is in flight, nothing else of that group is delivered; other groups are. Each
/// delivery has its own handle, which is dead as soon as its visibility timeout is over, whether or not the message was
/// delivered again by then.
///
/// A message that was received more often than the queue allows is moved to the queue's dead letters on the receive
/// that would exceed it, and the next one of its group is delivered.
///
/// A backend that counts in whole seconds rounds every duration up; zero stays zero.
#[async_trait]
pub trait Instructions: Send + Sync + Debug {
    /// Puts a message at the end of its group. When this returns, the message survives the death of every process.
    /// A message whose deduplication id its group has seen within [`DEDUPLICATION_WINDOW`] is accepted and dropped,
    /// even when the first was deleted meanwhile.
    ///
    /// Errors: `Refused` for what [`Outgoing::check`] finds.
    async fn send(&self, message: &Outgoing) -> Result<Sent>;

    /// Waits at most `wait` for a message and hands it out for `visibility`. Returns as soon as there is one.
    ///
    /// Cancel safe: a message that was handed out but never returned to the caller becomes visible again, at the latest
    /// when `visibility` is over.
    ///
    /// Errors: `Refused` when `visibility` is above [`VISIBILITY_MAX`].
    async fn receive(&self, wait: Duration, visibility: Duration) -> Result<Option<Delivery>>;

    /// Keeps a delivery for `visibility` from now on; zero releases it at once. `Lost` changes nothing.
    ///
    /// Errors: `Refused` when the delivery would be kept for more than [`VISIBILITY_MAX`] in all.
    async fn extend(&self, handle: &DeliveryHandle, visibility: Duration) -> Result<Lease>;

    /// Removes a delivered message for good. `Lost` changes nothing: the message stays.
    async fn delete(&self, handle: &DeliveryHandle) -> Result<Lease>;

    /// How much is in the queue. An approximation, which may lag by a minute.
    async fn depth(&self) -> Result<Depth>;
}

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// What it says: 1 byte to 256 KiB of text.
    pub body: String,
    /// Its group, within which order holds: 1 to 128 visible ASCII characters.
    pub group: String,
    /// The id by which its group knows a duplicate: 1 to 128 visible ASCII characters.
    pub deduplication_id: String,
    /// The trace that it belongs to, a W3C `traceparent`; carried along and not looked at.
    pub trace_parent: Option<String>,
}

/// How long a `traceparent` of the version we know is: `00-<32 hex>-<16 hex>-<2 hex>`. Later ones may be longer, and
/// whatever is longer than this is no trace.
const TRACE_PARENT_MAX_BYTES: usize = 256;

impl Outgoing {
    /// Whether every backend takes the message; if not, what is wrong with it.
    ///
    /// SQS refuses control characters except tab, line feed and carriage return, and U+FFFE and U+FFFF. JSON written
    /// by a program has none of the former; the latter must be escaped.
    pub fn check(&self) -> std::result::Result<(), String> {
        let length = self.body.len();
        if length == 0 || length > MESSAGE_MAX_BYTES {
            return Err(format!(
                "a message has 1 to {MESSAGE_MAX_BYTES} bytes, not {length}"
            ));
        }
        let refused = |c: char| {
            (c < ' ' && !matches!(c, '\t' | '\n' | '\r')) || matches!(c, '\u{fffe}' | '\u{ffff}')
        };
        if let Some(character) = self.body.chars().find(|c| refused(*c)) {
            return Err(format!(
                "a message cannot contain the character U+{:04X}",
                u32::from(character)
            ));
        }
        for (name, id) in [
            ("group", &self.group),
            ("deduplication id", &self.deduplication_id),
        ] {
            if !(1..=128).contains(&id.len()) || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(format!("a {name} is 1 to 128 visible ASCII characters"));
            }
        }
        if self.trace_parent.as_deref().is_some_and(|trace| {
            !(1..=TRACE_PARENT_MAX_BYTES).contains(&trace.len())
                || !trace.bytes().all(|byte| byte.is_ascii_graphic())
        }) {
            return Err(format!(
                "a traceparent is 1 to {TRACE_PARENT_MAX_BYTES} visible ASCII characters"
            ));
        }
        Ok(())
    }
}

/// What became of a message that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The message's id; that of the first one for a duplicate.
    pub message_id: String,
    /// Whether it is known to have been dropped as a duplicate. Not every backend says so: `false` promises nothing.
    pub duplicate: bool,
}

/// A message that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What it says.
    pub body: String,
    /// By which this delivery is extended and deleted.
    pub handle: DeliveryHandle,
    /// The message's id.
    pub message_id: String,
    /// Its group.
    pub group: String,
    /// How often it was received from this queue, this time included.
    pub receive_count: u32,
    /// When it was sent.
    pub sent_at: Timestamp,
    /// When it was first received.
    pub first_received_at: Timestamp,
    /// The trace that it belongs to, as its sender said.
    pub trace_parent: Option<String>,
}

/// One delivery of a message. Opaque: only the adapter that made it can read it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct DeliveryHandle(String);

impl DeliveryHandle {
    /// The handle that an adapter writes as `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// What the adapter wrote.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Debug for DeliveryHandle {
    /// Shortened: an SQS handle has hundreds of characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start: String = self.0.chars().take(16).collect();
        write!(f, "DeliveryHandle({start:?})")
    }
}

/// Whether a delivery was still the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use = "a lost lease means that somebody else may be at work"]
pub enum Lease {
    /// It was, and what was asked is done.
    Held,
    /// It was not: its visibility timeout is over, or it was released or deleted. Nothing was changed.
    Lost,
}

/// How much is in a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Messages that wait, those included that wait for one of their group that is in flight.
    pub waiting: u64,
    /// Messages that were handed out and are neither back nor deleted.
    pub in_flight: u64,
}
