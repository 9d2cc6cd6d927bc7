//! The ports of the platform and their adapters.
//!
//! A port is what the agent and the router need of the world outside, in the words of the product:
//!
//! | port | is | fenced by |
//! |---|---|---|
//! | [`Clients`] | who may have environments, and how | – |
//! | [`Sessions`] | who acts for a session, where, until when | generation and state, in one conditional write |
//! | [`Receipts`] | what became of an instruction | a final receipt is never overwritten |
//! | [`Instructions`] | one FIFO queue | a delivery handle that dies with its visibility timeout |
//! | [`Queues`] | making, finding and removing the queues of sessions | – |
//! | [`Launcher`] | starting and stopping environments | one task a session and generation |
//! | [`Secrets`] | what references to secrets name | – |
//! | [`Objects`] | files by their key | – |
//!
//! A port promises only what SQS FIFO queues and DynamoDB can keep; an adapter may be stricter. What they promise is
//! written on the traits.
//!
//! No port knows `now` of itself where a decision hangs on it: [`Sessions::transition`] is given the caller's.
//! [`Sessions::remove`] alone looks at a clock of its own, by which a lease may be over. The
//! queues keep their own time, because their deadlines are theirs (SQS keeps its own as well).
//!
//! The adapters: [`local`] (SQLite, one file, and processes; developer mode) and [`aws`] (DynamoDB, SQS, ECS and their
//! like). Each passes the suite in `conformance`, which says the same in code and is built with the feature of that name.
//!
//! Everything here is at-least-once. A reply may be lost after the deed was done, so each operation may be repeated
//! with the same arguments: a second [`Instructions::send`] is a duplicate, a second [`Receipts::put`] is the same
//! receipt, a second [`Launcher::launch`] is the same task, a second [`Sessions::create`] says that the thread is taken by
//! the very id that was asked for, and a second [`Sessions::transition`] is judged by the contract's table.
//! [`Sessions::spend`] alone is answered once: whoever does not hear the answer needs another nonce.

#![allow(
    clippy::doc_markdown,
    reason = "SQLite and DynamoDB are names of products, not code"
)]

pub mod aws;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod local;

mod clients;
mod error;
mod instructions;
mod launcher;
mod objects;
mod queues;
mod random;
mod receipts;
mod secrets;
mod sessions;

pub use clients::Clients;
pub use error::{PortError, Result};
pub use instructions::{
    DEDUPLICATION_WINDOW, Delivery, DeliveryHandle, Depth, Instructions, Lease, Outgoing,
    RETENTION, Sent, VISIBILITY_MAX,
};
pub use launcher::{LaunchFailed, Launcher, Order, Task, TaskState};
pub use objects::{KEY_MAX_BYTES, Objects, check_key};
pub use queues::{QUEUE_PREFIX, Queues, SessionQueue, queue_name};
pub use receipts::{Put, Receipts};
pub use secrets::{SECRET_MAX_BYTES, Secret, Secrets};
pub use sessions::{Created, NONCE_MAX_BYTES, Removed, Sessions, TransitionFailed};
