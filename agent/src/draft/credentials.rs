//! How the agent proves to a git server who it is, and how the server proves that to the agent. A secret is only ever in
//! memory.
//!
//! An ssh server is known by its key. On a developer's machine that is what their `known_hosts` says. In the cloud nobody has
//! connected before and nobody answers a question, so there it is one of the keys that the big forges publish or one that the
//! client's configuration names, and nothing in the container's home counts: what runs beside the agent could write it.
//! The key is compared before anything of ours is said, so that a server that is not the right one learns nothing.
//! For https the certificate says it, and libgit2 looks at that.

use std::cell::Cell;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use git2::cert::Cert;
use git2::{CertificateCheckStatus, Cred, CredentialType, RemoteCallbacks};

/// A server that refuses a credential asks for another, for ever. It gets this many.
const ATTEMPTS_MAX: u32 = 4;
/// By ssh there may be more to try: the user's name, the agent, and three kinds of key.
const SSH_ATTEMPTS_MAX: u32 = 6;

/// The keys of the big forges, as `ssh-keygen -lf` prints them: Ed25519, ECDSA, RSA. From what they publish:
/// <https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/githubs-ssh-key-fingerprints>,
/// <https://docs.gitlab.com/user/gitlab_com/#ssh-host-keys-fingerprints>,
/// <https://bitbucket.org/blog/ssh-host-key-changes> and <https://bitbucket.org/site/ssh>.
/// DSA keys, of which old lists have one, no forge shows any more.
const FORGES: [(&str, [&str; 3]); 3] = [
    (
        "github.com",
        [
            "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU",
            "SHA256:p2QAMXNIC1TJYWeIOttrVc98/R1BUFWu3/LiyKgUfQM",
            "SHA256:uNiVztksCsDhcc0u9e8BujQXVUpKZIDTMczCvj3tD2s",
        ],
    ),
    (
        "gitlab.com",
        [
            "SHA256:eUXGGm1YGsMAS7vkcx6JOJdOGHPem5gQp4taiCfCLB8",
            "SHA256:HbW3g8zUjNSksFbqTiUWPWg2Bq1x8xdGUrliXFzSnUw",
            "SHA256:ROQFvPThGrW4RuWLoL9tq9I9zJ42fK4XywyRtbOz/EQ",
        ],
    ),
    (
        "bitbucket.org",
        [
            "SHA256:ybgmFkzwOSotHTHLJgHO0QN8L0xErw6vd0VhFA9m3SM",
            "SHA256:FC73VB6C4OQLSCrjEayhMp9UMxS97caD/Yyi2bhW/J0",
            "SHA256:46OSHA1Rmj8E8ERTC6xkNcmGOw9oFxYr0WF6zWW8l1E",
        ],
    ),
];

/// Where credentials come from.
#[derive(Clone)]
pub(crate) enum Credentials {
    /// What the developer's own git would use: the ssh agent, the keys in `~/.ssh`, git's credential helpers.
    Ambient,
    /// A deploy key (an ssh private key) or a token, as text. An ssh server is known by the developer's `known_hosts`.
    Secret(String),
    /// The same in the cloud: an ssh server is known by the keys of the forges and of the client's configuration alone.
    Deploy(Arc<Deploy>),
}

/// A secret, and by which keys the server that gets it is known.
pub(crate) struct Deploy {
    secret: String,
    host_keys: Vec<String>,
    /// The key that a server showed and that is not the right one: libgit2 keeps of our refusal only its code.
    refused: Mutex<Option<String>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ambient => f.write_str("Ambient"),
            Self::Secret(_) => f.write_str("Secret(…)"),
            Self::Deploy(_) => f.write_str("Deploy(…)"),
        }
    }
}

/// Why a reference to a secret could not be resolved.
#[derive(Debug, thiserror::Error)]
#[error("the deploy key {reference} could not be read: {why}")]
pub(crate) struct UnknownSecret {
    reference: String,
    why: String,
}

impl Credentials {
    /// A deploy key or token for a server that is known by `host_keys` (`SHA256:` and 43 characters) or is a big forge.
    pub(crate) fn deploy(secret: String, host_keys: Vec<String>) -> Self {
        Self::Deploy(Arc::new(Deploy {
            secret,
            host_keys,
            refused: Mutex::new(None),
        }))
    }

