//! One request to change a site: what a producer puts on a queue or posts to the door.

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::canonical::sorted;
use crate::id::{BlobId, ClientId, IdError, InstructionId, SessionId, ThreadId, hex};
use crate::problem::Problems;
use crate::receipt::ErrorCode;
use crate::site_path::SitePath;
use crate::timestamp::Timestamp;

mod parse;
mod wire;

/// The version of the message that this build understands.
pub const VERSION: u64 = 1;

/// One request to change the site. Made by [`Instruction::parse`], which finds everything that is wrong at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// The idempotency key: the same id with the same body is the same instruction. Never `last`, which `undo` takes
    /// for the newest one.
    pub instruction_id: InstructionId,
    /// Whose site.
    pub client_id: ClientId,
    /// Which conversation: the session, or the thread by which the session is found. At least one is present.
    pub session_id: Option<SessionId>,
    /// See `session_id`.
    pub thread_id: Option<ThreadId>,
    /// The producer's name for the person.
    pub user_id: Option<String>,
    /// The person, as the author of the commit.
    pub author: Option<Author>,
    /// When the person asked.
    pub submitted_at: Timestamp,
    /// What is asked.
    pub action: Action,
    /// [`Fingerprint::of`] everything above, by which an id that is used again for something else is
    /// told from an instruction that is sent again.
    pub fingerprint: Fingerprint,
}

/// The SHA-256 of an instruction's meaning, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Fingerprint(pub String);

impl Fingerprint {
    /// Hashes what an instruction means: its message as [`Instruction::to_value`] writes it, with sorted keys and
    /// without `submittedAt`.
    ///
    /// Not the bytes of the message: whoever sends an instruction again may well serialise it anew.
    pub fn of(instruction: &Instruction) -> Self {
        let mut meaning = instruction.to_value();
        if let Some(object) = meaning.as_object_mut() {
            object.remove("submittedAt");
        }
        Self(hex(&Sha256::digest(sorted(&meaning).to_string())))
    }
}

/// The person behind an instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Author {
    /// 1 to 200 bytes, without control characters, `<` and `>`, and with more than spaces and punctuation: git strips
    /// those, and takes no empty name.
    pub name: String,
    /// 3 to 254 bytes with one `@` and something on both sides of it, without control characters, spaces, `<` and `>`.
    pub email: String,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Structured changes: all of them or none.
    Edit {
        /// In order; a later change sees what an earlier one did. 1 to [`crate::limits::CHANGES_MAX`].
        changes: Vec<Change>,
    },
    /// Plain words, carried out by the editor.
    Prompt {
        /// What the person wrote.
        text: String,
        /// Files that came with it.
        attachments: Vec<Attachment>,
    },
    /// Take one instruction back.
    Undo {
        /// Which one.
        target: UndoTarget,
    },
    /// Bring the draft to the published branch.
    Publish {
        /// The last instruction to publish; all if absent.
        up_to: Option<InstructionId>,
    },
    /// Bring the draft back to what is published.
    Discard,
    /// Bring the published branch into the draft.
    Sync,
    /// Make what was changed by hand in the workspace a commit of the draft: all of it, and nothing else.
    Commit,
    /// Do not carry out an instruction that has not been carried out yet.
    Cancel {
        /// Which one.
        instruction_id: InstructionId,
    },
}

impl Action {
    /// The word on the wire.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Edit { .. } => "edit",
            Self::Prompt { .. } => "prompt",
            Self::Undo { .. } => "undo",
            Self::Publish { .. } => "publish",
            Self::Discard => "discard",
            Self::Sync => "sync",
            Self::Commit => "commit",
            Self::Cancel { .. } => "cancel",
        }
    }

    /// All words on the wire.
    pub const KINDS: [&'static str; 8] = [
        "edit", "prompt", "undo", "publish", "discard", "sync", "commit", "cancel",
    ];
}

/// What an `undo` takes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UndoTarget {
    /// The newest instruction of the draft that stands.
    Last,
    /// This one.
    Instruction(InstructionId),
}

/// A file that came with a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its name, for people: 1 to 255 bytes without folders and control characters.
    pub name: String,
    /// Its bytes.
    pub content: Content,
}

/// One structured change to one file (a patch: to several).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Make the file have this content; it may be new.
    Write {
        /// Which file.
        path: SitePath,
        /// All of it.
        content: Content,
        /// The version the author saw.
        base: Option<BlobId>,
    },
    /// Replace a text that occurs exactly `expect` times.
    Replace {
        /// Which file.
        path: SitePath,
        /// The text to find, byte for byte; never empty.
        find: String,
        /// What to put in its place.
        replace: String,
        /// How often `find` must occur; 1 if absent on the wire.
        expect: u32,
        /// The version the author saw.
        base: Option<BlobId>,
    },
    /// Remove the file.
    Delete {
        /// Which file.
        path: SitePath,
        /// The version the author saw.
        base: Option<BlobId>,
    },
    /// Give the file another path, which must be free.
    Move {
        /// Where it is.
        from: SitePath,
        /// Where it goes.
        to: SitePath,
        /// The version the author saw.
        base: Option<BlobId>,
    },
    /// Apply a git patch, strictly: no fuzz.
    Patch {
        /// The output of `git diff` (also `--binary`, renames, new and deleted files).
        diff: String,
    },
    /// Set and remove keys of a file's YAML front matter; every other byte stays.
    Frontmatter {
        /// Which file.
        path: SitePath,
        /// Keys to set; a JSON object has no order. Dots reach into mappings: `seo.title`. A key has 1 to 200 bytes
        /// without control characters, and no empty part between dots.
        set: serde_json::Map<String, serde_json::Value>,
        /// Keys to remove, each once and none of those to set.
        unset: Vec<String>,
        /// The version the author saw.
        base: Option<BlobId>,
    },
}

impl Change {
    /// The word on the wire.
    pub fn op(&self) -> &'static str {
        match self {
            Self::Write { .. } => "write",
            Self::Replace { .. } => "replace",
            Self::Delete { .. } => "delete",
            Self::Move { .. } => "move",
            Self::Patch { .. } => "patch",
            Self::Frontmatter { .. } => "frontmatter",
        }
    }

    /// All words on the wire.
    pub const OPS: [&'static str; 6] =
        ["write", "replace", "delete", "move", "patch", "frontmatter"];
}

/// The bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// In the message (`content` or, decoded, `contentBase64`).
    Inline(Vec<u8>),
    /// Elsewhere, because a photo does not fit a message.
    Url {
        /// `https:` or `s3:`.
        url: String,
        /// What the bytes must hash to: 64 lower-case hexadecimal digits.
        sha256: String,
    },
}

/// Why a message is not an instruction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problems}")]
pub struct Refusal {
    /// `invalid_message`, `message_too_large`, `unsupported_version` or `unsupported_action`.
    pub code: ErrorCode,
    /// All that is wrong; never empty.
    pub problems: Problems,
    /// The id, where the message had a valid one: then its producer gets a receipt.
    pub instruction_id: Option<InstructionId>,
}

impl std::str::FromStr for UndoTarget {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        if text == "last" {
            Ok(Self::Last)
        } else {
            text.parse().map(Self::Instruction)
        }
    }
}
