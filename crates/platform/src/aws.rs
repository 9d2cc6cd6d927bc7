//! The AWS adapters: DynamoDB, SQS, ECS, Secrets Manager, Systems Manager and S3.
//!
//! ```text
//!  port ──▶ request ──▶ operation (deadline) ──▶ attempt (deadline) ──▶ connect (deadline) ──▶ AWS
//!                          └── again, with jitter, at most Patience::attempts times ◀─┘
//! ```
//!
//! - **Everything ends.** Connecting, each attempt and the whole operation have deadlines ([`Patience`]); the SDK by
//!   itself waits for ever for a server that accepted and says nothing. A long poll gets its wait on top, a transfer of
//!   an object its own.
//! - **Retries are bounded and jittered**, and share one bucket of tokens a service: when everything fails, almost
//!   nothing is tried again. There is no loop round the SDK's own, except where a condition failed and the record is
//!   judged anew.
//! - **A lost reply.** A transaction carries a token (the SDK makes one a call and repeats it), a message its
//!   deduplication id, a receive its attempt id, a task the token of its session and generation; of other conditional writes the record itself says whether it was ours.
//! - **Credentials** come from the standard places and are fetched again before they expire. Nothing of them is ours.
//! - **One TLS stack**: rustls with ring, for the services and for the credentials alike.

mod clients;
mod fault;
mod launcher;
mod objects;
mod queue;
mod queues;
mod receipts;
mod record;
mod secrets;
mod sessions;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_smithy_http_client::{Builder, tls};

use crate::random::random;
use crate::{
    Clients, Instructions, Launcher, Objects, Queues, Receipts, Result, Secrets, Sessions,
};

pub use launcher::EcsSettings;

use clients::AwsClients;
use fault::Asked;
use launcher::EcsLauncher;
use objects::S3Objects;
use queue::{Deliveries, SqsQueue};
use queues::SqsQueues;
use receipts::AwsReceipts;
use secrets::AwsSecrets;
use sessions::AwsSessions;

/// What is said to AWS beyond the standard variables. The default says nothing.
#[derive(Debug, Clone, Default)]
pub struct AwsSettings {
    /// The region, instead of `AWS_REGION`.
    pub region: Option<String>,
    /// Where every service is, instead of `AWS_ENDPOINT_URL` and `AWS_ENDPOINT_URL_<SERVICE>`.
    pub endpoint_url: Option<String>,
    /// The keys, instead of the container's, the environment's and the profile's.
    pub keys: Option<Keys>,
    /// How long to wait and how often to try.
    pub patience: Patience,
}

/// An access key. `Debug` does not show the secret half.
#[derive(Clone)]
pub struct Keys {
    /// The half that is no secret.
    pub id: String,
    /// The half that is.
    pub secret: String,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({:?}, …)", self.id)
    }
}

/// How long to wait for AWS and how often to try.
#[derive(Debug, Clone)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For one attempt, its answer included. A long poll has its wait on top.
    pub attempt: Duration,
    /// For an operation with all its attempts. A long poll has its wait on top.
    pub operation: Duration,
    /// What an object may take on top of both, because it may be large.
    pub transfer: Duration,
    /// How often an operation is tried.
    pub attempts: u32,
    /// The longest pause between two attempts.
    pub pause: Duration,
}

impl Default for Patience {
    /// Requests take milliseconds, and a lease is 30 s long and renewed every 10 s: whoever has no answer after 12 s is
    /// to hear about it, so that a renewal can be asked for again within the lease.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            attempt: Duration::from_secs(5),
            operation: Duration::from_secs(12),
            transfer: Duration::from_secs(120),
            attempts: 4,
            pause: Duration::from_secs(2),
        }
    }
}

impl Patience {
    /// The deadlines of an operation that may take `extra` longer than others.
    fn with(&self, extra: Duration) -> TimeoutConfig {
        TimeoutConfig::builder()
            .connect_timeout(self.connect)
            .operation_attempt_timeout(self.attempt + extra)
            .operation_timeout(self.operation + extra)
            .build()
    }
}

/// All ports on AWS. Cheap to clone; the clones share their connections.
#[derive(Debug, Clone)]
pub struct Aws {
    dynamodb: aws_sdk_dynamodb::Client,
    ecs: aws_sdk_ecs::Client,
    sqs: aws_sdk_sqs::Client,
    secrets_manager: aws_sdk_secretsmanager::Client,
    ssm: aws_sdk_ssm::Client,
    s3: aws_sdk_s3::Client,
    region: String,
    patience: Patience,
    deliveries: Arc<Deliveries>,
}

