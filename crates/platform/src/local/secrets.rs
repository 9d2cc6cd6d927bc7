//! The secrets of this machine: variables and files.

use std::io::Read as _;

use async_trait::async_trait;

use crate::{PortError, Result, SECRET_MAX_BYTES, Secret, Secrets};

/// The secrets of this machine: `env:<NAME>` and `file:<path>`.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalSecrets;

#[async_trait]
impl Secrets for LocalSecrets {
    async fn read(&self, reference: &str) -> Result<Option<Secret>> {
        match reference.split_once(':') {
            Some(("env", name)) if is_name(name) => variable(name),
            Some(("file", path)) if !path.is_empty() => {
                let (path, thing) = (path.to_owned(), format!("file {path}"));
                let read = tokio::task::spawn_blocking(move || file(&path)).await;
                match read {
                    Ok(outcome) => outcome.map_err(|why| why.at(thing)),
                    Err(error) => Err(unavailable(thing, error)),
                }
            }
            Some((kind @ ("secretsmanager" | "ssm"), _)) => Err(refused(
                format!("a secret by a reference to {kind}"),
                "only an environment on AWS can read it: put it into a file or a variable and name that with file:<path> \
                 or env:<NAME>",
            )),
            _ => Err(refused(
                "a secret".to_owned(),
                "what should name it is no reference: it is secretsmanager:<arn>, ssm:<name>, env:<NAME> or file:<path>",
            )),
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn variable(name: &str) -> Result<Option<Secret>> {
    let thing = || format!("variable {name}");
    match std::env::var(name) {
        Ok(text) if text.len() > SECRET_MAX_BYTES => Err(refused(thing(), TOO_LONG)),
        Ok(text) => Ok(Some(Secret::new(text))),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(refused(thing(), "a secret is UTF-8 text")),
    }
}

const TOO_LONG: &str = "a secret has at most 64 KiB";

enum Why {
    Refused(&'static str),
    Unavailable(std::io::Error),
}

impl Why {
    fn at(self, thing: String) -> PortError {
        match self {
            Self::Refused(reason) => refused(thing, reason),
            Self::Unavailable(error) => unavailable(thing, error),
        }
    }
}

fn file(path: &str) -> std::result::Result<Option<Secret>, Why> {
    let opened = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(Why::Refused("this program may not read it"));
        }
        Err(error) => return Err(Why::Unavailable(error)),
    };
    // A pipe or a device could be without end, or without a beginning.
    if !opened.metadata().map_err(Why::Unavailable)?.is_file() {
        return Err(Why::Refused("it is no ordinary file"));
    }
    let mut bytes = Vec::new();
    let most = u64::try_from(SECRET_MAX_BYTES).expect("64 KiB fit") + 1;
    opened
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(Why::Unavailable)?;
    if bytes.len() > SECRET_MAX_BYTES {
        return Err(Why::Refused(TOO_LONG));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(Secret::new(text))),
        Err(_) => Err(Why::Refused("a secret is UTF-8 text")),
    }
}

fn refused(thing: String, reason: &str) -> PortError {
    PortError::Refused {
        operation: "read",
        thing,
        reason: reason.to_owned(),
    }
}

fn unavailable(thing: String, error: impl std::error::Error + Send + Sync + 'static) -> PortError {
    PortError::Unavailable {
        operation: "read",
        thing,
        source: Box::new(error),
    }
}
