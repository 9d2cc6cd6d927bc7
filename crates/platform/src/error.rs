//! Why a port did not answer.

use std::error::Error as StdError;

/// What a port answers.
pub type Result<T> = std::result::Result<T, PortError>;

/// Why a port did not answer. Each variant names the operation and the thing; the cause is the `source`.
///
/// Answers that a caller acts upon (a taken thread, a refused transition, a lost lease) are not errors: they are in
/// the type of the answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// The backend could not be asked, is too busy, or did not answer in time. The deed may or may not be done.
    #[error("{operation} {thing}: the backend is not available")]
    Unavailable {
        /// What was asked, such as `send to`.
        operation: &'static str,
        /// Of what, such as `queue webordinary-intake.fifo`. A session id is shortened: it is a capability.
        thing: String,
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// What is stored is not what this build understands.
    #[error("{operation} {thing}: what is stored there cannot be understood")]
    Corrupt {
        /// What was asked.
        operation: &'static str,
        /// Of what.
        thing: String,
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The request can never be carried out as it is.
    #[error("{operation} {thing}: {reason}")]
    Refused {
        /// What was asked.
        operation: &'static str,
        /// Of what.
        thing: String,
        /// What is wrong with it and what would be valid.
        reason: String,
    },
}

impl PortError {
    /// Whether the same request may work later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
