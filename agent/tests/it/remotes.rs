//! The remote: a path, HTTP, ssh; it moves, refuses, and goes away.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use crate::git_servers::{HttpServer, SshServer, TOKEN};
use crate::support::{Environment, Repository, Start, git, state};

const DRAFT: &str = "edit/local";
const INDEX: &str = "src/pages/index.astro";

#[tokio::test(flavor = "multi_thread")]
async fn a_server_behind_http_takes_edits_and_every_mood_of_it_ends_well() {
    let site = Repository::amelia();
    let bare = site.bare_copy();
    let server = HttpServer::with_token(&bare).await;
    let environment = Start::of(&server.url(&bare))
        .with(&["--deploy-key", "env:DEPLOY_TOKEN"])
        // As in the cloud. It is about ssh.
        .with(&[
            "--host-key",
            "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU",
        ])
        .variable("DEPLOY_TOKEN", TOKEN)
        .variable("RUST_LOG", "debug")
        .ready()
        .await;
    let story = Story { bare, environment };

    story.an_edit_arrives().await;
    story.what_a_hook_says_is_in_the_receipt().await;
    server.cut_the_answer_to_the_next_push();
    story.lands_once("cut").await;
    assert!(server.has_cut());
    story.what_others_push_stays_and_ours_comes_on_top().await;
    story.a_conflict_names_the_file_and_leaves_nothing().await;
    story.a_deleted_draft_branch_is_made_again().await;
    story.what_others_take_back_stays_taken_back().await;
    story
        .a_branch_that_is_locked_for_a_moment_is_waited_for()
        .await;

    // Only whoever asked for it got the token, and nobody was asked in vain for long.
    let seen = server.seen();
    let unknown = seen
        .iter()
        .filter(|request| request.authorization.is_none());
    assert!(unknown.count() <= seen.len() / 2, "{seen:#?}");
    story.the_server_comes_back(server).await;
    story.ends_without_having_told_a_secret().await;
}

struct Story {
    bare: Repository,
    environment: Environment,
}

impl Story {
    async fn lands_once(&self, id: &str) {
        let change = format!("src/pages/{id}.md=# The page {id}");
        let receipt = self
            .environment
            .lands(&["--id", id, "--write", &change])
            .await;
        assert_eq!(receipt["commit"], self.tip());
        assert_eq!(self.bare.commits_of(DRAFT, id), 1);
        let page = format!("The page {id}");
        self.environment.page_with(&format!("/{id}"), &page).await;
    }

    fn tip(&self) -> String {
        self.bare.git(&["rev-parse", DRAFT])
    }

    /// The draft, the work tree and the page are what the remote has, and nothing waits.
    async fn nothing_is_left_behind(&self, tip: &str, page: (&str, &str)) {
        assert_eq!(self.tip(), tip);
        // The status follows the receipt.
        self.environment
            .status_that(|status| status["draft"]["unpushed"] == 0 && status["draft"]["tip"] == tip)
            .await;
        self.bare
            .is_shown_in(DRAFT, &self.environment.work_tree())
            .await;
        self.environment.page_with(page.0, page.1).await;
    }

    async fn an_edit_arrives(&self) {
        let environment = &self.environment;
        let receipt = environment
            .lands(&[
                "--id",
                "first",
                "--replace",
                INDEX,
                "Rare stamps",
                "Good stamps",
            ])
            .await;
        environment.page_with("/", "Good stamps, honestly").await;
        assert_eq!(receipt["commit"], self.tip());
        assert_eq!(self.bare.commits_of(DRAFT, "first"), 1);
        assert_eq!(
            self.bare.git(&["log", "-1", "--format=%an / %cn", DRAFT]),
            "Amelia / Edit Agent"
        );
    }

