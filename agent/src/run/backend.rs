//! The ports of an environment: to AWS, or to a file on this machine. Everything after this is the same.

use std::sync::Arc;

use async_trait::async_trait;
use contract::{ClientConfig, Session};
use platform::aws::{Aws, AwsSettings};
use platform::local::{LocalObjects, LocalSecrets, LocalStore, QueueSettings};
use platform::{Clients, Instructions, Objects, PortError, Receipts, Secrets, Sessions};

use super::settings::{Settings, Where};
use crate::content::{Buckets, Fetcher};
use crate::failure::{Exit, Failure, chain};

/// Deliveries of one message before it is a dead letter (DESIGN §4).
const RECEIVES_MAX: u32 = 10;

/// The ports to records, messages, secrets and objects.
#[derive(Debug, Clone)]
pub(super) struct Backend {
    pub(super) clients: Arc<dyn Clients>,
    pub(super) sessions: Arc<dyn Sessions>,
    pub(super) receipts: Arc<dyn Receipts>,
    pub(super) secrets: Arc<dyn Secrets>,
    /// Where bundles of what the remote does not take are put; nowhere if absent.
    pub(super) rescue: Option<Arc<dyn Objects>>,
    queues: Queues,
}

#[derive(Debug, Clone)]
enum Queues {
    Aws(Aws),
    Local(LocalStore),
}

/// Every bucket that the task's role may read.
#[derive(Debug)]
struct AwsBuckets(Aws);

#[async_trait]
impl Buckets for AwsBuckets {
    async fn get(&self, bucket: &str, key: &str, max_bytes: u64) -> Result<Vec<u8>, String> {
        match self.0.objects(bucket).get(key, max_bytes).await {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err("does not exist".to_owned()),
            // What AWS says names our account and role: that is for the log.
            Err(error) => {
                tracing::warn!(error = %chain(&error), bucket, "content could not be read from a bucket");
                Err(match error {
                    PortError::Refused { .. } => "may not be read, or is too large".to_owned(),
                    _ => "could not be read; it may be a moment later".to_owned(),
                })
            }
        }
    }
}

/// The queues of a session.
#[derive(Debug)]
pub(super) struct SessionQueues {
    pub(super) own: Arc<dyn Instructions>,
    pub(super) dead: Arc<dyn Instructions>,
    pub(super) dead_address: String,
    pub(super) results: Option<Arc<dyn Instructions>>,
}

impl Backend {
    /// Opens the ports. Nothing is asked yet of AWS.
    pub(super) async fn open(settings: &Settings) -> Result<Self, Failure> {
        match &settings.records {
            Where::Aws {
                clients,
                sessions,
                receipts,
            } => {
                let aws = Aws::load(AwsSettings::default()).await;
                Ok(Self {
                    clients: aws.clients(clients),
                    sessions: aws.sessions(sessions),
                    receipts: aws.receipts(receipts),
                    secrets: aws.secrets(),
                    rescue: settings
                        .rescue_bucket
                        .as_deref()
                        .map(|bucket| aws.objects(bucket)),
                    queues: Queues::Aws(aws),
                })
            }
            Where::Local { folder } => {
                let store = LocalStore::open(&folder.join("edit.sqlite"))
                    .map_err(|error| failure("open the local records", &error))?;
                Ok(Self {
                    clients: store.clients(),
                    sessions: store.sessions(),
                    receipts: store.receipts(),
                    secrets: Arc::new(LocalSecrets),
                    rescue: Some(Arc::new(LocalObjects::new(&folder.join("rescue")))),
                    queues: Queues::Local(store),
                })
            }
        }
    }

    /// How what instructions have elsewhere is fetched.
    pub(super) fn content(&self) -> Fetcher {
        match &self.queues {
            Queues::Aws(aws) => Fetcher::new(Some(Arc::new(AwsBuckets(aws.clone())))),
            Queues::Local(_) => Fetcher::new(None),
        }
    }

    /// The queues of a session.
    pub(super) fn queues(
        &self,
        settings: &Settings,
        session: &Session,
        config: &ClientConfig,
    ) -> SessionQueues {
        let own = settings
            .queue
            .clone()
            .unwrap_or_else(|| session.queue_url.clone());
        let dead = settings.dead_queue(&own);
        SessionQueues {
            own: self.queue(&own, Some(&dead)),
            results: config
                .results_queue_url
                .as_deref()
                .map(|url| self.queue(url, None)),
            dead: self.queue(&dead, None),
            dead_address: dead,
        }
    }

    /// Whether a queue is there that may only be sent to.
    pub(super) async fn find_queue(&self, address: &str) -> platform::Result<()> {
        match &self.queues {
            Queues::Aws(aws) => {
                let name = address.rsplit('/').next().unwrap_or(address);
                aws.queue_named(name).await.map(drop)
            }
            // It is made by whoever sends to it first.
            Queues::Local(_) => Ok(()),
        }
    }

    fn queue(&self, address: &str, dead: Option<&str>) -> Arc<dyn Instructions> {
        match &self.queues {
            Queues::Aws(aws) => aws.queue(address),
            Queues::Local(store) => Arc::new(store.queue(
                address,
                QueueSettings {
                    max_receive_count: RECEIVES_MAX,
                    dead: dead.map(str::to_owned),
                },
            )),
        }
    }
}

/// A port that does not answer, or does not let us.
pub(super) fn failure(operation: &str, error: &PortError) -> Failure {
    // What an operator has written and nobody can read is not the backend's fault.
    let (exit, hint) = match error {
        PortError::Corrupt { .. } => (
            Exit::Config,
            "Put right what is named; `edit-agent schema` prints what is valid.",
        ),
        _ => (Exit::Backend, BACKEND_HINT),
    };
    Failure::new(
        exit,
        format!("could not {operation}: {}", chain(error)),
        hint,
    )
    .retryable(error.is_transient())
}

/// What to look at where a port does not answer or does not let us.
pub(super) const BACKEND_HINT: &str =
    "Check the names of tables and queues, the rights of the task's role, and the network.";
