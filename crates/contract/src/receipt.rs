//! The durable record of what became of an instruction.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::id::{ClientId, CommitId, InstructionId, SessionId};
use crate::instruction::Fingerprint;
use crate::problem::Problem;
use crate::timestamp::Timestamp;

/// What became of an instruction. Key `(sessionId, instructionId)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// The session it was for.
    pub session_id: SessionId,
    /// The instruction's id.
    pub instruction_id: InstructionId,
    /// Whose site.
    pub client_id: ClientId,
    /// Where it stands.
    pub status: Status,
    /// How often it was begun.
    pub attempts: u32,
    /// The commit, once there is one on the remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// The draft branch.
    pub branch: String,
    /// The files that the commit changed, as paths from the site root, sorted.
    pub files_changed: Vec<String>,
    /// One line for people.
    pub summary: String,
    /// The pages that were looked at to verify the change.
    pub pages: Vec<PageResult>,
    /// How the site was with the change, once its pages have been looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Why it did not land.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ReceiptError>,
    /// How long each stage took.
    pub timings: Timings,
    /// Where the owner sees it.
    pub preview_url: String,
    /// When the instruction was accepted.
    pub accepted_at: Timestamp,
    /// When this receipt was last written.
    pub updated_at: Timestamp,
    /// The instruction's fingerprint: tells an id that is used again from an instruction that is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
}

/// Where an instruction stands. The first three are passing, the others final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// It is durable in the queue.
    Accepted,
    /// It is being carried out.
    Running,
    /// The files are changed and the change is committed here, not yet pushed.
    Applied,
    /// Its commit was seen on the remote.
    Pushed,
    /// It was published.
    Published,
    /// It will never work as it is.
    Rejected,
    /// It did not work; the same could work later.
    Failed,
    /// It was cancelled before it began.
    Cancelled,
    /// The environment stopped before it was done.
    Interrupted,
}

impl Status {
    /// Whether this is the last word.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Accepted | Self::Running | Self::Applied)
    }

    /// Whether the change is where it was meant to be.
    pub fn landed(self) -> bool {
        matches!(self, Self::Pushed | Self::Published)
    }

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Running => "running",
            Self::Applied => "applied",
            Self::Pushed => "pushed",
            Self::Published => "published",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }
}

/// A page that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PageResult {
    /// Its path on the site, such as `/about/`.
    pub path: String,
    /// The HTTP status it answered; 0 if it did not answer, or not to the end.
    pub status: u16,
    /// What is wrong with it, where something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<PageProblem>,
}

/// What is wrong with a page, as the site's own tools say it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PageProblem {
    /// What happened.
    pub message: String,
    /// In which file, as a path from the site root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// On which line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The lines around it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<String>,
}

/// How the site was with a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Every page that was looked at renders.
    Sound,
    /// A page did not render before, and every one does now.
    Repaired,
    /// A page does not render, and did not before either: the change makes it no worse.
    StillBroken,
    /// The change breaks a page: it was taken back, or, where the client's policy has `onBroken: keep`, kept.
    Breaks,
}

/// Why an instruction did not land.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReceiptError {
    /// For machines.
    pub code: ErrorCode,
    /// What happened, to what.
    pub message: String,
    /// What to do now.
    pub hint: String,
    /// Each thing that is wrong, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Problem>,
    /// What the site's own tools say, where the change breaks something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Box<PageProblem>>,
    /// What it collided with: one entry for each file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<Conflict>,
}

/// A file that two people changed in ways that do not go together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Conflict {
    /// The file, as a path from the site root.
    pub path: String,
    /// The newest change of it on the draft's side: for `undo`, the later instruction that stands in the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ours: Option<Party>,
    /// The newest change of it on the other side: for `sync` and `publish`, the published one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub theirs: Option<Party>,
}

/// Who changed something, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Party {
    /// The person's name.
    pub name: String,
    /// When.
    pub at: Timestamp,
    /// What they did, in one line.
    pub summary: String,
    /// The commit.
    pub commit: CommitId,
    /// The instruction that it carries out, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction_id: Option<InstructionId>,
}

/// How long each stage took, in milliseconds. A stage that did not happen is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timings {
    /// From accepted to begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_ms: Option<u64>,
    /// From begun to the files being changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply_ms: Option<u64>,
    /// Looking at the pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify_ms: Option<u64>,
    /// The commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_ms: Option<u64>,
    /// The push and its proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push_ms: Option<u64>,
    /// From begun to done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<u64>,
}

/// Declares the closed list of error codes, each with its word on the wire, its sentence and its hint.
macro_rules! error_codes {
    ($($(#[doc = $meaning:literal])* $name:ident = $word:literal, $hint:literal;)*) => {
        /// Why an instruction did not land: a closed list.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorCode {
            $($(#[doc = $meaning])* #[serde(rename = $word)] $name,)*
        }

        impl ErrorCode {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// What happened, in general.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($meaning),*).trim_ascii_start(),)* }
            }

            /// What to do now.
            pub fn hint(self) -> &'static str {
                match self { $(Self::$name => $hint,)* }
            }
        }
    };
}

// By hand, so that each code stands in the schema with its meaning and its hint.
impl JsonSchema for ErrorCode {
    fn schema_name() -> Cow<'static, str> {
        "ErrorCode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let codes: Vec<_> = Self::ALL
            .iter()
            .map(|code| json!({ "const": code.as_str(), "description": format!("{} {}", code.meaning(), code.hint()) }))
            .collect();
        json_schema!({ "description": "Why an instruction did not land: a closed list.", "type": "string", "oneOf": codes })
    }
}

