//! Which client a host belongs to, and how that client is configured.
//!
//! A client's own id stands in most hosts, and its configuration is one read. Names of a client's own (`edit.ameliastamps.com`)
//! stand in its configuration alone, so that all of them are read now and then, however many invented names are asked for.
//!
//! Nobody waits for anybody else's client: of each, one reads, and what is remembered is given to the others meanwhile. What could
//! not be read is not asked again at once, and until it can be what is remembered is gone by. The ids that somebody invents share a
//! few reads among them, and the clients that there are have theirs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use contract::{ClientConfig, ClientId};
use futures_util::StreamExt as _;
use platform::Clients;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::host::Place;

/// How long a configuration is gone by: a switch of `rollout` or `status` takes effect within it.
const CONFIG_FRESH: Duration = Duration::from_secs(5);
/// How long it is gone by when the table does not answer.
const CONFIG_KEPT: Duration = Duration::from_secs(3600);
/// How long the list of names is gone by.
const NAMES_FRESH: Duration = Duration::from_secs(60);
/// How soon it is read again for a name that is not in it: a client that was added is there within it.
const NAMES_AGAIN: Duration = Duration::from_secs(10);
/// How long the table may take for a client.
const READ_TIME_MAX: Duration = Duration::from_secs(3);
/// How long it may take for all of them.
const NAMES_TIME_MAX: Duration = Duration::from_secs(30);
/// How many clients are read at the same time for their names.
const NAMES_AT_ONCE: usize = 16;
/// How many ids that nobody is known to have are looked for at the same time.
const STRANGERS_AT_ONCE: usize = 8;
/// More clients than one router has; beyond, only ids that somebody invents.
const CONFIGS_MAX: usize = 10_000;

/// Whose host it is.
#[derive(Debug, Clone)]
pub enum Whose {
    /// This client's.
    Client(Arc<ClientConfig>),
    /// Nobody's.
    Nobody,
    /// The table does not answer, and nothing is remembered.
    Down,
}

/// Which client a host belongs to.
#[derive(Debug)]
pub struct Directory {
    clients: Arc<dyn Clients>,
    entries: RwLock<HashMap<String, Arc<Entry>>>,
    strangers: Semaphore,
    names: RwLock<Names>,
    reading_names: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Entry {
    known: Mutex<Known>,
    /// Held by the one who reads.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    /// What the table said last.
    config: Option<Arc<ClientConfig>>,
    /// When it said so; never, if absent.
    read: Option<Instant>,
    /// When it was asked last, with or without an answer.
    asked: Option<Instant>,
}

impl Entry {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the table was asked so lately that it need not be asked again.
    fn recent(&self) -> Option<Whose> {
        let known = self.known();
        let recent = known.asked.is_some_and(|at| at.elapsed() < CONFIG_FRESH);
        recent.then(|| known.whose())
    }

    /// What the table said some time, while somebody else asks it.
    fn remembered(&self) -> Option<Whose> {
        let known = self.known();
        known.config.is_some().then(|| known.whose())
    }
}

impl Known {
    fn whose(&self) -> Whose {
        let kept = self.read.is_some_and(|at| at.elapsed() < CONFIG_KEPT);
        match &self.config {
            Some(config) if kept => Whose::Client(Arc::clone(config)),
            // That there is none is known only if the last question was answered.
            None if self.read.is_some() && self.read == self.asked => Whose::Nobody,
            _ => Whose::Down,
        }
    }
}

#[derive(Debug, Default)]
struct Names {
    of: HashMap<String, ClientId>,
    at: Option<Instant>,
}

impl Directory {
    /// A directory of these clients. Nothing is read yet.
    pub fn new(clients: Arc<dyn Clients>) -> Self {
        Self {
            clients,
            entries: RwLock::default(),
            strangers: Semaphore::new(STRANGERS_AT_ONCE),
            names: RwLock::default(),
            reading_names: tokio::sync::Mutex::default(),
        }
    }

    /// Whose host a place is.
    pub async fn find(&self, place: Place<'_>) -> Whose {
        match place {
            Place::Edit { client } | Place::Preview { client, .. } => self.client(client).await,
            Place::Named { name } => match self.owner(name).await {
                Some(client) => self.client(client.as_str()).await,
                None => Whose::Nobody,
            },
        }
    }

