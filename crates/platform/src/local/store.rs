//! The file: how it is made, opened, locked and spoken to.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contract::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::Clock;
use super::watch::Watch;
use crate::{PortError, Result};

/// The version of `schema.sql`. A change of the schema is a new number and a step in [`set_up`].
const VERSION: i64 = 3;

/// What makes version 1 into version 2: messages carry their trace.
const FROM_1_TO_2: &str = "ALTER TABLE messages ADD COLUMN trace_parent TEXT";

/// What makes version 2 into version 3: what may be used once is remembered.
const FROM_2_TO_3: &str = "CREATE TABLE nonces (
    nonce            TEXT    NOT NULL PRIMARY KEY,
    remembered_until INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
CREATE INDEX nonces_by_age ON nonces (remembered_until)";

/// Marks the file as ours (`EdEn`), so that no other program's database is taken for a store.
const APPLICATION: i64 = 0x4564_456e;

/// How long a statement waits for another process's transaction. Those take less than a millisecond; a process that is
/// stopped in the middle of one, or a disk that stalls, is worth a few seconds before an error.
const BUSY: Duration = Duration::from_secs(5);

/// One connection to the file.
pub(super) struct Store {
    path: PathBuf,
    log: PathBuf,
    connection: Mutex<Connection>,
    changed: Notify,
    clock: Clock,
}

impl Store {
    pub(super) fn open(path: &Path, clock: Clock) -> Result<Self> {
        let opened = connect(path).and_then(|connection| {
            // Beside the file itself, where `path` may be a link to it.
            let mut log = fs::canonicalize(path)?.into_os_string();
            log.push("-wal");
            Ok((connection, PathBuf::from(log)))
        });
        let (connection, log) = opened
            .map_err(|failure| failure.at("open", format!("the local store {}", path.display())))?;
        Ok(Self {
            path: path.to_owned(),
            log,
            connection: Mutex::new(connection),
            changed: Notify::new(),
            clock,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The connection, for a thread that may block.
    pub(super) fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic in the middle of an operation has rolled its transaction back while unwinding.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out one operation away from the async threads. Once begun it is carried out to the end, whether or not
    /// the caller still waits for it.
    pub(super) async fn run<T, W>(
        self: &Arc<Self>,
        operation: &'static str,
        thing: impl Into<String>,
        work: W,
    ) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(&Arc<Self>, &mut Connection) -> Outcome<T> + Send + 'static,
    {
        let store = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&store, &mut store.connection())).await;
        match done {
            Ok(outcome) => outcome.map_err(|failure| failure.at(operation, thing.into())),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => Err(PortError::Unavailable {
                    operation,
                    thing: thing.into(),
                    source: Box::new(error),
                }),
            },
        }
    }

    /// Completes at the next [`Self::announce`] after this call, whether or not it is being waited for by then.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Notices from now on when anybody, of whatever process, writes to the file.
    pub(super) fn watch(&self) -> Watch {
        Watch::of(&self.log)
    }

    /// From now on nobody tells of writes, as on a system that cannot.
    #[cfg(test)]
    pub(super) fn watch_nothing(&mut self) {
        self.log = PathBuf::from("there is no such file");
    }

