//! `/_edit/history`: what was done on the draft, for the bar and for `edit-agent log`.
//!
//! The draft's own commits say what was done; the receipts, where they are still there, how it went. They are long, and
//! the bar asks often: so they are told only to who wants them (`?receipts`), and what the list itself needs of them is
//! remembered.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{RawQuery, State};
use axum::response::Response;
use contract::{CommitId, InstructionId, Receipt, Timestamp};
use http::StatusCode;
use serde::Serialize;
use serde_json::json;

use super::{Door, control};
use crate::draft::{COMMITTER, Contribution, History, HistoryEntry};
use crate::words;

/// Entries that are listed. Who wants to know more looks at the draft.
const LISTED_MAX: usize = 100;
/// Changes of which it is remembered where they were seen: all that are listed, and those that come while they are.
const REMEMBERED_MAX: usize = 2 * LISTED_MAX;

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    /// Newest first.
    entries: Vec<Entry<'a>>,
    /// How many of the entries would be published.
    unpublished: usize,
    /// Commits of the published branch that the draft does not have.
    behind: usize,
    /// The files that somebody changed by hand.
    uncommitted: &'a [String],
    /// Why nothing can be published now.
    publish_blocked: Option<&'static str>,
}

/// The action of what others pushed.
const PUSH: &str = "push";

/// One instruction, or what somebody pushed to the draft.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    /// None of what was pushed: it cannot be named.
    #[serde(skip_serializing_if = "Option::is_none")]
    instruction_id: Option<&'a InstructionId>,
    action: &'static str,
    commit: &'a CommitId,
    /// None where nobody was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    who: Option<&'a str>,
    at: Timestamp,
    summary: &'a str,
    /// In an owner's words.
    sentence: String,
    files: &'a [String],
    pages: Vec<String>,
    state: Standing,
    published: bool,
    /// Whether it would be published, as part of `unpublished`.
    counts: bool,
    undoable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    undoes: Option<&'a InstructionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    undone_by: Option<&'a InstructionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<Receipt>,
}

/// Whether what an instruction did is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Standing {
    Standing,
    Undone,
}

/// What was done on the draft.
pub(super) async fn history(State(door): State<Arc<Door>>, RawQuery(query): RawQuery) -> Response {
    let with_receipts = query.as_deref() == Some("receipts");
    let (history, uncommitted) = {
        let view = door.pipeline.borrow();
        (Arc::clone(&view.history), view.uncommitted.clone())
    };
    let counted = would_be_published(&history);
    let discarded = last_discard(&history);
    let pushed: Vec<_> = history
        .pushed
        .iter()
        .map(|pushed| pushed_by_others(pushed, discarded))
        .collect();
    let unpublished = counted.iter().filter(|counts| **counts).count()
        + pushed.iter().filter(|(entry, _)| entry.counts).count();
    let mut pushed = pushed.into_iter().peekable();
    let mut entries = Vec::new();
    for (place, (entry, counts)) in history.entries.iter().zip(&counted).enumerate() {
        while let Some((theirs, _)) = pushed.next_if(|(_, after)| *after <= place) {
            entries.push(theirs);
        }
        if entries.len() >= LISTED_MAX {
            break;
        }
        let out = entry
            .undoes
            .as_ref()
            .is_some_and(|id| is_sync(&history, id));
        let mut listed = listed(entry, *counts, out);
        details(&door, entry, with_receipts, &mut listed).await;
        entries.push(listed);
    }
    entries.extend(pushed.map(|(theirs, _)| theirs));
    entries.truncate(LISTED_MAX);
    let listed = Listed {
        entries,
        unpublished,
        behind: history.behind,
        uncommitted: &uncommitted,
        publish_blocked: words::publish_blocked(&uncommitted),
    };
    control::answer(StatusCode::OK, json!(listed))
}

/// Adds what only the receipt knows: the pages on which the change was seen, and the receipt itself if it is wanted.
async fn details(door: &Door, entry: &HistoryEntry, with_receipts: bool, listed: &mut Entry<'_>) {
    let id = &entry.instruction_id;
    let action = Some(entry.action);
    if !with_receipts {
        if !words::is_seen_elsewhere(&entry.files, action) {
            return;
        }
        if let Some(pages) = door.seen_on.of(id) {
            listed.pages = pages;
            return;
        }
    }
    let receipt = match door.intake.receipt(id).await {
        Ok(receipt) => receipt,
        Err(error) => {
            // The details are missing; what was done is known all the same.
            tracing::warn!(error = %crate::chain(&error), "a receipt could not be read");
            return;
        }
    };
    if let Some(receipt) = &receipt {
        listed.pages = words::live_pages(receipt, action);
    }
    // Of what is not over, more may become known. What has no receipt any more gets none.
    if receipt
        .as_ref()
        .is_none_or(|receipt| receipt.status.is_final())
    {
        door.seen_on.remember(id, &listed.pages);
    }
    listed.receipt = receipt.filter(|_| with_receipts);
}

