//! The agent dies at the worst moment, and starts again.

use crate::support::{Repository, Start, git};

/// Where a debug build can be made to kill itself, in the order in which an instruction comes by.
const CRASH_POINTS: [&str; 6] = ["before-apply", "after-apply", "after-commit", "after-push", "before-receipt", "before-delete"];

/// The work tree shows exactly what the draft's tip has.
fn assert_work_tree_is(repository: &Repository, tree: &std::path::Path, branch: &str) {
    for path in repository.git(&["ls-tree", "-r", "--name-only", branch]).lines() {
        let expected = crate::support::git_command(repository.path()).args(["show", &format!("{branch}:{path}")]).output().expect("git runs").stdout;
        let found = std::fs::read(tree.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(found == expected, "{path} is not as the draft has it");
    }
}

#[tokio::test]
async fn an_agent_that_dies_at_every_moment_of_an_instruction_carries_it_out_once() {
    let repository = Repository::amelia();
    let first = Start::of(&repository.address()).variable("EDIT_AGENT_CRASH_AT", CRASH_POINTS[0]).ready().await;
    let asked = ["--no-wait", "--id", "survivor", "--replace", "src/pages/index.astro", "Rare stamps", "Sturdy stamps", "--write", "src/pages/new.md=# New"];
    first.send_output(&asked).await;
    let (status, _) = first.ended().await;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "it died at {}", CRASH_POINTS[0]);
    for point in &CRASH_POINTS[1..] {
        // The message comes back to each agent, and each dies one step further on.
        let environment = Start::of(&repository.address()).variable("EDIT_AGENT_CRASH_AT", point).spawn();
        let (status, log) = environment.ended().await;
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "it did not die at {point}:\n{log}");
    }
    let last = Start::of(&repository.address()).ready().await;
    // Whether or not the receipt was written before the last death, asking again gives the same answer.
    let receipt = last.lands(&["--id", "survivor", "--replace", "src/pages/index.astro", "Rare stamps", "Sturdy stamps", "--write", "src/pages/new.md=# New"]).await;
    assert_eq!(receipt["commit"], repository.git(&["rev-parse", "edit/local"]));
    assert_eq!(repository.commits_of("edit/local", "survivor"), 1);
    assert_eq!(repository.subjects("edit/local").len(), 1);
    last.page_with("/", "Sturdy stamps").await;
    last.page_with("/new", "New").await;
    assert_work_tree_is(&repository, &last.work_tree(), "edit/local");
    assert_eq!(last.lands(&["--delete", "src/pages/new.md"]).await["attempts"], 1);
    repository.git(&["fsck", "--strict"]);
    last.stop().await;
}

#[tokio::test]
async fn a_change_that_was_half_written_when_the_agent_died_is_put_right() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address()).variable("EDIT_AGENT_CRASH_AT", "after-apply").ready().await;
    let tree = environment.work_tree();
    environment.send_output(&["--no-wait", "--id", "half", "--write", "src/pages/half.md=# Half", "--delete", "src/pages/about.astro"]).await;
    environment.ended().await;
    assert!(tree.join("src/pages/half.md").exists(), "it died after it wrote");
    // Locks that a death in the middle of a commit leaves.
    let git_directory = tree.parent().expect("the workspace").join("draft.git");
    std::fs::write(git_directory.join("HEAD.lock"), "").expect("written");
    std::fs::write(git_directory.join("refs/heads/edit/local.lock"), "").expect("written");

    let again = Start::of(&repository.address()).ready().await;
    again.lands(&["--id", "half", "--write", "src/pages/half.md=# Half", "--delete", "src/pages/about.astro"]).await;
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
    git(workspace.path(), &["init", "--quiet", "--bare", "staging/clone"]);
    let environment = Start::of(&repository.address()).with(&["--workspace", &place]).ready().await;
    environment.stop().await;
    let modules = workspace.path().join("tree/node_modules");
    std::fs::remove_file(modules.join(".edit-agent")).expect("the mark that is written last");
    std::fs::remove_dir_all(modules.join("astro")).expect("removed");
    let again = Start::of(&repository.address()).with(&["--workspace", &place]).ready().await;
    again.page_with("/", "Rare stamps").await;
    again.stop().await;
}
