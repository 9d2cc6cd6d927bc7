use std::fmt::Write as _;
use std::path::Path;

use contract::receipt::Timings;
use contract::{Action, PageProblem, PageResult, ReceiptError};
use serde_json::Value;

use super::*;

fn receipt(status: Status, files: &[&str]) -> Receipt {
    let at: Timestamp = "2026-11-22T09:30:00.000Z".parse().expect("a time");
    Receipt {
        session_id: "amelia_a".parse().expect("valid"),
        instruction_id: "one".parse().expect("valid"),
        client_id: "amelia".parse().expect("valid"),
        status,
        attempts: 1,
        commit: None,
        branch: "edit/local".to_owned(),
        files_changed: files.iter().map(|file| (*file).to_owned()).collect(),
        summary: "Edit src/pages/index.astro".to_owned(),
        pages: Vec::new(),
        verdict: None,
        error: None,
        timings: Timings::default(),
        preview_url: "http://localhost/".to_owned(),
        accepted_at: at,
        updated_at: at,
        fingerprint: None,
    }
}

fn refusal(code: ErrorCode, conflicts: Vec<Conflict>) -> Receipt {
    let mut receipt = receipt(Status::Rejected, &[]);
    receipt.error = Some(ReceiptError {
        code,
        message: "merge failed on refs/heads/main (500)".to_owned(),
        hint: String::new(),
        details: Vec::new(),
        conflicts,
        problem: None,
    });
    receipt
}

fn page(path: &str, status: u16, problem: bool) -> PageResult {
    PageResult {
        path: path.to_owned(),
        status,
        problem: problem.then(PageProblem::default),
    }
}

fn conflict(path: &str, name: &str) -> Conflict {
    let party = Party {
        name: name.to_owned(),
        at: "2026-11-22T09:30:00.000Z".parse().expect("a time"),
        summary: "Edit src/pages/about.astro".to_owned(),
        commit: "0123456789012345678901234567890123456789"
            .parse()
            .expect("a commit"),
        instruction_id: None,
    };
    Conflict {
        path: path.to_owned(),
        ours: Some(party),
        theirs: None,
    }
}

/// Situations with their sentences.
type Chapter = Vec<(String, String)>;