    async fn what_a_hook_says_is_in_the_receipt(&self) {
        let words = "No changes to the front page on Sundays.";
        for hook in ["pre-receive", "update"] {
            let path = self.bare.path().join("hooks").join(hook);
            fs::create_dir_all(path.parent().expect("hooks")).expect("made");
            fs::write(&path, format!("#!/bin/sh\necho '{words}' >&2\nexit 1\n")).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
            let tip = self.tip();
            let receipt = self
                .environment
                .is_rejected(
                    &[
                        "--replace",
                        INDEX,
                        "Good stamps",
                        "Sunday stamps",
                        "--write",
                        "src/pages/sunday.md=# Sunday",
                    ],
                    "push_rejected",
                )
                .await;
            let message = receipt["error"]["message"].as_str().unwrap_or_default();
            assert!(message.contains(words), "{hook}: {receipt:#}");
            assert_eq!(receipt["commit"], json!(null), "{hook}: {receipt:#}");
            self.nothing_is_left_behind(&tip, ("/", "Good stamps, honestly"))
                .await;
            self.environment.page_gone("/sunday").await;
            fs::remove_file(path).expect("removed");
            self.lands_once(&format!("after-{hook}")).await;
        }
    }

    async fn what_others_push_stays_and_ours_comes_on_top(&self) {
        let other = self.bare.clone_at(DRAFT);
        other.write("src/pages/theirs.md", "# Theirs\n");
        other.commit_all("Theirs");
        other.git(&["push", "--quiet", &self.bare.address(), DRAFT]);
        self.lands_once("ours").await;
        assert_eq!(self.bare.subjects(DRAFT)[1], "Theirs");
        self.environment.page_with("/theirs", "Theirs").await;
        self.bare
            .is_shown_in(DRAFT, &self.environment.work_tree())
            .await;
    }