/// The pages on which the newest changes were seen, as their receipts say. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct SeenOn(Arc<Mutex<VecDeque<Seen>>>);

/// A change, and the pages on which it was seen.
type Seen = (InstructionId, Vec<String>);

impl SeenOn {
    fn of(&self, id: &InstructionId) -> Option<Vec<String>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().find(|(known, _)| known == id);
        found.map(|(_, pages)| pages.clone())
    }

    fn remember(&self, id: &InstructionId, pages: &[String]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(known, _)| known != id);
        if known.len() == REMEMBERED_MAX {
            known.pop_front();
        }
        known.push_back((id.clone(), pages.to_vec()));
    }
}

/// An entry, as far as the draft itself knows it. `out` is said of an undo that takes out what was brought in.
fn listed(entry: &HistoryEntry, counts: bool, out: bool) -> Entry<'_> {
    let undone = entry.undone_by.is_some();
    Entry {
        instruction_id: Some(&entry.instruction_id),
        action: entry.action,
        commit: &entry.commit,
        who: named(&entry.author),
        at: entry.at,
        summary: &entry.summary,
        sentence: if out {
            words::taken_out(&entry.files)
        } else {
            words::done(Some(entry.action), &entry.files)
        },
        files: &entry.files,
        pages: words::own_pages(&entry.files, Some(entry.action)),
        state: if undone {
            Standing::Undone
        } else {
            Standing::Standing
        },
        published: entry.published,
        counts,
        undoable: entry.is_undoable(),
        undoes: entry.undoes.as_ref(),
        undone_by: entry.undone_by.as_ref(),
        receipt: None,
    }
}

/// What others pushed, and how many entries are newer. A discard since then leaves nothing of it to publish.
fn pushed_by_others(pushed: &Contribution, discarded: Option<usize>) -> (Entry<'_>, usize) {
    let entry = Entry {
        instruction_id: None,
        action: PUSH,
        commit: &pushed.commit,
        who: named(&pushed.author),
        at: pushed.at,
        summary: &pushed.summary,
        sentence: words::done(Some(PUSH), &pushed.files),
        files: &pushed.files,
        pages: words::pages_of(&pushed.files),
        state: Standing::Standing,
        published: false,
        counts: discarded.is_none_or(|discard| pushed.after <= discard),
        undoable: false,
        undoes: None,
        undone_by: None,
        receipt: None,
    };
    (entry, pushed.after)
}

/// Who it was, if that was said: the agent is nobody.
fn named(author: &str) -> Option<&str> {
    (author != COMMITTER.0).then_some(author)
}

/// The place of the newest discard that stands and is not published.
fn last_discard(history: &History) -> Option<usize> {
    history.entries.iter().position(|entry| {
        entry.action == "discard" && !entry.published && entry.undone_by.is_none()
    })
}

/// Whether an instruction of the draft brought in what was published elsewhere.
fn is_sync(history: &History, id: &InstructionId) -> bool {
    let mut entries = history.entries.iter();
    entries.any(|entry| entry.instruction_id == *id && entry.action == "sync")
}