    /// The configuration of a client, by what may be its id.
    pub async fn client(&self, id: &str) -> Whose {
        let entry = self.entry(id);
        if let Some(whose) = entry.as_ref().and_then(|entry| entry.recent()) {
            return whose;
        }
        let Ok(client) = id.parse::<ClientId>() else {
            return Whose::Nobody;
        };
        let entry = entry.unwrap_or_else(|| self.make(&client));
        let _reading = match (entry.reading.try_lock(), entry.remembered()) {
            (Ok(reading), _) => reading,
            // Somebody asks already.
            (Err(_), Some(whose)) => return whose,
            (Err(_), None) => entry.reading.lock().await,
        };
        if let Some(whose) = entry.recent() {
            return whose;
        }
        let answer = tokio::time::timeout(READ_TIME_MAX, async {
            let _turn = match entry.remembered() {
                Some(_) => None,
                None => Some(self.strangers.acquire().await),
            };
            self.clients.get(&client).await
        })
        .await;
        let now = Instant::now();
        let mut known = entry.known();
        known.asked = Some(now);
        match answer {
            Ok(Ok(config)) => {
                known.config = config.map(Arc::new);
                known.read = Some(now);
            }
            answer => {
                let why = match answer {
                    Ok(Err(error)) => telemetry::chain(&error),
                    _ => "no answer in time".to_owned(),
                };
                tracing::warn!(%client, why, "a client's configuration could not be read; what is remembered is gone by");
            }
        }
        known.whose()
    }

    fn entry(&self, id: &str) -> Option<Arc<Entry>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(id).cloned()
    }

    fn make(&self, client: &ClientId) -> Arc<Entry> {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= CONFIGS_MAX {
            entries.retain(|_, entry| entry.known().config.is_some());
        }
        Arc::clone(entries.entry(client.to_string()).or_default())
    }

    fn remember(&self, config: ClientConfig) {
        let entry = self
            .entry(config.client_id.as_str())
            .unwrap_or_else(|| self.make(&config.client_id));
        let mut known = entry.known();
        let now = Instant::now();
        known.config = Some(Arc::new(config));
        (known.read, known.asked) = (Some(now), Some(now));
    }

    /// Whether a name is one of ours or of a client's: nothing may be sent there as to somebody else.
    pub async fn is_ours(&self, place: Place<'_>) -> bool {
        match place {
            Place::Edit { .. } | Place::Preview { .. } => true,
            Place::Named { name } => self.owner(name).await.is_some(),
        }
    }

    async fn owner(&self, name: &str) -> Option<ClientId> {
        let look = || {
            let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
            let owner = names.of.get(name).cloned();
            let fresh = if owner.is_some() {
                NAMES_FRESH
            } else {
                NAMES_AGAIN
            };
            let recent = names.at.is_some_and(|at| at.elapsed() < fresh);
            (owner, recent, names.at.is_some())
        };
        let (owner, recent, ever) = look();
        if recent {
            return owner;
        }
        let _reading = match self.reading_names.try_lock() {
            Ok(reading) => reading,
            // Somebody reads them already; only the first time there is nothing to go by.
            Err(_) if ever => return owner,
            Err(_) => self.reading_names.lock().await,
        };
        let (owner, recent, _) = look();
        if recent {
            return owner;
        }
        let read = tokio::time::timeout(NAMES_TIME_MAX, self.read_names()).await;
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(Ok(of)) => names.of = of,
            answer => {
                let why = match answer {
                    Ok(Err(error)) => telemetry::chain(&error),
                    _ => "no answer in time".to_owned(),
                };
                tracing::warn!(
                    why,
                    "the clients' names could not be read; those that are remembered are gone by"
                );
            }
        }
        // Also where it failed: not again at once, however many ask.
        names.at = Some(Instant::now());
        names.of.get(name).cloned()
    }

    async fn read_names(&self) -> platform::Result<HashMap<String, ClientId>> {
        let reads: Vec<_> = self
            .clients
            .list()
            .await?
            .into_iter()
            .map(|client| async move { (self.clients.get(&client).await, client) })
            .collect();
        // In the order of the list, so that of two who claim a name it is always the same one who has it.
        let mut reads = futures_util::stream::iter(reads).buffered(NAMES_AT_ONCE);
        let mut of: HashMap<String, ClientId> = HashMap::new();
        while let Some((read, client)) = reads.next().await {
            // One that cannot be understood is no reason to lose the others.
            let config = match read {
                Ok(Some(config)) => config,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(%client, error = %telemetry::chain(&error), "a client's names could not be read");
                    continue;
                }
            };
            for name in std::iter::once(&config.domains.edit).chain(&config.domains.aliases) {
                let name = name.to_ascii_lowercase();
                if let Some(other) = of.get(&name)
                    && *other != client
                {
                    // The first one keeps it: a client cannot take a name from another by writing it down.
                    tracing::error!(name, %client, owner = %other, "two clients claim the same host");
                    continue;
                }
                of.insert(name, client.clone());
            }
            self.remember(config);
        }
        Ok(of)
    }
}
