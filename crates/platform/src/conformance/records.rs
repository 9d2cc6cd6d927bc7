//! Records for tests: valid, ordinary, and each its own.

#![allow(
    clippy::missing_panics_doc,
    reason = "a case of a test suite says what is wrong by panicking"
)]

use contract::session::ProofKey;
use contract::{
    ClientConfig, ClientId, InstructionId, Receipt, Session, SessionId, Status, ThreadId, Timestamp,
};
use serde_json::json;

/// The moment at which every story of the suite begins.
pub fn dawn() -> Timestamp {
    Timestamp::from_unix_ms(1_795_339_800_000)
}

/// The client `name`.
pub fn client(name: &str) -> ClientId {
    name.parse().expect("a valid client id")
}

/// The thread `name`.
pub fn thread(name: &str) -> ThreadId {
    name.parse().expect("a valid thread id")
}

/// The instruction `name`.
pub fn instruction(name: &str) -> InstructionId {
    name.parse().expect("a valid instruction id")
}

/// The session number `number` of a client.
pub fn session_id(client: &ClientId, number: u8) -> SessionId {
    SessionId::new(client, [number; 16])
}

/// A client's configuration, with a field that this build does not know.
pub fn client_config(name: &str) -> ClientConfig {
    serde_json::from_value(json!({
        "clientId": name,
        "domains": { "production": "www.example.com", "edit": "edit.example.com", "api": "api.example.com" },
        "repository": { "url": "https://git.example.com/site.git", "branch": "main" },
        "infrastructure": {},
        "settings": { "containerSize": "small", "idleTimeoutMinutes": 5.0, "maxConcurrentSessions": 2 },
        "status": "active",
        "fromTheFuture": { "kept": [1, 2, 3] },
    }))
    .expect("a valid configuration")
}

/// A new session of a client, for the thread `thread-<number>`.
pub fn session(client: &ClientId, number: u8) -> Session {
    let id = session_id(client, number);
    let name = thread(&format!("thread-{number}"));
    let user = "amelia@example.com".to_owned();
    Session {
        preview_url: format!("https://edit.example.com/session/{id}/"),
        queue_url: format!("local:webordinary-edits-{id}.fifo"),
        expires_at: None,
        ..Session::new(id, client.clone(), name, user, dawn())
    }
}

/// A proof key, the same every time.
pub fn proof_key() -> ProofKey {
    ProofKey("00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff".to_owned())
}

/// The receipt of an instruction of session 1 of a client.
pub fn receipt(client: &ClientId, name: &str, status: Status) -> Receipt {
    Receipt {
        session_id: session_id(client, 1),
        instruction_id: instruction(name),
        client_id: client.clone(),
        status,
        attempts: 1,
        commit: None,
        branch: "edit/thread-1".to_owned(),
        files_changed: vec!["src/pages/über uns.md".to_owned()],
        summary: "Changed one page".to_owned(),
        pages: Vec::new(),
        verdict: None,
        error: None,
        timings: contract::receipt::Timings::default(),
        preview_url: "https://edit.example.com/session/1/".to_owned(),
        accepted_at: dawn(),
        updated_at: dawn(),
        fingerprint: None,
    }
}
