//! A receipt for people.

use contract::{Conflict, ErrorCode, PageResult, Party, Receipt, Timestamp, Verdict};

/// Pages with a problem that are shown; the rest is counted. `--json` has all of them.
const PAGES_SHOWN: usize = 5;

/// What an instruction was to do, as far as the words about its receipt depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim<'a> {
    /// To change something.
    Change,
    /// To take this instruction back.
    Undo(&'a str),
    /// To call an instruction off.
    Cancel,
}

/// What became of an instruction.
pub(super) fn words(receipt: &Receipt, aim: Aim<'_>) -> String {
    let mut text = format!("{} {}", receipt.status.as_str(), receipt.instruction_id);
    match &receipt.error {
        Some(error) => {
            line(
                &mut text,
                1,
                &format!("{}: {}", error.code.as_str(), error.message),
            );
            for problem in &error.details {
                line(
                    &mut text,
                    2,
                    &format!("{}: {}", problem.path, problem.message),
                );
            }
            for conflict in &error.conflicts {
                collision(&mut text, error.code, conflict);
            }
        }
        None if aim == Aim::Cancel => {
            line(&mut text, 1, "What was waiting is cancelled.");
            line(&mut text, 1, &receipt.summary);
        }
        None => line(&mut text, 1, &receipt.summary),
    }
    if let Some(sentence) = receipt
        .verdict
        .and_then(|verdict| sentence(verdict, receipt))
    {
        line(&mut text, 1, sentence);
    }
    pages(&mut text, &receipt.pages);
    if let Some(error) = &receipt.error {
        line(&mut text, 1, &error.hint);
        if let Some(command) = undo_both(error.code, &error.conflicts, aim) {
            line(&mut text, 2, &command);
        }
        return text;
    }
    if let Some(commit) = &receipt.commit {
        line(
            &mut text,
            1,
            &format!("commit {} on {}", &commit.as_str()[..10], receipt.branch),
        );
    }
    line(&mut text, 1, &format!("see {}", receipt.preview_url));
    text
}

/// A moment to the minute, in UTC.
pub(crate) fn moment(at: Timestamp) -> String {
    let text = at.to_string();
    text.get(..16).unwrap_or(&text).replace('T', " ")
}

fn line(text: &mut String, depth: usize, words: &str) {
    for line in words.lines() {
        let words: String = line.chars().filter(|c| !c.is_control()).collect();
        text.push_str(&format!("\n{}{words}", "  ".repeat(depth)));
    }
}

fn sentence(verdict: Verdict, receipt: &Receipt) -> Option<&'static str> {
    match verdict {
        Verdict::Sound => None,
        Verdict::Repaired => Some(
            "A page was broken before. With this change every page that was looked at renders.",
        ),
        Verdict::StillBroken => {
            Some("A page was broken before and still is; this change makes it no worse.")
        }
        Verdict::Breaks if receipt.status.landed() => Some(
            "This change breaks a page. It stays all the same: the policy has `onBroken: keep`.",
        ),
        Verdict::Breaks => Some("This change breaks a page and was taken back."),
    }
}

fn pages(text: &mut String, pages: &[PageResult]) {
    let broken: Vec<_> = pages
        .iter()
        .filter_map(|page| Some((page, page.problem.as_ref()?)))
        .collect();
    for (page, problem) in broken.iter().take(PAGES_SHOWN) {
        let status = if page.status == 0 {
            "no answer".to_owned()
        } else {
            page.status.to_string()
        };
        line(text, 1, &format!("{} ({status})", page.path));
        line(text, 2, &problem.message);
        match (&problem.file, problem.line) {
            (Some(file), Some(number)) => line(text, 2, &format!("{file}:{number}")),
            (Some(file), None) => line(text, 2, file),
            _ => {}
        }
        if let Some(frame) = &problem.frame {
            line(text, 3, frame);
        }
    }
    let more = broken.len().saturating_sub(PAGES_SHOWN);
    if more > 0 {
        line(text, 1, &format!("… and {more} more pages with a problem"));
    }
}

