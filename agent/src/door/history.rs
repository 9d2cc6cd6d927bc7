//! `/_edit/history`: what was done on the draft, for the bar and for `edit-agent log`.
//!
//! The draft's own commits say what was done; the receipts, where they are still there, how it went.

use std::sync::Arc;

use axum::extract::State;
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
pub(super) async fn history(State(door): State<Arc<Door>>) -> Response {
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
        let receipt = match door.intake.receipt(&entry.instruction_id).await {
            Ok(receipt) => receipt,
            Err(error) => {
                // The details are missing; what was done is known all the same.
                tracing::warn!(error = %crate::chain(&error), "a receipt could not be read");
                None
            }
        };
        entries.push(listed(entry, *counts, receipt));
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

fn listed(entry: &HistoryEntry, counts: bool, receipt: Option<Receipt>) -> Entry<'_> {
    let undone = entry.undone_by.is_some();
    Entry {
        instruction_id: Some(&entry.instruction_id),
        action: entry.action,
        commit: &entry.commit,
        who: named(&entry.author),
        at: entry.at,
        summary: &entry.summary,
        sentence: words::done(Some(entry.action), &entry.files),
        files: &entry.files,
        pages: receipt.as_ref().map_or_else(
            || words::pages_of(&entry.files),
            |receipt| words::live_pages(receipt, Some(entry.action)),
        ),
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
        receipt,
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

/// Which entries, newest first, a publish would carry to the published site. What was undone is none, and neither is the undo
/// of something that never was published: together they are nothing. Before a discard, nothing is left to publish.
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
            match entry.action {
                "publish" | "sync" | "cancel" => false,
                "discard" => {
                    discarded |= stands;
                    false
                }
                "undo" => stands && entry.undoes.as_ref().is_none_or(published),
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
        insta::assert_snapshot!(serde_json::to_string(&listed(&history.entries[0], false, None)).expect("JSON"), @r#"{"instructionId":"a","action":"edit","commit":"0123456789012345678901234567890123456789","who":"Amelia","at":"1970-01-01T00:00:00.000Z","summary":"","sentence":"The page /about/ was changed.","files":["src/pages/about.astro"],"pages":["/about/"],"state":"undone","published":false,"counts":false,"undoable":false,"undoneBy":"later"}"#);
    }
}
