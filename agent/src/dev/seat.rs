//! The client and the session of an environment on this machine, in the local store.

use std::net::SocketAddr;
use std::sync::Arc;

use contract::client_config::{
    ClientConfig, ClientStatus, ContainerSize, Domains, Infrastructure, Repository, Settings,
};
use contract::session::{State, Transition};
use contract::{ClientId, Session, SessionId, ThreadId, Timestamp};
use platform::local::{LocalStore, QueueSettings};
use platform::{Clients, Created, PortError, Sessions};
use serde_json::Map;

use super::source::Source;
use crate::environment::Seat;
use crate::environment::home::Home;
use crate::failure::{Exit, Failure};
use crate::lease::{self, Lease, LeaseError, Terms};
use crate::pipeline::{Identity, Results};

/// Environments of one client at a time. A developer may try several threads.
const SLOTS: u32 = 16;
/// Where messages go that nobody could carry out.
const DEAD_QUEUE: &str = "webordinary-edits-dead.fifo";

/// Finds or makes the session of the thread, and takes it.
pub(super) async fn take(
    home: &Home,
    source: &Source,
    thread: &str,
    address: SocketAddr,
    branch: Option<&str>,
) -> Result<Seat, Failure> {
    let thread: ThreadId = thread.parse().map_err(|error: contract::IdError| {
        Failure::new(
            Exit::Usage,
            format!("`{thread}` is no thread: {error}"),
            "Name one with --thread.",
        )
    })?;
    let store = LocalStore::open(&home.database()).map_err(port)?;
    let clients: Arc<dyn Clients> = store.clients();
    let sessions: Arc<dyn Sessions> = store.sessions();
    let client = client(clients.as_ref(), source, branch).await?;
    let id = session(sessions.as_ref(), &client, &thread).await?;
    let seen = sessions.get(&id).await.map_err(port)?.ok_or_else(|| {
        Failure::new(
            Exit::Internal,
            format!("the session {}… is gone from the store", id.redacted()),
            "Run it again.",
        )
    })?;
    end_what_died(sessions.as_ref(), &seen).await?;
    let taken = |error| not_taken(&id, error);
    let generation = lease::wake(sessions.as_ref(), &seen, SLOTS, Terms::DEVELOPER)
        .await
        .map_err(taken)?;
    let task = format!("process-{}", std::process::id());
    let (lease, session) = Lease::claim(sessions, &id, generation, task, SLOTS, Terms::DEVELOPER)
        .await
        .map_err(taken)?;
    let queue = |name: &str, dead: Option<&str>| {
        store.queue(
            name,
            QueueSettings {
                max_receive_count: 10,
                dead: dead.map(str::to_owned),
            },
        )
    };
    let instructions = queue(&session.queue_url, Some(DEAD_QUEUE));
    let released = instructions.release_all().await.map_err(port)?;
    if released > 0 {
        tracing::info!(
            released,
            "an agent died with instructions in its hands; they are taken up now"
        );
    }
    Ok(Seat {
        identity: Identity {
            client_id: session.client_id,
            session_id: session.session_id,
            thread_id: session.thread_id,
            branch: session.draft_branch,
            preview_url: preview_url(address),
        },
        lease,
        proof: None,
        parked: None,
        last_activity_at: None,
        queue: Arc::new(instructions),
        dead: Arc::new(queue(DEAD_QUEUE, None)),
        receipts: store.receipts(),
        results: Results::default(),
    })
}

/// We hold the lock on the folder, so whoever was here is dead.
async fn end_what_died(sessions: &dyn Sessions, seen: &Session) -> Result<(), Failure> {
    if matches!(seen.state, State::Dormant | State::Failed) {
        return Ok(());
    }
    let step = Transition::Fail {
        failure: contract::session::Failure {
            code: "crashed".to_owned(),
            message: "The environment ended without saying so.".to_owned(),
            retryable: true,
        },
    };
    let failed = sessions
        .transition(
            &seen.session_id,
            seen.generation,
            &step,
            SLOTS,
            Timestamp::now(),
        )
        .await
        .map_err(port)?;
    failed
        .map(drop)
        .map_err(|error| not_taken(&seen.session_id, error.into()))
}

