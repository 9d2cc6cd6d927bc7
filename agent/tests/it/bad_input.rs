//! What a developer or a producer can get wrong, and what they are told.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Repository, Start, agent, instruction, workspace};

#[tokio::test]
async fn every_bad_instruction_is_refused_with_what_is_wrong_and_leaves_nothing() {
    let repository = Repository::amelia();
    std::os::unix::fs::symlink("/etc", repository.path().join("src/outside")).expect("linked");
    std::fs::write(repository.path().join("public/photo.bin"), [0xff, 0xfe, 0]).expect("written");
    repository.write(
        "public/lfs.bin",
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    );
    repository.write("src/twice.txt", "twice twice\n");
    repository.commit_all("Traps");
    let environment = Start::of(&repository.address()).ready().await;
    let status = environment.status().await;
    let before = (
        repository.git(&["rev-parse", "main"]),
        listing(&environment.work_tree()),
    );

    // Refused at the door: nothing was queued, and all that is wrong is said at once.
    let edit = |id: &str, change: Value| instruction(&environment, &status, id, &json!([change]));
    let mut wrong_version = edit("v", json!({ "op": "delete", "path": "a" }));
    wrong_version["version"] = json!(2);
    let mut unknown_action = edit("a", json!({ "op": "delete", "path": "a" }));
    unknown_action["action"] = json!({ "type": "dance" });
    let mut two_errors = edit("two", json!({ "op": "delete", "path": "../a" }));
    two_errors["submittedAt"] = json!("yesterday");
    for (message, code, paths) in [
        (wrong_version, "unsupported_version", &["$.version"][..]),
        (unknown_action, "unsupported_action", &["$.action.type"]),
        (
            two_errors,
            "invalid_message",
            &["$.submittedAt", "$.action.changes[0].path"],
        ),
        (
            edit("op", json!({ "op": "paint", "path": "a" })),
            "invalid_message",
            &["$.action.changes[0].op"],
        ),
        (
            edit("esc", json!({ "op": "delete", "path": "../../etc/passwd" })),
            "invalid_message",
            &["$.action.changes[0].path"],
        ),
        (
            edit(
                "git",
                json!({ "op": "write", "path": ".git/config", "content": "" }),
            ),
            "invalid_message",
            &["$.action.changes[0].path"],
        ),
    ] {
        let answer = environment.post("/_edit/instructions", &message).await;
        let body = answer.json();
        let mut found: Vec<&str> = body["errors"]
            .as_array()
            .expect("errors")
            .iter()
            .map(|error| error["path"].as_str().expect("a path"))
            .collect();
        let mut expected = paths.to_vec();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(
            (answer.status, body["code"].as_str(), found),
            (422, Some(code), expected),
            "{body:#}"
        );
    }
    let not_json = environment
        .request(
            "POST",
            "/_edit/instructions",
            &[],
            Some("{ not json".to_owned()),
        )
        .await;
    assert_eq!(
        (
            not_json.status,
            not_json.json()["errors"][0]["path"].as_str()
        ),
        (422, Some("$"))
    );
    let large = edit(
        "large",
        json!({ "op": "write", "path": "a.txt", "content": "x".repeat(300_000) }),
    );
    let answer = environment.post("/_edit/instructions", &large).await;
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (422, Some("message_too_large"))
    );
    let huge = environment
        .request(
            "POST",
            "/_edit/instructions",
            &[],
            Some(format!("\"{}\"", "x".repeat(10 * 1024 * 1024))),
        )
        .await;
    assert_eq!(huge.status, 413);

    // Accepted, and then rejected with a receipt.
    let patch = "diff --git a/src/twice.txt b/src/twice.txt\n--- a/src/twice.txt\n+++ b/src/twice.txt\n@@ -1 +1 @@\n-something else\n+x\n";
    let broken = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(broken.path(), patch).expect("written");
    let broken = broken.path().display().to_string();
    for (arguments, code) in [
        (&["--write", "src/outside/x=hello"][..], "path_not_allowed"),
        (&["--write", "src/outside=hello"], "path_not_allowed"),
        (&["--write", "src/pages=hello"], "path_not_allowed"),
        (&["--delete", "src/pages/nowhere.astro"], "file_not_found"),
        (
            &["--replace", "src/twice.txt", "thrice", "x"],
            "find_not_found",
        ),
        (&["--replace", "src/twice.txt", "twice", "x"], "find_count"),
        (&["--replace", "public/photo.bin", "a", "b"], "not_text"),
        (&["--write", "public/lfs.bin=x"], "unsupported_file"),
        (
            &["--move", "src/twice.txt", "src/pages/index.astro"],
            "file_exists",
        ),
        (&["--patch", &broken], "patch_failed"),
        (&["--write", "src/twice.txt=twice twice\n"], "empty_change"),
        (
            &["--write", "astro.config.mjs=export default {}"],
            "policy_denied",
        ),
        (&["--write", "package.json={}"], "policy_denied"),
    ] {
        let receipt = environment.is_rejected(arguments, code).await;
        assert!(
            receipt["error"]["message"]
                .as_str()
                .is_some_and(|words| words.len() > 10)
                && receipt["error"]["hint"] != "",
            "{receipt:#}"
        );
    }
    let stale = edit(
        "stale",
        json!({ "op": "write", "path": "src/twice.txt", "content": "new\n", "base": "0000000000000000000000000000000000000000" }),
    );
    assert_eq!(
        environment.post("/_edit/instructions", &stale).await.status,
        202
    );
    let (code, receipt) = environment
        .send(&["--id", "after-stale", "--write", "src/ok.txt=ok"])
        .await;
    assert_eq!(code, 0, "{receipt:#}");
    assert_eq!(
        environment.get("/_edit/instructions/stale").await.json()["error"]["code"],
        "stale"
    );

    // Nothing of all that is anywhere, but the one that was right.
    assert_eq!(repository.subjects("edit/local").len(), 1);
    std::fs::remove_file(environment.work_tree().join("src/ok.txt")).expect("there");
    assert_eq!(
        (
            repository.git(&["rev-parse", "main"]),
            listing(&environment.work_tree())
        ),
        before
    );
    assert_eq!(environment.get("/_edit/health").await.status, 200);
}

