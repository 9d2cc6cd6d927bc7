-- The schema of the local store, version 3 (`PRAGMA user_version`).
--
-- Every record is kept as its JSON. The columns beside it are what is looked up or compared in SQL; whoever writes the
-- JSON writes them in the same statement. Times are milliseconds since 1970.

CREATE TABLE clients (
    client_id TEXT NOT NULL PRIMARY KEY,
    json      TEXT NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TABLE sessions (
    session_id  TEXT    NOT NULL PRIMARY KEY,
    client_id   TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    json        TEXT    NOT NULL
) STRICT;
CREATE INDEX sessions_of_a_client ON sessions (client_id, created_at, session_id);

-- One session a thread.
CREATE TABLE threads (
    client_id  TEXT NOT NULL,
    thread_id  TEXT NOT NULL,
    session_id TEXT NOT NULL,
    PRIMARY KEY (client_id, thread_id)
) WITHOUT ROWID, STRICT;

-- The environments that a client may have at a time, each with the session and the generation that holds it.
CREATE TABLE slots (
    client_id  TEXT    NOT NULL,
    number     INTEGER NOT NULL,
    session_id TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    PRIMARY KEY (client_id, number)
) WITHOUT ROWID, STRICT;
CREATE INDEX slots_of_a_session ON slots (session_id);

-- What may be used once and was used: links that make a session, and links that enter one.
CREATE TABLE nonces (
    nonce            TEXT    NOT NULL PRIMARY KEY,
    -- Removed by the first `spend` after that.
    remembered_until INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
CREATE INDEX nonces_by_age ON nonces (remembered_until);

CREATE TABLE receipts (
    session_id     TEXT    NOT NULL,
    instruction_id TEXT    NOT NULL,
    client_id      TEXT    NOT NULL,
    accepted_at    INTEGER NOT NULL,
    json           TEXT    NOT NULL,
    PRIMARY KEY (session_id, instruction_id)
) STRICT;
CREATE INDEX receipts_of_a_session ON receipts (session_id, accepted_at, instruction_id);
CREATE INDEX receipts_of_a_client ON receipts (client_id, instruction_id, accepted_at);

-- The messages of all queues. `AUTOINCREMENT`, so that the number of a deleted message is never used again: it is the
-- order of a group, and half of a handle.
--
-- `head` marks the first message of each group of each queue. Order within a group means that nothing but a head is
-- ever delivered, so that whoever looks for a message looks at heads alone, however long the groups are.
CREATE TABLE messages (
    number            INTEGER PRIMARY KEY AUTOINCREMENT,
    queue             TEXT    NOT NULL,
    group_id          TEXT    NOT NULL,
    head              INTEGER NOT NULL,
    -- In flight until then; 0 before the first delivery and after a release.
    visible_at        INTEGER NOT NULL DEFAULT 0,
    -- Removed by the receive that finds it later than this.
    kept_until        INTEGER NOT NULL,
    receive_count     INTEGER NOT NULL DEFAULT 0,
    received_at       INTEGER,
    first_received_at INTEGER,
    sent_at           INTEGER NOT NULL,
    message_id        TEXT    NOT NULL,
    deduplication_id  TEXT    NOT NULL,
    body              TEXT    NOT NULL,
    trace_parent      TEXT
) STRICT;
CREATE INDEX messages_of_a_group ON messages (queue, group_id, number);
CREATE INDEX heads_by_age ON messages (queue, number) WHERE head = 1;
CREATE INDEX heads_by_visibility ON messages (queue, visible_at) WHERE head = 1;

-- What each group has seen lately. Outlives the messages.
CREATE TABLE deduplication (
    queue            TEXT    NOT NULL,
    group_id         TEXT    NOT NULL,
    deduplication_id TEXT    NOT NULL,
    message_id       TEXT    NOT NULL,
    remembered_until INTEGER NOT NULL,
    PRIMARY KEY (queue, group_id, deduplication_id)
) WITHOUT ROWID, STRICT;
CREATE INDEX deduplication_by_age ON deduplication (remembered_until);