    /// With these keys, the server is known by them (or is a big forge) and not by the developer's `known_hosts`.
    pub(crate) fn known_by(self, host_keys: Vec<String>) -> Self {
        match self {
            Self::Secret(secret) if !host_keys.is_empty() => Self::deploy(secret, host_keys),
            other => other,
        }
    }

    /// Whether `text` is the fingerprint of a key as `ssh-keygen -lf` prints it.
    pub(crate) fn is_host_key(text: &str) -> bool {
        text.strip_prefix("SHA256:").is_some_and(|hash| {
            hash.len() == 43
                && hash
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
        })
    }

    /// The key that the server showed when it was last refused because of it.
    pub(super) fn refused_host_key(&self) -> Option<String> {
        match self {
            Self::Deploy(deploy) => deploy.lock().clone(),
            Self::Ambient | Self::Secret(_) => None,
        }
    }

    /// Resolves `env:<NAME>` and `file:<path>`.
    pub(crate) fn resolve(reference: &str) -> Result<Self, UnknownSecret> {
        let unknown = |why: String| UnknownSecret {
            reference: reference.to_owned(),
            why,
        };
        let secret = match reference.split_once(':') {
            Some(("env", name)) => {
                std::env::var(name).map_err(|error| unknown(error.to_string()))?
            }
            Some(("file", path)) => {
                std::fs::read_to_string(path).map_err(|error| unknown(error.to_string()))?
            }
            _ => return Err(unknown("a deploy key is env:NAME or file:PATH".to_owned())),
        };
        if secret.trim().is_empty() {
            return Err(unknown("it is empty".to_owned()));
        }
        Ok(Self::Secret(secret))
    }

    /// Callbacks that answer the question of the server at `own`, a bounded number of times. libgit2 follows a redirect
    /// when it connects, and then another server asks: that one is told nothing.
    pub(super) fn callbacks<'a>(&'a self, own: &'a str) -> RemoteCallbacks<'a> {
        let asked = Cell::new(0);
        let keys_tried = Cell::new(0);
        let mut callbacks = RemoteCallbacks::new();
        callbacks.credentials(move |url, user, allowed| {
            asked.set(asked.get() + 1);
            if server(url) != server(own) {
                return Err(refused(
                    "it redirects to another server, which gets no credentials",
                ));
            }
            let ssh = allowed.intersects(CredentialType::SSH_KEY | CredentialType::USERNAME);
            let most = if ssh { SSH_ATTEMPTS_MAX } else { ATTEMPTS_MAX };
            if asked.get() > most {
                return Err(refused("the server did not accept any credentials"));
            }
            let user = user.unwrap_or("git");
            if allowed.contains(CredentialType::USERNAME) {
                return Cred::username(user);
            }
            let found = match self {
                Self::Secret(secret) => from_secret(secret, user, allowed),
                Self::Deploy(deploy) => from_secret(&deploy.secret, user, allowed),
                Self::Ambient => ambient(url, user, allowed, &keys_tried),
            };
            found.map_err(|error| refused(error.message()))
        });
        // Of https libgit2 itself knows whether the certificate is in order, and says so only to whoever does not ask to look at it.
        if let Self::Deploy(deploy) = self
            && !own.starts_with("http")
        {
            callbacks.certificate_check(|certificate, host| deploy.check(certificate, host));
        }
        callbacks
    }
}

