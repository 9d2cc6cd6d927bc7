//! By hand: what nobody instructed is shown, said, and never taken along or written over.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Environment, Repository, Start};

const DRAFT: &str = "edit/local";
const ABOUT: &str = "src/pages/about.astro";
const INDEX: &str = "src/pages/index.astro";
const HAND: &str = "src/pages/hand.md";

struct Story {
    bare: Repository,
    environment: Environment,
}

#[tokio::test]
async fn work_by_hand_is_shown_and_kept_and_nothing_but_its_owner_commits_it() {
    let bare = Repository::amelia().bare_copy();
    let environment = Start::of(&bare.address()).ready().await;
    environment
        .lands(&["--replace", INDEX, "Rare stamps", "Old stamps"])
        .await;
    let story = Story { bare, environment };

    story.what_is_ignored_or_as_it_was_is_no_work().await;
    story.it_shows_and_is_said().await;
    story.it_is_not_taken_along_and_not_written_over().await;
    let story = story.it_survives_a_restart().await;
    story.it_survives_what_others_push_to_the_same_file().await;
    story.it_becomes_a_commit_of_whoever_says_so().await;
    // What is not committed in the end is named: it is nowhere else.
    fs::write(story.path("src/pages/last.md"), "# Last\n").expect("written");
    let status = story
        .environment
        .status_when("uncommitted", |status| {
            status["uncommitted"] == json!(["src/pages/last.md"])
        })
        .await;
    assert_eq!(
        status["awakeBecause"],
        "files are changed by hand and not committed"
    );
    let (stopped, _, _) = story.environment.stop().await;
    assert_eq!(stopped["uncommitted"], json!(["src/pages/last.md"]));
}

impl Story {
    fn path(&self, path: &str) -> std::path::PathBuf {
        self.environment.work_tree().join(path)
    }

    fn write(&self, path: &str, find: &str, new: &str) {
        let path = self.path(path);
        let text = fs::read_to_string(&path).expect("there");
        assert!(text.contains(find), "{text}");
        fs::write(path, text.replace(find, new)).expect("written");
    }

    /// Both the status and the history name exactly these files.
    async fn is_uncommitted(&self, files: &[&str]) {
        let expected = json!(files);
        let status = self
            .environment
            .status_when("uncommitted", |status| status["uncommitted"] == expected)
            .await;
        assert_eq!(status["draft"]["unpushed"], 0, "{status:#}");
        let history = self.environment.history().await;
        assert_eq!(history["uncommitted"], expected, "{history:#}");
        assert_eq!(
            history["publishBlocked"].is_string(),
            !files.is_empty(),
            "{history:#}"
        );
    }

    async fn what_is_ignored_or_as_it_was_is_no_work(&self) {
        fs::create_dir_all(self.path("dist")).expect("made");
        fs::write(self.path("dist/index.html"), "built").expect("written");
        fs::write(self.path(".DS_Store"), "noise").ok();
        let text = fs::read(self.path(ABOUT)).expect("there");
        fs::write(self.path(ABOUT), &text).expect("written");
        // What comes after them is seen, and they are not.
        fs::write(self.path(HAND), "# Made by hand\n").expect("written");
        let history = self
            .environment
            .history_when("seen", |history| history["uncommitted"] != json!([]))
            .await;
        let uncommitted = history["uncommitted"].as_array().expect("a list");
        assert!(
            !uncommitted.contains(&json!("dist/index.html"))
                && !uncommitted.contains(&json!(ABOUT)),
            "{history:#}"
        );
        fs::remove_file(self.path(".DS_Store")).expect("removed");
        self.is_uncommitted(&[HAND]).await;
    }

    async fn it_shows_and_is_said(&self) {
        let mut browser = self.environment.hot_reload(&[]).await.expect("a socket");
        self.environment.page_with("/about/", "one window").await;
        let mut events = self.environment.events(None).await;
        self.write(ABOUT, "About Amelia", "All about Amelia");
        browser.message("full-reload").await;
        self.environment
            .page_with("/about/", "All about Amelia")
            .await;
        self.environment.page_with("/hand/", "Made by hand").await;
        loop {
            let (_, event) = events.next().await.expect("it goes on");
            if event["event"] == "draft" {
                break;
            }
        }
        self.is_uncommitted(&[ABOUT, HAND]).await;
        let log = self.environment.log(&[]).await;
        assert!(
            log.contains(ABOUT) && log.contains(HAND) && log.contains("--commit-mine"),
            "{log}"
        );
    }

