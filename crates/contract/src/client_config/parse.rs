//! Reads a client's configuration and finds everything that is wrong at once.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    ClientConfig, ClientLimits, ClientStatus, ContainerSize, Domains, IDLE_TIMEOUT_MAX_MINUTES,
    Infrastructure, LIFETIME_MAX_MINUTES, OnBroken, Policy, PublishCheck, Repository, SESSIONS_MAX,
    Settings, SiteSettings, brand, rollout,
};
use crate::limits::{CHANGE_SET_MAX_BYTES, FILES_MAX};
use crate::problem::Problems;
use crate::reader::{Fields, Node, Report};
use crate::site_path::SitePath;

impl ClientConfig {
    /// Reads a record. Unknown fields are kept as they are, and `null` is the same as an absent field.
    ///
    /// No problem repeats a value that may be a secret.
    pub fn parse(value: &Value) -> Result<Self, Problems> {
        let report = Report::default();
        let config = read_config(&Node::root(value, &report));
        report.judge(config)
    }
}

fn read_config(node: &Node<'_>) -> Option<ClientConfig> {
    let fields = node.open_fields(&[
        "clientId",
        "domains",
        "repository",
        "infrastructure",
        "settings",
        "status",
        "site",
        "policy",
        "limits",
        "resultsQueueUrl",
        "brand",
        "rollout",
    ])?;
    let client_id = fields
        .required("clientId", "the id of the client")
        .and_then(|node| node.parse());
    let domains = fields
        .required("domains", "an object with production, edit and api")
        .and_then(|node| read_domains(&node));
    let repository = fields
        .required("repository", "an object with url and branch")
        .and_then(|node| read_repository(&node));
    let infrastructure = fields
        .required(
            "infrastructure",
            "an object with targetGroupArn, certificateArn and hostedZoneId, {} on a laptop",
        )
        .and_then(|node| read_infrastructure(&node));
    let settings = fields
        .required(
            "settings",
            "an object with containerSize, idleTimeoutMinutes and maxConcurrentSessions",
        )
        .and_then(|node| read_settings(&node));
    let status = fields
        .required("status", "active or suspended")
        .and_then(|node| read_status(&node));
    let site = fields.optional("site").and_then(|node| read_site(&node));
    let policy = fields
        .optional("policy")
        .and_then(|node| read_policy(&node));
    let limits = fields
        .optional("limits")
        .and_then(|node| read_limits(&node));
    let results_queue_url = fields
        .optional("resultsQueueUrl")
        .and_then(|node| node.checked(check_queue));
    let brand = fields.optional("brand").and_then(|node| brand::read(&node));
    let rollout = fields
        .optional("rollout")
        .and_then(|node| rollout::read(&node, domains.as_ref()));
    Some(ClientConfig {
        client_id: client_id?,
        domains: domains?,
        repository: repository?,
        infrastructure: infrastructure?,
        settings: settings?,
        status: status?,
        site,
        policy,
        limits,
        results_queue_url,
        brand,
        rollout,
        unknown: fields.unknown(),
    })
}

fn read_status(node: &Node<'_>) -> Option<ClientStatus> {
    node.choice(
        "status",
        &[
            ("active", ClientStatus::Active),
            ("suspended", ClientStatus::Suspended),
        ],
    )
}

fn read_domains(node: &Node<'_>) -> Option<Domains> {
    let fields = node.open_fields(&["production", "edit", "api", "aliases"])?;
    let domain = |name, what| {
        fields
            .required(name, what)
            .and_then(|node| node.checked(check_domain))
    };
    let production = domain("production", "the domain of the public site");
    let edit = domain("edit", "the domain of the edit environments");
    let api = domain("api", "the domain of the client's API");
    let aliases = texts(&fields, "aliases", ALIASES_MAX, check_domain);
    Some(Domains {
        production: production?,
        edit: edit?,
        api: api?,
        aliases: aliases?,
        unknown: fields.unknown(),
    })
}

/// A list of texts, empty where there is none; nothing if one of them is wrong.
fn texts(
    fields: &Fields<'_>,
    name: &'static str,
    max: usize,
    check: impl Fn(&str) -> Result<(), String>,
) -> Option<Vec<String>> {
    let Some(list) = fields.optional(name) else {
        return Some(Vec::new());
    };
    let read: Vec<Option<String>> = list.items(max)?.map(|node| node.checked(&check)).collect();
    read.into_iter().collect()
}

/// Keys of one ssh server: three kinds, each with the one that comes after it, and room.
const HOST_KEYS_MAX: usize = 20;
/// Places from which content may come.
const CONTENT_SOURCES_MAX: usize = 20;

