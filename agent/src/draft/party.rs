//! Who changed a file, and when: what a person needs to know when two changes do not go together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use contract::{Conflict, Party, Timestamp};
use git2::Oid;

use super::{Draft, DraftError, commit_id, commit_message, ledger};

/// Commits that are looked at to find who changed a file. Further back nobody remembers.
const COMMITS_MAX: usize = 1000;

/// Files that a message names; the others are counted.
const FILES_NAMED_MAX: usize = 3;

impl Draft {
    /// Who made a commit.
    pub(super) fn party(&self, commit: Oid) -> Result<Party, DraftError> {
        let details = self.details(commit)?;
        let object = self.commit_object(commit)?;
        Ok(Party {
            name: details.author,
            at: details.at,
            summary: details.summary,
            commit: commit_id(commit),
            instruction_id: commit_message::instruction_of(object.message_bytes()),
        })
    }

    /// For each file who changed it last on the draft's side and on the published one, since the two went apart.
    pub(super) fn conflicts(
        &self,
        draft: Oid,
        published: Oid,
        files: &[PathBuf],
    ) -> Result<Vec<Conflict>, DraftError> {
        let ours = self.last_changes(draft, published, files)?;
        let theirs = self.last_changes(published, draft, files)?;
        let party = |commit: Option<&Oid>| commit.map(|commit| self.party(*commit)).transpose();
        files
            .iter()
            .map(|path| {
                Ok(Conflict {
                    path: self.site_path(path),
                    ours: party(ours.get(path.as_path()))?,
                    theirs: party(theirs.get(path.as_path()))?,
                })
            })
            .collect()
    }

    /// The newest commit in the history of `tip`, but not in that of `without`, that changed each file.
    fn last_changes<'p>(
        &self,
        tip: Oid,
        without: Oid,
        files: &'p [PathBuf],
    ) -> Result<BTreeMap<&'p Path, Oid>, DraftError> {
        let read = |source| self.local("read history", source);
        let mut found = BTreeMap::new();
        let walk = ledger::commits(&self.repository, tip, Some(without)).map_err(read)?;
        for commit in walk.take(COMMITS_MAX) {
            let commit = commit.map_err(read)?;
            if self.only_joins(commit)? {
                continue;
            }
            for path in files {
                if !found.contains_key(path.as_path()) && self.changed(commit, path)? {
                    found.insert(path.as_path(), commit);
                }
            }
            if found.len() == files.len() {
                break;
            }
        }
        Ok(found)
    }

    /// Whether a commit is ours and brings two lines together: nobody changed anything by it, also where both lines had changed a
    /// file and it has both changes.
    fn only_joins(&self, commit: Oid) -> Result<bool, DraftError> {
        let object = self.commit_object(commit)?;
        Ok(object.parent_count() > 1
            && commit_message::instruction_of(object.message_bytes()).is_some())
    }

    /// Whether a commit has a file otherwise than each of its parents. A merge that took one side's file changed nothing.
    fn changed(&self, commit: Oid, path: &Path) -> Result<bool, DraftError> {
        let after = self.held(&self.tree_of(commit)?, path)?;
        for parent in self.commit_object(commit)?.parent_ids() {
            if self.held(&self.tree_of(parent)?, path)? == after {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Who changed what where and when, in plain words.
pub(super) fn describe(conflicts: &[Conflict]) -> String {
    let mut sentences: Vec<String> = conflicts
        .iter()
        .take(FILES_NAMED_MAX)
        .map(|conflict| {
            let changed = |party: &Option<Party>, place: &str| match party {
                Some(party) => format!("{} changed it {place} on {}", party.name, moment(party.at)),
                None => format!("it was changed {place}"),
            };
            format!(
                "{}: {}, and {}, and the two changes do not go together.",
                conflict.path,
                changed(&conflict.ours, "in this draft"),
                changed(&conflict.theirs, "on the published site"),
            )
        })
        .collect();
    match conflicts.len().saturating_sub(FILES_NAMED_MAX) {
        0 => {}
        1 => sentences.push("The same is true of 1 more file.".to_owned()),
        more => sentences.push(format!("The same is true of {more} more files.")),
    }
    sentences.join(" ")
}

/// A moment for people, to the minute.
fn moment(at: Timestamp) -> String {
    let text = at.to_string();
    match text.split_once('T') {
        Some((date, time)) => {
            let minute: String = time.chars().take("hh:mm".len()).collect();
            format!("{date} at {minute} UTC")
        }
        None => text,
    }
}