fn collision(text: &mut String, code: ErrorCode, conflict: &Conflict) {
    line(text, 2, &conflict.path);
    let (ours, theirs) = match code {
        ErrorCode::UndoOverlaps => ("changed later", "changed elsewhere"),
        _ => ("in the draft", "elsewhere"),
    };
    for (side, party) in [(ours, &conflict.ours), (theirs, &conflict.theirs)] {
        if let Some(party) = party {
            line(text, 3, &format!("{side}: {}", did(party)));
        }
    }
}

fn did(party: &Party) -> String {
    let what = match &party.instruction_id {
        Some(id) => id.to_string(),
        None => format!("commit {}", &party.commit.as_str()[..10]),
    };
    format!(
        "{}, {} UTC, {} ({what})",
        party.name,
        moment(party.at),
        party.summary
    )
}

/// The command that takes back what stands in the way, newest first, and then what was meant.
fn undo_both(code: ErrorCode, conflicts: &[Conflict], aim: Aim<'_>) -> Option<String> {
    let this = match aim {
        // `last` is another one once something else was taken back.
        Aim::Undo(id) if code == ErrorCode::UndoOverlaps && id != "last" => id,
        _ => return None,
    };
    let mut later: Vec<&Party> = conflicts
        .iter()
        .filter_map(|conflict| conflict.ours.as_ref())
        .collect();
    later.sort_by_key(|party| std::cmp::Reverse(party.at.unix_ms()));
    let mut ids = Vec::new();
    for party in later {
        // What a developer pushed is no instruction, and nobody can take it back this way.
        let id = party.instruction_id.as_ref()?.as_str();
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    if ids.is_empty() {
        return None;
    }
    ids.push(this);
    let options: Vec<String> = ids.iter().map(|id| format!("--undo {id}")).collect();
    Some(format!("edit-agent send {}", options.join(" ")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn said(status: &str, more: &Value, undoes: Option<&str>) -> String {
        let mut receipt = json!({
            "sessionId": "amelia_1", "instructionId": "send-1", "clientId": "amelia", "status": status, "attempts": 1,
            "commit": "0123456789".repeat(4), "branch": "edit/local", "filesChanged": [], "summary": "Edit src/pages/about.astro",
            "pages": [], "timings": {}, "previewUrl": "http://127.0.0.1:8080/", "acceptedAt": "2026-11-22T09:30:00.000Z",
            "updatedAt": "2026-11-22T09:30:00.000Z",
        });
        let more = more.as_object().expect("an object").clone();
        receipt.as_object_mut().expect("an object").extend(more);
        let aim = undoes.map_or(Aim::Change, Aim::Undo);
        words(&serde_json::from_value(receipt).expect("a receipt"), aim)
    }

    #[test]
    fn a_cancel_that_came_in_time_says_so() {
        let receipt = serde_json::from_value(json!({
            "sessionId": "amelia_1", "instructionId": "send-2", "clientId": "amelia", "status": "cancelled", "attempts": 1,
            "branch": "edit/local", "filesChanged": [], "summary": "send-1 was called off.", "pages": [], "timings": {},
            "previewUrl": "http://127.0.0.1:8080/", "acceptedAt": "2026-11-22T09:30:00.000Z",
            "updatedAt": "2026-11-22T09:30:00.000Z",
        }));
        insta::assert_snapshot!(words(&receipt.expect("a receipt"), Aim::Cancel), @r"
        cancelled send-2
          What was waiting is cancelled.
          send-1 was called off.
          see http://127.0.0.1:8080/
        ");
    }

    #[test]
    fn a_change_that_landed_says_where() {
        insta::assert_snapshot!(said("pushed", &json!({ "verdict": "sound", "pages": [{ "path": "/about/", "status": 200 }] }), None), @r"
        pushed send-1
          Edit src/pages/about.astro
          commit 0123456789 on edit/local
          see http://127.0.0.1:8080/
        ");
        insta::assert_snapshot!(said("pushed", &json!({ "verdict": "repaired" }), None), @r"
        pushed send-1
          Edit src/pages/about.astro
          A page was broken before. With this change every page that was looked at renders.
          commit 0123456789 on edit/local
          see http://127.0.0.1:8080/
        ");
    }

    #[test]
    fn a_page_that_does_not_render_is_shown_with_its_place() {
        let pages = json!([
            { "path": "/", "status": 200 },
            { "path": "/about/", "status": 500, "problem": {
                "message": "Unexpected `}`\u{7}", "file": "src/pages/about.astro", "line": 12, "frame": "> 12 | }\n     | ^" } },
            { "path": "/slow/", "status": 0, "problem": { "message": "It did not answer within 10 s." } },
        ]);
        insta::assert_snapshot!(said("pushed", &json!({ "verdict": "stillBroken", "pages": pages.clone() }), None), @r"
        pushed send-1
          Edit src/pages/about.astro
          A page was broken before and still is; this change makes it no worse.
          /about/ (500)
            Unexpected `}`
            src/pages/about.astro:12
              > 12 | }
                   | ^
          /slow/ (no answer)
            It did not answer within 10 s.
          commit 0123456789 on edit/local
          see http://127.0.0.1:8080/
        ");
        let error = json!({ "code": "page_broken", "message": "The page /about/ does not render.", "hint": "Mend the change." });
        insta::assert_snapshot!(said("rejected", &json!({ "verdict": "breaks", "pages": pages, "error": error }), None), @r"
        rejected send-1
          page_broken: The page /about/ does not render.
          This change breaks a page and was taken back.
          /about/ (500)
            Unexpected `}`
            src/pages/about.astro:12
              > 12 | }
                   | ^
          /slow/ (no answer)
            It did not answer within 10 s.
          Mend the change.
        ");
        insta::assert_snapshot!(said("pushed", &json!({ "verdict": "breaks" }), None), @r"
        pushed send-1
          Edit src/pages/about.astro
          This change breaks a page. It stays all the same: the policy has `onBroken: keep`.
          commit 0123456789 on edit/local
          see http://127.0.0.1:8080/
        ");
    }

    fn party(name: &str, minute: u32, id: Option<&str>) -> Value {
        json!({
            "name": name, "at": format!("2026-11-22T10:{minute:02}:00.000Z"), "summary": "Edit src/pages/about.astro",
            "commit": "ab".repeat(20), "instructionId": id,
        })
    }

    #[test]
    fn a_conflict_says_who_changed_what_and_when() {
        let error = json!({
            "code": "conflict", "message": "Two people changed src/pages/about.astro.", "hint": "Look at it.",
            "conflicts": [{ "path": "src/pages/about.astro", "ours": party("Amelia", 5, Some("send-0")), "theirs": party("Dora", 7, None) }],
        });
        insta::assert_snapshot!(said("rejected", &json!({ "error": error }), None), @r"
        rejected send-1
          conflict: Two people changed src/pages/about.astro.
            src/pages/about.astro
              in the draft: Amelia, 2026-11-22 10:05 UTC, Edit src/pages/about.astro (send-0)
              elsewhere: Dora, 2026-11-22 10:07 UTC, Edit src/pages/about.astro (commit ababababab)
          Look at it.
        ");
    }

    #[test]
    fn an_undo_that_is_in_the_way_of_later_ones_says_how_to_undo_all_of_them() {
        let error = |conflicts: Value| json!({ "error": { "code": "undo_overlaps", "message": "A later change is in the way.", "hint": "Undo both.", "conflicts": conflicts } });
        let conflicts = json!([
            { "path": "src/a.md", "ours": party("Amelia", 5, Some("send-7")) },
            { "path": "src/b.md", "ours": party("Bertram", 9, Some("send-9")) },
            { "path": "src/c.md", "ours": party("Amelia", 5, Some("send-7")) },
        ]);
        insta::assert_snapshot!(said("rejected", &error(conflicts.clone()), Some("send-3")), @r"
        rejected send-1
          undo_overlaps: A later change is in the way.
            src/a.md
              changed later: Amelia, 2026-11-22 10:05 UTC, Edit src/pages/about.astro (send-7)
            src/b.md
              changed later: Bertram, 2026-11-22 10:09 UTC, Edit src/pages/about.astro (send-9)
            src/c.md
              changed later: Amelia, 2026-11-22 10:05 UTC, Edit src/pages/about.astro (send-7)
          Undo both.
            edit-agent send --undo send-9 --undo send-7 --undo send-3
        ");
        assert!(!said("rejected", &error(conflicts), Some("last")).contains("edit-agent send"));
        let of_a_developer = json!([{ "path": "src/a.md", "ours": party("Dora", 5, None) }]);
        assert!(
            !said("rejected", &error(of_a_developer), Some("send-3")).contains("edit-agent send")
        );
    }
}
