//! The file of the local store: who may read it, which ones are taken, and what is said when something is wrong.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use contract::{Status, Timestamp};
use platform::conformance::records::{client, receipt, session, session_id};
use platform::local::{LocalStore, QueueSettings};
use platform::{Depth, Instructions, Outgoing, PortError, TransitionFailed};
use rusqlite::Connection;
use tempfile::TempDir;

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state/of/edit.sqlite");
    (folder, path)
}

fn open(path: &Path) -> LocalStore {
    LocalStore::open(path).expect("open")
}

/// Speaks to the file behind the store's back.
fn tamper(path: &Path, sql: &str) {
    Connection::open(path)
        .expect("open")
        .execute_batch(sql)
        .expect("valid SQL");
}

#[tokio::test]
async fn the_file_and_its_log_are_readable_by_their_owner_alone() {
    let (_folder, path) = place();
    let store = open(&path);
    store
        .receipts()
        .put(&receipt(&client("amelia"), "one", Status::Accepted))
        .await
        .expect("put");
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(path.parent().expect("in a folder")).expect("a folder") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("metadata").permissions().mode() & 0o777;
        seen.push((
            entry.file_name().into_string().expect("UTF-8"),
            format!("{mode:o}"),
        ));
    }
    seen.sort();
    let expected = ["edit.sqlite", "edit.sqlite-shm", "edit.sqlite-wal"];
    assert_eq!(
        seen,
        expected.map(|name| (name.to_owned(), "600".to_owned()))
    );
}

#[test]
fn a_file_of_a_newer_version_is_refused_and_left_alone() {
    let (_folder, path) = place();
    drop(open(&path));
    tamper(&path, "PRAGMA user_version = 4");
    let refused = LocalStore::open(&path).expect_err("it is newer");
    assert!(matches!(refused, PortError::Refused { .. }), "{refused:?}");
    let said = refused.to_string();
    assert!(
        said.contains("it has version 4 and this program knows versions up to 3"),
        "{said}"
    );
    tamper(&path, "PRAGMA user_version = 3");
    open(&path);
}

/// Of the version before messages carried their trace.
#[tokio::test]
async fn a_file_of_an_older_version_is_taken_with_everything_in_it() {
    let (_folder, path) = place();
    let message = |body: &str, trace: Option<&str>| Outgoing {
        body: body.to_owned(),
        group: body.to_owned(),
        deduplication_id: body.to_owned(),
        trace_parent: trace.map(str::to_owned),
    };
    {
        let queue = open(&path).queue("queue", QueueSettings::default());
        queue.send(&message("old", None)).await.expect("send");
    }
    tamper(
        &path,
        "ALTER TABLE messages DROP COLUMN trace_parent; DROP TABLE nonces; PRAGMA user_version = 1",
    );
    let queue = open(&path).queue("queue", QueueSettings::default());
    queue
        .send(&message("new", Some("00-trace-01")))
        .await
        .expect("send");
    let mut received = Vec::new();
    for _ in 0..2 {
        let next = queue.receive(Duration::ZERO, Duration::from_mins(1)).await;
        let next = next.expect("receive").expect("sent");
        received.push((next.body, next.trace_parent));
    }
    assert_eq!(
        received,
        [
            ("old".to_owned(), None),
            ("new".to_owned(), Some("00-trace-01".to_owned()))
        ]
    );
    can_spend(&path).await;
}

/// Of the version before links could be used once.
#[tokio::test]
async fn a_file_without_nonces_gets_them() {
    let (_folder, path) = place();
    let mine = session(&client("amelia"), 1);
    let created = open(&path).sessions().create(&mine).await;
    created.expect("create");
    tamper(&path, "DROP TABLE nonces; PRAGMA user_version = 2");
    can_spend(&path).await;
    let read = open(&path).sessions().get(&mine.session_id).await;
    assert_eq!(read.expect("get"), Some(mine));
}

/// The tables of a file that was brought up to date are those of a new one.
async fn can_spend(path: &Path) {
    let sessions = open(path).sessions();
    let until = Timestamp::now().plus(Duration::from_mins(1));
    assert!(sessions.spend("once", until).await.expect("spend"));
    assert!(!sessions.spend("once", until).await.expect("spend"));
    let (_folder, new) = place();
    drop(open(&new));
    let columns = |path: &Path| -> Vec<(String, String)> {
        let connection = Connection::open(path).expect("open");
        let mut statement = connection
            .prepare(
                "SELECT tables.name, columns.name || columns.type FROM sqlite_schema AS tables
                 JOIN pragma_table_info(tables.name) AS columns ORDER BY 1, 2",
            )
            .expect("valid SQL");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.expect("rows").map(|row| row.expect("a row")).collect()
    };
    assert_eq!(columns(path), columns(&new));
}