    async fn a_conflict_names_the_file_and_leaves_nothing(&self) {
        let other = self.bare.clone_at(DRAFT);
        let page = other.show(DRAFT, INDEX);
        other.write(INDEX, &page.replace("Good stamps", "Odd stamps"));
        other.commit_all("Odd ones");
        other.git(&["push", "--quiet", &self.bare.address(), DRAFT]);
        let tip = self.tip();
        let (code, receipt) = self
            .environment
            .send(&[
                "--replace",
                INDEX,
                "Good stamps",
                "Fine stamps",
                "--write",
                "src/pages/fine.md=# Fine",
            ])
            .await;
        // Theirs is taken in before the instruction begins, or met when it is pushed.
        let why = receipt["error"]["code"].as_str().unwrap_or_default();
        assert!(
            code == 1 && ["conflict", "find_not_found"].contains(&why),
            "{receipt:#}"
        );
        let message = receipt["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(INDEX), "{receipt:#}");
        self.nothing_is_left_behind(&tip, ("/", "Odd stamps, honestly"))
            .await;
        self.environment.page_gone("/fine").await;
        self.lands_once("after-conflict").await;
    }

    async fn a_deleted_draft_branch_is_made_again(&self) {
        self.bare.was_never_forced(DRAFT);
        let before = self.tip();
        self.bare.git(&["branch", "--quiet", "-D", DRAFT]);
        self.lands_once("again").await;
        self.bare
            .git(&["merge-base", "--is-ancestor", &before, DRAFT]);
    }

    /// The developer throws away an instruction's commit: it must not come back with the next one.
    async fn what_others_take_back_stays_taken_back(&self) {
        self.lands_once("doomed").await;
        let before = format!("{DRAFT}~1");
        self.bare
            .git(&["update-ref", &format!("refs/heads/{DRAFT}"), &before]);
        self.lands_once("after-doomed").await;
        assert_eq!(self.bare.commits_of(DRAFT, "doomed"), 0);
        self.environment.page_gone("/doomed").await;
        self.bare
            .is_shown_in(DRAFT, &self.environment.work_tree())
            .await;
    }

    async fn a_file_and_a_folder_may_take_each_others_place(&self) {
        let other = self.bare.clone_at(DRAFT);
        for (number, path) in ["public/notes", "public/notes/a.txt", "public/notes"]
            .iter()
            .enumerate()
        {
            other.git(&["pull", "--quiet", "--rebase", &self.bare.address(), DRAFT]);
            other.git(&["rm", "-r", "--quiet", "--ignore-unmatch", "public/notes"]);
            other.write(path, "a note\n");
            other.commit_all("Notes");
            other.git(&["push", "--quiet", &self.bare.address(), DRAFT]);
            self.lands_once(&format!("beside-notes-{number}")).await;
            self.bare
                .is_shown_in(DRAFT, &self.environment.work_tree())
                .await;
        }
    }

    /// Somebody else's push holds the branch while ours comes.
    async fn a_branch_that_is_locked_for_a_moment_is_waited_for(&self) {
        let lock = self.bare.path().join(format!("refs/heads/{DRAFT}.lock"));
        fs::create_dir_all(lock.parent().expect("a folder")).expect("made");
        fs::write(&lock, "").expect("written");
        let write = "src/pages/locked.md=# The page locked";
        self.environment
            .send(&["--no-wait", "--id", "locked", "--write", write])
            .await;
        let receipt = self
            .environment
            .receipt_that("locked", |receipt| receipt["error"].is_object())
            .await;
        assert_eq!(
            receipt["error"]["code"], "remote_unavailable",
            "{receipt:#}"
        );
        fs::remove_file(lock).expect("removed");
        let receipt = self.environment.final_receipt("locked").await;
        assert_eq!(receipt["status"], "pushed", "{receipt:#}");
        self.lands_once("unlocked").await;
    }

    /// The server is away while an instruction comes, and then it is there again.
    async fn the_server_comes_back(&self, server: HttpServer) {
        let address = server.stop().await;
        let write = "src/pages/patient.md=# Patient";
        self.environment
            .send(&["--no-wait", "--id", "patient", "--write", write])
            .await;
        let receipt = self
            .environment
            .receipt_that("patient", |receipt| receipt["error"].is_object())
            .await;
        assert_eq!(
            receipt["error"]["code"], "remote_unavailable",
            "{receipt:#}"
        );
        // The page does not wait for the network.
        self.environment.page_with("/patient", "Patient").await;
        let _again = HttpServer::with_token_at(&self.bare, address).await;
        let receipt = self.environment.final_receipt("patient").await;
        assert_eq!(receipt["status"], "pushed", "{receipt:#}");
        assert_eq!(self.bare.commits_of(DRAFT, "patient"), 1);
        assert!(receipt["attempts"].as_u64() >= Some(2), "{receipt:#}");
        self.bare.git(&["fsck", "--strict"]);
    }

    async fn ends_without_having_told_a_secret(self) {
        let workspace = self.environment.workspace();
        let status = self.environment.status().await.to_string();
        let children = self.environment.processes();
        assert!(!children.is_empty(), "the dev server runs");
        for (child, command) in children {
            let variables = fs::read(format!("/proc/{child}/environ")).unwrap_or_default();
            assert!(
                !command.contains(TOKEN) && !has_token(&variables),
                "{command}"
            );
        }
        let arguments = fs::read(format!("/proc/{}/cmdline", self.environment.pid()));
        assert!(!has_token(&arguments.expect("it runs")));
        let seen = format!("{:?}", self.environment.seen);
        let (stopped, code, log) = self.environment.stop().await;
        assert_eq!(code, 0);
        for said in [&log, &status, &seen, &stopped.to_string()] {
            assert!(!has_token(said.as_bytes()), "{said}");
        }
        assert!(log.contains("DEBUG"), "everything is said");
        let mut files = 0;
        files += no_file_has_the_token(&workspace);
        for database in ["edit.sqlite", "edit.sqlite-wal"] {
            files += no_file_has_the_token(&state().join(database));
        }
        assert!(files > 50, "{files} files were looked at");
    }
}

/// Whether the token is in there, as it is or as it goes over the wire.
fn has_token(bytes: &[u8]) -> bool {
    let encoded = BASE64.encode(format!("x-access-token:{TOKEN}"));
    [TOKEN, &encoded].iter().any(|token| {
        let mut parts = bytes.windows(token.len());
        parts.any(|part| part == token.as_bytes())
    })
}

/// Looks into everything that a run left, and returns how many files that was. What was installed is linked from a store.
fn no_file_has_the_token(path: &Path) -> usize {
    let Ok(kind) = fs::symlink_metadata(path) else {
        return 0;
    };
    if kind.is_dir() && path.file_name().is_none_or(|name| name != "node_modules") {
        let entries = fs::read_dir(path).expect("readable").flatten();
        return entries
            .map(|entry| no_file_has_the_token(&entry.path()))
            .sum();
    }
    if !kind.is_file() {
        return 0;
    }
    assert!(
        !has_token(&fs::read(path).expect("readable")),
        "{}",
        path.display()
    );
    1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_used_is_named_with_what_to_do() {
    let site = Repository::amelia();
    let bare = site.bare_copy();
    let server = HttpServer::with_token(&bare).await;
    let url = server.url(&bare);

    // The wrong token, and none: the server is not asked for ever.
    let wrong = Start::of(&url)
        .with(&["--deploy-key", "env:DEPLOY_TOKEN"])
        .variable("DEPLOY_TOKEN", "ghp_Wrong");
    let (code, words) = wrong.failure().await;
    assert_eq!(code, 11, "{words}");
    assert!(words.contains("did not accept the credentials"), "{words}");
    assert!(words.contains("hint: Name a key or token"), "{words}");
    assert!(!words.contains("ghp_Wrong"), "{words}");
    assert!(server.seen().len() <= 5, "{:#?}", server.seen());
    let home = tempfile::tempdir().expect("a folder");
    let nobody = Start::of(&url).variable("HOME", &home.path().display().to_string());
    let (code, words) = nobody.failure().await;
    assert_eq!(code, 11, "{words}");
    assert!(words.contains("did not accept the credentials"), "{words}");
    assert!(server.seen().len() <= 10, "{:#?}", server.seen());

    // No repository there, and nobody there.
    let missing = Start::of(&server.at("/no-such.git"))
        .with(&["--deploy-key", "env:DEPLOY_TOKEN"])
        .variable("DEPLOY_TOKEN", TOKEN);
    let (code, words) = missing.failure().await;
    assert_eq!(code, 10, "{words}");
    assert!(
        words.contains("there is no git repository at http://"),
        "{words}"
    );
    let address = server.stop().await;
    let (code, words) = Start::of(&format!("http://{address}/x.git"))
        .failure()
        .await;
    assert_eq!(code, 11, "{words}");
    assert!(words.contains("could not connect to http://"), "{words}");
    assert!(words.contains("hint: Check the address"), "{words}");

    // A repository without a commit, and one whose HEAD names a branch that is not there.
    let empty = Repository::empty();
    let server = HttpServer::open_to_all(&empty).await;
    let address = format!("{}/.git", server.url(&empty));
    let (code, words) = Start::of(&address).failure().await;
    assert_eq!(code, 10, "{words}");
    assert!(words.contains("has no commit yet"), "{words}");
    bare.git(&["symbolic-ref", "HEAD", "refs/heads/trunk"]);
    let server = HttpServer::open_to_all(&bare).await;
    let (code, words) = Start::of(&server.url(&bare)).failure().await;
    assert_eq!(code, 10, "{words}");
    assert!(
        words.contains("it has main") && words.contains("--branch"),
        "{words}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_gets_no_credentials() {
    let site = Repository::amelia();
    let bare = site.bare_copy();
    // It would take the token, and hand out another site.
    let elsewhere = HttpServer::with_token(&bare).await;
    let same_host = elsewhere.at("");
    let other_host = same_host.replace("127.0.0.1", "localhost");
    for (place, asks_first) in [
        (&other_host, false),
        (&other_host, true),
        (&same_host, false),
        (&same_host, true),
    ] {
        let server = HttpServer::that_redirects(place, asks_first).await;
        let (code, words) = Start::of(&server.url(&bare))
            .with(&["--deploy-key", "env:DEPLOY_TOKEN"])
            .variable("DEPLOY_TOKEN", TOKEN)
            .failure()
            .await;
        assert_eq!(code, 11, "{words}");
        assert!(words.contains("redirect"), "{words}");
        let mut asked = elsewhere.seen();
        // libgit2 takes another port of the same host for the same server, and asks there. It has nothing to show.
        asked.retain(|request| place == &other_host || request.authorization.is_some());
        assert!(
            asked.is_empty(),
            "{place}, asks first: {asks_first}: {asked:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_behind_ssh_takes_edits_with_a_deploy_key_and_must_be_known() {
    let site = Repository::amelia();
    let bare = site.bare_copy();
    let server = SshServer::start().await;
    let (home, nobody) = (server.home(true), server.home(false));
    let start = |home: &Path, key: &str| {
        Start::of(&server.url(&bare))
            .with(&["--deploy-key", key])
            .variable("HOME", &home.display().to_string())
    };

    let environment = start(home.path(), &server.deploy_key()).ready().await;
    let receipt = environment
        .lands(&[
            "--id",
            "ssh",
            "--replace",
            INDEX,
            "Rare stamps",
            "Good stamps",
        ])
        .await;
    environment.page_with("/", "Good stamps, honestly").await;
    assert_eq!(receipt["commit"], bare.git(&["rev-parse", DRAFT]));
    assert_eq!(bare.commits_of(DRAFT, "ssh"), 1);
    let (_, code, _) = environment.stop().await;
    assert_eq!(code, 0);

    let (code, words) = start(nobody.path(), &server.deploy_key()).failure().await;
    assert_eq!(code, 11, "{words}");
    assert!(
        words.contains("is not known to be the right one"),
        "{words}"
    );
    assert!(words.contains("known_hosts"), "{words}");

    let before = server.connections();
    let (code, words) = start(home.path(), &server.other_key()).failure().await;
    assert_eq!(code, 11, "{words}\n{}", server.log());
    assert!(words.contains("did not accept the credentials"), "{words}");
    assert!(server.connections() <= before + 2, "{}", server.log());
}

/// As in the cloud: nobody has connected before, and what is in a home counts for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_behind_ssh_is_known_by_the_keys_that_are_named() {
    let site = Repository::amelia();
    let bare = site.bare_copy();
    let server = SshServer::start().await;
    let (home, nobody) = (server.home(true), server.home(false));
    let start = |home: &Path, key: &str, host_key: &str| {
        Start::of(&server.url(&bare))
            .with(&["--deploy-key", key, "--host-key", host_key])
            .variable("HOME", &home.display().to_string())
    };

    // Another server's key: the right key is not even shown to this one, though a home knows it.
    let other = server.other_host_key();
    let (code, words) = start(home.path(), &server.deploy_key(), &other)
        .failure()
        .await;
    assert_eq!(code, 11, "{words}");
    let shown = format!(
        "shows the key {}, by which it is not known, so nothing was sent",
        server.host_key()
    );
    assert!(words.contains(&shown), "{words}");
    assert!(
        words.contains("repository.hostKeys") && words.contains("--host-key"),
        "{words}"
    );
    assert_eq!(server.connections(), 1, "{}", server.log());
    let log = server.log();
    let asked = ["publickey", "Accepted", "Postponed", "authenticating user"];
    assert!(!asked.iter().any(|words| log.contains(words)), "{log}");

    // The right one, and who may not log in.
    let before = server.connections();
    let wrong = start(nobody.path(), &server.other_key(), &server.host_key());
    let (code, words) = wrong.failure().await;
    assert_eq!(code, 11, "{words}");
    assert!(words.contains("did not accept the credentials"), "{words}");
    assert!(server.connections() <= before + 2, "{}", server.log());

    let environment = start(nobody.path(), &server.deploy_key(), &server.host_key())
        .with(&["--host-key", &other])
        .ready()
        .await;
    let story = Story { bare, environment };
    story.an_edit_arrives().await;
    let (_, code, log) = story.environment.stop().await;
    assert_eq!(code, 0);
    assert!(!log.contains("PRIVATE KEY"), "{log}");

    let short = Start::of(&server.url(&story.bare)).with(&[
        "--deploy-key",
        "env:X",
        "--host-key",
        "SHA256:abc",
    ]);
    let (code, words) = short.failure().await;
    assert!(code == 2 && words.contains("ssh-keygen -lf"), "{words}");
}

#[tokio::test]
async fn a_bare_repository_by_its_path_takes_edits_beside_those_of_others() {
    let site = Repository::amelia();
    let bare = site.bare_copy();
    let address = format!("file://{}", bare.address());
    let environment = Start::of(&address).ready().await;
    let story = Story { bare, environment };
    story.an_edit_arrives().await;
    story.what_others_push_stays_and_ours_comes_on_top().await;
    story.a_conflict_names_the_file_and_leaves_nothing().await;
    story.a_deleted_draft_branch_is_made_again().await;
    story.what_others_take_back_stays_taken_back().await;
    story
        .a_branch_that_is_locked_for_a_moment_is_waited_for()
        .await;
    story.a_file_and_a_folder_may_take_each_others_place().await;
    story.what_is_written_into_our_clone_changes_nothing().await;
    story.bare.git(&["fsck", "--strict"]);
}

impl Story {
    /// A site that found our git directory cannot send the push elsewhere, nor have anything run.
    async fn what_is_written_into_our_clone_changes_nothing(&self) {
        let evil = self.bare.bare_copy();
        let clone = self.environment.work_tree().join("../draft.git");
        let canary = evil.path().join("a-hook-ran");
        let configuration = format!(
            "[core]\n\tbare = true\n\thooksPath = {hooks}\n[url \"{evil}\"]\n\tinsteadOf = {good}\n\tpushInsteadOf = {good}\n\
             [remote \"origin\"]\n\turl = {evil}\n",
            hooks = clone.join("hooks").display(),
            evil = evil.address(),
            good = self.bare.address(),
        );
        fs::write(clone.join("config"), configuration).expect("written");
        fs::create_dir_all(clone.join("hooks")).expect("made");
        for hook in [
            "pre-push",
            "post-commit",
            "reference-transaction",
            "post-update",
        ] {
            let path = clone.join("hooks").join(hook);
            fs::write(&path, format!("#!/bin/sh\ntouch {}\n", canary.display())).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
        }
        let before = evil.git(&["rev-parse", DRAFT]);
        self.lands_once("poisoned").await;
        assert_eq!(evil.git(&["rev-parse", DRAFT]), before);
        assert!(!canary.exists());
        // The poison does bite whoever reads the configuration.
        let there = git(&clone, &["ls-remote", "--get-url", &self.bare.address()]);
        assert_eq!(there, evil.address());
    }
}

#[tokio::test]
async fn a_branch_whose_name_stands_in_the_way_is_named() {
    let site = Repository::amelia();
    site.git(&["branch", "edit"]);
    let (code, words) = Start::of(&site.address()).failure().await;
    assert_eq!(code, 10, "{words}");
    assert!(
        words.contains("cannot have the branch edit/local beside its branch edit"),
        "{words}"
    );
    assert!(words.contains("hint: Rename"), "{words}");
}

#[tokio::test]
async fn a_repository_without_its_history_is_named() {
    let site = Repository::amelia();
    site.write("README.md", "Twice\n");
    site.commit_all("Twice");
    let folder = tempfile::tempdir().expect("a folder");
    let shallow = folder.path().join("shallow").display().to_string();
    let address = format!("file://{}", site.address());
    site.git(&["clone", "--quiet", "--depth", "1", &address, &shallow]);
    let (code, words) = Start::of(&shallow).failure().await;
    assert_eq!(code, 10, "{words}");
    assert!(words.contains("is a shallow clone"), "{words}");
    assert!(words.contains("git fetch --unshallow"), "{words}");
    git(Path::new(&shallow), &["fetch", "--quiet", "--unshallow"]);
    let (code, words) = Start::of(&shallow).with(&["--branch", "x"]).failure().await;
    assert!(code == 10 && words.contains("it has main"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_from_a_server_that_stands_still_can_be_interrupted() {
    let site = Repository::amelia();
    let bare = site.bare_copy();
    let server = HttpServer::open_to_all(&bare).await;
    server.hold_packs(true);
    let environment = Start::of(&server.url(&bare)).spawn();
    server.asked_for("git-upload-pack").await;
    server.asked_for("POST").await;
    environment.interrupt();
    // Well within the minute for which a server may say nothing.
    let ended = tokio::time::timeout(Duration::from_secs(20), environment.ended()).await;
    let (status, log) = ended.expect("it ends at once");
    assert_eq!(status.code(), Some(130), "{log}");
}

#[tokio::test]
async fn a_branch_that_the_developer_has_checked_out_is_left_alone() {
    let site = Repository::amelia();
    let environment = Start::of(&site.address()).ready().await;
    environment
        .lands(&["--write", "src/pages/first.md=# First"])
        .await;

    // In the repository itself: the instruction waits, and says for what.
    site.git(&["switch", "--quiet", DRAFT]);
    let head = site.git(&["rev-parse", "HEAD"]);
    environment
        .send(&[
            "--no-wait",
            "--id",
            "second",
            "--write",
            "src/pages/second.md=# Second",
        ])
        .await;
    let receipt = environment
        .receipt_that("second", |receipt| receipt["error"].is_object())
        .await;
    assert_eq!(receipt["error"]["code"], "push_rejected");
    let message = receipt["error"]["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("edit/local is checked out in"),
        "{receipt:#}"
    );
    assert!(message.contains(&site.address()), "{receipt:#}");
    assert!(
        receipt["error"]["hint"]
            .as_str()
            .unwrap_or_default()
            .contains("git switch"),
        "{receipt:#}"
    );
    assert_eq!(site.git(&["rev-parse", "HEAD"]), head);
    assert_eq!(site.git(&["status", "--porcelain"]), "");
    site.git(&["switch", "--quiet", "main"]);
    let receipt = environment.final_receipt("second").await;
    assert_eq!(receipt["status"], "pushed", "{receipt:#}");
    assert_eq!(site.commits_of(DRAFT, "second"), 1);
    site.is_shown_in(DRAFT, &environment.work_tree()).await;
    environment.stop().await;

    // At the start: in the repository itself, and in another work tree of it, also when that is what was named.
    site.git(&["switch", "--quiet", DRAFT]);
    let (code, words) = Start::of(&site.address()).failure().await;
    assert_eq!(code, 10, "{words}");
    assert!(
        words.contains("edit/local is checked out in") && words.contains(&site.address()),
        "{words}"
    );
    assert!(
        words.contains("hint: Check out another branch there"),
        "{words}"
    );
    let elsewhere = tempfile::tempdir().expect("a folder");
    let linked = elsewhere.path().join("linked").display().to_string();
    site.git(&["worktree", "add", "--quiet", &linked, "main"]);
    let (code, words) = Start::of(&linked).failure().await;
    assert_eq!(code, 10, "{words}");
    assert!(words.contains(&site.address()), "{words}");
    git(Path::new(&linked), &["switch", "--quiet", "--detach"]);
    site.git(&["switch", "--quiet", "main"]);
    git(Path::new(&linked), &["switch", "--quiet", DRAFT]);
    let (code, words) = Start::of(&site.address()).failure().await;
    assert_eq!(code, 10, "{words}");
    assert!(words.contains(&linked), "{words}");
}