/// Every situation, in the order of the document.
fn chapters() -> [(&'static str, Chapter); 5] {
    [
        ("Waiting for a page", while_waiting()),
        ("What happens now", now()),
        ("What is done", what_is_done()),
        ("What did not work", what_did_not_work()),
        (IN_THE_BAR, in_the_bar()),
    ]
}

const IN_THE_BAR: &str = "In the bar";
const HOME: &[&str] = &["src/pages/index.astro"];

fn while_waiting() -> Chapter {
    let waits = [
        (Waiting::Preparing, "The environment begins"),
        (Waiting::Fetching, "The site is fetched"),
        (Waiting::Installing, "Dependencies are put in place"),
        (Waiting::Opening, "The site starts"),
        (Waiting::Reinstalling, "Dependencies changed"),
        (Waiting::Broken, "The site does not start"),
        (Waiting::Closing, "The environment stops"),
    ];
    let mut chapter: Chapter = waits
        .map(|(what, situation)| {
            let (headline, words) = waiting(what);
            (situation.to_owned(), format!("{headline}. {words}"))
        })
        .into();
    for (situation, sentence) in [
        ("The site broke off", SITE_WENT_AWAY),
        ("The site gave no answer", SITE_DID_NOT_ANSWER),
    ] {
        chapter.push((situation.to_owned(), sentence.to_owned()));
    }
    chapter
}

fn now() -> Chapter {
    let mut chapter = Chapter::new();
    for status in [Status::Accepted, Status::Running, Status::Applied] {
        for action in Action::KINDS {
            let sentence = outcome(&receipt(status, HOME), Some(action));
            chapter.push((format!("`{action}` is {}", status.as_str()), sentence));
        }
    }
    chapter
}

fn what_is_done() -> Chapter {
    let mut chapter = Chapter::new();
    for action in Action::KINDS {
        let status = match action {
            "publish" => Status::Published,
            _ => Status::Pushed,
        };
        let sentence = outcome(&receipt(status, HOME), Some(action));
        chapter.push((format!("`{action}` is done"), sentence));
    }
    let two: &[&str] = &["src/pages/index.astro", "src/components/Footer.astro"];
    for (files, situation) in [
        (&["src/pages/about.astro"][..], "An edit of one page"),
        (two, "An edit of two files"),
        (&["a.css", "b.css", "c.css"], "An edit of three files"),
        (&["public/images/album.jpg"], "An edit of a picture"),
        (&["src/content/prices.md"], "An edit of content"),
        (&["src/styles/global.css"], "An edit of a style"),
        (&[], "An edit whose files are not known"),
    ] {
        let sentence = outcome(&receipt(Status::Pushed, files), Some("edit"));
        chapter.push((situation.to_owned(), sentence));
    }
    let out = "`undo` of a `sync` is done".to_owned();
    chapter.push((out, taken_out(&["src/pages/about.astro".to_owned()])));
    let kept = "a page is broken by it, and the client's policy keeps it";
    for (verdict, situation) in [
        (Verdict::Sound, "every page that was looked at shows"),
        (Verdict::Repaired, "a page shows again"),
        (Verdict::StillBroken, "a page does not show, as before"),
        (Verdict::Breaks, kept),
    ] {
        let mut receipt = receipt(Status::Pushed, HOME);
        receipt.verdict = Some(verdict);
        let broken = verdict != Verdict::Sound;
        receipt.pages = vec![page("/", 200, false), page("/about/", 500, broken)];
        let sentence = outcome(&receipt, Some("edit"));
        chapter.push((format!("An edit, and {situation}"), sentence));
    }
    chapter
}

fn what_did_not_work() -> Chapter {
    let mut chapter = Chapter::new();
    for status in [
        Status::Cancelled,
        Status::Interrupted,
        Status::Rejected,
        Status::Failed,
    ] {
        let sentence = outcome(&receipt(status, &[]), None);
        chapter.push((format!("`{}`", status.as_str()), sentence));
    }
    for code in ErrorCode::ALL {
        let sentence = outcome(&refusal(*code, Vec::new()), None);
        chapter.push((format!("`{}`", code.as_str()), sentence));
    }
    for (code, action) in [
        (ErrorCode::EmptyChange, "publish"),
        (ErrorCode::EmptyChange, "sync"),
        (ErrorCode::EmptyChange, "discard"),
        (ErrorCode::EmptyChange, "undo"),
        (ErrorCode::EmptyChange, "commit"),
        (ErrorCode::UncommittedChanges, "publish"),
        (ErrorCode::PushRejected, "publish"),
        (ErrorCode::PushRejected, "commit"),
    ] {
        let sentence = outcome(&refusal(code, Vec::new()), Some(action));
        chapter.push((format!("`{}` of a `{action}`", code.as_str()), sentence));
    }
    let mut broken = refusal(ErrorCode::PageBroken, Vec::new());
    broken.pages = vec![
        page("/renamed/", 404, false),
        page("/about/", 200, true),
        page("/", 200, false),
    ];
    for action in Action::KINDS.into_iter().filter(|kind| *kind != "cancel") {
        let situation = format!("`page_broken` of a `{action}`, and the page is known");
        chapter.push((situation, outcome(&broken, Some(action))));
    }
    let one = || vec![conflict("src/pages/about.astro", "Dora")];
    let asked = |id: &str| {
        let mut conflict = conflict("src/pages/about.astro", "Dora");
        if let Some(ours) = &mut conflict.ours {
            ours.instruction_id = Some(id.parse().expect("an id"));
        }
        conflict
    };
    let two = || [one(), vec![conflict("src/components/Footer.astro", "Max")]].concat();
    let three = || [two(), vec![conflict("public/a.png", "Max")]].concat();
    for (code, conflicts, situation) in [
        (ErrorCode::Conflict, one(), "with whom is known"),
        (ErrorCode::Conflict, two(), "in two files"),
        (ErrorCode::Conflict, three(), "in three files"),
        (
            ErrorCode::UndoOverlaps,
            one(),
            "somebody pushed the later change",
        ),
        (
            ErrorCode::UndoOverlaps,
            vec![asked("a"), asked("a")],
            "the later change is known",
        ),
        (
            ErrorCode::UndoOverlaps,
            vec![asked("a"), asked("b")],
            "the later changes are known",
        ),
        (ErrorCode::Stale, one(), "with whom is known"),
    ] {
        let sentence = outcome(&refusal(code, conflicts), None);
        chapter.push((format!("`{}`, {situation}", code.as_str()), sentence));
    }
    chapter
}

fn in_the_bar() -> Chapter {
    let Value::Object(bar) = serde_json::to_value(BAR).expect("JSON") else {
        panic!("an object");
    };
    let mut chapter = Chapter::new();
    for (name, words) in bar.into_iter().filter(|(name, _)| name != "language") {
        let words = match words {
            Value::Array(pair) => {
                let pair: Vec<&str> = pair.iter().filter_map(Value::as_str).collect();
                pair.join(" / ")
            }
            words => words.as_str().expect("text").to_owned(),
        };
        chapter.push((format!("`{name}`"), words));
    }
    let by_hand = "Work by hand is in the way of publishing".to_owned();
    chapter.push((by_hand, PUBLISH_BLOCKED.to_owned()));
    chapter
}

fn document() -> String {
    let mut text = "# What an owner reads\n\n\
        Made from `agent/src/words.rs` by its test: change the words there, and run\n\
        `UPDATE_WORDS=1 cargo test --bin edit-agent words`.\n"
        .to_owned();
    for (heading, chapter) in chapters() {
        writeln!(
            text,
            "\n## {heading}\n\n| situation | sentence |\n|---|---|"
        )
        .expect("text");
        for (situation, sentence) in chapter {
            writeln!(text, "| {situation} | {sentence} |").expect("text");
        }
    }
    text
}

#[test]
fn the_table_of_sentences_is_the_one_of_the_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/owners.md");
    if std::env::var_os("UPDATE_WORDS").is_some() {
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        std::fs::write(&file, document()).expect("written");
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == document(),
        "docs/owners.md is out of date: run `UPDATE_WORDS=1 cargo test --bin edit-agent words` and commit it"
    );
}

