//! The suite that every adapter passes: what the ports promise, in code.
//!
//! An adapter's tests implement [`QueueUnderTest`], [`StoreUnderTest`] and their like, and name one macro a port, each in a module of
//! its own; every case then runs as its own test:
//!
//! ```ignore
//! mod queue {
//!     platform::queue_conformance!(super::Local::new());
//! }
//! ```
//!
//! The suite asks for nothing that SQS FIFO queues and DynamoDB do not document, and it does not sleep: time passes
//! while it waits for messages that must come. Durations are whole seconds, the finest that SQS knows.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{Clients, Instructions, Launcher, Objects, Queues, Receipts, Secrets, Sessions};

pub mod clients;
pub mod emulator;
pub mod front;
pub mod launcher;
pub mod objects;
pub mod queue;
pub mod queues;
pub mod receipts;
pub mod records;
pub mod secrets;
pub mod sessions;

/// Makes queues of the adapter under test.
#[async_trait]
pub trait QueueUnderTest: Send + Sync {
    /// A new, empty queue without dead letters.
    async fn fresh(&self) -> Arc<dyn Instructions>;

    /// A new, empty queue, and the queue to which it moves a message that would be received more often than
    /// `max_receive_count`.
    async fn fresh_with_dead(
        &self,
        max_receive_count: u32,
    ) -> (Arc<dyn Instructions>, Arc<dyn Instructions>);
}

/// Makes stores of the adapter under test.
#[async_trait]
pub trait StoreUnderTest: Send + Sync {
    /// A new store without any record.
    async fn fresh(&self) -> Stores;
}

/// The ports of one store.
#[derive(Debug, Clone)]
pub struct Stores {
    /// Its clients.
    pub clients: Arc<dyn Clients>,
    /// Its sessions.
    pub sessions: Arc<dyn Sessions>,
    /// Its receipts.
    pub receipts: Arc<dyn Receipts>,
}

/// Keeps secrets where the adapter under test reads them.
#[async_trait]
pub trait SecretsUnderTest: Send + Sync {
    /// The adapter.
    async fn secrets(&self) -> Arc<dyn Secrets>;

    /// Stores `text` in every way that the adapter can be told to read and a test can write; the references.
    async fn store(&self, text: &str) -> Vec<String>;

    /// References of every kind that the adapter knows, to secrets that are not there.
    async fn missing(&self) -> Vec<String>;
}

/// Makes folders of objects of the adapter under test.
#[async_trait]
pub trait ObjectsUnderTest: Send + Sync {
    /// A new folder without any object.
    async fn fresh(&self) -> Arc<dyn Objects>;
}

/// Makes houses of queues of the adapter under test.
#[async_trait]
pub trait QueuesUnderTest: Send + Sync {
    /// The queues of sessions, and the address of a new, empty queue for their dead letters. Other queues of sessions may be
    /// there.
    async fn fresh(&self) -> (Arc<dyn Queues>, String);
}

/// Makes launchers of the adapter under test.
#[async_trait]
pub trait LauncherUnderTest: Send + Sync {
    /// A launcher without any task. What it launches runs until it is stopped.
    async fn fresh(&self) -> Arc<dyn Launcher>;
}

/// Asks again and again until the answer is right. Only for what a port allows to lag.
async fn eventually<T, E: Display>(mut ask: impl AsyncFnMut() -> Result<T, E>) -> T {
    // A minute is what SQS allows its counts to lag.
    const TRIES: u32 = 900;
    const PAUSE: Duration = Duration::from_millis(100);
    for _ in 1..TRIES {
        if let Ok(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(PAUSE).await;
    }
    match ask().await {
        Ok(answer) => answer,
        Err(last) => panic!("after {TRIES} tries: {last}"),
    }
}

/// Turns each case of a port into a test.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_cases {
    ($port:ident, $under_test:expr, $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::conformance::$port::$case(&$under_test).await;
            }
        )*
    };
}
