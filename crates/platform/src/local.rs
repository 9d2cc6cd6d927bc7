//! The local adapter: every port of records and messages in one SQLite file, shared by several processes of one machine;
//! environments are processes.
//!
//! ```text
//!  async caller ── spawn_blocking ──▶ Mutex<Connection> ──▶ one transaction ──▶ file + write-ahead log
//!       ▲                                                         │ committed
//!       └───────────── changed (this process) ◀───────────────────┤
//!       └───────────── a watch on the log (other processes) ◀─────┘
//! ```
//!
//! - **Durable.** A write is answered after its transaction is in the write-ahead log, so it survives the death of any
//!   process at any moment; SQLite makes a half-written transaction vanish. A transaction is the whole of an operation.
//! - **One connection a store, locked inside the blocking call.** An `async` mutex would hand its lock to a future that
//!   its owner may have stopped polling (a `receive` in a `select!` whose other arm is asking this store something),
//!   and everything would stand still. A blocking call is never in that state, and it holds back tokio's paused clock
//!   while it runs, which a thread of our own would not.
//! - **Time** is the machine's wall clock, the one thing that processes share across restarts. If it jumps, deliveries
//!   come back earlier or later; none is lost, and none is held twice, because a handle names the delivery's count.
//! - **Not for network file systems**: the write-ahead log needs memory that is shared by all processes.

mod clients;
mod launcher;
mod objects;
mod queue;
mod queues;
mod receipts;
mod secrets;
mod sessions;
mod store;
mod watch;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use contract::Timestamp;

use crate::{Clients, Receipts, Result, Sessions};

pub use launcher::{LocalLauncher, LocalLauncherSettings};
pub use objects::LocalObjects;
pub use queue::LocalQueue;
pub use secrets::LocalSecrets;

use clients::LocalClients;
use receipts::LocalReceipts;
use sessions::LocalSessions;
use store::Store;

/// Tells the time. [`Timestamp::now`] except in tests.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// All ports of one file. Cheap to clone; the clones share one connection.
#[derive(Clone)]
pub struct LocalStore {
    store: Arc<Store>,
}

impl LocalStore {
    /// Opens the store at `path`. Makes the file (readable by its owner alone) and the folders above it if need be.
    ///
    /// Its ports need a tokio runtime with time and I/O, which need not be the same one all the time.
    ///
    /// Blocks for as long as another process is setting the same file up, a few milliseconds.
    ///
    /// Errors: `Refused` when the file is of a newer version or of another program, `Corrupt` when it is no database,
    /// `Unavailable` for everything that the file system says.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with_clock(path, Arc::new(Timestamp::now))
    }

    /// [`Self::open`] with a clock of the caller's, for tests. It rules deadlines; waiting takes real time.
    pub fn open_with_clock(path: &Path, clock: Clock) -> Result<Self> {
        Ok(Self {
            store: Arc::new(Store::open(path, clock)?),
        })
    }

    /// The clients.
    pub fn clients(&self) -> Arc<dyn Clients> {
        Arc::new(LocalClients {
            store: Arc::clone(&self.store),
        })
    }

    /// The sessions.
    pub fn sessions(&self) -> Arc<dyn Sessions> {
        Arc::new(LocalSessions::new(Arc::clone(&self.store)))
    }

    /// The receipts.
    pub fn receipts(&self) -> Arc<dyn Receipts> {
        Arc::new(LocalReceipts {
            store: Arc::clone(&self.store),
        })
    }

    /// The queue of that name. It need not be created: a queue without messages is the same as none. The settings are
    /// those of this handle, so whoever receives from a queue under one name uses one set of them.
    pub fn queue(&self, name: &str, settings: QueueSettings) -> LocalQueue {
        LocalQueue::new(Arc::clone(&self.store), name, settings)
    }
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalStore")
            .field(&self.store.path())
            .finish()
    }
}

/// What becomes of a message that nobody manages to deal with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSettings {
    /// How often a message is delivered at most, at least once.
    pub max_receive_count: u32,
    /// The name of the queue for those that were; without one they are delivered again and again.
    pub dead: Option<String>,
}

impl Default for QueueSettings {
    /// What every queue of the product has: ten deliveries (DESIGN §4). No dead letters.
    fn default() -> Self {
        Self {
            max_receive_count: 10,
            dead: None,
        }
    }
}