#[test]
fn a_file_of_another_program_is_refused_and_left_alone() {
    let (_folder, path) = place();
    std::fs::create_dir_all(path.parent().expect("in a folder")).expect("a folder");
    tamper(&path, "CREATE TABLE theirs (a)");
    let refused = LocalStore::open(&path).expect_err("it is theirs");
    assert!(
        refused
            .to_string()
            .ends_with("it belongs to another program: use another file"),
        "{refused}"
    );
    tamper(&path, "INSERT INTO theirs VALUES (1)");
}

#[test]
fn a_file_that_is_no_database_is_corrupt() {
    let (_folder, path) = place();
    std::fs::create_dir_all(path.parent().expect("in a folder")).expect("a folder");
    std::fs::write(&path, "# Notes\n".repeat(1_000)).expect("write");
    let corrupt = LocalStore::open(&path).expect_err("it is Markdown");
    assert!(matches!(corrupt, PortError::Corrupt { .. }), "{corrupt:?}");
    assert!(!corrupt.is_transient());
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_named_without_its_capability() {
    let (_folder, path) = place();
    let store = open(&path);
    let amelia = client("amelia");
    store
        .sessions()
        .create(&session(&amelia, 1))
        .await
        .expect("create");
    tamper(&path, "UPDATE sessions SET json = '{}'");
    let corrupt = store
        .sessions()
        .get(&session_id(&amelia, 1))
        .await
        .expect_err("it lacks everything");
    assert!(matches!(corrupt, PortError::Corrupt { .. }), "{corrupt:?}");
    let said = corrupt.to_string();
    assert_eq!(
        said,
        format!(
            "read session {}: what is stored there cannot be understood",
            session_id(&amelia, 1).redacted()
        )
    );
}

#[tokio::test]
async fn everything_is_there_when_the_file_is_opened_again() {
    let (_folder, path) = place();
    let amelia = client("amelia");
    let message = Outgoing {
        body: "a".to_owned(),
        group: "one".to_owned(),
        deduplication_id: "a".to_owned(),
        trace_parent: None,
    };
    {
        let store = open(&path);
        store
            .sessions()
            .create(&session(&amelia, 1))
            .await
            .expect("create");
        store
            .receipts()
            .put(&receipt(&amelia, "one", Status::Pushed))
            .await
            .expect("put");
        store
            .queue("queue", QueueSettings::default())
            .send(&message)
            .await
            .expect("send");
    }
    let store = open(&path);
    assert_eq!(
        store.sessions().list(&amelia).await.expect("list"),
        [session(&amelia, 1)]
    );
    let receipts = store
        .receipts()
        .recent(&session_id(&amelia, 1), 9)
        .await
        .expect("recent");
    assert_eq!(receipts, [receipt(&amelia, "one", Status::Pushed)]);
    let queue = store.queue("queue", QueueSettings::default());
    assert!(queue.send(&message).await.expect("send").duplicate);
    assert_eq!(
        queue.depth().await.expect("depth"),
        Depth {
            waiting: 1,
            in_flight: 0
        }
    );
}

#[tokio::test]
async fn two_stores_of_one_process_are_of_one_mind() {
    let (_folder, path) = place();
    let (one, other) = (open(&path), open(&path));
    let amelia = client("amelia");
    one.sessions()
        .create(&session(&amelia, 1))
        .await
        .expect("create");
    assert_eq!(other.sessions().list(&amelia).await.expect("list").len(), 1);
    // Closing one must not cost the other its locks.
    drop(one);
    let third = open(&path);
    let created = tokio::join!(
        async {
            other
                .sessions()
                .create(&session(&amelia, 2))
                .await
                .expect("create")
        },
        async {
            third
                .sessions()
                .create(&session(&amelia, 3))
                .await
                .expect("create")
        },
    );
    assert_eq!(created, (platform::Created::New, platform::Created::New));
    assert_eq!(other.sessions().list(&amelia).await.expect("list").len(), 3);
}

#[test]
fn an_answer_says_what_happened_in_a_sentence() {
    assert_eq!(
        TransitionFailed::NoSlot { limit: 2 }.to_string(),
        "all 2 environments of the client are in use"
    );
}
