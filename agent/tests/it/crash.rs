//! The agent dies at the worst moment, and starts again.

use crate::git_servers::HttpServer;
use crate::support::{Repository, Start, git};

/// Where a debug build can be made to kill itself, in the order in which an instruction comes by.
const CRASH_POINTS: [&str; 6] = [
    "before-apply",
    "after-apply",
    "after-commit",
    "after-push",
    "before-receipt",
    "before-delete",
];

/// The work tree shows exactly what the draft's tip has.
fn assert_work_tree_is(repository: &Repository, tree: &std::path::Path, branch: &str) {
    for path in repository
        .git(&["ls-tree", "-r", "--name-only", branch])
        .lines()
    {
        let expected = crate::support::git_command(repository.path())
            .args(["show", &format!("{branch}:{path}")])
            .output()
            .expect("git runs")
            .stdout;
        let found =
            std::fs::read(tree.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(found == expected, "{path} is not as the draft has it");
    }
}

#[tokio::test]
async fn an_agent_that_dies_at_every_moment_of_an_instruction_carries_it_out_once() {
    let repository = Repository::amelia();
    let first = Start::of(&repository.address())
        .variable("EDIT_AGENT_CRASH_AT", CRASH_POINTS[0])
        .ready()
        .await;
    let asked = [
        "--no-wait",
        "--id",
        "survivor",
        "--replace",
        "src/pages/index.astro",
        "Rare stamps",
        "Sturdy stamps",
        "--write",
        "src/pages/new.md=# New",
    ];
    first.send_output(&asked).await;
    let (status, _) = first.ended().await;
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9),
        "it died at {}",
        CRASH_POINTS[0]
    );
    for point in &CRASH_POINTS[1..] {
        // The message comes back to each agent, and each dies one step further on.
        let environment = Start::of(&repository.address())
            .variable("EDIT_AGENT_CRASH_AT", point)
            .spawn();
        let (status, log) = environment.ended().await;
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9),
            "it did not die at {point}:\n{log}"
        );
    }
    let last = Start::of(&repository.address()).ready().await;
    // Whether or not the receipt was written before the last death, asking again gives the same answer.
    let receipt = last
        .lands(&[
            "--id",
            "survivor",
            "--replace",
            "src/pages/index.astro",
            "Rare stamps",
            "Sturdy stamps",
            "--write",
            "src/pages/new.md=# New",
        ])
        .await;
    assert_eq!(
        receipt["commit"],
        repository.git(&["rev-parse", "edit/local"])
    );
    assert_eq!(repository.commits_of("edit/local", "survivor"), 1);
    assert_eq!(repository.subjects("edit/local").len(), 1);
    last.page_with("/", "Sturdy stamps").await;
    last.page_with("/new", "New").await;
    assert_work_tree_is(&repository, &last.work_tree(), "edit/local");
    assert_eq!(
        last.lands(&["--delete", "src/pages/new.md"]).await["attempts"],
        1
    );
    repository.git(&["fsck", "--strict"]);
    last.stop().await;
}

#[tokio::test]
async fn a_change_that_was_half_written_when_the_agent_died_is_put_right() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address())
        .variable("EDIT_AGENT_CRASH_AT", "after-apply")
        .ready()
        .await;
    let tree = environment.work_tree();
    environment
        .send_output(&[
            "--no-wait",
            "--id",
            "half",
            "--write",
            "src/pages/half.md=# Half",
            "--delete",
            "src/pages/about.astro",
        ])
        .await;
    environment.ended().await;
    assert!(
        tree.join("src/pages/half.md").exists(),
        "it died after it wrote"
    );
    // Locks that a death in the middle of a commit leaves.
    let git_directory = tree.parent().expect("the workspace").join("draft.git");
    std::fs::write(git_directory.join("HEAD.lock"), "").expect("written");
    std::fs::write(git_directory.join("refs/heads/edit/local.lock"), "").expect("written");

    let again = Start::of(&repository.address()).ready().await;
    again
        .lands(&[
            "--id",
            "half",
            "--write",
            "src/pages/half.md=# Half",
            "--delete",
            "src/pages/about.astro",
        ])
        .await;
    assert_eq!(repository.commits_of("edit/local", "half"), 1);
    assert_work_tree_is(&repository, &tree, "edit/local");
    assert!(!tree.join("src/pages/about.astro").exists());
}

