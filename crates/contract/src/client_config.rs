//! What a client is: its domains, its repository, its settings. Unknown fields survive a round trip.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::ClientId;

/// A tenant: one website, one repository. Key `clientId`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientConfig {
    /// Its id.
    pub client_id: ClientId,
    /// Its host names.
    pub domains: Domains,
    /// Where its site is kept.
    pub repository: Repository,
    /// Its parts of the load balancer and the DNS.
    pub infrastructure: Infrastructure,
    /// Size, idle time, number of environments.
    pub settings: Settings,
    /// Whether it may use environments.
    pub status: ClientStatus,
    /// How its site is built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteSettings>,
    /// What instructions may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// Everything that this build does not know, kept as it is.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Map<String, Value>,
}

/// Host names of a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Domains {
    /// The public site.
    pub production: String,
    /// The edit environments.
    pub edit: String,
    /// The client's API.
    pub api: String,
    /// Further names of the edit environments.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Unknown fields.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Map<String, Value>,
}

/// Where a client's site is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Repository {
    /// `https://`, `ssh://`, `git@host:path`, `file://` or a path; never with a password in it.
    pub url: String,
    /// The published branch.
    pub branch: String,
    /// A *reference* to a secret: `secretsmanager:<arn>`, `ssm:<name>`, `env:<NAME>` or `file:<path>`; never the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy_key: Option<String>,
    /// Unknown fields.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Map<String, Value>,
}

/// A client's parts of the load balancer and the DNS; empty on a laptop.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Infrastructure {
    /// Its target group.
    #[serde(default)]
    pub target_group_arn: String,
    /// Its certificate.
    #[serde(default)]
    pub certificate_arn: String,
    /// Its DNS zone.
    #[serde(default)]
    pub hosted_zone_id: String,
    /// Unknown fields.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Map<String, Value>,
}

/// Size, idle time, number of environments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// How large a container.
    pub container_size: ContainerSize,
    /// Minutes without a person before it sleeps; may be fractional.
    pub idle_timeout_minutes: f64,
    /// Environments at a time.
    pub max_concurrent_sessions: u32,
    /// Unknown fields.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Map<String, Value>,
}

/// How large a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ContainerSize {
    /// 0.5 vCPU, 1 GB.
    Small,
    /// 1 vCPU, 2 GB.
    Medium,
    /// 2 vCPU, 4 GB.
    Large,
}

/// Whether a client may use environments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ClientStatus {
    /// It may.
    Active,
    /// It may not.
    Suspended,
}

/// How a client's site is built.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteSettings {
    /// The folder of the repository in which the site is; the repository's own root if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// The command that puts dependencies in place, split as a shell splits words; by the lock file if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install_command: Option<String>,
    /// Whether packages may run scripts when they are installed. Off by default: they are anybody's code.
    #[serde(default)]
    pub install_scripts: bool,
    /// Environment variables of the site.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Unknown fields.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Map<String, Value>,
}

/// What instructions may do. The default is what is safe without asking a developer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// Whether instructions may change package manifests and lock files.
    #[serde(default)]
    pub allow_dependencies: bool,
    /// Whether instructions may change configuration (`astro.config.*`, `tsconfig.json`, `.env*`, CI, dot files).
    #[serde(default)]
    pub allow_config: bool,
    /// Files that one instruction may touch; [`crate::limits::FILES_MAX`] if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_files: Option<u32>,
    /// Bytes of one file; [`crate::limits::FILE_MAX_BYTES`] if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_file_bytes: Option<u64>,
    /// Unknown fields.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Map<String, Value>,
}