/// Further names of one client's environments: each is a rule of the load balancer, which has a hundred in all.
const ALIASES_MAX: usize = 20;

fn read_repository(node: &Node<'_>) -> Option<Repository> {
    let fields = node.open_fields(&["url", "branch", "deployKey", "hostKeys"])?;
    let url = fields
        .required("url", "where git finds the repository")
        .and_then(|node| node.checked(check_remote));
    let branch = fields
        .required("branch", "the published branch")
        .and_then(|node| node.checked(check_branch));
    let deploy_key = fields
        .optional("deployKey")
        .and_then(|node| node.checked(check_secret_reference));
    let host_keys = texts(&fields, "hostKeys", HOST_KEYS_MAX, check_host_key);
    Some(Repository {
        url: url?,
        branch: branch?,
        deploy_key,
        host_keys: host_keys?,
        unknown: fields.unknown(),
    })
}

fn read_infrastructure(node: &Node<'_>) -> Option<Infrastructure> {
    let fields = node.open_fields(&["targetGroupArn", "certificateArn", "hostedZoneId"])?;
    let target_group_arn = text_or_empty(&fields, "targetGroupArn", |text| {
        check_arn(text, "elasticloadbalancing")
    });
    let certificate_arn = text_or_empty(&fields, "certificateArn", |text| check_arn(text, "acm"));
    let hosted_zone_id = text_or_empty(&fields, "hostedZoneId", check_hosted_zone);
    Some(Infrastructure {
        target_group_arn: target_group_arn?,
        certificate_arn: certificate_arn?,
        hosted_zone_id: hosted_zone_id?,
        unknown: fields.unknown(),
    })
}

/// A text that is empty where there is no cloud.
fn text_or_empty(
    fields: &Fields<'_>,
    name: &'static str,
    check: impl FnOnce(&str) -> Result<(), String>,
) -> Option<String> {
    match fields.optional(name) {
        Some(node) => node.checked(|text| if text.is_empty() { Ok(()) } else { check(text) }),
        None => Some(String::new()),
    }
}

fn read_settings(node: &Node<'_>) -> Option<Settings> {
    let fields = node.open_fields(&[
        "containerSize",
        "idleTimeoutMinutes",
        "maxConcurrentSessions",
    ])?;
    let container_size = fields
        .required("containerSize", "small, medium or large")
        .and_then(|node| {
            node.choice(
                "size",
                &[
                    ("small", ContainerSize::Small),
                    ("medium", ContainerSize::Medium),
                    ("large", ContainerSize::Large),
                ],
            )
        });
    let idle_timeout_minutes = fields
        .required(
            "idleTimeoutMinutes",
            "minutes without a person before it sleeps",
        )
        .and_then(|node| {
            let minutes = node.number()?;
            if minutes > 0.0 && minutes <= IDLE_TIMEOUT_MAX_MINUTES {
                return Some(minutes);
            }
            node.wrong(format!(
                "must be more than 0 and at most {IDLE_TIMEOUT_MAX_MINUTES} minutes"
            ))
        });
    let max_concurrent_sessions = fields
        .required("maxConcurrentSessions", "how many environments at a time")
        .and_then(|node| node.whole_number(1..=u64::from(SESSIONS_MAX)));
    Some(Settings {
        container_size: container_size?,
        idle_timeout_minutes: idle_timeout_minutes?,
        max_concurrent_sessions: u32::try_from(max_concurrent_sessions?)
            .expect("SESSIONS_MAX is a u32"),
        unknown: fields.unknown(),
    })
}

fn read_site(node: &Node<'_>) -> Option<SiteSettings> {
    let fields = node.open_fields(&["root", "installCommand", "installScripts", "env"])?;
    let root = fields.optional("root").and_then(|node| {
        node.checked(|text| {
            let folder: Result<SitePath, _> = text.parse();
            folder
                .map(drop)
                .map_err(|error| format!("{error}; leave it out for the repository's own root"))
        })
    });
    let install_command = fields
        .optional("installCommand")
        .and_then(|node| node.checked(check_command));
    let install_scripts = fields
        .optional("installScripts")
        .map_or(Some(false), |node| node.boolean());
    let env = match fields.optional("env") {
        Some(node) => read_env(&node),
        None => Some(BTreeMap::new()),
    };
    Some(SiteSettings {
        root,
        install_command,
        install_scripts: install_scripts?,
        env: env?,
        unknown: fields.unknown(),
    })
}