#[tokio::test]
async fn half_a_clone_and_half_an_install_are_begun_anew() {
    let repository = Repository::amelia();
    let workspace = tempfile::tempdir().expect("a folder");
    let place = workspace.path().display().to_string();
    // What a death during the clone leaves, and what one during the install leaves.
    std::fs::create_dir_all(workspace.path().join("staging/clone")).expect("made");
    git(
        workspace.path(),
        &["init", "--quiet", "--bare", "staging/clone"],
    );
    let environment = Start::of(&repository.address())
        .with(&["--workspace", &place])
        .ready()
        .await;
    environment.stop().await;
    let modules = workspace.path().join("tree/node_modules");
    std::fs::remove_file(modules.join(".edit-agent")).expect("the mark that is written last");
    std::fs::remove_dir_all(modules.join("astro")).expect("removed");
    let again = Start::of(&repository.address())
        .with(&["--workspace", &place])
        .ready()
        .await;
    again.page_with("/", "Rare stamps").await;
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_and_an_install_that_are_killed_are_begun_anew() {
    let site = Repository::amelia();
    let bare = site.bare_copy();
    let server = HttpServer::open_to_all(&bare).await;
    // A state of its own, so that nothing is in the store yet.
    let state = tempfile::tempdir().expect("a folder");
    let workspace = state.path().join("workspace");
    let start = || {
        Start::of(&server.url(&bare))
            .variable("EDIT_AGENT_STATE", &state.path().display().to_string())
            .with(&["--workspace", &workspace.display().to_string()])
    };

    server.hold_packs(true);
    let cloning = start().spawn();
    server.asked_for("POST").await;
    cloning.kill().await;
    assert!(
        workspace.join("staging/clone/HEAD").exists(),
        "in the middle"
    );
    assert!(!workspace.join("draft.git").exists());

    server.hold_packs(false);
    let installing = start().spawn();
    let modules = workspace.join("tree/node_modules");
    let begun = async {
        while !modules.exists() {
            tokio::task::yield_now().await;
        }
    };
    let begun = tokio::time::timeout(crate::support::PATIENCE, begun).await;
    begun.expect("an install makes node_modules");
    installing.kill().await;
    assert!(!modules.join(".edit-agent").exists(), "in the middle");

    // The package manager outlives the agent that started it. It must not meddle with the one that is started now.
    let orphans = running_in(&workspace.join("tree"));
    assert!(!orphans.is_empty(), "the package manager has ended already");
    let mut environment = start().spawn();
    while environment.event("phase").await["phase"] != "install" {}
    let still = running_in(&workspace.join("tree"));
    assert!(
        orphans.iter().all(|orphan| !still.contains(orphan)),
        "{orphans:?} are not ended"
    );
    environment.ready = environment.event("ready").await;
    assert_eq!(environment.ready["site"], "ok");
    environment
        .page_with("/", "Rare stamps, honestly described")
        .await;
    let listed = std::process::Command::new("npm")
        .args(["ls", "--all"])
        .current_dir(workspace.join("tree"))
        .output()
        .expect("npm runs");
    assert!(
        listed.status.success(),
        "{}",
        String::from_utf8_lossy(&listed.stderr)
    );
    environment.stop().await;
}

#[tokio::test]
async fn a_dead_agents_commit_that_somebody_carried_over_is_not_made_again() {
    let site = Repository::amelia();
    let bare = site.bare_copy();
    let dying = Start::of(&bare.address())
        .variable("EDIT_AGENT_CRASH_AT", "after-commit")
        .ready()
        .await;
    let clone = dying.workspace().join("draft.git").display().to_string();
    let asked = [
        "--id",
        "carried",
        "--write",
        "src/pages/carried.md=# Carried",
    ];
    dying.send(&asked).await;
    dying.ended().await;

    // With better words, and so as another commit. The trailers stay.
    let other = bare.clone_at("main");
    other.git(&["fetch", "--quiet", &clone, "edit/local"]);
    other.git(&["checkout", "--quiet", "-b", "edit/local", "FETCH_HEAD"]);
    let words = other.git(&["log", "-1", "--format=%B"]);
    let (_, trailers) = words.split_once("\n\n").expect("a subject and trailers");
    let words = format!("Better words\n\n{trailers}");
    other.git(&["commit", "--quiet", "--amend", "--message", &words]);
    other.git(&["push", "--quiet", &bare.address(), "edit/local"]);

    let again = Start::of(&bare.address()).ready().await;
    let receipt = again.lands(&asked).await;
    assert_eq!(bare.commits_of("edit/local", "carried"), 1);
    assert_eq!(bare.subjects("edit/local"), ["Better words"]);
    assert_eq!(receipt["commit"], bare.git(&["rev-parse", "edit/local"]));
    bare.is_shown_in("edit/local", &again.work_tree()).await;
}

/// The processes that run in a folder.
fn running_in(folder: &std::path::Path) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("Linux");
    processes
        .filter_map(|process| process.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|place| place == folder)
        })
        .collect()
}