#[tokio::test]
async fn every_example_is_answered_as_it_says() {
    // The examples are for the client of a folder of this name.
    let folder = tempfile::tempdir().expect("a folder");
    let site = folder.path().join("amelia-astro");
    std::fs::create_dir(&site).expect("made");
    crate::support::copy_tree(&crate::support::fixture(), &site);
    let state = tempfile::tempdir().expect("a state folder");
    std::os::unix::fs::symlink(
        crate::support::state().join("store"),
        state.path().join("store"),
    )
    .expect("linked");
    let environment = Start::of(&site.display().to_string())
        .variable("EDIT_AGENT_STATE", &state.path().display().to_string())
        .ready()
        .await;
    let status = environment.status().await;
    assert_eq!(status["clientId"], "amelia-astro");

    let examples = workspace().join("fixtures/instructions");
    let mut accepted = Vec::new();
    for (name, mut message) in read_all(&examples.join("valid")) {
        message["sessionId"] = status["sessionId"].clone();
        message["threadId"] = json!("local");
        let answer = environment.post("/_edit/instructions", &message).await;
        assert_eq!(answer.status, 202, "{name}: {}", answer.text());
        accepted.push((
            name,
            message["instructionId"].as_str().expect("an id").to_owned(),
        ));
    }
    for (name, example) in read_all(&examples.join("refused")) {
        if !example["spacesAppended"].is_null() {
            continue; // Too large only by white space, which the door does not count.
        }
        let body = match example["raw"].as_str() {
            Some(raw) => raw.to_owned(),
            // The door takes an array for a call of several; a queue would take it for one message.
            None if example["message"].is_array() => format!("[{}]", example["message"]),
            None => example["message"].to_string(),
        };
        let answer = environment
            .request("POST", "/_edit/instructions", &[], Some(body))
            .await;
        assert!(
            (400..500).contains(&answer.status),
            "{name}: {}",
            answer.text()
        );
    }
    // The last one is behind all others, so all have their receipts when it has.
    environment.send(&["--write", "src/last.txt=last"]).await;
    let mut landed = 0;
    for (name, id) in accepted {
        // A cancel overtakes, and so may its receipt be overtaken.
        let receipt = environment.final_receipt(&id).await;
        let status = receipt["status"].as_str().unwrap_or_default();
        landed += usize::from(status == "pushed");
        assert!(
            ["pushed", "published", "rejected", "cancelled"].contains(&status),
            "{name}: {receipt:#}"
        );
    }
    assert!(landed >= 5, "only {landed} examples land");
    assert_eq!(environment.get("/_edit/health").await.status, 200);
    environment.stop().await;
}

