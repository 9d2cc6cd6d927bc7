//! What a client is: its domains, its repository, its settings. Unknown fields survive a round trip.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::id::ClientId;
use crate::limits::{CHANGE_SET_MAX_BYTES, FILES_MAX};

mod brand;
mod parse;
mod rollout;

pub use brand::{BRAND_NAME_MAX_CHARACTERS, Brand, Colour, ColourError, Colours};
pub use rollout::{Origin, OriginError, Rollout, RolloutMode};

/// Minutes that an environment may idle: a day. Longer is a server, and is paid for like one.
pub const IDLE_TIMEOUT_MAX_MINUTES: f64 = 1440.0;
/// Environments of one client at a time: a bound on what a mistake in one number costs.
pub const SESSIONS_MAX: u32 = 100;

/// Minutes that an environment may live: a week. Every one of them is to be replaceable by then.
pub const LIFETIME_MAX_MINUTES: f64 = 7.0 * 1440.0;
/// Minutes that an environment lives where the client has no limit of its own.
pub const LIFETIME_DEFAULT_MINUTES: f64 = 720.0;

/// A domain name, for the schema.
const DOMAIN_PATTERN: &str =
    r"^(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$";
/// A remote, for the schema: no option of git's, and no secret in it.
const REMOTE_PATTERN: &str =
    r"^(?!-)(?!https?://[^/]*@)(?!ssh://[^/@]*:[^/]*@)[^\x00-\x1f\x7f-\x9f]*$";
/// A branch, for the schema: most of git's rules, and both of ours.
const BRANCH_PATTERN: &str =
    r"^(?!-)(?!refs/)(?!edit(/|$))(?!.*(\.\.|@\{|//))[^\x00-\x20~^:?*\[\\\x7f-\x9f]*$";
/// A reference to a secret, for the schema.
const SECRET_PATTERN: &str = r"^(secretsmanager:arn:aws[^:]*:secretsmanager:|ssm:[A-Za-z0-9_.:/-]|env:[A-Za-z_][A-Za-z0-9_]*$|file:.)";

/// A queue, for the schema: an address, or a name on a laptop.
const QUEUE_PATTERN: &str = r"^(https?://[^\s]+|[A-Za-z0-9_-]{1,75}(\.fifo)?)$";
/// The fingerprint of an ssh server's key, for the schema.
const HOST_KEY_PATTERN: &str = r"^SHA256:[A-Za-z0-9+/]{43}$";
/// A place with content, for the schema.
const CONTENT_SOURCE_PATTERN: &str =
    r"^(s3://[a-z0-9][a-z0-9.-]{2,62}/|https://[a-z0-9.-]+(:[0-9]+)?/)[^\s?#]*$";

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
    /// How much of everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ClientLimits>,
    /// The queue that gets every final receipt, beside the table; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = QUEUE_PATTERN))]
    pub results_queue_url: Option<String>,
    /// How the pages look that are about its site: our own look if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brand: Option<Brand>,
    /// How its visitors come over from the system that was there before. All of them are ours if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// Everything that this build does not know, kept as it is.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Map<String, Value>,
}

