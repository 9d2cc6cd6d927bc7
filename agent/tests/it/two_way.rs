//! Two-way: what other people push shows up, and fits or is named.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Environment, PATIENCE, Repository, Start};

const DRAFT: &str = "edit/local";
const INDEX: &str = "src/pages/index.astro";
const ABOUT: &str = "src/pages/about.astro";

struct Story {
    bare: Repository,
    environment: Environment,
}

#[tokio::test]
async fn what_others_push_shows_up_fits_or_is_named_and_can_be_gone_back_to() {
    let bare = Repository::amelia().bare_copy();
    let environment = Start::of(&bare.address()).ready().await;
    let story = Story { bare, environment };

    story.there_is_nothing_to_bring_in_or_discard().await;
    story
        .the_page_of_an_empty_draft_follows_what_is_published()
        .await;
    story.what_is_pushed_to_the_draft_is_shown().await;
    story
        .what_is_published_elsewhere_is_brought_in_by_itself()
        .await;
    story
        .what_does_not_fit_names_who_changed_what_and_when()
        .await;
    story
        .the_draft_goes_back_to_what_is_published_and_forth()
        .await;
    story.bare.was_never_forced(DRAFT);
    story.bare.git(&["fsck", "--strict"]);
    let story = story.what_is_published_while_it_slept_is_brought_in().await;
    story.environment.stop().await;
}

impl Story {
    /// A developer changes a file of a branch, and pushes. Returns their commit.
    fn pushes(&self, branch: &str, path: &str, find: &str, new: &str) -> String {
        let other = self.bare.clone_at(branch);
        let before = match find {
            "" => String::new(),
            _ => other.show(branch, path) + "\n",
        };
        assert!(before.contains(find), "{before}");
        let after = if find.is_empty() {
            new.to_owned()
        } else {
            before.replace(find, new)
        };
        other.write(path, &after);
        other.commit_all(&format!("Dora changes {path}"));
        other.git(&["push", "--quiet", &self.bare.address(), branch]);
        other.git(&["rev-parse", "HEAD"])
    }

    /// Whoever has a page open is told of it, and then sees it: both soon after it was pushed.
    async fn is_shown_live(&self, pushed: impl FnOnce(), path: &str, words: &str) {
        self.environment.page_with(path, "</html>").await;
        let mut browser = self.environment.hot_reload(&[]).await.expect("a socket");
        pushed();
        let seen = async {
            browser.message("full-reload").await;
            self.environment.page_with(path, words).await;
        };
        let seen = tokio::time::timeout(PATIENCE, seen).await;
        seen.unwrap_or_else(|_| panic!("{words:?} was never seen on {path}"));
    }

    async fn there_is_nothing_to_bring_in_or_discard(&self) {
        for (option, sentence) in [
            (
                "--sync",
                "There is nothing to bring in: your draft has everything.",
            ),
            (
                "--discard",
                "There is nothing to discard: your draft is as the published site.",
            ),
        ] {
            let receipt = self
                .environment
                .is_rejected(&[option], "empty_change")
                .await;
            let id = receipt["instructionId"].as_str().expect("an id");
            assert_eq!(self.environment.is_told_plainly(id).await, sentence);
        }
    }

    async fn the_page_of_an_empty_draft_follows_what_is_published(&self) {
        let push = || {
            self.pushes("main", INDEX, "What I promise", "What Dora promises");
        };
        self.is_shown_live(push, "/", "What Dora promises").await;
        // Nothing of the kind is to be read in the history: nobody instructed anything here.
        let history = self
            .environment
            .history_when("in step", |history| history["behind"] == 0)
            .await;
        assert_eq!(history["entries"], json!([]), "{history:#}");
        assert_eq!(self.bare.git(&["branch", "--list", DRAFT]), "");
    }