impl Deploy {
    /// Whether the server is the right one, before anything is said to it.
    fn check(
        &self,
        certificate: &Cert<'_>,
        host: &str,
    ) -> Result<CertificateCheckStatus, git2::Error> {
        let hash = certificate.as_hostkey().and_then(|key| key.hash_sha256());
        let shown = match hash {
            Some(hash) => format!("SHA256:{}", BASE64.encode(hash)),
            None => "(without a SHA-256)".to_owned(),
        };
        if is_known(host, &shown, &self.host_keys) {
            return Ok(CertificateCheckStatus::CertificateOk);
        }
        *self.lock() = Some(shown);
        Err(git2::Error::new(
            git2::ErrorCode::Certificate,
            git2::ErrorClass::Callback,
            "the key of the server is not one that it is known by",
        ))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a server is known by the key that it shows.
fn is_known(host: &str, shown: &str, configured: &[String]) -> bool {
    let host = host.to_ascii_lowercase();
    let forge = FORGES.iter().find(|(name, _)| *name == host);
    forge.is_some_and(|(_, keys)| keys.contains(&shown))
        || configured.iter().any(|key| key == shown)
}

/// Scheme, host and port of an address.
fn server(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find('/').map_or(url.len(), |at| host + at);
    &url[..end]
}

fn refused(why: &str) -> git2::Error {
    git2::Error::new(git2::ErrorCode::Auth, git2::ErrorClass::Callback, why)
}

fn from_secret(secret: &str, user: &str, allowed: CredentialType) -> Result<Cred, git2::Error> {
    if allowed.contains(CredentialType::SSH_MEMORY) && secret.contains("PRIVATE KEY") {
        return Cred::ssh_key_from_memory(user, None, secret, None);
    }
    if allowed.contains(CredentialType::USER_PASS_PLAINTEXT) {
        return Cred::userpass_plaintext("x-access-token", secret.trim());
    }
    Err(git2::Error::from_str(
        "the server asks for another kind of credential than the configured one",
    ))
}

fn ambient(
    url: &str,
    user: &str,
    allowed: CredentialType,
    keys_tried: &Cell<usize>,
) -> Result<Cred, git2::Error> {
    if allowed.contains(CredentialType::SSH_KEY) {
        let agent = usize::from(std::env::var_os("SSH_AUTH_SOCK").is_some());
        let number = keys_tried.replace(keys_tried.get() + 1);
        if number < agent {
            return Cred::ssh_key_from_agent(user);
        }
        return match own_keys().get(number - agent) {
            Some(key) => Cred::ssh_key(user, None, key, None),
            None => Err(git2::Error::from_str(
                "neither the ssh agent nor a key in ~/.ssh was accepted",
            )),
        };
    }
    if allowed.contains(CredentialType::USER_PASS_PLAINTEXT) {
        return Cred::credential_helper(&git2::Config::open_default()?, url, None);
    }
    Cred::default()
}

fn own_keys() -> Vec<PathBuf> {
    let Some(home) = std::env::var_os("HOME") else {
        return Vec::new();
    };
    let folder = PathBuf::from(home).join(".ssh");
    ["id_ed25519", "id_ecdsa", "id_rsa"]
        .iter()
        .map(|name| folder.join(name))
        .filter(|path| path.is_file())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        for credentials in [
            Credentials::Secret("hunter2".to_owned()),
            Credentials::deploy("hunter2".to_owned(), Vec::new()),
        ] {
            let shown = format!("{credentials:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn a_forge_is_known_by_its_own_keys_and_others_by_what_is_configured() {
        // Made of the whole keys that the forges publish.
        let github =
            fingerprint("AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl");
        let bitbucket =
            fingerprint("AAAAC3NzaC1lZDI1NTE5AAAAIIazEu89wgQZ4bqs3d63QSMzYVa0MuJ2e2gKTKqu+UUO");
        let own =
            fingerprint("AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ");
        let configured = [own.clone()];
        let cases = [
            ("github.com", &github, true),
            ("GitHub.com", &github, true),
            ("bitbucket.org", &bitbucket, true),
            ("github.com", &bitbucket, false),
            ("github.com.evil.example", &github, false),
            ("git.amelia.example", &github, false),
            ("git.amelia.example", &own, true),
        ];
        for (host, shown, expected) in cases {
            assert_eq!(
                is_known(host, shown, &configured),
                expected,
                "{host} {shown}"
            );
        }
        assert!(!is_known("git.amelia.example", &own, &[]));
        assert!(
            FORGES
                .iter()
                .flat_map(|(_, keys)| keys)
                .all(|key| Credentials::is_host_key(key))
        );
        let wrong = ["SHA256:abc", "MD5:00", &own[7..], ""];
        assert!(!wrong.iter().any(|text| Credentials::is_host_key(text)));
    }

    /// The fingerprint of a key as it stands in a `known_hosts`.
    fn fingerprint(key: &str) -> String {
        use sha2::Digest as _;
        let key = BASE64.decode(key).expect("base64 without an end");
        format!("SHA256:{}", BASE64.encode(sha2::Sha256::digest(key)))
    }

    #[test]
    fn an_unknown_reference_says_what_would_be_valid() {
        let error = Credentials::resolve("hunter2").expect_err("no reference");
        assert!(
            error.to_string().contains("env:NAME or file:PATH"),
            "{error}"
        );
    }
}