#[tokio::test]
async fn every_bad_start_ends_with_its_code_and_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let make = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).expect("made");
        path
    };
    let (plain, file) = (make("plain"), folder.path().join("file"));
    std::fs::write(&file, "x").expect("written");
    let empty = Repository::empty();
    let other = Repository::empty();
    other.write("README.md", "no site");
    other.commit_all("No site");
    let amelia = Repository::amelia();
    let old_node = folder.path().join("old-node");
    std::fs::write(&old_node, "#!/bin/sh\necho v16.20.2\n").expect("written");
    std::fs::set_permissions(
        &old_node,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .expect("executable");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let text = |path: &Path| path.display().to_string();
    let below_file = text(&file.join("below"));
    for (repository, arguments, code, words) in [
        (
            text(&folder.path().join("missing")),
            &[][..],
            10,
            "could not open",
        ),
        (text(&file), &[], 10, "is a file"),
        (text(&plain), &[], 10, "no Astro site"),
        (empty.address(), &[], 10, "has no commit yet"),
        (other.address(), &[], 10, "no Astro site"),
        (amelia.address(), &["--branch", "mian"], 10, "it has main"),
        (
            "http://127.0.0.1:9/x.git".to_owned(),
            &[],
            11,
            "could not connect",
        ),
        (
            "https://anna:secret@example.com/x.git".to_owned(),
            &[],
            2,
            "has a password in it",
        ),
        (
            amelia.address(),
            &["--node", &text(&folder.path().join("no-node"))],
            12,
            "Node.js was not found",
        ),
        (
            amelia.address(),
            &["--node", &text(&old_node)],
            12,
            "needs Node",
        ),
        (amelia.address(), &["--port", &port], 13, "could not listen"),
        (
            amelia.address(),
            &["--workspace", &below_file],
            14,
            "could not make",
        ),
        (
            amelia.address(),
            &["--state", &below_file],
            14,
            "could not make",
        ),
        (amelia.address(), &["--thread", ""], 2, "is no thread"),
    ] {
        let (found, said) = if arguments.contains(&"--port") {
            Start::of_any_port(&repository)
        } else {
            Start::of(&repository)
        }
        .with(arguments)
        .failure()
        .await;
        assert_eq!(found, code, "{repository} {arguments:?}: {said}");
        assert!(
            said.starts_with("error: ")
                && said.contains(words)
                && said.contains("hint: ")
                && !said.contains("secret"),
            "{repository} {arguments:?}: {said}"
        );
    }
    let output = agent()
        .args(["send", "--write", "a=b", "--state", &text(&plain)])
        .output()
        .await
        .expect("it ran");
    assert_eq!(
        output.status.code(),
        Some(17),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        amelia.git(&["branch", "--list", "edit/*"]),
        "",
        "nothing was left in the repository"
    );
}

fn read_all(folder: &Path) -> Vec<(String, Value)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("examples")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
        .iter()
        .map(|path| {
            (
                path.display().to_string(),
                serde_json::from_slice(&std::fs::read(path).expect("readable")).expect("JSON"),
            )
        })
        .collect()
}

/// The files of the site with their content, without what is installed or generated.
fn listing(tree: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![tree.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let entry = entry.expect("an entry");
            let name = entry.file_name();
            if entry.file_type().expect("a kind").is_dir() {
                if !["node_modules", ".astro"]
                    .iter()
                    .any(|skipped| name == *skipped)
                {
                    folders.push(entry.path());
                }
            } else if entry.file_type().expect("a kind").is_file() {
                files.push((entry.path(), std::fs::read(entry.path()).expect("readable")));
            }
        }
    }
    files.sort();
    files
}

