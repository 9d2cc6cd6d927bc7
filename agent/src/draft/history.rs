//! What was done on the draft: read from the trailers of its commits, which are the truth.

use std::collections::HashSet;

use contract::{CommitId, InstructionId, Timestamp};
use git2::Oid;

use super::ledger::PUBLISH;
use super::{Draft, DraftError, commit_id, ledger};

/// Instructions that are listed: more than anybody scrolls through.
const ENTRIES_MAX: usize = 100;

/// Commits of the draft among which those of others are looked for.
const WALKED_MAX: usize = 2 * ENTRIES_MAX;

/// Commits whose details are kept, beyond those that are listed. A rebase leaves some that are gone.
const DETAILS_MAX: usize = 10 * ENTRIES_MAX;

/// What was done on the draft.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct History {
    /// The instructions of the draft, newest first, up to a bound.
    pub(crate) entries: Vec<HistoryEntry>,
    /// What others pushed to the draft and is not published yet, newest first, up to a bound.
    pub(crate) pushed: Vec<Contribution>,
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

/// A commit that nobody instructed: somebody pushed it to the draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contribution {
    pub(crate) commit: CommitId,
    pub(crate) author: String,
    pub(crate) at: Timestamp,
    /// The first line of its message.
    pub(crate) summary: String,
    /// The files in which it differs from what was there before, as paths of the site.
    pub(crate) files: Vec<String>,
    /// How many of the entries are newer.
    pub(crate) after: usize,
}

impl HistoryEntry {
    /// Whether `undo` can name it: it stands, and it is not a publish.
    pub(crate) fn is_undoable(&self) -> bool {
        self.undone_by.is_none() && self.action != PUBLISH
    }
}

/// What is shown of a commit.
#[derive(Debug, Clone)]
pub(super) struct Details {
    pub(super) author: String,
    /// When the author made it.
    pub(super) at: Timestamp,
    /// The first line of its message.
    pub(super) summary: String,
    /// The files in which it differs from its first parent, as paths of the site.
    pub(super) files: Vec<String>,
}

impl Draft {
    /// What was done on the draft, and how far it is behind what is published.
    pub(crate) fn history(&self) -> Result<History, DraftError> {
        let undone = self.landed.undone();
        let mut entries = Vec::new();
        let mut commits = Vec::new();
        for mark in self.landed.newest_first().take(ENTRIES_MAX) {
            let details = self.details(mark.commit)?;
            let trailers = &mark.trailers;
            commits.push(mark.commit);
            entries.push(HistoryEntry {
                instruction_id: trailers.instruction_id.clone(),
                commit: commit_id(mark.commit),
                action: trailers.action,
                author: details.author,
                at: details.at,
                summary: details.summary,
                files: details.files,
                undoes: trailers.undoes.clone(),
                undone_by: undone.get(&trailers.instruction_id).map(|id| (*id).clone()),
                published: self.published.holds(mark),
            });
        }
        let unpublished = entries.iter().take_while(|entry| !entry.published).count();
        Ok(History {
            pushed: self.pushed_by_others(&commits[..unpublished])?,
            entries,
            behind: self.behind_published()?,
        })
    }

    /// What others pushed to the draft. `listed` are the commits of the entries that are not published, newest first.
    fn pushed_by_others(&self, listed: &[Oid]) -> Result<Vec<Contribution>, DraftError> {
        let walk = || -> Result<Vec<Oid>, DraftError> {
            let (tip, published) = (self.tip()?, self.published_tip()?);
            ledger::commits(&self.repository, tip, published)
                .and_then(|walk| walk.take(WALKED_MAX).collect())
                .map_err(|source| self.local("read history", source))
        };
        let mut pushed = Vec::new();
        let mut after = 0;
        for commit in walk()? {
            if let Some(place) = listed.iter().position(|listed| *listed == commit) {
                after = place + 1;
            }
            // What a merge brings together has commits of its own.
            if self.landed.has(commit) || self.commit_object(commit)?.parent_count() > 1 {
                continue;
            }
            if pushed.len() == ENTRIES_MAX {
                break;
            }
            let details = self.details(commit)?;
            pushed.push(Contribution {
                commit: commit_id(commit),
                author: details.author,
                at: details.at,
                summary: details.summary,
                files: details.files,
                after,
            });
        }
        Ok(pushed)
    }

    /// What is shown of a commit, looked up once.
    pub(super) fn details(&self, commit: Oid) -> Result<Details, DraftError> {
        if let Some(details) = self.details.borrow().get(&commit) {
            return Ok(details.clone());
        }
        let details = self.read_details(commit)?;
        let mut known = self.details.borrow_mut();
        if known.len() >= DETAILS_MAX {
            let listed: HashSet<Oid> = self
                .landed
                .newest_first()
                .take(ENTRIES_MAX)
                .map(|mark| mark.commit)
                .collect();
            known.retain(|commit, _| listed.contains(commit));
        }
        known.insert(commit, details.clone());
        Ok(details)
    }

