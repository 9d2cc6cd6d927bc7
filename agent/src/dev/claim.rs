//! The client and the session of an environment on this machine, in the local store.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use contract::client_config::{
    ClientConfig, ClientStatus, ContainerSize, Domains, Infrastructure, Repository, Settings,
};
use contract::session::{ProofKey, SiteHealth, State, Transition};
use contract::{ClientId, Generation, Session, SessionId, ThreadId, Timestamp};
use platform::local::{LocalStore, QueueSettings};
use platform::{Clients, Created, Instructions, PortError, Receipts, Sessions, TransitionFailed};
use serde_json::Map;

use super::home::Home;
use super::source::Source;
use crate::failure::{Exit, Failure};

/// Environments of one client at a time. A developer may try several threads.
const SLOTS: u32 = 16;
/// Nobody else can take a session whose environment holds the lock on its folder, so its lease is as long as a day at work.
const LEASE: Duration = Duration::from_secs(24 * 3600);
/// Where messages go that nobody could carry out.
const DEAD_QUEUE: &str = "webordinary-edits-dead.fifo";

/// A session that is ours.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) session: Session,
    pub(super) queue: Arc<dyn Instructions>,
    pub(super) dead: Arc<dyn Instructions>,
    pub(super) receipts: Arc<dyn Receipts>,
    sessions: Arc<dyn Sessions>,
    generation: Generation,
}

impl Claimed {
    /// Finds or makes the session of the thread, and wakes it.
    pub(super) async fn claim(
        home: &Home,
        source: &Source,
        thread: &str,
        address: SocketAddr,
        branch: Option<&str>,
    ) -> Result<Self, Failure> {
        let thread: ThreadId = thread.parse().map_err(|error: contract::IdError| {
            Failure::new(
                Exit::Usage,
                format!("`{thread}` is no thread: {error}"),
                "Name one with --thread.",
            )
        })?;
        let store = LocalStore::open(&home.database).map_err(port)?;
        let clients: Arc<dyn Clients> = store.clients();
        let sessions: Arc<dyn Sessions> = store.sessions();
        let client = client(clients.as_ref(), source, branch).await?;
        let id = session(sessions.as_ref(), &client, &thread).await?;
        let seen = sessions
            .get(&id)
            .await
            .map_err(port)?
            .ok_or_else(|| lost(&id))?;
        let generation = seen.generation.next();
        let lease_until = Timestamp::now().plus(LEASE);
        if !matches!(seen.state, State::Dormant | State::Failed) {
            // We hold the lock on the folder, so whoever was here is dead.
            let failure = contract::session::Failure {
                code: "crashed".to_owned(),
                message: "The environment ended without saying so.".to_owned(),
                retryable: true,
            };
            transition(
                sessions.as_ref(),
                &id,
                seen.generation,
                &Transition::Fail { failure },
            )
            .await?;
        }
        let proof_key = ProofKey(contract::id::hex(&crate::random::bytes::<32>()));
        transition(
            sessions.as_ref(),
            &id,
            generation,
            &Transition::Wake {
                seen: seen.generation,
                proof_key,
                lease_until,
            },
        )
        .await?;
        let task = format!("process-{}", std::process::id());
        let mut session = transition(
            sessions.as_ref(),
            &id,
            generation,
            &Transition::Claim { task, lease_until },
        )
        .await?;
        session.preview_url = preview_url(address);
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
        Ok(Self {
            queue: Arc::new(instructions),
            dead: Arc::new(queue(DEAD_QUEUE, None)),
            receipts: store.receipts(),
            sessions,
            generation,
            session,
        })
    }

    /// The site has answered.
    pub(super) async fn register(
        &self,
        address: SocketAddr,
        site: SiteHealth,
    ) -> Result<(), Failure> {
        let step = Transition::Register {
            ip: address.ip().to_string(),
            port: address.port(),
            site,
            lease_until: Timestamp::now().plus(LEASE),
        };
        transition(
            self.sessions.as_ref(),
            &self.session.session_id,
            self.generation,
            &step,
        )
        .await
        .map(drop)
    }

    /// Everything is saved.
    pub(super) async fn sleep(&self) -> Result<(), Failure> {
        let id = &self.session.session_id;
        transition(
            self.sessions.as_ref(),
            id,
            self.generation,
            &Transition::Drain {
                seen_activity: Some(Timestamp::now()),
            },
        )
        .await?;
        transition(
            self.sessions.as_ref(),
            id,
            self.generation,
            &Transition::Sleep { parked: None },
        )
        .await
        .map(drop)
    }
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
    let session = Session {
        session_id: id.clone(),
        client_id: client.clone(),
        user_id: "developer".to_owned(),
        thread_id: thread.clone(),
        state: State::Dormant,
        site: SiteHealth::Ok,
        phase: None,
        phase_since: None,
        generation: Generation(0),
        task_arn: None,
        container_id: None,
        container_ip: None,
        port: None,
        lease_until: None,
        proof_key: None,
        preview_url: String::new(),
        draft_branch: thread.draft_branch(),
        queue_url: format!("webordinary-edits-{id}.fifo"),
        last_activity_at: None,
        awake_because: None,
        created_at: Timestamp::now(),
        expires_at: None,
        failure: None,
        parked: None,
    };
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

async fn transition(
    sessions: &dyn Sessions,
    id: &SessionId,
    caller: Generation,
    step: &Transition,
) -> Result<Session, Failure> {
    match sessions
        .transition(id, caller, step, SLOTS, Timestamp::now())
        .await
        .map_err(port)?
    {
        Ok(session) => Ok(session),
        Err(TransitionFailed::NoSuchSession) => Err(lost(id)),
        Err(error) => Err(Failure::new(
            Exit::AlreadyRunning,
            format!("the session {}… could not be taken: {error}", id.redacted()),
            "Another environment has it; stop that one first.",
        )),
    }
}

fn lost(id: &SessionId) -> Failure {
    Failure::new(
        Exit::Internal,
        format!("the session {}… is gone from the store", id.redacted()),
        "Run it again.",
    )
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
