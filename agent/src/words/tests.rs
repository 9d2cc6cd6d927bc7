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

/// Every situation with its sentence, in the order of the document: heading, situation, sentence.
fn situations() -> Vec<(&'static str, String, String)> {
    let mut all = Vec::new();
    let waits = [
        (Waiting::Preparing, "The environment begins"),
        (Waiting::Fetching, "The site is fetched"),
        (Waiting::Installing, "Dependencies are put in place"),
        (Waiting::Opening, "The site starts"),
        (Waiting::Reinstalling, "Dependencies changed"),
        (Waiting::Broken, "The site does not start"),
        (Waiting::Closing, "The environment stops"),
    ];
    for (what, situation) in waits {
        let (headline, words) = waiting(what);
        all.push((
            "Waiting for a page",
            situation.to_owned(),
            format!("{headline}. {words}"),
        ));
    }
    all.push((
        "Waiting for a page",
        "The site broke off".to_owned(),
        SITE_WENT_AWAY.to_owned(),
    ));
    all.push((
        "Waiting for a page",
        "The site gave no answer".to_owned(),
        SITE_DID_NOT_ANSWER.to_owned(),
    ));

    let index = &["src/pages/index.astro"][..];
    for (status, word) in [
        (Status::Accepted, "accepted"),
        (Status::Running, "running"),
        (Status::Applied, "applied"),
    ] {
        for action in Action::KINDS {
            let sentence = outcome(&receipt(status, index), Some(action));
            all.push((
                "What happens now",
                format!("`{action}` is {word}"),
                sentence,
            ));
        }
    }
    for action in Action::KINDS {
        let status = if action == "publish" {
            Status::Published
        } else {
            Status::Pushed
        };
        all.push((
            "What is done",
            format!("`{action}` is done"),
            outcome(&receipt(status, index), Some(action)),
        ));
    }
    for (files, situation) in [
        (&["src/pages/about.astro"][..], "An edit of one page"),
        (
            &["src/pages/index.astro", "src/components/Footer.astro"],
            "An edit of two files",
        ),
        (&["a.css", "b.css", "c.css"], "An edit of three files"),
        (&["public/images/album.jpg"], "An edit of a picture"),
        (
            &["src/content/journal/soaking-paper.md"],
            "An edit of content",
        ),
        (&["src/styles/global.css"], "An edit of a style"),
        (&[], "An edit whose files are not known"),
    ] {
        all.push((
            "What is done",
            situation.to_owned(),
            outcome(&receipt(Status::Pushed, files), Some("edit")),
        ));
    }
    for (verdict, situation) in [
        (Verdict::Sound, "every page that was looked at shows"),
        (Verdict::Repaired, "a page shows again"),
        (Verdict::StillBroken, "a page does not show, as before"),
        (
            Verdict::Breaks,
            "a page is broken by it, and the client's policy keeps it",
        ),
    ] {
        let mut receipt = receipt(Status::Pushed, index);
        receipt.verdict = Some(verdict);
        receipt.pages = vec![
            page("/", 200, false),
            page("/about/", 500, verdict != Verdict::Sound),
        ];
        all.push((
            "What is done",
            format!("An edit, and {situation}"),
            outcome(&receipt, Some("edit")),
        ));
    }
    for status in [
        Status::Cancelled,
        Status::Interrupted,
        Status::Rejected,
        Status::Failed,
    ] {
        all.push((
            "What did not work",
            format!("`{}`", status.as_str()),
            outcome(&receipt(status, &[]), None),
        ));
    }
    for code in ErrorCode::ALL {
        all.push((
            "What did not work",
            format!("`{}`", code.as_str()),
            outcome(&refusal(*code, Vec::new()), None),
        ));
    }
    for (code, action) in [
        (ErrorCode::EmptyChange, "publish"),
        (ErrorCode::EmptyChange, "sync"),
        (ErrorCode::EmptyChange, "discard"),
        (ErrorCode::UncommittedChanges, "publish"),
        (ErrorCode::PushRejected, "publish"),
    ] {
        let sentence = outcome(&refusal(code, Vec::new()), Some(action));
        all.push((
            "What did not work",
            format!("`{}` of a `{action}`", code.as_str()),
            sentence,
        ));
    }
    let mut broken = refusal(ErrorCode::PageBroken, Vec::new());
    broken.pages = vec![page("/", 200, false), page("/about/", 500, true)];
    all.push((
        "What did not work",
        "`page_broken`, and the page is known".to_owned(),
        outcome(&broken, None),
    ));
    let one = || vec![conflict("src/pages/about.astro", "Dora")];
    let two = || [one(), vec![conflict("src/components/Footer.astro", "Max")]].concat();
    let three = || [two(), vec![conflict("public/a.png", "Max")]].concat();
    for (code, conflicts, situation) in [
        (ErrorCode::Conflict, one(), "with whom is known"),
        (ErrorCode::Conflict, two(), "in two files"),
        (ErrorCode::Conflict, three(), "in three files"),
        (ErrorCode::UndoOverlaps, one(), "the later change is known"),
        (ErrorCode::Stale, one(), "with whom is known"),
    ] {
        let sentence = outcome(&refusal(code, conflicts), None);
        all.push((
            "What did not work",
            format!("`{}`, {situation}", code.as_str()),
            sentence,
        ));
    }
    let Value::Object(bar) = serde_json::to_value(BAR).expect("JSON") else {
        panic!("an object");
    };
    for (name, words) in bar {
        if name == "language" {
            continue;
        }
        let words = match words {
            Value::Array(pair) => pair
                .iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(" / "),
            words => words.as_str().expect("text").to_owned(),
        };
        all.push(("In the bar", format!("`{name}`"), words));
    }
    all.push((
        "In the bar",
        "Work by hand is in the way of publishing".to_owned(),
        PUBLISH_BLOCKED.to_owned(),
    ));
    all
}

fn document() -> String {
    let mut text = "# What an owner reads\n\n\
        Made from `agent/src/words.rs` by its test: change the words there, and run\n\
        `UPDATE_WORDS=1 cargo test --bin edit-agent words`.\n"
        .to_owned();
    let mut under = "";
    for (heading, situation, sentence) in situations() {
        if heading != under {
            writeln!(
                text,
                "\n## {heading}\n\n| situation | sentence |\n|---|---|"
            )
            .expect("text");
            under = heading;
        }
        writeln!(text, "| {situation} | {sentence} |").expect("text");
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
    for (_, situation, sentence) in situations() {
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
    for (heading, situation, sentence) in situations() {
        if heading == "In the bar" {
            continue;
        }
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
    assert_eq!(live_pages(&receipt), ["/about/"]);
    receipt
        .files_changed
        .push("src/layouts/Base.astro".to_owned());
    assert_eq!(live_pages(&receipt), ["/about/", "/"]);
}