    async fn what_is_pushed_to_the_draft_is_shown(&self) {
        self.environment
            .lands(&[
                "--id",
                "own",
                "--replace",
                INDEX,
                "Rare stamps",
                "Old stamps",
            ])
            .await;
        let push = || {
            self.pushes(DRAFT, ABOUT, "About Amelia", "About Dora");
        };
        self.is_shown_live(push, "/about/", "About Dora").await;
        self.bare
            .is_shown_in(DRAFT, &self.environment.work_tree())
            .await;
        // An instruction goes on from there.
        self.environment
            .lands(&["--replace", ABOUT, "About Dora", "About Dora and Amelia"])
            .await;
    }

    async fn what_is_published_elsewhere_is_brought_in_by_itself(&self) {
        let published = self.pushes("main", INDEX, "New in the album", "New this week");
        let follow = format!("follow-{}", &published[..20]);
        self.environment.page_with("/", "New this week").await;
        let receipt = self
            .environment
            .receipt_that(&follow, |receipt| receipt["status"] == "pushed")
            .await;
        assert_eq!(receipt["verdict"], "sound", "it was looked at: {receipt:#}");
        assert_eq!(receipt["filesChanged"], json!([INDEX]), "{receipt:#}");
        assert_eq!(
            receipt["pages"],
            json!([{ "path": "/", "status": 200 }]),
            "{receipt:#}"
        );
        assert_eq!(receipt["commit"], self.bare.git(&["rev-parse", DRAFT]));
        assert_eq!(self.bare.commits_of(DRAFT, &follow), 1);
        self.bare
            .git(&["merge-base", "--is-ancestor", &published, DRAFT]);
        assert!(self.bare.show(DRAFT, INDEX).contains("Old stamps"));
        assert_eq!(
            self.environment.is_told_plainly(&follow).await,
            "What was published elsewhere is in your draft now."
        );
        let history = self
            .environment
            .history_when("in step", |history| history["behind"] == 0)
            .await;
        assert_eq!(history["entries"][0]["instructionId"], json!(follow));
        assert_eq!(history["entries"][0]["action"], "sync");
        self.environment
            .is_rejected(&["--sync"], "empty_change")
            .await;
    }

    async fn what_does_not_fit_names_who_changed_what_and_when(&self) {
        let tip = self.bare.git(&["rev-parse", DRAFT]);
        let published = self.pushes("main", INDEX, "Rare stamps", "Odd stamps");
        let follow = format!("follow-{}", &published[..20]);
        let automatic = self.environment.final_receipt(&follow).await;
        let asked = self
            .environment
            .is_rejected(&["--id", "asked", "--sync"], "conflict")
            .await;
        for receipt in [automatic, asked] {
            let error = &receipt["error"];
            assert_eq!(receipt["status"], "rejected", "{receipt:#}");
            assert_eq!(error["code"], "conflict", "{receipt:#}");
            let conflict = &error["conflicts"][0];
            assert_eq!(conflict["path"], INDEX, "{receipt:#}");
            assert_eq!(conflict["ours"]["name"], "Amelia", "{receipt:#}");
            assert_eq!(conflict["ours"]["instructionId"], "own", "{receipt:#}");
            assert_eq!(conflict["theirs"]["name"], "Dora Developer", "{receipt:#}");
            assert_eq!(
                conflict["theirs"]["commit"],
                json!(published),
                "{receipt:#}"
            );
            assert!(conflict["theirs"]["at"].is_string(), "{receipt:#}");
            let message = error["message"].as_str().expect("words");
            assert!(
                message.starts_with(&format!("{INDEX}: Amelia changed it in this draft on "))
                    && message.contains("Dora Developer changed it on the published site on "),
                "{message}"
            );
        }
        for id in [follow.as_str(), "asked"] {
            let told = self.environment.is_told_plainly(id).await;
            assert!(
                told.starts_with("Dora Developer changed the home page on ")
                    && told.ends_with("please look at it and ask again."),
                "{told}"
            );
        }
        assert_eq!(self.bare.git(&["rev-parse", DRAFT]), tip);
        assert_eq!(self.environment.history().await["behind"], 1);
        self.environment
            .page_with("/", "Old stamps, honestly")
            .await;
    }

