//! `edit-agent log`: what was done on the draft, for people.

use std::io::Write as _;

use contract::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::LogArguments;
use crate::failure::{Exit, Failure};
use crate::send::{Door, Wire, moment};

/// Instructions that are listed where nobody says how many: what fits on a screen.
const LISTED: usize = 20;
/// Characters of a column beyond which it is cut: names and summaries are written by anybody.
const WHO_MAX_CHARS: usize = 20;
const WHAT_MAX_CHARS: usize = 72;
/// Files changed by hand that are listed.
const FILES_LISTED: usize = 20;

/// Prints the history of the running environment's draft.
pub(crate) async fn run(arguments: LogArguments) -> Result<Exit, Failure> {
    let door = Door::find(arguments.url.as_deref(), arguments.state.as_deref())?;
    // The list itself needs no receipts; they are long.
    let history = if arguments.json {
        "/_edit/history?receipts"
    } else {
        "/_edit/history"
    };
    let mut body = Wire::new(&door).get(history).await?.expect_status(200)?;
    let text = if arguments.json {
        if let (Some(number), Some(entries)) = (
            arguments.number,
            body.get_mut("entries").and_then(Value::as_array_mut),
        ) {
            entries.truncate(number);
        }
        serde_json::to_string_pretty(&body).expect("a value is JSON")
    } else {
        let history: History = serde_json::from_value(body)
            .map_err(|error| Failure::internal("read the history", &error))?;
        words(&history, arguments.number.unwrap_or(LISTED))
    };
    // A closed pipe (`| head`) is no failure.
    writeln!(std::io::stdout(), "{text}").ok();
    Ok(Exit::Success)
}

/// What `GET /_edit/history` answers, as far as it is listed.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct History {
    /// Newest first.
    entries: Vec<Entry>,
    #[serde(default)]
    unpublished: usize,
    #[serde(default)]
    behind: usize,
    #[serde(default)]
    uncommitted: Vec<String>,
    #[serde(default)]
    publish_blocked: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    /// None of what somebody pushed.
    #[serde(default)]
    instruction_id: String,
    /// None where nobody was named.
    #[serde(default)]
    who: String,
    at: Timestamp,
    summary: String,
    state: EntryState,
    #[serde(default)]
    published: bool,
    #[serde(default)]
    undone_by: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EntryState {
    Standing,
    Undone,
}

/// The history in columns, and below it what there is to be done about it.
fn words(history: &History, number: usize) -> String {
    let mut text = if history.entries.is_empty() {
        "Nothing was instructed in this draft yet.".to_owned()
    } else {
        table(&history.entries[..history.entries.len().min(number)])
    };
    let more = history.entries.len().saturating_sub(number);
    if more > 0 {
        text.push_str(&format!(
            "\n… and {more} before; `edit-agent log -n {}` lists all.",
            history.entries.len()
        ));
    }
    let mut notes = Vec::new();
    if history.unpublished > 0 {
        let (are, publish) = (
            count(history.unpublished, "change is", "changes are"),
            "`edit-agent send --publish`",
        );
        notes.push(match &history.publish_blocked {
            None => format!("{are} not published yet; {publish} publishes."),
            Some(why) => format!("{are} not published yet, and cannot be now: {}", plain(why)),
        });
    }
    if history.behind > 0 {
        let has = count(history.behind, "commit that is", "commits that are");
        notes.push(format!(
            "The published branch has {has} not in the draft; `edit-agent send --sync` brings them in."
        ));
    }
    if !history.uncommitted.is_empty() {
        let mut note = "Changed by hand in the workspace and not committed (`edit-agent send --commit-mine` commits all of it):".to_owned();
        for path in history.uncommitted.iter().take(FILES_LISTED) {
            note.push_str(&format!("\n  {}", plain(path)));
        }
        let more = history.uncommitted.len().saturating_sub(FILES_LISTED);
        if more > 0 {
            note.push_str(&format!("\n  … and {more} more"));
        }
        notes.push(note);
    }
    for note in notes {
        text.push_str("\n\n");
        text.push_str(&note);
    }
    text
}

