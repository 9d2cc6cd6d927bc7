//! How the agent proves to a git server who it is. A secret is only ever in memory.

use std::cell::Cell;
use std::fmt;
use std::path::PathBuf;

use git2::{Cred, CredentialType, RemoteCallbacks};

/// A server that refuses a credential asks for another, for ever. It gets this many.
const ATTEMPTS_MAX: u32 = 4;
/// By ssh there may be more to try: the user's name, the agent, and three kinds of key.
const SSH_ATTEMPTS_MAX: u32 = 6;

/// Where credentials come from.
#[derive(Clone)]
pub(crate) enum Credentials {
    /// What the developer's own git would use: the ssh agent, the keys in `~/.ssh`, git's credential helpers.
    Ambient,
    /// A deploy key (an ssh private key) or a token, as text.
    Secret(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ambient => f.write_str("Ambient"),
            Self::Secret(_) => f.write_str("Secret(…)"),
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
                Self::Ambient => ambient(url, user, allowed, &keys_tried),
            };
            found.map_err(|error| refused(error.message()))
        });
        callbacks
    }
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
        let shown = format!("{:?}", Credentials::Secret("hunter2".to_owned()));
        assert!(!shown.contains("hunter2"), "{shown}");
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