impl Aws {
    /// Reads the standard variables and the profile; asks nobody but, where neither names a region, the machine.
    /// Whatever is missing is said by the first request that needs it.
    pub async fn load(settings: AwsSettings) -> Self {
        let AwsSettings {
            region,
            endpoint_url,
            keys,
            patience,
        } = settings;
        let http = Builder::new()
            .tls_provider(tls::Provider::Rustls(
                tls::rustls_provider::CryptoMode::Ring,
            ))
            .build_https();
        let retries = RetryConfig::standard()
            .with_max_attempts(patience.attempts)
            .with_max_backoff(patience.pause);
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(http)
            .timeout_config(patience.with(Duration::ZERO))
            .retry_config(retries);
        if let Some(region) = region {
            loader = loader.region(Region::new(region));
        }
        if let Some(url) = endpoint_url {
            loader = loader.endpoint_url(url);
        }
        if let Some(Keys { id, secret }) = keys {
            loader =
                loader.credentials_provider(Credentials::new(id, secret, None, None, "settings"));
        }
        let config = loader.load().await;
        Self {
            dynamodb: aws_sdk_dynamodb::Client::new(&config),
            ecs: aws_sdk_ecs::Client::new(&config),
            sqs: aws_sdk_sqs::Client::new(&config),
            secrets_manager: aws_sdk_secretsmanager::Client::new(&config),
            ssm: aws_sdk_ssm::Client::new(&config),
            s3: objects::client(&config),
            region: region_of(&config),
            patience,
            deliveries: Arc::default(),
        }
    }

    /// The clients in a table.
    pub fn clients(&self, table: &str) -> Arc<dyn Clients> {
        Arc::new(AwsClients {
            table: self.table(table),
        })
    }

    /// The sessions in a table.
    pub fn sessions(&self, table: &str) -> Arc<dyn Sessions> {
        Arc::new(AwsSessions {
            table: self.table(table),
        })
    }

    /// The receipts in a table.
    pub fn receipts(&self, table: &str) -> Arc<dyn Receipts> {
        Arc::new(AwsReceipts {
            table: self.table(table),
        })
    }

    /// A queue, by its URL.
    pub fn queue(&self, url: &str) -> Arc<dyn Instructions> {
        Arc::new(SqsQueue::new(self, url))
    }

    /// The URL of the queue of that name in this account and region.
    ///
    /// Errors: `Refused` when there is none.
    pub async fn queue_named(&self, name: &str) -> Result<String> {
        let asked = queue::asked("find", name, &self.region);
        let found = self.sqs.get_queue_url().queue_name(name).send().await;
        found
            .map_err(|error| asked.failed(error))?
            .queue_url
            .ok_or_else(|| asked.unavailable("the answer names no URL"))
    }

    /// The queues of sessions, with dead letters at the URL `dead`.
    pub fn queues(&self, dead: &str) -> Arc<dyn Queues> {
        Arc::new(SqsQueues::new(self, dead))
    }

    /// What starts environments as tasks of ECS. Nothing is asked yet.
    pub fn launcher(&self, settings: EcsSettings) -> Arc<dyn Launcher> {
        Arc::new(EcsLauncher {
            ecs: self.ecs.clone(),
            region: self.region.clone(),
            settings,
        })
    }

    /// Everything that a reference to a secret can name.
    pub fn secrets(&self) -> Arc<dyn Secrets> {
        Arc::new(AwsSecrets {
            secrets_manager: self.secrets_manager.clone(),
            ssm: self.ssm.clone(),
            region: self.region.clone(),
        })
    }

    /// The objects in a bucket.
    pub fn objects(&self, bucket: &str) -> Arc<dyn Objects> {
        Arc::new(S3Objects {
            s3: self.s3.clone(),
            bucket: bucket.to_owned(),
            patience: self.patience.clone(),
        })
    }

    fn table(&self, name: &str) -> Table {
        Table {
            dynamodb: self.dynamodb.clone(),
            name: name.to_owned(),
            region: self.region.clone(),
        }
    }
}

/// For errors.
fn region_of(config: &SdkConfig) -> String {
    config
        .region()
        .map_or("no region: set AWS_REGION", Region::as_ref)
        .to_owned()
}

/// One table.
#[derive(Debug, Clone)]
struct Table {
    dynamodb: aws_sdk_dynamodb::Client,
    name: String,
    region: String,
}

impl Table {
    fn asked(&self, operation: &'static str, thing: impl Into<String>) -> Asked {
        Asked {
            operation,
            thing: thing.into(),
            place: format!("table {} in {}", self.name, self.region),
            capability: None,
        }
    }
}

/// Stands back before a record is judged anew for the `turn`th time, for a random time of at most half a second, so that
/// those who got into each other's way do not do so again.
async fn stand_back(turn: u32) {
    let most = 20_u64.saturating_mul(1 << turn.min(5)).min(500);
    tokio::time::sleep(Duration::from_millis(1 + random() % most)).await;
}