fn table(entries: &[Entry]) -> String {
    let mut rows = vec![["WHEN (UTC)", "WHO", "WHAT", "ID", ""].map(str::to_owned)];
    rows.extend(entries.iter().map(|entry| {
        [
            moment(entry.at),
            cut(&entry.who, WHO_MAX_CHARS),
            cut(&entry.summary, WHAT_MAX_CHARS),
            plain(&entry.instruction_id),
            mark(entry),
        ]
    }));
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    let lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let cells = row.iter().zip(widths);
            let padded: Vec<String> = cells
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            padded.join("  ").trim_end().to_owned()
        })
        .collect();
    lines.join("\n")
}

fn mark(entry: &Entry) -> String {
    let undone = entry.state == EntryState::Undone;
    let mut marks = Vec::new();
    if entry.published {
        marks.push("published".to_owned());
    }
    match &entry.undone_by {
        Some(by) if undone => marks.push(format!("undone by {}", plain(by))),
        _ if undone => marks.push("undone".to_owned()),
        _ => {}
    }
    marks.join(", ")
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn cut(text: &str, most: usize) -> String {
    let text = plain(text);
    if text.chars().count() <= most {
        return text;
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// A text that others wrote, on one line and with nothing in it that a terminal obeys.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn listed(body: Value, number: usize) -> String {
        words(&serde_json::from_value(body).expect("a history"), number)
    }

    #[test]
    fn a_history_is_read_from_the_newest_down() {
        let entry = |id: &str, who: &str, at: &str, summary: &str| {
            json!({
                "instructionId": id, "action": "edit", "commit": "0".repeat(40), "who": who, "at": at,
                "summary": summary, "sentence": "…", "files": [], "pages": [], "state": "standing",
                "published": false, "undoable": true,
            })
        };
        let mut entries = [
            entry(
                "send-3",
                "Amelia",
                "2026-11-22T10:05:00.000Z",
                "Undo: Edit src/pages/about.astro",
            ),
            entry(
                "send-2",
                "Amelia",
                "2026-11-22T10:00:00.000Z",
                "Edit src/pages/about.astro",
            ),
            entry(
                "mail-1",
                "Bertram \u{1b}[31mthe Second of Stampshire",
                "2026-11-21T09:30:00.000Z",
                "Add public/logo.svg",
            ),
        ];
        entries[1]["state"] = json!("undone");
        entries[1]["undoneBy"] = json!("send-3");
        entries[2]["published"] = json!(true);
        let mut body = json!({
            "entries": entries, "unpublished": 2, "behind": 1, "uncommitted": ["src/pages/index.astro"], "publishBlocked": null,
        });
        insta::assert_snapshot!(listed(body.clone(), 20), @r"
        WHEN (UTC)        WHO                   WHAT                              ID
        2026-11-22 10:05  Amelia                Undo: Edit src/pages/about.astro  send-3
        2026-11-22 10:00  Amelia                Edit src/pages/about.astro        send-2  undone by send-3
        2026-11-21 09:30  Bertram [31mthe Sec…  Add public/logo.svg               mail-1  published

        2 changes are not published yet; `edit-agent send --publish` publishes.

        The published branch has 1 commit that is not in the draft; `edit-agent send --sync` brings them in.

        Changed by hand in the workspace and not committed (`edit-agent send --commit-mine` commits all of it):
          src/pages/index.astro
        ");
        body["publishBlocked"] = json!("There are changes made by hand.");
        body["behind"] = json!(0);
        body["uncommitted"] = json!([]);
        insta::assert_snapshot!(listed(body, 1), @r"
        WHEN (UTC)        WHO     WHAT                              ID
        2026-11-22 10:05  Amelia  Undo: Edit src/pages/about.astro  send-3
        … and 2 before; `edit-agent log -n 3` lists all.

        2 changes are not published yet, and cannot be now: There are changes made by hand.
        ");
    }

    #[test]
    fn an_empty_history_says_so() {
        insta::assert_snapshot!(listed(json!({ "entries": [] }), 20), @"Nothing was instructed in this draft yet.");
        insta::assert_snapshot!(listed(json!({ "entries": [], "uncommitted": ["a.md"] }), 20), @r"
        Nothing was instructed in this draft yet.

        Changed by hand in the workspace and not committed (`edit-agent send --commit-mine` commits all of it):
          a.md
        ");
    }
}
