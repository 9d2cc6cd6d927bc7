//! Publish: a decision of its own, made once, and only of what renders.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::git_servers::HttpServer;
use crate::support::{Environment, Repository, Start};

const DRAFT: &str = "edit/local";
const INDEX: &str = "src/pages/index.astro";

fn message(receipt: &Value) -> &str {
    receipt["error"]["message"].as_str().expect("words")
}

/// A developer pushes a page to a branch.
fn somebody_pushes(bare: &Repository, branch: &str, path: &str, content: &str) -> String {
    let other = bare.clone_at(branch);
    other.write(path, content);
    other.commit_all(&format!("Dora's {path}"));
    other.git(&["push", "--quiet", &bare.address(), branch]);
    bare.git(&["rev-parse", branch])
}

struct Story {
    bare: Repository,
    environment: Environment,
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_brings_the_draft_to_the_published_branch_and_refuses_what_cannot_be() {
    let bare = Repository::amelia().bare_copy();
    let server = HttpServer::open_to_all(&bare).await;
    let environment = Start::of(&server.url(&bare)).ready().await;
    let story = Story { bare, environment };

    story.nothing_is_there_to_publish().await;
    story.a_part_is_published_and_then_the_rest().await;
    story.the_same_publish_comes_again().await;
    story.work_by_hand_is_in_the_way().await;
    story.a_protected_branch_says_why().await;
    story.what_every_page_may_use_is_looked_at().await;
    story
        .what_others_published_meanwhile_is_published_with()
        .await;
    story.what_breaks_only_together_is_not_published().await;
    story.what_does_not_go_together_is_named().await;
    story.a_branch_that_vanished_is_missed().await;
    story.bare.was_never_forced("main");
    story.bare.git(&["fsck", "--strict"]);
    story.environment.stop().await;
}

impl Story {
    fn main(&self) -> String {
        self.bare.git(&["rev-parse", "main"])
    }

    async fn edits(&self, id: &str) {
        self.environment
            .lands(&["--id", id, "--write", &page(id)])
            .await;
    }

    async fn nothing_is_there_to_publish(&self) {
        self.environment
            .is_rejected(&["--id", "empty", "--publish"], "empty_change")
            .await;
        assert_eq!(
            self.environment.is_told_plainly("empty").await,
            "There is nothing to publish: everything is published already."
        );
    }

    async fn a_part_is_published_and_then_the_rest(&self) {
        let before = self.main();
        self.edits("first").await;
        self.edits("second").await;
        self.environment
            .is_rejected(&["--publish", "--up-to", "never"], "unknown_instruction")
            .await;
        let first = self.bare.git(&["rev-parse", &format!("{DRAFT}~1")]);
        let receipt = self
            .environment
            .publishes(&["--id", "part", "--up-to", "first"])
            .await;
        assert_eq!(receipt["commit"], self.main(), "{receipt:#}");
        assert_eq!(
            self.bare.git(&["log", "-1", "--format=%P", "main"]),
            format!("{before} {first}")
        );
        assert_eq!(receipt["filesChanged"], json!(["src/pages/first.md"]));
        assert_eq!(
            receipt["pages"],
            json!([{ "path": "/first/", "status": 200 }]),
            "it was looked at"
        );
        let trailers = self
            .bare
            .git(&["log", "-1", "--format=%(trailers)", "main"]);
        for trailer in [
            "Edit-Instruction: part",
            "Edit-Session: ",
            "Edit-Action: publish",
        ] {
            assert!(trailers.contains(trailer), "{trailers}");
        }
        assert_eq!(
            self.bare.git(&["log", "-1", "--format=%an / %cn", "main"]),
            "Amelia / Edit Agent"
        );
        let published = self.bare.git(&["ls-tree", "-r", "--name-only", "main"]);
        assert!(published.contains("src/pages/first.md"), "{published}");
        assert!(!published.contains("src/pages/second.md"), "{published}");

        // What others see published here is ours: nothing has to be brought in, and nothing of it is left to publish.
        let history = self
            .environment
            .history_when("one left", |history| history["unpublished"] == 1)
            .await;
        let state: Vec<_> = history["entries"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|entry| (entry["instructionId"].clone(), entry["published"].clone()))
            .filter(|(id, _)| id != "part")
            .collect();
        assert_eq!(
            state,
            [
                (json!("second"), json!(false)),
                (json!("first"), json!(true))
            ]
        );
        let receipt = self.environment.publishes(&["--id", "rest"]).await;
        assert_eq!(receipt["summary"], "Publish “Add src/pages/second.md”");
        assert_eq!(
            self.environment.is_told_plainly("rest").await,
            "The changes are published: everybody can see them."
        );
        // The draft goes on from what is published.
        assert_eq!(self.bare.git(&["rev-parse", DRAFT]), self.main());
        let history = self
            .environment
            .history_when("all published", |history| history["unpublished"] == 0)
            .await;
        assert_eq!(history["behind"], 0, "{history:#}");
        self.environment
            .is_rejected(&["--publish"], "empty_change")
            .await;
    }

