//! Newtypes for every id, each with its grammar. A value of one of these types is valid by construction.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Why a text is not an id: a sentence that says what would be valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IdError(pub(crate) String);

/// Declares a text newtype whose values satisfy `$check` (a `fn(&str) -> Result<(), String>`).
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:path, $pattern:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        // Without `with`, schemars follows `try_from` to a plain String and drops the pattern.
        #[schemars(with = "String", extend("pattern" = $pattern))]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        // An id is looked up by the text that may be one, without making one.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                $check(text).map_err(IdError)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                $check(&text).map_err(IdError)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), self.0)
            }
        }
    };
}

text_id!(
    /// A tenant: one website, one repository. 2 to 24 of `[a-z0-9-]`, no `--`, no `-` at an end, so that it can be a
    /// host label and part of a queue's name.
    ClientId, check_client_id, r"^(?!.*--)[a-z0-9][a-z0-9-]{0,22}[a-z0-9]$"
);

text_id!(
    /// One editing conversation of a client. Accepted as `[a-z0-9][a-z0-9_-]{0,56}`, made as `<clientId>_<26 base32>`.
    SessionId, check_session_id, r"^[a-z0-9][a-z0-9_-]{0,56}$"
);

text_id!(
    /// The idempotency key of one request to change the site: 1 to 128 of `[A-Za-z0-9._:-]`.
    InstructionId, check_instruction_id, r"^[A-Za-z0-9._:-]{1,128}$"
);

text_id!(
    /// The producer's conversation that a session continues (an e-mail thread, a chat): 1 to 256 bytes of UTF-8
    /// without control characters.
    ThreadId, check_thread_id, r"^[^\x00-\x1f\x7f-\x9f]{1,256}$"
);

text_id!(
    /// A git commit: 40 lower-case hexadecimal digits.
    CommitId, check_object_id, r"^[0-9a-f]{40}$"
);

text_id!(
    /// A git blob, the version of a file that an author saw: 40 lower-case hexadecimal digits.
    BlobId, check_object_id, r"^[0-9a-f]{40}$"
);

/// The fencing number of a session: one more at every wake. Every write carries it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl SessionId {
    /// Makes the id of a new session of `client` from 128 random bits: `<clientId>_<26 base32>`.
    pub fn new(client: &ClientId, random: [u8; 16]) -> Self {
        const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let bits = u128::from_be_bytes(random);
        let mut label = String::with_capacity(26);
        for place in (0..26).rev() {
            let digit = (bits >> (place * 5)) & 31;
            label.push(char::from(ALPHABET[digit as usize]));
        }
        Self(format!("{client}_{label}"))
    }

    /// Whether a text is an id, without making one.
    pub fn is_valid(text: &str) -> bool {
        check_session_id(text).is_ok()
    }

    /// The part after the client, which is what a host label and (shortened to 8) a log line use.
    pub fn label(&self) -> &str {
        self.0
            .split_once('_')
            .map_or(self.0.as_str(), |(_, label)| label)
    }

    /// What a log may show of an id that is a capability: its first 8 characters of the label.
    pub fn redacted(&self) -> &str {
        let label = self.label();
        &label[..label.len().min(8)]
    }
}

impl ThreadId {
    /// The branch on which the instructions of this thread land: `edit/<thread>` when the thread is a plain slug
    /// (`[a-z0-9][a-z0-9-]{0,63}` that is not of the form the hash takes), else `edit/t-<16 hex of its SHA-256>`.
    pub fn draft_branch(&self) -> String {
        let text = self.as_str();
        let bytes = text.as_bytes();
        let slug = bytes.len() <= 64
            && bytes[0] != b'-'
            && !text.starts_with("t-")
            && bytes
                .iter()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
        if slug {
            return format!("edit/{text}");
        }
        format!("edit/t-{}", &hex(&Sha256::digest(bytes))[..16])
    }
}

/// Lower-case hexadecimal digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a String never fails");
            text
        })
}

fn check_client_id(text: &str) -> Result<(), String> {
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let length = (2..=24).contains(&text.len());
    if plain && length && !text.contains("--") && !text.starts_with('-') && !text.ends_with('-') {
        return Ok(());
    }
    Err("a client id is 2 to 24 of a-z, 0-9 and -, with no -- and no - at an end".to_owned())
}

fn check_session_id(text: &str) -> Result<(), String> {
    let mut bytes = text.bytes();
    let first = bytes
        .next()
        .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest =
        bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
    if first && rest && text.len() <= 57 {
        return Ok(());
    }
    Err(
        "a session id starts with a-z or 0-9, followed by at most 56 of a-z, 0-9, _ and -"
            .to_owned(),
    )
}

fn check_instruction_id(text: &str) -> Result<(), String> {
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b));
    if plain && (1..=128).contains(&text.len()) {
        return Ok(());
    }
    Err("an instruction id is 1 to 128 of A-Z, a-z, 0-9, . _ : and -".to_owned())
}

fn check_thread_id(text: &str) -> Result<(), String> {
    if (1..=256).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err("a thread id is 1 to 256 bytes of UTF-8 without control characters".to_owned())
}

fn check_object_id(text: &str) -> Result<(), String> {
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if plain && text.len() == 40 {
        return Ok(());
    }
    Err("a git object id is 40 lower-case hexadecimal digits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_a_slug_names_its_branch() {
        let branch = |text: &str| text.parse::<ThreadId>().map(|thread| thread.draft_branch());
        assert_eq!(branch("local").as_deref(), Ok("edit/local"));
        assert_eq!(branch("spring-2026").as_deref(), Ok("edit/spring-2026"));
    }

    #[test]
    fn any_other_thread_is_hashed_and_never_collides_with_a_slug() {
        let branch = |text: &str| text.parse::<ThreadId>().expect("valid").draft_branch();
        assert_eq!(
            branch("<CAF=x@mail>"),
            format!("edit/t-{}", &hex(&Sha256::digest("<CAF=x@mail>"))[..16])
        );
        let forged = branch("a b");
        assert_ne!(branch(forged.trim_start_matches("edit/")), forged);
    }

    #[test]
    fn a_made_session_id_carries_its_client_and_all_its_bits() {
        let client: ClientId = "amelia".parse().expect("valid");
        let id = SessionId::new(&client, [0xff; 16]);
        assert_eq!(id.as_str(), "amelia_h7777777777777777777777777");
        assert_eq!(id.redacted(), "h7777777");
        assert_eq!(id.as_str().parse::<SessionId>(), Ok(id));
    }

    #[test]
    fn what_is_no_client_id_is_refused_with_what_would_be_valid() {
        for text in [
            "a",
            "-ab",
            "ab-",
            "a--b",
            "Ab",
            "a_b",
            "abcdefghijklmnopqrstuvwxy",
            "",
        ] {
            let error = text.parse::<ClientId>().expect_err(text);
            assert!(error.to_string().contains("2 to 24"), "{text}: {error}");
        }
    }
}