error_codes! {
    /// The message is not a valid instruction.
    InvalidMessage = "invalid_message", "Mend what `details` lists and send it under a new id. `edit-agent schema instruction` prints the schema.";
    /// The message is larger than a queue takes.
    MessageTooLarge = "message_too_large", "Put large files where `contentUrl` can reach them, or split the instruction.";
    /// The message has a version that this agent does not know.
    UnsupportedVersion = "unsupported_version", "Send version 1, or update the agent.";
    /// The action is unknown, or not built yet.
    UnsupportedAction = "unsupported_action", "Send an action that this agent knows, or update the agent.";
    /// The id was used before for another instruction.
    IdReused = "id_reused", "Send it under a new id; the first instruction is untouched.";
    /// The instruction is for another client.
    WrongClient = "wrong_client", "Send it to the client's own environment.";
    /// The instruction is for another session or thread.
    WrongSession = "wrong_session", "Send it to the session it names.";
    /// The path is outside the site, or leads through a symlink, or is not an ordinary file.
    PathNotAllowed = "path_not_allowed", "Name an ordinary file inside the site.";
    /// The client's policy does not let instructions change this file.
    PolicyDenied = "policy_denied", "Ask a developer to change this file, or allow it in the client's policy.";
    /// The file does not exist.
    FileNotFound = "file_not_found", "Check the path; the file may have been moved or deleted.";
    /// A file exists where a new one should go.
    FileExists = "file_exists", "Choose another path, or delete the file in the same instruction first.";
    /// The text to find does not occur.
    FindNotFound = "find_not_found", "Look at the file as it is now and send the exact text.";
    /// The text to find does not occur the expected number of times.
    FindCount = "find_count", "Send a longer text that occurs once, or set `expect`.";
    /// The file changed since the author saw it, and the changes overlap.
    Stale = "stale", "Look at the file as it is now and send the change again.";
    /// The patch does not apply.
    PatchFailed = "patch_failed", "Make the patch again from the present draft.";
    /// The file is not UTF-8 text.
    NotText = "not_text", "Use `write` with `contentBase64` for binary files.";
    /// The front matter cannot be edited.
    FrontmatterInvalid = "frontmatter_invalid", "Mend the front matter with `replace` or `write` first.";
    /// The instruction changes nothing.
    EmptyChange = "empty_change", "Nothing is to be done: the site already says so.";
    /// A limit was hit.
    LimitExceeded = "limit_exceeded", "Split the instruction.";
    /// The file is kept by git-lfs or belongs to a submodule.
    UnsupportedFile = "unsupported_file", "Ask a developer to change this file.";
    /// The bytes behind a `contentUrl` could not be had.
    ContentUnavailable = "content_unavailable", "Check the address and its SHA-256, and send the instruction under a new id.";
    /// The file has changes in the workspace that nobody instructed.
    UncommittedChanges = "uncommitted_changes", "Commit or undo the change that was made by hand in the workspace.";
    /// Somebody else changed the same lines.
    Conflict = "conflict", "Look at the files as they are now and send the change again.";
    /// The page does not render with this change.
    PageBroken = "page_broken", "Mend the change and send it under a new id; the site is as it was before.";
    /// The site cannot be built with what was to be published.
    BuildFailed = "build_failed", "Mend what the message says and publish again; the published site is as it was.";
    /// No such instruction stands in this draft.
    UnknownInstruction = "unknown_instruction", "Look the id up in the history of the draft: `edit-agent log`.";
    /// The instruction has been undone already.
    AlreadyUndone = "already_undone", "Nothing is to be done. Undo the undo to have it again.";
    /// A later instruction changed the same place.
    UndoOverlaps = "undo_overlaps", "Undo the later instruction first, and then this one: send both, in that order.";
    /// It is too late to cancel the instruction: it has its receipt, or its commit is on its way.
    TooLate = "too_late", "Undo the instruction instead.";
    /// There is nothing that an undo could take back.
    NothingToUndo = "nothing_to_undo", "Nothing is to be done.";
    /// The published branch does not exist.
    BranchMissing = "branch_missing", "Ask a developer to restore the published branch, or to name another one in the configuration.";
    /// The remote does not take the commit.
    PushRejected = "push_rejected", "Read what the remote says; its rules forbid this commit.";
    /// The remote cannot be reached or does not accept our credentials.
    RemoteUnavailable = "remote_unavailable", "Check the remote and its credentials; then send it under a new id.";
    /// The disk is full.
    DiskFull = "disk_full", "Free space for the workspace; then send it under a new id.";
    /// The session ended before the instruction was begun.
    SessionExpired = "session_expired", "Send it under a new id to a new session.";
    /// Something unexpected went wrong, several times.
    Internal = "internal", "Send it again under a new id; if that fails too, look at the agent's log.";
}
