//! History: the trailers are the truth, the receipts the details.

use serde_json::{Value, json};

use crate::support::{Repository, Start, is_plain};

const DRAFT: &str = "edit/local";
const INDEX: &str = "src/pages/index.astro";

/// What the history says of each instruction, but for what only receipts know.
fn told(history: &Value) -> Vec<Value> {
    let entries = history["entries"].as_array().expect("a list");
    entries
        .iter()
        .map(|entry| {
            let mut entry = entry.clone();
            let entry = entry.as_object_mut().expect("an object");
            entry.remove("receipt");
            // Where only pages that were looked at are known.
            entry.remove("pages");
            json!(entry)
        })
        .collect()
}

#[tokio::test]
async fn what_was_done_is_known_also_when_every_receipt_is_lost() {
    let bare = Repository::amelia().bare_copy();
    let environment = Start::of(&bare.address()).ready().await;
    for (id, find, new) in [
        ("one", "Rare stamps", "Old stamps"),
        ("two", "New in the album", "Just in"),
        ("three", "What I promise", "My word"),
    ] {
        environment
            .lands(&["--id", id, "--replace", INDEX, find, new])
            .await;
    }
    environment
        .lands(&["--id", "undo-two", "--undo", "two"])
        .await;
    environment
        .publishes(&["--id", "published", "--up-to", "one"])
        .await;
    environment
        .is_rejected(
            &["--id", "refused", "--replace", INDEX, "no such words", "x"],
            "find_not_found",
        )
        .await;
    let before = environment
        .history_when("published", |history| {
            history["entries"]
                .as_array()
                .is_some_and(|entries| entries.iter().any(|entry| entry["published"] == true))
        })
        .await;

    // The receipts are there for who wants them, and nothing else is different then.
    let with_receipts = environment.history_with_receipts().await;
    let plain: Vec<Value> = told(&with_receipts);
    assert_eq!(plain, told(&before));
    for (entry, whole) in before["entries"]
        .as_array()
        .expect("a list")
        .iter()
        .zip(with_receipts["entries"].as_array().expect("a list"))
    {
        assert_eq!(entry["receipt"], Value::Null, "{entry:#}");
        assert_eq!(entry["pages"], whole["pages"]);
    }
    let before = with_receipts;

    // The log is the same in one's own terminal, and what git says is what both say.
    let log: Value = serde_json::from_str(&environment.log(&["--json"]).await).expect("JSON");
    assert_eq!(log, before);
    let format = "--format=%(trailers:key=Edit-Instruction,valueonly,separator=%x20)|%(trailers:key=Edit-Action,valueonly,separator=%x20)|%(trailers:key=Edit-Undoes,valueonly,separator=%x20)|%H|%an|%s";
    let in_git = bare.git(&["log", "--topo-order", format, &format!("main~1..{DRAFT}")]);
    let in_git: Vec<&str> = in_git
        .lines()
        .filter(|line| !line.starts_with('|'))
        .collect();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let listed: Vec<String> = before["entries"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| {
            let action = match text(&entry["action"]) {
                action if action == "edit" => String::new(),
                action => action,
            };
            format!(
                "{}|{action}|{}|{}|{}|{}",
                text(&entry["instructionId"]),
                text(&entry["undoes"]),
                text(&entry["commit"]),
                text(&entry["who"]),
                text(&entry["summary"])
            )
        })
        .collect();
    assert_eq!(listed, in_git);
    for entry in before["entries"].as_array().expect("a list") {
        is_plain(entry["sentence"].as_str().expect("a sentence"));
        let receipt = &entry["receipt"];
        assert_eq!(receipt["instructionId"], entry["instructionId"]);
        assert_eq!(receipt["commit"], entry["commit"], "{entry:#}");
    }
    let people = environment.log(&[]).await;
    for words in [
        "undone by undo-two",
        "published",
        "Amelia",
        "`edit-agent send --publish` publishes",
    ] {
        assert!(people.contains(words), "{people}");
    }
    environment.stop().await;

    // Another machine, that knows nothing but the remote.
    let state = tempfile::tempdir().expect("a folder");
    let elsewhere = Start::of(&bare.address())
        .variable("EDIT_AGENT_STATE", &state.path().display().to_string())
        .ready()
        .await;
    elsewhere
        .history_when("read", |history| history["entries"] != json!([]))
        .await;
    let after = elsewhere.history_with_receipts().await;
    assert_eq!(told(&after), told(&before));
    assert_eq!(after["unpublished"], before["unpublished"]);
    assert_eq!(after["behind"], before["behind"]);
    for entry in after["entries"].as_array().expect("a list") {
        assert_eq!(entry["receipt"], Value::Null, "{entry:#}");
        assert_eq!(entry["pages"], json!(["/"]), "{entry:#}");
    }
    assert_eq!(elsewhere.get("/_edit/instructions/one").await.status, 404);
    assert_eq!(elsewhere.get("/_edit/histories").await.status, 404);
    assert_eq!(
        elsewhere
            .post("/_edit/instructions", &json!({ "version": 1 }))
            .await
            .status,
        422
    );
    // What happened there does not happen again, and can be taken back here.
    let receipt = elsewhere
        .lands(&[
            "--id",
            "three",
            "--replace",
            INDEX,
            "What I promise",
            "My word",
        ])
        .await;
    assert_eq!(
        receipt["commit"], before["entries"][1]["commit"],
        "{receipt:#}"
    );
    assert_eq!(bare.commits_of(DRAFT, "three"), 1);
    elsewhere.lands(&["--undo", "three"]).await;
    elsewhere.page_with("/", "What I promise").await;
    elsewhere
        .is_rejected(&["--undo", "two"], "already_undone")
        .await;
    elsewhere.stop().await;
}
