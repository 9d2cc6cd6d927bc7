//! What was done on the draft: read from the trailers of its commits, which are the truth.

use contract::{CommitId, InstructionId, Timestamp};

/// What was done on the draft.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct History {
    /// The instructions of the draft, newest first, up to a bound.
    pub(crate) entries: Vec<HistoryEntry>,
    /// Commits of the published branch that the draft does not have.
    pub(crate) behind: usize,
}

/// One instruction of the draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HistoryEntry {
    /// Which one.
    pub(crate) instruction_id: InstructionId,
    /// Its commit.
    pub(crate) commit: CommitId,
    /// What kind of action: a word of [`contract::Action::KINDS`].
    pub(crate) action: &'static str,
    /// Who asked for it.
    pub(crate) author: String,
    /// When it was asked for.
    pub(crate) at: Timestamp,
    /// What it did, in one line.
    pub(crate) summary: String,
    /// The files in which it differs from what was there before, as paths of the site.
    pub(crate) files: Vec<String>,
    /// The instruction that it takes back.
    pub(crate) undoes: Option<InstructionId>,
    /// The instruction that has taken it back, and stands.
    pub(crate) undone_by: Option<InstructionId>,
    /// Whether it is on the published branch.
    pub(crate) published: bool,
}

impl HistoryEntry {
    /// Whether `undo` can name it: it stands, and it is not a publish.
    pub(crate) fn is_undoable(&self) -> bool {
        self.undone_by.is_none() && self.action != "publish"
    }
}