fn read_env(node: &Node<'_>) -> Option<BTreeMap<String, String>> {
    let read = |(name, entry): (&str, Node<'_>)| {
        if !is_variable(name) {
            return entry
                .wrong("must have a name of A-Z, a-z, 0-9 and _ that does not start with a digit");
        }
        let value = entry.checked(|text| {
            if text.contains('\0') {
                Err("must not contain a null character".to_owned())
            } else {
                Ok(())
            }
        })?;
        Some((name.to_owned(), value))
    };
    let entries: Vec<Option<(String, String)>> = node.entries()?.map(read).collect();
    entries.into_iter().collect()
}

fn read_policy(node: &Node<'_>) -> Option<Policy> {
    let fields = node.open_fields(&[
        "allowDependencies",
        "allowConfig",
        "maxFiles",
        "maxFileBytes",
        "onBroken",
        "publishCheck",
        "contentSources",
    ])?;
    let allowed = |name| {
        fields
            .optional(name)
            .map_or(Some(false), |node| node.boolean())
    };
    let allow_dependencies = allowed("allowDependencies");
    let allow_config = allowed("allowConfig");
    let max_files = fields
        .optional("maxFiles")
        .and_then(|node| node.whole_number(1..=FILES_MAX as u64));
    let max_file_bytes = fields
        .optional("maxFileBytes")
        .and_then(|node| node.whole_number(1..=CHANGE_SET_MAX_BYTES as u64));
    let on_broken = choice(
        &fields,
        "onBroken",
        &[("rollback", OnBroken::Rollback), ("keep", OnBroken::Keep)],
    );
    let publish_check = choice(
        &fields,
        "publishCheck",
        &[
            ("render", PublishCheck::Render),
            ("build", PublishCheck::Build),
        ],
    );
    let content_sources = texts(
        &fields,
        "contentSources",
        CONTENT_SOURCES_MAX,
        check_content_source,
    );
    Some(Policy {
        allow_dependencies: allow_dependencies?,
        allow_config: allow_config?,
        max_files: max_files
            .map(|files| u32::try_from(files).expect("FILES_MAX is a small number")),
        max_file_bytes,
        on_broken: on_broken?,
        publish_check: publish_check?,
        content_sources: content_sources?,
        unknown: fields.unknown(),
    })
}

/// One of a few words, or the default where there is none; nothing if it is another word, which is a problem.
fn choice<T: Copy + Default>(
    fields: &Fields<'_>,
    name: &'static str,
    words: &[(&'static str, T)],
) -> Option<T> {
    fields
        .optional(name)
        .map_or(Some(T::default()), |node| node.choice("choice", words))
}

fn read_limits(node: &Node<'_>) -> Option<ClientLimits> {
    let fields = node.open_fields(&["maxLifetimeMinutes"])?;
    let max_lifetime_minutes = match fields.optional("maxLifetimeMinutes") {
        None => Some(None),
        Some(node) => node.number().and_then(|minutes| {
            if minutes > 0.0 && minutes <= LIFETIME_MAX_MINUTES {
                return Some(Some(minutes));
            }
            node.wrong(format!(
                "must be more than 0 and at most {LIFETIME_MAX_MINUTES} minutes"
            ))
        }),
    };
    Some(ClientLimits {
        max_lifetime_minutes: max_lifetime_minutes?,
        unknown: fields.unknown(),
    })
}

fn check_queue(text: &str) -> Result<(), String> {
    let name = text.strip_suffix(".fifo").unwrap_or(text);
    let is_name = (1..=75).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let is_address = ["https://", "http://"].iter().any(|scheme| {
        text.strip_prefix(scheme)
            .is_some_and(|rest| !rest.is_empty() && !rest.contains(char::is_whitespace))
    });
    if is_name || is_address {
        Ok(())
    } else {
        Err(
            "must be the address of a queue, https://sqs.<region>.amazonaws.com/<account>/<name>"
                .to_owned(),
        )
    }
}

fn check_host_key(text: &str) -> Result<(), String> {
    let hash = text.strip_prefix("SHA256:").unwrap_or_default();
    let fits = hash.len() == 43
        && hash
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
    if fits {
        Ok(())
    } else {
        Err("must be the fingerprint of a server's key, SHA256: and 43 characters, as `ssh-keyscan HOST | ssh-keygen -lf -` prints it".to_owned())
    }
}

fn check_content_source(text: &str) -> Result<(), String> {
    let place = |scheme: &str, allowed: fn(char) -> bool| {
        text.strip_prefix(scheme)
            .and_then(|rest| rest.split_once('/'))
            .is_some_and(|(host, path)| {
                !host.is_empty()
                    && host.chars().all(allowed)
                    && !path.contains(|c: char| c.is_whitespace() || matches!(c, '?' | '#'))
            })
    };
    let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
    let host =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | ':');
    if place("s3://", name) || place("https://", host) {
        Ok(())
    } else {
        Err("must be s3://bucket/prefix or https://host/path, without a query".to_owned())
    }
}

pub(super) fn check_domain(domain: &str) -> Result<(), String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if domain.len() <= 253 && domain.split('.').all(label) {
        return Ok(());
    }
    Err("must be a domain name in lower case, such as edit.amelia.example, without scheme, port and path".to_owned())
}

