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

/// How much of a session id's random part is shown ([`contract::SessionId::redacted`]).
const SHOWN: usize = 8;

/// How long the random part is ([`contract::SessionId::new`]).
const LABEL: usize = 26;

/// Shortens every session id that we made, and `known`, whatever it looks like.
pub(crate) fn without_session_ids(text: &str, known: Option<&str>) -> String {
    let mut shown = match known {
        Some(id) if !id.is_empty() => {
            let label = id.split_once('_').map_or(id, |(_, label)| label);
            let start: String = label.chars().take(SHOWN).collect();
            text.replace(id, &format!("{start}…"))
        }
        _ => text.to_owned(),
    };
    let mut from = 0;
    while let Some(found) = shown[from..].find('_') {
        let label = from + found + 1;
        let length = shown[label..]
            .bytes()
            .take_while(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
            .count();
        if length >= LABEL {
            shown.replace_range(label + SHOWN..label + length, "…");
        }
        from = label;
    }
    shown
}

#[cfg(test)]
mod tests {
    use contract::SessionId;

    use super::*;

    #[test]
    fn a_session_id_is_shortened_wherever_it_stands() {
        let id = SessionId::new(&"amelia".parse().expect("valid"), [7; 16]);
        let label = &id.label()[..8];
        let said = format!("no access to webordinary-edits-{id}.fifo, nor to thread_{id}");
        assert_eq!(
            without_session_ids(&said, None),
            format!(
                "no access to webordinary-edits-amelia_{label}….fifo, nor to thread_amelia_{label}…"
            )
        );
        assert_eq!(
            without_session_ids(
                "session my-own_session-of-old is gone",
                Some("my-own_session-of-old")
            ),
            "session session-… is gone"
        );
    }
}