/// Host names of a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Domains {
    /// The public site.
    #[schemars(regex(pattern = DOMAIN_PATTERN))]
    pub production: String,
    /// The edit environments.
    #[schemars(regex(pattern = DOMAIN_PATTERN))]
    pub edit: String,
    /// The client's API.
    #[schemars(regex(pattern = DOMAIN_PATTERN))]
    pub api: String,
    /// Further names of the edit environments.
    #[serde(default)]
    #[schemars(inner(regex(pattern = DOMAIN_PATTERN)))]
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
    /// `https://`, `ssh://`, `git@host:path`, `file://` or a path (`http://` on this machine only); never with a
    /// password or a token in it.
    #[schemars(regex(pattern = REMOTE_PATTERN), length(min = 1, max = 2048))]
    pub url: String,
    /// The published branch: a valid name for git, and not `edit` or below it, where the drafts are.
    #[schemars(regex(pattern = BRANCH_PATTERN), length(min = 1, max = 200))]
    pub branch: String,
    /// A *reference* to a secret: `secretsmanager:<arn>`, `ssm:<name>`, `env:<NAME>` or `file:<path>`; never the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = SECRET_PATTERN))]
    pub deploy_key: Option<String>,
    /// The keys by which an ssh server is known, as `ssh-keygen -lf` prints them: `SHA256:` and 43 characters. Those of
    /// GitHub, GitLab and Bitbucket are known without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(regex(pattern = HOST_KEY_PATTERN)))]
    pub host_keys: Vec<String>,
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
    /// Minutes without a person before it sleeps: more than 0, at most 1440, may be fractional.
    #[serde(serialize_with = "serialize_minutes")]
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = IDLE_TIMEOUT_MAX_MINUTES))]
    pub idle_timeout_minutes: f64,
    /// Environments at a time: 1 to 100.
    #[schemars(range(min = 1, max = SESSIONS_MAX))]
    pub max_concurrent_sessions: u32,
    /// Unknown fields.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Map<String, Value>,
}

/// Whole minutes are written without a point, as they were read.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole, positive and small"
)]
fn serialize_minutes<S: Serializer>(minutes: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    let whole = minutes.fract() == 0.0 && (0.0..=LIFETIME_MAX_MINUTES).contains(minutes);
    if whole {
        serializer.serialize_u64(*minutes as u64)
    } else {
        serializer.serialize_f64(*minutes)
    }
}

#[expect(
    clippy::ref_option,
    reason = "serde passes a reference to the field as it is"
)]
fn serialize_some_minutes<S: Serializer>(
    minutes: &Option<f64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match minutes {
        Some(minutes) => serialize_minutes(minutes, serializer),
        None => serializer.serialize_none(),
    }
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

impl SiteSettings {
    /// The program and the arguments of `install_command`; nothing if there is none, or if its quotes do not close, which
    /// [`ClientConfig::parse`] refuses.
    pub fn install_words(&self) -> Option<Vec<String>> {
        shlex::split(self.install_command.as_deref()?).filter(|words| !words.is_empty())
    }
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
    /// Files that one instruction may touch: 1 to 500, which it is if absent.
    #[schemars(range(min = 1, max = FILES_MAX))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_files: Option<u32>,
    /// Bytes of one file: 20 MB if absent, and never more than one instruction may write, 50 MB.
    #[schemars(range(min = 1, max = CHANGE_SET_MAX_BYTES))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_file_bytes: Option<u64>,
    /// What becomes of an edit with which a page that rendered before does not render any more.
    #[serde(default)]
    pub on_broken: OnBroken,
    /// What has to succeed before something is published.
    #[serde(default)]
    pub publish_check: PublishCheck,
    /// From where the bytes behind a `contentUrl` may come: `s3://bucket/prefix` or `https://host/path`, of which the
    /// address must be a continuation. From nowhere if it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(regex(pattern = CONTENT_SOURCE_PATTERN)))]
    pub content_sources: Vec<String>,
    /// Unknown fields.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Map<String, Value>,
}

/// How much of everything a client may have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientLimits {
    /// Minutes after which an environment stops though it is used, and is woken anew: 12 hours if absent, at most a week.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "serialize_some_minutes"
    )]
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = LIFETIME_MAX_MINUTES))]
    pub max_lifetime_minutes: Option<f64>,
    /// Unknown fields.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Map<String, Value>,
}

/// What becomes of an edit with which a page that rendered before does not render any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnBroken {
    /// It is taken back before anybody sees it, and refused.
    #[default]
    Rollback,
    /// It stays, and its receipt says so.
    Keep,
}

/// What has to succeed before something is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PublishCheck {
    /// Every page that was touched since the last time renders.
    #[default]
    Render,
    /// That, and `astro build` succeeds in a copy.
    Build,
}