/// Whether git can be pointed at `url` without a secret in it and without git taking it for an option or a command.
fn check_remote(url: &str) -> Result<(), String> {
    if url.is_empty()
        || url.len() > 2048
        || url.starts_with('-')
        || url.chars().any(char::is_control)
    {
        return Err(REMOTE.to_owned());
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return check_remote_without_scheme(url);
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, host) = authority
        .rsplit_once('@')
        .map_or((None, authority), |(user, host)| (Some(user), host));
    let plain = !url.contains(char::is_whitespace);
    let named = !host.is_empty() && !host.starts_with('-') && !path.is_empty();
    match (scheme, user) {
        // A user of an https address is a token as often as not.
        ("https" | "http", Some(_)) => return Err(SECRET_IN_URL.to_owned()),
        ("ssh", Some(user)) if user.contains(':') => return Err(SECRET_IN_URL.to_owned()),
        ("https" | "http", None) if rest.contains(['?', '#']) => {
            return Err(
                "must not have a query, which is no place for a secret; use deployKey".to_owned(),
            );
        }
        _ => {}
    }
    let valid = match scheme {
        "https" => named && plain,
        // Test servers on this very machine; anywhere else the site would travel in the clear.
        "http" => named && plain && is_loopback(host),
        "ssh" => {
            named && plain && user != Some("") && !user.is_some_and(|user| user.starts_with('-'))
        }
        "file" => authority.is_empty() && !path.is_empty(),
        _ => false,
    };
    if valid {
        Ok(())
    } else {
        Err(REMOTE.to_owned())
    }
}

/// `git@host:path`, or a path.
fn check_remote_without_scheme(url: &str) -> Result<(), String> {
    let Some((account, path)) = url.split_once(':') else {
        return Ok(());
    };
    let valid = account.split_once('@').is_some_and(|(user, host)| {
        let word =
            |text: &str| !text.is_empty() && !text.starts_with('-') && !text.contains(['@', '/']);
        word(user) && word(host)
    });
    if path.contains('@') && !account.contains('@') {
        // `user:password@host/path`.
        return Err(SECRET_IN_URL.to_owned());
    }
    // `ext::sh -c …` runs a command.
    if valid && !path.is_empty() && !url.contains(char::is_whitespace) {
        Ok(())
    } else {
        Err(REMOTE.to_owned())
    }
}

const REMOTE: &str = "must be https://<host>/<path>, ssh://[<user>@]<host>/<path>, <user>@<host>:<path>, \
                      file:///<path> or a path";
const SECRET_IN_URL: &str = "must not carry a user with a password or token; put a reference to the secret into \
                             deployKey";

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    matches!(name, "localhost" | "127.0.0.1" | "::1")
}

/// The rules of `git check-ref-format --branch`, and two of our own.
fn check_branch(branch: &str) -> Result<(), String> {
    let forbidden = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    let component = |part: &str| {
        // Only this very spelling is git's, in small letters.
        let lock = part.strip_suffix(".lock").is_some();
        !part.is_empty() && !part.starts_with('.') && !lock
    };
    let valid = branch.len() <= 200
        && !branch.contains(forbidden)
        && !branch.contains("..")
        && !branch.contains("@{")
        && !branch.starts_with('-')
        && !branch.ends_with('.')
        && branch != "@"
        && branch != "HEAD"
        && branch.split('/').all(component);
    if !valid {
        return Err("must be the name of a git branch, such as main".to_owned());
    }
    if branch.starts_with("refs/") {
        return Err(
            "must be the short name of a branch, such as main and not refs/heads/main".to_owned(),
        );
    }
    // A branch `edit` and a branch `edit/…` cannot even exist beside each other.
    if branch == "edit" || branch.starts_with("edit/") {
        return Err("must not be edit or start with edit/, where the drafts are".to_owned());
    }
    Ok(())
}