    fn read_details(&self, id: Oid) -> Result<Details, DraftError> {
        let commit = self.commit_object(id)?;
        let author = commit.author();
        let files = match commit.parent_id(0) {
            Ok(parent) => {
                let (before, after) = (self.tree_of(parent)?, self.tree_of(id)?);
                let deltas = self.deltas(Some(&before), Some(&after))?;
                let paths = deltas.iter().map(|delta| self.site_path(&delta.path));
                paths.collect()
            }
            Err(_) => Vec::new(),
        };
        Ok(Details {
            author: String::from_utf8_lossy(author.name_bytes()).into_owned(),
            at: Timestamp::from_unix_ms(author.when().seconds().saturating_mul(1000)),
            summary: String::from_utf8_lossy(commit.summary_bytes().unwrap_or_default())
                .into_owned(),
            files,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::{Scene, accept, edit, instruct, message};
    use super::*;

    fn lines(draft: &Draft) -> Vec<String> {
        let history = draft.history().expect("read");
        history
            .entries
            .iter()
            .map(|entry| {
                let state = match (&entry.undone_by, entry.published) {
                    (Some(by), _) => format!(" undone by {by}"),
                    (None, true) => " published".to_owned(),
                    (None, false) => String::new(),
                };
                format!(
                    "{} {} {}: {} [{}]{state}",
                    entry.instruction_id,
                    entry.action,
                    entry.author,
                    entry.summary,
                    entry.files.join(", ")
                )
            })
            .collect()
    }

    #[test]
    fn what_was_done_is_listed_newest_first() {
        let scene = Scene::with(&[("a.txt", "a")]);
        let mut draft = scene.draft();
        edit(&mut draft, "i-1", &[("a.txt", "b")]);
        edit(&mut draft, "i-2", &[("b.txt", "b")]);
        let publication = draft
            .propose_publish(None)
            .expect("judged")
            .expect("possible");
        draft
            .publish(
                &publication,
                &message("p-1", "publish", &publication.summary),
            )
            .expect("published");
        edit(&mut draft, "i-3", &[("c.txt", "c")]);
        let proposed = draft
            .propose_undo(&contract::instruction::UndoTarget::Last)
            .expect("judged");
        accept(&mut draft, "u-1", "undo", proposed);
        scene.write("main", "Theirs", &[("d.txt", "d")]);
        draft.fetch().expect("fetched");
        insta::assert_snapshot!(lines(&draft).join("\n"), @r"
        u-1 undo Amelia: Undo “Add c.txt” [c.txt]
        i-3 edit Amelia: Add c.txt [c.txt] undone by u-1
        p-1 publish Amelia: Publish 2 changes [a.txt, b.txt] published
        i-2 edit Amelia: Add b.txt [b.txt] published
        i-1 edit Amelia: Edit a.txt [a.txt] published
        ");
        assert_eq!(draft.history().expect("read").behind, 1);
        assert_eq!(draft.history().expect("read").pushed, []);
        let undo = &draft.history().expect("read").entries[0];
        assert_eq!(undo.undoes, Some("i-3".parse().expect("an id")));
        assert_eq!(undo.at.to_string(), "2026-09-21T14:13:20.000Z");
    }

    #[test]
    fn it_follows_what_others_do_to_the_branch() {
        let scene = Scene::begin();
        let mut draft = scene.draft();
        instruct(&mut draft, "kept");
        draft.push_once().expect("pushed");
        instruct(&mut draft, "doomed");
        draft.push_once().expect("pushed");
        let kept = scene.remote.revparse_single("edit/local~1").expect("there");
        scene
            .remote
            .reference("refs/heads/edit/local", kept.id(), true, "reset")
            .expect("moved");
        instruct(&mut draft, "ours");
        draft.push_once().expect("pushed");
        let ids = |draft: &Draft| -> Vec<String> {
            let entries = draft.history().expect("read").entries;
            entries
                .iter()
                .map(|entry| entry.instruction_id.to_string())
                .collect()
        };
        assert_eq!(ids(&draft), ["ours", "kept"]);
        assert!(draft.landed(&"doomed".parse().expect("an id")).is_none());
        // Read anew it is the same.
        drop(draft);
        let draft = scene.draft();
        assert_eq!(ids(&draft), ["ours", "kept"]);
    }

    #[test]
    fn what_others_pushed_stands_where_it_was_pushed_until_it_is_published() {
        let scene = Scene::with(&[("a.txt", "a")]);
        let mut draft = scene.draft();
        edit(&mut draft, "i-1", &[("a.txt", "b")]);
        draft.push_once().expect("pushed");
        scene.write("edit/local", "Theirs", &[("b.txt", "b")]);
        draft.take_in().expect("taken in");
        edit(&mut draft, "i-2", &[("c.txt", "c")]);
        let pushed = draft.history().expect("read").pushed;
        let told: Vec<_> = pushed
            .iter()
            .map(|pushed| {
                (
                    pushed.summary.as_str(),
                    pushed.files.join(", "),
                    pushed.after,
                )
            })
            .collect();
        assert_eq!(told, [("Theirs", "b.txt".to_owned(), 1)]);
        let publication = draft
            .propose_publish(None)
            .expect("judged")
            .expect("possible");
        draft
            .publish(
                &publication,
                &message("p-1", "publish", &publication.summary),
            )
            .expect("published");
        assert_eq!(draft.history().expect("read").pushed, []);
    }

    #[test]
    fn it_is_bounded_and_each_commit_is_looked_up_once() {
        let scene = Scene::begin();
        let mut draft = scene.draft();
        for number in 0..ENTRIES_MAX + 5 {
            instruct(&mut draft, &format!("i-{number}"));
            let entries = draft.history().expect("read").entries;
            assert_eq!(entries.len(), (number + 1).min(ENTRIES_MAX));
            assert_eq!(draft.details.borrow().len(), number + 1);
        }
    }
}