    /// Wakes everybody in this process who waits for a message, or for a session to change.
    pub(super) fn announce(&self) {
        self.changed.notify_waiters();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Begins a transaction that writes. It takes the lock at once: one that began by reading could find that another
/// process wrote meanwhile, and would have to be begun again.
pub(super) fn write(connection: &mut Connection) -> Outcome<Transaction<'_>> {
    Ok(connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
}

pub(super) fn to_json(record: &impl Serialize) -> Outcome<String> {
    Ok(serde_json::to_string(record)?)
}

pub(super) fn from_json<T: DeserializeOwned>(json: &str) -> Outcome<T> {
    Ok(serde_json::from_str(json)?)
}

/// What an operation on the connection comes to.
pub(super) type Outcome<T> = std::result::Result<T, Failure>;

/// Why an operation failed, not yet saying which one.
#[derive(Debug)]
pub(super) enum Failure {
    Database(rusqlite::Error),
    Json(serde_json::Error),
    Files(io::Error),
    Refused(String),
}

impl Failure {
    pub(super) fn at(self, operation: &'static str, thing: String) -> PortError {
        match self {
            Self::Refused(reason) => PortError::Refused {
                operation,
                thing,
                reason,
            },
            Self::Json(error) => PortError::Corrupt {
                operation,
                thing,
                source: Box::new(error),
            },
            Self::Files(error) => PortError::Unavailable {
                operation,
                thing,
                source: Box::new(error),
            },
            Self::Database(error) => match error.sqlite_error_code() {
                Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::TooBig) => {
                    PortError::Refused {
                        operation,
                        thing,
                        reason: error.to_string(),
                    }
                }
                // Without a code the error is about a column that is not what the schema says.
                Some(
                    ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
                    | ErrorCode::ConstraintViolation,
                )
                | None => PortError::Corrupt {
                    operation,
                    thing,
                    source: Box::new(error),
                },
                Some(_) => PortError::Unavailable {
                    operation,
                    thing,
                    source: Box::new(error),
                },
            },
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Files(error)
    }
}

/// Held while a file is made and opened. POSIX drops all locks that a process has on a file as soon as it closes *any*
/// descriptor of it, so that making the file must not overlap with another connection's first transaction.
static OPENING: Mutex<()> = Mutex::new(());

fn connect(path: &Path) -> Outcome<Connection> {
    let _alone = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
    make(path)?;
    // No `CREATE`: SQLite would choose the mode by the umask. No mutex: ours guards the connection.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    log_ahead(&mut connection)?;
    // In the log's mode NORMAL loses nothing when a process dies, because the operating system has the bytes by then;
    // only a power cut can take the last transactions with it, and it never damages the file. FULL would sync the disk
    // at every commit, which is milliseconds on a laptop and the whole budget of an instruction.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    set_up(&mut connection)?;
    Ok(connection)
}

/// Makes an empty file that only its owner can read, unless there is one. SQLite gives the log's files the same mode.
fn make(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Switches the file to a write-ahead log: readers and the writer do not block each other, and a commit is one append.
fn log_ahead(connection: &mut Connection) -> Outcome<()> {
    // Of processes that switch a new file in the same moment, one in two hundred gets `Busy` at once, without the wait
    // that all other statements have. Waiting for the lock with an ordinary transaction and trying again settles it.
    const TRIES: usize = 20;
    for _ in 0..TRIES {
        let switched = connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0));
        match switched {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                return Err(Failure::Refused(format!(
                    "this file system allows the journal mode {mode} only"
                )));
            }
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                write(connection)?.commit()?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let reason = "other processes kept it locked while the write-ahead log was switched on";
    Err(Failure::Files(io::Error::new(
        io::ErrorKind::ResourceBusy,
        reason,
    )))
}

/// Brings the schema to [`VERSION`], in one transaction, by whichever process is first.
fn set_up(connection: &mut Connection) -> Outcome<()> {
    let transaction = write(connection)?;
    let pragma =
        |name: &str| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (version, application) = (pragma("user_version")?, pragma("application_id")?);
    match (version, application) {
        (VERSION, APPLICATION) => {}
        (1, APPLICATION) => {
            transaction.execute_batch(FROM_1_TO_2)?;
            transaction.execute_batch(FROM_2_TO_3)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        (2, APPLICATION) => {
            transaction.execute_batch(FROM_2_TO_3)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        (newer, APPLICATION) if newer > VERSION => {
            return Err(Failure::Refused(format!(
                "it has version {newer} and this program knows versions up to {VERSION}: update the program, or use \
                 another file"
            )));
        }
        (0, 0) if is_empty(&transaction)? => {
            transaction.execute_batch(include_str!("schema.sql"))?;
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        _ => {
            return Err(Failure::Refused(
                "it belongs to another program: use another file".to_owned(),
            ));
        }
    }
    transaction.commit()?;
    Ok(())
}

fn is_empty(transaction: &Transaction<'_>) -> Outcome<bool> {
    Ok(transaction.query_row(
        "SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)",
        [],
        |row| row.get(0),
    )?)
}
