//! Undo: any single change can be taken back, and nothing else is.

use serde_json::{Value, json};

use crate::support::{Environment, Repository, Start};

const DRAFT: &str = "edit/local";
const INDEX: &str = "src/pages/index.astro";
const ABOUT: &str = "src/pages/about.astro";
const NOTE: &str = "src/content/journal/how-i-grade.md";

async fn edits(environment: &Environment, id: &str, path: &str, find: &str, new: &str) {
    environment
        .lands(&["--id", id, "--replace", path, find, new])
        .await;
}

/// Waits until the history says this of one instruction: it is told a moment after the receipt.
async fn is_remembered(environment: &Environment, id: &str, field: &str, value: &str) {
    let says = |history: &Value| {
        let mut entries = history["entries"].as_array().into_iter().flatten();
        entries.any(|entry| entry["instructionId"] == id && entry[field] == value)
    };
    let what = format!("{id} has {field} {value}");
    environment.history_when(&what, says).await;
}

fn message(receipt: &Value) -> &str {
    receipt["error"]["message"].as_str().expect("words")
}

#[tokio::test]
async fn the_first_of_three_edits_is_taken_back_and_the_two_later_ones_stay() {
    let repository = Repository::amelia();
    // Somebody else's draft, of which this one knows nothing; and its change that has been published long ago.
    repository.write("README.md", "Published\n");
    repository.commit_all("Elsewhere\n\nEdit-Instruction: theirs\nEdit-Session: other_1\n");
    repository.git(&["branch", "edit/other"]);
    repository.git(&["checkout", "--quiet", "edit/other"]);
    repository.write("README.md", "Foreign\n");
    repository.commit_all("Elsewhere\n\nEdit-Instruction: foreign\nEdit-Session: other_1\n");
    repository.git(&["checkout", "--quiet", "main"]);
    let environment = Start::of(&repository.address()).ready().await;

    edits(&environment, "one", INDEX, "Rare stamps", "Old stamps").await;
    edits(&environment, "two", INDEX, "New in the album", "Just in").await;
    edits(&environment, "three", INDEX, "What I promise", "My word").await;
    let receipt = environment
        .lands(&["--id", "undo-one", "--undo", "one"])
        .await;
    assert_eq!(receipt["verdict"], "sound", "{receipt:#}");
    assert_eq!(receipt["filesChanged"], json!([INDEX]));
    assert_eq!(
        receipt["pages"],
        json!([{ "path": "/", "status": 200 }]),
        "it was looked at"
    );
    let page = environment.page_with("/", "Rare stamps, honestly").await;
    assert!(page.contains("Just in") && page.contains("My word"));
    let summary = "Undo “Edit src/pages/index.astro”";
    assert_eq!(repository.subjects(DRAFT)[0], summary);
    let trailers = repository.git(&["log", "-1", "--format=%(trailers)", DRAFT]);
    assert!(
        trailers.contains("Edit-Instruction: undo-one")
            && trailers.contains("Edit-Action: undo")
            && trailers.contains("Edit-Undoes: one"),
        "{trailers}"
    );
    is_remembered(&environment, "one", "undoneBy", "undo-one").await;
    let told = environment.is_told_plainly("undo-one").await;
    assert_eq!(told, "A change was taken back: the home page.");

    // What cannot be taken back, and why.
    let receipt = environment
        .is_rejected(&["--undo", "one"], "already_undone")
        .await;
    assert!(message(&receipt).contains("undone already by Amelia"));
    for id in ["never", "foreign"] {
        environment
            .is_rejected(&["--undo", id], "unknown_instruction")
            .await;
    }
    environment
        .is_rejected(
            &["--id", "refused", "--replace", INDEX, "no such words", "x"],
            "find_not_found",
        )
        .await;
    environment
        .is_rejected(&["--undo", "refused"], "unknown_instruction")
        .await;

    // An undo is a change like others: taking it back brings the first edit back.
    let receipt = environment
        .lands(&["--id", "redo", "--undo", "undo-one"])
        .await;
    assert_eq!(
        receipt["summary"], "Redo “Edit src/pages/index.astro”",
        "{receipt:#}"
    );
    environment.page_with("/", "Old stamps, honestly").await;
    is_remembered(&environment, "one", "state", "standing").await;

    // The newest that stands, and then the newest that still does.
    environment.lands(&["--undo", "last"]).await;
    environment.page_with("/", "What I promise").await;
    environment.lands(&["--undo", "last"]).await;
    environment.page_with("/", "New in the album").await;
    environment.lands(&["--undo", "last"]).await;
    environment.page_with("/", "Rare stamps, honestly").await;
    assert_eq!(
        repository.show("main", INDEX),
        repository.show(DRAFT, INDEX)
    );
    environment
        .is_rejected(&["--undo", "last"], "nothing_to_undo")
        .await;
    repository
        .is_shown_in(DRAFT, &environment.work_tree())
        .await;
    environment.stop().await;
}