    async fn it_is_not_taken_along_and_not_written_over(&self) {
        let receipt = self
            .environment
            .is_rejected(&["--publish"], "uncommitted_changes")
            .await;
        assert!(
            receipt["error"]["message"]
                .as_str()
                .expect("words")
                .contains(ABOUT),
            "{receipt:#}"
        );
        let receipt = self
            .environment
            .lands(&[
                "--id",
                "beside",
                "--replace",
                INDEX,
                "Old stamps",
                "Fine stamps",
            ])
            .await;
        assert_eq!(receipt["filesChanged"], json!([INDEX]), "{receipt:#}");
        assert_eq!(
            self.bare
                .git(&["diff", "--name-only", &format!("{DRAFT}~1"), DRAFT]),
            INDEX
        );
        let receipt = self
            .environment
            .is_rejected(
                &[
                    "--id",
                    "over",
                    "--replace",
                    ABOUT,
                    "It has one window",
                    "It has two windows",
                ],
                "uncommitted_changes",
            )
            .await;
        assert!(
            receipt["error"]["message"]
                .as_str()
                .expect("words")
                .contains(ABOUT),
            "{receipt:#}"
        );
        assert_eq!(
            self.environment.is_told_plainly("over").await,
            "Somebody is working on this part of the site by hand. Please ask again when that work is saved."
        );
        // Nor is it undone or discarded with what was instructed.
        self.environment.lands(&["--undo", "beside"]).await;
        self.environment
            .page_with("/about/", "All about Amelia")
            .await;
        self.is_uncommitted(&[ABOUT, HAND]).await;
    }

    async fn it_survives_a_restart(self) -> Self {
        let Self { bare, environment } = self;
        environment.stop().await;
        let environment = Start::of(&bare.address()).ready().await;
        let story = Self { bare, environment };
        story.is_uncommitted(&[ABOUT, HAND]).await;
        story
            .environment
            .page_with("/about/", "All about Amelia")
            .await;
        story
    }

    async fn it_survives_what_others_push_to_the_same_file(&self) {
        let other = self.bare.clone_at(DRAFT);
        let theirs = other.show(DRAFT, ABOUT) + "\n<!-- Dora was here -->\n";
        other.write(ABOUT, &theirs);
        other.write("src/pages/dora.md", "# From Dora\n");
        other.commit_all("From Dora");
        other.git(&["push", "--quiet", &self.bare.address(), DRAFT]);
        self.environment.page_with("/dora/", "From Dora").await;
        self.environment
            .page_with("/about/", "All about Amelia")
            .await;
        self.is_uncommitted(&[ABOUT, HAND]).await;
    }

    async fn it_becomes_a_commit_of_whoever_says_so(&self) {
        // Whoever sends it is its author, as git has them.
        let clone = self.bare.clone_at(DRAFT);
        clone.git(&["config", "user.name", "Dora Developer"]);
        clone.git(&["config", "user.email", "dora@example.com"]);
        let (code, words) = self
            .environment
            .says(clone.path(), &["--commit-mine", "--id", "mine"])
            .await;
        assert_eq!(code, 0, "{words}");
        assert_eq!(self.bare.commits_of(DRAFT, "mine"), 1);
        assert_eq!(
            self.bare.git(&["log", "-1", "--format=%an <%ae>", DRAFT]),
            "Dora Developer <dora@example.com>"
        );
        assert_eq!(
            self.bare
                .git(&["diff", "--name-only", &format!("{DRAFT}~1"), DRAFT]),
            format!("{ABOUT}\n{HAND}")
        );
        self.is_uncommitted(&[]).await;
        self.environment.is_told_plainly("mine").await;
        self.bare
            .is_shown_in(DRAFT, &self.environment.work_tree())
            .await;
        self.environment
            .is_rejected(&["--commit-mine"], "empty_change")
            .await;
        // It is a change like others: published, and undone.
        self.environment.publishes(&[]).await;
        self.environment.lands(&["--undo", "mine"]).await;
        self.environment.page_gone("/hand/").await;
        assert!(!Path::new(&self.path(HAND)).exists());
        let history = self.environment.history_when("undone", |history| {
            history["entries"][0]["action"] == "undo"
        });
        let entries = history.await["entries"].clone();
        let mine = entries
            .as_array()
            .expect("a list")
            .iter()
            .find(|entry| entry["instructionId"] == "mine")
            .unwrap_or(&Value::Null);
        assert_eq!(mine["action"], "commit", "{entries:#}");
        assert_eq!(mine["who"], "Dora Developer", "{entries:#}");
    }
}