    async fn the_draft_goes_back_to_what_is_published_and_forth(&self) {
        self.environment
            .lands(&["--write", "src/pages/extra.md=# Extra"])
            .await;
        self.environment.page_with("/extra", "Extra").await;
        let before = self.bare.git(&["rev-parse", &format!("{DRAFT}^{{tree}}")]);
        let tip = self.bare.git(&["rev-parse", DRAFT]);
        let receipt = self.environment.lands(&["--id", "back", "--discard"]).await;
        assert_eq!(receipt["verdict"], "sound", "{receipt:#}");
        assert_eq!(self.bare.git(&["diff", "--name-only", "main", DRAFT]), "");
        self.bare.git(&["merge-base", "--is-ancestor", &tip, DRAFT]);
        self.environment
            .page_with("/", "Odd stamps, honestly")
            .await;
        self.environment.page_gone("/extra").await;
        let history = self
            .environment
            .history_when("discarded", |history| history["unpublished"] == 0)
            .await;
        assert_eq!(history["entries"][0]["action"], "discard");
        assert_eq!(
            self.environment.is_told_plainly("back").await,
            "The changes were discarded: your draft is as the published site."
        );
        self.environment
            .is_rejected(&["--publish"], "empty_change")
            .await;
        // The undo of it brings everything back.
        self.environment.lands(&["--undo", "back"]).await;
        assert_eq!(
            self.bare.git(&["rev-parse", &format!("{DRAFT}^{{tree}}")]),
            before
        );
        self.environment
            .page_with("/", "Old stamps, honestly")
            .await;
        self.environment.page_with("/extra", "Extra").await;
        let history = self
            .environment
            .history_when("there again", |history| {
                history["unpublished"].as_u64() > Some(0)
            })
            .await;
        assert_eq!(history["entries"][1]["state"], "undone", "{history:#}");
    }

    async fn what_is_published_while_it_slept_is_brought_in(self) -> Self {
        // The collision of before is out of the way.
        self.environment.lands(&["--undo", "own"]).await;
        let Self { bare, environment } = self;
        environment.stop().await;
        let asleep = bare.clone_at("main");
        asleep.write("src/pages/night.md", "# Night\n");
        asleep.commit_all("While it slept");
        asleep.git(&["push", "--quiet", &bare.address(), "main"]);
        let environment = Start::of(&bare.address()).ready().await;
        environment.page_with("/night", "Night").await;
        environment
            .history_when("in step", |history| history["behind"] == 0)
            .await;
        Self { bare, environment }
    }
}

/// A page that renders only while nobody holds it, and says when it is being rendered.
struct Gate {
    folder: tempfile::TempDir,
}

impl Gate {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder }
    }

    fn page(&self, body: &str) -> String {
        let folder = self.folder.path().display();
        format!(
            "---\nimport fs from 'node:fs';\nif (fs.existsSync('{folder}/held')) {{\n  fs.writeFileSync('{folder}/begun', '');\n  while (fs.existsSync('{folder}/held')) await new Promise((next) => setTimeout(next, 20));\n}}\n---\n<html><body>{body}</body></html>\n"
        )
    }

    fn hold(&self) {
        std::fs::write(self.folder.path().join("held"), "").expect("written");
    }

    fn release(&self) {
        std::fs::remove_file(self.folder.path().join("held")).expect("removed");
    }

    async fn begun(&self) {
        exists(&self.folder.path().join("begun")).await;
        std::fs::remove_file(self.folder.path().join("begun")).expect("removed");
    }
}