/// Everything is saved, or as much as there is.
pub(super) async fn sleep(seat: &Seat) -> Result<(), Failure> {
    let slept = async {
        seat.lease.drain(Some(Timestamp::now())).await?;
        seat.lease.sleep(Vec::new()).await
    };
    slept
        .await
        .map_err(|error| not_taken(&seat.identity.session_id, error))
}

/// Where the door is, as a browser on this machine reaches it.
fn preview_url(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        format!("http://127.0.0.1:{}/", address.port())
    } else {
        format!("http://{address}/")
    }
}

/// The client that stands for the repository: named after it, or, if another one has that name, with a number.
async fn client(
    clients: &dyn Clients,
    source: &Source,
    branch: Option<&str>,
) -> Result<ClientId, Failure> {
    let url = source.identity();
    for number in 1..1000 {
        let slug = source.slug();
        let name = if number == 1 {
            slug
        } else {
            format!(
                "{}-{number}",
                slug.chars()
                    .take(20)
                    .collect::<String>()
                    .trim_end_matches('-')
            )
        };
        let id: ClientId = name
            .parse()
            .map_err(|error: contract::IdError| Failure::internal("name the client", &error))?;
        match clients.get(&id).await.map_err(port)? {
            Some(config) if config.repository.url == url => return Ok(id),
            Some(_) => {}
            None => {
                clients
                    .put(&config(&id, url, branch.unwrap_or("main")))
                    .await
                    .map_err(port)?;
                return Ok(id);
            }
        }
    }
    Err(Failure::new(
        Exit::Storage,
        "a thousand repositories have this name",
        "Name another --state.",
    ))
}

fn config(id: &ClientId, url: String, branch: &str) -> ClientConfig {
    let host = format!("{id}.localhost");
    ClientConfig {
        client_id: id.clone(),
        domains: Domains {
            production: host.clone(),
            edit: format!("edit.{host}"),
            api: format!("api.{host}"),
            aliases: Vec::new(),
            unknown: Map::new(),
        },
        repository: Repository {
            url,
            branch: branch.to_owned(),
            deploy_key: None,
            host_keys: Vec::new(),
            unknown: Map::new(),
        },
        infrastructure: Infrastructure::default(),
        settings: Settings {
            container_size: ContainerSize::Small,
            idle_timeout_minutes: 30.0,
            max_concurrent_sessions: SLOTS,
            unknown: Map::new(),
        },
        status: ClientStatus::Active,
        site: None,
        policy: None,
        limits: None,
        results_queue_url: None,
        brand: None,
        rollout: None,
        unknown: Map::new(),
    }
}

async fn session(
    sessions: &dyn Sessions,
    client: &ClientId,
    thread: &ThreadId,
) -> Result<SessionId, Failure> {
    if let Some(id) = sessions.find(client, thread).await.map_err(port)? {
        return Ok(id);
    }
    let id = SessionId::new(client, crate::random::bytes());
    let mut session = Session::new(
        id.clone(),
        client.clone(),
        thread.clone(),
        "developer".to_owned(),
        Timestamp::now(),
    );
    // A developer's records are kept for as long as the folder is.
    session.expires_at = None;
    session.queue_url = format!("webordinary-edits-{id}.fifo");
    match sessions.create(&session).await.map_err(port)? {
        Created::New => Ok(id),
        Created::ThreadTaken(other) => Ok(other),
        Created::IdTaken => Err(Failure::new(
            Exit::Internal,
            "a new session's id was taken",
            "Run it again.",
        )),
    }
}

fn not_taken(id: &SessionId, error: LeaseError) -> Failure {
    match error {
        LeaseError::Backend(error) => port(error),
        LeaseError::Refused(_) => Failure::new(
            Exit::AlreadyRunning,
            format!("the session {}… could not be taken: {error}", id.redacted()),
            "Another environment has it; stop that one first.",
        ),
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err takes"
)]
fn port(error: PortError) -> Failure {
    Failure::new(
        Exit::Storage,
        crate::failure::chain(&error),
        "Check that the disk has room and that the state folder is writable, or name another one with --state.",
    )
}