/// Never repeats the text: whoever gets this wrong may have put the key itself here.
fn check_secret_reference(reference: &str) -> Result<(), String> {
    let (store, name) = reference.split_once(':').unwrap_or_default();
    let one_line = !name.is_empty() && name.len() <= 2048 && !name.chars().any(char::is_control);
    let valid = one_line
        && match store {
            "secretsmanager" => check_arn(name, "secretsmanager").is_ok(),
            "ssm" => name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_.-/:".contains(&b)),
            "env" => is_variable(name),
            "file" => true,
            _ => false,
        };
    if valid {
        return Ok(());
    }
    Err("must be a reference to a secret: secretsmanager:<arn>, ssm:<name>, env:<NAME> or file:<path>".to_owned())
}

/// The name of an environment variable.
fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `arn:<partition>:<service>:<region>:<account>:<resource>`.
fn check_arn(text: &str, service: &str) -> Result<(), String> {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let shaped = matches!(parts[..], ["arn", partition, of, _, _, resource]
        if partition.starts_with("aws") && of == service && !resource.is_empty());
    if shaped && !text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Ok(());
    }
    Err(format!("must be an ARN of {service}, or empty on a laptop"))
}

fn check_hosted_zone(text: &str) -> Result<(), String> {
    if text.len() <= 32
        && text
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
    {
        return Ok(());
    }
    Err("must be the id of a zone, at most 32 of A-Z and 0-9, or empty on a laptop".to_owned())
}

