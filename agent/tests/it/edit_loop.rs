//! The main job: an instruction changes a site, and arrives as a commit.

use serde_json::json;

use crate::support::{Repository, Start, instruction};

#[tokio::test]
async fn an_edit_shows_on_the_page_and_arrives_as_a_commit() {
    let repository = Repository::amelia();
    let before = repository.git(&["status", "--porcelain"]);
    let mut environment = Start::of(&repository.address()).ready().await;
    assert_eq!(environment.ready["draftBranch"], "edit/local");

    let receipt = environment
        .lands(&[
            "--id",
            "first",
            "--replace",
            "src/pages/index.astro",
            "Rare stamps",
            "Rare & old stamps",
        ])
        .await;
    environment
        .page_with("/", "Rare & old stamps, honestly")
        .await;
    assert_eq!(receipt["filesChanged"], json!(["src/pages/index.astro"]));
    assert_eq!(environment.event("receipt").await["instructionId"], "first");

    // In the developer's own repository, which is not bare, on a branch of its own; their work tree is untouched.
    assert!(
        repository
            .show("edit/local", "src/pages/index.astro")
            .contains("Rare & old stamps")
    );
    assert!(
        std::fs::read_to_string(repository.path().join("src/pages/index.astro"))
            .expect("there")
            .contains("Rare stamps")
    );
    assert_eq!(repository.git(&["status", "--porcelain"]), before);
    assert_eq!(
        repository.git(&["log", "-1", "--format=%an <%ae> / %cn", "edit/local"]),
        "Amelia <amelia@ameliastamps.com> / Edit Agent"
    );
    assert_eq!(repository.commits_of("edit/local", "first"), 1);
    assert_eq!(
        repository.git(&["diff", "--name-only", "main", "edit/local"]),
        "src/pages/index.astro"
    );
    assert_eq!(
        receipt["commit"],
        repository.git(&["rev-parse", "edit/local"])
    );

    let (stopped, code, _) = environment.stop().await;
    assert_eq!(
        (code, &stopped["unpushed"], &stopped["queued"]),
        (0, &json!(0), &json!(0))
    );
    repository.git(&["fsck", "--strict"]);
}

#[tokio::test]
async fn several_changes_in_one_call_are_one_commit_or_nothing() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address()).ready().await;
    environment
        .lands(&[
            "--write",
            "src/pages/hello.md=# Hello",
            "--replace",
            "src/pages/index.astro",
            "Rare stamps",
            "Old stamps",
            "--move",
            "src/pages/about.astro",
            "src/pages/us.astro",
        ])
        .await;
    assert_eq!(repository.subjects("edit/local").len(), 1);
    environment.page_with("/hello", "Hello").await;
    environment.page_with("/us", "</html>").await;
    assert_eq!(environment.get("/about").await.status, 404);

    let tip = repository.git(&["rev-parse", "edit/local"]);
    let receipt = environment
        .is_rejected(
            &[
                "--write",
                "src/pages/second.md=# Second",
                "--replace",
                "src/pages/index.astro",
                "no such words",
                "x",
            ],
            "find_not_found",
        )
        .await;
    assert_eq!(
        receipt["error"]["details"][0]["path"],
        "$.action.changes[1].find"
    );
    assert_eq!(repository.git(&["rev-parse", "edit/local"]), tip);
    assert!(!environment.work_tree().join("src/pages/second.md").exists());
    assert_eq!(environment.get("/second").await.status, 404);
}

#[tokio::test]
async fn the_same_id_is_carried_out_once_and_another_body_under_it_is_refused() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address()).ready().await;
    let first = ["--id", "once", "--write", "src/pages/once.md=# Once"];
    let one = environment.lands(&first).await;
    let again = environment.lands(&first).await;
    assert_eq!(one["commit"], again["commit"]);
    assert_eq!(repository.commits_of("edit/local", "once"), 1);

    let status = environment.status().await;
    let other = instruction(
        &environment,
        &status,
        "once",
        &json!([{ "op": "delete", "path": "src/pages/once.md" }]),
    );
    let answer = environment.post("/_edit/instructions", &other).await;
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (422, Some("id_reused"))
    );
    assert_eq!(
        environment.get("/_edit/instructions/once").await.json()["commit"],
        one["commit"]
    );
}

#[tokio::test]
async fn a_second_start_reuses_everything_and_a_second_agent_is_refused() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address()).ready().await;
    environment
        .lands(&["--write", "src/pages/kept.md=# Kept"])
        .await;

    let (code, words) = Start::of(&repository.address()).failure().await;
    assert_eq!(code, 15, "{words}");
    assert!(
        words.contains("runs already at http://127.0.0.1:"),
        "{words}"
    );

    let workspace = environment.ready["workspace"].clone();
    environment.stop().await;
    let again = Start::of(&repository.address()).ready().await;
    assert_eq!(again.ready["workspace"], workspace);
    let install = again
        .seen
        .iter()
        .find(|event| event["phase"] == "install" && event["state"] == "done")
        .expect("it was installed");
    assert_eq!(install["detail"], "in place");
    again.page_with("/kept", "Kept").await;
    assert_eq!(
        again.lands(&["--delete", "src/pages/kept.md"]).await["status"],
        "pushed"
    );
}

/// For pages that no socket reaches: they compare it with the time at which they were asked for.
#[tokio::test]
async fn the_status_says_when_pages_last_became_different() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address()).ready().await;
    assert_eq!(environment.get("/").await.status, 200);
    let revision = |status: &serde_json::Value| status["revision"].as_i64().expect("a number");
    let before = environment.status().await;
    let at: contract::Timestamp = before["at"]
        .as_str()
        .expect("a time")
        .parse()
        .expect("a time");
    assert!(revision(&before) <= at.unix_ms(), "{before:#}");
    // To be looked at changes nothing.
    assert_eq!(environment.get("/").await.status, 200);
    assert_eq!(revision(&environment.status().await), revision(&before));

    environment
        .lands(&[
            "--replace",
            "src/pages/index.astro",
            "Rare stamps",
            "Old stamps",
        ])
        .await;
    let after = environment
        .status_when("a newer revision", |status| {
            status["revision"].as_i64() > Some(revision(&before))
        })
        .await;
    // The page that is asked for from now on is not old.
    environment.page_with("/", "Old stamps, honestly").await;
    let later = environment.status().await;
    assert_eq!(revision(&later), revision(&after));
    environment.stop().await;
}