#[tokio::test]
async fn a_later_change_of_the_same_place_is_named_and_both_can_be_taken_back() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address()).ready().await;
    edits(&environment, "early", INDEX, "Rare stamps", "Old stamps").await;
    edits(&environment, "late", INDEX, "Old stamps", "Very old stamps").await;
    let tip = repository.git(&["rev-parse", DRAFT]);
    let receipt = environment
        .is_rejected(&["--id", "no", "--undo", "early"], "undo_overlaps")
        .await;
    let conflict = &receipt["error"]["conflicts"][0];
    assert_eq!(conflict["path"], INDEX, "{receipt:#}");
    assert_eq!(conflict["ours"]["instructionId"], "late", "{receipt:#}");
    assert_eq!(conflict["ours"]["name"], "Amelia", "{receipt:#}");
    assert!(message(&receipt).contains("(late)"), "{receipt:#}");
    let told = environment.is_told_plainly("no").await;
    assert!(
        told.starts_with("A later change is in the way. Amelia changed the home page on ")
            && told.ends_with("You can take back both."),
        "{told}"
    );
    assert_eq!(repository.git(&["rev-parse", DRAFT]), tip);
    // What a person reads is the very command that takes back both.
    let (code, words) = environment.says("/".as_ref(), &["--undo", "early"]).await;
    assert_eq!(code, 1, "{words}");
    assert!(
        words.contains("edit-agent send --undo late --undo early"),
        "{words}"
    );
    let (code, words) = environment
        .says("/".as_ref(), &["--undo", "late", "--undo", "early"])
        .await;
    assert_eq!(code, 0, "{words}");
    environment.page_with("/", "Rare stamps, honestly").await;

    // Details at the head of a text are taken back one by one, however close they stand.
    let set = |set: Value| json!({ "type": "edit", "changes": [{ "op": "frontmatter", "path": NOTE, "set": set }] });
    environment
        .does("minutes", &set(json!({ "minutes": 9 })))
        .await;
    environment
        .does("tags", &set(json!({ "tags": ["grading"] })))
        .await;
    environment.lands(&["--undo", "minutes"]).await;
    let note = repository.show(DRAFT, NOTE);
    assert!(note.contains("minutes: 3\n"), "{note}");
    assert!(note.contains("tags: [grading]\n"), "{note}");

    // A component that a later change uses cannot be taken away from under it.
    environment
        .lands(&[
            "--id",
            "badge",
            "--write",
            "src/components/Badge.astro=<b>since 2004</b>",
        ])
        .await;
    environment
        .lands(&[
            "--id",
            "uses-badge",
            "--replace",
            ABOUT,
            "import Article",
            "import Badge from '../components/Badge.astro';\nimport Article",
            "--replace",
            ABOUT,
            "  <figure>",
            "  <Badge />\n  <figure>",
        ])
        .await;
    environment.page_with("/about/", "since 2004").await;
    let receipt = environment
        .is_rejected(&["--id", "breaks", "--undo", "badge"], "page_broken")
        .await;
    assert_eq!(receipt["verdict"], "breaks", "{receipt:#}");
    assert!(
        message(&receipt).starts_with("The page /about/ does not render with it"),
        "{receipt:#}"
    );
    assert_eq!(
        environment.is_told_plainly("breaks").await,
        "Without that change, the page /about/ would not show any more. The change stays; the site is as it was."
    );
    environment.page_with("/about/", "since 2004").await;
    repository
        .is_shown_in(DRAFT, &environment.work_tree())
        .await;
    environment.lands(&["--undo", "uses-badge"]).await;
    environment.lands(&["--undo", "badge"]).await;
    repository
        .is_shown_in(DRAFT, &environment.work_tree())
        .await;
    environment.stop().await;
}

#[tokio::test]
async fn an_undo_that_is_killed_in_the_middle_happens_once() {
    let repository = Repository::amelia();
    let undo = ["--id", "undone", "--undo", "wrong"];
    let environment = Start::of(&repository.address()).ready().await;
    edits(&environment, "wrong", INDEX, "Rare stamps", "Odd stamps").await;
    environment
        .lands(&["--write", "src/pages/kept.md=# Kept"])
        .await;
    environment.stop().await;

    let dying = Start::of(&repository.address())
        .variable("EDIT_AGENT_CRASH_AT", "after-apply")
        .ready()
        .await;
    dying
        .send_output(&[&["--no-wait"][..], &undo].concat())
        .await;
    dying.ended().await;
    for point in [
        "after-commit",
        "after-push",
        "before-receipt",
        "before-delete",
    ] {
        // The message comes back to each agent, and each dies one step further on.
        let dying = Start::of(&repository.address())
            .variable("EDIT_AGENT_CRASH_AT", point)
            .spawn();
        let (status, log) = dying.ended().await;
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9),
            "it did not die at {point}:\n{log}"
        );
    }
    let last = Start::of(&repository.address()).ready().await;
    let receipt = last.lands(&undo).await;
    assert_eq!(
        receipt["commit"],
        repository.git(&["rev-parse", DRAFT]),
        "{receipt:#}"
    );
    assert_eq!(repository.commits_of(DRAFT, "undone"), 1);
    assert_eq!(repository.subjects(DRAFT).len(), 3);
    last.page_with("/", "Rare stamps, honestly").await;
    last.page_with("/kept", "Kept").await;
    repository.is_shown_in(DRAFT, &last.work_tree()).await;
    is_remembered(&last, "wrong", "undoneBy", "undone").await;
    last.is_rejected(&["--undo", "wrong"], "already_undone")
        .await;
    last.stop().await;
}