    async fn the_same_publish_comes_again(&self) {
        let before = self.main();
        let receipt = self.environment.publishes(&["--id", "rest"]).await;
        assert_eq!(receipt["commit"], before);
        assert_eq!(self.main(), before);
        // What is published stays undoable; only the publish itself is not.
        self.environment
            .is_rejected(&["--undo", "rest"], "nothing_to_undo")
            .await;
    }

    async fn work_by_hand_is_in_the_way(&self) {
        let before = self.main();
        self.edits("third").await;
        let path = self.environment.work_tree().join("src/pages/hand.md");
        fs::write(&path, "# Hand\n").expect("written");
        let receipt = self
            .environment
            .is_rejected(&["--id", "blocked", "--publish"], "uncommitted_changes")
            .await;
        assert!(
            message(&receipt).contains("src/pages/hand.md"),
            "{receipt:#}"
        );
        assert_eq!(
            self.environment.is_told_plainly("blocked").await,
            "Somebody is working on the site by hand. It can be published once that work is saved."
        );
        fs::remove_file(&path).expect("removed");
        assert_eq!(self.main(), before);
        self.environment.publishes(&[]).await;
    }

    async fn a_protected_branch_says_why(&self) {
        let words = "The shop window is changed on Mondays only.";
        let hook = self.bare.path().join("hooks/update");
        fs::create_dir_all(hook.parent().expect("hooks")).expect("made");
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = refs/heads/main ] || exit 0\necho '{words}' >&2\nexit 1\n"
        );
        fs::write(&hook, script).expect("written");
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("set");
        let before = self.main();
        self.edits("fourth").await;
        let receipt = self
            .environment
            .is_rejected(&["--id", "protected", "--publish"], "push_rejected")
            .await;
        assert!(message(&receipt).contains(words), "{receipt:#}");
        assert_eq!(receipt["commit"], Value::Null, "{receipt:#}");
        assert_eq!(
            self.environment.is_told_plainly("protected").await,
            "Publishing is not allowed from here. Please ask a developer."
        );
        assert_eq!(self.main(), before);
        fs::remove_file(&hook).expect("removed");
        self.environment.publishes(&[]).await;
        assert_eq!(self.bare.commits_of("main", "protected"), 0);
    }

    /// Whatever any page may use is looked at where people look, also when nothing is written for it.
    async fn what_every_page_may_use_is_looked_at(&self) {
        let note = "src/content/journal/how-i-grade.md";
        self.environment
            .lands(&[
                "--replace",
                note,
                "Dealers have dozens",
                "Dealers have many",
            ])
            .await;
        let receipt = self.environment.publishes(&[]).await;
        let pages: Vec<_> = receipt["pages"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|page| (page["path"].as_str(), page["status"].as_u64()))
            .collect();
        for page in ["/", "/journal/how-i-grade/"] {
            assert!(pages.contains(&(Some(page), Some(200))), "{receipt:#}");
        }
    }

    async fn what_others_published_meanwhile_is_published_with(&self) {
        self.edits("fifth").await;
        let theirs = somebody_pushes(&self.bare, "main", "src/pages/dora.md", "# From Dora\n");
        self.environment.publishes(&["--id", "together"]).await;
        self.bare
            .git(&["merge-base", "--is-ancestor", &theirs, "main"]);
        for page in ["src/pages/dora.md", "src/pages/fifth.md"] {
            self.bare.show("main", page);
        }
        self.environment.page_with("/dora", "From Dora").await;
        self.environment.page_with("/fifth", "fifth").await;
        self.bare
            .is_shown_in("main", &self.environment.work_tree())
            .await;
    }

    /// Theirs renders, ours renders, and the two together do not.
    async fn what_breaks_only_together_is_not_published(&self) {
        let badge = "src/components/Badge.astro";
        let theirs = somebody_pushes(&self.bare, "main", badge, "<b>since 2004</b>\n");
        self.bare
            .is_shown_in("main", &self.environment.work_tree())
            .await;
        self.environment
            .lands(&[
                "--id",
                "uses-badge",
                "--write",
                "src/pages/badge.astro=---\nimport Badge from '../components/Badge.astro';\n---\n<html><body><Badge /></body></html>",
            ])
            .await;
        self.bare
            .git(&["merge-base", "--is-ancestor", &theirs, DRAFT]);
        let other = self.bare.clone_at("main");
        other.git(&["rm", "--quiet", badge]);
        other.commit_all("No badge");
        other.git(&["push", "--quiet", &self.bare.address(), "main"]);
        let before = self.main();
        let receipt = self
            .environment
            .is_rejected(&["--id", "breaks", "--publish"], "page_broken")
            .await;
        assert!(
            message(&receipt).starts_with(
                "The page /badge/ does not render with it, so nothing was published: "
            ),
            "{receipt:#}"
        );
        assert_eq!(self.main(), before);
        self.environment.page_with("/badge/", "since 2004").await;
        self.environment.lands(&["--undo", "uses-badge"]).await;
        self.environment.lands(&["--sync"]).await;
    }

    async fn what_does_not_go_together_is_named(&self) {
        let edit = ["--replace", INDEX, "Rare stamps", "Fine stamps"];
        self.environment.lands(&edit).await;
        let page = self.bare.show("main", INDEX) + "\n";
        let theirs = page.replace("Rare stamps", "Odd stamps");
        somebody_pushes(&self.bare, "main", INDEX, &theirs);
        let receipt = self
            .environment
            .is_rejected(&["--id", "collides", "--publish"], "conflict")
            .await;
        let conflict = &receipt["error"]["conflicts"][0];
        assert_eq!(conflict["path"], INDEX, "{receipt:#}");
        assert_eq!(conflict["ours"]["name"], "Amelia", "{receipt:#}");
        assert_eq!(conflict["theirs"]["name"], "Dora Developer", "{receipt:#}");
        let told = self.environment.is_told_plainly("collides").await;
        assert!(
            told.starts_with("Dora Developer changed the home page on "),
            "{told}"
        );
        // Whoever takes their own change back can bring in the other's, and publish.
        self.environment.lands(&["--undo", "last"]).await;
        self.environment
            .page_with("/", "Rare stamps, honestly")
            .await;
    }

    async fn a_branch_that_vanished_is_missed(&self) {
        self.edits("sixth").await;
        let tip = self.main();
        self.bare.git(&["symbolic-ref", "HEAD", "refs/heads/other"]);
        self.bare.git(&["branch", "--quiet", "-D", "main"]);
        let receipt = self
            .environment
            .is_rejected(&["--id", "gone", "--publish"], "branch_missing")
            .await;
        assert!(message(&receipt).contains("main"), "{receipt:#}");
        assert_eq!(self.bare.git(&["branch", "--list", "main"]), "");
        assert_eq!(
            self.environment.is_told_plainly("gone").await,
            "The published site could not be found. Please ask a developer."
        );
        // An edit needs it no more than before.
        self.edits("seventh").await;
        self.bare.git(&["branch", "main", &tip]);
        let receipt = self.environment.publishes(&["--id", "back"]).await;
        assert_eq!(receipt["commit"], self.main());
    }
}