/// Which entries, newest first, a publish would carry to the published site. What was undone is none, and neither is the undo
/// of something that never was published: together they are nothing. What was brought in was published elsewhere, so taking
/// it out of the draft would take it off the published site. Before a discard, nothing is left to publish.
fn would_be_published(history: &History) -> Vec<bool> {
    let published = |id: &InstructionId| {
        let mut entries = history.entries.iter();
        // What is not on the draft any more was published before it.
        entries
            .find(|entry| entry.instruction_id == *id)
            .is_none_or(|entry| entry.published)
    };
    let mut discarded = false;
    history
        .entries
        .iter()
        .map(|entry| {
            let stands = !discarded && !entry.published && entry.undone_by.is_none();
            let takes_back = |id| published(id) || is_sync(history, id);
            match entry.action {
                "publish" | "sync" | "cancel" => false,
                "discard" => {
                    discarded |= stands;
                    false
                }
                "undo" => stands && entry.undoes.as_ref().is_none_or(takes_back),
                _ => stands,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries, newest first: id, action, and `u` undone, `p` published, `<id` takes back.
    fn history(entries: &[(&str, &'static str, &str)]) -> History {
        let id = |id: &str| id.parse().expect("an id");
        let entries = entries.iter().map(|(name, action, marks)| HistoryEntry {
            instruction_id: id(name),
            commit: "0123456789012345678901234567890123456789"
                .parse()
                .expect("a commit"),
            action,
            author: "Amelia".to_owned(),
            at: Timestamp::from_unix_ms(0),
            summary: String::new(),
            files: vec!["src/pages/about.astro".to_owned()],
            undoes: marks.split_once('<').map(|(_, undoes)| id(undoes)),
            undone_by: marks.contains('u').then(|| id("later")),
            published: marks.contains('p'),
        });
        History {
            entries: entries.collect(),
            pushed: Vec::new(),
            behind: 0,
        }
    }

    #[test]
    fn what_others_pushed_counts_unless_it_was_discarded_since() {
        let history = history(&[("b", "discard", ""), ("a", "edit", "")]);
        let counts = |after| {
            let pushed = Contribution {
                commit: history.entries[0].commit.clone(),
                author: "Dora".to_owned(),
                at: Timestamp::from_unix_ms(0),
                summary: String::new(),
                files: Vec::new(),
                after,
            };
            pushed_by_others(&pushed, last_discard(&history)).0.counts
        };
        assert_eq!([counts(0), counts(1), counts(2)], [true, false, false]);
    }

    #[test]
    fn nobody_is_told_that_the_agent_changed_something() {
        assert_eq!(named("Amelia"), Some("Amelia"));
        assert_eq!(named(COMMITTER.0), None);
    }

    #[test]
    fn what_would_be_published_is_what_is_left_of_the_changes() {
        for (entries, expected) in [
            (&[("b", "edit", ""), ("a", "edit", "")][..], "ba"),
            (&[("b", "edit", ""), ("a", "edit", "p")], "b"),
            // Undone before anybody saw it: nothing is left.
            (&[("b", "undo", "<a"), ("a", "edit", "u")], ""),
            // Undone after it was published: that is a change.
            (&[("b", "undo", "<a"), ("a", "edit", "up")], "b"),
            (&[("b", "undo", "<0")], "b"),
            // An undo undone: the first change stands again.
            (
                &[("c", "undo", "<b"), ("b", "undo", "u<a"), ("a", "edit", "")],
                "a",
            ),
            (
                &[("c", "edit", ""), ("b", "discard", ""), ("a", "edit", "")],
                "c",
            ),
            (&[("b", "discard", "u"), ("a", "edit", "")], "a"),
            // What was published elsewhere is taken off again.
            (
                &[
                    ("undo", "undo", "<follow-1"),
                    ("follow-1", "sync", "u"),
                    ("a", "edit", ""),
                ],
                "undoa",
            ),
            (
                &[("c", "undo", "<b"), ("b", "undo", "u<a"), ("a", "sync", "")],
                "",
            ),
            (
                &[
                    ("c", "discard", ""),
                    ("b", "undo", "<a"),
                    ("a", "sync", "u"),
                ],
                "",
            ),
            (
                &[("c", "publish", ""), ("b", "sync", ""), ("a", "commit", "")],
                "a",
            ),
        ] {
            let history = history(entries);
            let counted: String = would_be_published(&history)
                .into_iter()
                .zip(&history.entries)
                .filter(|(counts, _)| *counts)
                .map(|(_, entry)| entry.instruction_id.as_str())
                .collect();
            assert_eq!(counted, expected, "{entries:?}");
        }
    }

    #[test]
    fn an_entry_is_told_in_the_words_of_the_contract() {
        let history = history(&[("a", "edit", "u")]);
        insta::assert_snapshot!(serde_json::to_string(&listed(&history.entries[0], false, false)).expect("JSON"), @r#"{"instructionId":"a","action":"edit","commit":"0123456789012345678901234567890123456789","who":"Amelia","at":"1970-01-01T00:00:00.000Z","summary":"","sentence":"The page /about/ was changed.","files":["src/pages/about.astro"],"pages":["/about/"],"state":"undone","published":false,"counts":false,"undoable":false,"undoneBy":"later"}"#);
    }

    #[test]
    fn taking_out_what_was_brought_in_is_called_that() {
        let history = history(&[("b", "undo", "<a"), ("a", "sync", "u")]);
        let told = listed(&history.entries[0], true, true).sentence;
        assert_eq!(
            told,
            "What was published elsewhere was taken out of your draft again: the page /about/."
        );
    }

    #[test]
    fn where_the_newest_changes_were_seen_is_remembered_and_no_more() {
        let (seen, id) = (SeenOn::default(), |n: usize| {
            format!("id-{n}").parse().expect("an id")
        });
        for n in 0..=REMEMBERED_MAX {
            seen.remember(&id(n), &[format!("/{n}/")]);
        }
        seen.remember(&id(1), &["/other/".to_owned()]);
        assert_eq!(seen.of(&id(0)), None);
        assert_eq!(seen.of(&id(1)), Some(vec!["/other/".to_owned()]));
        assert_eq!(seen.of(&id(2)), Some(vec!["/2/".to_owned()]));
    }
}