#[tokio::test]
async fn what_was_done_by_hand_in_the_workspace_is_neither_overwritten_nor_committed() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address()).ready().await;
    let tree = environment.work_tree();
    let by_hand = |path: &str, content: &str| {
        std::fs::create_dir_all(tree.join(path).parent().expect("below")).expect("made");
        std::fs::write(tree.join(path), content).expect("written");
    };
    let content = |path: &str| std::fs::read_to_string(tree.join(path)).expect("there");

    // A file that was changed, one that was made, one that was removed, and a folder where a file is to be.
    by_hand("src/lib/format.ts", "// by hand\n");
    by_hand("src/notes.txt", "by hand\n");
    by_hand("public/plan/by-hand.txt", "by hand\n");
    std::fs::remove_file(tree.join("src/pages/contact.astro")).expect("there");
    for change in [
        &["--write", "src/lib/format.ts=// instructed"][..],
        &["--write", "src/notes.txt=instructed"],
        &["--write", "public/plan=instructed"],
        &["--write", "src/pages/contact.astro=instructed"],
    ] {
        let beside = ["--write", "src/pages/beside.md=# Beside"];
        let arguments = [change, &beside].concat();
        let receipt = environment
            .is_rejected(&arguments, "uncommitted_changes")
            .await;
        let message = receipt["error"]["message"].as_str().expect("words");
        assert!(message.contains("in the workspace that nobody instructed"));
    }
    assert!(!tree.join("src/pages/beside.md").exists());
    environment
        .lands(&["--write", "src/pages/other.md=# Other"])
        .await;
    assert_eq!(content("src/lib/format.ts"), "// by hand\n");
    assert_eq!(content("src/notes.txt"), "by hand\n");
    assert_eq!(content("public/plan/by-hand.txt"), "by hand\n");
    let changed = repository.git(&["diff", "--name-only", "main", "edit/local"]);
    assert_eq!(changed, "src/pages/other.md");

    // A folder that became a symlink leads nowhere.
    let outside = tempfile::tempdir().expect("a folder");
    std::fs::rename(tree.join("src/styles"), outside.path().join("styles")).expect("moved");
    std::os::unix::fs::symlink(outside.path().join("styles"), tree.join("src/styles"))
        .expect("linked");
    for change in [
        ["--write", "src/styles/new.css=x"],
        ["--write", "src/styles/global.css=x"],
        ["--delete", "src/styles/global.css"],
    ] {
        environment.is_rejected(&change, "path_not_allowed").await;
    }
    let left = std::fs::read_dir(outside.path().join("styles")).expect("there");
    assert_eq!(left.count(), 1);
    environment.page_with("/other", "Other").await;
    assert_eq!(environment.get("/_edit/health").await.status, 200);
}

#[tokio::test]
async fn a_machine_without_node_and_a_read_only_workspace_say_so() {
    let repository = Repository::amelia();
    let nothing = tempfile::tempdir().expect("a folder");
    let place = nothing.path().display().to_string();
    let start = Start::of(&repository.address()).variable("PATH", &place);
    let (code, words) = start.failure().await;
    assert_eq!(code, 12, "{words}");
    assert!(words.contains("Node.js was not found in PATH"), "{words}");
    assert!(words.contains("hint: Install Node.js"), "{words}");

    let start = Start::of_on_a_disk_of(&repository.address(), "1m,ro", nothing.path());
    let (code, words) = start.failure().await;
    assert_eq!(code, 14, "{words}");
    assert!(words.contains(&place), "{words}");
    assert!(words.contains("Read-only file system"), "{words}");
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_by_the_program_that_sends_it_in_words() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address()).ready().await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    for megabytes in [1, 7, 10, 20] {
        std::fs::write(file.path(), vec![b'x'; megabytes << 20]).expect("written");
        let change = format!("public/large.txt=@{}", file.path().display());
        let output = environment.send_output(&["--write", &change]).await;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{megabytes} MiB: {words}");
        assert!(
            words.contains("error: ") && words.contains("at most") && words.contains("hint: "),
            "{megabytes} MiB: {words}"
        );
    }
    assert_eq!(environment.get("/_edit/health").await.status, 200);
}