fn page(id: &str) -> String {
    format!("src/pages/{id}.md=# The page {id}")
}

#[tokio::test]
async fn a_publish_that_is_killed_after_it_arrived_happens_once() {
    let bare = Repository::amelia().bare_copy();
    let publish = ["--id", "survivor", "--publish"];
    let dying = Start::of(&bare.address())
        .variable("EDIT_AGENT_CRASH_AT", "after-publish")
        .ready()
        .await;
    dying
        .lands(&["--replace", INDEX, "Rare stamps", "Sturdy stamps"])
        .await;
    dying
        .send_output(&[&["--no-wait"][..], &publish].concat())
        .await;
    dying.ended().await;
    let published = bare.git(&["rev-parse", "main"]);
    assert_eq!(bare.commits_of("main", "survivor"), 1);
    // Its draft was not brought along any more. It dies again before it has its receipt.
    assert_ne!(bare.git(&["rev-parse", DRAFT]), published);
    let dying = Start::of(&bare.address())
        .variable("EDIT_AGENT_CRASH_AT", "before-receipt")
        .spawn();
    dying.ended().await;

    let last = Start::of(&bare.address()).ready().await;
    let receipt = last.publishes(&["--id", "survivor"]).await;
    assert_eq!(receipt["commit"], published, "{receipt:#}");
    assert_eq!(bare.git(&["rev-parse", "main"]), published);
    assert_eq!(bare.commits_of("main", "survivor"), 1);
    last.is_rejected(&["--publish"], "empty_change").await;
    let history = last.history().await;
    assert_eq!(history["unpublished"], 0, "{history:#}");
    assert_eq!(history["behind"], 0, "{history:#}");
    last.page_with("/", "Sturdy stamps").await;
    // And what comes after goes on from there.
    last.lands(&["--write", "src/pages/after.md=# After"]).await;
    last.publishes(&[]).await;
    bare.was_never_forced("main");
    last.stop().await;
}