#[test]
fn no_sentence_speaks_of_how_the_site_is_made() {
    const FORBIDDEN: [&str; 34] = [
        "git",
        "branch",
        "branches",
        "commit",
        "commits",
        "committed",
        "merge",
        "merged",
        "push",
        "pushed",
        "pull",
        "rebase",
        "repository",
        "remote",
        "stack",
        "trace",
        "status",
        "code",
        "error",
        "http",
        "html",
        "server",
        "dev",
        "render",
        "renders",
        "rendered",
        "instruction",
        "receipt",
        "queue",
        "agent",
        "file’s",
        "compile",
        "syntax",
        "exception",
    ];
    for (situation, sentence) in chapters().into_iter().flat_map(|(_, chapter)| chapter) {
        let words = sentence.to_lowercase();
        let words: Vec<&str> = words
            .split(|character: char| !character.is_alphanumeric() && character != '’')
            .collect();
        for forbidden in FORBIDDEN {
            assert!(
                !words.contains(&forbidden),
                "{situation}: {sentence} ({forbidden})"
            );
        }
        let codes = words.iter().any(|word| {
            word.len() == 3 && word.parse().is_ok_and(|n: u16| (100..600).contains(&n))
        });
        assert!(!codes, "{situation}: {sentence}");
    }
}

#[test]
fn every_sentence_is_one() {
    let whole = chapters()
        .into_iter()
        .filter(|(heading, _)| *heading != IN_THE_BAR);
    for (situation, sentence) in whole.flat_map(|(_, chapter)| chapter) {
        let begins = sentence.chars().next().is_some_and(char::is_uppercase);
        assert!(
            begins && sentence.ends_with('.') && !sentence.contains("  "),
            "{situation}: {sentence}"
        );
    }
}

#[test]
fn a_change_is_live_on_the_pages_it_made_and_on_those_that_were_seen_with_it() {
    let mut receipt = receipt(Status::Pushed, &["src/pages/about.astro"]);
    receipt.pages = vec![page("/", 200, false), page("/contact/", 500, true)];
    assert_eq!(live_pages(&receipt, Some("edit")), ["/about/"]);
    receipt
        .files_changed
        .push("src/layouts/Base.astro".to_owned());
    assert_eq!(live_pages(&receipt, None), ["/about/", "/"]);
    for action in ["publish", "discard", "sync", "cancel"] {
        assert!(live_pages(&receipt, Some(action)).is_empty(), "{action}");
    }
}

#[test]
fn every_action_has_words_of_its_own_or_is_one_on_purpose() {
    let mut kinds: Vec<Kind> = Vec::new();
    for action in Action::KINDS {
        let kind = Kind::of(Some(action));
        assert!(kind != Kind::Other && !kinds.contains(&kind), "{action}");
        kinds.push(kind);
    }
}

#[test]
fn what_is_said_of_a_broken_page_is_true_of_what_was_asked_for() {
    let mut broken = refusal(ErrorCode::PageBroken, Vec::new());
    // The first has got another name, and is rightly not there any more.
    broken.pages = vec![page("/old/", 404, false), page("/about/", 500, true)];
    let said = |action: &str| outcome(&broken, Some(action));
    for action in ["publish", "commit", "sync", "discard", "undo"] {
        let said = said(action);
        assert!(
            said.contains("/about/") && !said.contains("taken back"),
            "{said}"
        );
    }
    assert!(said("publish").contains("nothing was published"));
    assert!(said("commit").contains("stays where it is"));
    assert!(said("edit").contains("/about/") && said("edit").contains("taken back"));
    let mut unknown = broken.clone();
    unknown.pages.pop();
    assert!(!outcome(&unknown, Some("edit")).contains("/old/"));
}

#[test]
fn nobody_is_told_that_nothing_was_changed_where_nobody_knows() {
    for code in [
        ErrorCode::Internal,
        ErrorCode::RemoteUnavailable,
        ErrorCode::DiskFull,
    ] {
        let mut receipt = refusal(code, Vec::new());
        receipt.status = Status::Failed;
        for action in Action::KINDS {
            let said = outcome(&receipt, Some(action));
            assert!(!said.contains("Nothing was changed"), "{said}");
        }
    }
    let said = outcome(&receipt(Status::Failed, &[]), None);
    assert!(!said.contains("Nothing was changed"), "{said}");
}
