//! The port to the secrets.

use std::fmt::{self, Debug};

use async_trait::async_trait;

use crate::Result;

/// The longest secret that is read: what AWS's two stores of them take at most.
pub const SECRET_MAX_BYTES: usize = 64 * 1024;

/// Where credentials are kept. Records name a secret by a reference and never hold it.
///
/// | reference | is |
/// |---|---|
/// | `secretsmanager:<arn>` | a secret of AWS Secrets Manager, in its present version |
/// | `ssm:<name>` | a parameter of AWS Systems Manager, decrypted |
/// | `env:<NAME>` | a variable of this process |
/// | `file:<path>` | a file of this machine |
#[async_trait]
pub trait Secrets: Send + Sync + Debug {
    /// The secret that a reference names; `None` if there is none under that name.
    ///
    /// Errors: `Refused` for a reference that this adapter does not know. It is not repeated in the error, because what
    /// stands where a reference should be may be the secret itself.
    async fn read(&self, reference: &str) -> Result<Option<Secret>>;
}

/// Text that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being shown by mistake.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself. Whoever calls this sees to it that it goes into no log, error, argument or variable.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