#[tokio::test]
async fn the_branch_that_a_developer_looks_at_is_not_published_over() {
    let site = Repository::amelia();
    let environment = Start::of(&site.address()).ready().await;
    environment
        .lands(&["--replace", INDEX, "Rare stamps", "Fine stamps"])
        .await;
    let head = site.git(&["rev-parse", "main"]);
    let receipt = environment
        .is_rejected(&["--id", "looked-at", "--publish"], "push_rejected")
        .await;
    assert!(
        message(&receipt).contains("main is checked out in")
            && message(&receipt).contains(&site.address()),
        "{receipt:#}"
    );
    let hint = receipt["error"]["hint"].as_str().expect("words");
    assert!(
        hint.contains("git switch") && !hint.contains("--thread"),
        "{hint}"
    );
    assert_eq!(receipt["attempts"], 1, "nobody waits for it: {receipt:#}");
    assert_eq!(site.git(&["rev-parse", "main"]), head);
    assert_eq!(site.git(&["status", "--porcelain"]), "");

    // As the hint says.
    site.git(&["switch", "--quiet", "--detach"]);
    environment.publishes(&[]).await;
    site.git(&["switch", "--quiet", "main"]);
    assert!(
        fs::read_to_string(site.path().join(INDEX))
            .expect("there")
            .contains("Fine stamps")
    );
    environment.stop().await;
}

#[tokio::test]
async fn what_renders_but_does_not_build_is_not_published() {
    let bare = Repository::amelia().bare_copy();
    let environment = Start::of(&bare.address())
        .with(&["--publish-check", "build"])
        .ready()
        .await;
    let before = bare.git(&["rev-parse", "main"]);
    // It is well as long as nobody builds it.
    environment
        .lands(&[
            "--id",
            "trap",
            "--write",
            "src/pages/trap.astro=---\nif (import.meta.env.PROD) throw new Error('No shelf for it');\n---\n<html><body>Well</body></html>",
        ])
        .await;
    environment.page_with("/trap/", "Well").await;
    let receipt = environment
        .is_rejected(&["--id", "unbuilt", "--publish"], "build_failed")
        .await;
    assert!(message(&receipt).contains("No shelf for it"), "{receipt:#}");
    assert_eq!(bare.git(&["rev-parse", "main"]), before);
    assert_eq!(
        environment.is_told_plainly("unbuilt").await,
        "The site could not be put together for publishing. The published site is as it was."
    );
    environment.lands(&["--undo", "trap"]).await;
    environment
        .lands(&["--replace", INDEX, "Rare stamps", "Fine stamps"])
        .await;
    environment.publishes(&[]).await;
    assert!(bare.show("main", INDEX).contains("Fine stamps"));
    // Nothing is left of what was built.
    assert!(!environment.work_tree().join("dist").exists());
    assert!(!environment.workspace().join("staging/build").exists());
    environment.stop().await;
}

/// Memory that runs out, for instance, ends a build and says nothing of the site.
#[tokio::test]
async fn a_build_that_something_else_ended_is_made_again() {
    let bare = Repository::amelia().bare_copy();
    let environment = Start::of(&bare.address())
        .with(&["--publish-check", "build"])
        .ready()
        .await;
    let folder = tempfile::tempdir().expect("a folder");
    let once = folder.path().join("once").display().to_string();
    let page = format!(
        "---\nimport fs from 'node:fs';\nimport {{ execSync }} from 'node:child_process';\nif (import.meta.env.PROD) execSync('echo a tool writes here too', {{ stdio: 'inherit' }});\nif (import.meta.env.PROD && !fs.existsSync('{once}')) {{ fs.writeFileSync('{once}', ''); process.kill(process.pid, 'SIGKILL'); }}\n---\n<html><body>Well</body></html>"
    );
    let write = format!("src/pages/fragile.astro={page}");
    environment
        .lands(&["--id", "fragile", "--write", &write])
        .await;
    environment.publishes(&[]).await;
    assert!(fs::exists(&once).expect("asked"), "it was built twice");
    // What it does to itself is the site's, and somebody that it leaves behind is not waited for.
    let page = "---\nimport { spawn } from 'node:child_process';\nif (import.meta.env.PROD) { spawn('sleep', ['30'], { detached: true, stdio: 'inherit' }); process.abort(); }\n---\n<html><body>Well</body></html>";
    let write = format!("src/pages/aborts.astro={page}");
    environment
        .lands(&["--id", "aborts", "--write", &write])
        .await;
    environment
        .is_rejected(&["--id", "aborted", "--publish"], "build_failed")
        .await;
    assert!(
        bare.show("main", "src/pages/fragile.astro")
            .contains("Well")
    );
    environment.stop().await;
}