async fn exists(path: &Path) {
    let exists = async {
        while !path.exists() {
            tokio::task::yield_now().await;
        }
    };
    let exists = tokio::time::timeout(PATIENCE, exists).await;
    exists.unwrap_or_else(|_| panic!("{} never was", path.display()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pushed_while_an_instruction_runs_is_under_it_and_is_judged_with_it() {
    let site = Repository::amelia();
    let gate = Gate::new();
    site.write("src/pages/gate.astro", &gate.page("closed"));
    site.write("src/components/Badge.astro", "<b>since 2004</b>\n");
    site.commit_all("A gate and a badge");
    let bare = site.bare_copy();
    let environment = Start::of(&bare.address()).ready().await;
    environment
        .lands(&["--write", "src/pages/first.md=# First"])
        .await;
    let story = Story { bare, environment };

    // While it is looked at, others push: it lands on top of that.
    gate.hold();
    let write = format!("src/pages/gate.astro={}", gate.page("open"));
    story
        .environment
        .send_output(&["--no-wait", "--id", "slow", "--write", &write])
        .await;
    gate.begun().await;
    let theirs = story.pushes(DRAFT, "src/pages/theirs.md", "", "# Theirs\n");
    gate.release();
    let receipt = story.environment.final_receipt("slow").await;
    assert_eq!(receipt["status"], "pushed", "{receipt:#}");
    assert_eq!(
        story.bare.git(&[
            "log",
            "-1",
            "--format=%P",
            receipt["commit"].as_str().expect("one")
        ]),
        theirs
    );
    assert_eq!(story.bare.commits_of(DRAFT, "slow"), 1);
    story.environment.page_with("/gate/", "open").await;
    story.environment.page_with("/theirs/", "Theirs").await;

    // Each renders by itself, and the two together do not.
    gate.hold();
    let page = gate.page("<Badge />").replacen(
        "---\n",
        "---\nimport Badge from '../components/Badge.astro';\n",
        1,
    );
    let write = format!("src/pages/gate.astro={page}");
    story
        .environment
        .send_output(&["--no-wait", "--id", "together", "--write", &write])
        .await;
    gate.begun().await;
    let other = story.bare.clone_at(DRAFT);
    other.git(&["rm", "--quiet", "src/components/Badge.astro"]);
    other.commit_all("No badge");
    other.git(&["push", "--quiet", &story.bare.address(), DRAFT]);
    gate.release();
    let receipt = story.environment.final_receipt("together").await;
    assert_eq!(receipt["status"], "rejected", "{receipt:#}");
    assert_eq!(receipt["error"]["code"], "page_broken", "{receipt:#}");
    assert_eq!(receipt["commit"], Value::Null, "{receipt:#}");
    let message = receipt["error"]["message"].as_str().expect("words");
    assert!(
        message.starts_with(
            "The page /gate/ does not render with it together with what others changed meanwhile"
        ),
        "{message}"
    );
    story.environment.is_told_plainly("together").await;
    assert_eq!(
        story.bare.git(&["rev-parse", DRAFT]),
        other.git(&["rev-parse", "HEAD"])
    );
    story
        .bare
        .is_shown_in(DRAFT, &story.environment.work_tree())
        .await;
    story.environment.page_with("/gate/", "open").await;
    story.environment.lands(&["--undo", "slow"]).await;
    story.environment.stop().await;
}

#[tokio::test]
async fn a_dependency_that_others_push_is_installed() {
    let bare = Repository::amelia().bare_copy();
    let environment = Start::of(&bare.address()).ready().await;
    let other = bare.clone_at("main");
    other.write(
        "tools/greet/package.json",
        r#"{ "name": "greet", "version": "1.0.0", "type": "module", "main": "index.js" }"#,
    );
    other.write(
        "tools/greet/index.js",
        "export default 'Greetings from a dependency';\n",
    );
    other.write(
        "src/pages/greeting.astro",
        "---\nimport greet from 'greet';\n---\n<html><body>{greet}</body></html>\n",
    );
    let installed = std::process::Command::new("npm")
        .args([
            "install",
            "--package-lock-only",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
        ])
        .arg("./tools/greet")
        .current_dir(other.path())
        .output()
        .expect("npm runs");
    assert!(installed.status.success(), "{installed:?}");
    other.commit_all("A greeting");
    let mut events = environment.events(None).await;
    other.git(&["push", "--quiet", &bare.address(), "main"]);
    let states = events.site_states_until("serving").await;
    assert!(states.contains(&"installing".to_owned()), "{states:?}");
    environment
        .page_with("/greeting/", "Greetings from a dependency")
        .await;
    assert_eq!(environment.status().await["site"]["health"], "ok");
    environment.stop().await;
}
