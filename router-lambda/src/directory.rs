//! Which client a host belongs to, and how that client is configured.
//!
//! A client's own id stands in most hosts, and its configuration is one read. Names of a client's own (`edit.ameliastamps.com`)
//! stand in its configuration alone, so that all of them are read now and then; nobody can cause a read by inventing names.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use contract::{ClientConfig, ClientId};
use platform::Clients;
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
/// How long the table may take.
const READ_TIME_MAX: Duration = Duration::from_secs(3);

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
    configs: RwLock<HashMap<String, Remembered>>,
    names: RwLock<Names>,
    reading: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Remembered {
    config: Option<Arc<ClientConfig>>,
    at: Instant,
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
            configs: RwLock::default(),
            names: RwLock::default(),
            reading: tokio::sync::Mutex::default(),
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
        if let Some(known) = self.remembered(id, CONFIG_FRESH) {
            return known;
        }
        let Ok(client) = id.parse::<ClientId>() else {
            return Whose::Nobody;
        };
        let _reading = self.reading.lock().await;
        if let Some(known) = self.remembered(id, CONFIG_FRESH) {
            return known;
        }
        match tokio::time::timeout(READ_TIME_MAX, self.clients.get(&client)).await {
            Ok(Ok(config)) => {
                let config = config.map(Arc::new);
                self.remember(&client, config.clone());
                config.map_or(Whose::Nobody, Whose::Client)
            }
            answer => {
                let why = match answer {
                    Ok(Err(error)) => telemetry::chain(&error),
                    _ => "no answer in time".to_owned(),
                };
                tracing::warn!(%client, why, "a client's configuration could not be read; what is remembered is gone by");
                match self.remembered(id, CONFIG_KEPT) {
                    Some(Whose::Client(config)) => Whose::Client(config),
                    _ => Whose::Down,
                }
            }
        }
    }

    fn remembered(&self, id: &str, fresh: Duration) -> Option<Whose> {
        let configs = self.configs.read().unwrap_or_else(PoisonError::into_inner);
        let known = configs.get(id)?;
        (known.at.elapsed() < fresh).then(|| {
            let config = known.config.clone();
            config.map_or(Whose::Nobody, Whose::Client)
        })
    }

    fn remember(&self, client: &ClientId, config: Option<Arc<ClientConfig>>) {
        /// More clients than one router has; beyond, only hosts that somebody invents.
        const CONFIGS_MAX: usize = 10_000;
        let mut configs = self.configs.write().unwrap_or_else(PoisonError::into_inner);
        if configs.len() >= CONFIGS_MAX {
            configs.retain(|_, known| known.config.is_some() && known.at.elapsed() < CONFIG_KEPT);
        }
        let at = Instant::now();
        configs.insert(client.to_string(), Remembered { config, at });
    }

    /// Whether a name is one of ours or of a client's: nothing may be sent there as to somebody else.
    pub async fn is_ours(&self, place: Place<'_>) -> bool {
        match place {
            Place::Edit { .. } | Place::Preview { .. } => true,
            Place::Named { name } => self.owner(name).await.is_some(),
        }
    }

    async fn owner(&self, name: &str) -> Option<ClientId> {
        let look = |fresh: Duration| {
            let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
            let recent = names.at.is_some_and(|at| at.elapsed() < fresh);
            (names.of.get(name).cloned(), recent)
        };
        let enough = |(owner, _): &(Option<ClientId>, bool)| {
            if owner.is_some() {
                NAMES_FRESH
            } else {
                NAMES_AGAIN
            }
        };
        let found = look(NAMES_FRESH);
        if look(enough(&found)).1 {
            return found.0;
        }
        let _reading = self.reading.lock().await;
        if look(enough(&found)).1 {
            return look(NAMES_FRESH).0;
        }
        match tokio::time::timeout(READ_TIME_MAX, self.read_names()).await {
            Ok(Ok(of)) => {
                let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
                names.of = of;
                names.at = Some(Instant::now());
            }
            answer => {
                let why = match answer {
                    Ok(Err(error)) => telemetry::chain(&error),
                    _ => "no answer in time".to_owned(),
                };
                tracing::warn!(
                    why,
                    "the clients' names could not be read; those that are remembered are gone by"
                );
                // Not again at once, however many ask.
                self.names
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .at = Some(Instant::now());
            }
        }
        look(NAMES_FRESH).0
    }

    async fn read_names(&self) -> platform::Result<HashMap<String, ClientId>> {
        let mut of: HashMap<String, ClientId> = HashMap::new();
        for client in self.clients.list().await? {
            // One that cannot be understood is no reason to lose the others.
            let config = match self.clients.get(&client).await {
                Ok(Some(config)) => config,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(%client, error = %telemetry::chain(&error), "a client's names could not be read");
                    continue;
                }
            };
            let config = Arc::new(config);
            self.remember(&client, Some(Arc::clone(&config)));
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
        }
        Ok(of)
    }
}