fn check_command(command: &str) -> Result<(), String> {
    if command.trim().is_empty() || command.len() > 1000 || command.chars().any(char::is_control) {
        return Err("must be one command line of at most 1000 bytes".to_owned());
    }
    if shlex::split(command).is_none_or(|words| words.is_empty()) {
        return Err("must be one command line whose quotes close".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn minimal() -> Value {
        json!({
            "clientId": "amelia-astro",
            "domains": { "production": "amelia.example", "edit": "edit.amelia.example", "api": "api.amelia.example" },
            "repository": { "url": "git@github.com:amelia/site.git", "branch": "main" },
            "infrastructure": {},
            "settings": { "containerSize": "small", "idleTimeoutMinutes": 7.5, "maxConcurrentSessions": 2 },
            "status": "active",
        })
    }

    fn full() -> Value {
        json!({
            "clientId": "amelia-astro",
            "domains": {
                "production": "amelia.example",
                "edit": "edit.amelia.example",
                "api": "api.amelia.example",
                "aliases": ["edit.stamps.example", "localhost"],
                "parked": ["amelia.invalid"],
            },
            "repository": {
                "url": "https://github.com/amelia/site.git",
                "branch": "release/2026",
                "deployKey": "secretsmanager:arn:aws:secretsmanager:eu-central-1:123456789012:secret:amelia-AbCdEf",
                "provider": "github",
            },
            "infrastructure": {
                "targetGroupArn": "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/edit/0123456789abcdef",
                "certificateArn": "arn:aws:acm:eu-central-1:123456789012:certificate/0123",
                "hostedZoneId": "Z0123456789ABCDEFGHIJ",
                "region": "eu-central-1",
            },
            "settings": {
                "containerSize": "large",
                "idleTimeoutMinutes": 15,
                "maxConcurrentSessions": 3,
                "colour": "green",
            },
            "status": "suspended",
            "site": {
                "root": "packages/site",
                "installCommand": "pnpm install --frozen-lockfile",
                "installScripts": true,
                "env": { "PUBLIC_SHOP": "amelia", "_x": "" },
                "astro": 5,
            },
            "policy": {
                "allowDependencies": true,
                "allowConfig": true,
                "maxFiles": 20,
                "onBroken": "keep",
                "publishCheck": "build",
                "maxFileBytes": 1_000_000,
                "contentSources": ["s3://media/amelia/", "https://media.example/amelia/"],
                "reviewers": [{ "name": "Bo" }],
            },
            "resultsQueueUrl": "https://sqs.eu-central-1.amazonaws.com/123456789012/amelia-results",
            "limits": { "maxLifetimeMinutes": 480 },
            "brand": {
                "name": "Amelia’s Stamps",
                "colours": { "accent": "#8a1c2b", "background": "#fffaf2", "text": "#20160f", "border": "#dddddd" },
                "logo": "/logo.svg",
            },
            "rollout": {
                "mode": "percent",
                "legacyOrigin": "https://old.webordinary.example:8443",
                "percent": 25,
                "since": "2026-12-01",
            },
            "editor": { "command": ["claude", null] },
        })
    }

    /// The paths and messages of what is wrong with `minimal` when `pointer` is set to `value`.
    fn problems_with(pointer: &str, value: Value) -> String {
        let mut config = full();
        *config
            .pointer_mut(pointer)
            .expect("a field of the full configuration") = value;
        ClientConfig::parse(&config)
            .map_or_else(|problems| problems.to_string(), |_| "fine".to_owned())
    }

    #[test]
    fn a_configuration_survives_a_round_trip_with_everything_that_is_not_known() {
        for value in [minimal(), full()] {
            let config = ClientConfig::parse(&value).expect("valid");
            let written = serde_json::to_value(&config).expect("serialises");
            assert_eq!(ClientConfig::parse(&written), Ok(config.clone()));
            assert_eq!(
                serde_json::from_value::<ClientConfig>(written).expect("reads what it wrote"),
                config
            );
        }
        let config = ClientConfig::parse(&full()).expect("valid");
        assert_eq!(serde_json::to_value(&config).expect("serialises"), full());
    }

    #[test]
    fn serde_and_parse_read_the_same() {
        for value in [minimal(), full()] {
            let parsed = ClientConfig::parse(&value).expect("valid");
            assert_eq!(
                serde_json::from_value::<ClientConfig>(value).expect("valid"),
                parsed
            );
        }
    }

    #[test]
    fn a_field_that_is_null_is_absent() {
        let mut value = full();
        for pointer in [
            "/site",
            "/policy",
            "/brand",
            "/rollout",
            "/repository/deployKey",
            "/domains/aliases",
        ] {
            *value.pointer_mut(pointer).expect("there") = Value::Null;
        }
        let config = ClientConfig::parse(&value).expect("valid");
        assert_eq!(
            (config.site, config.policy, config.repository.deploy_key),
            (None, None, None)
        );
        assert_eq!((config.brand, config.rollout), (None, None));
        assert_eq!(config.domains.aliases, Vec::<String>::new());
    }

    #[test]
    fn what_is_not_said_is_what_is_safe() {
        let mut value = minimal();
        value["site"] = json!({});
        value["policy"] = json!({});
        let config = ClientConfig::parse(&value).expect("valid");
        assert_eq!(config.site, Some(SiteSettings::default()));
        assert_eq!(config.policy, Some(Policy::default()));
        assert!(
            !SiteSettings::default().install_scripts,
            "packages run no scripts of their own"
        );
        assert!(!Policy::default().allow_dependencies && !Policy::default().allow_config);
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let value = json!({
            "clientId": "Amelia",
            "domains": { "production": "https://amelia.example", "edit": "edit.amelia.example:8080", "aliases": ["*.x", 4] },
            "repository": { "url": "https://amelia:hunter2@github.com/site.git", "branch": "edit/main", "deployKey": "-----BEGIN KEY" },
            "infrastructure": { "targetGroupArn": "edit", "certificateArn": 7, "hostedZoneId": "/hostedzone/Z1" },
            "settings": { "containerSize": "huge", "idleTimoutMinutes": 5, "maxConcurrentSessions": 0 },
            "site": { "root": "../x", "installCommand": " ", "installScripts": "yes", "env": { "A-B": "x", "C": 1 } },
            "policy": { "allowDependencies": 1, "maxFiles": 501, "maxFileBytes": 0.5, "contentSources": ["http://media.example/", "s3://Bucket/"] },
            "limits": { "maxLifetimeMinutes": 20000 },
            "resultsQueueUrl": "a queue",
            "brand": { "name": "two\nlines", "colours": { "accent": "red", "background": 7, "text": "#fff" } },
            "rollout": { "mode": "half", "legacyOrigin": "https://old.example/edit", "percent": 101 },
        });
        let problems = ClientConfig::parse(&value).expect_err("much is wrong");
        let lines: Vec<String> = problems
            .0
            .iter()
            .map(|problem| format!("{}: {}", problem.path, problem.message))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        $.clientId: a client id is 2 to 24 of a-z, 0-9 and -, with no -- and no - at an end
        $.domains.production: must be a domain name in lower case, such as edit.amelia.example, without scheme, port and path
        $.domains.edit: must be a domain name in lower case, such as edit.amelia.example, without scheme, port and path
        $.domains.api: is required: the domain of the client's API
        $.domains.aliases[0]: must be a domain name in lower case, such as edit.amelia.example, without scheme, port and path
        $.domains.aliases[1]: must be text, not a number
        $.repository.url: must not carry a user with a password or token; put a reference to the secret into deployKey
        $.repository.branch: must not be edit or start with edit/, where the drafts are
        $.repository.deployKey: must be a reference to a secret: secretsmanager:<arn>, ssm:<name>, env:<NAME> or file:<path>
        $.infrastructure.targetGroupArn: must be an ARN of elasticloadbalancing, or empty on a laptop
        $.infrastructure.certificateArn: must be text, not a number
        $.infrastructure.hostedZoneId: must be the id of a zone, at most 32 of A-Z and 0-9, or empty on a laptop
        $.settings.containerSize: "huge" is no known size; known are small, medium and large
        $.settings.idleTimeoutMinutes: is required: minutes without a person before it sleeps; the unknown field "idleTimoutMinutes" is near
        $.settings.maxConcurrentSessions: must be a whole number from 1 to 100
        $.status: is required: active or suspended
        $.site.root: a path has no . or .. component; leave it out for the repository's own root
        $.site.installCommand: must be one command line of at most 1000 bytes
        $.site.installScripts: must be true or false, not text
        $.site.env["A-B"]: must have a name of A-Z, a-z, 0-9 and _ that does not start with a digit
        $.site.env.C: must be text, not a number
        $.policy.allowDependencies: must be true or false, not a number
        $.policy.maxFiles: must be a whole number from 1 to 500
        $.policy.maxFileBytes: must be a whole number from 1 to 52428800
        $.policy.contentSources[0]: must be s3://bucket/prefix or https://host/path, without a query
        $.policy.contentSources[1]: must be s3://bucket/prefix or https://host/path, without a query
        $.limits.maxLifetimeMinutes: must be more than 0 and at most 10080 minutes
        $.resultsQueueUrl: must be the address of a queue, https://sqs.<region>.amazonaws.com/<account>/<name>
        $.brand.name: must be one line of 1 to 80 characters
        $.brand.colours.accent: must be a colour as #rrggbb, such as #1f5fbf
        $.brand.colours.background: must be text, not a number
        $.brand.colours.text: must be a colour as #rrggbb, such as #1f5fbf
        $.rollout.mode: "half" is no known mode; known are legacy, percent and new
        $.rollout.legacyOrigin: must be https://<host>, with :<port> if need be and nothing after it; http:// on this machine only, such as http://localhost:8080
        $.rollout.percent: must be a whole number from 0 to 100
        "#);
    }

    #[test]
    fn nobody_is_sent_round_in_a_circle() {
        for host in ["edit.amelia.example", "edit.stamps.example"] {
            for origin in [format!("https://{host}"), format!("https://{host}:8443")] {
                let message = problems_with("/rollout/legacyOrigin", json!(origin));
                assert!(
                    message.starts_with("$.rollout.legacyOrigin: must not be the domain of"),
                    "{message}"
                );
            }
        }
        for origin in ["https://amelia.example", "https://old.edit.amelia.example"] {
            assert_eq!(
                problems_with("/rollout/legacyOrigin", json!(origin)),
                "fine",
                "{origin}"
            );
        }
    }

    #[test]
    fn a_share_is_said_where_there_is_one() {
        for mode in ["legacy", "new"] {
            let rollout = json!({ "mode": mode, "legacyOrigin": "https://old.example" });
            assert_eq!(problems_with("/rollout", rollout), "fine", "{mode}");
        }
        let rollout = json!({ "mode": "percent", "legacyOrigin": "https://old.example" });
        assert_eq!(
            problems_with("/rollout", rollout),
            "$.rollout.percent: is required: of a hundred sessions, how many are ours: 0 to 100"
        );
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for value in [Value::Null, json!([]), json!("amelia")] {
            let problems = ClientConfig::parse(&value).expect_err("no object");
            assert_eq!(problems.0.len(), 1, "{problems}");
            assert_eq!(problems.0[0].path, "$");
        }
    }

    #[test]
    fn a_remote_is_somewhere_git_can_push_to_without_a_secret_in_its_address() {
        for url in [
            "https://github.com/amelia/site.git",
            "https://github.com:8443/amelia/site.git",
            "ssh://git@github.com/amelia/site.git",
            "ssh://git@github.com:2222/amelia/site.git",
            "ssh://github.com/amelia/site.git",
            "git@github.com:amelia/site.git",
            "file:///srv/git/amelia site.git",
            "/srv/git/amelia site.git",
            "../remote.git",
            "http://127.0.0.1:8000/site.git",
            "http://localhost/site.git",
            "http://[::1]:8000/site.git",
        ] {
            assert_eq!(
                problems_with("/repository/url", json!(url)),
                "fine",
                "{url}"
            );
        }
        for url in [
            "",
            "-uorigin",
            "http://github.com/amelia/site.git",
            "http://localhost.example/site.git",
            "git://github.com/amelia/site.git",
            "ext::sh -c touch% x",
            "https://github.com",
            "https:///site.git",
            "https://git hub.com/site.git",
            "ssh://-oProxyCommand=x/site.git",
            "ssh://-l@host/site.git",
            "file://host/site.git",
            "github.com:amelia/site.git",
            "git@-host:site.git",
            "/srv/git/a\nb",
        ] {
            let message = problems_with("/repository/url", json!(url));
            assert!(
                message.starts_with("$.repository.url: must be https://<host>/<path>, "),
                "{url}: {message}"
            );
        }
        for url in [
            "https://hunter2@github.com/amelia/site.git",
            "https://amelia:hunter2@github.com/amelia/site.git",
            "https://a@b:hunter2@github.com/amelia/site.git",
            "ssh://git:hunter2@github.com/amelia/site.git",
            "git:hunter2@github.com/amelia/site.git",
            "https://github.com/amelia/site.git?access_token=hunter2",
        ] {
            let message = problems_with("/repository/url", json!(url));
            assert!(
                message.starts_with("$.repository.url: must not "),
                "{url}: {message}"
            );
            assert!(
                message.contains("deployKey") && !message.contains("hunter2"),
                "{url}: {message}"
            );
        }
    }

    #[test]
    fn a_branch_is_what_git_takes_for_one_and_no_draft() {
        for branch in [
            "main",
            "release/2026",
            "feature@2",
            "a.b",
            "édition",
            "edits/x",
            "lock",
        ] {
            assert_eq!(
                problems_with("/repository/branch", json!(branch)),
                "fine",
                "{branch}"
            );
        }
        for branch in [
            "",
            "HEAD",
            "@",
            "-x",
            "a b",
            "a..b",
            "a.lock",
            "a.lock/b",
            ".a",
            "a/.b",
            "/a",
            "a/",
            "a//b",
            "a.",
            "a~1",
            "a^",
            "a:b",
            "a?",
            "a*",
            "a[",
            "a\\b",
            "a@{1}",
            "a\u{7f}",
            "refs/heads/main",
            "edit",
            "edit/local",
        ] {
            let message = problems_with("/repository/branch", json!(branch));
            assert!(
                message.starts_with("$.repository.branch: must "),
                "{branch}: {message}"
            );
        }
    }

    #[test]
    fn a_deploy_key_is_a_reference_and_never_shown() {
        for reference in [
            "secretsmanager:arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:x",
            "ssm:/webordinary/amelia/deploy-key",
            "env:DEPLOY_KEY",
            "file:/run/secrets/deploy key",
        ] {
            assert_eq!(
                problems_with("/repository/deployKey", json!(reference)),
                "fine",
                "{reference}"
            );
        }
        for key in [
            "",
            "hunter2",
            "env:",
            "env:hunter-2",
            "file:",
            "ssm:hunter2 x",
            "secretsmanager:hunter2",
            "secretsmanager:arn:aws:s3:::hunter2",
            "vault:hunter2",
            "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n",
        ] {
            let message = problems_with("/repository/deployKey", json!(key));
            assert!(
                message.starts_with("$.repository.deployKey: must be a reference"),
                "{key}: {message}"
            );
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn a_domain_is_a_name_and_nothing_more() {
        let (longest, too_long) = ("a".repeat(63), "a".repeat(64));
        for domain in [
            "a.example",
            "localhost",
            "xn--bcher-kva.example",
            "127.0.0.1",
            &longest,
        ] {
            assert_eq!(
                problems_with("/domains/aliases/0", json!(domain)),
                "fine",
                "{domain}"
            );
        }
        let longer = vec!["abc"; 64].join(".");
        for domain in [
            "",
            "A.example",
            "a_b.example",
            "a..b",
            ".a",
            "a.",
            "-a.b",
            "a-.b",
            "*.a",
            "a:80",
            "a/b",
            &too_long,
            &longer,
        ] {
            let message = problems_with("/domains/aliases/0", json!(domain));
            assert!(
                message.starts_with("$.domains.aliases[0]: must be a domain name"),
                "{domain}: {message}"
            );
        }
    }

    #[test]
    fn numbers_have_their_limits() {
        let idle = |value: Value| problems_with("/settings/idleTimeoutMinutes", value);
        assert_eq!(idle(json!(0.05)), "fine");
        assert_eq!(idle(json!(1440)), "fine");
        for value in [json!(0), json!(-1), json!(1440.5)] {
            assert_eq!(
                idle(value),
                "$.settings.idleTimeoutMinutes: must be more than 0 and at most 1440 minutes"
            );
        }
        let sessions = |value: Value| problems_with("/settings/maxConcurrentSessions", value);
        assert_eq!(sessions(json!(1)), "fine");
        assert_eq!(sessions(json!(100)), "fine");
        for value in [json!(0), json!(101), json!(1.5)] {
            assert_eq!(
                sessions(value),
                "$.settings.maxConcurrentSessions: must be a whole number from 1 to 100"
            );
        }
    }
}
